"""Batches: what the model is given. B utterances, T frames, F mel bins, U tokens, K languages."""

import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from lhotse.cut import Cut
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from masr.config import Features, Prompts, SpecAugment
from masr.data.augment.spec_augment import spec_augment
from masr.data.features import UnusableAudio, load_audio, log_mel_of
from masr.data.prompts import Everything, Prompter, TrainingPrompts
from masr.data.random import Purpose, generator
from masr.data.sampling import language_of, split_by_duration, text_of, translation_of
from masr.data.stored_features import read_features
from masr.text.tokenizer import Tokenizer

RANDOM = 9
"""Random numbers that come with a recording without text."""


class Tokens(NamedTuple):
    """Padded token ids (B, U) and their lengths (B,)."""

    ids: Tensor
    lengths: Tensor


@dataclass
class Batch:
    """Utterances that a model takes at once."""

    ids: list[str]
    languages: list[str]
    features: Tensor
    """(B, T, F) log-mel, zero where padded."""
    feature_lengths: Tensor
    """(B,) frames."""
    allowed_languages: Tensor
    """(B, K) bool: the languages that each utterance may be in (the prompt)."""
    targets: dict[str, Tokens]
    """By name, e.g. ``transcript``."""
    audio: Tensor | None = None
    """(B, S) samples, where a model wants them."""
    random: Tensor | None = None
    """(B, R) numbers from 0 to 1 that belong to an utterance and epoch, whatever the batch; of speech without text."""
    groups: Tensor | None = None
    """(B,) which utterances are compared with each other: those of one number; of speech without text."""

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on a device."""
        moved = {f.name: _move(getattr(self, f.name), device) for f in fields(self)}
        return Batch(**moved)

    def plain(self) -> dict[str, Any]:
        """Lists and tensors only, to be read back anywhere."""
        return vars(self) | {"targets": {name: tuple(tokens) for name, tokens in self.targets.items()}}

    def counts(self) -> dict[str, "Counts"]:
        """What the losses of each language are divided by."""
        counts: dict[str, Counts] = defaultdict(Counts)
        texts = self.targets["transcript"].lengths.tolist()
        translations = (
            self.targets["translation"].lengths.tolist() if "translation" in self.targets else [0] * len(self)
        )
        for code, text, translation in zip(self.languages, texts, translations, strict=True):
            counts[code] += Counts(text, 1, translation, int(translation > 0))
        return dict(counts)

    def __len__(self) -> int:
        return len(self.ids)


class Counts(NamedTuple):
    """What losses are divided by."""

    tokens: int = 0
    utterances: int = 0
    translation_tokens: int = 0
    translations: int = 0

    def __add__(self, other: "Counts") -> "Counts":  # type: ignore[override]
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))


class Update(NamedTuple):
    """One process's share of an optimiser step.

    ``counts`` are those of the whole step over all processes, by language, so that every process can normalise its
    losses alike without asking the others.
    """

    samples: list[list[Batch]]
    """Micro-batches; of two samples where a soup multiplies the gradients of one with those of the other."""
    counts: dict[str, Counts]
    seconds: float
    rejected: dict[str, str]
    unlabelled: Sequence[list[Batch]] = ()
    """Speech without text, in as many samples."""
    unlabelled_utterances: int = 0

    @property
    def micro_batches(self) -> list[Batch]:
        """Those of all samples, speech without text last."""
        return [batch for sample in [*self.samples, *self.unlabelled] for batch in sample]


def collate(
    features: Sequence[Tensor], cuts: Sequence[Cut], tokenizer: Tokenizer, prompt: Prompter | None = None
) -> Batch:
    """Pads (T, F) features and the transcripts of their cuts; without a ``prompt`` all languages are allowed."""
    prompt = prompt or Everything(tokenizer.languages)
    targets = {"transcript": pad_tokens([transcript_tokens(cut, tokenizer) for cut in cuts])}
    if tokenizer.translation is not None:
        targets["translation"] = pad_tokens([translation_tokens(cut, tokenizer) for cut in cuts])
    return Batch(
        ids=[cut.id for cut in cuts], languages=[language_of(cut) for cut in cuts],
        features=pad_sequence(list(features), batch_first=True),
        feature_lengths=torch.tensor([len(f) for f in features]), targets=targets,
        allowed_languages=torch.stack([prompt(cut) for cut in cuts]),
    )  # fmt: skip


def pad_tokens(ids: Sequence[Sequence[int]]) -> Tokens:
    """Ids of several texts as one padded tensor."""
    padded = pad_sequence([torch.tensor(list(line), dtype=torch.long) for line in ids], batch_first=True)
    return Tokens(padded, torch.tensor([len(line) for line in ids]))


def transcript_tokens(cut: Cut, tokenizer: Tokenizer) -> list[int]:
    """Ids of what was said in a cut, in the form of text that the tokenizer is for."""
    return tokenizer.encode(text_of(cut, tokenizer), language_of(cut))


def translation_tokens(cut: Cut, tokenizer: Tokenizer) -> list[int]:
    """Ids of a cut's translation; empty where there is none."""
    if tokenizer.translation is None:
        return []
    into = tokenizer.translation.languages[0]
    return tokenizer.translation.encode(translation_of(cut, into) or "", into)


