"""When each token was spoken: the best path through the frames to which a decoder attends as it writes a text.

Shapes: H heads, U tokens, T frames.
"""

from itertools import pairwise

import numpy as np
from torch import Tensor
from torch.nn import functional as F

NOWHERE = 1e-30
"""Deviation of a frame to which no token attends."""


def attention_align(scores: Tensor, filter_width: int) -> list[tuple[int, int]]:
    """First frame and end frame (exclusive) of each token on the path with the most attention.

    ``scores`` (H, U, T), before the softmax, of heads that attend to what is being written; T is at least 1.
    ``filter_width`` (odd) is that of the median filter over frames. A token ends where the next begins; of tokens that
    begin in the same frame each has it. Source: OpenAI's whisper/timing.py.
    """
    weights = scores.softmax(-1)
    deviation, mean = weights.std(1, correction=0, keepdim=True), weights.mean(1, keepdim=True)
    attention = median_filter((weights - mean) / deviation.clamp(min=NOWHERE), filter_width).mean(0)
    starts = warp(-attention.detach().cpu().double().numpy())
    return [(start, max(after, start + 1)) for start, after in pairwise([*starts, scores.shape[2]])]


def median_filter(values: Tensor, width: int) -> Tensor:
    """(H, U, T) -> medians of ``width`` successive frames, reflected at both ends; too few of them stay as they are."""
    if values.shape[2] <= width // 2:
        return values
    padded = F.pad(values, (width // 2, width // 2), mode="reflect")
    return padded.unfold(2, width, 1).sort().values[..., width // 2]


def warp(costs: np.ndarray) -> list[int]:
    """Dynamic time warping: the frame in which each row of ``costs`` (U, T) begins on the cheapest path.

    The path begins in the first frame of the first row and ends in the last one of the last. A step leads to the next
    frame, to the next row, or to both.
    """
    totals = np.full((costs.shape[0] + 1, costs.shape[1] + 1), np.inf)
    totals[0, 0] = 0.0
    for row, cost in enumerate(costs, 1):
        entered = np.minimum(totals[row - 1, 1:], totals[row - 1, :-1])
        sums = cost.cumsum()  # a row that is entered in frame a costs sums[b] - sums[a - 1] up to frame b
        totals[row, 1:] = sums + np.minimum.accumulate(entered - (sums - cost))
    return _starts(totals)


def _starts(totals: np.ndarray) -> list[int]:
    """Follows back the path whose beginnings cost ``totals`` (U + 1, T + 1)."""
    row, frame = totals.shape[0] - 1, totals.shape[1] - 1
    starts = [0] * row
    while row:
        starts[row - 1] = frame - 1
        row, frame = min(((row - 1, frame - 1), (row, frame - 1), (row - 1, frame)), key=totals.__getitem__)
    return starts
