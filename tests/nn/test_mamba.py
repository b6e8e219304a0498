"""Mamba layers: padding, directions, initialisation, size."""

import pytest
import torch

from masr.nn.mamba import InnerBidirectionalMamba, Mamba, OuterBidirectionalMamba, SelectiveStateSpace
from masr.nn.subsampling import length_mask

KINDS = [Mamba, InnerBidirectionalMamba, OuterBidirectionalMamba]


@pytest.fixture(params=KINDS)
def layer(request):
    torch.manual_seed(0)
    layer = request.param(32)
    for name, parameter in layer.named_parameters():  # zeros would hide what padding does
        if name.endswith("bias") and "step" not in name:
            parameter.data.uniform_(-1, 1)
    return layer


def test_padding_changes_nothing_whatever_is_in_it(layer):
    frames, lengths = torch.randn(3, 50, 32), torch.tensor([50, 30, 1])
    mask = length_mask(lengths, 50)
    padded = layer(frames.masked_fill(~mask[..., None], 7.0), mask)
    for row, length in enumerate(lengths.tolist()):
        alone = layer(frames[row : row + 1, :length])
        torch.testing.assert_close(padded[row, :length], alone[0], rtol=1e-5, atol=1e-6)


def test_only_one_direction_is_causal(layer):
    frames = torch.randn(1, 20, 32)
    later = frames.clone()
    later[:, 12:] += 1.0
    same = torch.equal(layer(frames)[:, :12], layer(later)[:, :12])
    assert same == (type(layer) is Mamba)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_reversed_recording_with_directions_exchanged_is_the_same_reversed(kind):
    layer, frames = kind(32), torch.randn(2, 20, 32)
    expected = layer(frames).flip(1)
    layer.forwards, layer.backwards = layer.backwards, layer.forwards
    if kind is OuterBidirectionalMamba:
        layer.join.weight.data = layer.join.weight.data.roll(32, 1)
    torch.testing.assert_close(layer(frames.flip(1)), expected, rtol=1e-5, atol=1e-6)


def test_rates_and_steps_begin_as_in_the_paper():
    space = SelectiveStateSpace(512, 16, 16)
    torch.testing.assert_close(space.log_rates.exp(), torch.arange(1.0, 17.0).expand(512, 16))
    steps = torch.nn.functional.softplus(space.step.bias)
    assert steps.min() >= 0.99e-3 and steps.max() <= 1.01e-1
    assert torch.equal(space.skip, torch.ones(512))


def test_the_inner_layer_has_the_size_of_conmambas():
    assert sum(p.numel() for p in InnerBidirectionalMamba(256).parameters()) == pytest.approx(482_000, rel=2e-3)
