"""Lattice decoding behind one interface: kaldi-decoder on any CPU, k2 on a GPU.

A backend is a module with ``best_paths(log_probs, lengths, graph, options)``, ``intersect(...) -> Lattices``, and
lattices with ``best_paths(n)`` and ``rescore(grammar)``; graphs come from `masr.decode.lattice.graphs`.
"""

import importlib
import importlib.util
from types import ModuleType

import torch


def load_backend(name: str) -> ModuleType:
    """The module ``kaldi`` or ``k2``; ``auto`` takes k2 on a GPU if it can be imported. ValueError says why it cannot.

    On a CPU k2 finds the same paths in 2.5 (H) to 6 times (HL) the time.
    """
    if name == "auto":
        name = "k2" if torch.cuda.is_available() and not k2_problem() else "kaldi"
    elif name == "k2" and (problem := k2_problem()):
        raise ValueError(f"decode.lattice.backend=k2: {problem}")
    return importlib.import_module(f"masr.decode.lattice.{name}")


def k2_problem() -> str | None:
    """One sentence with the way out if k2 cannot be used, else None."""
    if importlib.util.find_spec("k2") is None:
        return "k2 is not installed; tools/install_k2.sh installs the build for this torch, backend=kaldi needs none"
    try:
        importlib.import_module("k2")
    except Exception as error:  # it checks its torch when imported, in words of its own
        reason = " ".join(str(error).split())[:200]
        return f"the installed k2 does not work ({reason}); tools/install_k2.sh installs the one for this torch"
    return None
