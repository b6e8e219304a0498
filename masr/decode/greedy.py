"""CTC best-path decoding (Graves et al. 2006, ICML, "Connectionist Temporal Classification", section 3.2).

Shapes: B batch, T frames, V vocabulary.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from masr.decode.hypothesis import Hypothesis


def ctc_greedy(log_probs: Tensor, lengths: Tensor, blank: int = 0) -> list[list[Hypothesis]]:
    """The most probable alignment of each utterance, repeats merged and blanks removed.

    ``log_probs`` (B, T, V) in nats, ``lengths`` (B,) in frames. One hypothesis per utterance; its score is the
    log-probability of that one alignment, which is at most that of the transcript. No frames give an empty transcript
    with score 0.
    """
    valid = torch.arange(log_probs.size(1), device=log_probs.device) < lengths[:, None]
    best_log_probs, best = log_probs.max(dim=-1)
    scores = best_log_probs.masked_fill(~valid, 0.0).sum(dim=1).tolist()
    previous = F.pad(best, (1, 0), value=blank)[:, :-1]
    keep = valid & (best != blank) & (best != previous)
    return [
        [Hypothesis(tokens[kept].tolist(), score, {"ctc": score})]
        for tokens, kept, score in zip(best.cpu(), keep.cpu(), scores, strict=True)
    ]
