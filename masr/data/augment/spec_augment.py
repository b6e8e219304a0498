"""SpecAugment (Park et al. 2019, arXiv 1904.08779) with its own random numbers for every utterance.

An utterance is masked the same way in whatever batch, process or order it comes, which is what makes a run repeatable
on any number of processes; lhotse's SpecAugment draws from one global stream.
"""

import numpy as np
import torch

from masr.config import SpecAugment


def spec_augment(features: torch.Tensor, options: SpecAugment, random: np.random.Generator) -> torch.Tensor:
    """(T, F) features with frequency and time masks; what is masked becomes the mean of its bin in the utterance."""
    frames, bins = features.shape
    features, mean = features.clone(), features.mean(0)
    for _ in range(options.frequency_masks):
        start, end = _span(bins, options.frequency_width, random)
        features[:, start:end] = mean[start:end]
    room = int(frames * options.time_fraction)
    for _ in range(min(options.time_masks, int(np.ceil(room / 4)))):
        start, end = _span(frames, room, random)
        features[start:end] = mean
    return features


def _span(size: int, widest: int, random: np.random.Generator) -> tuple[int, int]:
    width = int(random.integers(0, min(widest, size) + 1))
    start = int(random.integers(0, size - width + 1))
    return start, start + width
