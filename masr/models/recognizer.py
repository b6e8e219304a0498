"""The speech recogniser: normalised features -> encoder -> heads, all from one config. B utterances, K languages."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from masr.adapt.distill import Teacher
from masr.config import Config
from masr.data.batches import Batch
from masr.data.features import FRAME_SHIFT
from masr.decode.alignment import add_times
from masr.decode.hypothesis import Hypothesis
from masr.decode.utterances import Utterances
from masr.nn.attention_decoder import AttentionDecoder
from masr.nn.contrastive import CPC, SELF_SUPERVISED, BestRQ
from masr.nn.encoder import Encoder, EncoderOutput
from masr.nn.heads import CTCHead, LanguageClassifier, LanguageCTCHeads
from masr.nn.subsampling import length_mask, masked_mean
from masr.nn.summary_adapters import MixedAdapters
from masr.nn.translation import Translator
from masr.text.tokenizer import BLANK, START_END, Tokenizer
from masr.vocab.tree import Tree

DECIBELS = 10 / math.log(10)
"""In a unit of natural log energy."""
LOUDNESS = 0.75
"""Power of a frame's energy that is its weight in the loud level: 1 forgets silence best, 0.5 bears louder clicks."""
SPEECH_RANGE = 22.0
"""Decibels below the loud levels at which a frame counts by half as speech."""
SPEECH_EDGE = 1.0
"""Decibels over which that weight changes."""


