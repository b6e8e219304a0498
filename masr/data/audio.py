"""Audio as users have it (any format, sample rate and number of channels) -> samples as the models want them."""

from pathlib import Path

import numpy as np
import soundfile
from torch import Tensor

from masr.data.audio_checks import UnusableAudio, check_file, check_samples, mix, rate_problem, resample
from masr.data.features import SAMPLING_RATE, WINDOW

Audio = str | Path | np.ndarray | Tensor


def read_audio(audio: Audio, sample_rate: int = SAMPLING_RATE) -> np.ndarray:
    """(S,) float32 mono samples at 16 kHz of a file, or of samples at ``sample_rate`` Hz, at least a window of them.

    UnusableAudio says what is wrong with them.
    """
    name = "audio"
    if isinstance(audio, str | Path):
        name = str(audio)
    try:
        channels, sample_rate = _channels(audio, sample_rate)
        if channels.size == 0:
            raise UnusableAudio("no samples")
        if problem := rate_problem(sample_rate):
            raise UnusableAudio(problem)
        check_samples(channels)
    except UnusableAudio as error:
        raise UnusableAudio(f"{name}: {error}") from error
    samples = resample(mix(channels), sample_rate, SAMPLING_RATE)
    return np.pad(samples, (0, max(0, int(WINDOW * SAMPLING_RATE) - len(samples))))


def _channels(audio: Audio, sample_rate: int) -> tuple[np.ndarray, int]:
    """(C, S) samples of a file or of an array, and their rate in Hz."""
    if not isinstance(audio, str | Path):
        if sample_rate <= 0:
            raise ValueError(f"sample_rate: expected Hz, found {sample_rate}")
        samples = audio.detach().cpu().numpy() if isinstance(audio, Tensor) else np.asarray(audio)
        return np.atleast_2d(_as_fractions(samples)), sample_rate
    name = str(audio)
    check_file(name)
    try:
        samples, sample_rate = soundfile.read(name, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: headerless .raw
        found = "cannot be decoded; WAV, FLAC, Ogg and MP3 can" if Path(name).exists() else "no such file"
        raise UnusableAudio(f"{found} ({error})") from error
    return np.ascontiguousarray(samples.T), sample_rate


def as_mono(samples: np.ndarray) -> np.ndarray:
    """(S,) float32 of (S,) or (channels, S); integers become fractions of their range."""
    samples = _as_fractions(samples)
    return samples.mean(axis=0) if samples.ndim == 2 else samples


def _as_fractions(samples: np.ndarray) -> np.ndarray:
    """(S,) or (channels, S) in float32; ValueError says what is not samples."""
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fi":
        raise ValueError(f"audio: expected samples (S,) or (channels, S), found {samples.dtype} {samples.shape}")
    if samples.ndim == 2 and samples.shape[0] > samples.shape[1]:
        raise ValueError(f"audio: expected (channels, S), found {samples.shape}; transpose it")
    if samples.dtype.kind == "i":
        samples = samples / -float(np.iinfo(samples.dtype).min)
    return samples.astype(np.float32)
