import pytest
import torch
from brute_force import labellings
from torch import Tensor

from masr.decode.greedy import ctc_greedy
from masr.decode.prefix_beam import Pruning, ctc_prefix_beam

EVERYTHING = 100_000


def log_probs_of(seed: int, *shape: int, sharpness: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(*shape, generator=generator, dtype=torch.float64)).log_softmax(-1)


def peaky(seed: int, frames: int = 120, vocabulary_size: int = 40) -> Tensor:
    """Posteriors (T, V) as trained models give them: mostly blank, tokens of one to three frames, a few doubtful."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(frames, vocabulary_size, generator=generator)
    logits[:, 0] += 11
    for start in range(2, frames - 3, 6):
        token, other = torch.randint(1, vocabulary_size, (2,), generator=generator).tolist()
        logits[start : start + 2, token] += 13
        if start % 4 == 0:
            logits[start + 1, other] += 13
    return logits.log_softmax(-1)


@pytest.mark.parametrize("seed", range(8))
def test_unpruned_search_finds_every_labelling_with_its_exact_probability(seed):
    log_probs = log_probs_of(seed, 2, 5, 4, sharpness=2)
    found = ctc_prefix_beam(log_probs, torch.tensor([5, 4]), EVERYTHING, EVERYTHING, prune=None)
    for row, length in enumerate((5, 4)):
        expected = labellings(log_probs[row, :length])
        assert {tuple(hypothesis.tokens) for hypothesis in found[row]} == set(expected)
        for hypothesis in found[row]:
            assert hypothesis.score == pytest.approx(expected[tuple(hypothesis.tokens)], abs=1e-9)
        scores = [hypothesis.score for hypothesis in found[row]]
        assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("seed", range(5))
def test_pruned_tokens_have_probability_zero_and_nothing_else_changes(seed):
    """Also covers the frames in which only blank stays."""
    log_probs = log_probs_of(seed, 1, 6, 3, sharpness=4)
    prune = Pruning(top_tokens=1, min_log_prob=-1.5)
    kept = log_probs[0].clone()
    dropped = (kept < prune.min_log_prob) & (kept != kept.amax(1, keepdim=True))
    dropped[torch.arange(6), kept[:, 1:].argmin(1) + 1] = True
    dropped[:, 0] = False
    expected = labellings(kept.masked_fill(dropped, -1000.0))
    for hypothesis in ctc_prefix_beam(log_probs, torch.tensor([6]), EVERYTHING, EVERYTHING, prune=prune)[0]:
        assert hypothesis.score == pytest.approx(expected[tuple(hypothesis.tokens)], abs=1e-9)


def test_pruning_keeps_the_best_transcript_of_peaky_posteriors():
    log_probs = torch.stack([peaky(seed) for seed in range(10)])
    lengths = torch.full((10,), log_probs.size(1))
    pruned = ctc_prefix_beam(log_probs, lengths)
    exact = ctc_prefix_beam(log_probs, lengths, prune=None)
    for (fast,), (slow,) in zip(pruned, exact, strict=True):
        assert fast.tokens == slow.tokens
        assert fast.score == pytest.approx(slow.score, abs=0.2)


def test_a_prefix_that_leaves_the_beam_and_returns_meets_its_own_descendants():
    for seed in range(50):
        found = ctc_prefix_beam(log_probs_of(seed, 1, 30, 4), torch.tensor([30]), 4, 4, prune=None)[0]
        assert len({tuple(hypothesis.tokens) for hypothesis in found}) == len(found) == 4


def test_beam_is_at_least_as_good_as_the_best_path():
    log_probs = torch.stack([peaky(seed) for seed in range(5)])
    lengths = torch.full((5,), log_probs.size(1))
    for (beam,), (greedy,) in zip(ctc_prefix_beam(log_probs, lengths), ctc_greedy(log_probs, lengths), strict=True):
        assert beam.score >= greedy.score


def test_alone_equals_batched_and_padding_is_ignored():
    log_probs = torch.stack((peaky(0), peaky(1)))
    log_probs[1, 50:] = torch.nan
    batched = ctc_prefix_beam(log_probs, torch.tensor([120, 50]), n_best=5)
    assert batched[1] == ctc_prefix_beam(log_probs[1:, :50], torch.tensor([50]), n_best=5)[0]


def test_long_and_improbable_input_does_not_underflow():
    log_probs = torch.full((1, 4000, 3), -800.0)
    (found,) = ctc_prefix_beam(log_probs, torch.tensor([4000]), beam=3)[0]
    assert -800.0 * 4000 <= found.score < -790.0 * 4000


def test_no_frames_give_an_empty_transcript():
    (found,) = ctc_prefix_beam(torch.zeros(1, 0, 5), torch.tensor([0]), n_best=3)[0]
    assert (found.tokens, found.score) == ([], 0.0)


def test_broken_frames_and_options_are_refused():
    log_probs = torch.zeros(2, 3, 4)
    log_probs[1, 2] = torch.nan
    with pytest.raises(ValueError, match="utterance 1 of the batch, frame 2"):
        ctc_prefix_beam(log_probs, torch.tensor([3, 3]))
    with pytest.raises(ValueError, match="at least 1"):
        ctc_prefix_beam(log_probs, torch.tensor([3, 3]), beam=0)
