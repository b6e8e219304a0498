"""The inference API: a trained folder and audio -> text, language, words with times.

recognizer = masr.load("exp/demo")
recognizer.transcribe("a.wav").text
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from masr.config import Decode
from masr.data.audio import Audio, read_audio
from masr.data.features import FRAME_SHIFT, SAMPLING_RATE, log_mel_of
from masr.decode.alignment import timed_words
from masr.decode.hypothesis import Hypothesis
from masr.decode.search import METHODS, Searcher, Setting
from masr.decode.translate import translate
from masr.decode.utterances import Utterances, utterances_of
from masr.files import is_hub_name
from masr.models.folder import load_model
from masr.models.pretrained import hub_folder
from masr.models.recognizer import Recognizer
from masr.models.searcher import load_scales, load_searcher
from masr.nn.encoder import EncoderOutput
from masr.recognize.stream import Stream
from masr.recognize.transcript import Transcript, Word
from masr.text.characters import joined

CHUNK_SECONDS = 20.0  # a longer recording is cut at its quietest places
Languages = Sequence[str] | None


@dataclass
class _Chunk:
    recording: int
    start: float
    audio: np.ndarray


class SpeechRecognizer:
    """A trained model, ready to transcribe files and arrays by the first of ``decode.methods``."""

    def __init__(self, model: Recognizer, searcher: Searcher, setting: Setting):
        self.model, self.searcher, self.setting = model, searcher, setting
        self.options = searcher.options
        self.log_mel = log_mel_of(model.config.features)
        self.translates = False

    @classmethod
    def load(
        cls, folder: str | Path, device: str | None = None, base: str | None = None, **overrides: Any
    ) -> "SpeechRecognizer":  # fmt: skip
        """A model folder (exp/<name>), or what else `find_model` finds; ``base`` as in `masr.load`.

        ``overrides`` are options of ``decode:`` that are to be other than in its config.
        """
        folder = find_model(folder)
        model = load_model(folder, device or ("cuda" if torch.cuda.is_available() else "cpu"), base)
        options = Decode.model_validate(model.config.decode.model_dump() | overrides)
        method = options.methods[0]
        if METHODS[method].oracle:
            raise ValueError(f"decode.methods: {method} needs to know what was said; name another one first")
        if METHODS[method].translates:
            raise ValueError(f"decode.methods: {method} does not transcribe; name another one first, use --translate")
        searcher = load_searcher(folder, model, options.model_copy(update={"methods": [method]}))
        return cls(model, searcher, load_scales(folder, method, options))

    @overload
    def transcribe(  # type: ignore[overload-overlap]
        self, audio: Audio, sample_rate: int = ..., languages: Languages = ..., translate: bool = ...
    ) -> Transcript: ...
    @overload
    def transcribe(
        self, audio: Sequence[Audio], sample_rate: int = ..., languages: Languages = ..., translate: bool = ...
    ) -> list[Transcript]: ...
    def transcribe(self, audio, sample_rate=SAMPLING_RATE, languages=None, translate=False):
        """Transcript of a recording, or a list of them for a list of recordings, which are batched if they can be.

        A recording is a path (any format of libsndfile) or samples (S,) or (channels, S) at ``sample_rate`` Hz;
        channels are averaged. ``languages`` are those to expect (None: all); ``translate`` asks for translations, too.
        UnusableAudio names what cannot be read, ValueError says if the model does not translate.
        """
        self.translates = translate
        if translate and self.model.translator is None:
            raise ValueError("this model does not translate: train one with model.translation.weight")
        if isinstance(audio, list | tuple):
            return self._transcribe(audio, sample_rate, self._allowed(languages))
        return self._transcribe([audio], sample_rate, self._allowed(languages))[0]

    def _transcribe(self, audio: Sequence[Audio], sample_rate: int, allowed: Tensor) -> list[Transcript]:
        recordings = [read_audio(item, sample_rate) for item in audio]
        if self.streaming_problem() is None and not self._mixes_heads(allowed):
            return [self._as_stream(samples, allowed) for samples in recordings]
        chunks = [chunk for i, samples in enumerate(recordings) for chunk in _chunks(i, samples)]
        parts: dict[int, list[Transcript]] = {i: [] for i in range(len(recordings))}
        done: dict[int, Transcript] = {}
        for batch in _batches(chunks, self.options.batch_seconds):
            for index, transcript in zip(batch, self._recognize([chunks[i] for i in batch], allowed), strict=True):
                done[index] = transcript
        for index, chunk in enumerate(chunks):
            parts[chunk.recording].append(done[index])
        return [self._join(parts[i], len(samples) / SAMPLING_RATE) for i, samples in enumerate(recordings)]

    def _as_stream(self, samples: np.ndarray, allowed: Tensor) -> Transcript:
        """What can stream hears a recording of any length as a stream does, to the same words."""
        stream = Stream(self, allowed)
        return self._join([*stream.push(samples), *stream.finish()], len(samples) / SAMPLING_RATE)

    def _allowed(self, languages: Languages) -> Tensor:
        """(K,) bool prompt; ValueError lists the known languages."""
        known = self.model.languages
        languages = known if languages is None else languages
        if not languages or (unknown := [code for code in languages if code not in known]):
            found = f"unknown: {', '.join(unknown)}" if languages else "none given"
            raise ValueError(f"languages: {found}; this model knows {', '.join(known)}")
        return torch.tensor([code in languages for code in self.model.tokenizer.languages])

    @torch.no_grad()
    def _recognize(self, chunks: list[_Chunk], allowed: Tensor) -> list[Transcript]:
        device = self.model.feature_mean.device
        features = [torch.from_numpy(self.log_mel(chunk.audio)) for chunk in chunks]
        lengths = torch.tensor([len(f) for f in features], device=device)
        prompt = allowed.to(device).expand(len(chunks), -1)
        encoded = self.model.encode(pad_sequence(features, batch_first=True).to(device), lengths, prompt)
        times = [(chunk.start, chunk.start + len(chunk.audio) / SAMPLING_RATE) for chunk in chunks]
        return self.search(encoded, times, prompt)

    def search(self, encoded: EncoderOutput, times: list[tuple[float, float]], allowed: Tensor) -> list[Transcript]:
        """Transcripts of encoded speech (B, T, D) that was spoken from and to ``times``; allowed languages (B, K)."""
        utterances = utterances_of(self.model, encoded, allowed)
        [found] = self.searcher(self.options.methods[0], utterances, [self.setting])
        languages = self.model.predict_languages(encoded, found, allowed)
        self.model.add_times([nbest[0] for nbest in found], utterances)
        transcripts = []
        for nbest, language, (start, end) in zip(found, languages, times, strict=True):
            words = self._words(nbest[0], start, end)
            score = nbest[0].score / max(end - start, FRAME_SHIFT)
            times_of_it = round(start, 3), round(end, 3)
            transcripts.append(Transcript(nbest[0].text, language, words, score, *times_of_it))
        if self.translates:
            for transcript, text in zip(transcripts, self._translations(utterances, languages), strict=True):
                transcript.translation = text
        return transcripts

    def _translations(self, utterances: Utterances, languages: Sequence[str | None]) -> list[str]:
        """What was said, in the language of the translations; decoders of one language trust the recogniser's."""
        assert self.model.translator is not None and self.model.tokenizer.translation is not None
        named = zip(languages, utterances.languages, strict=True)
        spoken = replace(utterances, languages=[(code,) if code else allowed for code, allowed in named])
        found = translate(self.model.translator, spoken, self.options)
        return [self.model.tokenizer.translation.decode(nbest[0].tokens) for nbest in found]

    def _words(self, best: Hypothesis, start: float, end: float) -> list[Word]:
        """The last encoder frame may reach beyond the audio, words may not."""
        at = [(text, start + first, min(start + last, end)) for text, first, last in timed_words(best, self.model)]
        return [Word(text, round(first, 3), round(last, 3)) for text, first, last in at]

    def _join(self, parts: list[Transcript], seconds: float) -> Transcript:
        """One transcript of the chunks of a recording; its language is that of most words."""
        votes: dict[str, int] = {}
        for part in parts:
            if part.language is not None:
                votes[part.language] = votes.get(part.language, 0) + 1 + len(part.words)
        language = max(votes, key=votes.__getitem__) if votes else None
        text = joined((part.text, part.language) for part in parts)
        words = [word for part in parts for word in part.words]
        score = sum(part.score * (part.end - part.start) for part in parts) / seconds
        return Transcript(
            text, language, words, score, 0.0, round(seconds, 3), translation=self._joined_translation(parts)
        )

    def _joined_translation(self, parts: list[Transcript]) -> str | None:
        texts = [part.translation for part in parts if part.translation is not None]
        if not texts:
            return None
        assert self.model.tokenizer.translation is not None
        into = self.model.tokenizer.translation.languages[0]
        return joined((text, into) for text in texts)

    def stream(self, languages: Languages = None) -> Stream:
        """For audio that comes bit by bit; ValueError where `streaming_problem` has something to say."""
        allowed = self._allowed(languages)
        if self._mixes_heads(allowed):
            raise ValueError(
                "this model has CTC heads by language, and which of them to follow is known at the end of a recording "
                "alone: to stream, name one language"
            )
        return Stream(self, allowed)

    def _mixes_heads(self, allowed: Tensor) -> bool:
        """Whether several CTC heads take part, each as much as the whole recording sounds like its language."""
        return self.model.config.model.ctc.per_language and int(allowed.sum()) > 1

    def streaming_problem(self) -> str | None:
        """Why this model cannot recognise audio that has not ended yet, or None."""
        model = self.model.config.model
        if not self.model.encoder.causal:
            return "this model cannot stream: train with model.encoder.type=mamba model.encoder.directions=forward"
        if model.normalization != "corpus":
            return "this model cannot stream: it needs the mean of a recording; train with model.normalization=corpus"
        return None


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


