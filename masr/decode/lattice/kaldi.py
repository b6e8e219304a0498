"""Lattices on any CPU, with kaldifst and kaldi-decoder. B batch, T frames, V vocabulary.

A lattice is an acyclic acceptor of token labels (token id + 1). A path is one alignment of a transcript and costs its
acoustics and graph together, in nats; paths of the same transcript meet only when different transcripts are asked for.
"""

import math
from dataclasses import dataclass

import kaldi_decoder
import kaldifst
import numpy as np
from kaldifst import StdArc, StdVectorFst
from torch import Tensor

from masr.decode.hypothesis import Hypothesis
from masr.decode.lattice.graph import Graph, empty_fst

MAX_STATES = 50_000


@dataclass(frozen=True)
class Pruning:
    """``beam`` (nats) and ``max_active`` states in the search; ``lattice_beam`` (nats): what the lattice keeps."""

    beam: float = 12.0
    max_active: int = 2000
    lattice_beam: float = 8.0


class Lattices:
    """One lattice for each utterance; None where the beam pruned every path."""

    def __init__(self, lattices: list[StdVectorFst | None]):
        self.lattices = lattices

    def best_paths(self, n: int) -> list[list[Hypothesis]]:
        """Up to ``n`` different transcripts of each utterance, best first; `nothing` where there is none."""
        return [_best_paths(lattice, n) if lattice is not None else [nothing()] for lattice in self.lattices]

    def rescore(self, grammar: StdVectorFst) -> "Lattices":
        """Every path with the cost that ``grammar``, an acceptor of token labels, gives it on top."""
        return Lattices([None if lattice is None else _compose(lattice, grammar) for lattice in self.lattices])


def best_paths(log_probs: Tensor, lengths: Tensor, graph: Graph, pruning: Pruning) -> list[Hypothesis]:
    """The best transcript of each utterance: (B, T, V) in nats, (B,) frames. Faster than by way of lattices."""
    options = kaldi_decoder.FasterDecoderOptions(beam=pruning.beam, max_active=pruning.max_active)
    return [_best_path(frames, graph, options) for frames in _utterances(log_probs, lengths, graph)]


def intersect(log_probs: Tensor, lengths: Tensor, graph: Graph, pruning: Pruning) -> Lattices:
    """The lattice of each utterance: (B, T, V) in nats, (B,) frames."""
    options = kaldi_decoder.LatticeSimpleDecoderConfig(beam=pruning.beam, lattice_beam=pruning.lattice_beam)
    return Lattices([_lattice(frames, graph, options) for frames in _utterances(log_probs, lengths, graph)])


def nothing() -> Hypothesis:
    """What stands for an utterance of which the search kept no path."""
    return Hypothesis([], -math.inf, {})


def _utterances(log_probs: Tensor, lengths: Tensor, graph: Graph) -> list[np.ndarray]:
    if log_probs.shape[2] != graph.tokens:
        raise ValueError(f"the graph has {graph.tokens} tokens, the model {log_probs.shape[2]}: compile it again")
    frames = log_probs.detach().cpu().float().numpy()
    return [frames[i, :length] for i, length in enumerate(lengths.tolist())]


def _best_path(frames: np.ndarray, graph: Graph, options: kaldi_decoder.FasterDecoderOptions) -> Hypothesis:
    if len(frames) == 0:
        return Hypothesis([], 0.0, {"lattice": 0.0})
    decoder = kaldi_decoder.FasterDecoder(graph.fst, options)
    decoder.decode(kaldi_decoder.DecodableCtc(frames))
    found, path = decoder.get_best_path()
    if not (decoder.reached_final() and found):
        return nothing()
    _, _, labels, weight = kaldifst.get_linear_symbol_sequence(path)
    return _hypothesis(labels, weight.value1 + weight.value2)


def _lattice(
    frames: np.ndarray, graph: Graph, options: kaldi_decoder.LatticeSimpleDecoderConfig
) -> StdVectorFst | None:
    if len(frames) == 0:
        empty = empty_fst(1)
        empty.set_final(0, 0.0)
        return empty
    decoder = kaldi_decoder.LatticeSimpleDecoder(graph.fst, options)
    if not decoder.decode(kaldi_decoder.DecodableCtc(frames)):
        return None
    found, lattice = decoder.get_raw_lattice()
    return _acceptor(lattice, frames) if found and lattice.num_states else None


def _acceptor(lattice: kaldifst.Lattice, frames: np.ndarray) -> StdVectorFst:
    """The lattice with one cost an arc and the tokens it writes as labels.

    kaldifst shows a lattice's arcs only as text with six digits; the acoustic costs come from ``frames`` instead.
    """
    fst = empty_fst(lattice.num_states)
    fst.start = lattice.start
    arcs: dict[int, list[tuple[int, int, int, float]]] = {}
    for line in lattice.to_str().splitlines():
        fields = line.split()
        if len(fields) >= 4:
            source, target, read, written = map(int, fields[:4])
            graph_cost = float(fields[4].split(",")[0]) if len(fields) > 4 else 0.0
            arcs.setdefault(source, []).append((target, read, written, graph_cost))
        elif fields:
            fst.set_final(int(fields[0]), float(fields[1].split(",")[0]) if len(fields) > 1 else 0.0)
    frame_of, todo = {lattice.start: 0}, [lattice.start]
    while todo:
        source = todo.pop()
        frame = frame_of[source]
        for target, read, written, graph_cost in arcs.get(source, ()):
            cost = graph_cost - float(frames[frame, read - 1]) if read else graph_cost
            fst.add_arc(source, StdArc(written, written, cost, target))
            if target not in frame_of:
                frame_of[target] = frame + bool(read)
                todo.append(target)
    return fst


def _transcripts(lattice: StdVectorFst) -> StdVectorFst:
    """Deterministic, without empty labels: a transcript is one path, with the cost of its best one before.

    A lattice that would grow beyond `MAX_STATES` keeps its best paths only.
    """
    merged = lattice.copy()
    kaldifst.rmepsilon(merged)
    return kaldifst.determinize(merged, nstate=MAX_STATES)


def _compose(lattice: StdVectorFst, grammar: StdVectorFst) -> StdVectorFst | None:
    kaldifst.arcsort(lattice, "olabel")
    composed = kaldifst.compose(lattice, grammar)
    return composed if composed.num_states else None


def _best_paths(lattice: StdVectorFst, n: int) -> list[Hypothesis]:
    found = []
    different = _transcripts(lattice) if n > 1 else lattice
    for path in kaldifst.convert_nbest_to_vector(kaldifst.shortest_path(different, n=n)):
        _, labels, _, weight = kaldifst.get_linear_symbol_sequence(path)
        found.append(_hypothesis(labels, weight.value))
    return sorted(found, key=lambda hypothesis: -hypothesis.score) or [nothing()]


def _hypothesis(labels: list[int], cost: float) -> Hypothesis:
    return Hypothesis([label - 1 for label in labels], -cost, {"lattice": -cost})
