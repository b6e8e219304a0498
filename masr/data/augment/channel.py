"""What a recording passes through: level, microphone, telephone, codecs. S samples at 16 kHz."""

from functools import cache

import numpy as np
import soundfile
from lhotse.augmentation import Clipping as LhotseClipping
from lhotse.augmentation import Compress
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq
from scipy.signal import butter, resample_poly, sosfiltfilt

from masr.config import Channel, Clipping, Gain
from masr.data.augment.levels import factor_of
from masr.data.features import SAMPLING_RATE
from masr.data.random import between

TELEPHONE_RATE = 8000
TELEPHONE_BAND = (300.0, 3400.0)
"""Hz (ITU-T G.712)."""
BANDS = np.geomspace(60, 7600, 7)
"""Hz at which a microphone is drawn; between them its response is interpolated."""
LEVELS = (0.9, 0.99)
"""Of compression, as libsndfile calls it: 31 to 9 kbit/s of Opus, 31 to 24 of MP3 at 16 kHz."""
MU = 255.0
"""Of mu-law (ITU-T G.711)."""


class Amplifier:
    """Changes the level: a step of `masr.data.augment.waveform`, as the other classes here."""

    def __init__(self, options: Gain):
        self.options = options

    def __call__(self, samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """(S,) -> (S,)."""
        decibels = between(self.options.decibels, random)
        return samples * np.float32(factor_of(decibels))


class Clipper:
    """Cuts off peaks, as a recorder does whose level was set too high."""

    def __init__(self, options: Clipping):
        self.options = options

    def __call__(self, samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """(S,) -> (S,)."""
        decibels = between(self.options.decibels, random)
        return LhotseClipping(hard=True, gain_db=decibels)(samples, SAMPLING_RATE)


class Transmission:
    """Sends an utterance through a microphone, a telephone or a codec."""

    def __init__(self, options: Channel):
        """ValueError when libsndfile cannot write what is asked for."""
        self.options = options
        formats = soundfile.available_formats()
        if "mp3" in options.kinds and "MP3" not in formats:
            raise ValueError(
                f"data.augment.channel.kinds: libsndfile {soundfile.__libsndfile_version__} cannot write MP3: "
                "leave out mp3, or install soundfile 0.12 or newer"
            )

    def __call__(self, samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """(S,) -> (S,)."""
        kind = self.options.kinds[random.integers(len(self.options.kinds))]
        if kind == "equalizer":
            return equalize(samples, random.uniform(-1, 1, len(BANDS)) * self.options.equalizer_decibels)
        if kind in ("opus", "mp3"):
            return compress(samples, kind, random.uniform(*LEVELS))
        return telephone(samples, kind)


def equalize(samples: np.ndarray, decibels: np.ndarray) -> np.ndarray:
    """(S,) with the levels (7,) of `BANDS` raised or lowered, smoothly between them, and no delay."""
    size = next_fast_len(len(samples) + SAMPLING_RATE // 10, real=True)  # room for the ends of the response
    frequencies = np.maximum(rfftfreq(size, 1 / SAMPLING_RATE), 1.0)
    curve = np.interp(np.log(frequencies), np.log(BANDS), decibels)
    spectrum = rfft(samples, size) * (10 ** (curve / 20)).astype(np.float32)
    return irfft(spectrum, size)[: len(samples)].astype(np.float32)


def telephone(samples: np.ndarray, codec: str = "telephone") -> np.ndarray:
    """(S,) through the band of a telephone, where ``codec`` may be mu-law or gsm; no delay."""
    narrow = resample_poly(samples, TELEPHONE_RATE, SAMPLING_RATE)
    narrow = sosfiltfilt(_telephone_filter(), narrow, padlen=min(60, len(narrow) - 1))
    if codec == "mu-law":
        narrow = mu_law(narrow)
    if codec == "gsm":
        narrow = compress(narrow.astype(np.float32), "gsm", 0.0, TELEPHONE_RATE)
    wide = resample_poly(narrow, SAMPLING_RATE, TELEPHONE_RATE)
    return _as_long(wide, len(samples))


@cache
def _telephone_filter() -> np.ndarray:
    """Second-order sections; they are applied forwards and backwards."""
    return butter(4, TELEPHONE_BAND, "bandpass", fs=TELEPHONE_RATE, output="sos")


def mu_law(samples: np.ndarray) -> np.ndarray:
    """(S,) in 8 bits: steps that grow with the amplitude."""
    inside = np.clip(samples, -1, 1)
    compressed = np.sign(inside) * np.log1p(MU * np.abs(inside)) / np.log1p(MU)
    steps = np.round(compressed * 127) / 127
    return np.sign(steps) * np.expm1(np.abs(steps) * np.log1p(MU)) / MU


def compress(samples: np.ndarray, codec: str, level: float, rate: int = SAMPLING_RATE) -> np.ndarray:
    """(S,) coded and decoded by libsndfile (opus, mp3, gsm); ``level`` of compression 0 to 1, except for gsm."""
    inside = np.clip(samples, -1, 1)
    return _as_long(Compress(codec, level)(inside[None], rate)[0], len(samples))


def _as_long(samples: np.ndarray, length: int) -> np.ndarray:
    """(length,): codecs work in blocks, and may give some samples more or fewer."""
    padded = np.pad(samples, (0, max(0, length - len(samples))))
    return padded[:length].astype(np.float32)
