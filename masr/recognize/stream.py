"""Recognition while the recording is still being made, by models whose encoder looks back only.

stream = masr.load("exp/forward").stream()
for samples in microphone:
    for transcript in stream.push(samples):  # of what has come to an end
        print(transcript.text)
    print(stream.partial)

How the audio is cut into parts changes nothing: features and encoder work in pieces of a fixed length.
"""

import sys
import wave
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from io import BufferedReader
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import soxr
import torch
from torch import Tensor

from masr.data.audio import as_mono
from masr.data.audio_checks import rate_problem
from masr.data.features import FRAME_SHIFT, SAMPLING_RATE, LogMelPieces
from masr.decode.greedy import ctc_greedy
from masr.decode.utterances import utterances_of
from masr.nn.depthwise import Memory
from masr.nn.encoder import PIECE, EncoderOutput
from masr.progress import json_line, printable
from masr.recognize.audio import open_audio

if TYPE_CHECKING:
    from masr.recognize.segments import SegmentRecognizer
    from masr.recognize.transcript import Segment

PAUSE = 1.0
"""Seconds without a token that end a transcript."""
LONGEST = 30.0
"""Seconds after which it ends in the longest silence of their second half."""
CONTAINERS = (b"fLaC", b"OggS", b"ID3", b"\x1aE\xdf\xa3", b"0&\xb2u", b"#!AMR", b"FORM", b".snd", b"RF64", b"caff")
"""How FLAC, Ogg, MP3 with tags, Matroska and WebM, WMA, AMR, AIFF, AU, RF64 and CAF begin; MP4 has ftyp at byte 4."""
PART = SAMPLING_RATE // 10
"""Samples that are read at once."""


class Stream:
    """Audio in parts -> transcripts, each of what was spoken up to a pause."""

    def __init__(self, recognizer: "SegmentRecognizer", allowed: Tensor, translate: bool = False):
        """``allowed`` (K,) bool are the languages to expect; ValueError where the model cannot stream."""
        if problem := recognizer.streaming_problem():
            raise ValueError(problem)
        self.recognizer, self.model, self.translate = recognizer, recognizer.model, translate
        self.device = self.model.feature_mean.device
        self.allowed = allowed[None].to(self.device)
        self.pieces = LogMelPieces(recognizer.log_mel, PIECE * self.model.encoder.factor)
        self.memory: Memory = {}
        self.frames = torch.zeros(1, 0, self.model.config.model.encoder.width, device=self.device)
        """(1, T, D) of the current transcript."""
        self.language_weights: Tensor | None = None
        self.start = 0
        """Encoder frame at which it begins."""
        self.partial = ""
        """Its text so far, as CTC's best path has it."""
        self.samples = 0
        self.finished = False

    def push(self, samples: np.ndarray) -> list["Segment"]:
        """Takes the next samples, (S,) or (channels, S) at 16 kHz; returns the transcripts that they end."""
        if self.finished:
            raise ValueError("this stream is finished; begin another one")
        samples = as_mono(np.asarray(samples))
        self.samples += len(samples)
        return [found for piece in self.pieces.push(samples) for found in self._advance(piece, last=False)]

    def finish(self) -> list["Segment"]:
        """The rest, when no more samples will come."""
        if self.finished or not self.samples:
            return []
        self.finished = True
        pieces = self.pieces.finish()
        found = [found for i, piece in enumerate(pieces) for found in self._advance(piece, i == len(pieces) - 1)]
        return [*found, *self._end(self.frames.shape[1])]

    @torch.no_grad()
    def _advance(self, features: np.ndarray, last: bool) -> list["Segment"]:
        """Encodes a piece (T, F) and looks whether a transcript ends."""
        size = torch.tensor([len(features)], device=self.device)
        normalized = self.model.normalize(torch.from_numpy(features)[None].to(self.device), size)
        output = self.model.encoder.step(normalized, size, self.memory, last, self.allowed)
        self.frames, self.language_weights = torch.cat((self.frames, output.frames), 1), output.language_weights
        silent = self._look()
        silence = silent[int((~silent).nonzero().max()) + 1 :] if not silent.all() else silent
        if len(silence) * self.seconds >= PAUSE:
            return self._end(len(silent))
        if len(silent) * self.seconds < LONGEST:
            return []
        found = self._end(_middle_of_the_longest_run(silent))
        self._look()
        return found

    def _look(self) -> Tensor:
        """Sets ``partial``; returns for each encoder frame (T,) whether CTC's best path has nothing there."""
        if not self.frames.shape[1]:
            return torch.ones(0, dtype=torch.bool)
        utterances = utterances_of(self.model, self._encoded(self.frames), self.allowed)
        [[best]] = ctc_greedy(utterances.log_probs, utterances.ctc_lengths, self.model.ctc.blank)
        self.partial = self.model.tokenizer.decode(best.tokens)
        blank = utterances.log_probs[0].argmax(-1) == self.model.ctc.blank
        return blank.unflatten(0, (-1, self.model.ctc.upsampling)).all(1).cpu()

    @property
    def seconds(self) -> float:
        """Duration of an encoder frame."""
        return FRAME_SHIFT * self.model.encoder.factor

    def _encoded(self, frames: Tensor) -> EncoderOutput:
        lengths = torch.tensor([frames.shape[1]], device=self.device)
        return EncoderOutput(frames, lengths, language_weights=self.language_weights)

    @torch.no_grad()
    def _end(self, length: int) -> list["Segment"]:
        """The transcript of ``length`` frames as the model's own search has it, if its best path says anything."""
        segment, self.frames = self.frames[:, :length], self.frames[:, length:]
        start, self.start = self.start * self.seconds, self.start + length
        end = min(self.start * self.seconds, self.samples / SAMPLING_RATE)
        said, self.partial = self.partial, ""
        return (
            self.recognizer.search(self._encoded(segment), [(start, end)], self.allowed, self.translate) if said else []
        )


