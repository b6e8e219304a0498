"""The encoder: subsampling, then a stack of blocks of the configured kind, with adapters of languages behind some.

B batch, T frames, F mel bins, D width, K languages.

An encoder whose blocks look back only (`causal`) can take a recording piece by piece: what its modules have to remember
between two pieces is in a `Memory`. When it is not training it always works in pieces of `PIECE` frames, so that a
stream gives the very numbers that the whole recording gives.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from masr.config import Encoder as EncoderOptions
from masr.nn.conformer import ConformerBlock
from masr.nn.depthwise import Memory
from masr.nn.dropout import Dropout
from masr.nn.mamba import MambaBlock
from masr.nn.subsampling import SUBSAMPLING, length_mask
from masr.nn.summary_adapters import LanguageAdapters, Mixing

BLOCKS = {"conformer": ConformerBlock, "mamba": MambaBlock}
PIECE = 16
"""Encoder frames that a causal encoder works on at once."""


@dataclass
class EncoderOutput:
    """What every encoder returns."""

    frames: Tensor
    """(B, T', D)."""
    lengths: Tensor
    """(B,) frames."""
    language_logits: Tensor | None = None
    """(B, K), from encoders that tell languages apart themselves; without regard to the prompt."""
    language_weights: Tensor | None = None
    """(B, K) shares that the last adapters had, zero for languages that the prompt does not allow."""
    intermediate: list[Tensor] = field(default_factory=list)
    """(B, T', D) outputs of the blocks that were asked for."""
    layer_language_logits: list[Tensor] = field(default_factory=list)
    """(B, K) of each layer with adapters."""
    recorded: Tensor | None = None
    """(B,) frames that lie in the recording, where silence was put behind it."""
    language_probabilities: Tensor | None = None
    """(B, K) of the languages that the prompt allows, where ``language_weights`` are those of a chosen one."""

    @property
    def heard(self) -> Tensor:
        """(B,) frames of the recording itself."""
        return self.lengths if self.recorded is None else self.recorded

    def tensors(self) -> list[Tensor]:
        """All that heads may look at and that depends on the encoder's parameters, (B, ...) each."""
        weights = [] if self.language_weights is None else [self.language_weights]
        return [self.frames, *self.intermediate, *self.layer_language_logits, *weights]

    def cut(self) -> tuple["EncoderOutput", list[Tensor]]:
        """The same without the encoder's graph, and the copies of its ``tensors`` that are in it."""
        copies = {id(t): t.detach().requires_grad_(t.requires_grad) for t in self.tensors()}
        logits, weights = self.language_logits, self.language_weights
        output = EncoderOutput(
            copies[id(self.frames)], self.lengths, None if logits is None else copies[id(logits)],
            None if weights is None else copies[id(weights)], [copies[id(t)] for t in self.intermediate],
            [copies[id(t)] for t in self.layer_language_logits], self.recorded,
        )  # fmt: skip
        return output, [copies[id(t)] for t in self.tensors()]


class Encoder(nn.Module):
    """Normalised features (B, T, F) -> EncoderOutput; ``languages`` are those of prompts, for adapters."""

    def __init__(
        self, mel_bins: int, options: EncoderOptions, intermediate_layers: tuple[int, ...] = (),
        languages: Sequence[str] = (),
    ):  # fmt: skip
        super().__init__()
        _check(options, intermediate_layers)
        subsampling = SUBSAMPLING[options.subsampling_type]
        self.subsampling = subsampling(mel_bins, options.width, options.subsampling_channels, options.subsampling)
        self.dropout = Dropout(options.dropout)
        self.blocks = nn.ModuleList(BLOCKS[options.type](options) for _ in range(options.layers))
        with_adapters = options.language_adapters.layers
        self.language_adapters = LanguageAdapters(options, languages) if with_adapters else None
        self.look_ahead = LookAhead(options.width, options.look_ahead) if options.look_ahead else None
        self.intermediate_layers = intermediate_layers
        self.factor, self.width = options.subsampling, options.width
        self.causal = is_causal(options)

    def forward(self, features: Tensor, lengths: Tensor, allowed_languages: Tensor | None = None) -> EncoderOutput:
        """(B, T, F), (B,) -> EncoderOutput. Adapters obey the prompt ``allowed_languages`` (B, K), None allows all."""
        if not self.causal or self.training:
            return self._encode(features, lengths, None, True, allowed_languages)
        memory: Memory = {}
        pieces = features.split(PIECE * self.factor, 1)
        outputs = [
            self.step(
                piece, lengths - number * PIECE * self.factor, memory, number == len(pieces) - 1, allowed_languages
            )
            for number, piece in enumerate(pieces)
        ]
        intermediate = [torch.cat(parts, 1) for parts in zip(*(o.intermediate for o in outputs), strict=True)]
        frames, weights = torch.cat([output.frames for output in outputs], 1), outputs[-1].language_weights
        return EncoderOutput(frames, self.subsampling.lengths(lengths), None, weights, intermediate)

    def step(
        self, features: Tensor, lengths: Tensor, memory: Memory, last: bool, allowed_languages: Tensor | None = None
    ) -> EncoderOutput:
        """The next piece of recordings: (B, T, F) of which utterances end after ``lengths`` (B,) frames, or go on.

        A piece is `PIECE` encoder frames, only the last one may be shorter. ``look_ahead`` of the output's ``frames``
        come with the next piece, the last one brings all that are left; its ``lengths`` count what went in.
        """
        return self._encode(features, lengths, memory, last, allowed_languages)

    def _encode(
        self, features: Tensor, lengths: Tensor, memory: Memory | None, last: bool, allowed: Tensor | None
    ) -> EncoderOutput:
        frames, lengths = self._subsample(features, lengths, memory)
        frames = self.dropout(frames)
        mask = None if bool((lengths >= frames.shape[1]).all()) else length_mask(lengths, frames.shape[1])
        frames, mixing = self._begin(frames, mask, allowed)
        intermediate = []
        for number, block in enumerate(self.blocks, 1):
            frames = block(frames, mixing.mask, memory, mixing.prefix)
            if self.language_adapters is not None:
                frames = self.language_adapters(number, frames, mixing)
            if number in self.intermediate_layers:
                intermediate.append(frames[:, mixing.prefix :])
        if self.look_ahead is not None:
            frames = self.look_ahead(frames, mask, memory, last)
        named = mixing.logits[-1] if mixing.logits else None
        return EncoderOutput(frames, lengths, named, mixing.weights, intermediate, mixing.logits)

    def _begin(self, frames: Tensor, mask: Tensor | None, allowed: Tensor | None) -> tuple[Tensor, Mixing]:
        if self.language_adapters is not None:
            return self.language_adapters.begin(frames, mask, allowed)
        return frames, Mixing(mask)

    def _subsample(self, features: Tensor, lengths: Tensor, memory: Memory | None) -> tuple[Tensor, Tensor]:
        """Convolutions see one encoder frame of the piece before, whose output is then dropped."""
        if memory is None:
            return self.subsampling(features, lengths)
        before = memory.get(self.subsampling)
        memory[self.subsampling] = features[:, -self.factor :]
        if before is None:
            return self.subsampling(features, lengths.clamp(0, features.shape[1]))
        together = torch.cat((before, features), 1)
        frames, found = self.subsampling(together, (lengths + self.factor).clamp(0, together.shape[1]))
        return frames[:, 1:], found - 1


class LookAhead(nn.Module):
    """A depthwise convolution over a frame and the ``size`` frames after it, added to the frame: (B, T, D) -> same.

    The only module of a forward encoder that looks ahead, as in streaming Mamba (Fang & Li 2024, arXiv 2410.00070).
    """

    def __init__(self, width: int, size: int):
        super().__init__()
        self.filters = nn.Parameter(torch.zeros(size + 1, width))

    def forward(self, frames: Tensor, mask: Tensor | None, memory: Memory | None, last: bool) -> Tensor:
        """With a memory the output is ``size`` frames late; ``last`` says that no more frames will come."""
        if mask is not None:
            frames = frames * mask[..., None]
        size = len(self.filters) - 1
        if memory is not None:
            before = memory.get(self)
            frames = frames if before is None else torch.cat((before, frames), 1)
            memory[self] = frames[:, -size:]
        if last:
            frames = F.pad(frames, (0, 0, 0, size))
        time = max(0, frames.shape[1] - size)
        result = frames[:, :time]
        for tap, weights in enumerate(self.filters):
            result = torch.addcmul(result, frames[:, tap : tap + time], weights)
        return result


def is_causal(options: EncoderOptions) -> bool:
    """Whether frames depend on those before them only, but for ``look_ahead``."""
    return options.type == "mamba" and options.directions == "forward"


def _check(options: EncoderOptions, intermediate_layers: tuple[int, ...]) -> None:
    if options.kernel % 2 == 0:
        raise ValueError(f"model.encoder.kernel: {options.kernel} is even; it must be odd")
    if too_deep := [layer for layer in intermediate_layers if layer >= options.layers]:
        raise ValueError(f"model.ctc.intermediate_layers: {too_deep} not below model.encoder.layers={options.layers}")
    if options.look_ahead and not is_causal(options):
        raise ValueError(
            f"model.encoder.look_ahead: {options.look_ahead}, but this encoder sees all frames; "
            "only type=mamba with directions=forward looks ahead"
        )
