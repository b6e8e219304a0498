"""Objectives without text. B batch, T frames, F mel bins, D width."""

import pytest
import torch

from masr.config import Encoder as Options
from masr.config import SelfSupervised
from masr.nn.contrastive import SELF_SUPERVISED
from masr.nn.encoder import Encoder, EncoderOutput

MELS, WIDTH = 12, 16
SIZES = {"layers": 1, "width": WIDTH, "heads": 2, "feedforward": 24, "kernel": 3, "subsampling_channels": 8}
LENGTHS = torch.tensor([330, 90, 14, 3])


def build(kind: str):
    torch.manual_seed(0)
    options = SelfSupervised(kind=kind, weight=1.0, codes=32)
    encoder = Encoder(MELS, Options(dropout=0.0, **SIZES)).eval()
    return encoder, SELF_SUPERVISED[kind](MELS, WIDTH, options, 4)


def losses(encoder, objective, features, lengths, random=None):
    random = torch.rand(len(lengths), 9, generator=torch.Generator().manual_seed(1)) if random is None else random
    views, target = objective.views(features, lengths, random)
    return objective.loss([encoder(*view) for view in views], target)


@pytest.mark.parametrize("kind", SELF_SUPERVISED)
def test_every_utterance_has_a_loss_and_every_parameter_a_gradient(kind):
    encoder, objective = build(kind)
    found = losses(encoder, objective, torch.randn(4, 330, MELS), LENGTHS)
    assert found.shape == (4,) and found.isfinite().all() and (found[:2] > 0.1).all()
    found.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in [*encoder.parameters(), *objective.parameters()])


@pytest.mark.parametrize("kind", SELF_SUPERVISED)
def test_an_utterance_does_not_depend_on_the_batch(kind):
    encoder, objective = build(kind)
    features, random = torch.randn(4, 330, MELS), torch.rand(4, 9)
    together = losses(encoder, objective, features, LENGTHS, random)
    for row, length in enumerate(LENGTHS.tolist()):
        one = slice(row, row + 1)
        alone = losses(encoder, objective, features[one, :length], LENGTHS[one], random[one])
        assert torch.allclose(alone[0], together[row], atol=1e-5)


def test_cpc_hears_context_future_and_other_pieces_apart():
    _, objective = build("cpc")
    features = torch.arange(330.0)[None, :, None].expand(4, -1, MELS)
    random = torch.tensor([[0.5, 0.0, 0.999, 0.25, 0, 0, 0, 0, 0]]).expand(4, -1)
    [(context, first), (future, second), *others], _ = objective.views(features, LENGTHS, random)
    assert first.tolist() == [200, 60, 9, 2] and second.tolist() == [100, 30, 4, 1]
    assert context[0, 0, 0] == 15 and future[0, 0, 0] == 215 and future[0, 99, 0] == 314, "from a random place on"
    assert context[1, 59, 0] == 59 and future[1, 0, 0] == 60, "a short one has nothing to choose from"
    assert [piece[0, 0, 0].item() for piece, _ in others] == [0, 229, 57] and all(s.equal(second) for _, s in others)


def test_cpc_cannot_be_solved_where_there_is_nothing_to_foresee():
    """New noise every time: the place of a frame in its second must not tell it."""
    encoder, objective = build("cpc")
    optimizer, found = torch.optim.Adam([*encoder.parameters(), *objective.parameters()], 3e-3), []
    for step in range(60):
        optimizer.zero_grad()
        torch.manual_seed(step)
        loss = losses(encoder, objective, torch.randn(8, 330, MELS), torch.full((8,), 330), torch.rand(8, 9)).mean()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    assert sum(found[-20:]) / 20 > 0.9 * torch.tensor(4.0).log()


def test_the_codes_of_best_rq_are_those_of_what_was_there():
    _, objective = build("best-rq")
    features = torch.randn(4, 330, MELS)
    [(masked, lengths)], (codes, mask) = objective.views(features, LENGTHS, torch.full((4, 9), 0.3))
    _, (again, other) = objective.views(features + 3.0, LENGTHS, torch.full((4, 9), 0.4))
    assert torch.equal(codes[0], again[0]) and not torch.equal(mask, other), "level does not matter, masks are random"
    assert torch.equal(lengths, LENGTHS) and codes.max() < 32 and len(codes[0].unique()) > 8
    changed = (masked != features).any(-1)
    assert torch.equal(changed[0].view(-1, 1)[::4, 0][:82], mask[0][:82]) and 0.15 < mask[0].float().mean() < 0.6
    assert mask[3].tolist()[:1] == [True] and not mask[3][1:].any()


@pytest.mark.parametrize("kind", SELF_SUPERVISED)
def test_it_can_be_learnt(kind):
    """Speech that repeats itself: what comes next, and what is masked, can be known."""
    encoder, objective = build(kind)
    phase = torch.rand(8, 1, 1, generator=torch.Generator().manual_seed(3)) * 60
    features = torch.sin((torch.arange(240.0)[None, :, None] + phase) * torch.linspace(0.05, 0.3, MELS))
    lengths = torch.full((8,), 240)
    optimizer = torch.optim.Adam([*encoder.parameters(), *objective.parameters()], 3e-3)
    before = losses(encoder, objective, features, lengths).mean().item()
    for _ in range(60):
        optimizer.zero_grad()
        losses(encoder, objective, features, lengths).mean().backward()
        optimizer.step()
    assert losses(encoder, objective, features, lengths).mean().item() < 0.7 * before


@pytest.mark.parametrize("kind", SELF_SUPERVISED)
def test_silence_that_was_put_behind_a_recording_is_no_part_of_it(kind):
    """Whisper's encoder does, and counts it among its frames."""
    _, objective = build(kind)
    features, lengths = torch.randn(2, 330, MELS), torch.tensor([330, 90])
    views, target = objective.views(features, lengths, torch.rand(2, 9))
    heard = [-(-view_lengths // 4) for _, view_lengths in views]
    frames = [torch.randn(2, int(size.max()) + 7, WIDTH) for size in heard]
    with_silence = [EncoderOutput(f, size + 7, recorded=size) for f, size in zip(frames, heard, strict=True)]
    without = [EncoderOutput(f[:, : int(size.max())], size) for f, size in zip(frames, heard, strict=True)]
    assert torch.equal(objective.loss(with_silence, target), objective.loss(without, target))
