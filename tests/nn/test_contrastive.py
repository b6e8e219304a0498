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
BRIEF = {"context": 0.6, "future": 0.3}


def build(kind: str, **options):
    torch.manual_seed(0)
    options = SelfSupervised(kind=kind, weight=1.0, codes=32, **options)
    encoder = Encoder(MELS, Options(dropout=0.0, **SIZES)).eval()
    return encoder, SELF_SUPERVISED[kind](MELS, WIDTH, options, 4)


def losses(encoder, objective, features, lengths, random=None, groups=None):
    random = torch.rand(len(lengths), 9, generator=torch.Generator().manual_seed(1)) if random is None else random
    views, target = objective.views(features, lengths, random, *(() if groups is None else (groups,)))
    return objective.loss([encoder(*view) for view in views], target)


def voices(seed: int, number: int = 8, frames: int = 100) -> torch.Tensor:
    """Recordings with a spectrum each, in noise, that fade out as speech does: their end is told without a context."""
    torch.manual_seed(seed)
    fading = torch.ones(frames)
    fading[-30:] = torch.linspace(1.0, 0.3, 30)
    return fading[:, None] * (2 * torch.randn(number, 1, MELS) + 0.5 * torch.randn(number, frames, MELS))


def trained(kind: str, draw, steps: int, **options):
    """An encoder and an objective after some updates, each on recordings of its own."""
    encoder, objective = build(kind, **options)
    optimizer = torch.optim.Adam([*encoder.parameters(), *objective.parameters()], 3e-3)
    for step in range(steps):
        features = draw(step)
        lengths, random = torch.full(features.shape[:1], features.shape[1]), torch.rand(len(features), 9)
        optimizer.zero_grad()
        losses(encoder, objective, features, lengths, random).mean().backward()
        optimizer.step()
    return encoder, objective


@torch.no_grad()
def losses_by_context(encoder, objective, features: torch.Tensor) -> dict[str, float]:
    """Mean loss with each recording's own context, with that of another recording, and with zeros."""
    lengths = torch.full(features.shape[:1], features.shape[1])
    views, target = objective.views(features, lengths, torch.rand(len(features), 9))
    context, *pieces = [encoder(*view) for view in views]
    frames = {"own": context.frames, "swapped": context.frames.roll(1, 0), "zeros": torch.zeros_like(context.frames)}
    return {
        name: objective.loss([EncoderOutput(given, context.lengths), *pieces], target).mean().item()
        for name, given in frames.items()
    }


@pytest.mark.parametrize("kind", SELF_SUPERVISED)
def test_every_utterance_has_a_loss_and_every_parameter_a_gradient(kind):
    encoder, objective = build(kind, **BRIEF)
    found = losses(encoder, objective, torch.randn(4, 330, MELS), LENGTHS)
    assert found.shape == (4,) and found.isfinite().all() and (found[:2] > 0.1).all()
    found.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in [*encoder.parameters(), *objective.parameters()])


@pytest.mark.parametrize(("kind", "negatives"), [("cpc", "recording"), ("best-rq", "batch")])
def test_an_utterance_does_not_depend_on_the_batch(kind, negatives):
    encoder, objective = build(kind, negatives=negatives, **BRIEF)
    features, random = torch.randn(4, 330, MELS), torch.rand(4, 9)
    together = losses(encoder, objective, features, LENGTHS, random)
    for row, length in enumerate(LENGTHS.tolist()):
        one = slice(row, row + 1)
        alone = losses(encoder, objective, features[one, :length], LENGTHS[one], random[one])
        assert torch.allclose(alone[0], together[row], atol=1e-5)


def test_groups_do_not_depend_on_the_batch():
    encoder, objective = build("cpc", **BRIEF)
    features, random, lengths = torch.randn(6, 130, MELS), torch.rand(6, 9), torch.tensor([130, 95, 120, 40, 90, 100])
    groups = torch.tensor([0, 1, 0, 0, 1, 2])
    together = losses(encoder, objective, features, lengths, random, groups)
    for group in (0, 1):
        rows = torch.where(groups == group)[0]
        size = int(lengths[rows].max())
        alone = losses(encoder, objective, features[rows, :size], lengths[rows], random[rows])
        assert torch.allclose(alone, together[rows], atol=1e-5)
    assert (together[[0, 1, 2, 4]] > 0.1).all()
    assert together[5] == 0, "alone in its group, it would be told from its own frames by their places"


@pytest.mark.parametrize("negatives", ["batch", "recording"])
def test_what_is_shorter_than_context_and_future_is_left_out(negatives):
    encoder, objective = build("cpc", negatives=negatives, **BRIEF)
    features, lengths, random = torch.randn(3, 120, MELS), torch.tensor([120, 90, 89]), torch.rand(3, 9)
    found = losses(encoder, objective, features, lengths, random)
    assert found[2] == 0
    assert torch.allclose(found[:2], losses(encoder, objective, features[:2], lengths[:2], random[:2]), atol=1e-5), (
        "neither is anything compared with it"
    )


