"""Which tokens Whisper may write next (Radford et al. 2022, arXiv 2212.04356, 4.5), as a decoder for any search.

N hypotheses, U tokens, V vocabulary, B utterances, T frames, D width.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass
class RuledState:
    """The state of Whisper's decoder, and what timestamps depend on: all tokens (N, U) so far."""

    inner: Any
    tokens: Tensor

    def select(self, indices: Tensor) -> None:
        """As `masr.decode.attention_beam.SearchState.select`."""
        self.inner.select(indices)
        self.tokens = self.tokens[indices]


class RuledDecoder:
    """Whisper's decoder without the tokens that would break a rule; the others share the probability.

    Made anew for each search: ``no_speech`` (B,) is known once that has begun.
    """

    def __init__(self, decoder: Any, timestamps: bool = False):
        self.decoder, self.timestamps = decoder, timestamps
        self.no_speech: Tensor | None = None
        """(B,) probabilities that there is no speech; None from a Whisper without a token for it."""
        never = decoder.never.clone()
        if timestamps:
            never[decoder.first_timestamp :] = False
        self.never = never

    def start(self, frames: Tensor, lengths: Tensor, beam: int, language_weights: Tensor | None) -> RuledState:
        """State of ``beam`` empty hypotheses for each utterance of ``frames`` (B, T, D), ``lengths`` (B,)."""
        inner = self.decoder.start(frames, lengths, beam, language_weights)
        return RuledState(inner, lengths.new_zeros(len(lengths) * beam, 0))

    def step(self, tokens: Tensor, state: RuledState) -> Tensor:
        """Append ``tokens`` (N,), at first the end, to the hypotheses; log-probabilities (N, V) of the next."""
        if state.inner.position:
            state.tokens = torch.cat((state.tokens, tokens[:, None]), 1)
            logits, never = self.decoder.next_logits(tokens, state.inner), self.never
        else:
            logits, after_start = self.decoder.first_logits(state.inner, self.timestamps)
            self._look_for_speech(after_start[:: state.inner.beam])
            never = self.never | self.decoder.never_first
        logits = logits.float().masked_fill(never, -torch.inf)
        if self.timestamps:
            logits = self._with_timestamps(logits, state.tokens)
        return logits.log_softmax(-1)

    def _look_for_speech(self, logits: Tensor) -> None:
        """Of logits (B, V) behind the start token."""
        if self.decoder.no_speech is not None:
            self.no_speech = logits.float().softmax(-1)[:, self.decoder.no_speech]

    def _with_timestamps(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Logits (N, V) that keep timestamps in pairs around texts, in order, and write one where one is likely."""
        first, end = self.decoder.first_timestamp, self.decoder.sos_eos
        logits = logits.masked_fill(forbidden_beside_timestamps(tokens, logits.shape[1], first, end), -torch.inf)
        if tokens.shape[1] == 0:
            logits[:, first + self.decoder.latest_first + 1 :] = -torch.inf
        likely = logits[:, first:].logsumexp(1) > logits[:, :first].amax(1)
        logits[:, :first] = logits[:, :first].masked_fill(likely[:, None], -torch.inf)
        return logits


def forbidden_beside_timestamps(tokens: Tensor, size: int, first: int, end: int) -> Tensor:
    """(N, V) bool of what must not follow ``tokens`` (N, U): timestamps begin at ``first``, texts end with ``end``.

    A text begins with a timestamp, and after each part of it there are two, or one and the end: the end of the part and
    the beginning of the next, which may be the same. After that comes text, and no timestamp is earlier than the one
    before it.
    """
    numbers = torch.arange(size, device=tokens.device)
    is_time, is_text = numbers >= first, numbers < end
    if tokens.shape[1] == 0:
        return (~is_time).expand(len(tokens), -1)
    # As if there were one before the first: that one then begins a part, too.
    times = F.pad(tokens, (1, 0), value=first) >= first
    ended = times[:, -1] & ~times[:, -2]
    begun = times[:, -1] & times[:, -2]
    latest = tokens.clamp(min=first).amax(1)
    # The second of a pair may repeat the first one; a part must take some time.
    earliest = latest + (~ended & (tokens >= first).any(1)).long()
    forbidden = is_time & (numbers < earliest[:, None])
    forbidden = forbidden | (begun[:, None] & is_time)
    return forbidden | (ended[:, None] & is_text)
