"""Transformer decoder that predicts the next token from the tokens before it and the encoder's frames.

Shapes: B batch, T frames, U tokens, V vocabulary, D width, E encoder width, H heads, K beam, N = B * K hypotheses.
Source: Vaswani et al. 2017 (arXiv 1706.03762), with the layer norm before each sub-layer (Xiong et al. 2020, arXiv
2002.04745).
"""

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from masr.nn.dropout import Dropout
from masr.nn.hierarchical_softmax import HierarchicalSoftmax, Smoothing
from masr.nn.softmax import Softmax
from masr.nn.summary_adapters import MixedAdapters
from masr.vocab.tree import Tree

KeysValues = tuple[Tensor, Tensor]


def sinusoidal_positions(positions: Tensor, width: int) -> Tensor:
    """Sine (even columns) and cosine (odd columns) vectors (U, D) of ``positions`` (U,) (arXiv 1706.03762, 3.5)."""
    rates = torch.exp(torch.arange(0, width, 2, device=positions.device) * (-math.log(10000.0) / width))
    angles = positions[:, None] * rates
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


class Attention(nn.Module):
    """Multi-head scaled dot-product attention of ``queries`` (B, Q, D) over keys and values (B, H, S, D / H)."""

    def __init__(self, width: int, memory_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(memory_width, width)
        self.value = nn.Linear(memory_width, width)
        self.output = nn.Linear(width, width)

    def keys_values(self, memory: Tensor) -> KeysValues:
        """Keys and values, each (B, H, S, D / H), of ``memory`` (B, S, memory width)."""
        return self._split(self.key(memory)), self._split(self.value(memory))

    def forward(
        self, queries: Tensor, keys_values: KeysValues, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """Attended vectors (B, Q, D); ``mask`` broadcasts to (B, H, Q, S) and is True where attention is allowed."""
        context = F.scaled_dot_product_attention(
            self._split(self.query(queries)),
            *keys_values,
            attn_mask=mask,
            is_causal=causal,
        )
        return self.output(context.transpose(1, 2).flatten(2))

    def _split(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class DecoderLayer(nn.Module):
    """Self-attention, attention to the frames, and a feed-forward layer, each behind a norm and added to its input."""

    def __init__(
        self, width: int, encoder_width: int, heads: int, feedforward: int, dropout: float,
        adapters: MixedAdapters | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.adapters = adapters
        self.self_norm = nn.LayerNorm(width)
        self.self_attention = Attention(width, width, heads)
        self.cross_norm = nn.LayerNorm(width)
        self.cross_attention = Attention(width, encoder_width, heads)
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward = nn.Sequential(
            nn.Linear(width, feedforward), nn.SiLU(), Dropout(dropout), nn.Linear(feedforward, width)
        )
        self.dropout = Dropout(dropout)

    def forward(
        self, hidden: Tensor, cross: KeysValues, frame_mask: Tensor, language_weights: Tensor | None = None
    ) -> Tensor:
        """All positions at once: (B, U, D) -> (B, U, D)."""
        normed = self.self_norm(hidden)
        attended = self.self_attention(normed, self.self_attention.keys_values(normed), causal=True)
        hidden = hidden + self.dropout(attended)
        attended = self.cross_attention(self.cross_norm(hidden), cross, frame_mask)
        return self._feed(hidden + self.dropout(attended), language_weights)

    def step(
        self, hidden: Tensor, past: KeysValues | None, cross: KeysValues, frame_mask: Tensor,
        language_weights: Tensor | None = None,
    ) -> tuple[Tensor, KeysValues]:  # fmt: skip
        """The newest position only: (N, 1, D) -> (N, 1, D), and the self-attention keys and values up to it."""
        normed = self.self_norm(hidden)
        keys, values = self.self_attention.keys_values(normed)
        if past is not None:
            keys, values = torch.cat((past[0], keys), dim=2), torch.cat((past[1], values), dim=2)
        hidden = hidden + self.self_attention(normed, (keys, values))
        # The K hypotheses of an utterance are K queries over one set of frames, so the frames are never copied K times.
        queries = self.cross_norm(hidden).view(cross[0].size(0), -1, hidden.size(-1))
        attended = self.cross_attention(queries, cross, frame_mask).reshape(hidden.shape)
        if language_weights is not None:
            language_weights = language_weights.repeat_interleave(len(hidden) // len(language_weights), dim=0)
        return self._feed(hidden + attended, language_weights), (keys, values)

    def _feed(self, hidden: Tensor, language_weights: Tensor | None) -> Tensor:
        hidden = hidden + self.dropout(self.feedforward(self.feedforward_norm(hidden)))
        if self.adapters is None:
            return hidden
        assert language_weights is not None, "adapters need the weights of languages"
        return hidden + self.adapters(hidden, language_weights[:, None])


@dataclass
class DecoderState:
    """What :meth:`AttentionDecoder.step` remembers of N = B * K hypotheses; hypothesis n belongs to utterance n // K.

    ``cross`` holds one pair of (B, H, T, D / H) per layer, ``past`` one pair of (N, H, U, D / H), or None before the
    first step; ``frame_mask`` is (B, 1, 1, T), ``language_weights`` (B, L).
    """

    beam: int
    cross: list[KeysValues]
    frame_mask: Tensor
    past: list[KeysValues | None]
    language_weights: Tensor | None = None
    position: int = 0

    def select(self, indices: Tensor) -> None:
        """Replace hypothesis n by hypothesis ``indices[n]``, in place.

        ``indices`` is (N',); N' < N drops utterances. The K hypotheses of an utterance stay together: entries n * K to
        n * K + K - 1 all come from one utterance, and while N' = N the utterances keep their order.
        """
        if len(indices) != len(self.frame_mask) * self.beam:
            utterances = indices[:: self.beam] // self.beam
            self.frame_mask = self.frame_mask.index_select(0, utterances)
            if self.language_weights is not None:
                self.language_weights = self.language_weights.index_select(0, utterances)
            self.cross = [_select(pair, utterances) for pair in self.cross]
        self.past = [pair if pair is None else _select(pair, indices) for pair in self.past]


def _select(pair: KeysValues, indices: Tensor) -> KeysValues:
    return pair[0].index_select(0, indices), pair[1].index_select(0, indices)


class AttentionDecoder(nn.Module):
    """Transformer decoder over V tokens; ``sos_eos`` is the one id that starts and ends a sentence.

    Its softmax is flat, with a ``bias`` or without, or hierarchical if a ``tree`` is given. ``adapters`` (their
    bottleneck, and the number L of languages) stand behind the first and the last block, and are weighted by
    ``language_weights`` (B, L).

    ValueError when ``width`` is odd or not a multiple of ``heads``, or ``sos_eos`` is outside the vocabulary.
    """

    blank = 0
    """Id that is never written."""
    longest: int | None = None
    """Most tokens of a text, if there is a limit."""

    def __init__(
        self,
        vocabulary_size: int,
        encoder_width: int,
        width: int,
        layers: int,
        heads: int,
        feedforward: int,
        dropout: float,
        sos_eos: int,
        label_smoothing: float = 0.1,
        tree: Tree | None = None,
        smoothed: Smoothing = "tokens",
        adapters: tuple[int, int] = (0, 0),
        bias: bool = True,
    ) -> None:
        super().__init__()
        if width % heads or width % 2:
            raise ValueError(f"decoder width {width} must be even and a multiple of the number of heads, {heads}")
        if not 0 <= sos_eos < vocabulary_size:
            raise ValueError(f"sos_eos {sos_eos} is outside the vocabulary of {vocabulary_size} tokens")
        self.sos_eos = sos_eos
        self.label_smoothing = label_smoothing
        self.embedding = nn.Embedding(vocabulary_size, width)
        # Scaled by sqrt(D) on use, so that tokens and positions enter the first layer with comparable size.
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(
            DecoderLayer(
                width, encoder_width, heads, feedforward, dropout,
                MixedAdapters(width, *adapters) if all(adapters) and number in (0, layers - 1) else None,
            )
            for number in range(layers)
        )  # fmt: skip
        self.norm = nn.LayerNorm(width)
        self.output: Softmax | HierarchicalSoftmax = (
            Softmax(width, vocabulary_size, bias) if tree is None else HierarchicalSoftmax(width, tree, smoothed)
        )

    def loss(
        self, frames: Tensor, lengths: Tensor, ids: Tensor, id_lengths: Tensor, language_weights: Tensor | None = None
    ) -> Tensor:
        """Label-smoothed negative log-likelihood (B,) in nats, summed over each utterance's U + 1 positions.

        ``frames`` (B, T, E), ``lengths`` (B,), ``ids`` (B, U), ``id_lengths`` (B,); padding is ignored.
        """
        hidden = self._hidden(frames, lengths, ids, id_lengths, language_weights)
        positions = torch.arange(ids.size(1) + 1, device=ids.device)
        targets = F.pad(ids, (0, 1)).masked_fill(positions >= id_lengths[:, None], self.sos_eos)
        losses = self.output.loss(hidden, targets, self.label_smoothing)
        return losses.masked_fill(positions > id_lengths[:, None], 0.0).sum(dim=1)

    def log_probs(
        self, frames: Tensor, lengths: Tensor, ids: Tensor, id_lengths: Tensor, language_weights: Tensor | None = None
    ) -> Tensor:
        """Log-probabilities (B, U + 1, V) of each position's token given ``ids`` before it; arguments as ``loss``."""
        return self.output.log_probs(self._hidden(frames, lengths, ids, id_lengths, language_weights))

    def start(self, frames: Tensor, lengths: Tensor, beam: int, language_weights: Tensor | None = None) -> DecoderState:
        """State of ``beam`` empty hypotheses per utterance of ``frames`` (B, T, E), ``lengths`` (B,)."""
        frames, frame_mask = _mask_frames(frames, lengths)
        cross = [layer.cross_attention.keys_values(frames) for layer in self._layers()]
        return DecoderState(beam, cross, frame_mask, [None] * len(cross), language_weights)

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """Append ``tokens`` (N,), at first ``sos_eos``, to the hypotheses; log-probabilities (N, V) of the next."""
        return self.output.log_probs(self.step_hidden(tokens, state))

    def step_hidden(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """`step` without the softmax: (N, D)."""
        hidden = self._embed(tokens[:, None], state.position)
        for index, layer in enumerate(self._layers()):
            hidden, state.past[index] = layer.step(
                hidden, state.past[index], state.cross[index], state.frame_mask, state.language_weights
            )
        state.position += 1
        return self.norm(hidden[:, 0])

    def with_tree_search(self, kind: str) -> "TreeSearch":
        """The same decoder for a search that does not look at all tokens: ``best-first`` or ``greedy``."""
        return TreeSearch(self, kind)

    def _hidden(
        self, frames: Tensor, lengths: Tensor, ids: Tensor, id_lengths: Tensor, language_weights: Tensor | None
    ) -> Tensor:
        frames, frame_mask = _mask_frames(frames, lengths)
        padding = torch.arange(ids.size(1), device=ids.device) >= id_lengths[:, None]
        hidden = self._embed(F.pad(ids.masked_fill(padding, self.sos_eos), (1, 0), value=self.sos_eos))
        for layer in self._layers():
            hidden = layer(hidden, layer.cross_attention.keys_values(frames), frame_mask, language_weights)
        return self.norm(hidden)

    def _embed(self, ids: Tensor, start: int = 0) -> Tensor:
        positions = torch.arange(start, start + ids.size(1), device=ids.device)
        embedded = self.embedding(ids) * self.embedding.embedding_dim**0.5
        return self.dropout(embedded + sinusoidal_positions(positions, embedded.size(-1)).to(embedded.dtype))

    def _layers(self) -> list[DecoderLayer]:
        return cast(list[DecoderLayer], list(self.blocks))


class TreeSearch:
    """An attention decoder that gives probabilities only to the end and to tokens that a search down its tree finds.

    ``best-first`` finds the 2 K best besides blank and the end, which is all that a search with K hypotheses can use
    when it asks nobody else (CTC) and allows every token; ``greedy`` descends with as many nodes, and may miss some.
    """

    def __init__(self, decoder: AttentionDecoder, kind: str) -> None:
        if not isinstance(decoder.output, HierarchicalSoftmax):
            raise ValueError(
                f"decode.tree_search={kind} needs a tree; this model was trained with vocab.output=softmax"
            )
        self.decoder, self.output, self.kind = decoder, decoder.output, kind
        self.start = decoder.start

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """As `AttentionDecoder.step`."""
        hidden, count = self.decoder.step_hidden(tokens, state), min(2 * state.beam + 2, len(self.output.tree))
        search = self.output.best_first if self.kind == "best-first" else self.output.descend
        log_probs, ids = search(hidden, count)
        found = log_probs.new_full((len(hidden), len(self.output.tree)), -torch.inf).scatter(1, ids, log_probs)
        ends = torch.full_like(tokens, self.decoder.sos_eos)
        found[:, self.decoder.sos_eos] = -self.output.loss(hidden, ends, smoothing=0.0)
        return found


def _mask_frames(frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Frames (B, T, E) with zeros in the padding, and the mask (B, 1, 1, T) of those that may be attended to.

    Zeros, because attention multiplies the padding by 0, and 0 * NaN is NaN. An utterance without frames attends to one
    zero frame: a softmax over nothing has no value.
    """
    frames = F.pad(frames, (0, 0, 0, 1)) if frames.size(1) == 0 else frames
    positions = torch.arange(frames.size(1), device=frames.device)
    padding = positions >= lengths[:, None]
    mask = positions < lengths.clamp(min=1)[:, None]
    return frames.masked_fill(padding[..., None], 0.0), mask[:, None, None]
