"""Cosines of expected gradients, with intervals, from the inner products of the gradients of single recordings.

T gradients, M objectives, U units that are drawn independently (a recording, or a group of them), B bootstrap draws.

The gradient of one recording is nearly all noise, and noise biases every cosine: towards 0, or towards 1 where two
objectives share a recording. Only products of gradients without a common recording are used here, all of them: a
U-statistic (Hoeffding 1948), the mean of what `masr.soup.conflict` finds over all ways to halve the recordings.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from masr.data.random import Purpose, generator

Statistic = Callable[[Tensor], Tensor]
"""(..., M, M) products of expected gradients -> (...) numbers; differentiable."""
SMALLEST = 1e-30
"""Square of a norm that counts as none."""


@dataclass(frozen=True)
class Source:
    """What a gradient was measured on."""

    objective: str
    recordings: frozenset[str]
    stratum: str
    """Bootstrap draws take as many units of each stratum, e.g. a language, as there are."""


@dataclass(frozen=True)
class Estimate:
    """A cosine and its 95 % interval."""

    value: float
    low: float
    high: float


UNKNOWN = Estimate(0.0, -1.0, 1.0)
"""Where the norm of a gradient is not significantly above 0."""


class Design:
    """Which gradients may be multiplied with each other, and how often bootstrap draws take each of them.

    A group of recordings is drawn as a unit of its own, even if some of its recordings are drawn by themselves, too.
    """

    def __init__(self, sources: Sequence[Source], draws: int = 1000, seed: int = 1):
        """ValueError when an objective has no two gradients of different recordings."""
        self.objectives = list(dict.fromkeys(source.objective for source in sources))
        self.owner = torch.tensor([self.objectives.index(source.objective) for source in sources])
        """(T,) number of the objective."""
        self.one_hot = F.one_hot(self.owner, len(self.objectives)).double()
        """(T, M)."""
        units = list(dict.fromkeys((source.stratum, source.recordings) for source in sources))
        numbers = {unit: number for number, unit in enumerate(units)}
        self.unit = torch.tensor([numbers[source.stratum, source.recordings] for source in sources])
        """(T,) number of the unit."""
        self.strata = _strata([stratum for stratum, _ in units])
        """Numbers of the units of each stratum."""
        self.independent = _independent([source.recordings for source in sources])
        """(T, T) 1 where two gradients have no recording in common, else 0."""
        self.pairs = self.one_hot.T @ self.independent @ self.one_hot
        """(M, M) pairs of gradients for each pair of objectives."""
        for number, name in enumerate(self.objectives):
            if not self.pairs[number, number]:
                raise ValueError(f"conflicts: {name}: expected gradients of two recordings at least, found one")
        weights = self._draw(len(units), draws, generator(Purpose.DRAW, seed, len(units), draws))
        self.weights = weights[:, self.unit]
        """(B, T) how often a draw takes each gradient."""
        self.drawn_pairs = self.weighted_sums(self.independent).clamp(min=1)
        """(B, M, M)."""

    def _draw(self, units: int, draws: int, random: np.random.Generator) -> Tensor:
        """(B, U): as many units of each stratum as there are, with replacement."""
        weights = torch.zeros(draws, units, dtype=torch.float64)
        for members in self.strata:
            counts = random.multinomial(len(members), np.full(len(members), 1 / len(members)), size=draws)
            weights[:, members] = torch.from_numpy(counts).double()
        return weights

    def weighted_sums(self, values: Tensor) -> Tensor:
        """(T, T) -> (B, M, M): sums over the gradients of two objectives, each counted as a draw takes it."""
        columns = []
        for number in range(len(self.objectives)):
            of_objective = self.owner == number
            rows = self.weights[:, of_objective] @ values[of_objective]
            columns.append((rows * self.weights) @ self.one_hot)
        return torch.stack(columns, -1)


class Agreement:
    """Products of the expected gradients of some parameters, in the sample and in bootstrap draws of it."""

    def __init__(self, gramian: Tensor, design: Design):
        """``gramian`` (T, T): inner products of all gradients.

        Objectives count alike whatever the size of their losses: the mean square of their gradients' norms is 1.
        """
        self.design = design
        gramian = gramian.double()
        self.mean_squares = (design.one_hot.T @ gramian.diagonal()) / design.one_hot.sum(0)
        """(M,) of the norms, before they are scaled."""
        norms = self.mean_squares.clamp(min=SMALLEST).sqrt()[design.owner]
        products = gramian / norms / norms[:, None] * design.independent
        self.products = design.one_hot.T @ products @ design.one_hot / design.pairs
        """(M, M); the diagonal is the share of signal in the squares of gradients."""
        self.draws = design.weighted_sums(products) / design.drawn_pairs
        """(B, M, M)."""
        owner = design.owner
        centred = products - self.products[owner][:, owner] * design.independent
        self.contributions = centred / design.pairs[owner][:, owner]
        """(T, T) what each pair of gradients adds to the product of two objectives."""

    def cosines(self) -> Tensor:
        """(M, M) cosines of all pairs of objectives; 0 where the square of a norm is not above 0."""
        norms = self.products.diagonal().clamp(min=0).sqrt()
        scale = norms[:, None] * norms
        return torch.where(scale > 0, self.products / scale.clamp(min=SMALLEST), 0.0).clamp(-1, 1)

    def signal(self, objective: int) -> Estimate:
        """Share of the expected gradient in the mean square of the gradients' norms."""
        return self.estimate(lambda products: products[..., objective, objective])

    def cosine(self, first: int, second: int) -> Estimate:
        """Of two expected gradients; UNKNOWN where a norm is not significantly above 0."""
        if self.signal(first).low <= 0 or self.signal(second).low <= 0:
            return UNKNOWN
        return self.mean_cosine(torch.tensor([[first], [second]]))

    def mean_cosine(self, pairs: Tensor) -> Estimate:
        """Of pairs (2, N) of objectives, weighted by the norms of their gradients; UNKNOWN where these are all 0."""
        norms = self.products.diagonal().clamp(min=0).sqrt()
        if not (norms[pairs[0]] * norms[pairs[1]]).sum() > 0:
            return UNKNOWN
        return _clamped(self.estimate(lambda products: _mean_cosine(products, pairs)))

    def estimate(self, statistic: Statistic) -> Estimate:
        """A function of the products with its 95 % interval: percentiles of bootstrap draws, whose spread is corrected.

        A product of two draws varies too much: what two units add jointly is counted three times, once through each of
        them and once jointly (in variances; with 1 % signal intervals would be half as wide again). Its variance is
        known from the statistic's linear part, so the spread is brought back to that of the statistic itself.
        """
        products = self.products.clone().requires_grad_()
        value = statistic(products)
        [slopes] = torch.autograd.grad(value, products)
        linear, joint = self._variances((slopes + slopes.T) / 2)
        shrink = (max(linear - joint, joint) / max(linear + joint, SMALLEST)) ** 0.5
        found = value.item()
        spread = shrink * (statistic(self.draws) - found)
        low, high = torch.quantile(spread, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        return Estimate(found, found + low, found + high)

    def _variances(self, slopes: Tensor) -> tuple[float, float]:
        """What a bootstrap adds for units alone and for pairs of them; ``slopes`` (M, M) of a statistic."""
        design = self.design
        each = slopes[design.owner][:, design.owner] * self.contributions
        units = int(design.unit.max()) + 1
        rows = torch.zeros(units, len(each), dtype=torch.float64).index_add_(0, design.unit, each)
        by_unit = torch.zeros(units, units, dtype=torch.float64).index_add_(1, design.unit, rows)
        influence = 2 * by_unit.sum(1)
        linear = 0.0
        for members in design.strata:
            if len(members) > 1:
                linear += len(members) * float(influence[members].var())
        return linear, 2 * float(by_unit.square().sum())


def kinds_of_pairs(objectives: Sequence[str]) -> dict[str, Tensor]:
    """Pairs (2, N) of different objectives, all and by kind: tasks, and for two tasks whether the language is one."""
    kinds: dict[str, list[list[int]]] = {"all pairs": []}
    for row, column in torch.triu_indices(len(objectives), len(objectives), 1).T.tolist():
        kinds["all pairs"].append([row, column])
        kinds.setdefault(_kind(objectives[row], objectives[column]), []).append([row, column])
    everything, *rest = kinds
    return {name: torch.tensor(kinds[name]).T for name in [everything, *sorted(rest)]}


def _kind(first: str, second: str) -> str:
    """``asr-asr``, ``asr-st, same language`` or, of an objective without a language, ``cpc-others``."""
    tasks = [name.partition("/")[0] for name in (first, second)]
    languages = [name.partition("/")[2] for name in (first, second)]
    if "" in languages:
        return f"{tasks[languages.index('')]}-others"
    kind = "-".join(sorted(tasks))
    if tasks[0] == tasks[1]:
        return kind
    return f"{kind}, same language" if languages[0] == languages[1] else f"{kind}, different languages"


def _mean_cosine(products: Tensor, pairs: Tensor) -> Tensor:
    """(..., M, M), (2, N) -> (...): a quotient of means, as one of two noisy numbers can be anything."""
    norms = products.diagonal(dim1=-2, dim2=-1).clamp(min=SMALLEST).sqrt()
    scale = (norms[..., pairs[0]] * norms[..., pairs[1]]).sum(-1)
    return products[..., pairs[0], pairs[1]].sum(-1) / scale


def _clamped(estimate: Estimate) -> Estimate:
    """Noise can leave a cosine beyond 1."""
    each = (estimate.value, estimate.low, estimate.high)
    return Estimate(*(min(max(number, -1.0), 1.0) for number in each))


def _strata(names: Sequence[str]) -> list[Tensor]:
    members: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        members.setdefault(name, []).append(number)
    return [torch.tensor(numbers) for numbers in members.values()]


def _independent(recordings: Sequence[frozenset[str]]) -> Tensor:
    """(T, T) 1 where two sets of recordings have none in common."""
    names = sorted(frozenset().union(*recordings))
    numbers = {name: number for number, name in enumerate(names)}
    used = torch.zeros(len(recordings), len(names))
    for row, each in enumerate(recordings):
        used[row, [numbers[name] for name in each]] = 1
    return (used @ used.T == 0).double()