class CutFeatures:
    """Features of a cut: stored ones if it has them, else computed from its audio."""

    def __init__(self, options: Features, audio: Callable[[Cut], np.ndarray] = load_audio):
        """``audio`` gives the samples (S,) of a cut: as they are, or as augmentation changes them."""
        self.log_mel, self.audio = log_mel_of(options), audio

    def __call__(self, cut: Cut) -> Tensor:
        """(T, F); UnusableAudio when they cannot be had."""
        if not cut.has_features:
            return torch.from_numpy(self.log_mel(self.audio(cut)))
        try:
            features = read_features(cut)
        except Exception as error:  # storage backends raise many kinds; all mean that the file is damaged
            raise UnusableAudio(f"stored features cannot be read: {type(error).__name__}: {error}"[:300]) from error
        if not np.isfinite(features).all():
            raise UnusableAudio("stored features are NaN or infinite")
        return torch.from_numpy(features)


def load_usable(cuts: Sequence[Cut], load: CutFeatures, rejected: dict[str, str]) -> tuple[list[Tensor], list[Cut]]:
    """Features of the cuts that have any, and these cuts; adds the others and their reasons to ``rejected``.

    Where a part of a joined utterance is unusable, that part is named.
    """
    features, usable = [], []
    for cut in cuts:
        try:
            features.append(load(cut))
            usable.append(cut)
        except UnusableAudio as error:
            rejected[error.part or cut.id] = str(error)
    return features, usable


