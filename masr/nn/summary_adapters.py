"""Adapters of each language in an encoder, mixed as a prompt allows and as a summary of the utterance suggests.

After csvMASR (Zhu et al. 2024, arXiv 2410.04478), of which the abstract alone could be read: that it has adapters, that
summary vectors mix their outputs for the whole utterance, and that it learns to classify languages beside. All else is
RECONSTRUCTED, and can be chosen in ``model.encoder.language_adapters``.

B batch, T frames, S summary vectors before the frames (0 or 1), D width, Z bottleneck, K languages.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from masr.config import Encoder as EncoderOptions
from masr.nn.mamba import without_decay
from masr.nn.subsampling import masked_mean

LEARNT = ("summary", "mean", "frame")
"""Kinds of weights that a classifier of languages gives; the others follow from the prompt alone."""


class MixedAdapters(nn.Module):
    """One bottleneck adapter a language (Houlsby et al. 2019, arXiv 1902.00751), of which the weighted sum is taken.

    sum_k w_k (U_k relu(V_k norm(x) + b_k) + c_k), which is one feed-forward layer of inner size K Z whose channels are
    weighted. U and c are zero at first, so that a new adapter changes nothing.
    """

    def __init__(self, width: int, bottleneck: int, languages: int):
        super().__init__()
        self.languages = languages
        bound = math.sqrt(1 / width)
        self.down = nn.Parameter(torch.empty(languages, bottleneck, width).uniform_(-bound, bound))
        self.down_bias = without_decay(torch.zeros(languages, bottleneck))
        self.up = nn.Parameter(torch.zeros(languages, bottleneck, width))
        self.up_bias = without_decay(torch.zeros(languages, width))

    def forward(self, hidden: Tensor, weights: Tensor) -> Tensor:
        """(B, T, D) and the weights of each utterance (B, 1, K) or frame (B, T, K) -> what is to be added (B, T, D).

        Outside of training only the adapters run that have a weight in this batch.
        """
        parts: list[Tensor] = [self.down, self.down_bias, self.up, self.up_bias]
        if not self.training and not (used := (weights != 0).flatten(0, -2).any(0)).all():
            parts, weights = [part[used] for part in parts], weights[..., used]
        down, down_bias, up, up_bias = parts
        normed = F.layer_norm(hidden, hidden.shape[-1:])  # a scale of its own would only be a part of V
        inner = F.relu(F.linear(normed, down.flatten(0, 1), down_bias.flatten())).unflatten(-1, down_bias.shape)
        return (inner * weights[..., None]).flatten(-2) @ up.flatten(0, 1) + weights @ up_bias


@dataclass
class Mixing:
    """What one pass through an encoder knows of languages."""

    mask: Tensor | None
    """(B, S + T), False on padding; None when nothing is padded."""
    prefix: int = 0
    """S, which the last adapters make 0."""
    allowed: Tensor | None = None
    """(B, K) bool, the prompt."""
    logits: list[Tensor] = field(default_factory=list)
    """(B, K) of every layer with adapters so far, without regard to the prompt."""
    weights: Tensor | None = None
    """(B, K) of the last one: zero for what the prompt does not allow."""

    @property
    def frame_mask(self) -> Tensor | None:
        """(B, T)."""
        return None if self.mask is None else self.mask[:, self.prefix :]


class LanguageAdapters(nn.Module):
    """The adapters of an encoder, the classifiers that weight them, and the summary vector that these look at.

    A Conformer carries a summary vector through its blocks up to the last adapters: it attends to the frames (and they
    to it, if ``summary_heard``), and the convolutions do not see it. A Mamba encoder has nothing by which frames could
    reach such a vector at once; its summary is the mean of the frames.
    """

    def __init__(self, options: EncoderOptions, languages: Sequence[str]):
        """``languages`` are those of prompts; ValueError for options that do not go together.

        Every parameter but the summary vector has the languages as its first dimension.
        """
        super().__init__()
        self.options = mine = options.language_adapters
        _check(options, languages)
        self.kept = [languages.index(code) for code in mine.languages] or list(range(len(languages)))
        self.languages = [languages[index] for index in self.kept]
        number, width = len(self.kept), options.width
        self.adapters = nn.ModuleDict({str(n): MixedAdapters(width, mine.bottleneck, number) for n in mine.layers})
        classified = ["all"] if mine.shared_classifier else map(str, mine.layers)
        learnt = mine.weights in LEARNT
        self.classifiers = nn.ModuleDict({name: nn.Linear(width, number) for name in classified if learnt})
        self.prefix = int(mine.weights == "summary" and options.type == "conformer")
        start = torch.zeros(1, 1, width)
        if self.prefix and mine.summary_start == "learned":
            self.summary = without_decay(start.normal_(std=0.02))
        else:
            self.register_buffer("summary", start, persistent=False)
        self.prompt_vectors = without_decay(torch.zeros(number, width)) if mine.prompt_vectors else None

    @property
    def classified(self) -> bool:
        """Whether they tell languages apart."""
        return bool(self.classifiers)

    def begin(self, frames: Tensor, mask: Tensor | None, allowed: Tensor | None) -> tuple[Tensor, Mixing]:
        """Frames (B, T, D) before the first block, padding mask (B, T), prompt (B, all languages) -> with a summary."""
        allowed = self._prompt(allowed, frames)
        if self.prompt_vectors is not None:
            frames = frames + (allowed.to(frames.dtype) @ self.prompt_vectors)[:, None]
        if not self.prefix:
            return frames, Mixing(mask, 0, allowed)
        start = masked_mean(frames, mask) if self.options.summary_start == "mean" else self.summary
        frames = torch.cat((start.expand(len(frames), -1, -1).to(frames.dtype), frames), 1)
        mask = None if mask is None else F.pad(mask, (self.prefix, 0), value=True)
        return frames, Mixing(mask, self.prefix, allowed)

    def forward(self, layer: int, frames: Tensor, mixing: Mixing) -> Tensor:
        """(B, S + T, D) behind a block, with its adapters' output added; behind the last ones S is 0."""
        if str(layer) not in self.adapters:
            return frames
        weights = self._weights(layer, frames, mixing)
        summary, frames = frames[:, : mixing.prefix], frames[:, mixing.prefix :]
        frames = frames + self.adapters[str(layer)](frames, weights)
        if mixing.prefix and self.options.summary_adapted:
            summary = summary + self.adapters[str(layer)](summary, weights)
        if layer == max(self.options.layers):
            mixing.mask, mixing.prefix = mixing.frame_mask, 0
            return frames
        return torch.cat((summary, frames), 1) if mixing.prefix else frames

    def _prompt(self, allowed: Tensor | None, frames: Tensor) -> Tensor:
        """(B, K) of this model's languages."""
        if allowed is None:
            return torch.ones(len(frames), len(self.kept), dtype=torch.bool, device=frames.device)
        allowed = allowed[:, self.kept]
        if not allowed.any(1).all():
            raise ValueError(f"a prompt allows none of the model's languages: {', '.join(self.languages)}")
        return allowed

    def _weights(self, layer: int, frames: Tensor, mixing: Mixing) -> Tensor:
        """(B, 1 or T, K), zero for languages that the prompt does not allow."""
        assert mixing.allowed is not None
        allowed = mixing.allowed[:, None]
        if self.options.weights not in LEARNT:
            weights = allowed.to(frames.dtype)
            if self.options.weights == "average":
                weights = weights / weights.sum(-1, keepdim=True)
        else:
            weights = self._gate(self._classify(layer, frames, mixing), allowed).to(frames.dtype)
        mixing.weights = masked_mean(weights, mixing.frame_mask)[:, 0] if weights.shape[1] > 1 else weights[:, 0]
        return weights

    def _classify(self, layer: int, frames: Tensor, mixing: Mixing) -> Tensor:
        """Logits (B, 1 or T, K) for the adapters of a layer, float32; adds its own to those of the pass."""
        if self.options.weights == "frame":
            seen = frames
        else:
            seen = frames[:, :1] if mixing.prefix else masked_mean(frames, mixing.frame_mask)
        logits = self.classifiers["all" if self.options.shared_classifier else str(layer)](seen).float()
        pooled = logits
        if self.options.weights == "frame":
            each = F.log_softmax(logits, -1) if self.options.gate == "softmax" else logits
            pooled = masked_mean(each, mixing.frame_mask)
        mixing.logits.append(pooled[:, 0])
        before = len(mixing.logits) > 1 and self.options.previous
        return mixing.logits[-2][:, None] if before else logits

    def _gate(self, logits: Tensor, allowed: Tensor) -> Tensor:
        if self.options.detached:
            logits = logits.detach()
        logits = logits.masked_fill(~allowed, -torch.inf)
        return logits.softmax(-1) if self.options.gate == "softmax" else logits.sigmoid()

    def loss(self, logits: Sequence[Tensor], languages: Tensor) -> Tensor:
        """(B,) of language numbers (B,) among K: mean over the layers; blind to the prompt, so that it never is 0."""
        if self.options.language_loss == "last":
            logits = logits[-1:]
        return torch.stack([self._layer_loss(each, languages) for each in logits]).mean(0)

    def _layer_loss(self, logits: Tensor, languages: Tensor) -> Tensor:
        if self.options.gate == "softmax":
            return F.cross_entropy(logits, languages, reduction="none")
        right = F.one_hot(languages, logits.shape[-1]).to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, right, reduction="none").sum(-1)


