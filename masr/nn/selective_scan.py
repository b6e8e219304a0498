"""Selective state spaces: the recurrences of Mamba-1 and Mamba-2, over whole utterances or frame by frame.

T frames, D channels, N numbers of state for each channel, H heads of P channels, Q frames of a chunk. Names as in the
papers: x is the input, dt > 0 the step sizes, A < 0 the decay rates, B what is written to the state, C what is read.

    S_t = exp(dt_t A) S_(t-1) + dt_t x_t B_t        y_t = S_t C_t

Mamba-1 (Gu & Dao 2023, arXiv 2312.00752, algorithm 2) has a rate for each channel and number of its state; Mamba-2 (Dao
& Gu 2024, arXiv 2405.21060, section 6) one for each head, so that frames within a chunk are products of matrices.
Frames with dt = 0 leave the state as it is, and those with x = 0 add nothing to it.
"""

import math
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CACHE = 2**17
"""Numbers of state that the scan on a CPU works on at once: what its caches hold."""


def selective_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mamba-1: x (batch, T, D), dt (batch, T, D), A (D, N), B and C (batch, T, N), state (batch, D, N) or zeros.

    Returns y (batch, T, D) and the state after the last frame, in float32 (float64 if x is), whatever autocast says.
    """
    with torch.autocast(x.device.type, enabled=False):
        x, dt, A, B, C = (v if v.dtype == torch.float64 else v.float() for v in (x, dt, A, B, C))
        if not x.shape[1]:
            return x, x.new_zeros(len(x), *A.shape) if state is None else state
        if x.is_cuda and state is None and find_spec("mamba_ssm"):
            return _kernel(x, dt, A, B, C)
        state = x.new_zeros(len(x), *A.shape) if state is None else state
        if x.device.type != "cpu":
            return _doubling_scan(x, dt, A, B, C, state)
        group = max(1, CACHE // (8 * A.numel()))  # utterances that leave room for 8 frames
        parts = zip(*(v.split(group) for v in (x, dt, B, C, state)), strict=True)
        done = [_Scan.apply(x, dt, A, B, C, state) for x, dt, B, C, state in parts]
        return tuple(torch.cat(results) for results in zip(*done, strict=True))  # type: ignore[return-value]


def selective_step(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One frame of `selective_scan`: x and dt (batch, D), B and C (batch, N), state (batch, D, N)."""
    state = torch.exp(dt[..., None] * A) * state + (dt * x)[..., None] * B[:, None]
    return torch.matmul(state, C[..., None]).squeeze(-1), state


def state_space_duality(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None, chunk: int = 32
) -> tuple[Tensor, Tensor]:
    """Mamba-2: x (batch, T, H, P), dt (batch, T, H), A (H,), B and C (batch, T, N), state (batch, H, P, N) or zeros.

    Returns y (batch, T, H, P) and the state after the last frame. Within a chunk of Q frames y is a masked attention
    without softmax; from chunk to chunk the state is passed on.
    """
    with torch.autocast(x.device.type, enabled=False):
        x, dt, A, B, C = (v if v.dtype == torch.float64 else v.float() for v in (x, dt, A, B, C))
        batch, time, heads, size = x.shape
        state = x.new_zeros(batch, heads, size, B.shape[-1]) if state is None else state
        if not time:
            return x, state
        chunk = min(chunk, time)
        x, dt, B, C = (_in_chunks(v, chunk) for v in (x, dt, B[:, :, None], C[:, :, None]))
        written = x * dt[..., None]  # (batch, chunks, H, Q, P)
        # Sums of many small steps, and their differences, in twice the precision: they are exponents.
        total = (dt * A[:, None]).double().cumsum(-1)  # (batch, chunks, H, Q)
        decay = torch.exp(_differences(total).to(x.dtype))
        y = (decay * (C @ B.mT)) @ written
        added = (written * (total[..., -1:] - total).to(x.dtype).exp()[..., None]).mT @ B
        starts, state = _pass_on(state, total[..., -1].to(x.dtype).exp(), added)
        y = y + (C @ starts.mT) * total.to(x.dtype).exp()[..., None]
        return y.transpose(2, 3).reshape(batch, -1, heads, size)[:, :time], state


def _in_chunks(values: Tensor, chunk: int) -> Tensor:
    """(batch, T, H, ...) -> (batch, chunks, H, Q, ...); zeros fill the last chunk, which change no state."""
    missing = -values.shape[1] % chunk
    padded = F.pad(values, (0, 0) * (values.dim() - 2) + (0, missing))
    return padded.unflatten(1, (-1, chunk)).transpose(2, 3)


def _differences(total: Tensor) -> Tensor:
    """(..., Q) -> (..., Q, Q): what is added up from frame j (exclusive) to i, -inf where j comes after i."""
    after = torch.ones(total.shape[-1], total.shape[-1], dtype=torch.bool, device=total.device).triu(1)
    return (total[..., :, None] - total[..., None, :]).masked_fill(after, -torch.inf)


