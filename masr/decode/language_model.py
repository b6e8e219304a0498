"""N-gram language models over words or tokens: estimated from text, queried, read and written as ARPA files.

Interpolated modified Kneser-Ney (Chen & Goodman 1999, "An empirical study of smoothing techniques for language
modeling", section 4.1), with the vocabulary and sentence borders of Heafield et al. 2013 ("Scalable modified
Kneser-Ney language model estimation"): ``<unk>`` is a word that was never seen, ``<s>`` is never predicted.

A symbol is a string, an n-gram a tuple of symbols, the last one the newest. All log-probabilities are natural.
"""

import gzip
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from masr.files import reading, writing

Gram = tuple[str, ...]

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
LOG10 = math.log(10)
NEVER = -99.0
"""The ARPA format's log10 of zero."""
AGAIN = "make it again: `masr lm --force`"
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
"""Discounts where too little text leaves the formula without a value (as lmplz --discount_fallback)."""


@dataclass
class NGram:
    """A back-off model. ``log_probs`` of the n-grams that are kept, ``backoffs`` of the contexts that have any."""

    order: int
    log_probs: dict[Gram, float]
    backoffs: dict[Gram, float]

    @property
    def vocabulary(self) -> set[str]:
        """Every symbol that can be predicted, with ``<unk>`` and ``</s>``."""
        return {gram[0] for gram in self.log_probs if len(gram) == 1} - {START}

    def log_prob(self, symbol: str, context: Gram = ()) -> float:
        """Of a symbol after a context of any length; an unseen symbol counts as ``<unk>``."""
        return self.step(self.state(context), symbol)[1]

    def state(self, context: Gram) -> Gram:
        """The longest end of a context that the model knows: two contexts with one state never differ again."""
        recent = context[max(0, len(context) - self.order + 1) :]
        context = tuple(symbol if (symbol,) in self.log_probs else UNKNOWN for symbol in recent)
        while context and context not in self.backoffs:
            context = context[1:]
        return context

    def step(self, state: Gram, symbol: str) -> tuple[Gram, float]:
        """The state after a symbol, and the symbol's log-probability."""
        if (symbol,) not in self.log_probs:
            symbol = UNKNOWN
        total, context = 0.0, state
        while (gram := (*context, symbol)) not in self.log_probs:
            total += self.backoffs.get(context, 0.0)
            context = context[1:]
        return self.state((*state, symbol)), total + self.log_probs[gram]

    def score(self, symbols: Sequence[str], end: bool = True) -> float:
        """Log-probability of a sentence; without ``end``, of its beginning."""
        state, total = self.state((START,)), 0.0
        for symbol in [*symbols, END] if end else symbols:
            state, log_prob = self.step(state, symbol)
            total += log_prob
        return total

    def scores(self, sentences: Sequence[Sequence[str]]) -> list[float]:
        """`score` of many sentences; what several of them begin with is scored once."""
        known: dict[Gram, tuple[Gram, float]] = {(): (self.state((START,)), 0.0)}
        found = []
        for sentence in map(tuple, sentences):
            done = len(sentence)
            while sentence[:done] not in known:
                done -= 1
            state, total = known[sentence[:done]]
            for end in range(done, len(sentence)):
                state, log_prob = self.step(state, sentence[end])
                total += log_prob
                known[sentence[: end + 1]] = state, total
            found.append(total + self.step(state, END)[1])
        return found

    def perplexity(self, sentences: Iterable[Sequence[str]]) -> float:
        """Per symbol, the end of each sentence included."""
        total, count = 0.0, 0
        for sentence in sentences:
            total += self.score(sentence)
            count += len(sentence) + 1
        return math.exp(-total / max(count, 1))

    def save(self, path: Path) -> None:
        """Writes an ARPA file, compressed if its name ends in .gz."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing(path), _open(path, "wt") as file:
            file.writelines(line + "\n" for line in self._arpa())

    def _arpa(self) -> Iterator[str]:
        orders = range(1, self.order + 1)
        grams = {n: sorted(gram for gram in self.log_probs if len(gram) == n) for n in orders}
        yield from ["\\data\\", *(f"ngram {n}={len(grams[n])}" for n in orders), ""]
        for n in orders:
            yield f"\\{n}-grams:"
            for gram in grams[n]:
                line = f"{max(self.log_probs[gram] / LOG10, NEVER):.7g}\t{' '.join(gram)}"
                yield f"{line}\t{self.backoffs[gram] / LOG10:.7g}" if gram in self.backoffs else line
            yield ""
        yield "\\end\\"

    @classmethod
    def load(cls, path: Path) -> "NGram":
        """Reads an ARPA file, plain or .gz. ValueError names the line that is not understood."""
        with reading(path, AGAIN), _open(path, "rt") as file:
            return _read_arpa(file, path)


def _open(path: Path, mode: str) -> TextIO:
    opener = gzip.open if path.suffix == ".gz" else open
    return opener(path, mode, encoding="utf-8")  # type: ignore[return-value, operator]


def _read_arpa(file: TextIO, path: Path) -> NGram:
    log_probs: dict[Gram, float] = {}
    backoffs: dict[Gram, float] = {}
    announced: dict[int, int] = {}
    order = 0
    for number, line in enumerate(map(str.strip, file), 1):
        try:
            if line.startswith("ngram "):
                n, count = line.removeprefix("ngram ").split("=")
                announced[int(n)] = int(count)
            elif line.startswith("\\") and line.endswith("-grams:"):
                order = int(line[1:].split("-")[0])
            elif line == "\\end\\":
                break
            elif line and order:
                log_prob, *gram = line.split()
                if len(gram) > order:
                    backoffs[tuple(gram[:order])] = float(gram.pop()) * LOG10
                if len(gram) != order:
                    raise ValueError(f"expected {order} symbols")
                if not float(log_prob) <= 0:
                    raise ValueError("expected the logarithm of a probability, 0 or less")
                log_probs[tuple(gram)] = float(log_prob) * LOG10
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: not ARPA: {line[:80]!r}: {error}; {AGAIN}") from error
    else:
        raise ValueError(f"{path}: ends before \\end\\: the file is cut off; {AGAIN}")
    found = Counter(map(len, log_probs))
    if not announced or any(found[n] != count for n, count in announced.items()):
        raise ValueError(f"{path}: announces {announced} n-grams, holds {dict(found)}; {AGAIN}")
    log_probs.setdefault((UNKNOWN,), NEVER * LOG10)
    return NGram(max(announced), log_probs, backoffs)


def estimate(sentences: Iterable[Sequence[str]], order: int) -> NGram:
    """Interpolated modified Kneser-Ney model of sentences (each a list of symbols).

    ValueError for an order below 1, no sentences, or a symbol that is reserved.
    """
    if order < 1:
        raise ValueError(f"a language model's order must be at least 1, found {order}")
    counts = _adjusted_counts(_raw_counts(sentences, order), order)
    contexts = [_Contexts(grams) for grams in counts]
    words = set(counts[0]) | {(UNKNOWN,)}
    model = NGram(order, {}, {})
    uniform = 1 / len(words)
    for gram in words:
        share = contexts[0].share(gram) if gram in counts[0] else 0.0
        model.log_probs[gram] = math.log(share + contexts[0].left_over(()) * uniform)
    model.log_probs[START,] = NEVER * LOG10
    for grams, found in zip(counts[1:], contexts[1:], strict=True):
        for gram in grams:
            lower = math.exp(model.log_probs[gram[1:]])
            model.log_probs[gram] = math.log(found.share(gram) + found.left_over(gram[:-1]) * lower)
        model.backoffs |= {context: math.log(found.left_over(context)) for context in found.total}
    return model


def _raw_counts(sentences: Iterable[Sequence[str]], order: int) -> Counter[Gram]:
    """Of the n-grams of the highest order, and of the shorter ones at the beginning of a sentence."""
    counts: Counter[Gram] = Counter()
    empty = True
    for sentence in sentences:
        empty = False
        if reserved := {START, END, UNKNOWN}.intersection(sentence):
            raise ValueError(f"{sorted(reserved)} cannot be symbols of a sentence: {' '.join(sentence)[:80]!r}")
        symbols = (START, *sentence, END)
        for end in range(2, len(symbols) + 1):
            counts[symbols[max(0, end - order) : end]] += 1
    if empty:
        raise ValueError("no sentences to estimate a language model from")
    return counts


def _adjusted_counts(raw: Counter[Gram], order: int) -> list[dict[Gram, int]]:
    """For orders 1 to ``order``: the count of the longest n-grams and of those that begin a sentence, for all others
    the number of different symbols before them."""
    counts: list[dict[Gram, int]] = [{} for _ in range(order)]
    for gram, count in raw.items():
        if order > 1 or gram[0] != START:
            counts[len(gram) - 1][gram] = count
    for n in range(order - 1, 0, -1):
        before: Counter[Gram] = Counter(gram[1:] for gram in counts[n])
        counts[n - 1] |= before
    return counts


class _Contexts:
    """Discounted shares of the n-grams of one order, and what each context has left over for shorter ones."""

    def __init__(self, counts: dict[Gram, int]):
        self.counts = counts
        self.discounts = _discounts(counts.values())
        self.total: defaultdict[Gram, int] = defaultdict(int)
        self._discounted: defaultdict[Gram, float] = defaultdict(float)
        for gram, count in counts.items():
            self.total[gram[:-1]] += count
            self._discounted[gram[:-1]] += self.discounts[min(count, 3) - 1]

    def share(self, gram: Gram) -> float:
        count = self.counts[gram]
        return (count - self.discounts[min(count, 3) - 1]) / self.total[gram[:-1]]

    def left_over(self, context: Gram) -> float:
        return self._discounted[context] / self.total[context]


def _discounts(counts: Iterable[int]) -> tuple[float, float, float]:
    """Discounts of n-grams seen once, twice, and more often (Chen & Goodman 1999, equation 26)."""
    seen = Counter(count for count in counts if count <= 4)
    if not all(seen[i] for i in (1, 2, 3, 4)):
        return FALLBACK_DISCOUNTS
    y = seen[1] / (seen[1] + 2 * seen[2])
    one, two, three = (i - (i + 1) * y * seen[i + 1] / seen[i] for i in (1, 2, 3))
    inside = 0 < one < 1 and 0 < two < 2 and 0 < three < 3
    return (one, two, three) if inside else FALLBACK_DISCOUNTS
