"""Which recordings an epoch holds and how they form updates: a pure function of (cuts, options, seed, epoch).

Nothing of it depends on the number of processes, and resuming means building the epoch again and skipping updates.
"""

import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset import DynamicBucketingSampler, DynamicCutSampler
from lhotse.dataset.sampling.base import CutSampler

from masr.config import Data
from masr.data.random import Purpose, generator, seed_of
from masr.text.characters import tidied
from masr.text.languages import language_name
from masr.text.normalize import normalize


def language_of(cut: Cut) -> str:
    """BCP-47 code of a cut."""
    return cut.supervisions[0].language


class Written(Protocol):
    """What knows the form of the text that is learnt and written: the options of a vocabulary, or a tokenizer."""

    @property
    def text(self) -> str: ...


def text_of(cut: Cut, options: Written) -> str:
    """What a model learns to write for a cut, normalised or as it was published; ValueError where the cut lacks it."""
    if options.text == "normalized":
        return cut.supervisions[0].text
    published = published_text_of(cut)
    if published is None:
        raise ValueError(
            f"vocab.text=published: {cut.id} has no published_text; make the manifests again: `masr prepare --force`"
        )
    return published


def published_text_of(cut: Cut) -> str | None:
    """The transcript of a cut as the corpus has it, white space tidied; None where stage 0 has not kept it."""
    text = (cut.supervisions[0].custom or {}).get("published_text")
    return None if text is None else tidied(text)


def as_written(text: str, language: str, options: Written) -> str:
    """What was recognised in the form in which `text_of` has what was said, to compare them."""
    return normalize(text, language) if options.text == "normalized" else tidied(text)


def translation_of(cut: Cut, into: str) -> str | None:
    """The translation of a cut as the corpus has it, white space tidied; None where there is none."""
    text = ((cut.supervisions[0].custom or {}).get("translation") or {}).get(into)
    return tidied(text) or None if text else None


def recording_name(cut: Cut) -> str:
    """The id that all speeds of a recording share."""
    played_as_published = cut.has_recording and not cut.recording.transforms
    return cut.id if played_as_published else re.sub(r"_sp[\d.]+$", "", cut.id)


def split_by_duration(cuts: Sequence[Cut], seconds: float) -> list[list[Cut]]:
    """Groups of cuts, longest first, whose padded audio stays within ``seconds``; a single longer cut stands alone."""
    parts: list[list[Cut]] = []
    for cut in sorted(cuts, key=lambda cut: (-cut.duration, cut.id)):
        if parts and parts[-1][0].duration * (len(parts[-1]) + 1) <= seconds:
            parts[-1].append(cut)
        else:
            parts.append([cut])
    return parts


