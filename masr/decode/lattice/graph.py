"""Decoding graphs: CTC topology H, lexicon L and language model G, composed to H, HL, HG or HLG.

Source: Mohri et al. 2002 ("Weighted finite-state transducers in speech recognition"); Miao et al. 2015 (arXiv
1507.08240) for CTC. A label is a token id + 1, as 0 is the empty label of every finite-state library; costs are
negative log-probabilities in nats. Every graph reads one token a frame and writes tokens, not words, so that texts,
times and rescoring are the same whatever the graph; a lexicon or language model of words only adds costs.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, NamedTuple

import kaldifst
from kaldifst import ArcIterator, StateIterator, StdArc, StdVectorFst
from torch import Tensor

from masr.decode.language_model import END, START, UNKNOWN, Gram, NGram
from masr.files import written_beside
from masr.text.tokenizer import WORD_START, Tokenizer

TIE_COST = 1e-4
"""In the compact topology "k k" may be one token or two at the same cost; this much makes it one."""
MAX_ARCS = 5_000_000
"""A larger CTC topology is refused."""
MAX_STATES = 20_000_000
"""A grammar that grows beyond this when it is determinised is given up."""

Labels = tuple[int, int]


@dataclass
class Graph:
    """What the decoders search: input labels are tokens of frames, output labels tokens of the transcript."""

    fst: StdVectorFst
    tokens: int
    cache: dict[Any, Any] = field(default_factory=dict)
    """What a backend has made of it."""

    def check(self, log_probs: Tensor) -> None:
        """ValueError if posteriors (B, T, V) are of another number of tokens."""
        if log_probs.shape[2] != self.tokens:
            raise ValueError(f"the graph has {self.tokens} tokens, the model {log_probs.shape[2]}: compile it again")

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_beside(path) as partial:
            self.fst.write(str(partial))

    @classmethod
    def load(cls, path: Path, tokens: int) -> "Graph | None":
        """None if there is no file, or not a whole one."""
        fst = StdVectorFst.read(str(path)) if path.is_file() else None
        return cls(fst, tokens) if fst is not None else None


@dataclass(frozen=True)
class Lexicon:
    """How words are spelled in tokens, and how words outside it may be spelled.

    ``first`` spells words that begin a transcript, ``following`` those after another word (with a token for the space,
    where that is one of its own). An unknown word is a token of ``first_starts`` or ``following_starts`` and any number
    of ``inside``, each of which costs ``unknown_cost`` nats; None allows no unknown words.
    """

    first: Mapping[str, Sequence[int]]
    following: Mapping[str, Sequence[int]]
    first_starts: Sequence[int] = ()
    following_starts: Sequence[int] = ()
    inside: Sequence[int] = ()
    unknown_cost: float | None = None


def make_lexicon(words: Sequence[str], tokenizer: Tokenizer, language: str, unknown_cost: float | None) -> Lexicon:
    """The spellings of a tokenizer, and unknown words of the tokens that the language uses.

    Words with letters that the tokens lack are left out, as they cannot be written.
    """
    first, following = {}, {}
    for word in words:
        if tokenizer.unknown_characters(word, language):
            continue
        first[word] = tokenizer.spoken(tokenizer.encode(word, language))
        following[word] = tokenizer.spoken(tokenizer.encode(f"{word} {word}", language))[len(first[word]) :]
    used = tokenizer.spoken(tokenizer.used[language])
    starts = [i for i in used if tokenizer.pieces[i].startswith(WORD_START)]
    inside = [i for i in used if i not in set(starts)]
    spaced = any(spelling[0] in set(starts) for spelling in first.values())  # "▁" also begins the first word
    return Lexicon(first, following, starts if spaced else inside, starts, inside, unknown_cost)


def compose_graph(tokens: int, grammar: StdVectorFst | None, compact: bool = False, bonus: float = 0.0) -> Graph:
    """H, or H composed with an acceptor of tokens: HL, HG or HLG. ``bonus`` (nats) is given for each token."""
    h = topology(tokens, compact, bonus)
    if grammar is None:
        return Graph(h, tokens)
    kaldifst.arcsort(h, "olabel")
    kaldifst.arcsort(grammar, "ilabel")
    graph = kaldifst.compose(h, grammar)
    if not graph.num_states:
        raise ValueError("the decoding graph is empty: the lexicon spells nothing with the model's tokens")
    kaldifst.arcsort(graph, "ilabel")
    return Graph(graph, tokens)


def topology(tokens: int, compact: bool = False, bonus: float = 0.0) -> StdVectorFst:
    """H: alignments to transcripts, over ``tokens`` ids of which 0 is blank. MemoryError when it has too many arcs.

    The standard one has an arc from every token to every other, V^2 in all, and wants a blank between two equal tokens.
    The compact one returns from every token to one state, for `TIE_COST`: 3 V arcs, and the same transcripts. Each
    token that is written earns ``bonus``.
    """
    if not compact and tokens**2 > MAX_ARCS:
        raise MemoryError(
            f"the CTC topology of {tokens} tokens has {tokens**2 / 1e6:.0f} million arcs; "
            "decode.lattice.topology=compact has three for each token"
        )
    fst = empty_fst(tokens)  # state 0 is blank, state t token t
    for state in range(tokens):
        fst.set_final(state, 0.0)
        for token in [0, state] if compact and state else range(tokens):
            written = token + 1 if token not in (0, state) else 0
            if not (compact and state and token == 0):
                fst.add_arc(state, StdArc(token + 1, written, -bonus if written else 0.0, token))
    if compact:
        for state in range(1, tokens):
            fst.add_arc(state, StdArc(0, 0, TIE_COST, 0))
    return fst


class TokenModel(NamedTuple):
    """A model, the tokens that it speaks of by their symbols in it, and what its transcripts begin with before them."""

    lm: NGram
    pieces: Mapping[str, Sequence[int]]
    firsts: Sequence[int | None] = (None,)


def token_grammar(models: Sequence[TokenModel], scale: float = 1.0, bonus: float = 0.0) -> StdVectorFst:
    """G as an acceptor of tokens, each of which earns ``bonus``: the union of the models.

    Tokens that a model has never seen cost as much as its ``<unk>``.
    """
    fst = empty_fst(1)
    for lm, pieces, firsts in models:
        labels = {piece: [i + 1 for i in ids] for piece, ids in pieces.items() if (piece,) in lm.log_probs}
        labels[UNKNOWN] = [i + 1 for piece, ids in pieces.items() if piece not in labels for i in ids]
        _begin(fst, _add_grammar(fst, lm, labels, scale, backoff_label=0, bonus=bonus), firsts)
    return fst


def bonus_grammar(tokens: Iterable[int], bonus: float) -> StdVectorFst:
    """An acceptor of any tokens, each of which earns ``bonus``."""
    fst = empty_fst(1)
    fst.set_final(0, 0.0)
    for token in tokens:
        fst.add_arc(0, StdArc(token + 1, token + 1, -bonus, 0))
    return fst


def union(grammars: Sequence[tuple[StdVectorFst, Sequence[int | None]]]) -> StdVectorFst:
    """Accepts what any of the grammars accepts, each after one of its own first tokens (None: without one)."""
    fst = empty_fst(1)
    for grammar, firsts in grammars:
        _begin(fst, fst.num_states + grammar.start, firsts)
        _append(fst, grammar, lambda read, written: (read, written))
    return fst


def _begin(fst: StdVectorFst, state: int, firsts: Sequence[int | None]) -> None:
    for token in firsts:
        label = 0 if token is None else token + 1
        fst.add_arc(fst.start, StdArc(label, label, 0.0, state))


def word_grammar(tokens: int, lexicon: Lexicon, lm: NGram | None, scale: float = 1.0) -> StdVectorFst:
    """LG as an acceptor of tokens, determinised and minimised; without a model every word costs nothing.

    Costs of words that the lexicon has and the model lacks are those of its ``<unk>``. MemoryError when determinising
    does not end within `MAX_STATES` states.
    """
    backoff, end_word, unknown = tokens + 1, tokens + 2, tokens + 3  # disambiguation symbols, on the token side
    names = [*lexicon.first, UNKNOWN]
    number = {name: i + 1 for i, name in enumerate(names)}
    lexicon_fst = _lexicon(lexicon, number, end_word, unknown)
    for state in (0, 1):
        lexicon_fst.add_arc(state, StdArc(backoff, len(names) + 1, 0.0, state))
    if lm is None:
        grammar = empty_fst(1)
        for label in number.values():
            grammar.add_arc(0, StdArc(label, label, 0.0, 0))
        grammar.set_final(0, 0.0)
    else:
        known = {name: [label] for name, label in number.items() if (name,) in lm.log_probs and name != UNKNOWN}
        known[UNKNOWN] = [label for name, label in number.items() if name not in known]
        grammar = empty_fst(0)
        grammar.start = _add_grammar(grammar, lm, known, scale, backoff_label=len(names) + 1)
    kaldifst.arcsort(lexicon_fst, "olabel")
    composed = _relabel(kaldifst.compose(lexicon_fst, grammar), lambda token, _: (token, token))
    try:
        kaldifst.determinize_star(composed, max_states=MAX_STATES)
    except RuntimeError as error:  # the library's own, with a trace of its stack
        raise MemoryError(
            f"the decoding graph of {len(names)} words grows beyond {MAX_STATES} states; use a smaller lexicon or LM"
        ) from error
    kaldifst.minimize_encoded(composed)
    result = _relabel(composed, lambda token, _: (0, 0) if token > tokens else (token, token))
    kaldifst.arcsort(result, "ilabel")
    return result


def _lexicon(lexicon: Lexicon, number: Mapping[str, int], end_word: int, unknown: int) -> StdVectorFst:
    """L: tokens to words; state 0 is the beginning, state 1 what follows each word."""
    fst = empty_fst(2)
    for state, spellings in ((0, lexicon.first), (1, lexicon.following)):
        fst.set_final(state, 0.0)
        for word, spelling in spellings.items():
            if not spelling:
                raise ValueError(f"the lexicon spells {word!r} with no tokens")
            _add_spelling(fst, state, spelling, number[word], end_word)
    if lexicon.unknown_cost is not None:
        _add_unknown(fst, lexicon, number[UNKNOWN], unknown, end_word)
    return fst


def _add_spelling(fst: StdVectorFst, state: int, spelling: Sequence[int], word: int, end: int) -> None:
    for position, token in enumerate(spelling):
        after = fst.add_state()
        fst.add_arc(state, StdArc(token + 1, word if position == 0 else 0, 0.0, after))
        state = after
    fst.add_arc(state, StdArc(end, 0, 0.0, 1))


def _add_unknown(fst: StdVectorFst, lexicon: Lexicon, word: int, begin: int, end: int) -> None:
    """``begin`` keeps known and unknown words apart: determinised together, every prefix would have every letter."""
    inside, cost = fst.add_state(), lexicon.unknown_cost
    for state, starts in ((0, lexicon.first_starts), (1, lexicon.following_starts)):
        start = fst.add_state()
        fst.add_arc(state, StdArc(begin, word, 0.0, start))
        for token in starts:
            fst.add_arc(start, StdArc(token + 1, 0, cost, inside))
    for token in lexicon.inside:
        fst.add_arc(inside, StdArc(token + 1, 0, cost, inside))
    fst.add_arc(inside, StdArc(end, 0, 0.0, 1))


def _add_grammar(
    fst: StdVectorFst, lm: NGram, labels: Mapping[str, Sequence[int]], scale: float, backoff_label: int,
    bonus: float = 0.0,
) -> int:  # fmt: skip
    """Adds G and returns its first state: a state for each context of the model, numbered after those that are there;
    ``backoff_label`` (input side) leads to the next shorter context."""
    contexts = sorted(set(lm.backoffs) | {()}, key=len)
    state = {context: fst.add_state() for context in contexts}
    for context in contexts[1:]:
        shorter = _known_end(context[1:], state)
        fst.add_arc(state[context], StdArc(backoff_label, 0, -scale * lm.backoffs[context], state[shorter]))
    for gram, log_prob in lm.log_probs.items():
        origin = state.get(gram[:-1])
        if origin is None or gram[-1] == START:
            continue
        if gram[-1] == END:
            fst.set_final(origin, -scale * log_prob)
            continue
        target = state[_known_end(gram, state)]
        for label in labels.get(gram[-1], ()):
            fst.add_arc(origin, StdArc(label, label, -scale * log_prob - bonus, target))
    return state[lm.state((START,))]


def _known_end(gram: Gram, state: Mapping[Gram, int]) -> Gram:
    while gram not in state:
        gram = gram[1:]
    return gram


def empty_fst(states: int) -> StdVectorFst:
    """Numbered states without arcs, the first one the start."""
    fst = StdVectorFst()
    for _ in range(states):
        fst.add_state()
    if states:
        fst.start = 0
    return fst


def without_empty_labels(fst: StdVectorFst) -> StdVectorFst:
    """The same paths, without arcs that neither read nor write."""
    copy = fst.copy()
    kaldifst.rmepsilon(copy)
    return copy


def arcs_without_empty_labels(fst: StdVectorFst) -> int:
    """Arcs of `without_empty_labels`, at most; the empty labels of ``fst`` form no cycle."""
    labelled: dict[int, int] = {}
    empty: dict[int, list[int]] = {}
    for state in StateIterator(fst):
        arcs = [(arc.ilabel or arc.olabel, arc.nextstate) for arc in ArcIterator(fst, state)]
        empty[state] = [target for label, target in arcs if not label]
        labelled[state] = len(arcs) - len(empty[state])
    total: dict[int, int] = {}
    for state in TopologicalSorter(empty).static_order():
        total[state] = labelled[state] + sum(total[target] for target in empty[state])
    return sum(total.values())


def arcs_of(fst: StdVectorFst) -> tuple[list[int], list[int], list[int], list[int], list[float]]:
    """Sources, targets, labels read, labels written and costs of all arcs."""
    rows = [
        (state, arc.nextstate, arc.ilabel, arc.olabel, arc.weight.value)
        for state in StateIterator(fst)
        for arc in ArcIterator(fst, state)
    ]
    return tuple(list(column) for column in zip(*rows, strict=True))  # type: ignore[return-value]


def _relabel(fst: StdVectorFst, labels: Callable[[int, int], Labels]) -> StdVectorFst:
    """A copy with other labels."""
    copy = empty_fst(0)
    _append(copy, fst, labels)
    copy.start = fst.start
    return copy


def _append(fst: StdVectorFst, other: StdVectorFst, labels: Callable[[int, int], Labels]) -> None:
    """Adds the states of another, numbered after those that are there."""
    offset = fst.num_states
    for _ in range(other.num_states):
        fst.add_state()
    for state in StateIterator(other):
        if math.isfinite(final := other.final(state).value):
            fst.set_final(offset + state, final)
        for arc in ArcIterator(other, state):
            read, written = labels(arc.ilabel, arc.olabel)
            fst.add_arc(offset + state, StdArc(read, written, arc.weight.value, offset + arc.nextstate))
