"""Selective state spaces: the recurrences of Mamba-1 and Mamba-2, over whole utterances or frame by frame.

T frames, D channels, N numbers of state for each channel, H heads of P channels, Q frames of a chunk. Names as in the
papers: x is the input, dt > 0 the step sizes, A < 0 the decay rates, B what is written to the state, C what is read.

    S_t = exp(dt_t A) S_(t-1) + dt_t x_t B_t        y_t = S_t C_t

Mamba-1 (Gu & Dao 2023, arXiv 2312.00752, algorithm 2) has a rate for each channel and number of its state; Mamba-2 (Dao
& Gu 2024, arXiv 2405.21060, section 6) one for each head. Frames with dt = 0 leave the state as it is, and those with
x = 0 add nothing to it. On a CPU both go through the frames one after the other, in kernels with a backward of their
own (`masr.nn.scan_kernels`). Other devices want few large steps: the kernel of mamba-ssm where it can be used, else
log2(Q) steps a chunk for Mamba-1; products of matrices for Mamba-2.
"""

import math
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint


def selective_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mamba-1: x (batch, T, D), dt (batch, T, D), A (D, N), B and C (batch, T, N), state (batch, D, N) or zeros.

    Returns y (batch, T, D) and the state after the last frame, in float32 (float64 if x is), whatever autocast says.
    """
    with torch.autocast(x.device.type, enabled=False):
        x, dt, A, B, C = _precise(x, dt, A, B, C)
        fresh = state is None and x.shape[1] > 0
        if fresh and x.is_cuda and x.dtype == torch.float32 and kernel_problem() is None:
            return _cuda_kernel(x, dt, A, B, C)
        state = x.new_zeros(len(x), *A.shape) if state is None else state
        if not x.shape[1]:
            return x, state
        if _has_kernels(x):
            return _Scan.apply(dt * x, dt, A, B, C, state)
        return _doubling_scan(x, dt, A, B, C, state)


def selective_step(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One frame of `selective_scan`: x and dt (batch, D), B and C (batch, N), state (batch, D, N)."""
    state = torch.exp(dt[..., None] * A) * state + (dt * x)[..., None] * B[:, None]
    return torch.matmul(state, C[..., None]).squeeze(-1), state


