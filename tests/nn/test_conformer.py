"""Shapes: B batch, T frames, F mel bins, D width, E size of a head."""

import pytest
import torch

from masr.config import Encoder
from masr.nn.conformer import Conformer, SelfAttention, rotary_angles, rotate
from masr.nn.depthwise import DepthwiseConvolution
from masr.nn.subsampling import length_mask

F = 12


def options(**changes) -> Encoder:
    sizes = {"layers": 3, "width": 16, "heads": 2, "feedforward": 24, "kernel": 5, "subsampling_channels": 16}
    return Encoder(**(sizes | changes))


def conformer(intermediate_layers: tuple[int, ...] = (), **changes) -> Conformer:
    torch.manual_seed(0)
    return Conformer(F, options(**changes), intermediate_layers).eval()


@pytest.mark.parametrize("factor", [4, 6, 8])
def test_padding_changes_nothing(factor):
    encoder = conformer((1, 2), subsampling=factor)
    lengths = torch.tensor([*range(2 * factor, 3 * factor), 1, 60])  # every remainder, the shortest, the longest
    features = torch.randn(len(lengths), 60, F)  # not zero in the padding
    together = encoder(features, lengths)
    assert together.frames.shape == (len(lengths), -(-60 // factor), 16)
    for row, length in enumerate(lengths.tolist()):
        alone = encoder(features[row : row + 1, :length], lengths[row : row + 1])
        real = alone.lengths.item()
        assert real == together.lengths[row] == alone.frames.shape[1]
        assert torch.allclose(alone.frames[0], together.frames[row, :real], atol=1e-5)
        for one, padded in zip(alone.intermediate, together.intermediate, strict=True):
            assert torch.allclose(one[0], padded[row, :real], atol=1e-5)


def test_batch_order_changes_nothing():
    encoder, features, lengths = conformer(), torch.randn(3, 40, F), torch.tensor([40, 17, 25])
    order = torch.tensor([2, 0, 1])
    shuffled = encoder(features[order], lengths[order]).frames
    for place, row in enumerate(order.tolist()):
        real = -(-lengths[row].item() // 4)
        assert torch.allclose(shuffled[place, :real], encoder(features, lengths).frames[row, :real], atol=1e-5)


def test_intermediate_outputs_are_those_of_shallower_encoders():
    features, lengths = torch.randn(2, 30, F), torch.tensor([30, 21])
    deep = conformer((1, 2))
    for layer, found in zip((1, 2), deep(features, lengths).intermediate, strict=True):
        shallow = conformer(layers=layer)
        shallow.load_state_dict(deep.state_dict(), strict=False)
        assert torch.equal(shallow(features, lengths).frames, found)
    assert conformer()(features, lengths).intermediate == []


def test_every_frame_depends_on_every_real_frame_and_no_other():
    encoder, lengths = conformer(kernel=3), torch.tensor([48, 32])
    features = torch.randn(2, 48, F, requires_grad=True)
    encoder(features, lengths).frames[:, 0].pow(2).sum().backward()
    assert torch.equal(features.grad.abs().sum(2) > 0, length_mask(lengths, 48))


def test_gradients_reach_every_parameter():
    encoder = conformer().train()
    encoder(torch.randn(2, 40, F), torch.tensor([40, 30])).frames.pow(3).sum().backward()
    assert {name for name, p in encoder.named_parameters() if not p.grad.abs().max() > 1e-6} == set()


def test_dropout_acts_in_training_only():
    encoder, features, lengths = conformer(dropout=0.3), torch.randn(1, 40, F), torch.tensor([40])
    assert torch.equal(encoder(features, lengths).frames, encoder(features, lengths).frames)
    encoder.train()
    assert not torch.equal(encoder(features, lengths).frames, encoder(features, lengths).frames)


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
    rotation = rotary_angles(60, 8, torch.device("cpu"))
    here, later = (attention(frames, None, rotation[at : at + 10]) for at in (0, 50))
    assert torch.allclose(here, later, atol=1e-5)
    backwards = attention(frames.flip(1), None, rotation[:10]).flip(1)
    assert not torch.allclose(here, backwards, atol=1e-4)  # but the order of frames counts


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 18, "heads": 4}, "width 18 does not split into 4 even heads"),
        ({"width": 12, "heads": 4}, "width 12 does not split into 4 even heads"),
        ({"kernel": 4}, "kernel: 4 is even"),
        ({"intermediate_layers": (1, 3)}, r"intermediate_layers: \[3\] not below model.encoder.layers=3"),
    ],
)
def test_bad_options_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        conformer(**changes)


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
