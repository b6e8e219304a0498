"""Bounds on audio that strangers send, before anything is allocated, and channels made one. S samples, C channels."""

import math
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
from lhotse import Recording
from lhotse.augmentation import Resample

from masr.progress import say

RATES = (4000, 384000)
"""Hz of the slowest telephone and of the fastest sound card."""
SAMPLES_PER_BYTE = 1000
"""More samples than any codec makes of a byte of speech: FLAC of digital silence makes 300, Opus's pauses 480."""
LOUDEST = 2.0**31
"""A sample of 32-bit integers that were not divided by their range; features of louder ones overflow."""
SILENCE = 2.0**-22
"""A recording whose samples differ by less, a few steps of 24 bits, holds nothing."""
CANCELLED = 0.01
"""Channels whose mean has less than this part of their power are in opposite phase."""
LARGEST_KERNEL = 2**24
"""Numbers of lhotse's resampling kernel where torchaudio is installed: one for each pair of samples of the shortest
period that two rates have in common."""
EDGE = 64
"""Samples at either end of constant audio that resampling changes."""
RIPPLE = 0.02
"""Part by which it changes the others."""


class UnusableAudio(ValueError):
    """Audio that cannot be turned into features; the message says why."""


def check_file(path: str) -> None:
    """UnusableAudio when a file claims more than it can hold, or a rate that no audio has.

    What libsndfile cannot open is left to who reads it. A file is looked at once, unless it changes.
    """
    try:
        state = os.stat(path)
    except OSError:
        return
    if problem := _problem_of_file(path, state.st_size, state.st_mtime_ns):
        raise UnusableAudio(problem)


@lru_cache(maxsize=4096)
def _problem_of_file(path: str, size: int, time: int) -> str:
    try:
        header = soundfile.info(path)
    except (soundfile.LibsndfileError, TypeError, ValueError):  # TypeError: headerless .raw
        return ""
    return _problem_of_header(header.frames, header.samplerate, header.channels, size)


def check_recording(recording: Recording) -> None:
    """UnusableAudio when what a manifest says of a recording cannot be; its files are not opened."""
    sizes = [_size(source.source) for source in recording.sources if source.type == "file"]
    problem = _problem_of_header(
        recording.num_samples, recording.sampling_rate, recording.num_channels, sum(sizes) if sizes else None
    )
    if problem:
        raise UnusableAudio(problem)


def _size(path: str | Path) -> int:
    return os.stat(path).st_size


def _problem_of_header(samples: int, rate: int, channels: int, size: int | None) -> str:
    if problem := rate_problem(rate):
        return problem
    decoded = samples * channels * max(1.0, 16000 / rate)
    if size is not None and decoded > SAMPLES_PER_BYTE * size:
        return f"its header claims {samples} samples of {channels} channels, more than its {size} bytes can hold"
    return ""


def rate_problem(rate: float) -> str:
    """What is wrong with a sampling rate in Hz, if anything."""
    slowest, fastest = RATES
    if slowest <= rate <= fastest:
        return ""
    return f"a sampling rate of {rate:g} Hz; expected {slowest} to {fastest} Hz"


def check_samples(samples: np.ndarray) -> None:
    """UnusableAudio when some of any number of samples are no numbers, or so large that no microphone recorded them."""
    if not np.isfinite(samples).all():
        raise UnusableAudio(f"{int((~np.isfinite(samples)).sum())} samples are NaN or infinite")
    if samples.size and (peak := float(np.abs(samples).max())) > LOUDEST:
        raise UnusableAudio(f"samples reach {peak:.3g}; expected audio between -1 and 1")


def refuse_constant(samples: np.ndarray) -> None:
    """UnusableAudio when (S,) samples are all the same, as of a microphone that was off."""
    if samples.size and (problem := constant_problem(float(samples.min()), float(samples.max()), len(samples))):
        raise UnusableAudio(problem)


def constant_problem(low: float, high: float, number: int) -> str:
    """What is wrong with so many samples from ``low`` to ``high``, if they are all the same."""
    if high - low >= SILENCE:
        return ""
    what = "digital silence" if abs(high) < SILENCE else f"{high:.4g}"
    return f"all {number} samples are the same: {what}"


def may_have_been_constant(resampled: np.ndarray) -> bool:
    """Whether (S,) samples vary so little that they may be constant ones with the ripples of resampling."""
    middle = resampled[EDGE:-EDGE] if len(resampled) > 3 * EDGE else resampled
    return bool(middle.size) and float(np.ptp(middle)) <= RIPPLE * float(np.abs(middle).max()) + SILENCE


def mix(channels: np.ndarray) -> np.ndarray:
    """(C, S) -> (S,): the mean, or the loudest channel where the mean cancels them."""
    mixed = channels.mean(axis=0)
    loudest = loudest_if_cancelled(channels, mixed)
    if loudest is None:
        return mixed
    if channels[loudest].any():
        _note_opposite_phase()
    return channels[loudest]


def loudest_if_cancelled(channels: np.ndarray, mixed: np.ndarray) -> int | None:
    """Number of the loudest of (C, S) channels whose mean (S,) cancels them; None where the mean holds what they do."""
    if len(channels) == 1 or not channels.size:
        return None
    powers = [power(channel) for channel in channels]
    if power(mixed) >= CANCELLED * sum(powers) / len(powers):
        return None
    return int(np.argmax(powers))


def power(samples: np.ndarray) -> float:
    """Sum of the squares of (S,) samples."""
    return float(np.square(samples, dtype=np.float64).sum())


@lru_cache(maxsize=1)
def _note_opposite_phase() -> None:
    """Says so once in a process."""
    say("audio: the channels of a recording are in opposite phase and their mean is silent: the loudest is used")


def has_common_period(rate: int, into: int) -> bool:
    """Whether lhotse's kernel for two rates fits into memory: 44100 and 16000 have a short period, 44101 has not."""
    return rate * into // math.gcd(rate, into) ** 2 <= LARGEST_KERNEL


def resample(samples: np.ndarray, rate: int, into: int) -> np.ndarray:
    """(..., S) samples at another rate, by lhotse, or by scipy's polyphase filter, which any pair of rates suits.

    Without torchaudio lhotse uses that filter, too.
    """
    if rate == into:
        return samples
    if has_common_period(rate, into):
        return Resample(rate, into)(np.atleast_2d(samples), rate).reshape(*samples.shape[:-1], -1)
    from scipy.signal import resample_poly

    common = math.gcd(rate, into)
    return resample_poly(samples, into // common, rate // common, axis=-1).astype(np.float32)
