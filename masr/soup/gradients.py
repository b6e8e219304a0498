"""Gradients of what objectives share, through the output of the encoder. B utterances, M objectives, P parameters.

An utterance has one language and its output depends on nothing but itself. So one backward pass through the heads
gives the gradients of the losses of all languages, each in its own rows of the encoder's output, and one more through
the encoder, with rows scaled, their weighted sum: many languages cost no more than one.
"""

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


def directional_change(
    outputs: Callable[[], list[Tensor]],
    parameters: Sequence[nn.Parameter],
    direction: Sequence[Tensor],
    here: Sequence[Tensor],
    step: float = 1e-5,
) -> list[Tensor]:
    """Derivative of ``outputs()``, which are ``here``, as the parameters move along ``direction``; by a difference.

    ``step`` is the size of the movement as a share of the parameters' norm. The inner product of any gradient with
    ``direction`` is that of the gradient of the outputs with this: one pass without a graph serves all objectives.
    """
    norm = torch.stack([d.norm() for d in direction]).norm()
    size = step * torch.stack([p.detach().norm() for p in parameters]).norm() / norm.clamp(min=1e-30)
    if not torch.isfinite(size) or norm == 0:
        return [torch.zeros_like(output) for output in here]
    with torch.no_grad(), _moved(parameters, direction, float(size)):
        return [(there - now) / size for there, now in zip(outputs(), here, strict=True)]


@contextmanager
def _moved(parameters: Sequence[nn.Parameter], direction: Sequence[Tensor], size: float) -> Iterator[None]:
    before = [parameter.detach().clone() for parameter in parameters]
    torch._foreach_add_(list(parameters), list(direction), alpha=size)
    try:
        yield
    finally:
        torch._foreach_copy_(list(parameters), before)
