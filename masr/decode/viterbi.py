"""The most probable alignment of known tokens to hours of CTC posteriors, compiled by numba when first used.

All moves of an hour and 10,000 tokens would take gigabytes. Here the scores of every `EVERY`-th frame are kept; on the
way back, the moves between two of them are computed again, of the few states alone from which the path can have come.
The path is the very one that all moves would give (Grice et al. 1997, CABIOS 13, "Reduced space sequence alignment").

T frames, V columns of posteriors, S states (blank, token 1, blank, ..., token U, blank), K kept frames.
"""

import numpy as np

from masr.nn.kernels import compiled

EVERY = 2048
"""Frames from one kept score to the next."""
STAY, ADVANCE, SKIP = 0, 1, 2


def best_path(log_probs: np.ndarray, labels: np.ndarray, every: int = EVERY) -> np.ndarray:
    """The state of each frame (T,) on the most probable path.

    ``log_probs`` (T, V) float32 in nats; ``labels`` (S,) the column of each state. ValueError when every path has
    probability 0.
    """
    frames = len(log_probs)
    every = min(every, frames)
    kept = np.empty(((frames - 1) // every + 1, len(labels)))
    last = np.empty(len(labels))
    given = np.ascontiguousarray(log_probs), labels.astype(np.int64), _skip_penalties(labels)
    _forward(*given, every, kept, last)
    if np.isneginf(last[-2:]).all():
        raise ValueError("every alignment of these tokens has probability 0")
    path = np.empty(frames, np.int64)
    path[-1] = len(labels) - 2 + last[-2:].argmax()
    _trace_back(*given, every, kept, path)
    return path


def _skip_penalties(labels: np.ndarray) -> np.ndarray:
    """(S,): 0 where a state may be entered from two states before, over the blank between two different tokens."""
    penalties = np.full(len(labels), -np.inf)
    penalties[3::2] = np.where(labels[3::2] != labels[1:-2:2], 0.0, -np.inf)
    return penalties


@compiled
def _forward(log_probs, labels, penalties, every, kept, last):
    """Scores of the best paths to each state (S,): at every ``every``-th frame in ``kept`` (K, S), at the end in
    ``last``."""
    frames, states = len(log_probs), len(labels)
    # Two states that are never left for the others let "stay, advance, skip" be three slices of one array.
    scores = np.full(states + 2, -np.inf)
    following = np.full(states + 2, -np.inf)
    for s in range(2):
        scores[s + 2] = log_probs[0, labels[s]]
    kept[0] = scores[2:]
    for t in range(1, frames):
        row = log_probs[t]
        for s in range(states):
            best = max(scores[s + 2], scores[s + 1], scores[s] + penalties[s])
            following[s + 2] = best + row[labels[s]]
        scores, following = following, scores
        if t % every == 0:
            kept[t // every] = scores[2:]
    last[:] = scores[2:]


@compiled
def _trace_back(log_probs, labels, penalties, every, kept, path):
    """Fills ``path`` (T,), whose last state is known."""
    most = min(2 * every + 1, len(labels))
    moves = np.zeros((every, most), np.int8)
    scores = np.empty(most + 2)
    following = np.empty(most + 2)
    end = len(log_probs) - 1
    for block in range(len(kept) - 1, -1, -1):
        start = block * every
        # In each frame a path comes from at most two states further back.
        highest = path[end]
        lowest = max(0, highest - 2 * (end - start))
        states = highest - lowest + 1
        scores[:] = -np.inf
        following[:] = -np.inf
        scores[2 : states + 2] = kept[block, lowest : highest + 1]
        for t in range(start + 1, end + 1):
            row = log_probs[t]
            for s in range(states):
                stay, advance = scores[s + 2], scores[s + 1]
                skip = scores[s] + penalties[lowest + s]
                move = STAY
                if advance > stay:
                    move = ADVANCE
                if skip > max(stay, advance):
                    move = SKIP
                moves[t - start - 1, s] = move
                following[s + 2] = max(stay, advance, skip) + row[labels[lowest + s]]
            scores, following = following, scores
        for t in range(end, start, -1):
            path[t - 1] = path[t] - moves[t - start - 1, path[t] - lowest]
        end = start
