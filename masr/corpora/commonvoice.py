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
from masr.progress import say

SPLITS = ("train", "dev", "test", "validated")
HELD_OUT = ("dev", "test")
# The folder of clips instead of a million of them: its time changes when a clip comes or goes.
SOURCES = (*(f"*/{split}.tsv" for split in SPLITS), "*/clips")
COLUMNS = ("path", "sentence", "client_id")
"""What is used of a table. A release adds, drops and moves columns, so that they are found by name."""


def read(path: Path, languages: Sequence[str] = ()) -> dict[str, Split]:
    """Cuts by split; ``languages`` empty means all whose folder is there.

    ``validated`` holds all clips that listeners agreed on, several of a sentence, without those of dev and test, which
    are left out here. Their speakers and sentences may be among the rest. Clips that are missing or cannot be read
    become cuts that stage 0 rejects.
    """
    folders = _folders(path, languages)
    splits = {name: Split(name, partial(_read_split, folders, name)) for name in SPLITS}
    return splits | {"validated": Split("validated", partial(_read_validated, folders))}


def _read_validated(folders: Sequence[Path]) -> list[Utterance]:
    """All validated clips but those of dev and test, of which a table may lack where nobody asked for its split."""
    held_out: set[Path] = set()
    for split in HELD_OUT:
        published = [folder for folder in folders if (folder / f"{split}.tsv").is_file()]
        held_out.update(utterance.audio for utterance in _read_split(published, split))
    validated = _read_split(folders, "validated")
    kept = [utterance for utterance in validated if utterance.audio not in held_out]
    if len(kept) < len(validated):
        say(f"prepare: validated: {len(validated) - len(kept)} of {len(validated)} clips are in dev or test: left out")
    return kept


def _read_split(folders: Sequence[Path], split: str) -> list[Utterance]:
    """In the order of the tables of all languages."""
    return [
        utterance_of(folder / "clips", clip, text, folder.name, speaker)
        for folder in folders
        for clip, text, speaker in _read_table(folder / f"{split}.tsv")
    ]


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


def _read_table(file: Path) -> list[list[str]]:
    """``COLUMNS`` of every line; ValueError names what is wrong in which line."""
    if not file.is_file():
        raise FileNotFoundError(f"corpus.path: {file} is missing: unpack {file.parent.name} again")
    try:
        with file.open(encoding="utf-8") as lines:  # not splitlines(), which also splits at rare separators in a text
            header = _fields(next(lines, ""))
            if missing := [name for name in COLUMNS if name not in header]:
                raise ValueError(f"{file}:1: expected columns {', '.join(COLUMNS)}, found no {', '.join(missing)}")
            places = [header.index(name) for name in COLUMNS]
            return [[fields[place] for place in places] for fields in _rows(file, lines, len(header))]
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 text: {error}") from error


def _rows(file: Path, lines: Iterator[str], columns: int) -> Iterator[list[str]]:
    for number, line in enumerate(lines, 2):
        if len(fields := _fields(line)) != columns:
            raise ValueError(
                f"{file}:{number}: expected {columns} columns with TABs between them, found {len(fields)}: {line!r}; "
                "correct or delete the line"
            )
        yield fields


def _fields(line: str) -> list[str]:
    """Quotation marks belong to the sentence: these tables have no quoted fields."""
    return line.rstrip("\n").split("\t")