def state_space_duality(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mamba-2: x (batch, T, H, P), dt (batch, T, H), A (H,), B and C (batch, T, N), state (batch, H, P, N) or zeros.

    Returns y (batch, T, H, P) and the state after the last frame, in float32 (float64 if x is).
    """
    with torch.autocast(x.device.type, enabled=False):
        x, dt, A, B, C = _precise(x, dt, A, B, C)
        state = x.new_zeros(len(x), *x.shape[2:], B.shape[-1]) if state is None else state
        if not x.shape[1]:
            return x, state
        if not _has_kernels(x):
            return chunked_scan(x, dt, A, B, C, state)
        return _HeadScan.apply(x, dt, A, B, C, state)


def _precise(*values: Tensor) -> list[Tensor]:
    return [value if value.dtype == torch.float64 else value.float() for value in values]


def _has_kernels(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32


class _Scan(torch.autograd.Function):
    """`selective_scan` of u = dt x with the kernels for a CPU."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple:
        """y (batch, T, D) and the last state (batch, D, N)."""
        from masr.nn import scan_kernels

        u, dt, B, C = (value.contiguous() for value in (u, dt, B, C))
        A = (A.T * math.log2(math.e)).contiguous()  # exp2 is what the kernels know
        state, y = _copied(state.mT), torch.empty_like(u)
        kept = u.new_empty(len(u), math.ceil(u.shape[1] / scan_kernels.EVERY), *A.shape)
        scan_kernels.run(scan_kernels.scan, u, dt, B, C, state, y, kept, shared=(A,))
        ctx.save_for_backward(A, u, dt, B, C, kept)
        return y, state.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        """Gradients of u, dt, A, B, C and state from those of y (batch, T, D) and of the last state."""
        from masr.nn import scan_kernels

        A, u, dt, B, C, kept = ctx.saved_tensors
        dy, dstate = gradients[0].contiguous(), _copied(gradients[1].mT)
        du, ddt, dB, dC = (torch.empty_like(value) for value in (u, dt, B, C))
        dA = A.new_zeros(len(u), *A.shape)
        scan_kernels.run(scan_kernels.scan_backward, u, dt, B, C, kept, dy, dstate, du, ddt, dA, dB, dC, shared=(A,))
        return du, ddt * math.log(2), dA.sum(0).T, dB, dC, dstate.mT  # dt met A in powers of two, and A met dt


class _HeadScan(torch.autograd.Function):
    """`state_space_duality` with the kernels for a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple:
        """y (batch, T, H, P) and the last state (batch, H, P, N)."""
        from masr.nn import scan_kernels

        x, dt, A, B, C = (value.contiguous() for value in (x, dt, A, B, C))
        state, y = _copied(state.mT), torch.empty_like(x)
        kept = x.new_empty(len(x), math.ceil(x.shape[1] / scan_kernels.EVERY), *state.shape[1:])
        scan_kernels.run(scan_kernels.heads, x, dt, B, C, state, y, kept, shared=(A,))
        ctx.save_for_backward(A, x, dt, B, C, kept)
        return y, state.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        """Gradients of x, dt, A, B, C and state from those of y (batch, T, H, P) and of the last state."""
        from masr.nn import scan_kernels

        A, x, dt, B, C, kept = ctx.saved_tensors
        dy, dstate = gradients[0].contiguous(), _copied(gradients[1].mT)
        dx, ddt, dB, dC = torch.empty_like(x), torch.empty_like(dt), torch.zeros_like(B), torch.zeros_like(C)
        dA = A.new_zeros(len(x), len(A))
        scan_kernels.run(scan_kernels.heads_backward, x, dt, B, C, kept, dy, dstate, dx, ddt, dA, dB, dC, shared=(A,))
        return dx, ddt, dA.sum(0), dB, dC, dstate.mT


def _copied(state: Tensor) -> Tensor:
    """A contiguous copy, for kernels to write in."""
    return state.clone(memory_format=torch.contiguous_format)


def chunked_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor, chunk: int = 32
) -> tuple[Tensor, Tensor]:
    """`state_space_duality` as products of matrices (Dao & Gu 2024, listing 1).

    Within a chunk of Q frames y is a masked attention without softmax; from chunk to chunk the state is passed on.
    """
    time, heads, size = x.shape[1:]
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
    return y.transpose(2, 3).reshape(len(x), -1, heads, size)[:, :time], state


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


@cache
def kernel_problem() -> str | None:
    """Why the CUDA kernel of mamba-ssm cannot be used, in one sentence with the way out, else None."""
    if not torch.cuda.is_available():
        return "there is no CUDA device, which is all that its kernel runs on"
    if find_spec("mamba_ssm") is None:
        return "not installed; tools/install_mamba.sh installs the build for this torch"
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn  # noqa: F401
    except Exception as error:  # a build for another torch fails in words of the loader, a missing package in its own
        reason = " ".join(str(error).split())[:200]
        return f"the installed one does not work ({reason}); tools/install_mamba.sh installs the one for this torch"
    return None


def _cuda_kernel(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """The CUDA kernel of mamba-ssm; no gradient goes through its last state."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    x, dt, B, C = (v.mT.contiguous() for v in (x, dt, B, C))
    y, state = selective_scan_fn(x, dt, A, B, C, return_last_state=True)
    return y.mT, state


def _doubling_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """The Mamba-1 scan for devices that want few large steps; backward computes each chunk of frames again."""
    outputs = []
    for part in zip(*(v.split(chunk, 1) for v in (x, dt, B, C)), strict=True):
        y, state = checkpoint(_doubling_chunk, *part, A, state, use_reentrant=False, preserve_rng_state=False)
        outputs.append(y)
    return torch.cat(outputs, 1), state


def _doubling_chunk(x: Tensor, dt: Tensor, B: Tensor, C: Tensor, A: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """log2(Q) steps, each of which lets every frame reach twice as far back (Hillis & Steele 1986)."""
    decay = torch.exp(dt[..., None] * A)
    states = (dt * x)[..., None] * B[:, :, None]
    states = torch.cat((torch.addcmul(states[:, :1], decay[:, :1], state[:, None]), states[:, 1:]), 1)
    reach = 1
    while reach < x.shape[1]:
        states = torch.cat((states[:, :reach], states[:, reach:] + decay[:, reach:] * states[:, :-reach]), 1)
        decay = torch.cat((decay[:, :reach], decay[:, reach:] * decay[:, :-reach]), 1)
        reach *= 2
    return (states @ C[..., None]).squeeze(-1), states[:, -1]
