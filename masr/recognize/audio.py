"""Audio of one recording, block by block."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from masr.data.audio import Audio, read_audio
from masr.data.features import SAMPLING_RATE

BLOCK_SECONDS = 10


@dataclass
class AudioStream:
    """Mono samples at 16 kHz."""

    samples: np.ndarray
    warnings: list[str] = field(default_factory=list)

    def blocks(self) -> Iterator[np.ndarray]:
        """(S,) each, one after another."""
        size = BLOCK_SECONDS * SAMPLING_RATE
        for start in range(0, len(self.samples), size):
            yield self.samples[start : start + size]


def open_audio(audio: Audio, sample_rate: int = SAMPLING_RATE, channel: int | None = None) -> AudioStream:
    """The audio of a path or of samples; UnusableAudio says what is wrong with it."""
    return AudioStream(read_audio(audio, sample_rate))
