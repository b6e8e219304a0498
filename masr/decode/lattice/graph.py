"""Decoding graphs: CTC topology H, lexicon L and language model G, composed to H, HL, HG or HLG.

Source: Mohri et al. 2002 ("Weighted finite-state transducers in speech recognition"); Miao et al. 2015 (arXiv
1507.08240) for CTC. A label is a token id + 1, as 0 is the empty label of every finite-state library; costs are
negative log-probabilities in nats. Every graph reads one token a frame and writes tokens, not words, so that texts,
times and rescoring are the same whatever the graph; a lexicon or language model of words only adds costs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import kaldifst
from kaldifst import ArcIterator, StateIterator, StdArc, StdVectorFst

from masr.decode.language_model import END, START, UNKNOWN, Gram, NGram

TIE_COST = 1e-4
"""In the compact topology "k k" may be one token or two at the same cost; this much makes it one."""
MAX_STATES = 20_000_000
"""A grammar that grows beyond this when it is determinised is given up."""

Labels = tuple[int, int]


@dataclass
class Graph:
    """What the decoders search: input labels are tokens of frames, output labels tokens of the transcript."""

    fst: StdVectorFst
    tokens: int

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.fst.write(str(path))

    @classmethod
    def load(cls, path: Path, tokens: int) -> "Graph":
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such graph")
        return cls(StdVectorFst.read(str(path)), tokens)


@dataclass(frozen=True)
class Lexicon:
    """How words are spelled in tokens, and how words outside it may be spelled.

    An unknown word is a token of ``word_starts`` and any number of ``inside``; each costs ``unknown_cost``. None
    allows no unknown words.
    """

    words: Mapping[str, Sequence[int]]
    word_starts: Sequence[int] = ()
    inside: Sequence[int] = ()
    unknown_cost: float | None = None


def compile_graph(
    tokens: int, lexicon: Lexicon | None = None, lm: NGram | None = None, pieces: Sequence[str] = (),
    lm_scale: float = 1.0, compact: bool = False,
) -> Graph:  # fmt: skip
    """H (neither lexicon nor model), HL (lexicon), HG (a model of the tokens ``pieces``) or HLG (a model of words)."""
    h = topology(tokens, compact)
    if lexicon is not None:
        grammar = word_grammar(tokens, lexicon, lm, lm_scale)
    elif lm is not None:
        grammar = token_grammar(lm, pieces, lm_scale)
    else:
        return Graph(h, tokens)
    kaldifst.arcsort(h, "olabel")
    graph = kaldifst.compose(h, grammar)
    kaldifst.arcsort(graph, "ilabel")
    return Graph(graph, tokens)


def topology(tokens: int, compact: bool = False) -> StdVectorFst:
    """H: alignments to transcripts, over ``tokens`` ids of which 0 is blank.

    The standard one has an arc from every token to every other, V^2 in all, and wants a blank between two equal tokens.
    The compact one returns from every token to one state, for `TIE_COST`: 3 V arcs, and the same transcripts.
    """
    fst = empty_fst(tokens)  # state 0 is blank, state t token t
    for state in range(tokens):
        fst.set_final(state, 0.0)
        for token in [0, state] if compact and state else range(tokens):
            written = token + 1 if token not in (0, state) else 0
            if not (compact and state and token == 0):
                fst.add_arc(state, StdArc(token + 1, written, 0.0, token))
    if compact:
        for state in range(1, tokens):
            fst.add_arc(state, StdArc(0, 0, TIE_COST, 0))
    return fst


def token_grammar(lm: NGram, pieces: Sequence[str], scale: float = 1.0) -> StdVectorFst:
    """G as an acceptor of tokens; ``pieces`` are the model's symbols of the token ids, special ones as ``<...>``.

    Tokens that the model has never seen cost as much as its ``<unk>``.
    """
    labels = {piece: [i + 1] for i, piece in enumerate(pieces) if (piece,) in lm.log_probs and not _is_special(piece)}
    labels[UNKNOWN] = [i + 1 for i, piece in enumerate(pieces) if piece not in labels and not _is_special(piece)]
    grammar = _grammar(lm, labels, scale, backoff_label=0)
    kaldifst.arcsort(grammar, "ilabel")
    return grammar


def word_grammar(tokens: int, lexicon: Lexicon, lm: NGram | None, scale: float = 1.0) -> StdVectorFst:
    """LG as an acceptor of tokens, determinised and minimised; without a model every word costs nothing.

    Costs of words that the lexicon has and the model lacks are those of its ``<unk>``. MemoryError when determinising
    does not end within `MAX_STATES` states.
    """
    backoff, end_word, end_unknown = tokens + 1, tokens + 2, tokens + 3  # disambiguation symbols, on the token side
    names = [*lexicon.words, UNKNOWN]
    number = {name: i + 1 for i, name in enumerate(names)}
    lexicon_fst = _lexicon(lexicon, number, end_word, end_unknown)
    lexicon_fst.add_arc(0, StdArc(backoff, len(names) + 1, 0.0, 0))
    if lm is None:
        grammar = empty_fst(1)
        for label in number.values():
            grammar.add_arc(0, StdArc(label, label, 0.0, 0))
        grammar.set_final(0, 0.0)
    else:
        known = {name: [label] for name, label in number.items() if (name,) in lm.log_probs and name != UNKNOWN}
        known[UNKNOWN] = [label for name, label in number.items() if name not in known]
        grammar = _grammar(lm, known, scale, backoff_label=len(names) + 1)
    kaldifst.arcsort(lexicon_fst, "olabel")
    composed = _relabel(kaldifst.compose(lexicon_fst, grammar), lambda token, _: (token, token))
    if kaldifst.determinize_star(composed, max_states=MAX_STATES):
        raise MemoryError(
            f"a graph of {len(names)} words grows beyond {MAX_STATES} states; use a smaller lexicon or LM"
        )
    kaldifst.minimize_encoded(composed)
    result = _relabel(composed, lambda token, _: (0, 0) if token > tokens else (token, token))
    kaldifst.arcsort(result, "ilabel")
    return result


def _lexicon(lexicon: Lexicon, number: Mapping[str, int], end_word: int, end_unknown: int) -> StdVectorFst:
    """L: tokens to words, one word after the other through state 0."""
    fst = empty_fst(1)
    fst.set_final(0, 0.0)
    for word, spelling in lexicon.words.items():
        if not spelling:
            raise ValueError(f"the lexicon spells {word!r} with no tokens")
        state = 0
        for position, token in enumerate(spelling):
            after = fst.add_state()
            fst.add_arc(state, StdArc(token + 1, number[word] if position == 0 else 0, 0.0, after))
            state = after
        fst.add_arc(state, StdArc(end_word, 0, 0.0, 0))
    if lexicon.unknown_cost is not None:
        state = fst.add_state()
        for token in lexicon.word_starts:
            fst.add_arc(0, StdArc(token + 1, number[UNKNOWN], lexicon.unknown_cost, state))
        for token in lexicon.inside:
            fst.add_arc(state, StdArc(token + 1, 0, lexicon.unknown_cost, state))
        fst.add_arc(state, StdArc(end_unknown, 0, 0.0, 0))
    return fst


def _grammar(lm: NGram, labels: Mapping[str, Sequence[int]], scale: float, backoff_label: int) -> StdVectorFst:
    """G: a state for each context of the model; ``backoff_label`` (input side) leads to the next shorter one."""
    contexts = sorted(set(lm.backoffs) | {()}, key=len)
    state = {context: i for i, context in enumerate(contexts)}
    fst = empty_fst(len(contexts))
    fst.start = state[lm.state((START,))]
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
            fst.add_arc(origin, StdArc(label, label, -scale * log_prob, target))
    return fst


def _known_end(gram: Gram, state: Mapping[Gram, int]) -> Gram:
    while gram not in state:
        gram = gram[1:]
    return gram


def empty_fst(states: int) -> StdVectorFst:
    """Numbered states without arcs, the first one the start."""
    fst = StdVectorFst()
    for _ in range(states):
        fst.add_state()
    fst.start = 0
    return fst


def _relabel(fst: StdVectorFst, labels: Callable[[int, int], Labels]) -> StdVectorFst:
    """A copy with other labels."""
    copy = empty_fst(fst.num_states)
    if fst.num_states:
        copy.start = fst.start
    for state in StateIterator(fst):
        if math.isfinite(final := fst.final(state).value):
            copy.set_final(state, final)
        for arc in ArcIterator(fst, state):
            copy.add_arc(state, StdArc(*labels(arc.ilabel, arc.olabel), arc.weight.value, arc.nextstate))
    return copy


def _is_special(piece: str) -> bool:
    return piece.startswith("<") and piece.endswith(">")
