"""Log-mel features of audio, and their statistics. T frames of 10 ms, F mel bins, S samples."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from lhotse import Fbank, FbankConfig
from lhotse.augmentation import Speed
from lhotse.cut import Cut

from masr.config import Features
from masr.data.audio_checks import (
    UnusableAudio,
    check_file,
    check_samples,
    has_common_period,
    may_have_been_constant,
    mix,
    rate_problem,
    refuse_constant,
    resample,
)

SAMPLING_RATE = 16000
FRAME_SHIFT = 0.01  # seconds
WINDOW = 0.025  # seconds
SHIFT, WINDOW_SAMPLES = 160, 400  # samples
SEEN_AFTER = 280  # samples of a frame's window from the frame's own place on


class LogMel(ABC):
    """Log-mel energies: `log_mel_of` gives those of a config."""

    name: str

    def __call__(self, audio: np.ndarray) -> np.ndarray:
        """(S,) samples at 16 kHz in [-1, 1] -> (T, F) float32; UnusableAudio when too short or not finite."""
        if audio.size < WINDOW * SAMPLING_RATE:
            raise UnusableAudio(f"{audio.size or 'no'} samples are less than one window of {WINDOW} s")
        if not np.isfinite(audio).all():
            raise UnusableAudio(f"{int((~np.isfinite(audio)).sum())} samples are NaN or infinite")
        return self.extract(audio)

    @abstractmethod
    def extract(self, audio: np.ndarray) -> np.ndarray:
        """(S,) -> (T, F)."""


class KaldiLogMel(LogMel):
    """Kaldi-compatible ones, computed by lhotse."""

    def __init__(self, mel_bins: int):
        self.fbank = Fbank(FbankConfig(sampling_rate=SAMPLING_RATE, num_mel_bins=mel_bins))
        self.name = self.fbank.name

    def extract(self, audio: np.ndarray) -> np.ndarray:
        features = self.fbank.extract(audio, SAMPLING_RATE)
        return features if isinstance(features, np.ndarray) else features.numpy()


class WhisperLogMel(LogMel):
    """Those of Whisper, computed by transformers: all frames whose window reaches into the audio, 30 s at most."""

    name = "whisper-fbank"
    longest = 30.0
    """Seconds."""

    def __init__(self, mel_bins: int):
        from transformers import WhisperFeatureExtractor

        self.extractor = WhisperFeatureExtractor(feature_size=mel_bins)

    def extract(self, audio: np.ndarray) -> np.ndarray:
        if (seconds := audio.size / SAMPLING_RATE) > self.longest:
            raise UnusableAudio(f"{seconds:.2f} s of audio, but Whisper hears {self.longest:g} s at most")
        silence = np.pad(audio.astype(np.float32), (0, WINDOW_SAMPLES))
        found = self.extractor(silence, sampling_rate=SAMPLING_RATE, padding="do_not_pad", return_tensors="np")
        frames = min(-(-(audio.size + WINDOW_SAMPLES // 2) // SHIFT), int(self.longest / FRAME_SHIFT))
        return found["input_features"][0].T[:frames].copy()


def log_mel_of(options: Features) -> LogMel:
    """The features that a config asks for."""
    kinds = {"kaldi": KaldiLogMel, "whisper": WhisperLogMel}
    return kinds[options.kind](options.mel_bins)


class LogMelPieces:
    """The same features of audio that comes in parts, in pieces of ``size`` frames that do not depend on the parts.

    Frame t sees the samples from 160 t - 120 to 160 t + 280. Every piece is computed with the two frames before it,
    which are dropped: the first one of any samples is not what it is in the middle, and two are a window's worth.
    """

    def __init__(self, log_mel: LogMel, size: int):
        self.log_mel, self.size = log_mel, size
        self.audio = np.zeros(0, np.float32)
        """Samples from the next piece on, and those of the frames before it."""
        self.before = 0
        """Frames before it: none, then two."""

    def push(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        """The pieces (size, F) that these samples (S,) complete; there is always something left for `finish`."""
        self.audio = np.concatenate((self.audio, samples.astype(np.float32)))
        while len(self.audio) >= (needed := SHIFT * (self.before + self.size - 1) + SEEN_AFTER):
            yield self.log_mel(self.audio[:needed])[self.before : self.before + self.size]
            self.audio = self.audio[SHIFT * (self.before + self.size - 2) :]
            self.before = 2

    def finish(self) -> list[np.ndarray]:
        """The rest: at most ``size`` frames and, sometimes, one more."""
        audio = np.pad(self.audio, (0, max(0, WINDOW_SAMPLES - len(self.audio))))
        rest = self.log_mel(audio)[self.before :]
        return [piece for piece in (rest[: self.size], rest[self.size :]) if len(piece)]


def load_audio(cut: Cut) -> np.ndarray:
    """(S,) samples of a cut at 16 kHz, the mean of its channels.

    UnusableAudio when it cannot be read, claims more than its file can hold, or holds nothing.
    """
    try:
        _check_header(cut)
        audio = _load_channels(cut)
    except UnusableAudio:
        raise
    except Exception as error:  # lhotse's backends raise many kinds; all mean that the file is not readable
        raise UnusableAudio(f"cannot be read: {type(error).__name__}: {error}"[:300]) from error
    check_samples(audio)
    mixed = mix(audio)
    if cut.sampling_rate == SAMPLING_RATE:
        refuse_constant(mixed)
    elif may_have_been_constant(mixed):
        refuse_constant(mix(cut.load_audio()))
    return mixed


def _check_header(cut: Cut) -> None:
    """Before anything is allocated: the rate that the manifest gives, and what the files claim by now."""
    if problem := rate_problem(cut.sampling_rate):
        raise UnusableAudio(problem)
    for source in cut.recording.sources:
        if source.type == "file":
            check_file(str(source.source))


def _load_channels(cut: Cut) -> np.ndarray:
    """(C, S) at 16 kHz of the channels that a cut names."""
    if cut.sampling_rate == SAMPLING_RATE:
        return cut.load_audio()
    if has_common_period(cut.sampling_rate, SAMPLING_RATE):
        return cut.resample(SAMPLING_RATE).load_audio()
    return resample(cut.load_audio(), cut.sampling_rate, SAMPLING_RATE)


def change_speed(audio: np.ndarray, speed: float) -> np.ndarray:
    """(S,) samples played ``speed`` times as fast, by lhotse's resampling; pitch changes too, as in Kaldi."""
    return audio if speed == 1.0 else Speed(speed)(audio[None], SAMPLING_RATE)[0]


