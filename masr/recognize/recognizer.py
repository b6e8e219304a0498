"""The inference API: a trained folder and audio of any kind and length -> text, language, words with times.

recognizer = masr.load("exp/demo")
recognizer.transcribe("a.wav").text
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor

from masr.config import Decode
from masr.data.audio import Audio
from masr.data.audio_checks import UnusableAudio
from masr.data.features import SAMPLING_RATE
from masr.decode.search import METHODS, Searcher, Setting
from masr.files import is_hub_name
from masr.models.folder import load_model
from masr.models.pretrained import hub_folder
from masr.models.recognizer import Recognizer
from masr.models.searcher import load_scales, load_searcher
from masr.recognize.audio import open_audio
from masr.recognize.segments import Request, SegmentRecognizer
from masr.recognize.speech import Speech, segments_of
from masr.recognize.stream import Stream
from masr.recognize.transcript import Segment, Transcript
from masr.text.characters import joined

Languages = Sequence[str] | str | None
MOST_PENDING = 64
"""Recordings that may wait for a batch of short ones before them: arrays stay in memory until they are done."""
POOL = 2.0
"""Segments are recognised when there are this many batches of them: enough to put those of one length together."""


@dataclass
class Recording:
    """A recording that is being recognised."""

    source: Any
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    error: UnusableAudio | None = None


class SpeechRecognizer:
    """A trained model, ready to transcribe files and arrays by the first of ``decode.methods``.

    One recogniser serves any number of threads: what a call needs travels with the call.
    """

    def __init__(self, model: Recognizer, searcher: Searcher, setting: Setting, precision: str = "fp32"):
        self.model, self.searcher, self.setting = model, searcher, setting
        self.options = searcher.options
        self.segments = SegmentRecognizer(model, searcher, setting, precision)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: str | None = None,
        precision: str = "fp32",
        base: str | None = None,
        **overrides: Any,
    ) -> "SpeechRecognizer":
        """A model folder (exp/<name>), or what else `find_model` finds; ``base`` as in `masr.load`.

        ``device`` is cuda where there is one, else cpu; ``precision`` fp32, bf16 or fp16. ``overrides`` are options of
        ``decode:`` that are to be other than in its config.
        """
        folder = find_model(folder)
        model = load_model(folder, _usable(device), base)
        options = Decode.model_validate(model.config.decode.model_dump() | overrides)
        method = options.methods[0]
        if METHODS[method].oracle:
            raise ValueError(f"decode.methods: {method} needs to know what was said; name another one first")
        if METHODS[method].translates:
            raise ValueError(f"decode.methods: {method} does not transcribe; name another one first, use --translate")
        searcher = load_searcher(folder, model, options.model_copy(update={"methods": [method]}))
        return cls(model, searcher, load_scales(folder, method, options), precision)

    @overload
    def transcribe(  # type: ignore[overload-overlap]
        self,
        audio: Audio,
        sample_rate: int = ...,
        languages: Languages = ...,
        translate: bool = ...,
        channel: int | None = ...,
    ) -> Transcript: ...
    @overload
    def transcribe(
        self,
        audio: Sequence[Audio],
        sample_rate: int = ...,
        languages: Languages = ...,
        translate: bool = ...,
        channel: int | None = ...,
    ) -> list[Transcript]: ...
    def transcribe(self, audio, sample_rate=SAMPLING_RATE, languages=None, translate=False, channel=None):
        """Transcript of a recording, or a list of them for a list of recordings, which are batched.

        A recording is a path, an open file or its bytes, in any format that libsndfile, ffmpeg or PyAV reads, or
        samples (S,) or (channels, S) at ``sample_rate`` Hz. Channels are mixed, or ``channel`` says which one is meant.
        ``languages`` are those to expect (None: all); ``translate`` asks for translations, too. UnusableAudio names
        what cannot be read (`transcribe_each` goes on with the others), ValueError what the model cannot do.
        """
        several = isinstance(audio, list | tuple)
        found = []
        for _, result in self.transcribe_each(
            audio if several else [audio], sample_rate, languages, translate, channel
        ):
            if isinstance(result, UnusableAudio):
                raise result
            found.append(result)
        return found if several else found[0]

    def transcribe_each(
        self,
        sources: Iterable[Audio],
        sample_rate: int = SAMPLING_RATE,
        languages: Languages = None,
        translate: bool = False,
        channel: int | None = None,
    ) -> Iterator[tuple[Audio, Transcript | UnusableAudio]]:
        """Each recording, in order, with its transcript as soon as that is done, or with what makes it unusable.

        Recordings are read block by block, and their segments recognised in batches, so that memory grows neither with
        their number nor with their length. Arguments as of `transcribe`.
        """
        return self.transcribe_requested(sources, self.request(languages, translate), sample_rate, channel)

    def transcribe_requested(
        self, sources: Iterable[Audio], request: Request, sample_rate: int = SAMPLING_RATE, channel: int | None = None
    ) -> Iterator[tuple[Audio, Transcript | UnusableAudio]]:
        """`transcribe_each` of what `request` made."""
        pending: list[Recording] = []
        waiting: list[tuple[Recording, Speech]] = []
        for source in sources:
            recording = Recording(source)
            pending.append(recording)
            if len(pending) > MOST_PENDING:
                self._recognize(waiting, request)
                waiting = []
            for speech in self._read(recording, sample_rate, channel):
                waiting.append((recording, speech))
                if sum(speech.seconds for _, speech in waiting) >= POOL * self.options.batch_seconds:
                    self._recognize(waiting, request)
                    waiting = []
                    # Before the rest of a long recording: all that were read before it are done.
                    while pending[0] is not recording:
                        done = pending.pop(0)
                        yield done.source, self._result(done, request)
            still_waiting = {id(recording) for recording, _ in waiting}
            while pending and id(pending[0]) not in still_waiting:
                done = pending.pop(0)
                yield done.source, self._result(done, request)
        self._recognize(waiting, request)
        for done in pending:
            yield done.source, self._result(done, request)

    def identify(self, audio: Audio, sample_rate: int = SAMPLING_RATE, languages: Languages = None) -> Transcript:
        """The language of a recording and the probability of each accepted one, without a text where a classifier
        tells; arguments and errors as of `transcribe`."""
        request = self.request(languages, languages_only=True)
        [(_, result)] = self.transcribe_requested([audio], request, sample_rate)
        if isinstance(result, UnusableAudio):
            raise result
        return result

    def request(self, languages: Languages = None, translate: bool = False, languages_only: bool = False) -> Request:
        """What is asked of a call; ValueError lists the languages that the model knows."""
        if translate and self.model.translator is None:
            raise ValueError("this model does not translate: train one with model.translation.weight")
        return Request(self._allowed(languages), translate, languages_only)

    def _read(self, recording: Recording, sample_rate: int, channel: int | None) -> Iterator[Speech]:
        """Its segments of speech; what makes it unusable is kept with it."""
        try:
            with open_audio(recording.source, sample_rate, channel) as audio:
                yield from segments_of(_counted(audio.blocks(), recording), self.options.segments)
                recording.warnings = list(audio.warnings)
        except UnusableAudio as error:
            recording.error = error

    def _recognize(self, waiting: Sequence[tuple[Recording, Speech]], request: Request) -> None:
        """Recognises segments of recordings, and gives them to these."""
        found = self.segments(([speech for _, speech in waiting]), request)
        for (recording, _), segments in zip(waiting, found, strict=True):
            recording.segments += segments

    def _result(self, recording: Recording, request: Request) -> Transcript | UnusableAudio:
        if recording.error is not None:
            return recording.error
        transcript = join(recording.segments, recording.seconds)
        transcript.warnings = recording.warnings
        if request.translate:
            assert self.model.tokenizer.translation is not None
            into = self.model.tokenizer.translation.languages[0]
            transcript.translation = joined((segment.translation or "", into) for segment in transcript.segments)
        return transcript

    def _allowed(self, languages: Languages) -> Tensor:
        """(K,) bool prompt; ValueError lists the known languages."""
        known = self.model.languages
        if isinstance(languages, str):
            languages = [languages]
        languages = known if languages is None else languages
        unknown = [code for code in languages if code not in known]
        if unknown or not languages:
            found = f"unknown: {', '.join(unknown)}" if languages else "none given"
            raise ValueError(f"languages: {found}; this model knows {', '.join(known)}")
        return torch.tensor([code in languages for code in self.model.tokenizer.languages])

    def stream(self, languages: Languages = None) -> Stream:
        """For audio that comes bit by bit; ValueError where `streaming_problem` has something to say."""
        allowed = self._allowed(languages)
        if self.segments.mixes_heads(allowed):
            raise ValueError(
                "this model has CTC heads by language, and which of them to follow is known at the end of a recording "
                "alone: to stream, name one language"
            )
        return Stream(self.segments, allowed)

    def streaming_problem(self) -> str | None:
        """Why this model cannot recognise audio that has not ended yet, or None."""
        return self.segments.streaming_problem()


def join(segments: Sequence[Segment], seconds: float) -> Transcript:
    """The transcript of a recording of ``seconds`` from its segments; its language is that of most words."""
    segments = sorted(segments, key=lambda segment: segment.start)
    said = [segment for segment in segments if segment.text]
    transcript = Transcript(joined((segment.text, segment.language) for segment in said), segments=said)
    transcript.end = round(seconds, 3)
    transcript.words = [word for segment in said for word in segment.words]
    transcript.language = _most_spoken(segments)
    transcript.confidence = _mean([(segment.confidence, len(segment.words)) for segment in said])
    transcript.log_probability = _mean(
        [(segment.log_probability, segment.end - segment.start) for segment in said or segments]
    )
    transcript.no_speech_probability = 1.0
    if segments:
        transcript.no_speech_probability = min(segment.no_speech_probability or 0.0 for segment in segments)
    for code in segments[0].languages if segments else {}:
        share = _mean([(segment.languages.get(code), segment.end - segment.start) for segment in segments])
        transcript.languages[code] = share or 0.0
    return transcript


def _most_spoken(segments: Sequence[Segment]) -> str | None:
    votes: dict[str, int] = {}
    for segment in segments:
        if segment.language is not None:
            votes[segment.language] = votes.get(segment.language, 0) + 1 + len(segment.words)
    return max(votes, key=votes.__getitem__) if votes else None


def _mean(weighted: Sequence[tuple[float | None, float]]) -> float | None:
    """Of the values that are known."""
    known = [(value, weight) for value, weight in weighted if value is not None and weight > 0]
    if not known:
        return None
    return sum(value * weight for value, weight in known) / sum(weight for _, weight in known)


def _counted(blocks: Iterable[Any], recording: Recording) -> Iterator[Any]:
    """The blocks of a recording, whose length they tell."""
    for block in blocks:
        recording.seconds += len(block) / SAMPLING_RATE
        yield block


def _usable(device: str | None) -> str:
    """The device that was named, or the best one; ValueError where torch cannot use it."""
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"device: {device} cannot be used here ({reason}); leave it out, or use cpu") from error
    return device


def find_model(name: str | Path) -> Path:
    """The folder itself, the model shipped with the recipe of that name, or that of the hub (openai/whisper-tiny)."""
    if Path(name).is_dir():
        return Path(name)
    recipes = Path(__file__).parents[2] / "egs"
    if (shipped := recipes / str(name) / "model").is_dir():
        return shipped
    if is_hub_name(str(name)):
        return hub_folder(str(name))
    known = sorted(path.parents[1].name for path in recipes.glob("*/model/config.yaml"))
    found = ", ".join(known) or "none here"
    raise FileNotFoundError(f"{name} is neither a folder nor a shipped model ({found}) nor one of the hub (owner/name)")
