"""The alignment in little memory is the one that keeps every move."""

import numpy as np
import pytest

from masr.decode.viterbi import best_path

COLUMNS = 5


def states_of(tokens: list[int]) -> np.ndarray:
    """(S,) columns of blank, token 1, blank, ..., token U, blank."""
    states = np.zeros(2 * len(tokens) + 1, np.int64)
    states[1::2] = tokens
    return states


def path_with_all_moves(log_probs: np.ndarray, labels: np.ndarray) -> list[int]:
    """The state of each frame, by the textbook's recursion."""
    scores = {0: log_probs[0, labels[0]], 1: log_probs[0, labels[1]]}
    moves = []
    for row in log_probs[1:].astype(np.float64):
        following, froms = {}, {}
        for state, label in enumerate(labels):
            sources = [state, state - 1]
            if state % 2 and state >= 3 and label != labels[state - 2]:
                sources.append(state - 2)
            known = [source for source in sources if source in scores]
            if known:
                froms[state] = max(known, key=scores.__getitem__)
                following[state] = scores[froms[state]] + row[label]
        scores = following
        moves.append(froms)
    path = [max(len(labels) - 2, len(labels) - 1, key=scores.__getitem__)]
    for froms in reversed(moves):
        path.append(froms[path[-1]])
    return path[::-1]


@pytest.mark.parametrize("every", [1, 2, 7, 64, 1024])
@pytest.mark.parametrize(("frames", "tokens"), [(2, 1), (40, 12), (90, 25), (129, 60), (200, 3)])
def test_blocks_of_any_length_give_the_path_of_all_moves(every, frames, tokens):
    random = np.random.default_rng(frames)
    log_probs = np.log(random.dirichlet(np.full(COLUMNS, 0.3), frames) + 1e-9).astype(np.float32)
    labels = states_of(list(random.integers(1, COLUMNS, tokens)))
    assert best_path(log_probs, labels, every).tolist() == path_with_all_moves(log_probs, labels)


def test_impossible_tokens_are_refused_in_any_block():
    log_probs = np.log(np.full((30, COLUMNS), 0.2, np.float32))
    log_probs[:, 2] = -np.inf
    with pytest.raises(ValueError, match="probability 0"):
        best_path(log_probs, states_of([1, 2, 3]), every=4)
