"""Conformer encoder (Gulati et al. 2020, arXiv 2005.08100). B batch, T frames, D width, H heads, E size of a head.

Relative positions are rotary (Su et al. 2021, arXiv 2104.09864; for speech Li et al. 2021, arXiv 2107.05907): the score
of two frames depends on their distance alone, and attention stays one fused call. The convolution module normalises
over channels (LayerNorm), not over the batch, so that padding and batch composition never change a result.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from masr.config import Encoder
from masr.nn.depthwise import DepthwiseConvolution, Memory
from masr.nn.dropout import Dropout

Activation = Callable[[Tensor], Tensor]


class ConformerBlock(nn.Module):
    """Half feed-forward, self-attention, convolution, half feed-forward, each a residual; then a norm."""

    def __init__(self, options: Encoder):
        super().__init__()
        width, dropout = options.width, options.dropout
        self.feedforward1 = FeedForward(width, options.feedforward, dropout)
        self.attention = SelfAttention(width, options.heads, options.language_adapters.summary_heard)
        self.convolution = ConvolutionModule(width, options.kernel)
        self.feedforward2 = FeedForward(width, options.feedforward, dropout)
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, frames: Tensor, mask: Tensor | None, memory: Memory | None = None, prefix: int = 0) -> Tensor:
        """(B, T, D), (B, T) bool or None when nothing is padded -> (B, T, D). There is nothing to remember.

        The first ``prefix`` vectors are no frames but summaries, which the convolution neither sees nor changes.
        """
        frames = torch.add(frames, self.dropout(self.feedforward1(frames)), alpha=0.5)
        frames = frames + self.dropout(self.attention(frames, mask, prefix))
        convolved = self.dropout(self.convolution(frames[:, prefix:], None if mask is None else mask[:, prefix:]))
        frames = frames + (F.pad(convolved, (0, 0, prefix, 0)) if prefix else convolved)
        frames = torch.add(frames, self.dropout(self.feedforward2(frames)), alpha=0.5)
        return self.norm(frames)


class FeedForward(nn.Module):
    """Norm, expansion, activation, projection."""

    def __init__(self, width: int, inner: int, dropout: float, activation: Activation = F.silu):
        super().__init__()
        self.activation = activation
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, inner)
        self.dropout = Dropout(dropout)
        self.project = nn.Linear(inner, width)

    def forward(self, frames: Tensor) -> Tensor:
        return self.project(self.dropout(self.activation(self.expand(self.norm(frames)))))


class SelfAttention(nn.Module):
    """Multi-head self-attention with rotary positions; summary vectors stand where the first frame stands."""

    def __init__(self, width: int, heads: int, summary_heard: bool = True):
        super().__init__()
        if width % (2 * heads):
            raise ValueError(
                f"model.encoder or model.translation: width {width} does not split into {heads} even heads"
            )
        self.heads, self.summary_heard = heads, summary_heard
        self.norm = nn.LayerNorm(width)
        self.query_key_value = fuse(nn.Linear(width, 3 * width), 3)
        self.project = nn.Linear(width, width)

    def forward(self, frames: Tensor, mask: Tensor | None, prefix: int = 0) -> Tensor:
        """(B, T, D) -> (B, T, D); padded frames (False in ``mask`` (B, T)) are not attended to."""
        batch, time, width = frames.shape
        rotation = rotary_angles(time - prefix, width // self.heads, frames.device)
        if prefix:
            rotation = F.pad(rotation, (0, 0, prefix, 0), value=1.0)
        fused = self.query_key_value(self.norm(frames)).view(batch, time, 3, self.heads, width // self.heads)
        query, key = rotate(fused[:, :, :2], rotation[:, None, None]).permute(2, 0, 3, 1, 4)  # each (B, H, T, E)
        attended = F.scaled_dot_product_attention(
            query, key, fused[:, :, 2].transpose(1, 2), attn_mask=self._attended(mask, prefix, frames)
        )
        return self.project(attended.transpose(1, 2).reshape(batch, time, width))

    def _attended(self, mask: Tensor | None, prefix: int, frames: Tensor) -> Tensor | None:
        """What may be attended to, of a shape that expands to (B, H, T, T); None is all."""
        keys = None if mask is None else mask[:, None, None, :]
        if not prefix or self.summary_heard:
            return keys
        summary = torch.arange(frames.shape[1], device=frames.device) < prefix
        seen = summary[:, None] | ~summary
        return seen if keys is None else seen & keys


class ConvolutionModule(nn.Module):
    """Norm, gated pointwise convolution, depthwise convolution over time, norm, activation, pointwise convolution."""

    def __init__(self, width: int, kernel: int, activation: Activation = F.silu, causal: bool = False):
        super().__init__()
        self.activation = activation
        self.norm = nn.LayerNorm(width)
        self.expand = fuse(nn.Linear(width, 2 * width), 2)
        self.depthwise = DepthwiseConvolution(width, kernel, causal)
        self.inner_norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, width)

    def forward(self, frames: Tensor, mask: Tensor | None, memory: Memory | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D); padded frames are zero where the depthwise convolution looks at them."""
        hidden = F.glu(self.expand(self.norm(frames)))
        if mask is not None:
            hidden = hidden * mask[:, :, None]
        return self.project(self.activation(self.inner_norm(self.depthwise(hidden, memory))))


@lru_cache(maxsize=1)  # the blocks ask for the same one after the other
def rotary_angles(time: int, size: int, device: torch.device) -> Tensor:
    """(T, E / 2) complex numbers of length 1: the turn of every position and pair of channels."""
    with torch.inference_mode(False):
        rates = 10000.0 ** (-torch.arange(0, size, 2, device=device, dtype=torch.float32) / size)
        angles = torch.arange(time, device=device, dtype=torch.float32)[:, None] * rates
        return torch.polar(torch.ones_like(angles), angles)


def rotate(vectors: Tensor, rotation: Tensor) -> Tensor:
    """(..., E) with each pair of neighbouring channels, as a complex number, turned by ``rotation`` (..., E / 2)."""
    pairs = torch.view_as_complex(vectors.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation).flatten(-2).to(vectors.dtype)


def fuse(linear: nn.Linear, number: int) -> nn.Linear:
    """Marks a layer as ``number`` layers computed at once; an optimiser of matrices treats them apart."""
    linear.weight.fused = number  # type: ignore[attr-defined]
    return linear