@dataclass
class Statistics:
    """Sums over frames, from which mean and standard deviation of every mel bin follow. All (F,), float64."""

    frames: int
    total: np.ndarray
    squares: np.ndarray

    @classmethod
    def empty(cls, mel_bins: int) -> "Statistics":
        return cls(0, np.zeros(mel_bins), np.zeros(mel_bins))

    def add(self, features: np.ndarray) -> None:
        """Counts (T, F) features in."""
        features = features.astype(np.float64)
        self.frames += len(features)
        self.total += features.sum(axis=0)
        self.squares += (features**2).sum(axis=0)

    def __add__(self, other: "Statistics") -> "Statistics":
        return Statistics(self.frames + other.frames, self.total + other.total, self.squares + other.squares)

    @cached_property
    def mean(self) -> np.ndarray:
        return self.total / max(self.frames, 1)

    @cached_property
    def deviation(self) -> np.ndarray:
        variance = self.squares / max(self.frames, 1) - self.mean**2
        return np.sqrt(np.maximum(variance, 1e-5))

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean (F,) and standard deviation (F,), float32."""
        return torch.tensor(self.mean, dtype=torch.float32), torch.tensor(self.deviation, dtype=torch.float32)

    def to_dict(self) -> dict:
        return {"frames": self.frames, "total": self.total.tolist(), "squares": self.squares.tolist()}

    @classmethod
    def from_dict(cls, values: dict) -> "Statistics":
        return cls(values["frames"], np.array(values["total"]), np.array(values["squares"]))
