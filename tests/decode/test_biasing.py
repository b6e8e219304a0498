"""Biasing: what transcripts earn, against counting phrases; the same in the prefix beam and in lattices."""

import itertools

import pytest
import torch

from masr.config import Lattice, Vocab
from masr.decode.biasing import Biasing, read_biasing
from masr.decode.lattice import kaldi
from masr.decode.lattice.graph import compose_graph
from masr.decode.prefix_beam import ctc_prefix_beam
from masr.text.tokenizer import train_tokenizer

PHRASES = [(1, 2), (2, 3, 1), (1,), (3, 3)]


def counted(tokens: tuple[int, ...], boost: float) -> float:
    """Boost times the tokens of every phrase that stands anywhere in ``tokens``."""
    return boost * sum(
        len(phrase) for phrase in PHRASES for i in range(len(tokens)) if tokens[i : i + len(phrase)] == phrase
    )


@pytest.mark.parametrize("length", range(7))
def test_a_transcript_earns_the_phrases_that_it_holds_and_nothing_else(length):
    biasing = Biasing(PHRASES, [], 0.5)
    for tokens in itertools.product((1, 2, 3), repeat=length):
        assert biasing.score(tokens) == pytest.approx(counted(tokens, 0.5))


def test_beginnings_count_at_the_beginning_only():
    biasing = Biasing([(9, 1, 2)], [(1, 2)], 1.0)
    assert biasing.score((1, 2)) == 2.0
    assert biasing.score((1, 2, 1, 2)) == 2.0
    assert biasing.score((1, 2, 9, 1, 2)) == 5.0
    assert biasing.score((1,)) == 0.0
    assert biasing.score((1,), ended=False) == 1.0


def test_ignored_tokens_change_nothing():
    biasing = Biasing([(9, 1)], [(1, 2)], 1.0, ignored=[5])
    assert biasing.score((5, 1, 2)) == 2.0
    assert biasing.score((1, 5, 2)) == 2.0


def test_the_beam_ranks_transcripts_by_ctc_and_what_they_earn():
    torch.manual_seed(0)
    log_probs = torch.randn(6, 7, 4).log_softmax(-1)
    lengths = torch.full((6,), 7)
    biasing = Biasing(PHRASES, [], 0.7)
    everything = ctc_prefix_beam(log_probs, lengths, beam=20_000, n_best=20_000, prune=None)
    biased = ctc_prefix_beam(log_probs, lengths, beam=20_000, n_best=5, prune=None, biasing=biasing)
    for plain, found in zip(everything, biased, strict=True):
        expected = sorted(plain, key=lambda h: -(h.score + counted(tuple(h.tokens), 0.7)))[:5]
        assert [h.tokens for h in found] == [h.tokens for h in expected]
        for hypothesis, unbiased in zip(found, expected, strict=True):
            assert hypothesis.parts["ctc"] == pytest.approx(unbiased.score, abs=1e-4)
            assert hypothesis.parts["bias"] == pytest.approx(counted(tuple(hypothesis.tokens), 0.7))
            assert hypothesis.score == pytest.approx(hypothesis.parts["ctc"] + hypothesis.parts["bias"])


def test_a_lattice_earns_the_same():
    torch.manual_seed(1)
    log_probs, lengths = torch.randn(6, 5, 4).log_softmax(-1), torch.full((6,), 5)
    biasing = Biasing(PHRASES, [], 0.7)
    lattices = kaldi.intersect(log_probs, lengths, compose_graph(4, None), Lattice(beam=50.0, lattice_beam=40.0))
    plain, biased = lattices.best_paths(200), lattices.rescore(biasing.acceptor(range(1, 4))).best_paths(200)
    for before, after in zip(plain, biased, strict=True):
        scores = {tuple(h.tokens): h.score + counted(tuple(h.tokens), 0.7) for h in before}
        assert {tuple(h.tokens) for h in after} == set(scores)
        for hypothesis in after:
            assert hypothesis.score == pytest.approx(scores[tuple(hypothesis.tokens)], abs=1e-3)


def test_a_file_of_words_in_the_model_s_tokens(tmp_path):
    tokenizer = train_tokenizer({"es": ["una vaca", "un gato"], "ro": ["o pisică"]}, Vocab())
    path = tmp_path / "words.txt"
    path.write_text("# expected\nGato\n\n  un gato \n")
    biasing = read_biasing(path, tokenizer, 1.0)
    spelled = tokenizer.encode("vaca gato", "es")
    assert biasing.score(spelled) == pytest.approx(5.0)  # "▁gato"
    assert biasing.score(tokenizer.encode("gato", "es")) == pytest.approx(4.0)
    assert biasing.score(tokenizer.encode("un gato", "es")) == pytest.approx(7.0 + 5.0)
    for content, message in (("", "no words to expect"), ("žluťoučký", "line 1: the model has no tokens for")):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            read_biasing(path, tokenizer, 1.0)
    with pytest.raises(FileNotFoundError, match="no such file of words"):
        read_biasing(tmp_path / "missing.txt", tokenizer, 1.0)


@pytest.mark.parametrize("vocab", [Vocab(), Vocab(kind="bpe", size=30), Vocab(kind="unigram", size=20)])
def test_a_word_earns_the_same_wherever_it_stands(vocab, tmp_path):
    texts = {"es": ["un gato y una vaca", "una vaca y un gato", "gato vaca"]}
    tokenizer = train_tokenizer(texts, vocab)
    (tmp_path / "words.txt").write_text("gato\n")
    biasing = read_biasing(tmp_path / "words.txt", tokenizer, 1.0)
    first = tokenizer.encode("gato", "es")
    assert biasing.score(first) == pytest.approx(len(first))
    later = biasing.score(tokenizer.encode("un gato", "es"))
    assert biasing.score(tokenizer.encode("gato un gato", "es")) == pytest.approx(len(first) + later)


def test_great_boosts_do_not_overflow():
    log_probs = torch.full((1, 80, 4), -20.0)
    tokens = [1 + i % 3 for i in range(40)]
    for frame, token in enumerate(tokens):
        log_probs[0, 2 * frame, token] = log_probs[0, 2 * frame + 1, 0] = -0.01
    biasing = Biasing([tuple(tokens[:31])], [], 20.0)
    [[best]] = ctc_prefix_beam(log_probs, torch.tensor([80]), 5, 1, biasing=biasing)
    assert best.tokens == tokens
    assert best.score == pytest.approx(4 * 31 * 20.0 - 0.8, abs=0.1)  # the phrase stands there four times


def test_a_file_that_is_not_text_is_named(tmp_path):
    (tmp_path / "words.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="words.txt is not UTF-8 text"):
        read_biasing(tmp_path / "words.txt", train_tokenizer({"es": ["a b"]}, Vocab()), 1.0)
