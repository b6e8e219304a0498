"""Shapes: B batch, T frames, F mel bins, D width."""

import math
from collections.abc import Callable

import pytest
import torch

from masr.nn.subsampling import SUBSAMPLING, Subsampling, length_mask

F, D = 10, 6
FACTORS = (4, 6, 8)


@pytest.fixture(params=SUBSAMPLING)
def subsampling(request) -> Callable[[int], Subsampling]:
    def build(factor: int) -> Subsampling:
        torch.manual_seed(0)
        return SUBSAMPLING[request.param](F, D, channels=24, factor=factor)

    return build


def test_length_mask():
    assert length_mask(torch.tensor([0, 2, 3]), 3).tolist() == [[False] * 3, [True, True, False], [True] * 3]


@pytest.mark.parametrize("factor", FACTORS)
def test_lengths_are_divided_and_rounded_up(subsampling, factor):
    module = subsampling(factor)
    for frames in range(1, 4 * factor + 1):
        output, lengths = module(torch.randn(1, frames, F), torch.tensor([frames]))
        assert lengths.item() == module.lengths(torch.tensor([frames])).item() == math.ceil(frames / factor)
        assert output.shape == (1, lengths.item(), D)


@pytest.mark.parametrize("factor", FACTORS)
def test_padding_changes_nothing(subsampling, factor):
    module = subsampling(factor)
    lengths = torch.arange(1, 3 * factor + 1)  # every remainder, three times
    features = torch.randn(len(lengths), 3 * factor + 5, F) * 100  # the padding holds what must not matter
    together, output_lengths = module(features, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone, _ = module(features[row : row + 1, :length], lengths[row : row + 1])
        assert torch.allclose(alone[0], together[row, : output_lengths[row]], atol=1e-5 * 100)


@pytest.mark.parametrize("factor", FACTORS)
def test_gradients_reach_real_frames_only(subsampling, factor):
    module, lengths = subsampling(factor), torch.tensor([3 * factor, factor + 1])
    features = torch.randn(2, 3 * factor, F, requires_grad=True)
    output, output_lengths = module(features, lengths)
    (output * length_mask(output_lengths, output.shape[1])[:, :, None]).pow(2).sum().backward()
    reached = features.grad.abs().sum(2) > 0
    last = 2 if factor == 6 else 0  # a stride of 3 may leave out the last two frames, 20 ms
    assert not reached[~length_mask(lengths, 3 * factor)].any()
    assert reached[length_mask(lengths - last, 3 * factor)].all()
    assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())


def test_unknown_factor_is_refused(subsampling):
    with pytest.raises(KeyError):
        subsampling(5)
