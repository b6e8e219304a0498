"""Where somebody speaks: the voice activity of audio that comes in blocks, and segments of speech, cut at pauses.

S samples at 16 kHz, N frames of 32 ms.
"""

import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from masr.config import Segments
from masr.data.features import SAMPLING_RATE

FRAME = 512
"""Samples of a frame of silero-vad."""
CONTEXT = 64
"""Samples before a frame that it is given, too."""
STATE = (1, 1, 128)
HYSTERESIS = 0.15
"""Speech goes on while its probability is no more than this below the threshold (silero-vad's own default)."""
LONGEST_PAUSE = 2.0
"""Seconds across which segments may be joined."""
QUIET_WINDOW = 0.2
"""Seconds in whose middle speech without a pause is cut."""


@dataclass
class Speech:
    """Audio in which somebody speaks."""

    start: float
    """Seconds from the beginning of the recording."""
    samples: np.ndarray = field(repr=False)
    """(S,) with the padding."""
    probability: float = 1.0
    """Mean probability of speech in its frames."""

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLING_RATE

    @property
    def end(self) -> float:
        return self.start + self.seconds


class VoiceActivity:
    """Probability of speech in each frame of one recording, by silero-vad (MIT; its weights come with the package)."""

    def __init__(self) -> None:
        self.session = _session()
        self.hidden = np.zeros(STATE, np.float32)
        self.cell = np.zeros(STATE, np.float32)
        self.context = np.zeros(CONTEXT, np.float32)
        self.rest = np.zeros(0, np.float32)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """The next samples (S,) -> probabilities (N,) of the frames that are complete; the rest waits."""
        samples = np.concatenate((self.rest, samples.astype(np.float32, copy=False)))
        whole = len(samples) // FRAME * FRAME
        self.rest = samples[whole:]
        return self._probabilities(samples[:whole].reshape(-1, FRAME))

    def finish(self) -> np.ndarray:
        """Probability of the last frame, filled up with zeros; (0,) when nothing is left."""
        if not len(self.rest):
            return np.zeros(0, np.float32)
        return self.push(np.zeros(FRAME - len(self.rest), np.float32))

    def _probabilities(self, frames: np.ndarray) -> np.ndarray:
        if not len(frames):
            return np.zeros(0, np.float32)
        before = np.concatenate((self.context[None], frames[:-1, -CONTEXT:]))
        self.context = frames[-1, -CONTEXT:].copy()
        inputs = {"input": np.concatenate((before, frames), axis=1), "h": self.hidden, "c": self.cell}
        found, self.hidden, self.cell = self.session.run(["speech_probs", "hn", "cn"], inputs)
        return found.reshape(-1)


