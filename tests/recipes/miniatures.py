"""Miniature corpora: real freevoices recordings, laid out exactly as a dataset is published.

One function a dataset, ``<dataset>(folder, ...)``. Tests are not a package, so a ``conftest.py`` puts this folder on
``sys.path``; then ``import miniatures``.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

REPOSITORY = Path(__file__).resolve().parents[2]
CORPUS = REPOSITORY / "egs/freevoices/corpus"
SAMPLING_RATE = 16000
GAP = 0.1  # seconds of silence after each recording of a freevoices file
COUNTS = {"train": 6, "dev": 2, "test": 3}
SHORTEST, LONGEST = 0.6, 1.8  # seconds


@cache
def published_rows() -> list[dict]:
    """Lines of the manifest of the shipped corpus."""
    return [json.loads(line) for line in (CORPUS / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]


def choose(languages: Sequence[str], counts: Mapping[str, int], longest: float = LONGEST) -> list[dict]:
    """The first ``counts[split]`` recordings of moderate length of every split and language."""
    chosen: dict[tuple[str, str], list[dict]] = defaultdict(list)
    for row in published_rows():
        group = chosen[row["language"], row["split"]]
        fits = SHORTEST < row["duration"] < longest and len(row["text"]) < 12 * row["duration"]
        if row["language"] in languages and fits and len(group) < counts.get(row["split"], 0):
            group.append(row)
    return [row for group in chosen.values() for row in group]


def samples_of(row: dict) -> np.ndarray:
    """(S,) float32 samples of a recording of the shipped corpus."""
    start, frames = (round(row[name] * SAMPLING_RATE) for name in ("start", "duration"))
    return soundfile.read(CORPUS / row["audio"], start=start, frames=frames, dtype="float32")[0]


def freevoices(
    folder: Path, languages: Sequence[str] = ("ro", "es", "fr"), counts: Mapping[str, int] = COUNTS
) -> list[dict]:
    """freevoices as in egs/freevoices/corpus: one Opus file a source and language, and ``manifest.jsonl``.

    Returns the lines of the manifest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    audio: dict[str, list[np.ndarray]] = defaultdict(list)
    rows = []
    for row in choose(languages, counts):
        before, samples = audio[row["audio"]], samples_of(row)
        rows.append(row | {"start": sum(map(len, before)) / SAMPLING_RATE, "duration": len(samples) / SAMPLING_RATE})
        before += [samples, np.zeros(int(GAP * SAMPLING_RATE), dtype=np.float32)]
    for name, parts in audio.items():
        soundfile.write(folder / name, np.concatenate(parts), SAMPLING_RATE, format="OGG", subtype="OPUS")
    write_manifest(folder, rows)
    return rows


def write_manifest(folder: Path, rows: Sequence[dict]) -> None:
    """``manifest.jsonl`` of a freevoices folder."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (folder / "manifest.jsonl").write_text("".join(lines), encoding="utf-8")


def add_recording(folder: Path, row: dict, samples: np.ndarray, rate: int = SAMPLING_RATE) -> dict:
    """Writes (S,) or (S, channels) samples as ``row["audio"]`` (lossless) and returns the row with its true times."""
    soundfile.write(folder / row["audio"], samples, rate, subtype="FLOAT" if row["audio"].endswith("wav") else None)
    return row | {"start": 0.0, "duration": len(samples) / rate}