def _check(options: EncoderOptions, languages: Sequence[str]) -> None:
    mine, name = options.language_adapters, "model.encoder.language_adapters"
    if too_deep := [layer for layer in mine.layers if layer > options.layers]:
        raise ValueError(f"{name}.layers: {too_deep} is above model.encoder.layers={options.layers}")
    if sorted(set(mine.layers)) != mine.layers:
        raise ValueError(f"{name}.layers: {mine.layers} must rise")
    if unknown := [code for code in mine.languages if code not in languages]:
        raise ValueError(f"{name}.languages: unknown: {', '.join(unknown)}; the vocabulary has {', '.join(languages)}")
    if options.type == "mamba" and options.directions == "forward" and mine.weights in LEARNT:
        raise ValueError(
            f"{name}.weights: {mine.weights} needs the whole recording, which directions=forward does not see; use sum "
            "or average"
        )
    if mine.previous and len(mine.layers) < 2:
        raise ValueError(f"{name}.previous: needs adapters behind two blocks or more")
    if mine.detached and mine.language_loss == "last" and len(mine.layers) > 1 and not mine.shared_classifier:
        raise ValueError(f"{name}: detached with language_loss=last: nothing teaches the classifiers before the last")
    if idle := sorted(_idle(options)):
        raise ValueError(f"{name}: {', '.join(idle)}: without effect with weights={mine.weights}, type={options.type}")


def _idle(options: EncoderOptions) -> set[str]:
    """Options that are set although nothing looks at them."""
    mine, idle = options.language_adapters, set()
    if mine.weights not in LEARNT:
        idle |= {"gate", "shared_classifier", "previous", "detached", "language_loss"}
    if mine.weights == "frame":
        idle |= {"previous"}
    if mine.weights != "summary" or options.type != "conformer":
        idle |= {name for name in type(mine).model_fields if name.startswith("summary_")}
    return {name for name in idle if getattr(mine, name) != type(mine).model_fields[name].default}
