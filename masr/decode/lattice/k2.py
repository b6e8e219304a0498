"""Search through decoding graphs with k2, all utterances of a batch at once. B batch, T frames, V vocabulary.

Only the search is k2's: graphs and lattices are those of the kaldi backend, and so are the results.
"""

import k2
import torch
from kaldifst import StdArc, StdVectorFst
from torch import Tensor

from masr.config import Lattice
from masr.decode.hypothesis import Hypothesis
from masr.decode.lattice.graph import Graph, arcs_of, arcs_without_empty_labels, empty_fst, without_empty_labels
from masr.decode.lattice.lattices import LEAST, Lattices, empty_lattice

MIN_ACTIVE = 30
MAX_ARCS = 20_000_000
"""A larger graph is refused."""


def best_paths(log_probs: Tensor, lengths: Tensor, graph: Graph, options: Lattice) -> list[Hypothesis]:
    """The best transcript of each utterance: (B, T, V) in nats, (B,) frames."""
    return [found[0] for found in _search(log_probs, lengths, graph, options, output_beam=1.0).best_paths(1)]


def intersect(log_probs: Tensor, lengths: Tensor, graph: Graph, options: Lattice) -> Lattices:
    """The lattice of each utterance: (B, T, V) in nats, (B,) frames."""
    return _search(log_probs, lengths, graph, options, options.lattice_beam)


def _search(log_probs: Tensor, lengths: Tensor, graph: Graph, options: Lattice, output_beam: float) -> Lattices:
    graph.check(log_probs)
    order = lengths.argsort(descending=True).cpu()  # k2 wants the longest first, and none without frames
    order = order[lengths.cpu()[order] > 0]
    found: list[StdVectorFst | None] = [empty_lattice() for _ in range(len(lengths))]
    if len(order):
        segments = torch.stack([order, torch.zeros_like(order), lengths.cpu()[order]], 1).to(torch.int32)
        dense = k2.DenseFsaVec(log_probs.float().clamp(min=LEAST), segments)
        lattices = k2.intersect_dense_pruned(
            _graph_on(graph, log_probs.device), dense, options.beam, output_beam, MIN_ACTIVE, options.max_active
        ).to("cpu")
        for index, row in enumerate(order.tolist()):
            found[row] = _acceptor(lattices[index])
    return Lattices(found)


def _graph_on(graph: Graph, device: torch.device) -> "k2.Fsa":
    """The graph as k2 has it: labels are token ids, no arc without one, and one final state that -1 leads to."""
    converted = graph.cache.get(device)
    if converted is None:
        if (size := arcs_without_empty_labels(graph.fst)) > MAX_ARCS:
            raise MemoryError(
                f"for k2 this decoding graph would have {size / 1e6:.0f} million arcs, as it knows no empty labels; "
                "use lattice-lm-rescoring, a smaller language_model.token_order, or decode.lattice.backend=kaldi"
            )
        fst = without_empty_labels(graph.fst)
        assert fst.start == 0, "k2 begins in state 0"
        sources, targets, read, written, costs = arcs_of(fst)
        finals = [(state, fst.final(state).value) for state in range(fst.num_states)]
        ends = [(state, fst.num_states, -1, 0, cost) for state, cost in finals if cost != float("inf")]
        rows = [*zip(sources, targets, (label - 1 for label in read), written, costs, strict=True), *ends]
        rows.sort(key=lambda row: row[0])
        arcs = torch.tensor([(*row[:3], 0) for row in rows], dtype=torch.int32)
        converted = k2.Fsa(arcs)
        converted.scores = -torch.tensor([row[4] for row in rows])
        converted.aux_labels = torch.tensor([row[3] for row in rows], dtype=torch.int32)
        converted = graph.cache[device] = k2.create_fsa_vec([k2.arc_sort(converted)]).to(device)
    return converted


def _acceptor(lattice: "k2.Fsa") -> StdVectorFst | None:
    """One utterance's lattice as the tokens that it writes; None where the beam pruned every path."""
    arcs = lattice.arcs.values()[:, :3].tolist()
    if not arcs:
        return None
    last = lattice.shape[0] - 1
    fst = empty_fst(lattice.shape[0])
    fst.set_final(last, 0.0)
    for (source, target, label), score, written in zip(
        arcs, lattice.scores.tolist(), lattice.aux_labels.tolist(), strict=True
    ):
        fst.add_arc(source, StdArc(0 if label == -1 else written, 0 if label == -1 else written, -score, target))
    return fst
