"""Audio as users have it (any format, sample rate and number of channels) -> samples as the models want them."""

from pathlib import Path

import numpy as np
import soundfile
from lhotse.augmentation import Resample
from torch import Tensor

from masr.data.features import SAMPLING_RATE, WINDOW, UnusableAudio

Audio = str | Path | np.ndarray | Tensor


def read_audio(audio: Audio, sample_rate: int = SAMPLING_RATE) -> np.ndarray:
    """(S,) float32 mono samples at 16 kHz of a file, or of samples at ``sample_rate`` Hz, at least a window of them.

    UnusableAudio says what is wrong with them.
    """
    name = "audio"
    if isinstance(audio, str | Path):
        name = str(audio)
        try:
            samples, sample_rate = soundfile.read(name, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: headerless .raw
            found = "cannot be decoded; WAV, FLAC, Ogg and MP3 can" if Path(name).exists() else "no such file"
            raise UnusableAudio(f"{name}: {found} ({error})") from error
        samples = samples.mean(axis=1)
    else:
        samples = as_mono(audio.detach().cpu().numpy() if isinstance(audio, Tensor) else np.asarray(audio))
    if samples.size == 0:
        raise UnusableAudio(f"{name}: no samples")
    if not np.isfinite(samples).all():
        raise UnusableAudio(f"{name}: {int((~np.isfinite(samples)).sum())} samples are NaN or infinite")
    if sample_rate <= 0:
        raise ValueError(f"sample_rate: expected Hz, found {sample_rate}")
    if sample_rate != SAMPLING_RATE:
        samples = Resample(sample_rate, SAMPLING_RATE)(samples[None], sample_rate)[0]
    return np.pad(samples, (0, max(0, int(WINDOW * SAMPLING_RATE) - len(samples))))


def as_mono(samples: np.ndarray) -> np.ndarray:
    """(S,) float32 of (S,) or (channels, S); integers become fractions of their range."""
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fi":
        raise ValueError(f"audio: expected samples (S,) or (channels, S), found {samples.dtype} {samples.shape}")
    if samples.ndim == 2 and samples.shape[0] > samples.shape[1]:
        raise ValueError(f"audio: expected (channels, S), found {samples.shape}; transpose it")
    if samples.dtype.kind == "i":
        samples = samples / -float(np.iinfo(samples.dtype).min)
    samples = samples.astype(np.float32)
    return samples.mean(axis=0) if samples.ndim == 2 else samples
