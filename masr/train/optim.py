"""Optimisers and learning-rate schedules."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from masr.config import Train

ENDLESS = ("noam", "constant")
"""Schedules that do not depend on the number of updates."""
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration (Jordan et al. 2024)."""


class Muon(AdamW):
    """Groups with ``orthogonal=True`` follow orthogonalised momentum, the others AdamW.

    Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon): the momentum of a matrix is replaced by the
    nearest matrix with orthonormal rows or columns, so that every direction learns equally fast. Scaled to the size of
    an AdamW step (Liu et al. 2025, arXiv 2502.16982), so that one learning rate serves both. torch's own Muon computes
    in bfloat16, which takes twenty times as long on a CPU that has none.
    """

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._step_supports_amp_scaling = False  # a gradient scaler must skip bad steps itself

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:  # type: ignore[override]
        groups = self.param_groups
        for group in groups:
            if group["orthogonal"]:
                self._step_matrices(group)
        self.param_groups = [group for group in groups if not group["orthogonal"]]
        try:
            return super().step(closure)
        finally:
            self.param_groups = groups

    def _step_matrices(self, group: dict[str, Any], decay: float = 0.95) -> None:
        matrices = [parameter for parameter in group["params"] if parameter.grad is not None]
        for parameter in matrices:
            state = self.state[parameter]
            if not state:
                state |= {"momentum": torch.zeros_like(parameter), "step": torch.zeros(())}  # AdamW asks for a step
            state["momentum"].mul_(decay).add_(parameter.grad)
        ahead = [p.grad.add(self.state[p]["momentum"], alpha=decay) for p in matrices]  # Nesterov's look ahead
        parts = [m.chunk(getattr(p, "fused", 1)) for p, m in zip(matrices, ahead, strict=True)]
        directions = iter(_shared_work([part for group_of_parts in parts for part in group_of_parts]))
        for parameter, chunks in zip(matrices, parts, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            for rows in parameter.chunk(len(chunks)):
                rows.add_(next(directions), alpha=-group["lr"] * 0.2 * math.sqrt(max(rows.shape)))


def _shared_work(matrices: list[Tensor]) -> list[Tensor]:
    """Every matrix orthogonalised; each process does its share and the sum gives all of them to everyone."""
    rank, processes = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    if processes == 1:
        return [orthogonalize(matrix) for matrix in matrices]
    results = [
        orthogonalize(matrix) if number % processes == rank else torch.zeros_like(matrix)
        for number, matrix in enumerate(matrices)
    ]
    flat = torch.cat([result.flatten() for result in results])
    dist.all_reduce(flat)
    parts = flat.split([matrix.numel() for matrix in matrices])
    return [part.view_as(matrix) for part, matrix in zip(parts, matrices, strict=True)]


def orthogonalize(matrix: Tensor, iterations: int = 5) -> Tensor:
    """(M, N) -> about U V^T of the singular value decomposition U S V^T: singular values between 0.7 and 1.2.

    Newton-Schulz iteration, matrix products only; directions 1000 times as weak as the matrix's norm stay weak.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


def build_optimizer(model: nn.Module, options: Train) -> AdamW:
    """The optimiser of ``train.optimizer``; weight decay acts on matrices and kernels, not on biases, norms, vectors.

    Muon takes the linear layers inside stacks of ``blocks``; embeddings, output layers and convolutions stay with
    AdamW. A parameter of several matrices above each other says so by its attribute ``fused``, their number; one with
    the attribute ``without_decay`` is no matrix of weights.
    """
    inner = [
        module.weight for name, module in model.named_modules()
        if options.optimizer == "muon" and isinstance(module, nn.Linear) and "blocks" in name.split(".")
        and module.weight.requires_grad
    ]  # fmt: skip
    others = [p for p in model.parameters() if p.requires_grad and not any(p is q for q in inner)]
    groups: list[dict[str, Any]] = [
        {"params": inner, "weight_decay": options.weight_decay, "orthogonal": True},
        {"params": [p for p in others if _decays(p)], "weight_decay": options.weight_decay, "orthogonal": False},
        {"params": [p for p in others if not _decays(p)], "weight_decay": 0.0, "orthogonal": False},
    ]
    if options.encoder_factor != 1.0:
        encoder = {id(p) for name, p in model.named_parameters() if name.startswith("encoder.")}
        groups = [part for group in groups for part in _split(group, encoder, options)]
    kind = Muon if options.optimizer == "muon" else AdamW
    return kind([g for g in groups if g["params"]], lr=options.learning_rate, betas=(0.9, 0.98), eps=1e-9, fused=True)


def _split(group: dict[str, Any], encoder: set[int], options: Train) -> list[dict[str, Any]]:
    """The encoder's parameters of a group, with their own learning rate, and the others."""
    ours = [p for p in group["params"] if id(p) in encoder]
    others = [p for p in group["params"] if id(p) not in encoder]
    slow = group | {"params": ours, "lr": options.learning_rate * options.encoder_factor}
    return [slow, group | {"params": others}]


def _decays(parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and not getattr(parameter, "without_decay", False)


def build_schedule(optimizer: AdamW, options: Train) -> LambdaLR:
    """The learning rate of every update, a function of its number alone."""
    return LambdaLR(optimizer, lambda update: learning_rate_factor(update, options))


def learning_rate_factor(update: int, options: Train) -> float:
    """Share of the peak learning rate at an update (from 0).

    Linear warm-up; then ``linear`` or ``cosine`` decay to zero at the last update, or ``noam``: the inverse square root
    of the update, as in Vaswani et al. 2017 (section 5.3) with its peak at the end of the warm-up; or ``constant``.
    """
    if update < options.warmup:
        return (update + 1) / options.warmup
    if options.schedule == "constant":
        return 1.0
    if options.schedule == "noam":
        return math.sqrt(max(options.warmup, 1) / (update + 1))
    progress = min(1.0, (update - options.warmup) / max(1, options.updates - options.warmup))
    return 1 - progress if options.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
