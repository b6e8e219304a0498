"""Mozilla Common Voice: sentences that volunteers read aloud, in 290 languages (Ardila et al. 2020, arXiv 1912.06670).

Published (mozilladatacollective.com) as an archive a language; all of them unpack into the folder of their release,
``cv-corpus-17.0-2024-03-15/<locale>``, and that folder is ``corpus.path``. A locale is a BCP-47 code already. Not read
by lhotse's ``prepare_commonvoice``: it passes over missing clips without a count, stops at one that cannot be read,
wants columns that older releases lack, and finds 23 of the languages by itself.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from masr.corpora import Split, Utterance, there
from masr.corpora.tables import BadRow, made_of, read_table
from masr.progress import say

SPLITS = ("train", "dev", "test", "validated")
HELD_OUT = ("dev", "test")
# The folder of clips instead of a million of them: its time changes when a clip comes or goes.
SOURCES = (*(f"*/{split}.tsv" for split in SPLITS), "*/clips")
COLUMNS = ("path", "sentence", "client_id")
"""What is used of a table. A release adds, drops and moves columns, so that they are found by name. Quotation marks
belong to the sentence; only the first releases put them around fields, and only around those that needed it."""


def read(path: Path, languages: Sequence[str] = ()) -> dict[str, Split]:
    """Cuts by split; ``languages`` empty means all whose folder is there.

    ``validated`` holds all clips that listeners agreed on, several of a sentence, without those of dev and test, which
    are left out here. Their speakers and sentences may be among the rest. Clips that are missing or cannot be read
    become cuts that stage 0 rejects.
    """
    folders = _folders(path, languages)
    splits = {name: Split(name, partial(_read_split, folders, name)) for name in SPLITS}
    return splits | {"validated": Split("validated", partial(_read_validated, folders))}


def _read_validated(folders: Sequence[Path]) -> list[Utterance | BadRow]:
    """All validated clips but those of dev and test, of which a table may lack where nobody asked for its split."""
    held_out: set[Path] = set()
    for split in HELD_OUT:
        published = [folder for folder in folders if (folder / f"{split}.tsv").is_file()]
        held_out.update(row.audio for row in _read_split(published, split) if isinstance(row, Utterance))
    validated = _read_split(folders, "validated")
    kept = [row for row in validated if isinstance(row, BadRow) or row.audio not in held_out]
    if len(kept) < len(validated):
        say(f"prepare: validated: {len(validated) - len(kept)} of {len(validated)} clips are in dev or test: left out")
    return kept


def _read_split(folders: Sequence[Path], split: str) -> list[Utterance | BadRow]:
    """In the order of the tables of all languages."""
    utterances: list[Utterance | BadRow] = []
    for folder in folders:
        rows = _read_table(folder / f"{split}.tsv")
        utterances += made_of(rows, partial(_utterance, folder))
    return utterances


def _utterance(folder: Path, clip: str, text: str, speaker: str) -> Utterance:
    return utterance_of(folder / "clips", clip, text, folder.name, speaker)


def utterance_of(clips: Path, clip: str, *said: Any) -> Utterance:
    """Of a clip as tables name it, with or without its ending."""
    audio = clips / f"{clip.removesuffix('.mp3')}.mp3"
    return Utterance(audio.stem, audio, *said)


def _folders(path: Path, languages: Sequence[str]) -> list[Path]:
    """Folder of every language; the error says what is there instead."""
    found = {table.parent.name: table.parent for table in sorted(path.glob("*/train.tsv"))}
    missing = [code for code in languages if code not in found]
    if missing or not found:
        raise FileNotFoundError(
            f"corpus.path: no {', '.join(missing) or '<locale>'}/train.tsv in {path}; there is: {there(path)}. Set it "
            "to the folder that holds those of the languages, or choose among them with corpus.languages=[...]"
        )
    return [found[code] for code in languages or found]


def _read_table(file: Path) -> Iterator[list[str] | BadRow]:
    """``COLUMNS`` of every row."""
    if not file.is_file():
        raise FileNotFoundError(f"corpus.path: {file} is missing: unpack {file.parent.name} again")
    return read_table(file, COLUMNS)
