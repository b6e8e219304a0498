"""The scans of `masr.nn.selective_scan` on a CPU, frame by frame, compiled by numba when first used (seconds, once).

b utterances, T frames, D channels, N numbers of state, H heads of P channels. Every array is float32 and contiguous.
Channels are innermost, for they are what vector instructions run along. Forward keeps the state before every `EVERY`
frames; backward computes the states between again, which is cheaper than to read all of them from memory.
"""

import numpy as np
from numba import njit

from masr.nn.kernels import compiled, run

__all__ = ["EVERY", "heads", "heads_backward", "run", "scan", "scan_backward"]

EVERY = 16
"""Frames from one kept state to the next."""
f32 = np.float32


@njit(inline="always")
def exp2(x):
    """2^x of x <= 0 to a relative error of 2e-7: a polynomial for the fraction, the exponent's bits for the rest."""
    x = max(x, f32(-126.0))
    whole = np.floor(x + f32(0.5))
    rest = x - whole
    power = f32(1.5403530e-4)
    power = power * rest + f32(1.3333558e-3)
    power = power * rest + f32(9.6181291e-3)
    power = power * rest + f32(5.5504109e-2)
    power = power * rest + f32(2.4022651e-1)
    power = power * rest + f32(6.9314718e-1)
    power = power * rest + f32(1.0)
    return power * np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)


@compiled
def scan(A, u, dt, B, C, state, y, kept):
    """Mamba-1: A (N, D) in powers of two, u = dt x and dt (b, T, D), B and C (b, T, N).

    ``state`` (b, N, D) is overwritten by the last one; y (b, T, D) and kept (b, T / EVERY, N, D) are written.
    """
    batch, time, channels = u.shape
    size = A.shape[0]
    for i in range(batch):
        for t in range(time):
            if t % EVERY == 0:
                kept[i, t // EVERY] = state[i]
            for d in range(channels):
                y[i, t, d] = f32(0)
            for n in range(size):
                b, c = B[i, t, n], C[i, t, n]
                for d in range(channels):
                    s = exp2(dt[i, t, d] * A[n, d]) * state[i, n, d] + u[i, t, d] * b
                    state[i, n, d] = s
                    y[i, t, d] += s * c


@compiled
def scan_backward(A, u, dt, B, C, kept, dy, dstate, du, ddt, dA, dB, dC):
    """Gradients of `scan` from dy and dstate, which is overwritten by that of the first state.

    dA (b, N, D) holds zeros before; du, ddt, dB and dC have the shapes of u, dt, B and C.
    """
    batch, time, channels = u.shape
    size = A.shape[0]
    states = np.empty((EVERY + 1, size, channels), np.float32)
    decays = np.empty((EVERY, size, channels), np.float32)
    for i in range(batch):
        for part in range(kept.shape[1] - 1, -1, -1):
            first = part * EVERY
            frames = min(EVERY, time - first)
            states[0] = kept[i, part]
            for k in range(frames):
                t = first + k
                for n in range(size):
                    b = B[i, t, n]
                    for d in range(channels):
                        decay = exp2(dt[i, t, d] * A[n, d])
                        decays[k, n, d] = decay
                        states[k + 1, n, d] = decay * states[k, n, d] + u[i, t, d] * b
            for k in range(frames - 1, -1, -1):
                t = first + k
                for d in range(channels):
                    du[i, t, d] = f32(0)
                    ddt[i, t, d] = f32(0)
                for n in range(size):
                    b, c = B[i, t, n], C[i, t, n]
                    db = dc = f32(0)
                    for d in range(channels):
                        g = dstate[i, n, d] + dy[i, t, d] * c
                        dc += dy[i, t, d] * states[k + 1, n, d]
                        db += g * u[i, t, d]
                        du[i, t, d] += g * b
                        g *= decays[k, n, d]
                        dstate[i, n, d] = g
                        exponent = g * states[k, n, d]
                        ddt[i, t, d] += exponent * A[n, d]
                        dA[i, n, d] += exponent * dt[i, t, d]
                    dB[i, t, n] = db
                    dC[i, t, n] = dc


@compiled
def heads(A, x, dt, B, C, state, y, kept):
    """Mamba-2: A (H,), x (b, T, H, P), dt (b, T, H), B and C (b, T, N).

    ``state`` (b, H, N, P) is overwritten by the last one; y (b, T, H, P) and kept (b, T / EVERY, H, N, P) are written.
    """
    batch, time, number, width = x.shape
    size = B.shape[2]
    for i in range(batch):
        for part in range(kept.shape[1]):
            first = part * EVERY
            frames = min(EVERY, time - first)
            kept[i, part] = state[i]
            for h in range(number):
                for k in range(frames):
                    t = first + k
                    step = dt[i, t, h]
                    decay = np.exp(step * A[h])
                    for d in range(width):
                        y[i, t, h, d] = f32(0)
                    for n in range(size):
                        b, c = step * B[i, t, n], C[i, t, n]
                        for d in range(width):
                            s = decay * state[i, h, n, d] + x[i, t, h, d] * b
                            state[i, h, n, d] = s
                            y[i, t, h, d] += s * c


@compiled
def heads_backward(A, x, dt, B, C, kept, dy, dstate, dx, ddt, dA, dB, dC):
    """Gradients of `heads` from dy and dstate, which is overwritten by that of the first state.

    dA (b, H), dB and dC hold zeros before; dx, ddt, dB and dC have the shapes of x, dt, B and C.
    """
    batch, time, number, width = x.shape
    size = B.shape[2]
    states = np.empty((EVERY + 1, size, width), np.float32)
    for i in range(batch):
        for part in range(kept.shape[1] - 1, -1, -1):
            first = part * EVERY
            frames = min(EVERY, time - first)
            for h in range(number):
                states[0] = kept[i, part, h]
                for k in range(frames):
                    t = first + k
                    step = dt[i, t, h]
                    decay = np.exp(step * A[h])
                    for n in range(size):
                        b = step * B[i, t, n]
                        for d in range(width):
                            states[k + 1, n, d] = decay * states[k, n, d] + x[i, t, h, d] * b
                for k in range(frames - 1, -1, -1):
                    t = first + k
                    step = dt[i, t, h]
                    decay = np.exp(step * A[h])
                    for d in range(width):
                        dx[i, t, h, d] = f32(0)
                    dstep = ddecay = f32(0)
                    for n in range(size):
                        b, c = step * B[i, t, n], C[i, t, n]
                        dwritten = dc = f32(0)
                        for d in range(width):
                            g = dstate[i, h, n, d] + dy[i, t, h, d] * c
                            dc += dy[i, t, h, d] * states[k + 1, n, d]
                            dwritten += g * x[i, t, h, d]
                            dx[i, t, h, d] += g * b
                            ddecay += g * states[k, n, d]
                            dstate[i, h, n, d] = g * decay
                        dstep += dwritten * B[i, t, n]
                        dB[i, t, n] += dwritten * step
                        dC[i, t, n] += dc
                    ddt[i, t, h] = dstep + ddecay * decay * A[h]
                    dA[i, h] += ddecay * decay * step
