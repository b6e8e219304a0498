"""Sums over processes, where they may use different parts of a model, as DistributedDataParallel does not allow."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Over all processes, some of which may not have used what others have."""
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    if dist.is_initialized() and dist.get_world_size() > 1 and learning:
        used = torch.tensor([p.grad is not None for p in learning], dtype=torch.uint8, device=learning[0].device)
        dist.all_reduce(used, dist.ReduceOp.MAX)
        for parameter in (parameter for parameter, here in zip(learning, used.tolist(), strict=True) if here):
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    sum_over_processes(parameter.grad for parameter in learning if parameter.grad is not None)


def sum_over_processes(tensors: Iterable[Tensor]) -> None:
    """In place, as one message."""
    found = list(tensors)
    if not (dist.is_initialized() and dist.get_world_size() > 1 and found):
        return
    flat = torch.cat([tensor.flatten() for tensor in found])
    dist.all_reduce(flat)
    for tensor, part in zip(found, flat.split([tensor.numel() for tensor in found]), strict=True):
        tensor.copy_(part.view_as(tensor))
