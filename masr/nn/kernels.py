"""Python functions compiled by numba for CPUs, and how torch's threads share one."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Compiles when first called, without Python's lock; what comes out is kept on disk where that can be written."""
    options: Any = {"fastmath": {"contract", "reassoc", "nsz"}, "nogil": True, "error_model": "numpy"}
    try:
        return njit(function, cache=True, **options)
    except RuntimeError:  # neither masr's folder nor the user's cache can be written
        return njit(function, **options)


def run(kernel: Callable[..., None], *tensors: Tensor, shared: tuple[Tensor, ...] = ()) -> None:
    """Calls a kernel on ``shared`` and on ``tensors`` (batch, ...), which torch's threads split among them."""
    arrays, constant = [tensor.numpy() for tensor in tensors], [tensor.numpy() for tensor in shared]
    threads = min(torch.get_num_threads(), len(arrays[0]))
    if threads <= 1:
        return kernel(*constant, *arrays)
    parts: Any = zip(*(np.array_split(array, threads) for array in arrays), strict=True)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda part: kernel(*constant, *part), parts))
