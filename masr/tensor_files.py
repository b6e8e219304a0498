"""Tensors in safetensors files whose content has a digest, so that a damaged file is noticed where it is loaded."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from masr.files import written_beside

DIGEST = "sha256"
"""In the header of a file; files of before masr 0.2 have none, and are taken as they are."""


class DamagedWeights(ValueError):
    """A file is not what was written; the message names it."""


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str] | None = None) -> None:
    """Writes tensors by name, and strings beside them, completely or not at all."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    described = dict(header or {})
    with written_beside(path) as partial:
        save_file(plain, partial, described | {DIGEST: _digest(plain, described)})


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and strings that `save_tensors` wrote; DamagedWeights when they are not."""
    try:
        with safe_open(path, "pt") as file:
            header = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
    except (SafetensorError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise DamagedWeights(f"{path} is damaged: {error}"[:300]) from error
    expected = header.pop(DIGEST, None)
    if expected is not None and _digest(tensors, header) != expected:
        raise DamagedWeights(f"{path} is damaged: its content is not what was written")
    return tensors, header


def is_intact(path: Path) -> bool:
    """Whether a file is there and as it was written."""
    try:
        load_tensors(path)
    except (OSError, DamagedWeights):
        return False
    return True


def _digest(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
    digest = hashlib.sha256(repr(sorted(header.items())).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
