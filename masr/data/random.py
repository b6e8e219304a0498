"""Random numbers that belong to a purpose, a seed and what they are drawn for, and to nothing else.

Sums such as ``seed + epoch`` give seed 1 in epoch 1 what seed 2 has in epoch 0, so that runs of several seeds are not
independent. Here numbers are mixed by numpy's SeedSequence, which takes each of them for itself.
"""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What random numbers are for; no two purposes share any. Never renumbered: results depend on it."""

    DRAW = 1
    """Recordings of an epoch."""
    BATCHES = 2
    """Order of lhotse's sampler."""
    MASKS = 3
    """SpecAugment, and all else that changes one utterance."""
    PROMPTS = 4
    """Languages that an utterance is said to be in."""
    HALVES = 5
    """Which half of an update a recording is in."""
    DROPOUT = 6
    """The stream of torch in one process."""
    GROUPS = 7
    """Which recordings without text are compared with each other."""
    AUGMENT = 8
    """What is joined, and what happens to a waveform."""


def generator(purpose: Purpose, *numbers: int) -> np.random.Generator:
    """For instance of (seed, epoch, hash of an utterance)."""
    return np.random.default_rng([purpose, len(numbers), *numbers])


def between(ends: Sequence[float], random: np.random.Generator) -> float:
    """A number drawn uniformly between two ends."""
    low, high = ends
    return float(random.uniform(low, high))


def seed_of(purpose: Purpose, *numbers: int) -> int:
    """A seed (32 bits) for libraries that take a single number."""
    return int(np.random.SeedSequence([purpose, len(numbers), *numbers]).generate_state(1)[0])
