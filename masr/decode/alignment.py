"""When each token and word was spoken: Viterbi alignment of a known transcript to CTC posteriors.

Shapes: T frames, U tokens, V vocabulary, S = 2 * U + 1 states (blank, token 1, blank, ..., token U, blank).
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from torch import Tensor

from masr.decode.hypothesis import Hypothesis
from masr.decode.utterances import SearchableModel
from masr.decode.viterbi import best_path
from masr.text.characters import begins_a_word
from masr.text.tokenizer import WORD_START


def ctc_align(log_probs: Tensor, tokens: Sequence[int], blank: int = 0) -> list[tuple[int, int]]:
    """First frame and end frame (exclusive) of each token on the most probable alignment.

    ``log_probs`` (T, V) in nats; ``tokens`` (U,) without blanks. ValueError when a token is blank or outside the
    vocabulary, when T frames are too few (a token needs one frame, and a repeated token one blank before it), or when
    every alignment has probability 0. Source: Graves et al. 2006 (ICML, "Connectionist Temporal Classification"),
    section 4.1, with max in place of sum.
    """
    _check(log_probs, tokens, blank)
    if not tokens:
        return []
    states = np.full(2 * len(tokens) + 1, blank)
    states[1::2] = tokens
    path = best_path(log_probs.detach().cpu().float().numpy(), states)
    starts = np.searchsorted(path, np.arange(1, len(states), 2), side="left")
    ends = np.searchsorted(path, np.arange(1, len(states), 2), side="right")
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def token_times(frames: Sequence[tuple[int, int]], frame_seconds: float) -> list[tuple[float, float]]:
    """Start and end in seconds of frame spans such as :func:`ctc_align` returns; a frame lasts ``frame_seconds``."""
    return [(start * frame_seconds, end * frame_seconds) for start, end in frames]


def word_times(pieces: Sequence[str], times: Sequence[tuple[float, float]]) -> list[tuple[str, float, float]]:
    """``(word, start, end)`` in seconds from SentencePiece pieces, where "▁" begins a word, and their ``times``.

    In scripts without spaces (Han, kana, Thai, ...) every piece is a word. ValueError when there are not as many
    ``times`` as ``pieces``.
    """
    if len(pieces) != len(times):
        raise ValueError(f"{len(pieces)} pieces but {len(times)} times: one (start, end) is needed for each piece")
    words: list[tuple[str, float, float]] = []
    for piece, (start, end) in zip(pieces, times, strict=True):
        text = piece.removeprefix(WORD_START)
        if piece.startswith(WORD_START) or not words or begins_a_word(text, words[-1][0]):
            words.append((text, start, end))
        else:
            began = words[-1][1] if words[-1][0] else start  # the pause before a word belongs to a "▁" of its own
            words[-1] = (words[-1][0] + text, began, end)
    return [word for word in words if word[0]]


def add_times(best: Hypothesis, log_probs: Tensor, model: SearchableModel) -> None:
    """Start and end of every token (seconds) by the best CTC alignment (S, V); none if it does not fit in S frames."""
    try:
        frames = ctc_align(log_probs, best.tokens)
    except ValueError:  # an attention decoder may write more tokens than there are frames
        return
    best.timestamps = token_times(frames, model.frame_seconds)


def timed_words(best: Hypothesis, model: SearchableModel) -> list[tuple[str, float, float]]:
    """``(word, start, end)`` in seconds of a hypothesis with times; none without."""
    if not best.timestamps:
        return []
    spoken = set(model.tokenizer.spoken(best.tokens))
    timed = [(token, times) for token, times in zip(best.tokens, best.timestamps, strict=True) if token in spoken]
    pieces = model.tokenizer.word_pieces([token for token, _ in timed])
    return word_times(*_whole_characters(pieces, [times for _, times in timed]))


def _whole_characters(
    pieces: Sequence[str], times: Sequence[tuple[float, float]]
) -> tuple[list[str], list[tuple[float, float]]]:
    """Without pieces that are only the beginning of a character, whose time goes to the piece that ends it."""
    whole: list[str] = []
    joined: list[tuple[float, float]] = []
    began = None
    for piece, (start, end) in zip(pieces, times, strict=True):
        began = start if began is None else began
        if piece:
            whole.append(piece)
            joined.append((began, end))
            began = None
    return whole, joined


def _check(log_probs: Tensor, tokens: Sequence[int], blank: int) -> None:
    frames, vocabulary_size = log_probs.shape
    bad = [token for token in tokens if token == blank or not 0 <= token < vocabulary_size]
    if bad:
        raise ValueError(f"token {bad[0]} cannot be aligned: expected 0 to {vocabulary_size - 1} without blank {blank}")
    repeats = sum(first == second for first, second in pairwise(tokens))
    if frames < len(tokens) + repeats:
        raise ValueError(
            f"{frames} frames are too few for {len(tokens)} tokens with {repeats} repeats: "
            f"at least {len(tokens) + repeats} are needed; use a smaller subsampling factor or shorter transcript"
        )
