"""Contextual biasing: words and phrases to expect earn a boost, in the CTC prefix beam and in lattices.

Each token of a phrase earns its boost as soon as it is written, so that the search keeps it; what an unfinished phrase
has earned is taken back. Source: Zhao et al. 2019 (Interspeech, "Shallow-Fusion End-to-End Contextual Biasing"), with
the failure links of Aho & Corasick 1975 (CACM 18(6)).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from kaldifst import StdArc, StdVectorFst

from masr.files import text_lines
from masr.text.characters import tidied
from masr.text.normalize import normalize
from masr.text.tokenizer import UNKNOWN, Tokenizer

BEGINNING, ROOT = 0, 1


class Biasing:
    """An automaton over tokens, whose states are prefixes of phrases."""

    def __init__(
        self, phrases: Iterable[Sequence[int]], beginnings: Iterable[Sequence[int]], boost: float,
        ignored: Iterable[int] = (),
    ):  # fmt: skip
        """``phrases`` in tokens, as they stand within a transcript, ``beginnings`` as at its start; ``boost`` in nats a
        token. ``ignored`` tokens change nothing."""
        self.boost, self.ignored = boost, frozenset(ignored)
        self.next: list[dict[int, int]] = [{}, {}]
        self.earned = [0.0, 0.0]  # by the unfinished phrase of each state
        self.completed = [0.0, 0.0]  # by phrases that end in each state, to be kept
        self.failure = [ROOT, ROOT]
        for state, group in ((BEGINNING, beginnings), (ROOT, phrases)):
            for phrase in group:
                self._add(state, phrase)
        self._link()

    def step(self, state: int, token: int) -> tuple[int, float]:
        """The state after a token, and the nats that it earns or gives back."""
        if token in self.ignored:
            return state, 0.0
        origin = state
        while token not in self.next[origin] and origin != ROOT:
            origin = self.failure[origin]
        after = self.next[origin].get(token, ROOT)
        return after, self.earned[after] - self.earned[state] + self.completed[after]

    def end(self, state: int) -> float:
        """What is given back when a transcript ends in a state."""
        return -self.earned[state]

    def score(self, tokens: Sequence[int], ended: bool = True) -> float:
        """Nats that a transcript earns, whole or so far."""
        state, total = BEGINNING, 0.0
        for token in tokens:
            state, earned = self.step(state, token)
            total += earned
        return total + self.end(state) if ended else total

    def acceptor(self, tokens: Iterable[int]) -> StdVectorFst:
        """The same as a finite-state acceptor of ``tokens`` (label token id + 1), to rescore lattices with."""
        fst, tokens = StdVectorFst(), list(tokens)
        for _ in self.next:
            fst.add_state()
        fst.start = BEGINNING
        for state in range(len(self.next)):
            fst.set_final(state, -self.end(state))
            for token in tokens:
                after, earned = self.step(state, token)
                fst.add_arc(state, StdArc(token + 1, token + 1, -earned, after))
        return fst

    def _add(self, state: int, phrase: Sequence[int]) -> None:
        for token in phrase:
            if token not in self.next[state]:
                self.next[state][token] = len(self.next)
                self.next.append({})
                self.earned.append(self.earned[state] + self.boost)
                self.completed.append(0.0)
                self.failure.append(ROOT)
            state = self.next[state][token]
        self.completed[state] = self.earned[state]

    def _link(self) -> None:
        """Failure links, from short prefixes to long ones; a state also completes what its shorter ends complete."""
        todo = [ROOT, BEGINNING]
        for state in todo:
            for token, after in self.next[state].items():
                origin = self.failure[state]
                while token not in self.next[origin] and origin != ROOT:
                    origin = self.failure[origin]
                link = self.next[origin].get(token, ROOT)
                self.failure[after] = link if link != after else ROOT
                self.completed[after] += self.completed[self.failure[after]]
                todo.append(after)


def read_biasing(path: Path, tokenizer: Tokenizer, boost: float) -> Biasing:
    """Words and phrases, one a line, in any of the tokenizer's languages; empty lines and ``#`` are left out.

    ValueError for a file without phrases, or a phrase that the tokens cannot spell.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of words to expect")
    phrases, beginnings = set(), set()
    for number, line in enumerate(text_lines(path), 1):
        text = " ".join(line.split())
        if text and not text.startswith("#"):
            spellings = _spellings(text, tokenizer)
            if not spellings:
                raise ValueError(f"{path}, line {number}: the model has no tokens for {text!r}")
            beginnings |= {first for first, _ in spellings}
            phrases |= {following for _, following in spellings}
    if not phrases:
        raise ValueError(f"{path}: no words to expect; one word or phrase a line")
    special = len(tokenizer) - len(tokenizer.spoken(range(len(tokenizer))))
    return Biasing(sorted(phrases), sorted(beginnings - phrases), boost, ignored=range(special))


def _spellings(text: str, tokenizer: Tokenizer) -> set[tuple[tuple[int, ...], tuple[int, ...]]]:
    """At the beginning and within a transcript, by every language's model; as they come where it writes published
    text."""
    found = set()
    for code in tokenizer.languages:
        words = normalize(text, code) if tokenizer.text == "normalized" else tidied(text)
        tokens = tokenizer.encode(words, code)
        first = tokenizer.spoken(tokens)
        both = tokenizer.spoken(tokenizer.encode(f"{words} {words}", code))
        if first and UNKNOWN not in tokens:
            found.add((tuple(first), tuple(both[len(first) :])))
    return found
