"""A hierarchical softmax beside a flat one: forward and backward of a batch of tokens, and the search for the best.

    .venv/bin/python benchmarks/hierarchical_softmax.py [--threads 1]

480 targets, 5,000 tokens of Zipf's frequencies in a Huffman tree, width 256. All contenders take turns. ``gather`` is
how earlier code computes the same log-probabilities: the sigmoids of the V x depth decisions on the ways to all tokens,
gathered, clipped and multiplied (formulas of Liu et al. 2022, arXiv 2204.03855, written anew).
"""

from collections.abc import Callable

import numpy as np
import torch
from measure import common_options, print_head, print_row, ratio_line, seconds_in_turn
from torch import Tensor, nn
from torch.nn import functional as F

from masr.nn.hierarchical_softmax import HierarchicalSoftmax
from masr.nn.softmax import Softmax
from masr.vocab.tree import huffman

TOKENS, TARGETS, WIDTH = 5000, 480, 256
HYPOTHESES, BEST = 10, 20
FLAT, PATH, DECISIONS = "flat softmax, cross-entropy", "target path", "target path, decisions smoothed"
LEAVES, ALL, GATHER = "target path, tokens smoothed", "all log-probabilities", "all log-probabilities by gather"


class Gather(nn.Module):
    """(N, D) -> log-probabilities (N, V) from tables (V, depth) of node, sign and what makes padding a factor of 1."""

    def __init__(self, weight: Tensor, nodes: np.ndarray, sides: np.ndarray) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone())
        self.nodes = torch.from_numpy(nodes).clamp(min=0)
        self.sign = torch.from_numpy(np.select([sides == 0, sides == 1], [1.0, -1.0], 0.0)).float()
        self.bias = torch.from_numpy(sides != 0).float()

    def forward(self, hidden: Tensor) -> Tensor:
        sigmoid = (hidden @ self.weight.T).sigmoid()
        decisions = sigmoid[:, self.nodes] * self.sign + self.bias
        return decisions.clamp(1e-9, 1 - 1e-9).log().sum(-1)


def training(hidden: Tensor, targets: Tensor, layers: dict[str, nn.Module]) -> dict[str, Callable[[], None]]:
    """A pass of each, forward and backward, with gradients of ``hidden`` and of the layer's weights."""
    flat, tree, decisions, gather = (layers[name] for name in ("flat", "tree", "decisions", "gather"))
    assert isinstance(tree, HierarchicalSoftmax) and isinstance(decisions, HierarchicalSoftmax)

    def of(loss: Callable[[], Tensor]) -> Callable[[], None]:
        def run() -> None:
            hidden.grad = None
            for layer in layers.values():
                layer.zero_grad()
            loss().backward()

        return run

    return {
        FLAT: of(lambda: F.cross_entropy(flat(hidden), targets)),
        PATH: of(lambda: tree.loss(hidden, targets, 0.0).mean()),
        DECISIONS: of(lambda: decisions.loss(hidden, targets, 0.1).mean()),
        LEAVES: of(lambda: tree.loss(hidden, targets, 0.1).mean()),
        ALL: of(lambda: F.nll_loss(tree.log_probs(hidden), targets)),
        GATHER: of(lambda: F.nll_loss(gather(hidden), targets)),
    }


def main() -> None:
    arguments = common_options(__doc__, repeats=15).parse_args()
    if arguments.shortest:
        arguments.repeats = 1
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    tree = huffman(1e6 / np.arange(1, TOKENS + 1), [f"{token:04}" for token in range(TOKENS)])
    flat, hierarchical = Softmax(WIDTH, TOKENS), HierarchicalSoftmax(WIDTH, tree)
    gather = Gather(hierarchical.output.weight, *tree.paths)
    layers = {
        "flat": flat,
        "tree": hierarchical,
        "gather": gather,
        "decisions": HierarchicalSoftmax(WIDTH, tree, "decisions"),
    }
    hidden, targets = torch.randn(TARGETS, WIDTH, requires_grad=True), torch.randint(TOKENS, (TARGETS,))
    with torch.no_grad():
        difference = (hierarchical.log_probs(hidden) - gather(hidden)).abs().max()
    print(f"{TOKENS} tokens, {tree.describe(np.ones(TOKENS))}; largest difference to gather {difference:.1e} nats\n")

    taken = seconds_in_turn(training(hidden, targets, layers), arguments.repeats)
    print_head([f"forward and backward of {TARGETS} targets", "ms"])
    for name, seconds in taken.items():
        print_row([name, f"{1000 * seconds:.1f}"])

    beam = torch.randn(HYPOTHESES, WIDTH)
    searches = {
        "flat softmax, top-k": lambda: flat.log_probs(beam).topk(BEST),
        "tree, all tokens, top-k": lambda: hierarchical.log_probs(beam).topk(BEST),
        "tree, best-first": lambda: hierarchical.best_first(beam, BEST),
        "tree, greedy": lambda: hierarchical.descend(beam, 1),
        f"tree, descent of width {BEST}": lambda: hierarchical.descend(beam, BEST),
    }
    with torch.inference_mode():
        hierarchical.output.weight.mul_(6)  # as sure of itself as a model that has learnt
        sure = float(hierarchical.log_probs(beam).max(-1).values.exp().mean())
        found = seconds_in_turn(searches, 10 * arguments.repeats, warm_up=3)
    print()
    print_head([f"{BEST} best tokens for {HYPOTHESES} hypotheses (the best: {sure:.0%})", "ms"])
    for name, seconds in found.items():
        print_row([name, f"{1000 * seconds:.2f}"])

    print()
    for what, name in (("target-path", PATH), ("target-path-smoothed", LEAVES), ("all-log-probs", ALL)):
        print(ratio_line(what, "flat-softmax", taken[name], taken[FLAT]))
    print(ratio_line("all-log-probs", "gather", taken[ALL], taken[GATHER]))
    print(ratio_line("best-first", "flat-softmax", found["tree, best-first"], found["flat softmax, top-k"]))


if __name__ == "__main__":
    main()