class TrainingUpdates(Dataset):
    """The updates of one epoch from number ``first`` on, as one process sees them."""

    def __init__(
        self, updates: list[list[Cut]], tokenizer: Tokenizer, options: Features, augment: SpecAugment | None,
        seed: tuple[int, ...],
        device_seconds: float, rank: int = 0, world_size: int = 1, prompts: Prompts | None = None,
        samples: int = 1, unlabelled: list[list[Cut]] | None = None, compared: int = 1,
        audio: Callable[[Cut], np.ndarray] = load_audio,
    ):  # fmt: skip
        """Of the ``unlabelled`` up to ``compared`` are compared with each other: they stay in one micro-batch.

        ``audio`` gives the samples (S,) of a cut with text: as they are, or as augmentation changes them.
        """
        self.updates, self.tokenizer, self.augment, self.seed = updates, tokenizer, augment, seed
        self.device_seconds, self.rank, self.world_size = device_seconds, rank, world_size
        self.mel_bins, self.load, self.samples = options.mel_bins, CutFeatures(options, audio), samples
        self.load_unlabelled = CutFeatures(options)
        self.unlabelled, self.compared = unlabelled or [], compared
        self.prompt = TrainingPrompts(prompts or Prompts(), tokenizer.languages, seed)

    def __len__(self) -> int:
        return len(self.updates)

    def __getitem__(self, index: int) -> Update:
        cuts = sorted(self.updates[index], key=lambda cut: (-cut.duration, cut.id))
        rejected: dict[str, str] = {}
        samples = [self._sample(part, rejected) for part in _samples(cuts, self.samples, self.seed)]
        parts = self._compared(self._heard(index))
        unlabelled = [self._unlabelled_sample(part, rejected) for part in parts]
        heard = sum(len(group) for part in parts for group in part)
        seconds = sum(cut.duration for cut in cuts)
        rejected = {name.split("#")[0]: reason for name, reason in rejected.items()}  # the draw's number is not theirs
        return Update(samples, self._counts(cuts), seconds, rejected, unlabelled, heard)

    def _heard(self, index: int) -> list[Cut]:
        """Recordings without text of an update: one batch of them, or more, so that each sample has enough."""
        heard: list[Cut] = []
        for number in range(index, index + len(self.unlabelled)):
            heard += self.unlabelled[number % len(self.unlabelled)]
            if len(heard) >= self._fewest_heard:
                break
        return heard

    @property
    def _fewest_heard(self) -> int:
        """Recordings without text that each sample needs, times samples: two where they are compared."""
        return self.samples * min(self.compared, 2)

    def _compared(self, heard: list[Cut]) -> list[list[list[Cut]]]:
        """Recordings without text by sample, and in it by group; nothing where there are too few for all samples.

        Groups follow from the recordings, seed and epoch, so that neither processes nor micro-batches matter.
        """
        if not heard or len(heard) < self._fewest_heard:
            return []
        if self.compared == 1:
            longest_first = sorted(heard, key=lambda cut: (-cut.duration, cut.id))
            return [[[cut] for cut in part] for part in _samples(longest_first, self.samples, self.seed)]
        shuffled = sorted(heard, key=self._place)
        number = max(-(-len(heard) // self.compared), self.samples)
        groups = [sorted(shuffled[n::number], key=lambda cut: (-cut.duration, cut.id)) for n in range(number)]
        return [groups[sample :: self.samples] for sample in range(self.samples)]

    def _place(self, cut: Cut) -> tuple[float, str]:
        """Where a recording stands in this epoch when groups are dealt."""
        return generator(Purpose.GROUPS, *self.seed, zlib.crc32(cut.id.encode())).random(), cut.id

    def _sample(self, cuts: list[Cut], rejected: dict[str, str]) -> list[Batch]:
        parts = split_by_duration(cuts[self.rank :: self.world_size], self.device_seconds)
        return [batch for part in parts if (batch := self._batch(part, rejected))] or [self._silence()]

    def _unlabelled_sample(self, groups: list[list[Cut]], rejected: dict[str, str]) -> list[Batch]:
        parts = _packed(groups[self.rank :: self.world_size], self.device_seconds)
        batches = [batch for part in parts if (batch := self._unlabelled_batch(part, rejected))]
        return batches or [self._silence(labelled=False)]

    def _unlabelled_batch(self, groups: list[list[Cut]], rejected: dict[str, str]) -> Batch | None:
        features, usable = load_usable([cut for group in groups for cut in group], self.load_unlabelled, rejected)
        if not usable:
            return None
        numbers = {cut.id: number for number, group in enumerate(groups) for cut in group}
        return Batch(
            ids=[cut.id for cut in usable], languages=[language_of(cut) for cut in usable],
            features=pad_sequence(features, batch_first=True),
            feature_lengths=torch.tensor([len(f) for f in features]), targets={},
            allowed_languages=torch.ones(len(usable), len(self.tokenizer.languages), dtype=torch.bool),
            random=torch.tensor(np.array([self._random(cut).random(RANDOM) for cut in usable]), dtype=torch.float32),
            groups=torch.tensor([numbers[cut.id] for cut in usable]),
        )  # fmt: skip

    def _random(self, cut: Cut) -> np.random.Generator:
        """Random numbers of a recording in this epoch, in whatever batch or process it is."""
        return generator(Purpose.MASKS, *self.seed, zlib.crc32(cut.id.encode()))

    def _counts(self, cuts: list[Cut]) -> dict[str, Counts]:
        counts: dict[str, Counts] = defaultdict(Counts)
        for cut in cuts:
            tokens = len(transcript_tokens(cut, self.tokenizer))
            translation = len(translation_tokens(cut, self.tokenizer))
            counts[language_of(cut)] += Counts(tokens, 1, translation, int(translation > 0))
        return dict(counts)

    def _batch(self, cuts: list[Cut], rejected: dict[str, str]) -> Batch | None:
        features, usable = load_usable(cuts, self.load, rejected)
        features = [self._augmented(frames, cut) for frames, cut in zip(features, usable, strict=True)]
        return collate(features, usable, self.tokenizer, self.prompt) if usable else None

    def _silence(self, labelled: bool = True) -> Batch:
        """For a process without a share of an update: it must still take part in the exchange of gradients."""
        names = ["transcript", *(["translation"] if self.tokenizer.translation is not None else [])]
        nothing = Tokens(torch.zeros(1, 0, dtype=torch.long), torch.tensor([0]))
        return Batch(
            ids=[], languages=[], features=torch.zeros(1, 100, self.mel_bins), feature_lengths=torch.tensor([100]),
            allowed_languages=torch.ones(1, len(self.tokenizer.languages), dtype=torch.bool),
            targets={name: nothing for name in names} if labelled else {}, random=torch.zeros(1, RANDOM),
            groups=torch.zeros(1, dtype=torch.long),
        )  # fmt: skip

    def _augmented(self, features: Tensor, cut: Cut) -> Tensor:
        if self.augment is None:
            return features
        return spec_augment(features, self.augment, self._random(cut))


def _packed(groups: list[list[Cut]], seconds: float) -> list[list[list[Cut]]]:
    """Groups (each longest first) whose padded audio stays within ``seconds``; a single larger group stands alone."""
    parts: list[list[list[Cut]]] = []
    for group in sorted(groups, key=lambda group: (-group[0].duration, group[0].id)):
        cuts = sum(len(other) for other in parts[-1]) + len(group) if parts else 0
        if parts and parts[-1][0][0].duration * cuts <= seconds:
            parts[-1].append(group)
        else:
            parts.append([group])
    return parts


def _samples(cuts: list[Cut], number: int, seed: tuple[int, ...]) -> list[list[Cut]]:
    """Cuts (longest first) dealt at random in equal parts, each with its share of every language."""
    if number == 1:
        return [cuts]
    random = generator(Purpose.HALVES, *seed, *(zlib.crc32(cut.id.encode()) for cut in cuts[:1]))
    parts: list[list[Cut]] = [[] for _ in range(number)]
    for code in sorted({language_of(cut) for cut in cuts}):
        ours = [cut for cut in cuts if language_of(cut) == code]
        for first in range(0, len(ours), number):  # neighbours in length go to different parts
            for cut, part in zip(ours[first : first + number], random.permutation(number), strict=False):
                parts[part].append(cut)
    return [sorted(part, key=lambda cut: (-cut.duration, cut.id)) for part in parts]


def _move(value, device: torch.device):
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {name: Tokens(*(t.to(device, non_blocking=True) for t in tokens)) for name, tokens in value.items()}
    return value
