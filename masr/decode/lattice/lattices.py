"""Lattices: what is left of a decoding graph after an utterance was heard.

A lattice is an acyclic acceptor of token labels (token id + 1). A path is one alignment of a transcript and costs its
acoustics and graph together, in nats; paths of the same transcript meet only when different transcripts are asked for.
"""

import math

import kaldifst
from kaldifst import StdVectorFst

from masr.decode.hypothesis import Hypothesis
from masr.decode.lattice.graph import empty_fst

LEAST = -1e4
"""Nats that stand for probability 0, with which the libraries cannot calculate."""
MAX_STATES = 5_000
"""A lattice that grows beyond this when it is determinised keeps its best paths only."""


class Lattices:
    """One lattice for each utterance; None where the beam pruned every path."""

    def __init__(self, lattices: list[StdVectorFst | None]):
        self.lattices = lattices

    def best_paths(self, n: int) -> list[list[Hypothesis]]:
        """Up to ``n`` different transcripts of each utterance, best first; `nothing` where there is none."""
        return [_best_paths(lattice, n) if lattice is not None else [nothing()] for lattice in self.lattices]

    def transcripts(self) -> "Lattices":
        """Every transcript as one path, its best alignment: many times smaller, and so sooner rescored."""
        return Lattices([None if lattice is None else _transcripts(lattice) for lattice in self.lattices])

    def rescore(self, grammar: StdVectorFst) -> "Lattices":
        """Every path with the cost that ``grammar``, an acceptor of token labels, gives it on top.

        A lattice stays as it is if the grammar accepts none of its paths.
        """
        return Lattices([None if lattice is None else _compose(lattice, grammar) for lattice in self.lattices])


def empty_lattice() -> StdVectorFst:
    """That of an utterance without frames: the empty transcript, at no cost."""
    lattice = empty_fst(1)
    lattice.set_final(0, 0.0)
    return lattice


def nothing() -> Hypothesis:
    """What stands for an utterance of which the search kept no path."""
    return Hypothesis([], -math.inf, {})


def _transcripts(lattice: StdVectorFst) -> StdVectorFst:
    """Deterministic, without empty labels: a transcript is one path, with the cost of its best one before."""
    merged = lattice.copy()
    kaldifst.rmepsilon(merged)
    return kaldifst.determinize(merged, nstate=MAX_STATES)


def _compose(lattice: StdVectorFst, grammar: StdVectorFst) -> StdVectorFst:
    kaldifst.arcsort(lattice, "olabel")
    composed = kaldifst.compose(lattice, grammar)
    return composed if composed.num_states else lattice


def _best_paths(lattice: StdVectorFst, n: int) -> list[Hypothesis]:
    best = kaldifst.shortest_path(_transcripts(lattice) if n > 1 else lattice, n=n)
    # With one path the library's split into paths forgets what an empty one costs.
    paths = kaldifst.convert_nbest_to_vector(best) if n > 1 else [best][: best.num_states]
    found = []
    for path in paths:
        _, labels, _, weight = kaldifst.get_linear_symbol_sequence(path)
        found.append(hypothesis_of(labels, weight.value))
    return sorted(found, key=lambda hypothesis: -hypothesis.score) or [nothing()]


def hypothesis_of(labels: list[int], cost: float) -> Hypothesis:
    """Of the labels and the cost of a path."""
    return Hypothesis([label - 1 for label in labels], -cost, {"lattice": -cost})
