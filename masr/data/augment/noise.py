"""Background noise: recorded, or made up. S samples at 16 kHz."""

from collections.abc import Sequence

import numpy as np
from lhotse.cut import Cut
from scipy.fft import irfft, next_fast_len, rfftfreq

from masr.config import BackgroundNoise
from masr.data.audio_checks import UnusableAudio
from masr.data.augment.levels import active_power, mean_power, ratio_of
from masr.data.augment.pool import RecordingPool, fitted
from masr.data.features import SAMPLING_RATE, load_audio
from masr.data.random import between

SLOPES = {"white": 0.0, "pink": 1.0, "brown": 2.0}
"""Noise whose power falls with this power of the frequency."""
LOWEST = 20.0
"""Hz below which coloured noise does not grow any more."""
HARMONICS = 12
"""Of the mains, in hum."""
TONES = (200.0, 4000.0)
"""Hz of beeps."""
BEEP = (0.05, 0.5)
"""Seconds of a beep, and of the pause behind it."""


class Noise:
    """Adds noise to an utterance: a step of `masr.data.augment.waveform`."""

    def __init__(self, options: BackgroundNoise, cuts: Sequence[Cut]):
        """Babble is made of ``cuts``. FileNotFoundError when there is no noise where the options say."""
        self.options, self.cuts = options, cuts
        self.pool = None if options.path is None else RecordingPool(options.path, "data.augment.noise.path")

    def __call__(self, samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """(S,) -> (S,)."""
        snr = between(self.options.snr, random)
        return add_noise(samples, self.draw(len(samples), random), snr)

    def draw(self, length: int, random: np.random.Generator) -> np.ndarray:
        """(length,) samples of noise, at any level."""
        if self.pool is not None:
            piece = self.pool.draw(random, length / SAMPLING_RATE)
            return fitted(piece, length, random)
        kind = self.options.kinds[random.integers(len(self.options.kinds))]
        if kind == "babble":
            voices = int(random.integers(self.options.voices[0], self.options.voices[1] + 1))
            return babble(self.cuts, voices, length, random)
        if kind == "hum":
            return hum(length, random)
        if kind == "tones":
            return tones(length, random)
        return coloured(length, SLOPES[kind], random)


def add_noise(samples: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
    """Speech (S,) with noise (S,) so many decibels below its level outside pauses; nothing is added to silence."""
    speech, power = active_power(samples), mean_power(noise)
    if not speech or not power:
        return samples
    factor = np.sqrt(speech / power * ratio_of(-snr))
    return samples + np.float32(factor) * noise


def coloured(length: int, slope: float, random: np.random.Generator) -> np.ndarray:
    """(length,) Gaussian noise whose power falls with frequency ** slope."""
    if not slope:
        return random.standard_normal(length, np.float32)
    size = next_fast_len(length, real=True)
    frequencies = np.maximum(rfftfreq(size, 1 / SAMPLING_RATE), LOWEST).astype(np.float32)
    parts = random.standard_normal((2, len(frequencies)), np.float32)
    spectrum = (parts[0] + 1j * parts[1]) * frequencies ** np.float32(-slope / 2)
    return irfft(spectrum, size)[:length]


def hum(length: int, random: np.random.Generator) -> np.ndarray:
    """(length,) of the mains: 50 or 60 Hz and harmonics of random strength."""
    mains = 50.0 if random.random() < 0.5 else 60.0
    numbers = np.arange(1, HARMONICS + 1)
    strengths = random.random(HARMONICS) / numbers
    phases = random.uniform(0, 2 * np.pi, HARMONICS)
    period = np.arange(int(SAMPLING_RATE / 10)) / SAMPLING_RATE  # 5 or 6 whole periods
    angles = 2 * np.pi * mains * numbers[:, None] * period + phases[:, None]
    one = (strengths[:, None] * np.sin(angles)).sum(axis=0).astype(np.float32)
    return np.resize(one, length)


def tones(length: int, random: np.random.Generator) -> np.ndarray:
    """(length,) of beeps with pauses, all of one pitch."""
    pitch = np.exp(random.uniform(*np.log(TONES)))
    beep, pause = (int(random.uniform(*BEEP) * SAMPLING_RATE) for _ in range(2))
    times = np.arange(length)
    shape = (times + random.integers(beep + pause)) % (beep + pause) < beep
    return (shape * np.sin(2 * np.pi * pitch / SAMPLING_RATE * times)).astype(np.float32)


def babble(cuts: Sequence[Cut], voices: int, length: int, random: np.random.Generator) -> np.ndarray:
    """(length,) of several recordings at once, each equally loud."""
    mixed = np.zeros(length, np.float32)
    for _ in range(voices):
        try:
            voice = load_audio(cuts[int(random.integers(len(cuts)))])
        except UnusableAudio:  # it is reported where it is trained on
            continue
        level = np.sqrt(active_power(voice))
        mixed += fitted(voice, length, random) / np.float32(level)
    return mixed
