"""freevoices: real speech in eleven languages with translations, in the box (egs/freevoices/corpus/README.md).

One Opus file holds all recordings of a source and language; ``manifest.jsonl`` has one line a recording. Any folder
like this is read, e.g. that of phoneprompts; translations may be missing there.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lhotse import Recording, SupervisionSegment
from lhotse.cut import Cut

from masr.corpora import cut_with, recording_of
from masr.corpora.tables import BadRow, read_objects

SOURCES = ("manifest.jsonl", "*.opus")
TEXTS = ("id", "audio", "language", "split", "speaker")
FIELDS = (*TEXTS, "start", "duration", "text")
LONGEST = 1e9
"""Seconds: no recording is longer than 30 years."""


def read(path: Path, languages: Sequence[str] = ()) -> dict[str, list[Cut | BadRow]]:
    """Cuts by split; ``languages`` empty means all. A bad row that does not say its split is in each of them.

    ValueError when no row is good.
    """
    splits: dict[str, list[Cut | BadRow]] = defaultdict(list)
    of_any_split: list[BadRow] = []
    recordings: dict[str, Recording] = {}
    rows = list(_read_manifest(path / "manifest.jsonl"))
    bad_rows = [row for row in rows if isinstance(row, BadRow)]
    if bad_rows and len(bad_rows) == len(rows):
        raise ValueError(f"corpus.path: no row can be read; the first, {bad_rows[0].where}: {bad_rows[0].reason}")
    for row in rows:
        if isinstance(row, BadRow):
            (splits[row.split] if row.split else of_any_split).append(row)
            continue
        audio = row["audio"]
        if languages and row["language"] not in languages:
            continue
        if audio not in recordings:
            recordings[audio] = recording_of(path / audio)
        splits[row["split"]].append(_cut(row, recordings[audio]))
    return {split: [*of_any_split, *cuts] for split, cuts in splits.items()}


def _read_manifest(manifest: Path) -> Iterator[dict[str, Any] | BadRow]:
    if not manifest.is_file():
        raise FileNotFoundError(
            f"corpus.path: {manifest} is missing: {manifest.parent} is not the folder of such a pack"
        )
    for row in read_objects(manifest):
        if isinstance(row, BadRow):
            yield row
            continue
        where, fields = row
        problem = _problem(fields)
        split = fields.get("split")
        if problem:
            yield BadRow(where, problem, split=split if isinstance(split, str) else "")
        else:
            yield fields


def _problem(row: dict[str, Any]) -> str | None:
    """What a row lacks or what is wrong with it."""
    if missing := [name for name in FIELDS if name not in row]:
        return f"no {', '.join(missing)}; expected {', '.join(FIELDS)}"
    for name in TEXTS:
        if not isinstance(row[name], str) or "\0" in row[name]:
            return f"{name}: expected text, found {row[name]!r}"
    if not isinstance(row["text"], str | None):
        return f"text: expected text or null, found {row['text']!r}"
    for name in ("start", "duration"):
        if not isinstance(row[name], int | float) or not 0 <= row[name] < LONGEST:
            return f"{name}: expected seconds, found {row[name]!r}"
    translation = row.get("translation") or {}
    if not isinstance(translation, dict) or not all(isinstance(text, str) for text in translation.values()):
        return f"translation: expected texts by language, found {translation!r}"
    return None


def _cut(row: dict, recording: Recording) -> Cut:
    custom = {"translation": row["translation"]} if "translation" in row else None
    supervision = SupervisionSegment(
        id=row["id"],
        recording_id=recording.id,
        start=0.0,
        duration=row["duration"],
        text=row["text"],
        language=row["language"],
        speaker=row["speaker"],
        custom=custom,
    )
    return cut_with(recording, row["start"], row["duration"], supervision)
