"""Speech translation: a Transformer decoder of another language's text on the encoder's frames.

B batch, T frames, U tokens, V vocabulary, E encoder width.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from masr.config import Translation
from masr.nn.attention_decoder import AttentionDecoder
from masr.nn.conformer import FeedForward, SelfAttention
from masr.nn.dropout import Dropout
from masr.nn.subsampling import length_mask

SHARED = "shared"


class Translator(nn.Module):
    """One decoder for all spoken languages, or one each; each with Transformer blocks of its own before it."""

    def __init__(
        self, vocabulary_size: int, encoder_width: int, options: Translation, languages: Sequence[str], sos_eos: int
    ) -> None:
        """``languages`` are those that are translated."""
        super().__init__()
        self.sos_eos, self.languages = sos_eos, list(languages)
        names = languages if options.per_language else [SHARED]
        self.parts = nn.ModuleDict(
            {name: TranslationDecoder(vocabulary_size, encoder_width, options, sos_eos) for name in names}
        )

    def loss(
        self, frames: Tensor, lengths: Tensor, ids: Tensor, id_lengths: Tensor, languages: Sequence[str]
    ) -> Tensor:
        """(B,) label-smoothed negative log-likelihoods of translations (B, U); 0 for an utterance without one.

        ``frames`` (B, T, E), ``lengths`` (B,), ``id_lengths`` (B,), the spoken ``languages`` [B].
        """
        losses = torch.zeros(len(frames), device=frames.device)
        for part, rows in self.rows(languages, frames.device):  # those without rows must have their (zero) gradient
            losses = losses.index_put((rows,), part.loss(frames[rows], lengths[rows], ids[rows], id_lengths[rows]))
        return losses.masked_fill(id_lengths == 0, 0.0)

    def rows(self, languages: Sequence[str], device: torch.device) -> list[tuple["TranslationDecoder", Tensor]]:
        """Each decoder with the numbers of the utterances [B] that are its."""
        if SHARED in self.parts:
            return [(self._part(SHARED), torch.arange(len(languages) or 1, device=device))]
        numbers = {name: [row for row, code in enumerate(languages) if code == name] for name in self.parts}
        return [(self._part(n), torch.tensor(rows, device=device, dtype=torch.long)) for n, rows in numbers.items()]

    def _part(self, name: str) -> "TranslationDecoder":
        return cast(TranslationDecoder, self.parts[name])


class TranslationDecoder(nn.Module):
    """Transformer blocks over the frames, then the decoder."""

    def __init__(self, vocabulary_size: int, encoder_width: int, options: Translation, sos_eos: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(TransformerBlock(encoder_width, options) for _ in range(options.encoder_layers))
        self.decoder = AttentionDecoder(
            vocabulary_size, encoder_width, options.width, options.layers, options.heads, options.feedforward,
            options.dropout, sos_eos, options.label_smoothing,
        )  # fmt: skip

    def memory(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, E) -> (B, T, E): what the decoder attends to."""
        mask = length_mask(lengths, frames.shape[1])
        for block in self.blocks:
            frames = block(frames, mask)
        return frames

    def loss(self, frames: Tensor, lengths: Tensor, ids: Tensor, id_lengths: Tensor) -> Tensor:
        """(B,), as `AttentionDecoder.loss`."""
        return self.decoder.loss(self.memory(frames, lengths), lengths, ids, id_lengths)


class TransformerBlock(nn.Module):
    """Self-attention with rotary positions and a feed-forward layer, each behind a norm and added to its input."""

    def __init__(self, width: int, options: Translation) -> None:
        super().__init__()
        self.attention = SelfAttention(width, options.heads)
        self.feedforward = FeedForward(width, options.feedforward, options.dropout)
        self.dropout = Dropout(options.dropout)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """(B, T, E), (B, T) -> (B, T, E)."""
        frames = frames + self.dropout(self.attention(frames, mask))
        return frames + self.dropout(self.feedforward(frames))