def _middle_of_the_longest_run(silent: Tensor) -> int:
    """Where to cut (T,) frames: in the longest silence of their second half, at their end if there is none."""
    half, best = len(silent) // 2, (0, len(silent))
    edges = torch.nn.functional.pad(silent[half:].int(), (1, 1)).diff()  # 1 where a silence begins, -1 after its end
    for first, after in zip((edges == 1).nonzero().tolist(), (edges == -1).nonzero().tolist(), strict=True):
        if after[0] - first[0] > best[0]:
            best = after[0] - first[0], half + (first[0] + after[0]) // 2
    return best[1]


def read_parts(source: str) -> Iterator[np.ndarray]:
    """Samples (S,) at 16 kHz of a recording, part by part; ``-`` is standard input.

    Standard input may be WAV with 16-bit integers, which is followed while it comes, samples of 16 bits (mono, 16 kHz)
    without a header, or any other container, which is known by its beginning and read when it has come to its end.
    """
    blocks = _standard_input() if source == "-" else open_audio(source).blocks()
    for block in blocks:
        for start in range(0, len(block), PART):
            yield block[start : start + PART]


def _standard_input() -> Iterator[np.ndarray]:
    stream = sys.stdin.buffer
    beginning = stream.peek(16)[:16] if isinstance(stream, BufferedReader) else b""
    if beginning.startswith(b"RIFF"):
        yield from _wav(stream)
    elif beginning.startswith(CONTAINERS) or beginning[4:8] == b"ftyp":
        yield from open_audio(stream).blocks()
    else:
        while data := stream.read(2 * PART):
            yield _fractions(data)


def _wav(stream: BinaryIO) -> Iterator[np.ndarray]:
    """(S,) at 16 kHz of WAV that is still being written; its size in the header may be 0."""
    try:
        header = wave.open(stream)  # noqa: SIM115 (it is standard input)
    except wave.Error as error:
        raise ValueError(f"standard input: expected WAV with 16-bit integers: {error}") from error
    rate, channels, bits = header.getframerate(), header.getnchannels(), 8 * header.getsampwidth()
    if bits != 16:
        raise ValueError(f"standard input: expected WAV with 16-bit integers, found {bits} bits")
    if problem := rate_problem(rate):
        raise ValueError(f"standard input: {problem}")
    resampler = soxr.ResampleStream(rate, SAMPLING_RATE, 1, dtype="float32") if rate != SAMPLING_RATE else None
    size = 2 * channels * (rate // 10)
    read = stream.read if header.getnframes() == 0 else lambda size: header.readframes(size // (2 * channels))
    while data := read(size):
        samples = _fractions(data[: len(data) // (2 * channels) * 2 * channels]).reshape(-1, channels).mean(1)
        yield samples if resampler is None else resampler.resample_chunk(samples)
    if resampler is not None:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def _fractions(data: bytes) -> np.ndarray:
    """16-bit integers as fractions of their range; half a sample at the end is left out."""
    return np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.float32) / 2**15


def print_stream(stream: Stream, source: str, as_json: bool = False, name: str = "") -> None:
    """Prints every transcript on a line of its own; what is heard so far stands on a line that is written over.

    Where the output is no terminal, and as JSON, every change of what is heard so far is a line, too. ``name`` begins a
    line. An interrupt is the end of the audio.
    """

    def show(line: dict, text: str, final: bool) -> None:
        if as_json:
            print(json_line({"file": source, **line}), flush=True)
            return
        text = printable(text)
        if sys.stdout.isatty():
            print(f"\r\033[K{name}{text}", end="\n" if final else "", flush=True)
        else:
            print(f"{name}{text}" if final else f"{name}... {text}", flush=True)

    shown = ""
    with suppress(KeyboardInterrupt):
        for samples in read_parts(source):
            for transcript in stream.push(samples):
                show(asdict(transcript), transcript.text, final=True)
            if stream.partial != shown and (shown := stream.partial):
                show({"time": round(stream.samples / SAMPLING_RATE, 2), "partial": shown}, shown, final=False)
    for transcript in stream.finish():
        show(asdict(transcript), transcript.text, final=True)
