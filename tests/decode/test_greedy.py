import pytest
import torch
from brute_force import alignments, collapse

from masr.decode.greedy import ctc_greedy


def test_is_the_best_alignment_collapsed():
    torch.manual_seed(0)
    log_probs = torch.randn(20, 5, 3).log_softmax(-1)
    for row, (found,) in enumerate(ctc_greedy(log_probs, torch.full((20,), 5))):
        path, score = max(alignments(log_probs[row]).items(), key=lambda item: item[1])
        assert tuple(found.tokens) == collapse(path)
        assert found.score == pytest.approx(score, abs=1e-5)
        assert found.parts == {"ctc": found.score}


def test_repeats_blanks_and_padding():
    best = torch.tensor([[1, 1, 0, 1, 2, 2], [0, 2, 2, 0, 0, 0], [3, 3, 3, 3, 3, 3]])
    log_probs = torch.nn.functional.one_hot(best, 4).float().log_softmax(-1)
    found = ctc_greedy(log_probs, torch.tensor([6, 3, 0]))
    assert [hypotheses[0].tokens for hypotheses in found] == [[1, 1, 2], [2], []]
    assert found[2][0].score == 0.0


def test_blank_may_be_any_token():
    log_probs = torch.tensor([[[0.9, 0.05, 0.05], [0.1, 0.1, 0.8], [0.9, 0.05, 0.05]]]).log()
    assert ctc_greedy(log_probs, torch.tensor([3]), blank=2)[0][0].tokens == [0, 0]
