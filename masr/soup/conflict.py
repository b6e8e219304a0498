"""Which layers objectives disagree about. L layers, M objectives.

Gradients of a few recordings are nearly all noise: of one update it draws every cosine towards 0, and the mean of many
such cosines stays there. Here what is averaged are products, of the gradients in one half of an update with those in
the other. The halves have no recording, and so no noise, in common, not even for two objectives of one language: their
mean is the product of the expected gradients. Norms are found in the same way, and divided by at the end alone.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Conflicts:
    """Cosines of the objectives' expected gradients in every layer (Objective Soups, section 4.7).

    Gradients are taken as long as one another, in every half, objective and layer: a measurement counts as much as any
    other, however large its gradients are.
    """

    layers: list[str]
    objectives: list[str]
    sums: Tensor = field(init=False)
    """(L + 1, M, M) products across halves, summed over measurements: of each layer, and of all layers together."""
    measured: int = field(default=0, init=False)
    of_single_updates: bool = field(default=False, init=False)
    """Whether the sums are cosines of single updates, from a checkpoint of before halves were told apart."""

    def __post_init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        size = len(self.objectives)
        self.sums = torch.zeros(len(self.layers) + 1, size, size, dtype=torch.float64)
        self.measured, self.of_single_updates = 0, False

    def add(self, gramians: Tensor) -> None:
        """(L, 2M, 2M) inner products of one measurement: of all objectives in one half, then of all in the other.

        Nothing is added where an objective is in one half alone.
        """
        if self.of_single_updates:
            self._begin()
        gramians, size = gramians.double().cpu(), len(self.objectives)
        found = gramians.diagonal(dim1=-2, dim2=-1) > 0
        if not torch.equal(found[:, :size], found[:, size:]):
            return
        across = _cosines(torch.cat((gramians, gramians.sum(0, keepdim=True))))[:, :size, size:]
        self.sums += (across + across.transpose(1, 2)) / 2
        self.measured += 1

    def cosines(self) -> Tensor:
        """(L, M, M); 0 where an objective has no gradient, or none that is told from noise."""
        return _cosines(self.sums[:-1])

    def overall(self) -> Tensor:
        """(M, M) of all layers together."""
        return _cosines(self.sums[-1])

    def scores(self) -> dict[str, float]:
        """Mean cosine of all pairs of different objectives, by layer; pairs count as the lengths of their gradients."""
        pairs = torch.triu_indices(len(self.objectives), len(self.objectives), 1)
        return {name: _mean_cosine(sums, pairs) for name, sums in zip(self.layers, self.sums[:-1], strict=True)}

    def conflicting(self, rule: str | float = "mean") -> list[str]:
        """Layers whose pairs disagree on average, or with ``any`` those of which one pair does (the paper's formula,
        a mean over negative numbers, says no more); all if there is none. A number: that share of them, the lowest."""
        if not isinstance(rule, str):
            ranked = sorted(self.scores().items(), key=lambda pair: pair[1])
            chosen = {name for name, _ in ranked[: max(round(rule * len(ranked)), 1)]}
            return [name for name in self.layers if name in chosen]
        lowest = self.cosines().flatten(1).min(1).values
        scores = self.scores() if rule == "mean" else dict(zip(self.layers, lowest.tolist(), strict=True))
        return [name for name, score in scores.items() if score < 0] or list(self.layers)

    def by_task(self) -> dict[str, float]:
        """Mean cosine over all layers of different objectives of two tasks, e.g. ``asr-st``; counted as in `scores`."""
        found: dict[str, list[list[int]]] = {}
        for row, column in torch.triu_indices(len(self.objectives), len(self.objectives), 1).T.tolist():
            pair = "-".join(sorted(self.objectives[place].partition("/")[0] for place in (row, column)))
            found.setdefault(pair, []).append([row, column])
        return {name: _mean_cosine(self.sums[-1], torch.tensor(pairs).T) for name, pairs in found.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums, "measured": self.measured, "of_single_updates": self.of_single_updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Sums of cosines of single updates, too: they say what they said, and are dropped by the next measurement."""
        self.sums, self.measured = state["sums"], state["measured"]
        self.of_single_updates = state.get("of_single_updates", self.measured > 0)


def _mean_cosine(products: Tensor, pairs: Tensor) -> float:
    """Of pairs (2, N) of (M, M) products: a quotient of means, as one of two noisy numbers can be anything."""
    norms = products.diagonal().clamp(min=0).sqrt()
    scale = (norms[pairs[0]] * norms[pairs[1]]).sum()
    if not scale > 0:
        return 0.0
    return float((products[pairs[0], pairs[1]].sum() / scale).clamp(-1, 1))


def _cosines(products: Tensor) -> Tensor:
    """(..., M, M) products -> cosines; noise can leave the square of a norm below 0, and a cosine beyond 1."""
    norms = products.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    scale = norms[..., :, None] * norms[..., None, :]
    return torch.where(scale > 0, products / scale.clamp(min=1e-300), 0.0).clamp(-1, 1)