class EpochPlan:
    """Draws epochs. One epoch is as long as the recordings are, counted once whatever the speeds."""

    def __init__(
        self,
        cuts: Sequence[Cut],
        options: Data,
        seed: int,
        stream: int = 0,
        arrange: Callable[[Cut, int], Cut] | None = None,
    ):
        """``arrange`` makes of a cut that was drawn what it is in an epoch, which may be longer."""
        self.cuts, self.options, self.number, self.arrange = list(cuts), options, 0, arrange
        self.seed = (seed, stream)
        """Plans that run beside each other with one seed have streams of their own."""
        self.recordings: dict[str, dict[str, list[Cut]]] = defaultdict(lambda: defaultdict(list))
        for cut in cuts:
            self.recordings[language_of(cut)][recording_name(cut)].append(cut)
        self.hours = {code: _hours(group) for code, group in sorted(self.recordings.items())}
        self.shares = temperature_shares(self.hours, options.language_temperature)
        if options.every_language:
            self.number = self._recordings_of_each()
            self.shares = {code: 1 / len(self.hours) for code in self.hours}

    def describe(self) -> str:
        """The hours that one epoch takes from every language."""
        total = sum(self.hours.values())
        parts = [f"{language_name(c)} {self.shares[c] * total:.2f} h (has {self.hours[c]:.2f})" for c in self.hours]
        if self.number:
            parts = [f"{language_name(c)} (has {self.hours[c]:.2f} h)" for c in self.hours]
            return f"an update has {self.number} recordings of each language: {', '.join(parts)}"
        return f"an epoch at language temperature {self.options.language_temperature:g}: {', '.join(parts)}"

    def updates(self, epoch: int) -> list[list[Cut]]:
        """The cuts of each update of an epoch, in order."""
        random = generator(Purpose.DRAW, *self.seed, epoch)
        if self.number:
            updates = self._with_every_language(random)
            return [self._arranged(cuts, epoch) for cuts in updates]
        cuts = self._arranged(self._draw(random), epoch)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="(?s).*eagerly read CutSet")  # an epoch is a list on purpose
            batches = [list(batch) for batch in self._sampler(cuts, seed_of(Purpose.BATCHES, *self.seed, epoch))]
        if epoch < self.options.short_first_epochs:
            batches.sort(key=lambda batch: max(cut.duration for cut in batch))
        return batches

    def _arranged(self, cuts: list[Cut], epoch: int) -> list[Cut]:
        if self.arrange is None:
            return cuts
        return [self.arrange(cut, epoch) for cut in cuts]

    def _recordings_of_each(self) -> int:
        """Recordings of each language in an update: an even number, so that halves of it have all languages, too."""
        means = [3600 * self.hours[code] / len(group) for code, group in self.recordings.items()]
        return max(2, 2 * round(self.options.batch_seconds / sum(means) / 2))

    def _with_every_language(self, random: np.random.Generator) -> list[list[Cut]]:
        """Updates of as many recordings of each language, all of about the same place in its order of length."""
        lengths = {code: 3600 * hours / len(self.recordings[code]) for code, hours in self.hours.items()}
        updates = max(1, round(3600 * sum(self.hours.values()) / sum(lengths.values()) / self.number))
        drawn: list[list[Cut]] = [[] for _ in range(updates)]
        for code in self.hours:
            cuts = self._times(code, updates * self.number / len(self.recordings[code]), random)
            noise = random.normal(0, 0.1, len(cuts))
            order = np.argsort([np.log(cut.duration) + n for cut, n in zip(cuts, noise, strict=True)])
            for place, index in enumerate(order[: updates * self.number]):
                drawn[place // self.number].append(cuts[index])
        return [drawn[i] for i in random.permutation(updates)]

    def _sampler(self, cuts: list[Cut], seed: int) -> CutSampler:
        buckets = min(self.options.buckets, len(cuts) // 2)
        options = {
            "max_duration": self.options.batch_seconds, "shuffle": True, "seed": seed, "world_size": 1, "rank": 0,
        }  # fmt: skip
        if buckets < 2:  # lhotse refuses a single bucket
            return DynamicCutSampler(CutSet.from_cuts(cuts), **options)
        return DynamicBucketingSampler(
            CutSet.from_cuts(cuts), num_buckets=buckets, num_cuts_for_bins_estimate=len(cuts), **options
        )

    def _draw(self, random: np.random.Generator) -> list[Cut]:
        """Every recording of a language floor(n) or ceil(n) times, each time at a random speed; ids made unique."""
        drawn: list[Cut] = []
        total = sum(self.hours.values())
        for code, hours in self.hours.items():
            drawn += self._times(code, self.shares[code] * total / hours, random)
        return [drawn[i] for i in random.permutation(len(drawn))]

    def _times(self, code: str, times: float, random: np.random.Generator) -> list[Cut]:
        """The recordings of a language so many times, up or down to a whole number each, at random speeds."""
        recordings, drawn = list(self.recordings[code].values()), []
        counts = np.full(len(recordings), int(times))
        counts[random.permutation(len(recordings))[: round((times - int(times)) * len(recordings))]] += 1
        for speeds, count in zip(recordings, counts, strict=True):
            drawn += [speeds[random.integers(len(speeds))].with_id(f"{speeds[0].id}#{i}") for i in range(count)]
        return drawn


def temperature_shares(hours: dict[str, float], temperature: float) -> dict[str, float]:
    """p_l = h_l^(1/temperature) / sum; temperature 1 keeps the natural shares, infinity makes them equal."""
    powered = {code: value ** (1 / temperature) for code, value in hours.items()}
    return {code: value / sum(powered.values()) for code, value in powered.items()}


def _hours(recordings: dict[str, list[Cut]]) -> float:
    return sum(float(np.mean([cut.duration for cut in speeds])) for speeds in recordings.values()) / 3600
