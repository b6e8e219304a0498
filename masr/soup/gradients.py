"""Gradients of what objectives share, through the output of the encoder. B utterances, M objectives, P parameters.

An utterance has one language and its output depends on nothing but itself. So one backward pass through the heads
gives the gradients of the losses of all languages, each in its own rows of the encoder's output, and one more through
the encoder, with rows scaled, their weighted sum: many languages cost no more than one.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Cotangents:
    """Gradients of losses with respect to the tensors that an encoder gave out, by kind of loss."""

    def __init__(self, outputs: Sequence[Tensor], copies: Sequence[Tensor]):
        """``outputs`` have the encoder's graph, where they have any; losses are computed on their ``copies``."""
        self.live = [number for number, output in enumerate(outputs) if output.requires_grad]
        self.outputs, self.copies = [outputs[n] for n in self.live], [copies[n] for n in self.live]
        self.gradients: dict[str, list[Tensor]] = {}

    def add(self, kind: str, loss: Tensor, last: bool = True) -> None:
        """Backward through the heads, whose gradients are added to those that they have; ``loss`` is one number.

        Heads may share what another loss, unless this is the ``last``, needs.
        """
        if loss.requires_grad:  # not where head and encoder are frozen
            loss.backward(retain_graph=not last)
        self.gradients[kind] = [torch.zeros_like(copy) if copy.grad is None else copy.grad for copy in self.copies]
        for copy in self.copies:
            copy.grad = None

    def weighted(self, rows: Mapping[str, Tensor]) -> list[Tensor]:
        """Their sum over kinds, every utterance scaled as ``rows`` (B,) say for the kind."""
        total = [torch.zeros_like(copy) for copy in self.copies]
        for kind, weights in rows.items():
            for sums, gradient in zip(total, self.gradients[kind], strict=True):
                sums += gradient * weights.to(gradient.dtype).view(-1, *[1] * (gradient.dim() - 1))
        return total

    def backward(self, rows: Mapping[str, Tensor]) -> None:
        """Adds the gradient of the weighted losses to those of the encoder, whose graph is then gone."""
        torch.autograd.backward(self.outputs, self.weighted(rows))

    def gradient(self, rows: Mapping[str, Tensor], parameters: Sequence[Tensor]) -> list[Tensor]:
        """The gradient of the weighted losses with respect to some parameters of the encoder; the graph stays."""
        given = torch.autograd.grad(self.outputs, parameters, self.weighted(rows), retain_graph=True, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, given, strict=True)]

    def products(self, change: Sequence[Tensor]) -> dict[str, Tensor]:
        """By kind, inner products (B,) of each utterance's gradient with a change of the outputs."""
        live = [change[number] for number in self.live]
        return {
            kind: torch.stack([(g * c).flatten(1).sum(1) for g, c in zip(gradients, live, strict=True)]).sum(0)
            for kind, gradients in self.gradients.items()
        }


STEP = 5e-6
"""What parameters move, as a share of their norm. Beyond it the error grows with the square of the step (the outputs
are no parabola), below it with its inverse (float32 has 24 bits). A product's is 2e-5 to 2e-4 of both norms."""


def directional_change(
    outputs: Callable[[], list[Tensor]],
    parameters: Sequence[nn.Parameter],
    direction: Sequence[Tensor],
    step: float = STEP,
) -> list[Tensor]:
    """Derivative of ``outputs()`` as the parameters move along ``direction``; by a central difference.

    ``step`` is the size of the movement as a share of the parameters' norm. The inner product of any gradient with
    ``direction`` is that of the gradient of the outputs with this: two passes without a graph serve all objectives.
    Both are in float32, whatever training computes with: TF32 and bf16 round off more than the parameters move.
    """
    norm = torch.stack([d.norm() for d in direction]).norm()
    size = float(step * torch.stack([p.detach().norm() for p in parameters]).norm() / norm.clamp(min=1e-30))
    if not math.isfinite(size) or norm == 0:
        return [torch.zeros_like(output) for output in _outputs_at(outputs, parameters, direction, 0.0)]
    ahead, behind = (_outputs_at(outputs, parameters, direction, sign * size) for sign in (1, -1))
    return [(there - back) / (2 * size) for there, back in zip(ahead, behind, strict=True)]


def _outputs_at(
    outputs: Callable[[], list[Tensor]], parameters: Sequence[nn.Parameter], direction: Sequence[Tensor], size: float
) -> list[Tensor]:
    with torch.no_grad(), full_precision(parameters[0].device.type), _moved(parameters, direction, size):
        return outputs()


@contextmanager
def full_precision(device: str) -> Iterator[None]:
    """float32 on a kind of device, ``cuda`` or ``cpu``: neither autocast nor TF32, which convolutions of cuDNN have
    unless one says so."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


@contextmanager
def _moved(parameters: Sequence[nn.Parameter], direction: Sequence[Tensor], size: float) -> Iterator[None]:
    before = [parameter.detach().clone() for parameter in parameters]
    if size:
        torch._foreach_add_(list(parameters), list(direction), alpha=size)
    try:
        yield
    finally:
        torch._foreach_copy_(list(parameters), before)
