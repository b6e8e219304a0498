"""Transcripts that are drawn from what an attention decoder finds probable, instead of searched for.

B utterances, A of them unfinished, U tokens, T frames, V vocabulary, D width.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from masr.decode.attention_beam import Decoder, State
from masr.decode.hypothesis import Hypothesis


@torch.inference_mode()
def sample(
    decoder: Decoder[State],
    frames: Tensor,
    lengths: Tensor,
    limits: Tensor,
    *,
    temperature: float,
    seeds: Sequence[int],
    sos_eos: int,
    language_weights: Tensor | None = None,
) -> list[list[Hypothesis]]:
    """One transcript of each utterance of ``frames`` (B, T, D), ``lengths`` (B,), with at most ``limits`` (B,) tokens.

    Tokens are drawn with probabilities ~ p^(1 / temperature), ``temperature`` > 0; scores are those of p, with the end
    where a text was not cut off. Every utterance has a generator of its own with the same ``seeds``, so that what is
    drawn for it does not depend on the others.
    """
    draws = np.random.default_rng(list(seeds)).random(int(limits.max()))
    state = decoder.start(frames, lengths, 1, language_weights)
    found = [Hypothesis([], 0.0) for _ in range(len(lengths))]
    drawn, unfinished = torch.full_like(lengths, sos_eos), torch.arange(len(lengths), device=lengths.device)
    for position, draw in enumerate(draws.tolist()):
        log_probs = decoder.step(drawn, state)
        drawn = _drawn(log_probs, temperature, draw)
        scores = log_probs.gather(1, drawn[:, None])[:, 0]
        for row, token, score in zip(unfinished.tolist(), drawn.tolist(), scores.tolist(), strict=True):
            found[row].score += score
            if token != sos_eos:
                found[row].tokens.append(token)
        going_on = ((drawn != sos_eos) & (limits[unfinished] > position + 1)).nonzero()[:, 0]
        if not len(going_on):
            break
        unfinished, drawn = unfinished[going_on], drawn[going_on]
        state.select(going_on)
    for hypothesis in found:
        hypothesis.parts["attention"] = hypothesis.score
    return [[hypothesis] for hypothesis in found]


def _drawn(log_probs: Tensor, temperature: float, draw: float) -> Tensor:
    """(A,) tokens at the place ``draw`` (0 to 1) of the cumulative distribution of log-probabilities (A, V)."""
    cumulative = (log_probs.double() / temperature).softmax(-1).cumsum(-1)
    aimed = draw * cumulative[:, -1:]
    return torch.searchsorted(cumulative, aimed, right=True).clamp(max=log_probs.shape[1] - 1)[:, 0]
