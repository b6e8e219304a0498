"""Samples in arrays of any type, as other programs give them -> float32. S samples, C channels."""

import numpy as np
from torch import Tensor

from masr.data.audio_checks import UnusableAudio, rate_problem
from masr.recognize.decoder import CHUNK, Decoder

MOST_CHANNELS = 64
"""Channels of the largest microphone arrays: where neither axis is shorter, the array is not audio."""
INTEGERS = (2.0**15, 2.0**23, 2.0**31)
"""Ranges of the integers of sound cards: 16, 24 and 32 bits."""


class ArrayDecoder(Decoder):
    """Converts samples of an array to float32, a part at a time, so that hours of them are not held twice.

    (S,), (C, S) and (S, C) are understood: the shorter axis is that of the channels, of (C, C) the first one. Signed
    integers are divided by the range of what they hold, 2^15, 2^23 or 2^31, whichever is the smallest that their
    largest value fits into (2^7 for int8): an int64 array from a 16-bit file is common. Unsigned integers have their
    zero in the middle, 128 for uint8. UnusableAudio says what is not samples.
    """

    def __init__(self, array: np.ndarray | Tensor, sample_rate: float):
        super().__init__()
        samples = _as_numpy(array)
        if samples.dtype.kind not in "fiu" or samples.ndim not in (1, 2):
            raise UnusableAudio(
                f"expected samples (S,) or (channels, S), floats or integers, found {samples.dtype} {samples.shape}"
            )
        if samples.size == 0:
            raise UnusableAudio("no samples")
        if problem := rate_problem(sample_rate):
            raise UnusableAudio(problem)
        self.samples = _channels_last(samples)
        self.rate, self.channels = sample_rate, self.samples.shape[1]
        self.claimed, self.seconds = len(self.samples), len(self.samples) / sample_rate
        self.middle, self.range = _middle_and_range(self.samples)
        if samples.dtype.kind == "f":
            self.peak = max(-float(samples.min()), float(samples.max()))
        self.position = 0
        self.ahead = self._decode()

    def _decode(self) -> np.ndarray:
        part = self.samples[self.position : self.position + CHUNK]
        self.position += len(part)
        if part.dtype.kind == "f":
            return part.astype(np.float32)
        return ((part.astype(np.float64) - self.middle) / self.range).astype(np.float32)


def _as_numpy(array: np.ndarray | Tensor) -> np.ndarray:
    if not isinstance(array, Tensor):
        return array
    array = array.detach().cpu()
    if array.dtype.is_floating_point:
        array = array.float()  # numpy has no bfloat16
    return array.numpy()


def _channels_last(samples: np.ndarray) -> np.ndarray:
    """(S, C), a view."""
    if samples.ndim == 1:
        return samples[:, np.newaxis]
    if min(samples.shape) > MOST_CHANNELS:
        raise UnusableAudio(f"expected samples (S,) or (channels, S), found {samples.shape}: no axis is of channels")
    return samples if samples.shape[1] < samples.shape[0] else samples.T


def _middle_and_range(samples: np.ndarray) -> tuple[float, float]:
    """The value that stands for silence, and how far from it samples can be."""
    kind, bits = samples.dtype.kind, 8 * samples.dtype.itemsize
    if kind == "f":
        return 0.0, 1.0
    if kind == "u":
        return 2.0 ** (bits - 1), 2.0 ** (bits - 1)
    if bits == 8:
        return 0.0, 2.0**7
    peak = max(-float(samples.min()), float(samples.max()) + 1)
    fitting = [range_ for range_ in INTEGERS if peak <= range_]
    if not fitting:
        raise UnusableAudio(f"integers reach {peak:.3g}; expected those of 32 bits at most")
    return 0.0, fitting[0]
