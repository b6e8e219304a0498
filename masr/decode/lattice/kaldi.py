"""Search through decoding graphs on any CPU, with kaldi-decoder. B batch, T frames, V vocabulary."""

import kaldi_decoder
import kaldifst
import numpy as np
from kaldifst import StdArc, StdVectorFst
from torch import Tensor

from masr.config import Lattice
from masr.decode.hypothesis import Hypothesis
from masr.decode.lattice.graph import Graph, empty_fst
from masr.decode.lattice.lattices import LEAST, Lattices, empty_lattice, hypothesis_of, nothing

MAX_ARCS_A_FRAME = 200
"""A lattice with more arcs is searched for again with narrower beams."""


def best_paths(log_probs: Tensor, lengths: Tensor, graph: Graph, options: Lattice) -> list[Hypothesis]:
    """The best transcript of each utterance: (B, T, V) in nats, (B,) frames. Faster than by way of lattices."""
    pruning = kaldi_decoder.FasterDecoderOptions(beam=options.beam, max_active=options.max_active)
    return [_best_path(frames, graph, pruning) for frames in _utterances(log_probs, lengths, graph)]


def intersect(log_probs: Tensor, lengths: Tensor, graph: Graph, options: Lattice) -> Lattices:
    """The lattice of each utterance: (B, T, V) in nats, (B,) frames. kaldi-decoder knows no ``max_active`` here."""
    return Lattices([_lattice(frames, graph, options) for frames in _utterances(log_probs, lengths, graph)])


def _utterances(log_probs: Tensor, lengths: Tensor, graph: Graph) -> list[np.ndarray]:
    graph.check(log_probs)
    frames = log_probs.detach().cpu().float().clamp(min=LEAST).numpy()
    return [frames[i, :length] for i, length in enumerate(lengths.tolist())]


def _best_path(frames: np.ndarray, graph: Graph, pruning: kaldi_decoder.FasterDecoderOptions) -> Hypothesis:
    if len(frames) == 0:
        return Hypothesis([], 0.0, {"lattice": 0.0})
    decoder = kaldi_decoder.FasterDecoder(graph.fst, pruning)
    decoder.decode(kaldi_decoder.DecodableCtc(frames))
    found, path = decoder.get_best_path()
    if not (decoder.reached_final() and found):
        return nothing()
    _, _, labels, weight = kaldifst.get_linear_symbol_sequence(path)
    return hypothesis_of(labels, weight.value1 + weight.value2)


def _lattice(frames: np.ndarray, graph: Graph, options: Lattice) -> StdVectorFst | None:
    if len(frames) == 0:
        return empty_lattice()
    for narrower in (1, 2, 4, 8):  # where the model hears nothing clear, a lattice would hold everything
        found = _search(frames, graph, options.beam / narrower, options.lattice_beam / narrower)
        if found is None or sum(map(found.num_arcs, range(found.num_states))) <= MAX_ARCS_A_FRAME * len(frames):
            break
    return found


def _search(frames: np.ndarray, graph: Graph, beam: float, lattice_beam: float) -> StdVectorFst | None:
    pruning = kaldi_decoder.LatticeSimpleDecoderConfig(beam=beam, lattice_beam=lattice_beam)
    decoder = kaldi_decoder.LatticeSimpleDecoder(graph.fst, pruning)
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
    for line in lattice.to_str().split("\n"):
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
