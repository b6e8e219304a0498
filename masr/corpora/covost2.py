"""CoVoST 2: Common Voice 4 with translations into English of 21 languages (Wang et al. 2020, arXiv 2007.10310).

Published as tables of translations, without audio, and a script, ``get_covost_splits.py``, that joins them with Common
Voice's ``validated.tsv`` and writes ``covost_v2.<language>_en.<split>.tsv``. ``corpus.path`` is the folder that holds
``<language>/clips``; the tables are beside these folders or in them. English, whose tables are those of its translation
into German, has transcripts only.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from masr.corpora import Split, Utterance
from masr.corpora.commonvoice import utterance_of
from masr.corpora.tables import BadRow, made_of, read_table

SPLITS = ("train", "dev", "test")
# The folder of clips instead of a million of them: its time changes when a clip comes or goes.
SOURCES = (*(f"{folder}covost_v2.*.{split}.tsv" for folder in ("", "*/") for split in SPLITS), "*/clips")
COLUMNS = ("path", "sentence", "translation", "client_id")
INTO = "en"
ENGLISH_INTO = "de"
"""The recordings and splits of English are the same for all 15 languages into which it is translated."""


def read(path: Path, languages: Sequence[str] = ()) -> dict[str, Split]:
    """Cuts by split; ``languages`` empty means all that have tables.

    ``train`` is CoVoST's own, larger than Common Voice's. Clips that are missing or cannot be read, as some of Common
    Voice 4 are empty, become cuts that stage 0 rejects.
    """
    known = _languages(path)
    missing = [_file_name(code, "train") for code in languages if code not in known]
    if missing or not known:
        raise FileNotFoundError(
            f"corpus.path: no {', '.join(missing) or _file_name('<language>', 'train')} in {path} or in its folder of "
            f"the language; languages with one: {', '.join(known) or 'none'}. get_covost_splits.py of CoVoST makes "
            "it; choose among languages with corpus.languages=[...]"
        )
    chosen = list(languages or known)
    if silent := [f"{code}/clips" for code in chosen if not (path / code / "clips").is_dir()]:
        raise FileNotFoundError(
            f"corpus.path: no {', '.join(silent)} in {path}: unpack the archive of each language of Common Voice 4 "
            "into a folder of its own, named as the language"
        )
    return {name: Split(name, partial(_read_split, path, chosen, name)) for name in SPLITS}


def _read_split(path: Path, languages: Sequence[str], split: str) -> list[Utterance | BadRow]:
    """In the order of the tables of all languages."""
    utterances: list[Utterance | BadRow] = []
    for code in languages:
        rows = _read_table(_table(path, code, split))
        utterances += made_of(rows, partial(_utterance, path / code / "clips", code))
    return utterances


def _utterance(clips: Path, language: str, clip: str, text: str, translation: str, speaker: str) -> Utterance:
    return utterance_of(clips, clip, text, language, speaker, _translation(language, translation))


def _translation(language: str, text: str) -> dict[str, str] | None:
    return {INTO: text} if language != INTO and text.strip() else None


def _languages(path: Path) -> list[str]:
    """Those with a table to train on."""
    tables = [*path.glob("covost_v2.*.train.tsv"), *path.glob("*/covost_v2.*.train.tsv")]
    codes = {table.name.split(".")[1].split("_")[0] for table in tables}
    return sorted(code for code in codes if _table(path, code, "train").is_file())


def _file_name(language: str, split: str) -> str:
    return f"covost_v2.{language}_{ENGLISH_INTO if language == INTO else INTO}.{split}.tsv"


def _table(path: Path, language: str, split: str) -> Path:
    """The table in the folder of its language, else the one beside it."""
    name = _file_name(language, split)
    return path / language / name if (path / language / name).is_file() else path / name


def _read_table(file: Path) -> Iterator[list[str] | BadRow]:
    """``COLUMNS`` of every row."""
    if not file.is_file():
        raise FileNotFoundError(f"corpus.path: {file} is missing: get_covost_splits.py writes it beside that of train")
    # as get_covost_splits.py writes: quotation marks are text, and so is whatever follows a backslash
    return read_table(file, COLUMNS, escaped=True)
