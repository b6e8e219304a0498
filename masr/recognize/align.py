"""Forced alignment: when each word of a known text is spoken, for models with a CTC head.

words = align(masr.load("freevoices"), "a.wav", "Co je to za divnou loď?", "cs")

A recording of any length is encoded in overlapping windows; one alignment goes over the posteriors of all of them
(`masr.decode.viterbi`). S samples, T CTC frames, C columns of posteriors: blank and the tokens of the text.
"""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import torch

from masr.data.features import SAMPLING_RATE
from masr.decode.alignment import ctc_align
from masr.files import text_lines
from masr.models.recognizer import Recognizer
from masr.progress import track
from masr.recognize.audio import AudioSource, AudioStream, open_audio
from masr.recognize.recognizer import SpeechRecognizer
from masr.recognize.script import Script, read_script
from masr.recognize.transcript import Segment, Transcript, Word
from masr.text.tokenizer import BLANK

WINDOW = 30.0
"""Seconds that are encoded at once."""
CONTEXT = 2.0
"""Seconds at both sides of a window that only help to encode what lies between."""
IMPROBABLE = -100.0
"""Natural log-probability that stands for 0: a wrong word is to be aligned badly, not to make all others impossible."""


def align(recognizer: SpeechRecognizer, audio: AudioSource, text: str, language: str | None = None) -> list[Word]:
    """The words of a text as they are written, with the times at which they are spoken and confidences.

    ``audio`` is what `open_audio` takes, arrays at 16 kHz; ``language`` is that of the text, needed if the model knows
    several. A word's confidence is the mean posterior of its tokens. In scripts without spaces every token is a word.
    Warns of characters that were left out, see `read_script`. ValueError when the model has no CTC head, when it cannot
    write a word, or when the audio is too short for the text.
    """
    check_alignable(recognizer.model)
    language = _language_of(recognizer.model, language)
    script = read_script(text.split("\n"), language, recognizer.model.tokenizer)
    for warning in script.warnings:
        warnings.warn(warning, stacklevel=2)
    return align_script(recognizer, _samples(open_audio(audio)), script, language)


def align_file(
    recognizer: SpeechRecognizer, audio: Path, text: Path, language: str | None = None, show: bool = False
) -> Transcript:
    """The transcript of a recording whose text is in a file: every line with words is a segment.

    ``show`` shows the progress. ValueError as `align`, for a text without words, and for a file that is not UTF-8.
    """
    check_alignable(recognizer.model)
    language = _language_of(recognizer.model, language)
    lines = text_lines(text)
    script = read_script(lines, language, recognizer.model.tokenizer, str(text))
    if not script.words:
        raise ValueError(f"{text}: there are no words to align in it")
    stream = open_audio(audio)
    samples = _samples(stream)
    words = align_script(recognizer, samples, script, language, str(audio), show)
    segments = [
        _segment(lines[number - 1].strip(), language, [word for _, word in group])
        for number, group in groupby(zip(script.lines, words, strict=True), key=lambda pair: pair[0])
    ]
    return Transcript(
        text="\n".join(segment.text for segment in segments),
        language=language,
        words=words,
        end=round(len(samples) / SAMPLING_RATE, 3),
        confidence=_mean_confidence(words),
        segments=segments,
        warnings=[*script.warnings, *(f"{audio}: {warning}" for warning in stream.warnings)],
    )


def align_script(
    recognizer: SpeechRecognizer,
    samples: np.ndarray,
    script: Script,
    language: str,
    name: str = "audio",
    show: bool = False,
) -> list[Word]:
    """The words of a script in samples (S,) at 16 kHz; ValueError names the audio if it is too short for them."""
    if not script.words:
        return []
    columns, labels = np.unique([BLANK, *script.tokens], return_inverse=True)
    tokens = labels[1:].tolist()
    log_probs = posteriors(recognizer, samples, language, columns, show)
    seconds, frame_seconds = len(samples) / SAMPLING_RATE, recognizer.model.frame_seconds
    least = len(tokens) + sum(one == other for one, other in pairwise(tokens))
    if len(log_probs) < least:
        raise ValueError(
            f"{name}: {seconds:.2f} s of audio are too short for {len(script.words)} words of text, which need "
            f"{least * frame_seconds:.2f} s at least; is it the text of this recording?"
        )
    spans = ctc_align(torch.from_numpy(log_probs), tokens)
    return _words(script, log_probs, tokens, spans, frame_seconds, seconds)


