"""Levels of speech and noise. S samples at 16 kHz."""

import numpy as np

FRAME = 320
"""Samples of a frame of 20 ms."""
ACTIVE = 30.0
"""Frames that are this many decibels below the loudest one are pauses."""


def active_power(samples: np.ndarray) -> float:
    """Mean square of speech (S,) without its pauses, so that silence around it changes nothing; 0 of silence."""
    padded = np.pad(samples, (0, -len(samples) % FRAME))
    powers = np.square(padded.reshape(-1, FRAME), dtype=np.float64).mean(axis=1)
    if not powers.size or not powers.max():
        return 0.0
    active = powers > powers.max() * ratio_of(-ACTIVE)
    return float(powers[active].mean())


def mean_power(samples: np.ndarray) -> float:
    """Mean square of all samples (S,)."""
    return float(np.square(samples, dtype=np.float64).mean()) if samples.size else 0.0


def ratio_of(decibels: float) -> float:
    """Ratio of powers."""
    return 10 ** (decibels / 10)


def factor_of(decibels: float) -> float:
    """Ratio of amplitudes."""
    return 10 ** (decibels / 20)
