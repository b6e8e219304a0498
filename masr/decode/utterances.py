"""What every search is given: the frames of a batch, the posteriors of CTC, and the languages that are allowed.

B utterances, T encoder frames, S CTC frames, D width, V vocabulary, K languages.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class Encoded(Protocol):
    """What a search needs of an encoder's output: frames (B, T, D), lengths (B,), weights of language adapters,
    frames that lie in the recording (B,), where silence was put behind it, and probabilities of languages (B, K)."""

    frames: Tensor
    lengths: Tensor
    language_weights: Tensor | None
    recorded: Tensor | None
    language_probabilities: Tensor | None


class SearchableModel(Protocol):
    """What a search needs of a model."""

    ctc: Any
    attention_decoder: Any
    translator: Any
    tokenizer: Any

    @property
    def frame_seconds(self) -> float: ...

    @property
    def tokens_per_frame(self) -> float: ...

    def ctc_log_probs(self, encoded: Any, allowed_languages: Tensor) -> tuple[Tensor, Tensor]: ...


@dataclass
class Utterances:
    """A batch as the searches see it; one forward pass serves them all."""

    frames: Tensor
    """(B, T, D)"""
    lengths: Tensor
    """(B,)"""
    log_probs: Tensor
    """(B, S, V) of CTC, -inf for tokens of languages that are not allowed; no frames (S = 0) without CTC."""
    ctc_lengths: Tensor
    """(B,)"""
    languages: list[tuple[str, ...]]
    """The allowed languages of each."""
    allowed: Tensor
    """(B, V) bool: the tokens of these languages."""
    language_weights: Tensor | None = None
    """(B, L) for the adapters of an attention decoder."""
    recorded: Tensor | None = None
    """(B,) frames that lie in the recording, where silence was put behind it."""
    language_probabilities: Tensor | None = None
    """(B, L) where ``language_weights`` are those of the language that was chosen."""

    def of_rows(self, rows: Sequence[int]) -> "Utterances":
        """Some of the utterances."""
        if len(rows) == len(self.languages):
            return self
        weights, recorded, probable = self.language_weights, self.recorded, self.language_probabilities
        return Utterances(
            self.frames[rows], self.lengths[rows], self.log_probs[rows], self.ctc_lengths[rows],
            [self.languages[row] for row in rows], self.allowed[rows],
            None if weights is None else weights[rows], None if recorded is None else recorded[rows],
            None if probable is None else probable[rows],
        )  # fmt: skip

    def by_languages(self) -> Iterator[tuple[tuple[str, ...], Tensor]]:
        """``(languages, rows)`` of the utterances that allow the same ones."""
        for codes in sorted(set(self.languages)):
            yield codes, torch.tensor([i for i, other in enumerate(self.languages) if other == codes])


def utterances_of(model: SearchableModel, encoded: Encoded, allowed: Tensor) -> Utterances:
    """What the searches are given; ``allowed`` (B, K) are the languages that each utterance may be in."""
    if model.ctc is None:
        log_probs, lengths = encoded.frames.new_zeros(len(allowed), 0, len(model.tokenizer)), encoded.lengths * 0
    else:
        log_probs, lengths = model.ctc_log_probs(encoded, allowed)
    if log_probs.isnan().any():
        raise ValueError("the model's CTC posteriors are NaN: its weights or the features are damaged")
    known = model.tokenizer.languages
    languages = [tuple(code for code, yes in zip(known, row, strict=True) if yes) for row in allowed.tolist()]
    tokens = torch.ones(len(languages), log_probs.shape[2], dtype=torch.bool, device=log_probs.device)
    for row, codes in enumerate(languages):
        if len(codes) < len(known):
            tokens[row] = False
            tokens[row, model.tokenizer.usable(codes)] = True
    log_probs = log_probs.masked_fill(~tokens[:, None], -torch.inf)
    return Utterances(
        encoded.frames, encoded.lengths, log_probs, lengths, languages, tokens, encoded.language_weights,
        encoded.recorded, encoded.language_probabilities,
    )  # fmt: skip