@torch.no_grad()
def posteriors(
    recognizer: SpeechRecognizer, samples: np.ndarray, language: str, columns: np.ndarray, show: bool = False
) -> np.ndarray:
    """(T, C) natural log-probabilities of CTC of samples (S,) at 16 kHz, for the tokens in ``columns`` (C,)."""
    model = recognizer.model
    device = model.feature_mean.device
    prompt = torch.tensor([[code == language for code in model.tokenizer.languages]], device=device)
    upsampling = round(model.tokens_per_frame)
    step = round(model.frame_seconds * upsampling * SAMPLING_RATE)  # samples of an encoder frame
    windows = list(_windows(-(-len(samples) // step), step))
    found = np.empty(((windows[-1].end + 1) * upsampling, len(columns)), np.float32)
    done = 0
    for window in _tracked(windows, show):
        features = torch.from_numpy(recognizer.segments.log_mel(samples[window.first * step : window.last * step]))
        lengths = torch.tensor([len(features)], device=device)
        encoded = model.encode(features[None].to(device), lengths, prompt)
        log_probs, _ = model.ctc_log_probs(encoded, prompt)
        # The last window has a frame more or less than samples suggest.
        end = None if window is windows[-1] else (window.end - window.first) * upsampling
        own = log_probs[0, (window.start - window.first) * upsampling : end].cpu().numpy()
        found[done : done + len(own)] = own[:, columns]
        done += len(own)
    if np.isnan(found[:done]).any():
        raise ValueError("the model's CTC posteriors are NaN: its weights or the features are damaged")
    return np.maximum(found[:done], IMPROBABLE, out=found[:done])


@dataclass
class _Window:
    """Frames from ``start`` to ``end``, for which those from ``first`` to ``last`` are encoded."""

    start: int
    end: int
    first: int
    last: int


def _windows(frames: int, step: int) -> Iterator[_Window]:
    """Windows of equal length over encoder frames of ``step`` samples each; one alone has no context."""
    longest = round(WINDOW * SAMPLING_RATE / step)
    context = round(CONTEXT * SAMPLING_RATE / step)
    number = 1 if frames <= longest else -(-frames // (longest - 2 * context))
    size = -(-frames // number)
    for start in range(0, frames, size):
        end = min(start + size, frames)
        yield _Window(start, end, max(0, start - context), min(end + context, frames))


def _tracked(windows: list[_Window], show: bool) -> Iterable[_Window]:
    if not show:
        return windows
    return track(windows, "align", len(windows), unit="windows")


def _samples(audio: AudioStream) -> np.ndarray:
    """(S,) all samples at 16 kHz."""
    return np.concatenate([np.zeros(0, np.float32), *audio.blocks()])


def _words(
    script: Script,
    log_probs: np.ndarray,
    tokens: list[int],
    spans: list[tuple[int, int]],
    frame_seconds: float,
    seconds: float,
) -> list[Word]:
    """Each word from the first frame of its first token to the last one of its last token; the last encoder frame may
    reach beyond the audio, words may not."""
    words = [Word(text, seconds, 0.0) for text in script.words]
    confidences: list[list[float]] = [[] for _ in words]
    for token, (start, end), owner in zip(tokens, spans, script.owners, strict=True):
        if owner is None:
            continue
        word = words[owner]
        word.start = min(word.start, round(start * frame_seconds, 3))
        word.end = max(word.end, round(min(end * frame_seconds, seconds), 3))
        confidences[owner].append(float(np.exp(log_probs[start:end, token]).mean()))
    for word, own in zip(words, confidences, strict=True):
        word.confidence = round(sum(own) / len(own), 4)
    return words


def _segment(text: str, language: str, words: list[Word]) -> Segment:
    return Segment(text, language, words, start=words[0].start, end=words[-1].end, confidence=_mean_confidence(words))


def _mean_confidence(words: list[Word]) -> float:
    confidences = [word.confidence for word in words if word.confidence is not None]
    return round(sum(confidences) / len(confidences), 4)


def check_alignable(model: Recognizer) -> None:
    """ValueError for a model whose posteriors cannot be aligned."""
    if model.ctc is None or not model.config.model.ctc.weight:
        raise ValueError(
            "this model cannot align: it has no CTC head that has learnt (model.ctc.weight=0), as no Whisper has; use "
            "a model trained with CTC, e.g. freevoices"
        )


def _language_of(model: Recognizer, language: str | None) -> str:
    """The language of the text; ValueError lists the known ones."""
    known = ", ".join(model.languages)
    if language is None and len(model.languages) > 1:
        raise ValueError(f"language: name the one in which the text is written (--language); this model knows {known}")
    language = model.languages[0] if language is None else language
    if language not in model.languages:
        raise ValueError(f"language: unknown: {language}; this model knows {known}")
    return language
