"""Shapes: T frames, F mel bins."""

import numpy as np
import pytest
import torch

from masr.config import SpecAugment
from masr.data.augment.spec_augment import spec_augment

OFF = {"frequency_masks": 0, "time_masks": 0}


def augment(features: torch.Tensor, seed: int = 0, **options) -> torch.Tensor:
    return spec_augment(features, SpecAugment(**options), np.random.default_rng(seed))


def noise(frames: int, bins: int = 80) -> torch.Tensor:
    return torch.randn(frames, bins, generator=torch.Generator().manual_seed(frames))


def widest_run(masked: torch.Tensor) -> int:
    """Length of the longest run of True."""
    return max(map(len, "".join("x" if value else " " for value in masked.tolist()).split()), default=0)


def test_input_is_left_alone():
    features = noise(200)
    before = features.clone()
    assert not torch.equal(augment(features), before)
    assert torch.equal(features, before)


def test_seed_decides():
    features = noise(200)
    assert torch.equal(augment(features, seed=1), augment(features, seed=1))
    assert not torch.equal(augment(features, seed=1), augment(features, seed=2))


def test_global_random_numbers_are_neither_used_nor_moved():
    features = noise(200)
    first = augment(features)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    torch.rand(3)
    np.random.rand(3)
    assert torch.equal(augment(features), first)
    torch.set_rng_state(before[0])
    np.random.seed(0)
    state = np.random.get_state()[1].tolist(), torch.get_rng_state()
    augment(features)
    assert np.random.get_state()[1].tolist() == state[0] and torch.equal(torch.get_rng_state(), state[1])


def test_no_masks_change_nothing():
    features = noise(200)
    assert torch.equal(augment(features, **OFF), features)


@pytest.mark.parametrize("seed", range(10))
def test_frequency_masks_stay_within_their_limits(seed):
    features = noise(50)
    masked = augment(features, seed, frequency_masks=1, frequency_width=8, time_masks=0) == features.mean(0)
    assert torch.equal(masked.any(0), masked.all(0))  # whole bins
    assert masked[0].sum() == widest_run(masked[0]) <= 8
    twice = augment(features, seed, frequency_masks=2, frequency_width=8, time_masks=0) == features.mean(0)
    assert twice[0].sum() <= 16 and (twice | masked).equal(twice)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("frames", "masks"), [(1000, 10), (100, 2), (20, 1)])
def test_time_masks_stay_within_their_limits(frames, masks, seed):
    features = noise(frames)
    masked = augment(features, seed, frequency_masks=0, time_masks=10, time_fraction=0.05) == features.mean(0)
    assert torch.equal(masked.any(1), masked.all(1))  # whole frames
    assert masked[:, 0].sum() <= masks * int(0.05 * frames)


def test_every_place_and_width_can_be_masked():
    features = noise(60, bins=12)
    places, widths = torch.zeros(12, dtype=torch.bool), set()
    for seed in range(300):
        masked = augment(features, seed, frequency_masks=1, frequency_width=4, time_masks=0)[0] == features.mean(0)
        places |= masked
        widths.add(int(masked.sum()))
    assert places.all() and widths == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(("frames", "bins"), [(1, 80), (3, 80), (50, 4), (1, 1)])
def test_masks_wider_than_the_utterance(frames, bins):
    found = augment(noise(frames, bins), frequency_width=27, time_fraction=1.0)
    assert found.shape == (frames, bins) and found.isfinite().all()
