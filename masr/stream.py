"""Recognition while the recording is still being made, by models whose encoder looks back only.

stream = masr.load("exp/forward").stream()
for samples in microphone:
    for transcript in stream.push(samples):  # of what has come to an end
        print(transcript.text)
    print(stream.partial)

How the audio is cut into parts changes nothing: features and encoder work in pieces of a fixed length.
"""

import json
import sys
import wave
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import torch
from torch import Tensor

from masr.data.audio import read_audio
from masr.data.features import FRAME_SHIFT, SAMPLING_RATE, LogMelPieces
from masr.decode.greedy import ctc_greedy
from masr.decode.utterances import utterances_of
from masr.nn.depthwise import Memory
from masr.nn.encoder import PIECE, EncoderOutput

if TYPE_CHECKING:
    from masr.recognize import SpeechRecognizer, Transcript

PAUSE = 1.0
"""Seconds without a token that end a transcript."""
LONGEST = 30.0
"""Seconds after which a transcript ends without a pause."""
PART = SAMPLING_RATE // 10
"""Samples that are read at once."""


class Stream:
    """Audio in parts -> transcripts, each of what was spoken up to a pause."""

    def __init__(self, recognizer: "SpeechRecognizer", allowed: Tensor):
        """``allowed`` (K,) bool are the languages to expect; ValueError where the model cannot stream."""
        if problem := recognizer.streaming_problem():
            raise ValueError(problem)
        self.recognizer, self.model, self.allowed = recognizer, recognizer.model, allowed[None]
        self.device = self.model.feature_mean.device
        self.pieces = LogMelPieces(recognizer.log_mel, PIECE * self.model.encoder.factor)
        self.memory: Memory = {}
        self.frames: list[Tensor] = []
        """(1, T, D) of the current transcript."""
        self.start = 0
        """Encoder frame at which it begins."""
        self.partial = ""
        """Its text so far, as CTC's best path has it."""

    def push(self, samples: np.ndarray) -> list["Transcript"]:
        """Takes the next samples (S,) at 16 kHz; returns what they brought to an end."""
        return [found for piece in self.pieces.push(samples) for found in self._advance(piece, last=False)]

    def finish(self) -> list["Transcript"]:
        """The rest, when no more samples will come."""
        pieces = self.pieces.finish()
        found = [found for i, piece in enumerate(pieces) for found in self._advance(piece, i == len(pieces) - 1)]
        return [*found, *self._end()]

    @torch.no_grad()
    def _advance(self, features: np.ndarray, last: bool) -> list["Transcript"]:
        """Encodes a piece (T, F) and looks whether the transcript ends here."""
        normalized = (
            torch.from_numpy(features).to(self.device) - self.model.feature_mean
        ) / self.model.feature_deviation
        size = torch.tensor([len(features)], device=self.device)
        self.frames.append(self.model.encoder.step(normalized[None], size, self.memory, last).frames)
        if not sum(frames.shape[1] for frames in self.frames):
            return []
        utterances = utterances_of(self.model, self._segment(), self.allowed)
        self.partial = self.model.tokenizer.decode(
            ctc_greedy(utterances.log_probs, utterances.ctc_lengths)[0][0].tokens
        )
        spoken = (utterances.log_probs[0].argmax(-1) != self.model.ctc.blank).nonzero().flatten()
        seconds = utterances.log_probs.shape[1] * self.model.frame_seconds
        silence = seconds - (int(spoken[-1]) + 1) * self.model.frame_seconds if len(spoken) else seconds
        return self._end() if silence >= PAUSE or seconds >= LONGEST else []

    def _segment(self) -> EncoderOutput:
        frames = torch.cat(self.frames, 1)
        return EncoderOutput(frames, torch.tensor([frames.shape[1]], device=self.device))

    @torch.no_grad()
    def _end(self) -> list["Transcript"]:
        """The transcript as the model's own search has it, if anything was said; the next one begins."""
        if not self.frames:
            return []
        segment, partial = self._segment(), self.partial
        seconds = FRAME_SHIFT * self.model.encoder.factor
        at = self.start * seconds, (self.start + segment.frames.shape[1]) * seconds
        self.start += segment.frames.shape[1]
        self.frames, self.partial = [], ""
        return self.recognizer.search(segment, [at], self.allowed) if partial else []


def read_parts(source: str) -> Iterator[np.ndarray]:
    """Samples (S,) at 16 kHz of a file or, for ``-``, of standard input: WAV, or 16-bit mono without a header."""
    if source != "-":
        samples = read_audio(source)
        yield from (samples[start : start + PART] for start in range(0, len(samples), PART))
        return
    read = _reader(sys.stdin.buffer)
    while data := read(2 * PART):
        yield np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.float32) / 2**15


def _reader(stream: BinaryIO):
    """Reads 16-bit samples; ValueError for a WAV header that promises anything else."""
    beginning = stream.peek(4)[:4] if hasattr(stream, "peek") else b""
    if beginning != b"RIFF":
        return stream.read
    header = wave.open(stream)  # noqa: SIM115 (it is standard input)
    found = header.getframerate(), header.getnchannels(), 8 * header.getsampwidth()
    if found != (SAMPLING_RATE, 1, 16):
        raise ValueError("standard input: expected 16000 Hz, 1 channel, 16 bits; found {} Hz, {}, {}".format(*found))
    return lambda size: header.readframes(size // 2)


def print_stream(stream: Stream, source: str, as_json: bool = False) -> None:
    """Prints every transcript on a line of its own; what is heard so far stands on a line that is written over.

    Where the output is no terminal, and as JSON, every change of what is heard so far is a line, too.
    """
    shown, at = "", 0
    for samples in read_parts(source):
        ended = stream.push(samples)
        at += len(samples)
        for transcript in ended:
            _show(asdict(transcript) if as_json else transcript.text, final=True)
        if stream.partial != shown and (shown := stream.partial):
            _show({"time": round(at / SAMPLING_RATE, 2), "partial": shown} if as_json else shown, final=False)
    for transcript in stream.finish():
        _show(asdict(transcript) if as_json else transcript.text, final=True)


def _show(what: dict | str, final: bool) -> None:
    if isinstance(what, dict):
        print(json.dumps(what, ensure_ascii=False), flush=True)
    elif sys.stdout.isatty():
        print(f"\r\033[K{what}", end="\n" if final else "", flush=True)
    else:
        print(what if final else f"... {what}", flush=True)
