"""Mamba layers: padding, directions, initialisation, size."""

import pytest
import torch

from masr.config import Encoder, Train
from masr.nn.mamba import DIRECTIONS, HeadStateSpace, InnerBidirectionalMamba, SelectiveStateSpace
from masr.nn.subsampling import length_mask
from masr.train.optim import build_optimizer

BOTH = ["inner", "outer"]


def options(**changes) -> Encoder:
    return Encoder(**({"type": "mamba", "width": 32, "head_size": 16} | changes))


@pytest.fixture(params=["mamba1", "mamba2"])
def state_space(request) -> str:
    return request.param


def build(directions: str, state_space: str) -> torch.nn.Module:
    torch.manual_seed(0)
    layer = DIRECTIONS[directions](options(directions=directions, state_space=state_space))
    for name, parameter in layer.named_parameters():  # zeros would hide what padding does
        if name.endswith("bias") and "step" not in name:
            parameter.data.uniform_(-1, 1)
    return layer


@pytest.mark.parametrize("directions", DIRECTIONS)
def test_padding_changes_nothing_whatever_is_in_it(directions, state_space):
    layer = build(directions, state_space)
    frames, lengths = torch.randn(3, 50, 32), torch.tensor([50, 30, 1])
    mask = length_mask(lengths, 50)
    padded = layer(frames.masked_fill(~mask[..., None], 7.0), mask)
    for row, length in enumerate(lengths.tolist()):
        alone = layer(frames[row : row + 1, :length])
        torch.testing.assert_close(padded[row, :length], alone[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("directions", DIRECTIONS)
def test_only_one_direction_is_causal(directions, state_space):
    layer = build(directions, state_space)
    frames = torch.randn(1, 20, 32)
    later = frames.clone()
    later[:, 12:] += 1.0
    same = torch.equal(layer(frames)[:, :12], layer(later)[:, :12])
    assert same == (directions == "forward")


@pytest.mark.parametrize("directions", BOTH)
def test_a_reversed_recording_with_directions_exchanged_is_the_same_reversed(directions, state_space):
    layer, frames = build(directions, state_space), torch.randn(2, 20, 32)
    expected = layer(frames).flip(1)
    layer.forwards, layer.backwards = layer.backwards, layer.forwards
    if directions == "outer":
        layer.join.weight.data = layer.join.weight.data.roll(32, 1)
    torch.testing.assert_close(layer(frames.flip(1)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cuts", [[40], [1, 39], [7, 8, 25], [1] * 40])
def test_what_is_remembered_does_not_depend_on_the_pieces(cuts, state_space):
    layer, frames = build("forward", state_space), torch.randn(2, 40, 32)
    memories, outputs = ({}, {}), ([], [])
    for sizes, memory, found in zip(([40], cuts), memories, outputs, strict=True):
        found += [layer(piece, None, memory) for piece in frames.split(sizes, 1)]
    torch.testing.assert_close(torch.cat(outputs[1], 1), layer(frames), rtol=1e-5, atol=1e-6)
    for module, remembered in memories[0].items():
        torch.testing.assert_close(memories[1][module], remembered, rtol=1e-5, atol=1e-6)


def test_rates_and_steps_begin_as_in_the_papers():
    space = SelectiveStateSpace(options(width=256))
    torch.testing.assert_close(space.log_rates.exp(), torch.arange(1.0, 17.0).expand(512, 16))
    assert torch.equal(space.skip, torch.ones(512))
    heads = HeadStateSpace(options(width=512, head_size=2))
    assert heads.log_rates.exp().min() >= 1 and heads.log_rates.exp().max() <= 16
    for bias in (space.step.bias, heads.step_bias):
        steps = torch.nn.functional.softplus(bias)
        assert 0.99e-3 <= steps.min() < 2e-3 and 5e-2 < steps.max() <= 1.01e-1


def test_weight_decay_leaves_rates_and_steps_alone(state_space):
    model = torch.nn.ModuleDict({"blocks": build("inner", state_space)})
    decayed = {
        id(p) for group in build_optimizer(model, Train(weight_decay=0.1)).param_groups if group["weight_decay"]
        for p in group["params"]
    }  # fmt: skip
    free = {name for name, p in model.named_parameters() if id(p) not in decayed}
    kinds = ("log_rates", "skip", "bias", "norm.weight", "step_bias")
    assert free == {name for name, _ in model.named_parameters() if name.endswith(kinds)}


def test_the_inner_layer_has_the_size_of_conmambas():
    layer = InnerBidirectionalMamba(options(width=256))
    assert sum(p.numel() for p in layer.parameters()) == pytest.approx(482_000, rel=2e-3)
