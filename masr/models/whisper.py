"""A pretrained Whisper as a recogniser of masr: trained, decoded and scored like any other.

B utterances, T frames, F mel bins, K languages.
"""

import copy
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot
from torch.nn.utils.rnn import pad_sequence

from masr.adapt.distill import distillation_losses
from masr.adapt.soft_prompts import LanguageVectors, SoftPrompts
from masr.data.batches import Batch
from masr.data.features import FRAME_SHIFT
from masr.decode.alignment import token_times
from masr.decode.cross_attention import attention_align
from masr.decode.hypothesis import Hypothesis
from masr.decode.utterances import Utterances
from masr.files import from_hugging_face, reading
from masr.models.recognizer import Recognizer
from masr.nn.encoder import EncoderOutput
from masr.nn.heads import LanguageClassifier
from masr.nn.whisper import FACTOR, WhisperDecoder, WhisperEncoder, sum_of_each
from masr.text.whisper_tokenizer import WhisperTokenizer

LATEST_FIRST = 50
"""Timestamps after 0.00 with which a text may begin, where a Whisper does not say it: up to 1 s."""
ADDED = re.compile(r"prompts|lora_|language_vectors|fusion")
"""Names of what adaptation adds."""
BASE = "pretrained"
"""Folder, in that of a model, of what describes Whisper but its weights."""


