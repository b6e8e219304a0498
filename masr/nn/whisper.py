"""Whisper's encoder and decoder (Radford et al. 2022, arXiv 2212.04356) around the layers of transformers.

Layers and weights are those of transformers, so that whatever finds linear layers there (peft) finds them here. Our own
is what runs them: on recordings as long as they are, each in its own language, with prompts of vectors, as many
hypotheses as a beam has over one set of frames.

B batch, T frames, F mel bins, U tokens, P tokens before the text, V vocabulary, D width, H heads, K languages,
N hypotheses.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from masr.config import Whisper
from masr.data.features import FRAME_SHIFT
from masr.nn.attention_decoder import DecoderState, KeysValues
from masr.nn.encoder import EncoderOutput
from masr.nn.subsampling import length_mask
from masr.text.whisper_tokenizer import WhisperTokenizer

FACTOR = 2
"""Frames of 10 ms that become one encoder frame."""
BEYOND = 3
"""Frames of 10 ms of which the features of a recording can have more than it lasts: half a window, and the last one."""
QUIETEST, RANGE = -1.5, 2.0
"""Smallest log-mel value, and how much below the largest one of a recording values can be."""


class WhisperEncoder(nn.Module):
    """Log-mel features (B, T, F) -> EncoderOutput, a frame every 20 ms."""

    factor, causal = FACTOR, False
    language_adapters = None

    def __init__(self, encoder: Any, options: Whisper):
        super().__init__()
        self.prompts: Any = None
        """(B, K) weights of languages -> (N, B, L, D): vectors before the frames of the first N blocks."""
        self.experts: Any = None
        """Low-rank changes of the blocks, as long as its `use` with the weights lasts."""
        self.conv1, self.conv2, self.positions = encoder.conv1, encoder.conv2, encoder.embed_positions
        self.blocks, self.norm = encoder.layers, encoder.layer_norm
        self.full, self.margin = options.context == "full", round(options.margin / FRAME_SHIFT)
        self.width = encoder.layer_norm.weight.numel()

    def forward(self, features: Tensor, lengths: Tensor, language_weights: Tensor | None = None) -> EncoderOutput:
        """(B, T, F), (B,), (B, K) -> EncoderOutput. Without weights nothing that was adapted is used.

        ValueError for more frames than Whisper has positions for.
        """
        recorded = ((lengths - BEYOND) // FACTOR).clamp(min=1)
        features, lengths = self.with_silence(features, lengths)
        frames, lengths = self._subsample(features, lengths)
        with_prompts = self.prompts is not None and language_weights is not None
        prompts = self.prompts(language_weights) if with_prompts else frames.new_zeros(1, len(frames), 0, self.width)
        before = prompts.shape[2]
        size = before + frames.shape[1]
        mask = None if bool((lengths == size - before).all()) else length_mask(lengths + before, size)[:, None, None]
        with _used(self.experts, language_weights):
            for number, block in enumerate(self.blocks):
                if number < len(prompts):  # those that a block made of the prompt before are dropped
                    frames = torch.cat((prompts[number], frames[:, before if number else 0 :]), 1)
                frames = block(frames, mask)
        return EncoderOutput(self.norm(frames[:, before:]), lengths, recorded=recorded)

    def with_silence(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Recordings with silence after them, zero behind that, and their new lengths: 30 s (``context`` full), or as
        ``margin`` says."""
        longest = FACTOR * self.positions.num_embeddings
        if int(lengths.max()) > longest:
            raise ValueError(f"{int(lengths.max())} frames, but Whisper hears {longest} at most: cut the recording")
        new = torch.full_like(lengths, longest) if self.full else (lengths + self.margin).clamp(max=longest)
        features = F.pad(features, (0, 0, 0, int(new.max()) - features.shape[1]))
        positions = torch.arange(features.shape[1], device=features.device)
        heard, filled = positions < lengths[:, None], positions < new[:, None]
        loudest = features.masked_fill(~heard[..., None], QUIETEST).amax((1, 2))
        silence = (loudest - RANGE).clamp(min=QUIETEST)[:, None] * (filled & ~heard)
        return torch.where(heard[..., None], features, silence[..., None]), new

    def _subsample(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Convolutions that see zeros behind a recording, as they do behind 30 s; (B, T / 2, D)."""
        frames = F.gelu(self.conv1(features.transpose(1, 2)))
        frames = frames * length_mask(lengths, frames.shape[2])[:, None]
        frames = F.gelu(self.conv2(frames)).transpose(1, 2)
        return frames + self.positions.weight[: frames.shape[1]], (lengths + 1) // FACTOR


class WhisperDecoder(nn.Module):
    """Predicts text after the tokens of start, language and task; ``language_weights`` (B, K) choose the language."""

    blank = -1

    def __init__(self, decoder: Any, tokenizer: WhisperTokenizer, suppressed: list[int], suppressed_first: list[int]):
        super().__init__()
        self.embedding, self.positions = decoder.embed_tokens, decoder.embed_positions
        self.blocks, self.norm = decoder.layers, decoder.layer_norm
        self.sos_eos, self.start_token, self.task = tokenizer.end, tokenizer.start, tokenizer.task
        self.multilingual, self.no_speech = tokenizer.multilingual, tokenizer.no_speech
        self.first_timestamp, self.latest_first = tokenizer.first_timestamp, 0
        """Id of that of 0.00 s, and how many after it a text may begin with."""
        self.vocabulary = len(tokenizer)
        self.language_tokens: Tensor
        self.never: Tensor
        self.never_first: Tensor
        self.register_buffer("language_tokens", torch.tensor(tokenizer.language_tokens), persistent=False)
        self.register_buffer("never", self._marked([*suppressed, *range(self.sos_eos + 1, len(tokenizer))]), False)
        self.register_buffer("never_first", self._marked(suppressed_first), False)
        self.label_smoothing = 0.0
        self.previous = tokenizer.previous
        self.prompts: Any = None
        self.experts: Any = None
        self.language_vectors: Any = None
        """() -> (K, D), in the place of the vectors of languages' tokens."""

    def _marked(self, tokens: list[int]) -> Tensor:
        marked = torch.zeros(self.vocabulary, dtype=torch.bool)
        marked[tokens] = True
        return marked

    @property
    def longest(self) -> int:
        """Most tokens of a text: there are positions for them, what comes before and the end."""
        return self.positions.num_embeddings - 3 - len(self.task) - self.before

    @property
    def before(self) -> int:
        """Positions of the prompt, which stands where Whisper has the text before, behind a token that says so."""
        return 0 if self.prompts is None else 1 + self.prompts.length

    def beginning(self, language_weights: Tensor, timestamps: bool = False) -> Tensor:
        """Tokens (B, P) before the text in the language of the largest weight, some in the places of the prompt.

        With ``timestamps`` nothing says that there shall be none. An English Whisper is told no language.
        """
        languages = self.language_tokens[language_weights.argmax(-1)]
        task = self.task[:-1] if timestamps else self.task
        named = [0] if self.multilingual else []
        tokens = [self.previous] * self.before + [self.start_token, *named, *task]
        beginning = languages.new_tensor(tokens).repeat(len(languages), 1)
        if self.multilingual:
            beginning[:, self.before + 1] = languages
        return beginning

    def hidden(
        self, frames: Tensor, lengths: Tensor, ids: Tensor, id_lengths: Tensor, language_weights: Tensor
    ) -> Tensor:
        """(B, P + U, D) after every token of the beginning and of texts ``ids`` (B, U), whose padding is ignored."""
        state = self.start(frames, lengths, 1, language_weights)
        return self._run(self._given(ids, id_lengths, language_weights), state)

    def _given(self, ids: Tensor, id_lengths: Tensor, language_weights: Tensor) -> Tensor:
        """(B, P + U): the beginning, and texts ``ids`` (B, U)."""
        padding = torch.arange(ids.shape[1], device=ids.device) >= id_lengths[:, None]
        return torch.cat((self.beginning(language_weights), ids.masked_fill(padding, self.sos_eos)), 1)

    def attention_scores(
        self, frames: Tensor, lengths: Tensor, ids: Tensor, id_lengths: Tensor, language_weights: Tensor,
        heads: Sequence[tuple[int, int]],
    ) -> Tensor:  # fmt: skip
        """(B, H, U + 2, T), before the softmax, of heads (layer, number) as the last token before the texts, the texts
        ``ids`` and their end are written; other arguments as ``loss``."""
        state, asking = self.start(frames, lengths, 1, language_weights), list[Tensor]()
        self._run(self._given(ids, id_lengths, language_weights), state, asking)
        scores = {layer: self._scores(layer, asking[layer][:, -ids.shape[1] - 2 :], state) for layer, _ in heads}
        return torch.stack([scores[layer][:, head] for layer, head in heads], 1)

    def _scores(self, layer: int, asking: Tensor, state: DecoderState) -> Tensor:
        """(B, U, D) -> (B, H, U, T): how a layer attends to frames."""
        attention = self.blocks[layer].encoder_attn
        queries = _heads(attention, attention.q_proj(asking), len(asking))
        return queries @ state.cross[layer][0].transpose(2, 3) * attention.head_dim**-0.5

    def loss(
        self, frames: Tensor, lengths: Tensor, ids: Tensor, id_lengths: Tensor, language_weights: Tensor
    ) -> Tensor:
        """Negative log-likelihood (B,) in nats, summed over the U tokens of each text and its end."""
        hidden = self.hidden(frames, lengths, ids, id_lengths, language_weights)
        return self.text_loss(hidden, ids, id_lengths)

    def text_loss(self, hidden: Tensor, ids: Tensor, id_lengths: Tensor) -> Tensor:
        """`loss` of what `hidden` gave."""
        logits, targets, counted = self.text_logits(hidden, ids, id_lengths)
        losses = F.cross_entropy(logits, targets, reduction="none", label_smoothing=self.label_smoothing)
        return sum_of_each(losses, counted)

    def text_logits(self, hidden: Tensor, ids: Tensor, id_lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (M, V) and targets (M,) of all tokens and ends of texts, and where these are: (B, U + 1) bool."""
        positions = torch.arange(ids.shape[1] + 1, device=ids.device)
        counted = positions <= id_lengths[:, None]
        targets = F.pad(ids, (0, 1)).masked_fill(positions >= id_lengths[:, None], self.sos_eos)
        return self._logits(hidden[:, -ids.shape[1] - 1 :][counted]), targets[counted], counted

    def log_probs(
        self, frames: Tensor, lengths: Tensor, ids: Tensor, id_lengths: Tensor, language_weights: Tensor
    ) -> Tensor:
        """Log-probabilities (B, U + 1, V) of each position's token given ``ids`` before it; arguments as ``loss``."""
        hidden = self.hidden(frames, lengths, ids, id_lengths, language_weights)
        return self._logits(hidden[:, -ids.shape[1] - 1 :]).log_softmax(-1)

    def language_logits(self, hidden: Tensor) -> Tensor:
        """(B, K) of the languages, from what `hidden` gave."""
        return hidden[:, self.before] @ self.embedding.weight[self.language_tokens].T

    def name_languages(self, frames: Tensor, lengths: Tensor, language_weights: Tensor | None) -> Tensor:
        """(B, K) logits, before the language is known; without weights nothing that was adapted is used."""
        if language_weights is None:
            given = torch.full((len(frames), 1), self.start_token, device=frames.device)
        else:
            given = self.beginning(language_weights)[:, : self.before + 1]
        hidden = self._run(given, self.start(frames, lengths, 1, language_weights))
        return hidden[:, -1] @ self.embedding.weight[self.language_tokens].T

    def start(self, frames: Tensor, lengths: Tensor, beam: int, language_weights: Tensor | None) -> DecoderState:
        """State of ``beam`` empty hypotheses per utterance of ``frames`` (B, T, D), ``lengths`` (B,)."""
        with _used(self.experts, language_weights):
            cross = [_keys_values(block.encoder_attn, frames, len(frames)) for block in self.blocks]
        mask = length_mask(lengths, frames.shape[1])[:, None, None]
        return DecoderState(beam, cross, mask, [None] * len(cross), language_weights)

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """Append ``tokens`` (N,), at first ``sos_eos``, to the hypotheses; log-probabilities (N, V) of the next."""
        if state.position:
            logits, never = self.next_logits(tokens, state), self.never
        else:
            logits, never = self.first_logits(state)[0], self.never | self.never_first
        return logits.log_softmax(-1).masked_fill(never, -torch.inf)

    def first_logits(self, state: DecoderState, timestamps: bool = False) -> tuple[Tensor, Tensor]:
        """(N, V) of the first token of a text, and (N, V) of the token after the start, where Whisper says whether
        there is speech."""
        assert state.language_weights is not None
        given = self.beginning(state.language_weights, timestamps).repeat_interleave(state.beam, 0)
        hidden = self._run(given, state)
        return self._logits(hidden[:, -1]), self._logits(hidden[:, self.before])

    def next_logits(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """(N, V) of the tokens after ``tokens`` (N,), whatever they are."""
        return self._logits(self._run(tokens[:, None], state)[:, -1])

    def _logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.embedding.weight[: self.vocabulary])

    def _run(self, ids: Tensor, state: DecoderState, asking: list[Tensor] | None = None) -> Tensor:
        """(N, U) next tokens of the hypotheses -> (N, U, D); ``asking`` gets what asks for frames in each layer."""
        embedded, prompts = self._embedded(ids, state)
        hidden = embedded + self.positions.weight[state.position : state.position + ids.shape[1]]
        with _used(self.experts, state.language_weights):
            for number, (block, cross) in enumerate(zip(self.blocks, state.cross, strict=True)):
                if 0 < number < len(prompts):
                    hidden = torch.cat((hidden[:, :1], prompts[number], hidden[:, self.before :]), 1)
                hidden, state.past[number], queries = _layer(block, hidden, state.past[number], cross, state.frame_mask)
                if asking is not None:
                    asking.append(queries)
        state.position += ids.shape[1]
        return self.norm(hidden)

    def _embedded(self, ids: Tensor, state: DecoderState) -> tuple[Tensor, Sequence[Tensor]]:
        """(N, U, D) of tokens, and the prompts of the layers if these are the first tokens of a text."""
        embedded, weights = self.embedding(ids), state.language_weights
        if state.position or weights is None:
            return embedded, []
        weights = weights.repeat_interleave(state.beam, 0)
        place = self.before + 1
        if self.language_vectors is not None and self.multilingual and ids.shape[1] > place:
            named = self.language_vectors()[weights.argmax(-1)][:, None]
            embedded = torch.cat((embedded[:, :place], named, embedded[:, place + 1 :]), 1)
        if self.prompts is None:
            return embedded, []
        prompts = self.prompts(weights)
        return torch.cat((embedded[:, :1], prompts[0], embedded[:, self.before :]), 1), list(prompts)


def _used(experts: Any, language_weights: Tensor | None) -> AbstractContextManager[None]:
    """While it lasts, the layers have the experts, if there are any, of these languages (B, K)."""
    return nullcontext() if experts is None else experts.use(language_weights)


def sum_of_each(losses: Tensor, counted: Tensor) -> Tensor:
    """Losses (M,) of the places that are ``counted`` (B, U) -> their sums (B,)."""
    return torch.zeros(counted.shape, device=losses.device).masked_scatter(counted, losses).sum(1)


def _layer(
    block: Any, hidden: Tensor, past: KeysValues | None, cross: KeysValues, mask: Tensor
) -> tuple[Tensor, KeysValues, Tensor]:
    """A decoder layer on (N, U, D): the first tokens, or one more; the keys and values of all up to it; what asked for
    frames (B, N / B U, D).

    The hypotheses of an utterance are one row (B, N / B U, D) of all linear layers, which may change with its language,
    and queries over one set of frames.
    """
    number, length = len(hidden), hidden.shape[1]
    hidden = hidden.reshape(len(mask), -1, hidden.shape[-1])
    normed = block.self_attn_layer_norm(hidden)
    keys, values = _keys_values(block.self_attn, normed, number)
    if past is not None:
        keys, values = torch.cat((past[0], keys), 2), torch.cat((past[1], values), 2)
    hidden = hidden + _attend(block.self_attn, normed, (keys, values), number, causal=length > 1)
    queries = block.encoder_attn_layer_norm(hidden)
    hidden = hidden + _attend(block.encoder_attn, queries, cross, len(mask), mask)
    normed = block.final_layer_norm(hidden)
    hidden = hidden + block.fc2(block.activation_fn(block.fc1(normed)))
    return hidden.view(number, length, -1), (keys, values), queries


def _keys_values(attention: Any, memory: Tensor, number: int) -> KeysValues:
    """(B, S, D) -> (N, H, B S / N, D / H) twice."""
    return _heads(attention, attention.k_proj(memory), number), _heads(attention, attention.v_proj(memory), number)


def _attend(
    attention: Any, rows: Tensor, keys_values: KeysValues, number: int, mask: Tensor | None = None, causal: bool = False
) -> Tensor:
    """(B, S, D) as N sequences of queries."""
    queries = _heads(attention, attention.q_proj(rows), number)
    context = F.scaled_dot_product_attention(queries, *keys_values, attn_mask=mask, is_causal=causal)
    return attention.out_proj(context.transpose(1, 2).reshape(rows.shape))


def _heads(attention: Any, projected: Tensor, number: int) -> Tensor:
    return projected.reshape(number, -1, attention.num_heads, attention.head_dim).transpose(1, 2)
