"""Recordings of noise and of rooms, from a folder or a lhotse manifest."""

from pathlib import Path

import numpy as np
from lhotse import CutSet, Recording, RecordingSet, load_manifest
from lhotse.cut import Cut

from masr.data.audio_checks import UnusableAudio
from masr.data.features import SAMPLING_RATE, load_audio

AUDIO = {".wav", ".flac", ".ogg", ".opus", ".mp3"}
"""Names of files that are recordings end so."""
TRIES = 5
"""Recordings that are drawn, one after another, until one is usable: noise may have silent stretches."""


class RecordingPool:
    """Pieces of recordings drawn at random; a file is opened only when it is drawn."""

    def __init__(self, path: str, option: str):
        """FileNotFoundError when there is nothing at ``path``, which ``option`` names."""
        self.path, self.option = Path(path), option
        self.recordings = self._found()
        if not self.recordings:
            raise FileNotFoundError(
                f"{option}: no recordings in {path}; expected a folder with files that end in "
                f"{', '.join(sorted(AUDIO))}, or a lhotse manifest"
            )

    def _found(self) -> list[Path] | list[Cut]:
        """Audio files of a folder, in the order of their names, or what a manifest lists."""
        if self.path.is_dir():
            return sorted(file for file in self.path.rglob("*") if file.suffix.lower() in AUDIO)
        if not self.path.is_file():
            return []
        manifest = load_manifest(self.path)
        if isinstance(manifest, RecordingSet):
            return [recording.to_cut() for recording in manifest]
        if isinstance(manifest, CutSet):
            return list(manifest)
        raise ValueError(f"{self.option}: {self.path} lists {type(manifest).__name__}; expected cuts or recordings")

    def content(self) -> list[tuple[str, float]]:
        """Names and sizes (bytes of files, seconds of cuts) of all recordings, in the order of drawing."""
        found: list[tuple[str, float]] = []
        for recording in self.recordings:
            if isinstance(recording, Path):
                found.append((str(recording.relative_to(self.path)), recording.stat().st_size))
            else:
                found.append((recording.id, recording.duration))
        return found

    def draw(self, random: np.random.Generator, seconds: float) -> np.ndarray:
        """(S,) samples at 16 kHz of some place of a recording; all of one that is not longer than ``seconds``.

        UnusableAudio when several cannot be used.
        """
        problem = ""
        for _ in range(TRIES):
            chosen = self.recordings[random.integers(len(self.recordings))]
            place = random.random()
            try:
                return load_audio(_piece(_cut_of(chosen), place, seconds))
            except UnusableAudio as error:
                problem = f"{chosen if isinstance(chosen, Path) else chosen.id}: {error}"
        raise UnusableAudio(f"{self.option}: {TRIES} recordings in a row cannot be used, the last one {problem}")


def _cut_of(recording: Path | Cut) -> Cut:
    if not isinstance(recording, Path):
        return recording
    try:
        return Recording.from_file(recording).to_cut()
    except Exception as error:  # lhotse's backends raise many kinds; all mean that the file is not readable
        raise UnusableAudio(f"cannot be read: {type(error).__name__}: {error}"[:300]) from error


def _piece(cut: Cut, place: float, seconds: float) -> Cut:
    """``seconds`` of a cut, from a ``place`` between 0 (its beginning) and 1 (so that the piece ends with the cut)."""
    if cut.duration <= seconds:
        return cut
    start = int(place * (cut.duration - seconds) * SAMPLING_RATE) / SAMPLING_RATE
    return cut.truncate(offset=start, duration=seconds)


def fitted(samples: np.ndarray, length: int, random: np.random.Generator) -> np.ndarray:
    """(length,) of samples (S,): a piece of them, or they are repeated, from a place drawn at random."""
    if len(samples) >= length:
        start = int(random.integers(len(samples) - length + 1))
        return samples[start : start + length]
    start = int(random.integers(len(samples)))
    repeated = np.tile(samples, -(-length // len(samples)) + 1)
    return repeated[start : start + length]
