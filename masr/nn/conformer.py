"""Conformer encoder (Gulati et al. 2020, arXiv 2005.08100). B batch, T frames, D width, H heads, E size of a head.

Relative positions are rotary (Su et al. 2021, arXiv 2104.09864; for speech Li et al. 2021, arXiv 2107.05907): the score
of two frames depends on their distance alone, and attention stays one fused call. The convolution module normalises
over channels (LayerNorm), not over the batch, so that padding and batch composition never change a result.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from masr.config import Encoder
from masr.nn.depthwise import DepthwiseConvolution
from masr.nn.dropout import Dropout
from masr.nn.subsampling import ConvSubsampling, length_mask


@dataclass
class EncoderOutput:
    """What every encoder returns."""

    frames: Tensor
    """(B, T', D)."""
    lengths: Tensor
    """(B,) frames."""
    language_logits: Tensor | None = None
    """(B, K), from encoders that tell languages apart themselves."""
    intermediate: list[Tensor] = field(default_factory=list)
    """(B, T', D) outputs of the blocks that were asked for."""


class Conformer(nn.Module):
    """Normalised features (B, T, F) -> EncoderOutput."""

    def __init__(self, mel_bins: int, options: Encoder, intermediate_layers: tuple[int, ...] = ()):
        super().__init__()
        if options.width % (2 * options.heads):
            raise ValueError(f"model.encoder: width {options.width} does not split into {options.heads} even heads")
        if options.kernel % 2 == 0:
            raise ValueError(f"model.encoder.kernel: {options.kernel} is even; a centred convolution needs an odd one")
        if too_deep := [layer for layer in intermediate_layers if layer >= options.layers]:
            raise ValueError(
                f"model.ctc.intermediate_layers: {too_deep} not below model.encoder.layers={options.layers}"
            )
        self.subsampling = ConvSubsampling(mel_bins, options.width, options.subsampling_channels, options.subsampling)
        self.dropout = Dropout(options.dropout)
        self.blocks = nn.ModuleList(ConformerBlock(options) for _ in range(options.layers))
        self.intermediate_layers = intermediate_layers
        self.size_of_head = options.width // options.heads

    def forward(self, features: Tensor, lengths: Tensor, allowed_languages: Tensor | None = None) -> EncoderOutput:
        """(B, T, F), (B,) -> EncoderOutput. A plain Conformer does not look at ``allowed_languages`` (B, K)."""
        frames, lengths = self.subsampling(features, lengths)
        frames = self.dropout(frames)
        mask = None if int(lengths.min()) == frames.shape[1] else length_mask(lengths, frames.shape[1])
        rotation = rotary_angles(frames.shape[1], self.size_of_head, frames.device)
        intermediate = []
        for number, block in enumerate(self.blocks, 1):
            frames = block(frames, mask, rotation)
            if number in self.intermediate_layers:
                intermediate.append(frames)
        return EncoderOutput(frames, lengths, None, intermediate)


class ConformerBlock(nn.Module):
    """Half feed-forward, self-attention, convolution, half feed-forward, each a residual; then a norm."""

    def __init__(self, options: Encoder):
        super().__init__()
        width, dropout = options.width, options.dropout
        self.feedforward1 = FeedForward(width, options.feedforward, dropout)
        self.attention = SelfAttention(width, options.heads)
        self.convolution = ConvolutionModule(width, options.kernel)
        self.feedforward2 = FeedForward(width, options.feedforward, dropout)
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, frames: Tensor, mask: Tensor | None, rotation: Tensor) -> Tensor:
        """(B, T, D), (B, T) bool or None when nothing is padded -> (B, T, D)."""
        frames = torch.add(frames, self.dropout(self.feedforward1(frames)), alpha=0.5)
        frames = frames + self.dropout(self.attention(frames, mask, rotation))
        frames = frames + self.dropout(self.convolution(frames, mask))
        frames = torch.add(frames, self.dropout(self.feedforward2(frames)), alpha=0.5)
        return self.norm(frames)


class FeedForward(nn.Module):
    """Norm, expansion, SiLU, projection."""

    def __init__(self, width: int, inner: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, inner)
        self.dropout = Dropout(dropout)
        self.project = nn.Linear(inner, width)

    def forward(self, frames: Tensor) -> Tensor:
        return self.project(self.dropout(F.silu(self.expand(self.norm(frames)))))


class SelfAttention(nn.Module):
    """Multi-head self-attention with rotary positions."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query_key_value = fuse(nn.Linear(width, 3 * width), 3)
        self.project = nn.Linear(width, width)

    def forward(self, frames: Tensor, mask: Tensor | None, rotation: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D); padded frames (False in ``mask`` (B, T)) are not attended to."""
        batch, time, width = frames.shape
        fused = self.query_key_value(self.norm(frames)).view(batch, time, 3, self.heads, width // self.heads)
        query, key = rotate(fused[:, :, :2], rotation[:, None, None]).permute(2, 0, 3, 1, 4)  # each (B, H, T, E)
        attended = F.scaled_dot_product_attention(
            query, key, fused[:, :, 2].transpose(1, 2), attn_mask=None if mask is None else mask[:, None, None, :]
        )
        return self.project(attended.transpose(1, 2).reshape(batch, time, width))


class ConvolutionModule(nn.Module):
    """Norm, gated pointwise convolution, depthwise convolution over time, norm, SiLU, pointwise convolution."""

    def __init__(self, width: int, kernel: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.expand = fuse(nn.Linear(width, 2 * width), 2)
        self.depthwise = DepthwiseConvolution(width, kernel)
        self.inner_norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, width)

    def forward(self, frames: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T, D) -> (B, T, D); padded frames are zero where the depthwise convolution looks at them."""
        hidden = F.glu(self.expand(self.norm(frames)))
        if mask is not None:
            hidden = hidden * mask[:, :, None]
        return self.project(F.silu(self.inner_norm(self.depthwise(hidden))))


def rotary_angles(time: int, size: int, device: torch.device) -> Tensor:
    """(T, E / 2) complex numbers of length 1: the turn of every position and pair of channels."""
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
