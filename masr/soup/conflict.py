"""Which layers objectives disagree about. L layers, M objectives."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Conflicts:
    """Cosines of the objectives' gradients in every layer (Objective Soups, section 4.7), each measurement alike."""

    layers: list[str]
    objectives: list[str]
    sums: Tensor = field(init=False)
    """(L + 1, M, M): of each layer, and of all layers together."""
    measured: int = 0

    def __post_init__(self) -> None:
        size = len(self.objectives)
        self.sums = torch.zeros(len(self.layers) + 1, size, size, dtype=torch.float64)

    def add(self, gramians: Tensor) -> None:
        """(L, M, M) inner products of one measurement."""
        gramians = gramians.double().cpu()
        self.sums += _cosines(torch.cat((gramians, gramians.sum(0, keepdim=True))))
        self.measured += 1

    def cosines(self) -> Tensor:
        """(L, M, M) means; 0 where an objective has no gradient."""
        return self.sums[:-1] / max(self.measured, 1)

    def overall(self) -> Tensor:
        """(M, M) means of all layers together."""
        return self.sums[-1] / max(self.measured, 1)

    def scores(self) -> dict[str, float]:
        """Mean cosine of all pairs of different objectives, by layer."""
        pairs = torch.triu_indices(len(self.objectives), len(self.objectives), 1)
        means = self.cosines()[:, pairs[0], pairs[1]].mean(1) if pairs.shape[1] else torch.zeros(len(self.layers))
        return dict(zip(self.layers, means.tolist(), strict=True))

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
        """Mean cosine over all layers of different objectives of two tasks, e.g. ``asr-st``."""
        found: dict[str, list[float]] = {}
        for row, column in zip(*torch.triu_indices(len(self.objectives), len(self.objectives), 1), strict=True):
            pair = "-".join(sorted(self.objectives[place].partition("/")[0] for place in (row, column)))
            found.setdefault(pair, []).append(float(self.overall()[row, column]))
        return {pair: sum(values) / len(values) for pair, values in found.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums, "measured": self.measured}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums, self.measured = state["sums"], state["measured"]


def _cosines(gramians: Tensor) -> Tensor:
    """(..., M, M) inner products -> cosines."""
    norms = gramians.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    scale = norms[..., :, None] * norms[..., None, :]
    return torch.where(scale > 0, gramians / scale.clamp(min=1e-300), 0.0)
