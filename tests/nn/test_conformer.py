"""Shapes: B batch, T frames, D width, E size of a head."""

import pytest
import torch

from masr.nn.conformer import SelfAttention, rotary_angles, rotate
from masr.nn.depthwise import DepthwiseConvolution


def test_rotation_makes_scores_a_function_of_distance():
    torch.manual_seed(0)
    query, key, positions = torch.randn(8), torch.randn(8), 200
    rotation = rotary_angles(positions, 8, torch.device("cpu"))
    scores = rotate(query.expand(positions, 8), rotation) @ rotate(key.expand(positions, 8), rotation).T
    for distance in range(-positions + 1, positions):
        diagonal = scores.diagonal(distance)
        assert torch.allclose(diagonal, diagonal[0].expand_as(diagonal), atol=1e-4)
    assert scores.diagonal(1)[0] != pytest.approx(scores.diagonal(2)[0].item(), abs=1e-3)


def test_rotation_keeps_lengths_and_leaves_the_first_position():
    vectors = torch.randn(2, 3, 9, 8)
    turned = rotate(vectors, rotary_angles(9, 8, torch.device("cpu")))
    assert torch.equal(turned[..., 0, :], vectors[..., 0, :])
    assert torch.allclose(turned.norm(dim=-1), vectors.norm(dim=-1), atol=1e-5)
    assert not torch.allclose(turned[..., 1:, :], vectors[..., 1:, :], atol=0.1)


def test_attention_does_not_see_absolute_positions():
    torch.manual_seed(0)
    attention, frames = SelfAttention(16, 2), torch.randn(1, 10, 16)
    here = attention(frames, None)
    shifted = torch.cat((torch.randn(1, 50, 16), frames), 1)
    mask = (torch.arange(60) >= 50)[None]
    assert torch.allclose(here, attention(shifted, mask)[:, 50:], atol=1e-5)
    backwards = attention(frames.flip(1), None).flip(1)
    assert not torch.allclose(here, backwards, atol=1e-4)  # but the order of frames counts


@pytest.mark.parametrize(("batch", "time"), [(1, 1), (1, 40), (3, 5), (2, 17)])
def test_depthwise_gradients_are_those_of_torch(batch, time):
    torch.manual_seed(0)
    module, frames = DepthwiseConvolution(4, 7).double(), torch.randn(batch, time, 4, dtype=torch.double)
    reference = torch.nn.Conv1d(4, 4, 7, padding=3, groups=4).double()
    reference.weight.data, reference.bias.data = module.filters.data[:, None].clone(), torch.randn(4).double()
    module.bias.data = reference.bias.data.clone()
    ours, theirs = (frames.clone().requires_grad_() for _ in range(2))
    weights = torch.randn(batch, time, 4, dtype=torch.double)
    (module(ours) * weights).sum().backward()
    (reference(theirs.transpose(1, 2)).transpose(1, 2) * weights).sum().backward()
    assert torch.allclose(ours.grad, theirs.grad)
    assert torch.allclose(module.filters.grad, reference.weight.grad[:, 0])
    assert torch.allclose(module.bias.grad, reference.bias.grad)
