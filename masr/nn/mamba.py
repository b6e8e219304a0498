"""Mamba layers and the ConMamba block: selective state spaces in one direction or both.

B batch, T frames, D width, E inner channels, H heads, N numbers of state.

Mamba-1 after Gu & Dao 2023 (arXiv 2312.00752, section 3.4), Mamba-2 after Dao & Gu 2024 (arXiv 2405.21060, section 7).
Both directions as in ConMamba (Jiang et al. 2024, arXiv 2407.09732): they share what goes in, the gate and what comes
out (`inner`), or are two layers of their own whose outputs are joined (`outer`, Zhang et al. 2024, arXiv 2405.12609).
Padding is masked before and after the causal convolution, in each direction, so that a scan from the end enters the
last real frame with an empty state.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from masr.config import Encoder
from masr.nn.conformer import ConvolutionModule, FeedForward, fuse
from masr.nn.depthwise import DepthwiseConvolution, Memory
from masr.nn.dropout import Dropout
from masr.nn.selective_scan import selective_scan, state_space_duality

TAPS = 4
"""Frames that the causal convolution before a scan sees."""
STEP_RANGE = (1e-3, 1e-1)
"""Steps at initialisation, log-uniform."""


class MambaBlock(nn.Module):
    """ConMamba: half feed-forward, Mamba, convolution, half feed-forward, each a residual; then a norm.

    GELU throughout; a forward block's convolution looks back only. There is no dropout on a Mamba layer.
    """

    def __init__(self, options: Encoder):
        super().__init__()
        width, dropout = options.width, options.dropout
        self.feedforward1 = FeedForward(width, options.feedforward, dropout, F.gelu)
        self.norm_mamba = nn.LayerNorm(width)
        self.mamba = DIRECTIONS[options.directions](options)
        self.convolution = ConvolutionModule(width, options.kernel, F.gelu, causal=options.directions == "forward")
        self.feedforward2 = FeedForward(width, options.feedforward, dropout, F.gelu)
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, frames: Tensor, mask: Tensor | None, memory: Memory | None = None, prefix: int = 0) -> Tensor:
        """(B, T, D), (B, T) bool or None when nothing is padded -> (B, T, D); ``memory`` is for forward blocks.

        There are no summary vectors (``prefix``) beside the frames of a Mamba encoder.
        """
        frames = torch.add(frames, self.dropout(self.feedforward1(frames)), alpha=0.5)
        frames = frames + self.mamba(self.norm_mamba(frames), mask, memory)
        frames = frames + self.dropout(self.convolution(frames, mask, memory))
        frames = torch.add(frames, self.dropout(self.feedforward2(frames)), alpha=0.5)
        return self.norm(frames)


class Mamba(nn.Module):
    """A Mamba layer from the first frame to the last: (B, T, D) -> (B, T, D)."""

    def __init__(self, options: Encoder):
        super().__init__()
        inner = options.expansion * options.width
        self.expand = fuse(nn.Linear(options.width, 2 * inner, bias=False), 2)
        self.forwards = STATE_SPACES[options.state_space](options)
        self.norm = nn.RMSNorm(inner, eps=1e-5) if options.state_space == "mamba2" else nn.Identity()
        self.project = nn.Linear(inner, options.width, bias=False)

    def forward(self, frames: Tensor, mask: Tensor | None = None, memory: Memory | None = None) -> Tensor:
        hidden, gate = self.expand(frames).chunk(2, -1)
        return self.project(self.norm(self.scan(frames, hidden, mask, memory) * F.silu(gate)))

    def scan(self, frames: Tensor, hidden: Tensor, mask: Tensor | None, memory: Memory | None) -> Tensor:
        """(B, T, D), (B, T, E) -> (B, T, E)."""
        return self.forwards(frames, hidden, mask, memory)


class InnerBidirectionalMamba(Mamba):
    """Both directions between shared projections, averaged."""

    def __init__(self, options: Encoder):
        super().__init__(options)
        self.backwards = STATE_SPACES[options.state_space](options)

    def scan(self, frames: Tensor, hidden: Tensor, mask: Tensor | None, memory: Memory | None) -> Tensor:
        backwards = self.backwards(frames.flip(1), hidden.flip(1), _flipped(mask)).flip(1)
        return 0.5 * (self.forwards(frames, hidden, mask) + backwards)


class OuterBidirectionalMamba(nn.Module):
    """Two whole layers, one from the last frame to the first, joined by a projection."""

    def __init__(self, options: Encoder):
        super().__init__()
        self.forwards, self.backwards = Mamba(options), Mamba(options)
        self.join = nn.Linear(2 * options.width, options.width)

    def forward(self, frames: Tensor, mask: Tensor | None = None, memory: Memory | None = None) -> Tensor:
        backwards = self.backwards(frames.flip(1), _flipped(mask)).flip(1)
        return self.join(torch.cat((self.forwards(frames, mask), backwards), -1))


class SelectiveStateSpace(nn.Module):
    """Mamba-1's convolution and scan of inner channels; steps, B and C are made of the convolved channels."""

    def __init__(self, options: Encoder):
        super().__init__()
        channels, size = options.expansion * options.width, options.state_size
        rank = math.ceil(options.width / 16)
        self.sizes = [rank, size, size]
        self.convolution = ShortConvolution(channels)
        self.select = nn.Linear(channels, sum(self.sizes), bias=False)
        self.step = nn.Linear(rank, channels)
        self.step.weight.data.uniform_(-(rank**-0.5), rank**-0.5)
        self.step.bias.data.copy_(initial_step_bias(channels))
        self.log_rates = without_decay(torch.arange(1, size + 1).float().log().repeat(channels, 1))
        self.skip = nn.Parameter(torch.ones(channels))

    def forward(self, frames: Tensor, hidden: Tensor, mask: Tensor | None, memory: Memory | None = None) -> Tensor:
        """(B, T, D) that are not looked at, (B, T, E) -> (B, T, E); ``mask`` (B, T) is False on padding."""
        hidden = self.convolution(hidden, mask, memory)
        rank, written, read = self.select(hidden).split(self.sizes, -1)
        # The bias is added in full precision: where it is about -7, half of it has steps of 3 %.
        steps = F.softplus(F.linear(rank, self.step.weight).to(self.step.bias.dtype) + self.step.bias)
        state = None if memory is None else memory.get(self)
        y, state = selective_scan(hidden, steps, decay_rates(self.log_rates), written, read, state)
        if memory is not None:
            memory[self] = state
        return (y + self.skip * hidden).to(hidden.dtype)


