import itertools
import math

import pytest
import torch
from brute_force import labellings

from masr.decode.ctc_prefix_score import CTCPrefixScorer

V, SOS_EOS = 4, 3


def follow(scorer: CTCPrefixScorer, prefix: tuple[int, ...]) -> torch.Tensor:
    """Scores (V,) after one hypothesis of utterance 0 has grown to ``prefix``."""
    for token in prefix:
        scorer.advance(torch.arange(len(scorer.last)), torch.full_like(scorer.last, token))
    return scorer.scores()[0]


def log_sum(values: list[float]) -> float:
    return math.log(sum(map(math.exp, values))) if values else -math.inf


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("prefix", [p for n in range(4) for p in itertools.product((1, 2), repeat=n)])
def test_equals_the_sum_over_all_alignments(prefix, padding):
    torch.manual_seed(0)
    log_probs = torch.randn(1, 5, V, dtype=torch.float64).log_softmax(-1)
    expected = labellings(log_probs[0])
    padded = torch.cat((log_probs, torch.full((1, padding, V), torch.nan, dtype=torch.float64)), dim=1)
    scores = follow(CTCPrefixScorer(padded, torch.tensor([5]), beam=2, blank=0, sos_eos=SOS_EOS), prefix)
    for token in (1, 2):
        longer = (*prefix, token)
        begins = [score for labelling, score in expected.items() if labelling[: len(longer)] == longer]
        assert float(scores[token]) == pytest.approx(log_sum(begins), abs=1e-10)
    assert float(scores[SOS_EOS]) == pytest.approx(expected[prefix], abs=1e-10)
    assert scores[0] == -torch.inf


def test_prefixes_that_do_not_fit_are_impossible_with_and_without_padding():
    for length in (2, 6):
        log_probs = torch.full((1, length, V), 1 / V).log()
        scores = follow(CTCPrefixScorer(log_probs, torch.tensor([2]), 1, 0, SOS_EOS), (1,))
        assert scores[1] == -torch.inf
        assert scores[2].isfinite()


def test_hypotheses_are_reordered_and_utterances_dropped():
    torch.manual_seed(0)
    log_probs, lengths = torch.randn(2, 6, V).log_softmax(-1), torch.tensor([6, 5])
    scorer = CTCPrefixScorer(log_probs, lengths, beam=2, blank=0, sos_eos=SOS_EOS)
    scorer.advance(torch.arange(4), torch.tensor([1, 2, 1, 2]))
    scorer.advance(torch.tensor([3, 3]), torch.tensor([1, 2]))
    for row, prefix in enumerate(((2, 1), (2, 2))):
        alone = CTCPrefixScorer(log_probs[1:], lengths[1:], 1, 0, SOS_EOS)
        assert torch.allclose(scorer.scores()[row], follow(alone, prefix), atol=1e-10)


def test_long_recordings_stay_finite_and_exact():
    """3000 frames of sharp posteriors: the running products reach exp(-30000)."""
    torch.manual_seed(0)
    log_probs = (10 * torch.randn(1, 3000, V, dtype=torch.float64)).log_softmax(-1)
    targets = torch.randint(1, 3, (1, 400))
    scorer = CTCPrefixScorer(log_probs, torch.tensor([3000]), 1, 0, SOS_EOS)
    score = follow(scorer, tuple(targets[0].tolist()))[SOS_EOS]
    loss = torch.nn.functional.ctc_loss(
        log_probs.transpose(0, 1), targets, torch.tensor([3000]), torch.tensor([400]), reduction="sum"
    )
    assert torch.allclose(score, -loss, rtol=1e-9)


def test_blank_may_be_the_end_token():
    log_probs = torch.randn(1, 4, V).log_softmax(-1)
    scores = CTCPrefixScorer(log_probs, torch.tensor([4]), 1, blank=0, sos_eos=0).scores()
    assert torch.allclose(scores[0, 0], log_probs[0, :, 0].double().sum())
