"""What every encoder keeps. Shapes: B batch, T frames, F mel bins, D width."""

import pytest
import torch

from masr.config import Encoder as Options
from masr.nn.encoder import PIECE, Encoder, LookAhead
from masr.nn.subsampling import length_mask

F = 12
KINDS = {
    "conformer": {"type": "conformer"},
    "mamba1-inner": {"type": "mamba"},
    "mamba1-outer": {"type": "mamba", "directions": "outer"},
    "mamba1-forward": {"type": "mamba", "directions": "forward", "look_ahead": 2},
    "mamba2-inner": {"type": "mamba", "state_space": "mamba2"},
    "mamba2-outer": {"type": "mamba", "state_space": "mamba2", "directions": "outer"},
    "mamba2-forward": {"type": "mamba", "state_space": "mamba2", "directions": "forward"},
}
FORWARD = ["mamba1-forward", "mamba2-forward"]


def encoder(kind: str = "conformer", intermediate_layers: tuple[int, ...] = (), **changes) -> Encoder:
    torch.manual_seed(0)
    sizes = {"layers": 3, "width": 16, "heads": 2, "feedforward": 24, "kernel": 5, "subsampling_channels": 16}
    mamba = {"state_size": 4, "head_size": 8}
    model = Encoder(F, Options(**(sizes | mamba | KINDS[kind] | changes)), intermediate_layers)
    for parameter in model.parameters():  # zeros would hide much
        if not parameter.abs().max():
            parameter.data.uniform_(-0.3, 0.3)
    return model.eval()


@pytest.mark.parametrize("factor", [4, 6, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind, factor):
    model = encoder(kind, (1, 2), subsampling=factor)
    lengths = torch.tensor([*range(2 * factor, 3 * factor), 1, 60])  # every remainder, the shortest, the longest
    features = torch.randn(len(lengths), 60, F)  # not zero in the padding
    together = model(features, lengths)
    assert together.frames.shape == (len(lengths), -(-60 // factor), 16)
    for row, length in enumerate(lengths.tolist()):
        alone = model(features[row : row + 1, :length], lengths[row : row + 1])
        real = alone.lengths.item()
        assert real == together.lengths[row] == alone.frames.shape[1]
        assert torch.allclose(alone.frames[0], together.frames[row, :real], atol=1e-5)
        for one, padded in zip(alone.intermediate, together.intermediate, strict=True):
            assert torch.allclose(one[0], padded[row, :real], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_batch_order_changes_nothing(kind):
    model, features, lengths = encoder(kind), torch.randn(3, 40, F), torch.tensor([40, 17, 25])
    order = torch.tensor([2, 0, 1])
    shuffled = model(features[order], lengths[order]).frames
    for place, row in enumerate(order.tolist()):
        real = -(-lengths[row].item() // 4)
        assert torch.allclose(shuffled[place, :real], model(features, lengths).frames[row, :real], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_intermediate_outputs_are_those_of_shallower_encoders(kind):
    features, lengths = torch.randn(2, 30, F), torch.tensor([30, 21])
    deep = encoder(kind, (1, 2), look_ahead=0)
    for layer, found in zip((1, 2), deep(features, lengths).intermediate, strict=True):
        shallow = encoder(kind, layers=layer, look_ahead=0)
        shallow.load_state_dict(deep.state_dict(), strict=False)
        assert torch.equal(shallow(features, lengths).frames, found)
    assert encoder(kind)(features, lengths).intermediate == []


@pytest.mark.parametrize("kind", KINDS)
def test_frames_depend_on_real_frames_only_and_in_both_directions_on_all_of_them(kind):
    model, lengths = encoder(kind, kernel=3), torch.tensor([48, 32])
    features = torch.randn(2, 48, F, requires_grad=True)
    model(features, lengths).frames[:, 4].pow(2).sum().backward()
    reached = features.grad.abs().sum(2) > 0
    seen = length_mask(lengths, 48)
    if kind in FORWARD:
        seen[:, 4 * (4 + KINDS[kind].get("look_ahead", 0) + 1) :] = False
    assert torch.equal(reached, seen)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_parameter(kind):
    model = encoder(kind).train()
    model(torch.randn(2, 40, F), torch.tensor([40, 30])).frames.pow(3).sum().backward()
    assert {name for name, p in model.named_parameters() if not p.grad.abs().max() > 1e-6} == set()


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_precision_trains(kind):
    model = encoder(kind, dropout=0.0).train()
    features, lengths = torch.randn(2, 40, F), torch.tensor([40, 30])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        frames = model(features, lengths).frames
    frames.float().pow(3).sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in model.parameters())
    assert torch.allclose(frames.float(), model(features, lengths).frames, atol=0.1)


@pytest.mark.parametrize("kind", ["conformer", "mamba1-inner"])
def test_dropout_acts_in_training_only(kind):
    model, features, lengths = encoder(kind, dropout=0.3), torch.randn(1, 40, F), torch.tensor([40])
    assert torch.equal(model(features, lengths).frames, model(features, lengths).frames)
    model.train()
    assert not torch.equal(model(features, lengths).frames, model(features, lengths).frames)


@pytest.mark.parametrize("time", [1, 4 * PIECE, 4 * PIECE + 1, 10 * PIECE])
@pytest.mark.parametrize("kind", FORWARD)
def test_pieces_of_a_forward_encoder_are_what_training_sees_as_a_whole(kind, time):
    model = encoder(kind, (1,), dropout=0.0)
    features, lengths = torch.randn(2, time, F), torch.tensor([time, (time + 1) // 2])
    pieces, whole = model(features, lengths), model.train()(features, lengths)
    assert torch.equal(pieces.lengths, whole.lengths)
    real = length_mask(whole.lengths, whole.frames.shape[1])
    torch.testing.assert_close(pieces.frames[real], whole.frames[real], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pieces.intermediate[0][real], whole.intermediate[0][real], rtol=1e-5, atol=1e-5)


def test_look_ahead_sees_the_next_frames_only():
    module = LookAhead(2, 3)
    module.filters.data.copy_(torch.arange(4.0)[:, None].expand(4, 2))
    frames = torch.zeros(1, 8, 2)
    frames[0, 5] = 1.0
    expected = torch.tensor([0.0, 0, 3, 2, 1, 1 + 0, 0, 0])
    assert torch.equal(module(frames, None, None, last=True)[0, :, 0], expected)


def test_conmamba_has_the_published_size():
    options = Options(
        type="mamba", layers=18, width=256, feedforward=1024, kernel=31, subsampling_type="plain"
    )  # 64 and 32 channels
    encoder = Encoder(80, options)
    output = torch.nn.Linear(256, 31)
    count = sum(p.numel() for module in (encoder, output) for p in module.parameters())
    assert round(count / 1e6, 2) == 31.56


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 18, "heads": 4}, "width 18 does not split into 4 even heads"),
        ({"width": 12, "heads": 4}, "width 12 does not split into 4 even heads"),
        ({"kernel": 4}, "kernel: 4 is even; it must be odd"),
        ({"intermediate_layers": (1, 3)}, r"intermediate_layers: \[3\] not below model.encoder.layers=3"),
        ({"kind": "mamba2-inner", "head_size": 5}, "head_size: 5 does not divide the 32 channels"),
        ({"look_ahead": 2}, "look_ahead: 2, but this encoder sees all frames"),
    ],
)
def test_bad_options_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        encoder(**changes)
