"""AdamW and learning-rate schedules."""

import math

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from masr.config import Train


def build_optimizer(model: nn.Module, options: Train) -> AdamW:
    """AdamW; weight decay acts on matrices and convolution kernels, not on biases, norms and other vectors."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.98), eps=1e-9, fused=True)


def build_schedule(optimizer: AdamW, options: Train) -> LambdaLR:
    """The learning rate of every update, a function of its number alone."""
    return LambdaLR(optimizer, lambda update: learning_rate_factor(update, options))


def learning_rate_factor(update: int, options: Train) -> float:
    """Share of the peak learning rate at an update (from 0).

    Linear warm-up; then ``linear`` or ``cosine`` decay to zero at the last update, or ``noam``: the inverse square root
    of the update, as in Vaswani et al. 2017 (section 5.3) with its peak at the end of the warm-up.
    """
    if update < options.warmup:
        return (update + 1) / options.warmup
    if options.schedule == "noam":
        return math.sqrt(max(options.warmup, 1) / (update + 1))
    progress = min(1.0, (update - options.warmup) / max(1, options.updates - options.warmup))
    return 1 - progress if options.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