class Segmenter:
    """Cuts one recording, which comes in blocks, into segments of speech. Memory does not grow with its length."""

    def __init__(self, options: Segments) -> None:
        self.options = options
        self.activity = VoiceActivity()
        self.audio = np.zeros(0, np.float32)
        """Samples that may still belong to a segment."""
        self.offset = 0
        """Number of the first of them."""
        self.frames = 0
        """Frames whose probability is known."""
        self.first: int | None = None
        """Frame with which the current speech began; None while nobody speaks."""
        self.last = 0
        """Last frame in which somebody spoke."""
        self.probabilities: list[float] = []
        """Of the frames of the current speech."""
        self.continues = False
        """Whether the current speech goes on behind a cut: what is left of it is no noise, however short."""

    def push(self, samples: np.ndarray) -> list[Speech]:
        """The next samples (S,) -> the segments that end in them."""
        self.audio = np.concatenate((self.audio, samples.astype(np.float32, copy=False)))
        found = []
        for probability in self.activity.push(samples).tolist():
            found += self._advance(probability)
        self._forget()
        return found

    def finish(self) -> list[Speech]:
        """The segments that are left when the recording ends."""
        found = []
        for probability in self.activity.finish().tolist():
            found += self._advance(probability)
        if self.first is not None:
            found += self._end()
        return found

    def _advance(self, probability: float) -> list[Speech]:
        """Takes the next frame."""
        frame, threshold = self.frames, self.options.threshold
        self.frames += 1
        if self.first is None:
            if probability >= threshold:
                self.first, self.last, self.probabilities = frame, frame, [probability]
                self.continues = False
            return []
        self.probabilities.append(probability)
        if probability >= threshold - HYSTERESIS:
            self.last = frame
        if (frame - self.last) * FRAME >= self.options.pause * SAMPLING_RATE:
            return self._end()
        if (frame + 1 - self.first) * FRAME >= self.options.longest * SAMPLING_RATE:
            return self._cut()
        return []

    def _end(self) -> list[Speech]:
        """Closes the current speech at the last frame in which somebody spoke."""
        assert self.first is not None
        first, spoken = self.first, self.probabilities[: self.last + 1 - self.first]
        self.first = None
        if len(spoken) * FRAME < self.options.shortest * SAMPLING_RATE and not self.continues:
            return []
        padding = round(self.options.padding * SAMPLING_RATE)
        start = max(first * FRAME - padding, self.offset)
        end = (self.last + 1) * FRAME + padding
        speech = self._speech(start, end, spoken)
        self._keep_from(min(end, self.frames * FRAME))
        return [speech]

    def _cut(self) -> list[Speech]:
        """Closes speech that is too long at its quietest place; the rest of it goes on."""
        assert self.first is not None
        padding = round(self.options.padding * SAMPLING_RATE)
        start = max(self.first * FRAME - padding, self.offset)
        middle = start + quietest(self.audio[start - self.offset : self.frames * FRAME - self.offset])
        frames = max(middle // FRAME - self.first, 1)
        speech = self._speech(start, middle, self.probabilities[:frames])
        self._keep_from(middle)
        self.first, self.probabilities = self.first + frames, self.probabilities[frames:]
        self.continues = self.last > self.first
        self.last = max(self.last, self.first)
        return [speech]

    def _speech(self, start: int, end: int, probabilities: list[float]) -> Speech:
        samples = self.audio[start - self.offset : end - self.offset].copy()
        return Speech(start / SAMPLING_RATE, samples, float(np.mean(probabilities)))

    def _forget(self) -> None:
        """Drops samples that no segment can want any more."""
        if self.first is None:
            self._keep_from(self.frames * FRAME - round(self.options.padding * SAMPLING_RATE))

    def _keep_from(self, sample: int) -> None:
        if sample > self.offset:
            self.audio = self.audio[sample - self.offset :]
            self.offset = sample


def segments_of(blocks: Iterable[np.ndarray], options: Segments) -> Iterator[Speech]:
    """Segments of speech of one recording; all of it, cut at quiet places, without voice activity detection.

    ``blocks`` are its samples (S,), one after another.
    """
    found = _spoken(blocks, options) if options.voice_activity else _everything(blocks, options)
    return joined(found, options.joined)


def joined(segments: Iterable[Speech], seconds: float) -> Iterator[Speech]:
    """Successive segments as one, with the pauses between them, as long as that is at most ``seconds`` long.

    A pause of more than 2 s ends it in any case.
    """
    waiting: list[Speech] = []
    for segment in segments:
        apart = bool(waiting) and segment.start - waiting[-1].end > LONGEST_PAUSE
        if waiting and (apart or segment.end - waiting[0].start > seconds):
            yield _as_one(waiting)
            waiting = []
        waiting.append(segment)
    if waiting:
        yield _as_one(waiting)


def quietest(samples: np.ndarray) -> int:
    """Middle of the 0.2 s with least energy in the second half of (S,) samples."""
    window, half = round(QUIET_WINDOW * SAMPLING_RATE), len(samples) // 2
    energy = np.concatenate([[0.0], np.cumsum(samples[half:].astype(np.float64) ** 2)])
    if len(energy) <= window:
        return len(samples)
    return half + int(np.argmin(energy[window:] - energy[:-window])) + window // 2


def _spoken(blocks: Iterable[np.ndarray], options: Segments) -> Iterator[Speech]:
    segmenter = Segmenter(options)
    for block in blocks:
        yield from segmenter.push(block)
    yield from segmenter.finish()


def _everything(blocks: Iterable[np.ndarray], options: Segments) -> Iterator[Speech]:
    """All audio in pieces of at most ``longest`` seconds."""
    longest = round(options.longest * SAMPLING_RATE)
    start, waiting = 0, np.zeros(0, np.float32)
    for block in blocks:
        waiting = np.concatenate((waiting, block))
        while len(waiting) > longest:
            end = quietest(waiting[:longest])
            yield Speech(start / SAMPLING_RATE, waiting[:end])
            start, waiting = start + end, waiting[end:]
    if len(waiting):
        yield Speech(start / SAMPLING_RATE, waiting)


def _as_one(segments: list[Speech]) -> Speech:
    """Segments with silence where nobody spoke."""
    if len(segments) == 1:
        return segments[0]
    start = segments[0].start
    samples = np.zeros(round((segments[-1].end - start) * SAMPLING_RATE), np.float32)
    for segment in segments:
        first = round((segment.start - start) * SAMPLING_RATE)
        room = samples[first : first + len(segment.samples)]
        room[:] = segment.samples[: len(room)]
    seconds = [segment.seconds for segment in segments]
    probability = np.average([segment.probability for segment in segments], weights=seconds)
    return Speech(start, samples, float(probability))


@cache
def _session() -> Any:
    """The network, of which one serves all recordings and threads.

    Its file is found without importing silero_vad, which would set the number of torch's threads to 1.
    """
    import onnxruntime

    package = importlib.util.find_spec("silero_vad")
    if package is None or not package.submodule_search_locations:
        raise ImportError("silero-vad is not installed, which finds speech: pip install silero-vad")
    path = Path(package.submodule_search_locations[0]) / "data" / "silero_vad_16k_sequence.onnx"
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), sess_options=options, providers=["CPUExecutionProvider"])
