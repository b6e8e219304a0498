"""Mozilla Common Voice: sentences that volunteers read aloud, in 290 languages (Ardila et al. 2020, arXiv 1912.06670).

Published (mozilladatacollective.com) as an archive a language; all of them unpack into the folder of their release,
``cv-corpus-17.0-2024-03-15/<locale>``, and that folder is ``corpus.path``. A locale is a BCP-47 code already. Not read
by lhotse's ``prepare_commonvoice``: it passes over missing clips without a count, stops at one that cannot be read,
wants columns that older releases lack, and finds 23 of the languages by itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lhotse import MonoCut, SupervisionSegment

from masr.corpora import recording_of
from masr.progress import track

SPLITS = ("train", "dev", "test", "validated")
# The folder of clips instead of a million of them: its time changes when a clip comes or goes.
SOURCES = (*(f"*/{split}.tsv" for split in SPLITS), "*/clips")
COLUMNS = ("path", "sentence", "client_id")
"""What is used of a table. A release adds, drops and moves columns, so that they are found by name."""


@dataclass
class Split:
    """Cuts of a split, in the order of its tables: read when asked for, clips opened one by one."""

    name: str
    folders: list[Path]
    """One of each language."""

    @cached_property
    def rows(self) -> list[tuple[Path, list[str]]]:
        """Folder of the language, and ``COLUMNS``, of every clip."""
        return [(folder, row) for folder in self.folders for row in _read_table(folder / f"{self.name}.tsv")]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[MonoCut]:
        for folder, (clip, text, speaker) in track(self.rows, f"prepare: {self.name}", len(self), unit="recordings"):
            yield _cut(folder / "clips" / f"{clip.removesuffix('.mp3')}.mp3", text, folder.name, speaker)


def read(path: Path, languages: Sequence[str] = ()) -> dict[str, Split]:
    """Cuts by split; ``languages`` empty means all whose folder is there.

    ``validated`` holds all clips that listeners agreed on, those of dev and test among them, and several of a sentence:
    for ``corpus.train=validated`` there have to be other recordings to test on. Clips that are missing or cannot be
    read become cuts that stage 0 rejects.
    """
    folders = _folders(path, languages)
    return {name: Split(name, folders) for name in SPLITS}


def _folders(path: Path, languages: Sequence[str]) -> list[Path]:
    """Folder of every language; the error says what is there instead."""
    found = {table.parent.name: table.parent for table in sorted(path.glob("*/train.tsv"))}
    missing = [code for code in languages if code not in found]
    if missing or not found:
        there = ", ".join(sorted(entry.name for entry in path.iterdir())[:20]) or "nothing"
        raise FileNotFoundError(
            f"corpus.path: no {', '.join(missing) or '<locale>'}/train.tsv in {path}; there is: {there}. Set it to the "
            "folder that holds those of the languages, or choose among them with corpus.languages=[...]"
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


def _cut(clip: Path, text: str, language: str, speaker: str) -> MonoCut:
    recording = recording_of(clip)
    supervision = SupervisionSegment(
        id=recording.id, recording_id=recording.id, start=0.0, duration=recording.duration, channel=0, text=text,
        language=language, speaker=speaker,
    )  # fmt: skip
    return MonoCut(
        id=recording.id, start=0.0, duration=recording.duration, channel=0, recording=recording,
        supervisions=[supervision],
    )  # fmt: skip
