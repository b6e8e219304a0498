"""Rescoring: the formula, the attention decoder's log-probabilities, and the choice of scales."""

import pytest
import torch

from masr.decode.hypothesis import Hypothesis
from masr.decode.rescore import ScaleChoice, attention_log_probs, rerank
from masr.nn.attention_decoder import AttentionDecoder


def test_the_order_is_by_score_and_scaled_parts():
    nbest = [
        Hypothesis([1], -1.0, {"ctc": -1.0, "lm": -4.0, "length": 1.0}),
        Hypothesis([1, 2], -2.0, {"ctc": -2.0, "lm": -1.0, "length": 2.0}),
        Hypothesis([], -2.5, {"ctc": -2.5, "lm": -2.0, "length": 0.0}),
    ]
    [[best, second]] = rerank([nbest], {"lm": 0.5, "length": 0.25}, 2)
    assert (best.tokens, best.score) == ([1, 2], pytest.approx(-2.0 - 0.5 + 0.5))
    assert (second.tokens, second.score) == ([1], pytest.approx(-1.0 - 2.0 + 0.25))
    assert [h.tokens for h in rerank([nbest], {"lm": 0.0, "length": 0.0}, 3)[0]] == [[1], [1, 2], []]


def test_attention_log_probs_are_those_of_teacher_forcing():
    torch.manual_seed(0)
    decoder = AttentionDecoder(7, 8, 8, 2, 2, 16, 0.0, sos_eos=2, label_smoothing=0.0).eval()
    frames, lengths = torch.randn(1, 9, 8), torch.tensor([9])
    sentences = [[3, 4, 5], [], [6], [3, 3, 3, 3]]
    found = attention_log_probs(decoder, frames, lengths, sentences)
    for sentence, log_prob in zip(sentences, found, strict=True):
        ids = torch.tensor([sentence], dtype=torch.long).view(1, -1)
        alone = -decoder.loss(frames, lengths, ids, torch.tensor([len(sentence)])).item()
        assert log_prob == pytest.approx(alone, abs=1e-4)


def test_the_setting_with_the_smallest_macro_cer_is_chosen_the_first_of_equals():
    choice = ScaleChoice([{"lm": 0.0}, {"lm": 0.5}, {"lm": 1.0}, {"lm": 2.0}])
    choice.add("es", "una vaca", ["una baca", "una vaca", "una vaca", "una"])
    choice.add("es", "gato", ["gato", "gato", "pato", "gato"])
    choice.add("ro", "un", ["un", "un", "un", ""])
    assert choice.macro_cer.tolist() == pytest.approx([1 / 24, 0.0, 1 / 24, (5 / 12 + 1) / 2])
    assert choice.best() == {"lm": 0.5}
    japanese = ScaleChoice([{"lm": 0.0}, {"lm": 1.0}])
    japanese.add("ja", "今日 は 晴れ", ["今日は晴れ", "今日 は 晴"])
    assert japanese.macro_cer.tolist() == [0.0, 1 / 5], "a space is no character there"
    equal = ScaleChoice([{"lm": 0.0}, {"lm": 1.0}])
    equal.add("es", "a", ["b", "c"])
    assert equal.best() == {"lm": 0.0}
