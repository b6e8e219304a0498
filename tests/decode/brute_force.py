"""What CTC defines, by enumerating every alignment. Shapes: T frames, V vocabulary."""

import itertools
import math

from torch import Tensor

Labelling = tuple[int, ...]


def collapse(alignment: Labelling) -> Labelling:
    """Merge repeats, then remove blanks (0)."""
    return tuple(token for token, _ in itertools.groupby(alignment) if token)


def alignments(log_probs: Tensor) -> dict[Labelling, float]:
    """Log-probability of every one of the V ** T alignments of ``log_probs`` (T, V)."""
    rows = log_probs.tolist()
    paths = itertools.product(range(len(rows[0])), repeat=len(rows))
    return {path: sum(row[token] for row, token in zip(rows, path, strict=True)) for path in paths}


def labellings(log_probs: Tensor) -> dict[Labelling, float]:
    """Log-probability of every labelling of T frames that is not impossible."""
    masses: dict[Labelling, float] = {}
    for path, log_prob in alignments(log_probs).items():
        masses[collapse(path)] = masses.get(collapse(path), 0.0) + math.exp(log_prob)
    return {labelling: math.log(mass) for labelling, mass in masses.items() if mass}