def test_a_frame_of_the_future_is_told_from_all_frames_of_the_batch():
    _, objective = build("cpc", **BRIEF)
    context, future = torch.randn(3, 15, WIDTH), torch.randn(3, 8, WIDTH)
    sizes = torch.full((3,), 15), torch.full((3,), 8)
    outputs = [EncoderOutput(frames, size) for frames, size in zip((context, future), sizes, strict=True)]
    found = objective.loss(outputs, torch.zeros(3, dtype=torch.long))
    unit = lambda vector: vector / vector.norm()  # noqa: E731
    for row in range(3):
        last, expected = context[row, -1], 0.0
        for step in range(8):
            last = last + objective.predict(last)
            scores = torch.stack([unit(last) @ unit(future[b, t]) for b in range(3) for t in range(8)]) / 0.1
            expected -= scores.log_softmax(0)[8 * row + step] / 8
        assert torch.allclose(found[row], expected, atol=1e-4)


def test_contexts_of_other_recordings_foretell_nothing():
    """Recordings as long as context and future: pieces of one recording are told apart without a context."""
    encoder, objective = trained("cpc", lambda step: voices(step, frames=90), 200, **BRIEF)
    found = losses_by_context(encoder, objective, voices(1000, frames=90))
    chance = torch.tensor(8.0).log().item()
    assert found["own"] < 0.6 * chance, found
    assert found["swapped"] > found["own"] + 1.0 and found["zeros"] > found["own"] + 1.0, found
    assert found["zeros"] >= 0.999 * chance, "who knows nothing has log(recordings) at best"


def test_cpc_hears_context_future_and_other_pieces_apart():
    _, objective = build("cpc", negatives="recording")
    features = torch.arange(330.0)[None, :, None].expand(4, -1, MELS)
    random = torch.tensor([[0.5, 0.0, 0.999, 0.25, 0, 0, 0, 0, 0]]).expand(4, -1)
    [(context, first), (future, second), *others], target = objective.views(features, LENGTHS, random)
    assert first.tolist() == [200] * 4 and second.tolist() == [100] * 4
    assert context[0, 0, 0] == 15 and future[0, 0, 0] == 215 and future[0, 99, 0] == 314, "from a random place on"
    assert target.tolist() == [0, -1, -1, -1]
    assert [piece[0, 0, 0].item() for piece, _ in others] == [0, 229, 57] and all(s.equal(second) for _, s in others)


def test_white_noise_stays_at_chance():
    """Beyond the place of a frame in its second, which leaves one of each recording, nothing of it is foreseen."""
    encoder, objective = trained("cpc", lambda step: torch.randn(8, 100, MELS), 200, **BRIEF)
    found = losses_by_context(encoder, objective, torch.randn(64, 100, MELS))
    assert min(found.values()) >= 0.98 * torch.tensor(64.0).log(), found
    assert found["swapped"] == pytest.approx(found["own"], abs=0.02)


def test_pieces_of_white_noise_are_not_told_apart_by_the_place_of_frames():
    """New noise every time: the place of a frame in its second must not tell it."""
    encoder, objective = build("cpc", negatives="recording")
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


def test_configs_without_the_option_load_and_keep_their_parameters():
    saved = {"kind": "cpc", "weight": 1.0, "windows": 4}
    options = SelfSupervised.model_validate(saved)
    assert options.negatives == "batch" and options.compared == 16 and options.least_seconds == 3.0
    assert SelfSupervised(negatives="recording").compared == SelfSupervised(kind="best-rq").compared == 1
    states = [build("cpc", negatives=kind)[1].state_dict() for kind in ("batch", "recording")]
    assert states[0].keys() == states[1].keys()


def test_half_precision_changes_no_codes():
    _, objective = build("best-rq")
    features, lengths = torch.randn(8, 330, MELS), torch.full((8,), 330)
    codes = objective.codes(features, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(objective.codes(features, lengths), codes)
        _, (within, _) = objective.views(features, lengths, torch.rand(8, 9))
    assert torch.equal(within, codes)


@pytest.mark.parametrize(("kind", "negatives"), [("cpc", "batch"), ("cpc", "recording"), ("best-rq", "batch")])
def test_it_can_be_learnt(kind, negatives):
    """Speech that repeats itself: what comes next, and what is masked, can be known."""
    encoder, objective = build(kind, negatives=negatives, **BRIEF)
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


@pytest.mark.parametrize(("kind", "negatives"), [("cpc", "batch"), ("cpc", "recording"), ("best-rq", "batch")])
def test_silence_that_was_put_behind_a_recording_is_no_part_of_it(kind, negatives):
    """Whisper's encoder does, and counts it among its frames."""
    _, objective = build(kind, negatives=negatives, **BRIEF)
    features, lengths = torch.randn(2, 330, MELS), torch.tensor([330, 90])
    views, target = objective.views(features, lengths, torch.rand(2, 9))
    heard = [-(-view_lengths // 4) for _, view_lengths in views]
    frames = [torch.randn(2, int(size.max()) + 7, WIDTH) for size in heard]
    with_silence = [EncoderOutput(f, size + 7, recorded=size) for f, size in zip(frames, heard, strict=True)]
    without = [EncoderOutput(f[:, : int(size.max())], size) for f, size in zip(frames, heard, strict=True)]
    assert torch.equal(objective.loss(with_silence, target), objective.loss(without, target))
