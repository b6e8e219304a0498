"""Utterances joined, and silence around them: what an epoch draws becomes cuts of several parts.

This happens before batches are formed, so that durations are right wherever they count. A cut of several parts is
lhotse's MixedCut, whose parts follow each other; silences are its PaddingCuts. `waveform` makes audio of it.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from lhotse import SupervisionSegment
from lhotse.cut import Cut, MixedCut, MixTrack, PaddingCut
from lhotse.utils import fastcopy

from masr.config import Augment
from masr.data.augment.waveform import random_of
from masr.data.features import SAMPLING_RATE
from masr.data.random import between
from masr.data.sampling import language_of, published_text_of, recording_name, translation_of
from masr.text.characters import joined as joined_text

MARGIN = 0.01
"""Seconds by which a result stays below the longest one, as resampled parts may have some samples more."""


TRIES = 5
"""Draws for each utterance that is to follow, as it must be another one than those before."""


class Arrangement:
    """Joins the cuts of an epoch with others of their language and puts silence around them."""

    def __init__(
        self, options: Augment, cuts: Sequence[Cut], seed: int, max_seconds: float, fits: Callable[[Cut], bool]
    ):
        """Others are drawn from ``cuts``; ``fits`` says whether a joined one can be trained on."""
        self.options, self.seed, self.max_seconds, self.fits = options, seed, max_seconds, fits
        by_recording: dict[str, list[Cut]] = defaultdict(list)
        for cut in cuts:
            by_recording[recording_name(cut)].append(cut)
        self.groups: dict[tuple[str, str | None], list[list[Cut]]] = defaultdict(list)
        """The speeds of each recording, by language and, where speakers are to be the same, speaker."""
        for speeds in by_recording.values():
            self.groups[self._group_of(speeds[0])].append(speeds)

    def __call__(self, cut: Cut, epoch: int) -> Cut:
        """A cut of several parts, under the same id; the cut itself where nothing happens to it."""
        if epoch < self.options.start_epoch:
            return cut
        seed = (self.seed, epoch)
        parts, pauses = self._joined(cut, random_of("concatenate", seed, cut))
        before, behind = self._silence_around(parts, pauses, random_of("silence around", seed, cut))
        if len(parts) == 1 and not before + behind:
            return cut
        return lay_out(parts, [before, *pauses, behind])

    def _joined(self, cut: Cut, random: np.random.Generator) -> tuple[list[Cut], list[float]]:
        """The cut, those that follow it, and the pauses between them."""
        options = self.options.concatenate
        if random.random() >= options.probability:
            return [cut], []
        longest = min(options.max_seconds, self.max_seconds) - MARGIN
        number = int(random.integers(2, options.utterances + 1))
        parts, pauses, seconds = [cut], [], cut.duration
        for other in self._others(cut, number - 1, random):
            pause = in_samples(between(options.pause, random))
            seconds += pause + other.duration
            if seconds > longest:
                break
            parts.append(other)
            pauses.append(pause)
        if len(parts) > 1 and self.fits(lay_out(parts, [0.0, *pauses, 0.0])):
            return parts, pauses
        return [cut], []

    def _others(self, cut: Cut, number: int, random: np.random.Generator) -> list[Cut]:
        """Other recordings that may follow a cut, each at a random speed; fewer where there are few to draw from."""
        group = self.groups[self._group_of(cut)]
        used = {cut.id.split("#")[0]}  # without the number of the draw
        others: list[Cut] = []
        for _ in range(TRIES * number):
            speeds = group[int(random.integers(len(group)))]
            if used.isdisjoint(_ids(speeds)):
                others.append(speeds[int(random.integers(len(speeds)))])
                used.update(_ids(speeds))
            if len(others) == number:
                break
        return others

    def _group_of(self, cut: Cut) -> tuple[str, str | None]:
        same = self.options.concatenate.same_speaker
        return language_of(cut), cut.supervisions[0].speaker if same else None

    def _silence_around(
        self, parts: Sequence[Cut], pauses: Sequence[float], random: np.random.Generator
    ) -> tuple[float, float]:
        """Seconds before and behind, as the longest utterance allows."""
        options = self.options.silence
        if random.random() >= options.probability:
            return 0.0, 0.0
        before, behind = between(options.seconds, random), between(options.seconds, random)
        room = max(0.0, self.max_seconds - MARGIN - sum(part.duration for part in parts) - sum(pauses))
        scale = min(1.0, room / max(before + behind, MARGIN))
        return in_samples(scale * before), in_samples(scale * behind)


def _ids(cuts: Sequence[Cut]) -> list[str]:
    return [cut.id for cut in cuts]


def in_samples(seconds: float) -> float:
    """Seconds, rounded down to whole samples."""
    return int(seconds * SAMPLING_RATE) / SAMPLING_RATE


def lay_out(parts: Sequence[Cut], gaps: Sequence[float]) -> MixedCut:
    """Cuts one after another as one, with so many seconds of silence before each of them and behind the last."""
    name = parts[0].id
    cuts: list[Cut] = [fastcopy(parts[0], supervisions=[_joined_supervision(parts)])]
    cuts += [part.drop_supervisions() for part in parts[1:]]
    tracks, end = [], 0.0
    for gap, cut in zip(gaps, [*cuts, None], strict=True):
        if gap:
            tracks.append(MixTrack(_silence(name, gap), offset=end))
            end = round(end + gap, 8)
        if cut is not None:
            tracks.append(MixTrack(cut, offset=end))
            end = round(end + cut.duration, 8)
    return MixedCut(name, tracks)


def _silence(name: str, seconds: float) -> PaddingCut:
    samples = round(seconds * SAMPLING_RATE)
    return PaddingCut(f"{name}-silence", seconds, SAMPLING_RATE, feat_value=0.0, num_samples=samples)


def _joined_supervision(parts: Sequence[Cut]) -> SupervisionSegment:
    """Texts and translations joined; what only some of the parts have is left out."""
    first = parts[0].supervisions[0]
    if len(parts) == 1:
        return first
    supervisions = [part.supervisions[0] for part in parts]
    custom: dict = {}
    published = [published_text_of(part) for part in parts]
    if None not in published:
        custom["published_text"] = _join(published, first.language)
    translations = {}
    for language in (first.custom or {}).get("translation") or {}:
        texts = [translation_of(part, language) for part in parts]
        if None not in texts:
            translations[language] = _join(texts, language)
    if translations:
        custom["translation"] = translations
    speakers = {supervision.speaker for supervision in supervisions}
    text = _join([supervision.text for supervision in supervisions], first.language)
    return fastcopy(first, text=text, speaker=first.speaker if len(speakers) == 1 else None, custom=custom)


def _join(texts: Sequence[str | None], language: str | None) -> str:
    """Texts one after another, with a space between them where the language has spaces."""
    return joined_text((text or "", language) for text in texts)
