"""Weights of objectives: not negative, summing to one. M objectives.

MoDo (Chen et al. 2023, arXiv 2305.20057), MGDA (Désidéri 2012; Sener & Koltun 2018, arXiv 1810.04650), and through
torchjd what else works on inner products of gradients.
"""

from ast import literal_eval
from typing import Any

import torch
from torch import Tensor

AGAINST = ("AlignedMTL", "IMTLG")
"""Aggregators whose weights can be negative, so that the encoder would follow an objective uphill."""


def project_to_simplex(point: Tensor) -> Tensor:
    """The closest (M,) whose entries are not negative and sum to one (Duchi et al. 2008, figure 1)."""
    ordered = point.sort(descending=True).values
    excess = (ordered.cumsum(0) - 1) / torch.arange(1, len(point) + 1, dtype=point.dtype, device=point.device)
    kept = int((ordered > excess).nonzero().max())
    return (point - excess[kept]).clamp(min=0.0)


def modo_step(weights: Tensor, products: Tensor, step: float, pull: float) -> Tensor:
    """The next weights (M,) (Objective Soups, equation 4).

    ``products`` (M,) are those of each objective's gradient in one sample with the weighted sum of all gradients in
    another, independent one; ``pull`` is the regulariser's share, towards equal weights:
    where no product differs, a step takes ``step * pull`` of the way to them.
    """
    return project_to_simplex(weights - step * (products + pull * (weights - 1 / len(weights))))


def mgda_weights(gramian: Tensor, steps: int = 1000) -> Tensor:
    """Weights (M,) of the shortest vector between gradients with inner products (M, M): min w^T G w.

    Accelerated projected gradient, on the CPU in float64.
    """
    gramian = gramian.double().cpu()
    rate = 1 / gramian.abs().sum(1).max().clamp(min=1e-30)  # at most 1 / the largest eigenvalue
    weights = ahead = torch.full((len(gramian),), 1 / len(gramian), dtype=torch.float64)
    momentum = 1.0
    for _ in range(steps):
        before, weights = weights, project_to_simplex(ahead - rate * gramian @ ahead)
        momentum, last = (1 + (1 + 4 * momentum**2) ** 0.5) / 2, momentum
        ahead = weights + (last - 1) / momentum * (weights - before)
    return weights


def torchjd_weights(name: str, gramian: Tensor) -> Tensor:
    """Weights (M,) by an aggregator of torchjd, ``UPGrad`` or ``CAGrad(c=0.4)``, scaled to sum to one.

    ValueError when it has no such that works on inner products alone, or is missing.
    """
    kind, _, given = name.removesuffix(")").partition("(")
    known = _torchjd()
    if kind not in known:
        names = ", ".join(["uniform", "static", "modo", "mgda", *(known or ["with pip install masr[soup] torchjd's"])])
        raise ValueError(f"train.soup: weights={name}: unknown; there are {names}")
    try:
        options = {key.strip(): literal_eval(value) for key, value in (o.split("=") for o in given.split(",") if o)}
        weights = known[kind](**options)(gramian.double().cpu())
    except ImportError as error:
        raise ValueError(
            f"train.soup: weights={name}: {error}; CAGrad and NashMTL: pip install cvxpy clarabel ecos"
        ) from error
    except (TypeError, ValueError, SyntaxError) as error:
        raise ValueError(f"train.soup: weights={name}: {error}; write e.g. CAGrad(c=0.4)") from error
    if weights.min() < -1e-6:
        raise ValueError(f"train.soup: weights={name}: gives negative weights, against an objective")
    return weights / weights.sum().clamp(min=1e-12)


def _torchjd() -> dict[str, Any]:
    """By name the weightings of torchjd that look at inner products alone, remember nothing, and give no negative
    weights; none if it is not installed."""
    try:
        from torchjd import aggregation
    except ImportError:
        return {}
    named = {word.removesuffix("Weighting"): getattr(aggregation, word) for word in dir(aggregation) if "Weig" in word}
    bases = {name: {base.__name__ for base in getattr(kind, "__mro__", ())} for name, kind in named.items()}
    fitting = [n for n, names in bases.items() if "_GramianWeighting" in names and "Stateful" not in names]
    return {name: named[name] for name in fitting if name not in AGAINST}
