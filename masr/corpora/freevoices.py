"""freevoices: real speech in eleven languages with translations, in the box (egs/freevoices/corpus/README.md).

One Opus file holds all recordings of a source and language; ``manifest.jsonl`` has one line a recording.
"""

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from lhotse import Recording, SupervisionSegment
from lhotse.cut import Cut

from masr.corpora import cut_with, recording_of

SOURCES = ("manifest.jsonl", "*.opus")
TEXTS = ("id", "audio", "language", "split", "speaker")
FIELDS = (*TEXTS, "start", "duration", "text", "translation")


def read(path: Path, languages: Sequence[str] = ()) -> dict[str, list[Cut]]:
    """Cuts by split; ``languages`` empty means all. ValueError names the manifest line that is wrong."""
    splits: dict[str, list[Cut]] = defaultdict(list)
    recordings: dict[str, Recording] = {}
    for number, line in enumerate(_lines(path / "manifest.jsonl"), 1):
        try:
            row = json.loads(line)
            _check(row)
        except ValueError as error:
            raise ValueError(f"{path / 'manifest.jsonl'}:{number}: {error}") from error
        if languages and row["language"] not in languages:
            continue
        audio = row["audio"]
        if audio not in recordings:
            recordings[audio] = recording_of(path / audio)
        splits[row["split"]].append(_cut(row, recordings[audio]))
    return dict(splits)


def _lines(manifest: Path) -> list[str]:
    if not manifest.is_file():
        raise FileNotFoundError(f"corpus.path: {manifest} is missing: {manifest.parent} is not a freevoices folder")
    try:
        return manifest.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{manifest}: not UTF-8 text: {error}") from error


def _check(row: object) -> None:
    """ValueError says what a line lacks or what is wrong with it."""
    if not isinstance(row, dict):
        raise ValueError(f"expected a JSON object, found {row!r}")
    if missing := [name for name in FIELDS if name not in row]:
        raise ValueError(f"no {', '.join(missing)}; expected {', '.join(FIELDS)}")
    for name in TEXTS:
        if not isinstance(row[name], str):
            raise ValueError(f"{name}: expected text, found {row[name]!r}")
    for name in ("start", "duration"):
        if not isinstance(row[name], int | float) or not 0 <= row[name] < math.inf:
            raise ValueError(f"{name}: expected seconds, found {row[name]!r}")


def _cut(row: dict, recording: Recording) -> Cut:
    supervision = SupervisionSegment(
        id=row["id"], recording_id=recording.id, start=0.0, duration=row["duration"], text=row["text"],
        language=row["language"], speaker=row["speaker"], custom={"translation": row["translation"]},
    )  # fmt: skip
    return cut_with(recording, row["start"], row["duration"], supervision)
