"""freevoices: real speech in eleven languages with translations, in the box (egs/freevoices/corpus/README.md).

One Opus file holds all recordings of a source and language; ``manifest.jsonl`` has one line a recording.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from lhotse import MonoCut, Recording, SupervisionSegment

SOURCES = ("manifest.jsonl", "*.opus")


def read(path: Path, languages: Sequence[str] = ()) -> dict[str, list[MonoCut]]:
    """Cuts by split; ``languages`` empty means all. ValueError names the manifest line that is wrong."""
    splits: dict[str, list[MonoCut]] = defaultdict(list)
    recordings: dict[str, Recording] = {}
    for number, line in enumerate((path / "manifest.jsonl").read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            if languages and row["language"] not in languages:
                continue
            audio = row["audio"]
            if audio not in recordings:
                recordings[audio] = Recording.from_file(path / audio)
            splits[row["split"]].append(_cut(row, recordings[audio]))
        except (KeyError, ValueError) as error:
            raise ValueError(f"{path / 'manifest.jsonl'}:{number}: {type(error).__name__} {error}") from error
    return dict(splits)


def _cut(row: dict, recording: Recording) -> MonoCut:
    supervision = SupervisionSegment(
        id=row["id"], recording_id=recording.id, start=0.0, duration=row["duration"], channel=0, text=row["text"],
        language=row["language"], speaker=row["speaker"], custom={"translation": row["translation"]},
    )  # fmt: skip
    return MonoCut(
        id=row["id"], start=row["start"], duration=row["duration"], channel=0, recording=recording,
        supervisions=[supervision],
    )  # fmt: skip
