import pytest
import torch
from brute_force import alignments, collapse

from masr.decode.alignment import ctc_align, token_times, word_times


def spans(path: tuple[int, ...]) -> list[tuple[int, int]]:
    """Frames of each token of an alignment."""
    starts = [t for t, token in enumerate(path) if token and (t == 0 or path[t - 1] != token)]
    return [(s, next((t for t in range(s, len(path)) if path[t] != path[s]), len(path))) for s in starts]


@pytest.mark.parametrize("tokens", [(), (1,), (2, 2), (1, 2, 1), (1, 1, 2), (2, 1, 1, 2)])
def test_equals_the_best_of_all_alignments(tokens):
    for seed in range(10):
        torch.manual_seed(seed)
        log_probs = torch.randn(6, 3, dtype=torch.float64).log_softmax(-1)
        fitting = {path: score for path, score in alignments(log_probs).items() if collapse(path) == tokens}
        assert ctc_align(log_probs, tokens) == spans(max(fitting, key=fitting.__getitem__))


def test_just_enough_frames():
    log_probs = torch.randn(4, 3).log_softmax(-1)
    assert ctc_align(log_probs, [1, 1, 2]) == [(0, 1), (2, 3), (3, 4)]


def test_too_few_frames_are_named():
    with pytest.raises(ValueError, match=r"3 frames are too few for 3 tokens with 1 repeats: at least 4"):
        ctc_align(torch.randn(3, 3), [1, 1, 2])


@pytest.mark.parametrize("token", [0, 3, -1])
def test_tokens_outside_the_vocabulary_are_refused(token):
    with pytest.raises(ValueError, match=f"token {token} cannot be aligned"):
        ctc_align(torch.randn(4, 3), [1, token])


def test_impossible_tokens_are_refused():
    log_probs = torch.full((4, 3), 0.5).log()
    log_probs[:, 2] = -torch.inf
    with pytest.raises(ValueError, match="probability 0"):
        ctc_align(log_probs, [1, 2])


def test_word_times():
    times = token_times([(0, 2), (2, 3), (5, 6), (7, 9)], 0.5)
    assert times == [(0.0, 1.0), (1.0, 1.5), (2.5, 3.0), (3.5, 4.5)]
    assert word_times(["▁he", "llo", "▁", "you"], times) == [("hello", 0.0, 1.5), ("you", 3.5, 4.5)]
    with pytest.raises(ValueError, match="1 pieces but 2 times"):
        word_times(["▁a"], times[:2])


def test_words_of_scripts_without_spaces_are_the_models_pieces():
    times = token_times([(0, 2), (2, 3), (5, 6), (7, 9)], 0.5)
    assert word_times(["今", "日", "は", "。"], times) == [("今", 0.0, 1.0), ("日", 1.0, 1.5), ("は。", 2.5, 4.5)]
    assert word_times(["▁", "ดี", "ม", "าก"], times) == [("ดี", 1.0, 1.5), ("ม", 2.5, 3.0), ("าก", 3.5, 4.5)]
    assert word_times(["你好", "g", "o", "吧"], times) == [("你好", 0.0, 1.0), ("go", 1.0, 3.0), ("吧", 3.5, 4.5)]


def test_a_pause_before_a_word_is_not_part_of_it():
    pieces, frames = ["a", "b", "▁", "c"], [(0, 1), (1, 2), (5, 6), (37, 40)]
    assert word_times(pieces, token_times(frames, 0.04)) == [("ab", 0.0, 0.08), ("c", 1.48, 1.6)]
