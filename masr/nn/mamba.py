"""Mamba layers for encoders: selective state spaces in one direction or both. T frames, D width, E inner channels.

Mamba-1 after Gu & Dao 2023 (arXiv 2312.00752, section 3.4). Both directions as in ConMamba (Jiang et al. 2024, arXiv
2407.09732): they share what goes in, the gate and what comes out (`inner`), or are two layers of their own whose
outputs are joined (`outer`, Zhang et al. 2024, arXiv 2405.12609). Padding is masked before and after the causal
convolution, in each direction, so that a scan from the end enters the last real frame with an empty state.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from masr.nn.selective_scan import selective_scan

TAPS = 4
"""Frames that the causal convolution before a scan sees."""
STEP_RANGE = (1e-3, 1e-1)
"""Steps at initialisation, log-uniform."""


class SelectiveStateSpace(nn.Module):
    """Causal convolution and Mamba-1 scan of inner channels: (batch, T, E) -> (batch, T, E)."""

    def __init__(self, channels: int, state_size: int, rank: int):
        super().__init__()
        self.filters = nn.Parameter(torch.empty(channels, TAPS).uniform_(-(TAPS**-0.5), TAPS**-0.5))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.sizes = [rank, state_size, state_size]
        self.select = nn.Linear(channels, sum(self.sizes), bias=False)
        self.step = nn.Linear(rank, channels)
        self.log_rates = nn.Parameter(torch.arange(1, state_size + 1).float().log().repeat(channels, 1))
        self.skip = nn.Parameter(torch.ones(channels))
        self._initialise_steps(rank)

    def _initialise_steps(self, rank: int) -> None:
        """The bias is what softplus makes one of the steps of `STEP_RANGE` from; other biases forget all too fast."""
        low, high = map(math.log, STEP_RANGE)
        steps = torch.empty(len(self.skip)).uniform_(low, high).exp()
        with torch.no_grad():
            self.step.weight.uniform_(-(rank**-0.5), rank**-0.5)
            self.step.bias.copy_(steps + torch.log(-torch.expm1(-steps)))

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """``mask`` (batch, T) is False on padding, None where nothing is padded."""
        hidden = _masked(F.silu(self._convolve(_masked(hidden, mask))), mask)
        rank, written, read = self.select(hidden).split(self.sizes, -1)
        y, _ = selective_scan(hidden, F.softplus(self.step(rank)), -self.log_rates.float().exp(), written, read)
        return y.to(hidden.dtype) + self.skip * hidden

    def _convolve(self, hidden: Tensor) -> Tensor:
        """Each channel with its own filter over this frame and those before."""
        time, padded = hidden.shape[1], F.pad(hidden, (0, 0, TAPS - 1, 0))
        taps = [padded[:, tap : tap + time] * self.filters[:, tap] for tap in range(TAPS)]
        return torch.stack(taps).sum(0) + self.bias


class Mamba(nn.Module):
    """A Mamba-1 layer from the first frame to the last: (batch, T, D) -> (batch, T, D)."""

    def __init__(self, width: int, state_size: int = 16, expansion: int = 2):
        super().__init__()
        self.expand = nn.Linear(width, 2 * expansion * width, bias=False)
        self.forwards = SelectiveStateSpace(expansion * width, state_size, math.ceil(width / 16))
        self.project = nn.Linear(expansion * width, width, bias=False)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        hidden, gate = self.expand(frames).chunk(2, -1)
        return self.project(self.scan(hidden, mask) * F.silu(gate))

    def scan(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        return self.forwards(hidden, mask)


class InnerBidirectionalMamba(Mamba):
    """Both directions between shared projections, averaged."""

    def __init__(self, width: int, state_size: int = 16, expansion: int = 2):
        super().__init__(width, state_size, expansion)
        self.backwards = SelectiveStateSpace(expansion * width, state_size, math.ceil(width / 16))

    def scan(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        return 0.5 * (self.forwards(hidden, mask) + _reversed(self.backwards, hidden, mask))


class OuterBidirectionalMamba(nn.Module):
    """Two whole layers, one from the last frame to the first, joined by a projection."""

    def __init__(self, width: int, state_size: int = 16, expansion: int = 2):
        super().__init__()
        self.forwards = Mamba(width, state_size, expansion)
        self.backwards = Mamba(width, state_size, expansion)
        self.join = nn.Linear(2 * width, width)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.join(torch.cat((self.forwards(frames, mask), _reversed(self.backwards, frames, mask)), -1))


def _reversed(layer: nn.Module, frames: Tensor, mask: Tensor | None) -> Tensor:
    """What a layer makes of the frames from the last to the first, in their own order."""
    return layer(frames.flip(1), None if mask is None else mask.flip(1)).flip(1)


def _masked(hidden: Tensor, mask: Tensor | None) -> Tensor:
    return hidden if mask is None else hidden * mask[..., None]
