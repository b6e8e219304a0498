"""N-gram models: against the formula computed in another way, sums to one, ARPA files, bad input."""

import gzip
import math
from collections import Counter
from fractions import Fraction
from itertools import product
from pathlib import Path

import pytest

from masr.decode.language_model import END, FALLBACK_DISCOUNTS, START, UNKNOWN, NGram, estimate

# Public domain: the nursery rhyme "This is the house that Jack built" (Randolph Caldecott's text).
HOUSE = """this is the house that jack built
this is the malt that lay in the house that jack built
this is the rat that ate the malt that lay in the house that jack built
this is the cat that killed the rat that ate the malt that lay in the house that jack built
this is the dog that worried the cat that killed the rat that ate the malt that lay in the house that jack built
this is the cow with the crumpled horn that tossed the dog that worried the cat that killed the rat
this is the maiden all forlorn that milked the cow with the crumpled horn
this is the man all tattered and torn that kissed the maiden all forlorn"""
SENTENCES = [line.split() for line in HOUSE.splitlines()]
CHARACTERS = [list(line.replace(" ", "_")) for line in HOUSE.splitlines()]


@pytest.fixture(scope="module", params=[1, 2, 3, 4])
def model(request) -> NGram:
    return estimate(SENTENCES, request.param)


class Formula:
    """Chen & Goodman 1999, equations 22 to 27, straight from the sentences: every probability by recursion over all
    positions of the text, with exact fractions; nothing shared with the program."""

    def __init__(self, sentences: list[list[str]], order: int):
        self.order = order
        padded = [[START, *sentence, END] for sentence in sentences]
        self.grams = {
            n: [tuple(line[i : i + n]) for line in padded for i in range(len(line) - n + 1)]
            for n in range(1, order + 1)
        }
        self.vocabulary = {g[0] for g in self.grams[1]} - {START} | {UNKNOWN}
        self.counts = {n: self.count_all(n) for n in range(1, order + 1)}

    def count_all(self, n: int) -> dict[tuple, int]:
        raw = Counter(g for g in self.grams[n] if n > 1 or g != (START,))
        if n == self.order:
            return dict(raw)
        kinds = set(self.grams[n + 1])
        return {g: c if g[0] == START else sum(k[1:] == g for k in kinds) for g, c in raw.items()}

    def discount(self, n: int, count: int) -> Fraction:
        t = [sum(c == i for c in self.counts[n].values()) for i in range(5)]
        if 0 in t[1:]:
            return Fraction(FALLBACK_DISCOUNTS[min(count, 3) - 1])
        y = Fraction(t[1], t[1] + 2 * t[2])
        each = [i - (i + 1) * y * Fraction(t[i + 1], t[i]) for i in (1, 2, 3)]
        if not all(0 < d < i for i, d in enumerate(each, 1)):
            return Fraction(FALLBACK_DISCOUNTS[min(count, 3) - 1])
        return each[min(count, 3) - 1]

    def probability(self, gram: tuple) -> Fraction:
        n = len(gram)
        if n == 0:
            return Fraction(1, len(self.vocabulary))
        after = {g: c for g, c in self.counts[n].items() if g[:-1] == gram[:-1]}
        lower = self.probability(gram[1:])
        if not after:
            return lower
        total = sum(after.values())
        kept = sum(self.discount(n, c) for c in after.values()) / total
        own = (after[gram] - self.discount(n, after[gram])) / total if gram in after else 0
        return own + kept * lower


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("sentences", [SENTENCES, CHARACTERS[:3]], ids=["words", "characters"])
def test_it_is_the_published_formula(sentences, order):
    model, formula = estimate(sentences, order), Formula(sentences, order)
    assert model.vocabulary == formula.vocabulary
    seen = {
        tuple(([START] * (i < order) + line)[max(0, i - 1) : i + order - 1]) for line in sentences for i in range(4)
    }
    unseen = {(UNKNOWN,) * order, ("jack",) * order, (*"ab",)[:order]}
    for gram in seen | unseen:
        gram = tuple(s if s in formula.vocabulary or (s == START and i == 0) else UNKNOWN for i, s in enumerate(gram))
        if gram and gram[-1] != START:
            assert math.exp(model.log_prob(gram[-1], gram[:-1])) == pytest.approx(float(formula.probability(gram)))


