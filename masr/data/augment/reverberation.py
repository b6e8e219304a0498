"""Rooms: impulse responses, recorded or made up, and what speech becomes in them. S samples at 16 kHz, R of a room."""

import numpy as np
from scipy.signal import oaconvolve

from masr.config import Reverberation
from masr.data.augment.levels import active_power, ratio_of
from masr.data.augment.pool import RecordingPool
from masr.data.features import SAMPLING_RATE
from masr.data.random import between

LONGEST = 2.0
"""Seconds of an impulse response that count."""
FIRST = 0.0025
"""Seconds from the direct path to the first reflection: 0.85 m more."""


class Room:
    """Puts an utterance into a room: a step of `masr.data.augment.waveform`."""

    def __init__(self, options: Reverberation):
        """FileNotFoundError when there are no impulse responses where the options say."""
        self.options = options
        self.pool = None if options.path is None else RecordingPool(options.path, "data.augment.reverberation.path")

    def __call__(self, samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """(S,) -> (S,)."""
        return reverberate(samples, self.draw(random))

    def draw(self, random: np.random.Generator) -> np.ndarray:
        """(R,) an impulse response."""
        if self.pool is not None:
            return self.pool.draw(random, LONGEST)
        rt60 = between(self.options.rt60, random)
        return decaying_noise(rt60, between(self.options.direct_decibels, random), random)


def decaying_noise(rt60: float, direct_decibels: float, random: np.random.Generator) -> np.ndarray:
    """(R,) direct path, then noise that falls by 60 dB in ``rt60`` s and has so many decibels less energy in all."""
    first = int(FIRST * SAMPLING_RATE)
    length = max(int(rt60 * SAMPLING_RATE), 1)
    decay = 10 ** (-3 * np.arange(length) / (rt60 * SAMPLING_RATE))
    tail = random.standard_normal(length) * decay
    tail *= np.sqrt(ratio_of(-direct_decibels) / np.square(tail).sum())
    return np.concatenate(([1.0], np.zeros(first), tail)).astype(np.float32)


def reverberate(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """(S,), (R,) -> (S,): as loud as before, the direct path (the peak of the response) at the same time."""
    direct = int(np.abs(response).argmax())
    wet = oaconvolve(samples, response)[direct : direct + len(samples)]
    before, after = active_power(samples), active_power(wet)
    if not after:
        return samples
    return (wet * np.sqrt(before / after)).astype(np.float32)