class Recognizer(nn.Module):
    """Encoder with a CTC head and, where their weights are not zero, decoders of text and of translations and a
    language classifier."""

    feature_mean: Tensor
    feature_deviation: Tensor

    teacher: Teacher | None = None
    pretrained_names: frozenset[str] = frozenset()
    """Parameters that a pretrained model brings."""
    adapted: Sequence[Any] = ()
    """What learns in the place of a pretrained model."""
    encoder: Encoder
    ctc: CTCHead | LanguageCTCHeads
    attention_decoder: AttentionDecoder | None

    def __init__(self, config: Config, tokenizer: Tokenizer, tree: Tree | None = None, pretrained: Any = None):
        """``pretrained`` is the model whose parts it is to have, if any."""
        super().__init__()
        options = config.model
        if not options.ctc.weight and not options.attention_decoder.weight:
            raise ValueError(
                "model.ctc.weight and model.attention_decoder.weight are both 0: nothing learns to recognise"
            )
        if tree is not None and not options.attention_decoder.weight and not options.ctc.hierarchical:
            raise ValueError(
                f"vocab.output={config.vocab.output} is used by nothing: set model.attention_decoder.weight, or "
                "model.ctc.hierarchical=true"
            )
        if options.ctc.hierarchical and tree is None:
            raise ValueError("model.ctc.hierarchical needs a tree: set vocab.output to huffman, clustered or balanced")
        self.config, self.tokenizer, self.tree = config, tokenizer, tree
        self.register_buffer("feature_mean", torch.zeros(config.features.mel_bins))
        self.register_buffer("feature_deviation", torch.ones(config.features.mel_bins))
        self._build_parts(pretrained)
        self.self_supervised = self._build_self_supervised() if options.self_supervised.weight else None
        self.translator = self._build_translator() if options.translation.weight else None
        self.language_classifier = self._build_classifier() if options.language_classifier.weight else None
        self._check_adapters()

    def _build_parts(self, pretrained: Any) -> None:
        """Encoder, CTC head and attention decoder."""
        options = self.config.model
        layers = tuple(options.ctc.intermediate_layers)
        self.encoder = Encoder(self.config.features.mel_bins, options.encoder, layers, self.tokenizer.languages)
        self.ctc = self._build_ctc()
        self.ctc.requires_grad_(options.ctc.weight > 0)  # distributed wrappers wait for every gradient asked for
        self.attention_decoder = self._build_decoder() if options.attention_decoder.weight else None

    def _check_adapters(self) -> None:
        options, adapters = self.config.model, self.config.model.encoder.language_adapters
        for name in ("previous", "detached"):
            if adapters.layers and getattr(adapters, name) and not options.language_classifier.weight:
                raise ValueError(
                    f"model.encoder.language_adapters.{name}: a classifier that learns only from "
                    "model.language_classifier.weight, which is 0"
                )
        if adapters.decoder and not (adapters.layers and options.attention_decoder.weight):
            raise ValueError(
                "model.encoder.language_adapters.decoder: needs adapters in the encoder (layers), whose weights it "
                "uses, and model.attention_decoder.weight"
            )

    @property
    def languages(self) -> list[str]:
        """The languages that it can be asked for: those of its vocabulary, or of what was exported."""
        adapters = self.encoder.language_adapters
        return self.tokenizer.languages if adapters is None else adapters.languages

    def set_statistics(self, mean: Tensor, deviation: Tensor) -> None:
        """Mean and standard deviation (F,) by which features are normalised."""
        self.feature_mean.copy_(mean)
        self.feature_deviation.copy_(deviation)

    def encode(self, features: Tensor, lengths: Tensor, allowed_languages: Tensor | None = None) -> EncoderOutput:
        """(B, T, F) log-mel, (B,) frames, (B, K) -> EncoderOutput."""
        return self.encoder(self.normalize(features, lengths), lengths, allowed_languages)

    def normalize(self, features: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, F) log-mel, (B,) frames -> the same with the mean taken off and in units of the standard deviation."""
        mean = self.feature_mean
        if self.config.model.normalization == "utterance":
            mean = utterance_mean(features, lengths)
        if self.config.model.normalization == "speech":
            mean = speech_mean(features, lengths)
        return (features - mean) / self.feature_deviation

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`objectives`, under the name that distributed wrappers call."""
        return self.objectives(batch)

    def objectives(self, batch: Batch) -> dict[str, Tensor]:
        """Loss sums over the batch, named ``<objective>/<language>``: ctc, intermediate-ctc, attention, st, lid.

        Of speech without text (a batch without targets): cpc or best-rq, with its language, too.
        """
        encoded, target = self.encode_views(batch)
        losses = self.losses(encoded, batch, target)
        if not batch.languages:  # nothing to learn from, but every parameter must have its (zero) gradient
            return {f"{next(iter(losses))}/": 0.0 * torch.cat(list(losses.values())).sum()}
        return by_language(losses, batch.languages)

    def encode_views(self, batch: Batch) -> tuple[list[EncoderOutput], Any]:
        """What the encoder makes of a batch: once, or of speech without text as its objective wants it, and what that
        has to find in it."""
        if batch.targets:
            return [self.encode(batch.features, batch.feature_lengths, batch.allowed_languages)], None
        assert self.self_supervised is not None and batch.random is not None
        views, target = self.self_supervised.views(batch.features, batch.feature_lengths, batch.random, batch.groups)
        return [self.encode(*view, batch.allowed_languages) for view in views], target

    def losses(self, outputs: Sequence[EncoderOutput], batch: Batch, target: Any = None) -> dict[str, Tensor]:
        """Losses of all heads on what the encoder made of a batch: (B,) by objective."""
        if not batch.targets:
            assert self.self_supervised is not None
            return {self.config.model.self_supervised.kind: self.self_supervised.loss(outputs, target)}
        [encoded] = outputs
        losses = self._recognition_losses(encoded, batch)
        if self.translator is not None:
            translations = batch.targets["translation"]
            losses["st"] = self.translator.loss(encoded.frames, encoded.lengths, *translations, batch.languages)
        return losses

    def _recognition_losses(self, encoded: EncoderOutput, batch: Batch) -> dict[str, Tensor]:
        frames, lengths = encoded.frames, encoded.lengths
        ids, id_lengths = batch.targets["transcript"]
        losses = {}
        if self.config.model.ctc.weight:
            losses["ctc"] = self._ctc_loss(frames, lengths, batch)
        if self.config.model.ctc.weight and encoded.intermediate:
            each = [self._ctc_loss(middle, lengths, batch) for middle in encoded.intermediate]
            losses["intermediate-ctc"] = torch.stack(each).mean(0)
        if self.attention_decoder is not None:
            losses["attention"] = self.attention_decoder.loss(
                frames, lengths, ids, id_lengths, encoded.language_weights
            )
        if self.config.model.language_classifier.weight:
            losses["lid"] = self._language_loss(encoded, self._language_numbers(batch))
        return losses

    def _ctc_loss(self, frames: Tensor, lengths: Tensor, batch: Batch) -> Tensor:
        """(B,) of frames (B, T, D), the last or those of a block between."""
        ids, id_lengths = batch.targets["transcript"]
        if isinstance(self.ctc, LanguageCTCHeads):
            return self.ctc.loss(frames, lengths, ids, id_lengths, self._language_numbers(batch))
        return self.ctc.loss(frames, lengths, ids, id_lengths)

    def ctc_log_probs(self, encoded: EncoderOutput, allowed_languages: Tensor) -> tuple[Tensor, Tensor]:
        """Posteriors of CTC (B, S, V), natural log, and their lengths (B,), under a prompt (B, K)."""
        if not isinstance(self.ctc, LanguageCTCHeads):
            return self.ctc.log_probs(encoded.frames, encoded.lengths)
        shares = self._language_shares(encoded, allowed_languages)
        if shares is None:
            own = allowed_languages[:, self._own_languages()].float()
            shares = own / own.sum(1, keepdim=True)
        return self.ctc.log_probs(encoded.frames, encoded.lengths, shares)

    def _language_shares(self, encoded: EncoderOutput, allowed_languages: Tensor) -> Tensor | None:
        """(B, L) probabilities of the allowed languages, as the classifier says; None where none tells."""
        logits = self._language_logits(encoded)
        if logits is None:
            return None
        return logits.masked_fill(~allowed_languages[:, self._own_languages()], -torch.inf).softmax(-1)

    def language_probabilities(self, encoded: EncoderOutput, allowed_languages: Tensor) -> list[dict[str, float]]:
        """Of each utterance the probability of each allowed language (B, K); nothing where no classifier tells."""
        shares = self._language_shares(encoded, allowed_languages)
        if shares is None:
            return [{} for _ in allowed_languages]
        allowed = allowed_languages[:, self._own_languages()].tolist()
        found = []
        for row, accepted in zip(shares.tolist(), allowed, strict=True):
            named = zip(self.languages, row, accepted, strict=True)
            found.append({code: round(share, 4) for code, share, yes in named if yes})
        return found

    def _own_languages(self) -> list[int]:
        """Numbers of `languages` among those of prompts."""
        return [self.tokenizer.languages.index(code) for code in self.languages]

    def _language_numbers(self, batch: Batch) -> Tensor:
        numbers = [self.languages.index(code) for code in batch.languages] or [0]
        return torch.tensor(numbers, device=batch.features.device)

    def _language_loss(self, encoded: EncoderOutput, languages: Tensor) -> Tensor:
        if self.language_classifier is not None:
            return self.language_classifier.loss(encoded.frames, encoded.lengths, languages)
        assert self.encoder.language_adapters is not None
        return self.encoder.language_adapters.loss(encoded.layer_language_logits, languages)

    @property
    def frame_seconds(self) -> float:
        """Duration of a CTC frame."""
        return FRAME_SHIFT * self.config.model.encoder.subsampling / self.config.model.ctc.upsampling

    @property
    def tokens_per_frame(self) -> float:
        """Most tokens that an attention search writes for an encoder frame."""
        return self.ctc.upsampling

    def add_times(self, best: Sequence[Hypothesis], utterances: Utterances) -> None:
        """Start and end of every token of the best hypothesis of each utterance, where they can be found."""
        for row, hypothesis in enumerate(best):
            add_times(hypothesis, utterances.log_probs[row, : utterances.ctc_lengths[row]], self)

    def predict_languages(
        self, encoded: EncoderOutput, found: list[list[Hypothesis]], allowed_languages: Tensor
    ) -> list[str | None]:
        """The language of each utterance: the one allowed (B, K), or as the classifier, the text or the search names
        it."""
        named = self._named_languages(encoded, found, allowed_languages)
        known = self.tokenizer.languages
        only = [row.index(True) if sum(row) == 1 else None for row in allowed_languages.tolist()]
        return [name if one is None else known[one] for name, one in zip(named, only, strict=True)]

    def _named_languages(
        self, encoded: EncoderOutput, found: list[list[Hypothesis]], allowed_languages: Tensor
    ) -> list[str | None]:
        logits = self._language_logits(encoded)
        if logits is not None:
            best = logits.masked_fill(~allowed_languages[:, self._own_languages()], -torch.inf).argmax(-1)
            return [self.languages[i] for i in best.tolist()]
        return [self.tokenizer.language_of(nbest[0].tokens) or nbest[0].language for nbest in found]

    def _language_logits(self, encoded: EncoderOutput) -> Tensor | None:
        """(B, L) of the language classifier, its own or that of the adapters; None where none has learnt."""
        if self.language_classifier is not None:
            return self.language_classifier.log_probs(encoded.frames, encoded.lengths)
        return encoded.language_logits if self.config.model.language_classifier.weight else None

    def objective_weights(self) -> dict[str, float]:
        """Weight of every objective in plain training."""
        options = self.config.model
        share = options.ctc.intermediate_weight if options.ctc.intermediate_layers else 0.0
        weights = {
            "ctc": options.ctc.weight * (1 - share), "intermediate-ctc": options.ctc.weight * share,
            "attention": options.attention_decoder.weight, "st": options.translation.weight,
            "lid": options.language_classifier.weight,
            options.self_supervised.kind: options.self_supervised.weight,
        }  # fmt: skip
        return {name: weight for name, weight in weights.items() if weight}

    def _build_ctc(self) -> CTCHead | LanguageCTCHeads:
        options, width, size = self.config.model.ctc, self.encoder.width, len(self.tokenizer)
        if not options.per_language:
            return CTCHead(width, size, options.upsampling, BLANK, self.tree if options.hierarchical else None)
        if options.hierarchical:
            raise ValueError(
                "model.ctc.per_language: a tree (model.ctc.hierarchical) is one of all tokens, and heads by language "
                "have their own; set one of the two to false"
            )
        tokens = {code: self.tokenizer.usable([code]) for code in self.languages}
        return LanguageCTCHeads(width, tokens, size, options.upsampling)

    def _build_decoder(self) -> AttentionDecoder:
        options = self.config.model.attention_decoder
        return AttentionDecoder(
            len(self.tokenizer), self.encoder.width, options.width, options.layers, options.heads,
            options.feedforward, options.dropout, START_END, options.label_smoothing, self.tree, options.smoothed,
            self._decoder_adapters(), options.bias,
        )  # fmt: skip

    def _build_classifier(self) -> LanguageClassifier | None:
        """One of its own, unless the encoder's adapters have them."""
        adapters = self.encoder.language_adapters
        classified = adapters is not None and adapters.classified
        return None if classified else LanguageClassifier(self.encoder.width, len(self.languages))

    def _build_self_supervised(self) -> CPC | BestRQ:
        options = self.config.model.self_supervised
        kind = SELF_SUPERVISED[options.kind]
        return kind(self.config.features.mel_bins, self.encoder.width, options, self.encoder.factor)

    def _build_translator(self) -> Translator:
        if self.tokenizer.translation is None:
            raise ValueError("model.translation.weight: there is nothing to translate into: set vocab.translation.into")
        options, width = self.config.model.translation, self.encoder.width
        translated = list(self.tokenizer.translation.used)
        return Translator(len(self.tokenizer.translation), width, options, translated, START_END)

    def fold(self) -> None:
        """Simplifies what was only there to learn more easily."""

    def start_near(self) -> None:
        """Gives new languages what near ones have, where a language has parameters of its own."""

    def learned(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """What of a state has to be kept: all of it, unless most is that of a pretrained model."""
        return weights

    def load_learned(self, weights: dict[str, Tensor]) -> None:
        """Takes what `learned` gave; RuntimeError when it is of another model."""
        self.load_state_dict(weights)

    def base_hash(self, weights: dict[str, Tensor]) -> str | None:
        """Stands for what ``weights`` do not hold, if they do not hold all."""
        return None

    def hash_of_base(self) -> str | None:
        """Stands for the weights of a pretrained model, where there is one."""
        return None

    def save_description(self, folder: Path) -> None:
        """Writes what a pretrained model needs beside config and weights."""

    def _decoder_adapters(self) -> tuple[int, int]:
        """Bottleneck and number of the adapters in the attention decoder."""
        adapters = self.encoder.language_adapters
        if adapters is None or not adapters.options.decoder:
            return 0, 0
        return adapters.options.bottleneck, len(adapters.languages)


def by_language(losses: dict[str, Tensor], languages: list[str]) -> dict[str, Tensor]:
    """Splits per-utterance losses (B,) into one sum per language."""
    sums = {}
    for code in sorted(set(languages)):
        rows = torch.tensor([other == code for other in languages])
        for name, values in losses.items():
            sums[f"{name}/{code}"] = values[rows.to(values.device)].sum()
    return sums


def utterance_mean(features: Tensor, lengths: Tensor) -> Tensor:
    """(B, T, F), (B,) -> (B, 1, F): the mean of each utterance's own frames."""
    return masked_mean(features, length_mask(lengths, features.shape[1]))


def speech_mean(features: Tensor, lengths: Tensor) -> Tensor:
    """(B, T, F) log-mel energies, (B,) -> (B, 1, F): the mean of each utterance's frames in which someone speaks.

    A bin's loud level is the mean of its levels over time, weighted so that zeros and faint noise add next to nothing
    however long they are. A frame counts whose bins are on average less than 22 dB below theirs; near that bound its
    weight goes smoothly to 0. Levels of each bin of its own make it the same behind any microphone.
    """
    mask = length_mask(lengths, features.shape[1])
    levels = features.float().masked_fill(~mask[..., None], -torch.inf)
    weighted = (2 * LOUDNESS * levels).logsumexp(1, keepdim=True) - (LOUDNESS * levels).logsumexp(1, keepdim=True)
    loud = weighted / LOUDNESS  # (B, 1, F)
    below = DECIBELS * (loud - features).mean(-1)  # (B, T)
    weights = torch.sigmoid((SPEECH_RANGE - below) / SPEECH_EDGE) * mask
    total = weights.sum(1)[:, None, None].clamp(min=1e-6)
    return (features * weights[..., None]).sum(1, keepdim=True) / total


def parameter_count(model: nn.Module) -> int:
    """Parameters of a model."""
    return sum(parameter.numel() for parameter in model.parameters())


def parameter_count_for_one_language(model: Recognizer) -> int:
    """Parameters that are left when the adapters of one language alone are exported."""
    if model.encoder.language_adapters is None:
        return parameter_count(model)
    parts: list[nn.Module] = [p for p in model.modules() if isinstance(p, MixedAdapters | LanguageClassifier)]
    parts += [*model.encoder.language_adapters.classifiers.values()]
    if isinstance(model.ctc, LanguageCTCHeads):
        parts.append(model.ctc)
    number = sum(parameter_count(part) for part in parts)
    if (vectors := model.encoder.language_adapters.prompt_vectors) is not None:
        number += vectors.numel()
    return parameter_count(model) - number * (len(model.languages) - 1) // len(model.languages)
