"""How sure a model is of what it wrote. B utterances, S CTC frames, U tokens, V vocabulary.

Confidence is exp(-H) of the entropy H of the posteriors, scaled so that it is 0 where all tokens are alike and 1 where
one token has everything (Gibbs entropy with exponential normalisation of Laptev & Ginsburg 2022, arXiv 2212.08703): of
a token the mean over its CTC frames or, of a decoder, that of its distribution; of a word the lowest of its tokens.
`log_probability` is that of the text under the recogniser alone, per token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from masr.decode.hypothesis import Hypothesis
from masr.decode.utterances import SearchableModel, Utterances


@dataclass
class Certainty:
    """What posteriors say of one hypothesis."""

    log_probability: float | None
    """Mean natural log-probability of its tokens, at most 0; None where the model cannot write it."""
    tokens: list[float]
    """Confidence of each token; none where it is not known."""


def certainties(
    best: Sequence[Hypothesis], utterances: Utterances, model: SearchableModel, by_decoder: bool
) -> list[Certainty]:
    """One for the best hypothesis of each utterance, by the head that wrote it: the attention decoder, or CTC."""
    if by_decoder:
        return _of_decoder(best, utterances, model)
    return _of_ctc(best, utterances, model)


def confidence(log_probs: Tensor) -> Tensor:
    """(..., V) natural logs -> (...) from 0 to 1; tokens that are not allowed (-inf) do not count."""
    log_probs = log_probs.float()
    allowed = log_probs.isfinite().sum(-1).clamp(min=2)
    entropy = -(log_probs.exp() * log_probs).nan_to_num(0.0).sum(-1)
    nothing = 1 / allowed
    return (((-entropy).exp() - nothing) / (1 - nothing)).clamp(0, 1)


def _of_ctc(best: Sequence[Hypothesis], utterances: Utterances, model: SearchableModel) -> list[Certainty]:
    each_frame = confidence(utterances.log_probs).cpu()
    found = []
    for row, hypothesis in enumerate(best):
        length = int(utterances.ctc_lengths[row])
        log_probs = utterances.log_probs[row, :length]
        certainty = Certainty(_ctc_log_probability(log_probs, hypothesis.tokens, model.ctc.blank), [])
        for start, end in hypothesis.timestamps:
            first, last = round(start / model.frame_seconds), round(end / model.frame_seconds)
            certainty.tokens.append(float(each_frame[row, first : max(last, first + 1)].mean()))
        found.append(certainty)
    return found


def _ctc_log_probability(log_probs: Tensor, tokens: list[int], blank: int) -> float | None:
    """Of all alignments (S, V) of a text, per token; of silence (no tokens) per frame."""
    if not len(log_probs):
        return None
    ids = torch.tensor([tokens], dtype=torch.long)
    sizes = torch.tensor([len(log_probs)]), torch.tensor([len(tokens)])
    loss = F.ctc_loss(log_probs[:, None].float().cpu(), ids, *sizes, blank=blank, reduction="sum")
    if not torch.isfinite(loss):
        return None
    return -float(loss) / max(len(tokens) or len(log_probs), 1)


def _of_decoder(best: Sequence[Hypothesis], utterances: Utterances, model: SearchableModel) -> list[Certainty]:
    device = utterances.frames.device
    ids = pad_sequence([torch.tensor(h.tokens, dtype=torch.long, device=device) for h in best], batch_first=True)
    sizes = torch.tensor([len(hypothesis.tokens) for hypothesis in best], device=device)
    with torch.inference_mode():
        log_probs = model.attention_decoder.log_probs(
            utterances.frames, utterances.lengths, ids, sizes, utterances.language_weights
        )
    found = []
    for row, hypothesis in enumerate(best):
        size = len(hypothesis.tokens)
        of_row = log_probs[row, : size + 1]
        targets = torch.tensor([*hypothesis.tokens, model.attention_decoder.sos_eos], device=device)
        chosen = of_row.gather(1, targets[:, None])
        found.append(Certainty(min(float(chosen.mean()), 0.0), confidence(of_row[:size]).tolist()))
    return found
