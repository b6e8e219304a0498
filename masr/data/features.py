"""Log-mel features of audio, and their statistics. T frames of 10 ms, F mel bins, S samples."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from lhotse import Fbank, FbankConfig
from lhotse.augmentation import Speed
from lhotse.cut import Cut

SAMPLING_RATE = 16000
FRAME_SHIFT = 0.01  # seconds
WINDOW = 0.025  # seconds


class UnusableAudio(ValueError):
    """Audio that cannot be turned into features; the message says why."""


class LogMel:
    """Kaldi-compatible log-mel filterbank energies, computed by lhotse."""

    def __init__(self, mel_bins: int):
        self.fbank = Fbank(FbankConfig(sampling_rate=SAMPLING_RATE, num_mel_bins=mel_bins))

    def __call__(self, audio: np.ndarray) -> np.ndarray:
        """(S,) samples at 16 kHz in [-1, 1] -> (T, F) float32; UnusableAudio when too short or not finite."""
        if audio.size < WINDOW * SAMPLING_RATE:
            raise UnusableAudio(f"{audio.size or 'no'} samples are less than one window of {WINDOW} s")
        if not np.isfinite(audio).all():
            raise UnusableAudio(f"{int((~np.isfinite(audio)).sum())} samples are NaN or infinite")
        features = self.fbank.extract(audio, SAMPLING_RATE)
        return features if isinstance(features, np.ndarray) else features.numpy()


def load_audio(cut: Cut) -> np.ndarray:
    """(S,) samples of a cut at 16 kHz, channels averaged; UnusableAudio when it cannot be read."""
    if cut.sampling_rate != SAMPLING_RATE:
        cut = cut.resample(SAMPLING_RATE)
    try:
        audio = cut.load_audio()
    except Exception as error:  # lhotse's backends raise many kinds; all mean that the file is not readable
        raise UnusableAudio(f"cannot be read: {type(error).__name__}: {error}"[:300]) from error
    return audio.mean(axis=0)


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
