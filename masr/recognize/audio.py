"""Audio from anywhere -> mono samples at 16 kHz in blocks, so that memory does not grow with the recording.

with open_audio("meeting.m4a") as audio:
    for block in audio.blocks():
        ...
"""

import os
from collections.abc import Iterator
from typing import BinaryIO, Self

import numpy as np
import soxr
from torch import Tensor

from masr.data.audio_checks import UnusableAudio, check_samples, constant_problem, rate_problem
from masr.data.features import SAMPLING_RATE
from masr.recognize.arrays import ArrayDecoder
from masr.recognize.audio_files import open_file
from masr.recognize.decoder import Decoder
from masr.recognize.levels import Levels, Mixer

AudioSource = str | os.PathLike | bytes | bytearray | memoryview | BinaryIO | np.ndarray | Tensor
"""The name of a file; the content of one; an open file; samples."""
BLOCK_SECONDS = 10.0
SHORT = 0.1
"""Seconds that a file may be shorter than its header says before that is worth a warning."""


class AudioStream:
    """One recording, opened by `open_audio`: what is known of it, and its samples in blocks.

    ``warnings`` grows while blocks are read and is complete after the last one; its texts do not name the recording.
    """

    def __init__(self, name: str, decoder: Decoder, channel: int | None = None):
        self.name, self.decoder = name, decoder
        self.channels = decoder.channels
        """Channels of the recording, whichever of them are read."""
        self.seconds = decoder.seconds
        """Length, or None where it is not known before the end."""
        self.warnings = decoder.warnings
        self._levels = Levels(self.warnings, decoder.peak)
        self._mixer = Mixer(self.warnings, channel)
        self._resampler = None
        if decoder.rate != SAMPLING_RATE:
            self._resampler = soxr.ResampleStream(decoder.rate, SAMPLING_RATE, 1, dtype="float32", quality="HQ")
        self._closed = False

    def blocks(self) -> Iterator[np.ndarray]:
        """(S,) float32 at 16 kHz: mono blocks of about 10 s. They can be read once; then the recording is closed.

        Put together they are the whole recording, resampled without seams. UnusableAudio names the recording and says
        what is wrong with it where that shows late: samples that are no numbers.
        """
        if self._closed:
            raise ValueError(f"{self.name}: closed, or its blocks have been read; open it again")
        with self:
            length, low, high = 0, np.inf, -np.inf
            while len(channels := self._read_block()):
                mono = self._mixer(self._levels(channels.T))
                length += len(mono)
                low, high = min(low, float(mono.min())), max(high, float(mono.max()))
                block = self._resample(mono)
                if len(block):
                    yield block
            rest = self._resample(np.zeros(0, np.float32), last=True)
            if len(rest):
                yield rest
            self._warn_at_end(length, low, high)

    def _read_block(self) -> np.ndarray:
        """(S, C) samples as decoded, about BLOCK_SECONDS of them; (0, C) at the end."""
        chunks, length = [], 0
        while length < BLOCK_SECONDS * self.decoder.rate:
            chunk = self.decoder.read()
            if not len(chunk):
                break
            chunks.append(chunk)
            length += len(chunk)
        if not chunks:
            return np.zeros((0, self.channels), np.float32)
        block = np.concatenate(chunks)
        try:
            check_samples(block)
        except UnusableAudio as error:
            raise UnusableAudio(f"{self.name}: {error}") from error
        return block

    def _resample(self, samples: np.ndarray, last: bool = False) -> np.ndarray:
        if self._resampler is None:
            return np.ascontiguousarray(samples)
        return self._resampler.resample_chunk(np.ascontiguousarray(samples), last=last)

    def _warn_at_end(self, length: int, low: float, high: float) -> None:
        rate, claimed = self.decoder.rate, self.decoder.claimed or 0
        if claimed - length > max(SHORT * rate, self.decoder.tolerance * claimed):
            self.warnings.append(
                f"the file is shorter than its header says: {length / rate:.1f} s of {claimed / rate:.1f} s could be "
                "read; it was cut short or is damaged"
            )
        if problem := constant_problem(low, high, length):
            self.warnings.append(problem)

    def close(self) -> None:
        """Lets go of the file, for a recording whose blocks are not all read."""
        self._closed = True
        self.decoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def open_audio(audio: AudioSource, sample_rate: float = SAMPLING_RATE, channel: int | None = None) -> AudioStream:
    """A recording, ready to be read in blocks, from whatever holds it.

    ``audio`` is one of
    - the name of a file, which libsndfile decodes, or else ffmpeg: the first audio stream of any container;
    - the content of a file (bytes, bytearray, memoryview);
    - a file open for reading bytes, which is read from its beginning and left open;
    - samples at ``sample_rate`` Hz in an array or a tensor, as `ArrayDecoder` understands them.

    ``channel`` is the one to read, from 0; None averages all of them. Where the average of a block cancels them, which
    means opposite phase, that block is the loudest channel instead; once such a block has enough signal
    (ENOUGH_SIGNAL), the rest of the recording is that channel, too, with a warning.

    UnusableAudio names the recording and says why it cannot be read, where that shows at its beginning.
    """
    name = _name_of(audio)
    try:
        decoder = _decoder_of(audio, sample_rate)
        if problem := rate_problem(decoder.rate):
            decoder.close()
            raise UnusableAudio(problem)
        if channel is not None and not 0 <= channel < decoder.channels:
            decoder.close()
            raise UnusableAudio(f"no channel {channel}: it has {decoder.channels}, and the first one is 0")
    except UnusableAudio as error:
        raise UnusableAudio(f"{name}: {error}") from error
    return AudioStream(name, decoder, channel)


def _name_of(audio: AudioSource) -> str:
    """What messages call the recording."""
    if isinstance(audio, str | os.PathLike):
        return os.fsdecode(audio)
    name = getattr(audio, "name", None)
    return os.fsdecode(name) if isinstance(name, str | bytes) else "audio"


def _decoder_of(audio: AudioSource, sample_rate: float) -> Decoder:
    if isinstance(audio, np.ndarray | Tensor):
        return ArrayDecoder(audio, sample_rate)
    return open_file(audio)
