"""Which audio files a split was made of, whether they are still as they were, and what stands for its content."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lhotse.cut import Cut

from masr.data.audio_hash import audio_hash
from masr.files import DAMAGE, writing, written_beside

MISSING = (-1, -1)


class RecordingList:
    """Audio files with their sizes and times, so that one that is mended in place is looked at again."""

    def __init__(self) -> None:
        self.states: dict[str, tuple[int, int]] = {}

    def watch(self, cuts: Iterable[Any]) -> Iterator[Any]:
        """Yields ``cuts``, and notes their files."""
        for cut in cuts:
            if isinstance(cut, Cut):
                for path in audio_files(cut):
                    if path not in self.states:
                        self.states[path] = _state(path)
            yield cut

    def write(self, file: Path) -> None:
        """A line a file: size, time, path."""
        with (
            writing(file),
            written_beside(file) as partial,
            partial.open("w", encoding="utf-8", errors="surrogateescape") as lines,
        ):
            for path, (size, time) in self.states.items():
                lines.write(f"{size}\t{time}\t{json.dumps(path)}\n")

    @staticmethod
    def is_up_to_date(file: Path) -> bool:
        """Whether all files of a written list have the sizes and times of then."""
        try:
            with file.open(encoding="utf-8") as lines:
                for line in lines:
                    size, time, path = line.rstrip("\n").split("\t", 2)
                    if _state(json.loads(path)) != (int(size), int(time)):
                        return False
        except (OSError, *DAMAGE):
            return False
        return True


class AudioHashes:
    """The hash of a cut's audio, of which each file is read once."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def of(self, cut: Cut) -> str:
        """That of its file; of several files, all of them."""
        hashes = []
        for path in audio_files(cut):
            if path not in self.known:
                self.known[path] = audio_hash(Path(path))
            hashes.append(self.known[path])
        return "+".join(hashes)


def audio_files(cut: Cut) -> list[str]:
    """Paths of the files that a cut's audio comes from."""
    if not cut.has_recording:
        return []
    return [str(source.source) for source in cut.recording.sources if source.type == "file"]


def same_audio(cuts: Iterable[Cut]) -> bool:
    """Whether all audio files of prepared cuts still have the hashes of stage 0."""
    hashes = AudioHashes()
    try:
        return all(hashes.of(cut) == (cut.custom or {}).get("audio_hash") for cut in cuts)
    except OSError:
        return False


def split_content(cuts: list[Cut]) -> dict[str, Any]:
    """Hashes of the ``audio`` of a split, wherever its files lie, and of its ``texts`` (with who says them); how many
    ``recordings`` it has."""
    audio, texts = hashlib.sha256(), hashlib.sha256()
    for cut in cuts:
        supervision = cut.supervisions[0]
        piece = [cut.id, (cut.custom or {}).get("audio_hash"), round(cut.start, 6), round(cut.duration, 6), cut.channel]
        said = [cut.id, supervision.text, supervision.language, supervision.speaker, supervision.custom]
        audio.update(json.dumps(piece).encode())
        texts.update(json.dumps(said, sort_keys=True).encode())
    return {"audio": audio.hexdigest(), "texts": texts.hexdigest(), "recordings": len(cuts)}


def _state(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return MISSING
    return found.st_size, found.st_mtime_ns