def _chunks(recording: int, samples: np.ndarray) -> Iterator[_Chunk]:
    """Pieces of at most CHUNK_SECONDS, cut where the second half of a piece is quietest."""
    start, size = 0, int(CHUNK_SECONDS * SAMPLING_RATE)
    while len(samples) - start > size:
        end = start + _quietest(samples[start : start + size])
        yield _Chunk(recording, start / SAMPLING_RATE, samples[start:end])
        start = end
    yield _Chunk(recording, start / SAMPLING_RATE, samples[start:])


def _quietest(samples: np.ndarray) -> int:
    """Middle of the 0.2 s with least energy in the second half of ``samples``."""
    window, half = SAMPLING_RATE // 5, len(samples) // 2
    energy = np.concatenate([[0.0], np.cumsum(samples[half:].astype(np.float64) ** 2)])
    return half + int(np.argmin(energy[window:] - energy[:-window])) + window // 2


def _batches(chunks: list[_Chunk], seconds: float) -> Iterator[list[int]]:
    """Numbers of chunks of similar length whose padded audio stays within ``seconds``."""
    batch: list[int] = []
    for index in sorted(range(len(chunks)), key=lambda i: -len(chunks[i].audio)):
        if batch and len(chunks[batch[0]].audio) * (len(batch) + 1) > seconds * SAMPLING_RATE:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
