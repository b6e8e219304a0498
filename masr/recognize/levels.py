"""What is done to the channels of a recording before anything else: levels that make sense, one channel of several.

Both act on blocks and remember what they found, so that a recording is treated alike to its end. S samples, C channels.
"""

import numpy as np

from masr.data.audio_checks import loudest_if_cancelled, power
from masr.recognize.arrays import INTEGERS

LOUD = 2.0
"""What decoders of lossy formats stay below; louder samples are scaled down."""
LOUD_FRACTIONS = 100.0
"""Samples that reach more were integers, whatever their type is now; normalised to a variance of 1 they reach 20."""
ENOUGH_SIGNAL = 0.16
"""Sum of squares of a block whose channels can be compared: that of a second of 16 kHz at -50 dB of full scale."""


class Levels:
    """Scales samples down that are far outside -1 to 1, by what their largest one so far needs."""

    def __init__(self, warnings: list[str], peak: float = 0.0):
        """``peak`` is the largest absolute value of the recording, as far as it is known."""
        self.warnings = warnings
        self.scale = 1.0
        self._look_at(peak)

    def __call__(self, channels: np.ndarray) -> np.ndarray:
        """(C, S) samples, scaled."""
        self._look_at(float(np.abs(channels).max(initial=0.0)))
        return channels if self.scale == 1.0 else channels / np.float32(self.scale)

    def _look_at(self, peak: float) -> None:
        if not peak > LOUD * self.scale:
            return
        self.scale, why = _scale_of(peak)
        self.warnings.append(f"samples reach {peak:.4g}, expected -1 to 1: {why}")


def _scale_of(peak: float) -> tuple[float, str]:
    """By what samples that reach ``peak`` are divided, and why."""
    if peak <= LOUD_FRACTIONS:
        return peak, "scaled down"
    for largest in INTEGERS:
        if peak <= largest:
            bits = int(np.log2(largest)) + 1
            return largest, f"taken for integers of {bits} bits and divided by {largest:.0f}"
    return peak, "scaled down"


class Mixer:
    """Makes one channel of several: their mean, or from where they cancel each other the loudest, or the chosen one."""

    def __init__(self, warnings: list[str], channel: int | None = None):
        self.warnings, self.channel = warnings, channel
        self.signal = 0.0

    def __call__(self, channels: np.ndarray) -> np.ndarray:
        """(C, S) -> (S,)."""
        if self.channel is not None:
            return channels[self.channel]
        mixed = channels.mean(axis=0)
        loudest = loudest_if_cancelled(channels, mixed)
        if loudest is None:
            return mixed
        if power(channels[loudest]) >= ENOUGH_SIGNAL:
            self.channel = loudest
            self.warnings.append(
                "its channels are in opposite phase, so that their mean is silent: "
                f"the loudest is used, channel {loudest}"
            )
        return channels[loudest]
