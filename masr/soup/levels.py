"""Objectives in levels, their weights and penalties: what each loss counts in the encoder's gradient."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from masr.config import Level as LevelOptions
from masr.config import Penalty
from masr.config import Soup as SoupOptions
from masr.soup.weighting import mgda_weights, modo_step, torchjd_weights

CONSTANT = ("uniform", "static")
RETURN = 0.01
"""Share of the way back to equal weights that a step of MoDo takes, unless ``train.soup.pull`` says another."""


@dataclass
class Level:
    """Some objectives and what decides on their weights."""

    options: LevelOptions
    objectives: list[str]
    weights: Tensor
    """(M,)"""

    def scales(self, epoch: float) -> Tensor:
        """(M,) factors that single objectives have."""
        penalties = [
            [p for pattern, p in self.options.scales.items() if fnmatchcase(n, pattern)] for n in self.objectives
        ]
        return torch.tensor([math.prod(penalty_at(p, epoch) for p in found) for found in penalties])

    @property
    def kind(self) -> str:
        return self.options.weights

    def by_name(self, epoch: float) -> dict[str, float]:
        """What each objective counts in the level."""
        return dict(zip(self.objectives, (self.weights * self.scales(epoch)).tolist(), strict=True))

    @property
    def changes(self) -> bool:
        """Whether its weights are more than a constant."""
        return self.kind not in CONSTANT and len(self.objectives) > 1


class Soup:
    """All levels, from the top."""

    def __init__(self, options: SoupOptions, objectives: Sequence[str]):
        """``objectives`` are those of the model; ValueError for what is in no level, or in two, or patterns of none."""
        self.options = options
        self.levels = [_level(level, objectives) for level in options.levels]
        if options.levels and options.levels[0].penalty != Penalty():
            raise ValueError("train.soup.levels: the top level has no penalty; give it to a level below")
        named = [name for level in self.levels for name in level.objectives]
        if twice := sorted({name for name in named if named.count(name) > 1}):
            raise ValueError(f"train.soup.levels: {', '.join(twice)} in more than one level")
        if idle := [name for name in objectives if name not in named]:
            raise ValueError(
                f"train.soup.levels: no level has {', '.join(idle)}; what shall not count for now belongs to a last "
                "level with penalty: {start: 0.0}"
            )

    def factors(self, epoch: float) -> list[float]:
        """What each level counts: the product of the penalties down to it; the top level counts 1."""
        factors = [1.0]
        for level in self.levels[1:]:
            factors.append(factors[-1] * penalty_at(level.options.penalty, epoch))
        return factors

    def coefficients(self, epoch: float) -> dict[str, float]:
        """What each objective counts in the gradient of what all share."""
        return {
            name: factor * weight
            for factor, level in zip(self.factors(epoch), self.levels, strict=True)
            for name, weight in level.by_name(epoch).items()
        }

    def step(self, level: Level, products: Tensor) -> None:
        """MoDo's step of a level's weights by inner products (M,)."""
        step, pull = self.options.step, self.options.pull
        level.weights = modo_step(level.weights, products, step, RETURN / step if pull is None else pull)

    def solve(self, level: Level, gramian: Tensor) -> None:
        """The weights of a level by the inner products (M, M) of its gradients."""
        solved = mgda_weights(gramian) if level.kind == "mgda" else torchjd_weights(level.kind, gramian)
        level.weights = solved.to(level.weights.dtype)

    def state_dict(self) -> dict[str, Any]:
        return {"weights": [level.weights for level in self.levels]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for level, weights in zip(self.levels, state["weights"], strict=True):
            level.weights = weights


def penalty_at(penalty: Penalty, epoch: float) -> float:
    """eta at a time in epochs (Objective Soups, appendix G, where it grows from epoch to epoch)."""
    return min(penalty.start + penalty.rate * epoch, penalty.cap)


def _level(options: LevelOptions, objectives: Sequence[str]) -> Level:
    fitting = {pattern: [n for n in objectives if fnmatchcase(n, pattern)] for pattern in options.objectives}
    if unknown := [pattern for pattern, names in fitting.items() if not names]:
        raise ValueError(
            f"train.soup.levels: {', '.join(unknown)} fits none of {', '.join(objectives)}; an objective whose weight "
            "in model is 0 (ctc, translation, language_classifier, self_supervised) is none"
        )
    names = list(dict.fromkeys(name for found in fitting.values() for name in found))
    inside = [*options.scales, *options.static]
    if idle := [pattern for pattern in inside if not any(fnmatchcase(name, pattern) for name in names)]:
        raise ValueError(f"train.soup.levels: scales, static: {', '.join(idle)} fits none of {', '.join(names)}")
    weights = torch.full((len(names),), 1 / len(names))
    if options.weights == "static":
        weights = torch.tensor([_static(options.static, name) for name in names])
        if not weights.sum():
            raise ValueError(f"train.soup.levels: static: all weights of {', '.join(names)} are 0")
        weights = weights / weights.sum()
    elif options.static:
        raise ValueError(f"train.soup.levels: static: without effect with weights={options.weights}")
    elif options.weights not in ("uniform", "modo", "mgda"):
        torchjd_weights(options.weights, torch.eye(len(names)))  # refuses what there is not
    return Level(options, names, weights)


def _static(static: Mapping[str, float], name: str) -> float:
    found = [weight for pattern, weight in static.items() if fnmatchcase(name, pattern)]
    if len(found) != 1:
        raise ValueError(f"train.soup.levels: static: {len(found)} patterns fit {name}, expected one")
    return found[0]