class WhisperRecognizer(Recognizer):
    """Whisper's encoder and decoder; the decoder names the language where the prompt does not."""

    encoder: WhisperEncoder  # type: ignore[assignment]
    attention_decoder: WhisperDecoder  # type: ignore[assignment]
    tokenizer: WhisperTokenizer

    def _build_parts(self, pretrained: Any) -> None:
        config, generation = self.config, pretrained.generation_config
        if config.features.mel_bins != pretrained.config.num_mel_bins:
            raise ValueError(
                f"features.mel_bins={config.features.mel_bins}, but this Whisper has {pretrained.config.num_mel_bins}"
            )
        self.base_config, self.generation_config = pretrained.config, generation
        self.alignment_heads = getattr(generation, "alignment_heads", None) or []
        never, first = generation.suppress_tokens or [], generation.begin_suppress_tokens or []
        self.encoder = WhisperEncoder(pretrained.model.encoder, config.model.whisper)
        self.ctc = None  # type: ignore[assignment]
        self.attention_decoder = WhisperDecoder(pretrained.model.decoder, self.tokenizer, never, first)
        self.attention_decoder.latest_first = getattr(generation, "max_initial_timestamp_index", None) or LATEST_FIRST
        self.attention_decoder.label_smoothing = config.model.attention_decoder.label_smoothing
        self._add_adaptation()
        self.pretrained_names = frozenset(name for name, _ in self.named_parameters() if not ADDED.search(name))
        self._check_languages()

    def _add_adaptation(self) -> None:
        """Gives Whisper what learns in its place, if anything does."""
        options, encoder, decoder = self.config.model.adapt, self.encoder, self.attention_decoder
        known, prompts = self.tokenizer.languages, options.prompts
        if prompts.length:
            decoder.prompts = SoftPrompts(prompts, len(decoder.blocks), encoder.width, known)
        if prompts.length and prompts.encoder:
            encoder.prompts = SoftPrompts(prompts, len(encoder.blocks), encoder.width, known)
        if options.language_codes:
            vectors = decoder.embedding.weight[decoder.language_tokens].detach()
            decoder.language_vectors = LanguageVectors(dict(zip(known, vectors, strict=True)))
        if options.lora.rank:
            from masr.adapt.experts import Experts

            arrow = options.routing == "arrow"
            encoder.experts = Experts(encoder, options.lora, known, arrow)
            decoder.experts = Experts(decoder, options.lora, known, arrow)
        parts = encoder.prompts, decoder.prompts, decoder.language_vectors, encoder.experts, decoder.experts
        self.adapted = [part for part in parts if part is not None]
        if self.adapted:
            self.requires_grad_(False)
        own = [p for part in self.adapted for code in options.only for p in part.parameters_of(code)]
        for parameter in own or [p for part in self.adapted for p in part.parameters()]:
            parameter.requires_grad_(True)

    def _check_languages(self) -> None:
        options, known = self.config.model.adapt, self.tokenizer.languages
        named = [*options.only, *self._near, *self._near.values()]
        if unknown := [code for code in named if code not in known]:
            raise ValueError(f"model.adapt.only, near: no {', '.join(unknown)} among the languages {', '.join(known)}")
        if options.near and not self.by_language:
            raise ValueError("model.adapt.near: nothing is one language's own; set adapt.prompts.languages")
        if options.classifier and not self.config.model.language_classifier.weight:
            raise ValueError("model.adapt.classifier: learns only from model.language_classifier.weight, which is 0")
        if options.classifier and options.only:
            raise ValueError("model.adapt.only: a classifier would hear no other languages; set adapt.classifier=false")
        if options.lora.per_language and options.lora.dropout:
            raise ValueError("model.adapt.lora.dropout: must be 0 with per_language")
        if self.attention_decoder.longest < 1:
            length = options.prompts.length
            raise ValueError(f"model.adapt.prompts.length={length}: the decoder has no room left for a text")

    @property
    def by_language(self) -> bool:
        """Whether anything that was adapted belongs to one language."""
        return self.config.model.adapt.by_language

    def fold(self) -> None:
        """Puts the residual network of soft prompts into them."""
        for prompts in (self.encoder.prompts, self.attention_decoder.prompts):
            if prompts is not None:
                prompts.fold()
        self.config.model.adapt.prompts.bottleneck = 0

    @property
    def _near(self) -> dict[str, str]:
        """``model.adapt.near`` of the languages that learn: others may have begun there long ago."""
        options = self.config.model.adapt
        return {new: near for new, near in options.near.items() if new in options.only or not options.only}

    def start_near(self) -> None:
        """Gives new languages the parameters of those that ``model.adapt.near`` names."""
        for new, near in self._near.items():
            for part in self.adapted:
                part.copy_language(near, new)

    def _build_classifier(self) -> LanguageClassifier | None:
        """The decoder names languages, if ``model.adapt.classifier`` does not want one that was not adapted to any."""
        if not (self.config.model.adapt.classifier and self.by_language):
            return None
        return LanguageClassifier(self.encoder.width, len(self.languages))

    def normalize(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Whisper's features are what it wants."""
        return features

    def encode(self, features: Tensor, lengths: Tensor, allowed_languages: Tensor | None = None) -> EncoderOutput:
        """(B, T, F) log-mel, (B,) frames, (B, K) -> EncoderOutput with the probabilities of the allowed languages."""
        if allowed_languages is None:
            allowed_languages = torch.ones(len(features), len(self.languages), dtype=torch.bool, device=features.device)
        if self.training or bool((allowed_languages.sum(1) == 1).all()):
            weights = allowed_languages / allowed_languages.sum(1, keepdim=True)
            encoded = self.encoder(features, lengths, weights)
            encoded.language_weights = weights
            return encoded
        known = None if self.by_language else allowed_languages.float()  # what belongs to a language waits for it
        encoded = self.encoder(features, lengths, known)
        logits, probabilities, weights = self._routed(encoded, allowed_languages, known)
        if self.by_language and (self.encoder.prompts is not None or self.encoder.experts is not None):
            encoded = self.encoder(features, lengths, weights)
        encoded.language_logits, encoded.language_weights = logits, weights
        encoded.language_probabilities = probabilities
        return encoded

    def _routed(self, encoded: EncoderOutput, allowed: Tensor, known: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, K) of the languages of what was heard, and the probabilities (B, K) and the weights (B, K) that
        the allowed ones have."""
        if self.language_classifier is None:
            logits = self.attention_decoder.name_languages(encoded.frames, encoded.lengths, known)
            allowed = self._told_apart(allowed)
        else:
            logits = self.language_classifier.log_probs(encoded.frames, encoded.lengths)
        probabilities = logits.masked_fill(~allowed, -torch.inf).softmax(-1)
        if self.by_language and self.config.model.adapt.routing == "hard":
            chosen = one_hot(probabilities.argmax(-1), len(self.languages)).to(probabilities.dtype)
            return logits, probabilities, chosen
        return logits, probabilities, probabilities

    def _told_apart(self, allowed: Tensor) -> Tensor:
        """(B, K) languages without those whose token is another allowed one's: nothing speaks for them."""
        owners = torch.tensor(self.tokenizer.owners, device=allowed.device)
        return allowed & ~(allowed[:, owners] & (owners != torch.arange(len(owners), device=allowed.device)))

    def encode_views(self, batch: Batch) -> tuple[list[EncoderOutput], Any]:
        """As `Recognizer.encode_views`; transcribed speech is in the language that it is in."""
        if not batch.targets or not batch.languages:
            return super().encode_views(batch)
        languages = one_hot(self._language_numbers(batch), len(self.languages)).bool()
        return [self.encode(batch.features, batch.feature_lengths, languages)], None

    def _recognition_losses(self, encoded: EncoderOutput, batch: Batch) -> dict[str, Tensor]:
        """attention, the loss of the text and its end, and lid, that of the language's token or of the classifier."""
        ids, id_lengths = batch.targets["transcript"]
        decoder, weights = self.attention_decoder, encoded.language_weights
        assert weights is not None
        hidden = decoder.hidden(encoded.frames, encoded.lengths, ids, id_lengths, weights)
        losses = {"attention": decoder.text_loss(hidden, ids, id_lengths)}
        if self.teacher is not None:
            logits, _, counted = decoder.text_logits(hidden, ids, id_lengths)
            temperature = self.config.train.distill.temperature
            wanted = self.teacher(batch) if batch.languages else logits.detach()
            losses["distillation"] = sum_of_each(distillation_losses(logits, wanted, temperature), counted)
        if "lid" in self.objective_weights():
            losses["lid"] = self._naming_loss(hidden, batch)
        return losses

    def _naming_loss(self, hidden: Tensor, batch: Batch) -> Tensor:
        """(B,) cross-entropies of the languages, from what the decoder has, or from Whisper's frames as it comes."""
        numbers = self._language_numbers(batch).expand(len(hidden))
        if self.language_classifier is None:
            return cross_entropy(self.attention_decoder.language_logits(hidden), numbers, reduction="none")
        with torch.no_grad():
            heard = self.encoder(batch.features, batch.feature_lengths)
        return self.language_classifier.loss(heard.frames, heard.lengths, numbers)

    def objective_weights(self) -> dict[str, float]:
        """As `Recognizer.objective_weights`; a teacher takes its share of the decoder's.

        The language is named before what belongs to one is used, so only a classifier can learn to name it.
        """
        weights = super().objective_weights()
        if self.by_language and self.language_classifier is None:
            weights.pop("lid", None)
        if self.teacher is None:
            return weights
        share = self.config.train.distill.weight
        both = {"attention": (1 - share) * weights["attention"], "distillation": share * weights["attention"]}
        return weights | {name: weight for name, weight in both.items() if weight}

    @property
    def frame_seconds(self) -> float:
        """Duration of an encoder frame."""
        return FRAME_SHIFT * FACTOR

    @property
    def tokens_per_frame(self) -> float:
        """50 in a second: nobody speaks faster, even where a letter is three tokens (Lao, Burmese), and a decoder that
        repeats itself on a short clip is stopped."""
        return 1.0

    @torch.no_grad()
    def add_times(self, best: Sequence[Hypothesis], utterances: Utterances) -> None:
        """As `Recognizer.add_times`; none without text, or where it is not known which heads look at what they write.

        The token before the text has the silence before it, the end of the text that behind it.
        """
        rows = [row for row, hypothesis in enumerate(best) if hypothesis.tokens]
        if not rows or not self.alignment_heads:
            return
        scores = self._attention_scores([best[row].tokens for row in rows], rows, utterances)
        assert utterances.recorded is not None
        for of_row, row, frames in zip(scores, rows, utterances.recorded[rows].tolist(), strict=True):
            tokens = len(best[row].tokens)
            spans = attention_align(of_row[:, : tokens + 2, :frames], self.base_config.median_filter_width)
            best[row].timestamps = token_times(spans[1:-1], self.frame_seconds)

    def _attention_scores(self, texts: list[list[int]], rows: list[int], utterances: Utterances) -> Tensor:
        """(B, H, U + 2, T) of the alignment heads for texts in some rows of a batch."""
        device = utterances.frames.device
        ids = pad_sequence([torch.tensor(tokens, device=device) for tokens in texts], batch_first=True)
        lengths = torch.tensor([len(tokens) for tokens in texts], device=device)
        assert utterances.language_weights is not None
        return self.attention_decoder.attention_scores(
            utterances.frames[rows], utterances.lengths[rows], ids, lengths, utterances.language_weights[rows],
            self.alignment_heads,
        )  # fmt: skip

    def _named_languages(
        self, encoded: EncoderOutput, found: Sequence[list[Hypothesis]], allowed_languages: Tensor
    ) -> list[str | None]:
        assert encoded.language_weights is not None
        return [self.languages[i] for i in encoded.language_weights.argmax(-1).tolist()]

    def _language_shares(self, encoded: EncoderOutput, allowed_languages: Tensor) -> Tensor | None:
        """What `encode` found; its weights where every utterance has one allowed language and nothing was asked."""
        probabilities = encoded.language_probabilities
        return encoded.language_weights if probabilities is None else probabilities

    def plain(self) -> Any:
        """A Whisper of transformers of the same shape, with random weights."""
        from transformers import WhisperForConditionalGeneration

        base = WhisperForConditionalGeneration(self.base_config)
        base.generation_config = copy.deepcopy(self.generation_config)
        return base

    def save_processor(self, folder: Path) -> None:
        """Tokenizer and features as transformers reads them."""
        from transformers import WhisperFeatureExtractor
        from transformers import WhisperTokenizer as TheirTokenizer

        end = "<|endoftext|>"
        special = {"bos_token": end, "eos_token": end, "pad_token": end, "unk_token": end}
        TheirTokenizer(tokenizer_object=self.tokenizer.backend, **special).save_pretrained(folder)
        self.tokenizer.backend.save(str(folder / "tokenizer.json"))
        WhisperFeatureExtractor(feature_size=self.base_config.num_mel_bins).save_pretrained(folder)

    def save_description(self, folder: Path) -> None:
        """What `without_weights` needs."""
        self.base_config.save_pretrained(folder / BASE)
        self.generation_config.save_pretrained(folder / BASE)

    def learned(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """What of ``weights`` has to be kept: all of Whisper if any of it learns, else what came to it."""
        if any(p.requires_grad for name, p in self.named_parameters() if name in self.pretrained_names):
            return weights
        return {name: tensor for name, tensor in weights.items() if name not in self.pretrained_names}

    def base_hash(self, weights: dict[str, Tensor]) -> str | None:
        """Stands for the weights of Whisper, if ``weights`` do not hold them."""
        return None if self.pretrained_names & weights.keys() else self.hash_of_base()

    def hash_of_base(self) -> str:
        """Stands for the weights of Whisper."""
        digest = hashlib.sha256()
        kept = [(name, p) for name, p in self.named_parameters() if name in self.pretrained_names]
        plain = {name.replace(".base_layer", ""): p for name, p in kept}
        for name, tensor in sorted(plain.items()):
            digest.update(name.encode() + tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def load_learned(self, weights: dict[str, Tensor]) -> None:
        """What `learned` gave; RuntimeError when it is of another model."""
        missing, unexpected = self.load_state_dict(weights, strict=False)
        kept = bool(self.pretrained_names & weights.keys())
        if unexpected or (lacking := [name for name in missing if kept or name not in self.pretrained_names]):
            raise RuntimeError(f"missing: {', '.join(lacking[:5])}; too much: {', '.join(unexpected[:5])}")


def pretrained_whisper(name: str) -> Any:
    """The Whisper of a folder, or of the hub, in float32; ValueError if it cannot be had or is another model."""
    from transformers import WhisperForConditionalGeneration

    return from_hugging_face(WhisperForConditionalGeneration, name, dtype=torch.float32)


def without_weights(folder: Path) -> Any:
    """A Whisper as the description in the folder of a model says."""
    from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

    with reading(folder / BASE):
        base = WhisperForConditionalGeneration(WhisperConfig.from_pretrained(folder / BASE))
        base.generation_config = GenerationConfig.from_pretrained(folder / BASE)
    return base