class HeadStateSpace(nn.Module):
    """Mamba-2's convolution and scan of heads; steps, B and C are made of the layer's input, beside the channels."""

    def __init__(self, options: Encoder):
        super().__init__()
        channels, size = options.expansion * options.width, options.state_size
        heads, rest = divmod(channels, options.head_size)
        if rest:
            raise ValueError(
                f"model.encoder.head_size: {options.head_size} does not divide the {channels} channels of a Mamba layer"
            )
        self.sizes, self.heads = [channels, size, size], heads
        self.select = nn.Linear(options.width, 2 * size + heads, bias=False)
        self.convolution = ShortConvolution(sum(self.sizes))
        self.step_bias = nn.Parameter(initial_step_bias(heads))
        self.log_rates = without_decay(torch.empty(heads).uniform_(1, 16).log())
        self.skip = nn.Parameter(torch.ones(heads))

    def forward(self, frames: Tensor, hidden: Tensor, mask: Tensor | None, memory: Memory | None = None) -> Tensor:
        """(B, T, D), (B, T, E) -> (B, T, E); ``mask`` (B, T) is False on padding."""
        selected = self.select(frames)
        hidden = self.convolution(torch.cat((hidden, selected[..., : -self.heads]), -1), mask, memory)
        x, written, read = hidden.split(self.sizes, -1)
        steps = F.softplus(selected[..., -self.heads :] + self.step_bias)
        x = x.unflatten(-1, (self.heads, -1))
        state = None if memory is None else memory.get(self)
        y, state = state_space_duality(x, steps, decay_rates(self.log_rates), written, read, state)
        if memory is not None:
            memory[self] = state
        return (y + self.skip[:, None] * x).to(x.dtype).flatten(2)


class ShortConvolution(DepthwiseConvolution):
    """Each channel with its own filter over this frame and `TAPS` - 1 before it, then SiLU: (B, T, E) -> (B, T, E)."""

    def __init__(self, channels: int):
        super().__init__(channels, TAPS, causal=True)

    def forward(self, hidden: Tensor, mask: Tensor | None, memory: Memory | None = None) -> Tensor:  # type: ignore[override]
        """``mask`` (B, T) is False on padding, which neither goes in nor comes out."""
        return _masked(F.silu(super().forward(_masked(hidden, mask), memory)), mask)


STATE_SPACES = {"mamba1": SelectiveStateSpace, "mamba2": HeadStateSpace}
DIRECTIONS = {"forward": Mamba, "inner": InnerBidirectionalMamba, "outer": OuterBidirectionalMamba}


def initial_step_bias(number: int) -> Tensor:
    """What softplus makes one of the steps of `STEP_RANGE` from; other biases forget all too fast."""
    low, high = map(math.log, STEP_RANGE)
    steps = torch.empty(number).uniform_(low, high).exp()
    return steps + torch.log(-torch.expm1(-steps))


def decay_rates(log_rates: Tensor) -> Tensor:
    """A < 0, at least in float32, of parameters whose gradient steps keep it so."""
    return -log_rates.to(torch.promote_types(log_rates.dtype, torch.float32)).exp()


def without_decay(values: Tensor) -> nn.Parameter:
    """A parameter that weight decay leaves alone, although it may look like a matrix."""
    parameter = nn.Parameter(values)
    parameter.without_decay = True  # type: ignore[attr-defined]
    return parameter


def _flipped(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.flip(1)


def _masked(hidden: Tensor, mask: Tensor | None) -> Tensor:
    return hidden if mask is None else hidden * mask[..., None]