def _pass_on(state: Tensor, kept: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
    """The states (batch, chunks, H, P, N) before every chunk, and the one after the last."""
    starts = []
    for keep, add in zip(kept.unbind(1), added.unbind(1), strict=True):
        starts.append(state)
        state = torch.addcmul(add, keep[..., None, None], state)
    return torch.stack(starts, 1), state


class _Scan(torch.autograd.Function):
    """The Mamba-1 scan on a CPU, a few frames at a time so that everything stays in the caches.

    Only the state before each few frames is kept; backward computes the others again, which is cheaper than to read
    them from memory, and goes through the frames from the last to the first.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple:
        """The values of `selective_scan`, with a ``state`` (batch, D, N) to begin with."""
        # Time first and channels last: a frame is one block, and channels are what vector instructions run along.
        x, dt, B, C = (v.transpose(0, 1).contiguous() for v in (x, dt, B, C))
        A, state = A.T.contiguous(), state.mT.contiguous()  # (N, D), (batch, N, D)
        y, starts = torch.empty_like(x), []
        ctx.frames = max(1, CACHE // state.numel())
        for first in range(0, len(x), ctx.frames):
            part = slice(first, first + ctx.frames)
            starts.append(state)
            _, states = _states(x[part], dt[part], A, B[part], state)
            y[part] = (C[part, :, None] @ states).squeeze(2)
            state = states[-1].clone()
        ctx.save_for_backward(x, dt, A, B, C, *starts)
        return y.transpose(0, 1), state.mT

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, dt, A, B, C and state from those of y (batch, T, D) and of the last state."""
        x, dt, A, B, C, *starts = ctx.saved_tensors
        y_gradient = gradients[0].transpose(0, 1).contiguous()
        carried = gradients[1].mT.contiguous()  # of the state after these frames
        dx, ddt, dB, dC, dA = (torch.empty_like(v) for v in (x, dt, B, C, A.new_empty(len(starts), *A.shape)))
        for number in reversed(range(len(starts))):
            part = slice(number * ctx.frames, (number + 1) * ctx.frames)
            before, step, dy = starts[number], dt[part], y_gradient[part]
            decay, states = _states(x[part], step, A, B[part], before)
            dC[part] = (dy[:, :, None] @ states.mT).squeeze(2)
            dstates = C[part, :, :, None] * dy[:, :, None]
            carried = _carry_back(dstates, decay, carried)
            dB[part] = ((step * x[part])[:, :, None] @ dstates.mT).squeeze(2)
            dwritten = (B[part, :, None] @ dstates).squeeze(2)
            torch.mul(dwritten, step, out=dx[part])
            dexponent = decay.mul_(dstates)
            dexponent[1:].mul_(states[:-1])
            dexponent[0].mul_(before)
            torch.addcmul((dexponent * A).sum(2), dwritten, x[part], out=ddt[part])
            dA[number] = dexponent.mul_(step[:, :, None]).sum((0, 1))
        dx, ddt, dB, dC = (v.transpose(0, 1) for v in (dx, ddt, dB, dC))
        return dx, ddt, dA.sum(0).T, dB, dC, carried.mT


def _states(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """How much each frame leaves of the state, and the states after each frame, both (frames, batch, N, D)."""
    decay = (dt[:, :, None] * (A * math.log2(math.e))).exp2_()  # on a CPU much faster than exp
    states = (dt * x)[:, :, None] * B[..., None]
    for kept, written in zip(decay.unbind(), states.unbind(), strict=True):
        state = torch.addcmul(written, kept, state, out=written)
    return decay, states


def _carry_back(dstates: Tensor, decay: Tensor, carried: Tensor) -> Tensor:
    """Adds to every frame's gradient (in place) what later frames say of its state; returns what goes further back."""
    frames, kept = dstates.unbind(), decay.unbind()
    frames[-1].add_(carried)
    for frame in reversed(range(len(frames) - 1)):
        torch.addcmul(frames[frame], kept[frame + 1], frames[frame + 1], out=frames[frame])
    return kept[0] * frames[0]


def _kernel(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """The CUDA kernel of mamba-ssm."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    x, dt, B, C = (v.mT.contiguous() for v in (x, dt, B, C))
    y, state = selective_scan_fn(x, dt, A, B, C, return_last_state=True)
    return y.mT, state


def _doubling_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """The Mamba-1 scan for devices that want few large steps: log2(Q) of them for each chunk (Hillis & Steele 1986)."""
    outputs = []
    for xs, dts, Bs, Cs in zip(*(v.split(chunk, 1) for v in (x, dt, B, C)), strict=True):
        decay = torch.exp(dts[..., None] * A)
        states = (dts * xs)[..., None] * Bs[:, :, None]
        states = torch.cat((torch.addcmul(states[:, :1], decay[:, :1], state[:, None]), states[:, 1:]), 1)
        reach = 1
        while reach < xs.shape[1]:
            states = torch.cat((states[:, :reach], states[:, reach:] + decay[:, reach:] * states[:, :-reach]), 1)
            decay = torch.cat((decay[:, :reach], decay[:, reach:] * decay[:, :-reach]), 1)
            reach *= 2
        outputs.append((states @ Cs[..., None]).squeeze(-1))
        state = states[:, -1]
    return torch.cat(outputs, 1), state
