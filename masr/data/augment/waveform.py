"""The waveform of a training utterance: its recordings and silences, then the steps from room to channel.

To put in a step, add a line to `steps_of` and a section with its probability to ``data.augment``. S samples at 16 kHz.
"""

import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from lhotse.cut import Cut, MixedCut, PaddingCut

from masr.config import Augment, SurroundingSilence
from masr.data.audio_checks import UnusableAudio
from masr.data.augment.channel import Amplifier, Clipper, Transmission
from masr.data.augment.levels import active_power, factor_of
from masr.data.augment.noise import Noise, coloured
from masr.data.augment.reverberation import Room
from masr.data.features import load_audio
from masr.data.random import Purpose, between, generator


class Step(NamedTuple):
    """A change that some utterances get: (S,) samples and random numbers -> (S,)."""

    name: str
    probability: float
    change: Callable[[np.ndarray, np.random.Generator], np.ndarray]


def steps_of(options: Augment, cuts: Sequence[Cut]) -> list[Step]:
    """The steps that are on, in the order in which the world applies them; ``cuts`` are all that is trained on."""
    active, steps = options.active, []
    if "reverberation" in active:
        steps.append(Step("reverberation", options.reverberation.probability, Room(options.reverberation)))
    if "noise" in active:
        steps.append(Step("noise", options.noise.probability, Noise(options.noise, cuts)))
    if "gain" in active:
        steps.append(Step("gain", options.gain.probability, Amplifier(options.gain)))
    if "clipping" in active:
        steps.append(Step("clipping", options.clipping.probability, Clipper(options.clipping)))
    if "channel" in active:
        steps.append(Step("channel", options.channel.probability, Transmission(options.channel)))
    return steps


class WaveformAugmentation:
    """The steps of a run; files of noise and rooms are looked for once."""

    def __init__(self, options: Augment, cuts: Sequence[Cut], seed: int):
        """``cuts`` are all that is trained on. Errors as of the steps."""
        self.options, self.seed = options, seed
        self.steps = steps_of(options, cuts)

    def audio_of(self, epoch: int) -> Callable[[Cut], np.ndarray]:
        """What gives the samples (S,) of a training cut in an epoch."""
        if not self.options.active or epoch < self.options.start_epoch:
            return load_audio
        return TrainingAudio(self.options, self.steps, (self.seed, epoch))


class TrainingAudio:
    """Samples of a training cut in one epoch, which (seed, epoch, cut) decide."""

    def __init__(self, options: Augment, steps: Sequence[Step], seed: tuple[int, ...]):
        """``seed`` is (seed, epoch)."""
        self.options, self.steps, self.seed = options, steps, seed

    def __call__(self, cut: Cut) -> np.ndarray:
        """(S,); UnusableAudio when a recording cannot be used."""
        samples = self._assembled(cut)
        for step in self.steps:
            random = random_of(step.name, self.seed, cut)
            if random.random() < step.probability:
                samples = step.change(samples, random)
        return samples

    def _assembled(self, cut: Cut) -> np.ndarray:
        """Recordings and silences of a cut, one after another."""
        if not isinstance(cut, MixedCut):
            return load_audio(cut)
        parts = [self._part(track.cut) for track in cut.tracks]
        level = np.sqrt(max(active_power(samples) for samples in parts))
        silence = self._silence(sum(map(len, parts)), level, cut)
        begin = 0
        for track, samples in zip(cut.tracks, parts, strict=True):
            end = begin + len(samples)
            if not isinstance(track.cut, PaddingCut):
                silence[begin:end] = samples
            begin = end
        return silence

    def _part(self, cut: Cut) -> np.ndarray:
        if isinstance(cut, PaddingCut):
            return np.zeros(cut.num_samples, np.float32)
        try:
            return load_audio(cut)
        except UnusableAudio as error:
            error.part = cut.id
            raise

    def _silence(self, length: int, level: float, cut: Cut) -> np.ndarray:
        """(length,) zeros, or noise that is faint beside speech of this level."""
        return silence(length, level, self.options.silence, random_of("silence", self.seed, cut))


def silence(length: int, level: float, options: SurroundingSilence, random: np.random.Generator) -> np.ndarray:
    """(length,) zeros, or white or pink noise, faint beside speech of this level (root mean square)."""
    if random.random() < options.zeros:
        return np.zeros(length, np.float32)
    slope = float(random.integers(2))
    noise = coloured(length, slope, random)
    wanted = level * factor_of(between(options.noise_decibels, random))
    return noise * np.float32(wanted / noise.std())


def random_of(part: str, seed: tuple[int, ...], cut: Cut) -> np.random.Generator:
    """Random numbers of a part of the augmentation for a cut: switching on another part does not change them."""
    return generator(Purpose.AUGMENT, *seed, zlib.crc32(cut.id.encode()), zlib.crc32(part.encode()))
