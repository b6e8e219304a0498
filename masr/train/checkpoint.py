"""Checkpoints: everything that exact resume needs, written beside and renamed; the newest complete one is found.

A checkpoint is ``checkpoints/step-00001000/`` with ``model.safetensors``, ``averaged.safetensors``, ``state.pt``
(optimiser, schedule, scaler, progress; tensors and plain values only), ``random-<rank>.pt`` and, last, ``files.json``
with their hashes.
"""

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from masr.files import DAMAGE, file_hash, reading
from masr.progress import say

FILES = "files.json"
DELETE = "remove that checkpoint: training goes on from the one before"


class CheckpointError(OSError):
    """A checkpoint could not be written; the message says what is safe and what to do."""


def save_checkpoint(
    folder: Path,
    step: int,
    weights: dict[str, dict[str, Tensor]],
    state: dict[str, Any],
    random_states: list[Any],
    keep: int,
    best: int = 0,
) -> Path:
    """Writes ``step``'s checkpoint completely or not at all, then removes others.

    The newest ``keep`` stay, and that of step ``best``.

    ``weights`` are state dicts by file name (``model``, ``averaged``); ``random_states`` has one entry per process.
    """
    final, partial = step_folder(folder, step), folder / f"step-{step:08}.partial"
    try:
        for leftover in folder.glob("step-*.partial"):
            shutil.rmtree(leftover)
        partial.mkdir(parents=True)
        for name, tensors in weights.items():
            save_file({key: value.contiguous() for key, value in tensors.items()}, partial / f"{name}.safetensors")
        torch.save(state, partial / "state.pt")
        for rank, value in enumerate(random_states):
            torch.save(value, partial / f"random-{rank}.pt")
        hashes = {path.name: file_hash(path) for path in sorted(partial.iterdir())}
        (partial / FILES).write_text(json.dumps(hashes, indent=1))
        shutil.rmtree(final, ignore_errors=True)
        os.replace(partial, final)
    except Exception as error:  # safetensors and torch wrap a full disk in errors of their own
        shutil.rmtree(partial, ignore_errors=True)
        last = find_checkpoint(folder)
        safe = f"the last complete one is {last}" if last else "there is none yet"
        raise CheckpointError(
            f"cannot write checkpoint {final}: {error}; {safe}. Free space and run the same command."
        ) from error
    others = sorted(path for path in folder.glob("step-????????") if path != final)
    for old in others[: -(keep - 1) or None]:
        if old != step_folder(folder, best):
            shutil.rmtree(old)
    return final


def step_folder(folder: Path, step: int) -> Path:
    """Where the checkpoint of an update lies, if there is one."""
    return folder / f"step-{step:08}"


def find_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint whose files are all as they were written; damaged ones are named and passed over."""
    for path in sorted(folder.glob("step-????????"), reverse=True):
        if is_whole(path):
            return path
        say(f"train: checkpoint {path} is damaged or incomplete; looking for an older one")
    return None


def is_whole(checkpoint: Path) -> bool:
    """Whether all files of a checkpoint are there, and as they were written."""
    try:
        hashes = json.loads((checkpoint / FILES).read_text())
        return all(file_hash(checkpoint / name) == digest for name, digest in hashes.items())
    except (OSError, *DAMAGE):
        return False


def load_weights(checkpoint: Path, name: str) -> dict[str, Tensor]:
    """State dict ``model`` or ``averaged`` of a checkpoint."""
    with reading(checkpoint / f"{name}.safetensors", DELETE):
        return load_file(checkpoint / f"{name}.safetensors")


def load_state(checkpoint: Path, rank: int) -> tuple[dict[str, Any], Any | None]:
    """Training state, and the random state of a process (None if the run had fewer processes)."""
    with reading(checkpoint / "state.pt", DELETE):
        state = torch.load(checkpoint / "state.pt", map_location="cpu", weights_only=True)
    path = checkpoint / f"random-{rank}.pt"
    with reading(path, DELETE):
        return state, torch.load(path, weights_only=True) if path.exists() else None


def random_state() -> dict[str, Any]:
    """State of every random generator of this process, as plain values and tensors."""
    state: tuple[Any, ...] = np.random.get_state()  # type: ignore[assignment]
    kind, keys, *rest = state
    return {
        "python": list(random.getstate()[1]), "torch": torch.get_rng_state(),
        "numpy": {"kind": kind, "keys": torch.from_numpy(keys.astype(np.int64)), "rest": rest},
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }  # fmt: skip


def set_random_state(state: dict[str, Any]) -> None:
    """Puts back what `random_state` returned."""
    random.setstate((3, tuple(state["python"]), None))
    torch.set_rng_state(state["torch"])
    numpy = state["numpy"]
    np.random.set_state((numpy["kind"], numpy["keys"].numpy().astype(np.uint32), *numpy["rest"]))
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
