"""Which layers objectives disagree about. L layers, M objectives."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Conflicts:
    """Running sums of the inner products of the objectives' gradients in every layer (Objective Soups, section 4.7)."""

    layers: list[str]
    objectives: list[str]
    sums: Tensor = field(init=False)
    """(L, M, M)"""
    measured: int = 0

    def __post_init__(self) -> None:
        self.sums = torch.zeros(len(self.layers), len(self.objectives), len(self.objectives), dtype=torch.float64)

    def add(self, gramians: Tensor) -> None:
        """(L, M, M) of one measurement."""
        self.sums += gramians.double().cpu()
        self.measured += 1

    def cosines(self) -> Tensor:
        """(L, M, M); 0 where an objective has no gradient."""
        norms = self.sums.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
        scale = norms[:, :, None] * norms[:, None]
        return torch.where(scale > 0, self.sums / scale.clamp(min=1e-300), 0.0)

    def scores(self) -> dict[str, float]:
        """Mean cosine of all pairs of different objectives, by layer."""
        pairs = torch.triu_indices(len(self.objectives), len(self.objectives), 1)
        means = self.cosines()[:, pairs[0], pairs[1]].mean(1) if pairs.shape[1] else torch.zeros(len(self.layers))
        return dict(zip(self.layers, means.tolist(), strict=True))

    def conflicting(self, rule: str = "mean") -> list[str]:
        """Layers whose pairs disagree on average, or with ``any`` those of which one pair does (the paper's formula,
        a mean over negative numbers, says no more); all if there is none."""
        lowest = self.cosines().flatten(1).min(1).values
        scores = self.scores() if rule == "mean" else dict(zip(self.layers, lowest.tolist(), strict=True))
        return [name for name, score in scores.items() if score < 0] or list(self.layers)

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums, "measured": self.measured}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums, self.measured = state["sums"], state["measured"]