def test_perplexity_on_a_fixed_text():
    """The formula above gives the same number by another road."""
    text = [["this", "is", "the", "cat", "that", "jack", "kissed"], ["the", "horn", "that", "ate", "the", "unicorn"]]
    formula, total, count = Formula(SENTENCES, 3), 0.0, 0
    for line in text:
        symbols = [START, *(w if w in formula.vocabulary else UNKNOWN for w in line), END]
        for i in range(1, len(symbols)):
            total -= math.log(formula.probability(tuple(symbols[max(0, i - 2) : i + 1])))
            count += 1
    assert estimate(SENTENCES, 3).perplexity(text) == pytest.approx(math.exp(total / count))
    assert estimate(SENTENCES, 3).perplexity(SENTENCES) < estimate(SENTENCES, 1).perplexity(SENTENCES) / 3


def test_probabilities_sum_to_one(model):
    contexts = [
        (),
        (START,),
        ("the",),
        ("jack", "built"),
        (START, "this", "is"),
        ("unheard",),
        ("the", "unheard", "the"),
    ]
    for context in [*contexts, *model.backoffs]:
        assert sum(math.exp(model.log_prob(w, context)) for w in model.vocabulary) == pytest.approx(1.0)


def test_steps_add_up_to_the_score(model):
    sentence = ["this", "is", "the", "dog", "that", "jack", "built"]
    state, total = model.state((START,)), 0.0
    for position, word in enumerate([*sentence, END]):
        total += model.log_prob(word, (START, *sentence[:position]))
        state, _ = model.step(state, word)
        assert len(state) < model.order
    assert model.score(sentence) == pytest.approx(total)
    assert model.score(sentence, end=False) > model.score(sentence)


def test_what_was_never_seen_is_unknown(model):
    assert model.score(["zebra"]) == model.score(["unicorn"]) == model.score([UNKNOWN])
    assert math.isfinite(model.score(["zebra"] * 5)) and math.isfinite(model.score([]))


@pytest.mark.parametrize("name", ["words.arpa", "words.arpa.gz"])
def test_arpa_keeps_the_model(model, name, tmp_path: Path):
    model.save(tmp_path / name)
    again = NGram.load(tmp_path / name)
    assert again.order == model.order and again.log_probs.keys() == model.log_probs.keys()
    assert again.backoffs.keys() == model.backoffs.keys()
    assert again.perplexity(SENTENCES) == pytest.approx(model.perplexity(SENTENCES), rel=1e-5)
    again.save(tmp_path / "again.arpa")
    text = (tmp_path / name).read_bytes()
    assert (gzip.decompress(text) if name.endswith("gz") else text) == (tmp_path / "again.arpa").read_bytes()


ARPA = """\\data\\
ngram 1=3
ngram 2=1

\\1-grams:
-99\t<s>\t-0.30103
-0.5\t</s>
-0.25\ta\t-0.1

\\2-grams:
-0.125\t<s> a

\\end\\
"""


def test_an_arpa_file_of_another_program_is_read(tmp_path: Path):
    (tmp_path / "a.arpa").write_text(ARPA)
    model = NGram.load(tmp_path / "a.arpa")
    assert model.order == 2 and model.vocabulary == {"a", END, UNKNOWN}
    assert model.score(["a"]) == pytest.approx((-0.125 - 0.1 - 0.5) * math.log(10))
    assert model.score([]) == pytest.approx((-0.30103 - 0.5) * math.log(10))
    assert model.score(["b"]) < -200  # it has no <unk>


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("-0.25\ta", "x\ta", "line 8: not ARPA"),
        ("-0.125\t<s> a", "-0.125\t<s>", "line 11: not ARPA"),
        ("\\end\\\n", "", "cut off"),
        ("ngram 2=1", "ngram 2=2", "announces"),
        (ARPA, "hello\n\\end\\\n", "announces"),
    ],
)
def test_a_damaged_arpa_file_is_named(old, new, message, tmp_path: Path):
    (tmp_path / "a.arpa").write_text(ARPA.replace(old, new))
    with pytest.raises(ValueError, match=message) as error:
        NGram.load(tmp_path / "a.arpa")
    assert "a.arpa" in str(error.value)


def test_bad_input():
    with pytest.raises(ValueError, match="at least 1"):
        estimate(SENTENCES, 0)
    with pytest.raises(ValueError, match="no sentences"):
        estimate([], 2)
    with pytest.raises(ValueError, match="cannot be symbols"):
        estimate([["a", START]], 2)


def test_a_single_word_is_enough():
    model = estimate([["a"]], 3)
    for context in product(["a", UNKNOWN], repeat=2):
        assert sum(math.exp(model.log_prob(w, context)) for w in model.vocabulary) == pytest.approx(1.0)
