"""Segments of speech -> what is said in them, in batches of similar length. B segments, K languages."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from masr.data.features import SAMPLING_RATE, WINDOW, log_mel_of
from masr.decode.alignment import timed_words
from masr.decode.hypothesis import Hypothesis
from masr.decode.search import METHODS, Searcher, Setting
from masr.decode.translate import translate
from masr.decode.utterances import Utterances, utterances_of
from masr.models.recognizer import Recognizer
from masr.nn.encoder import EncoderOutput
from masr.recognize.confidence import Certainty, certainties
from masr.recognize.speech import Speech
from masr.recognize.stream import Stream
from masr.recognize.transcript import Segment, Word

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WHISPER_HEARS = 30.0
"""Seconds."""
UNTOLD = 1.5
"""Seconds of speech behind the last word from which a decoder is taken to have stopped too early."""


@dataclass(frozen=True)
class Request:
    """What one call asks for."""

    allowed: Tensor
    """(K,) bool: the languages to expect."""
    translate: bool = False
    languages_only: bool = False
    """Name the language and write no text, where a classifier tells without one."""


class SegmentRecognizer:
    """A model and its search. Nothing of a call is left on it."""

    def __init__(self, model: Recognizer, searcher: Searcher, setting: Setting, precision: str = "fp32"):
        """``precision`` of what the networks compute: fp32, bf16 or fp16."""
        if precision not in PRECISIONS:
            raise ValueError(f"precision: expected {', '.join(PRECISIONS)}; found {precision}")
        self.model, self.searcher, self.setting = model, searcher, setting
        self.options = searcher.options
        self.precision = PRECISIONS[precision]
        cut = self.options.segments
        if model.config.model.pretrained is not None and max(cut.longest + 2 * cut.padding, cut.joined) > WHISPER_HEARS:
            raise ValueError(
                f"decode.segments: longest={cut.longest:g} with padding={cut.padding:g} on both sides, or "
                f"joined={cut.joined:g}, is more than the {WHISPER_HEARS:g} s that a Whisper hears"
            )
        self.log_mel = log_mel_of(model.config.features)

    def __call__(self, speech: Sequence[Speech], request: Request) -> list[list[Segment]]:
        """What is said in each segment of speech: as a rule one segment of text."""
        found: list[list[Segment]] = [[] for _ in speech]
        todo = [(number, piece) for number, piece in enumerate(speech) if piece.seconds >= WINDOW]
        while todo:
            left: list[tuple[int, Speech]] = []
            for batch in _batches([piece for _, piece in todo], self.options.batch_seconds):
                pieces = [todo[place] for place in batch]
                for (number, piece), segments in zip(pieces, self._batch(pieces, request), strict=True):
                    found[number] += segments
                    rest = self._untold(piece, segments)
                    if rest is not None:
                        left.append((number, rest))
            todo = left
        return found

    def _batch(self, pieces: Sequence[tuple[int, Speech]], request: Request) -> list[list[Segment]]:
        if self.streaming_problem() is None and not self.mixes_heads(request.allowed):
            return [self._as_stream(piece, request) for _, piece in pieces]
        return [[segment] for segment in self._recognize([piece for _, piece in pieces], request)]

    def _as_stream(self, speech: Speech, request: Request) -> list[Segment]:
        """What can stream hears a segment as a stream does, to the same words."""
        stream = Stream(self, request.allowed, request.translate)
        segments = [*stream.push(speech.samples), *stream.finish()]
        return [_moved(segment, speech) for segment in segments]

    def _untold(self, speech: Speech, segments: Sequence[Segment]) -> Speech | None:
        """Speech behind the last word of a decoder that stopped too early; CTC cannot, as it looks at every frame."""
        words = [word for segment in segments for word in segment.words]
        if self.model.ctc is not None or not words:
            return None
        last = max(word.end for word in words)
        if speech.end - last < UNTOLD or last - speech.start < UNTOLD:  # a decoder that is asked again gets on
            return None
        first = round((last - speech.start) * SAMPLING_RATE)
        return replace(speech, start=last, samples=speech.samples[first:])

    @torch.no_grad()
    def _recognize(self, speech: Sequence[Speech], request: Request) -> list[Segment]:
        device = self.model.feature_mean.device
        features = [torch.from_numpy(self.log_mel(piece.samples)) for piece in speech]
        lengths = torch.tensor([len(f) for f in features], device=device)
        prompt = request.allowed.to(device).expand(len(speech), -1)
        with torch.autocast(device.type, self.precision, enabled=self.precision != torch.float32):
            encoded = self.model.encode(pad_sequence(features, batch_first=True).to(device), lengths, prompt)
        # Heads and decoders compute in the precision of their weights.
        encoded = replace(encoded, frames=encoded.frames.to(self.model.feature_mean.dtype))
        times = [(piece.start, piece.end) for piece in speech]
        named = self.model.language_probabilities(encoded, prompt) if request.languages_only else []
        if named and all(named):
            segments = [_named(shares, *time) for shares, time in zip(named, times, strict=True)]
        else:
            segments = self.search(encoded, times, prompt, request.translate)
        for segment, piece in zip(segments, speech, strict=True):
            if segment.no_speech_probability is None:
                segment.no_speech_probability = round(1 - piece.probability, 4)
        return segments

    def search(
        self, encoded: EncoderOutput, times: list[tuple[float, float]], allowed: Tensor, translated: bool = False
    ) -> list[Segment]:
        """Transcripts of encoded speech (B, T, D) that was spoken from and to ``times``; allowed languages (B, K)."""
        utterances = utterances_of(self.model, encoded, allowed)
        [found] = self.searcher(self.options.methods[0], utterances, [self.setting])
        best = [nbest[0] for nbest in found]
        languages = self.model.predict_languages(encoded, found, allowed)
        shares = self.model.language_probabilities(encoded, allowed)
        self.model.add_times(best, utterances)
        by_decoder = METHODS[self.options.methods[0]].decoder
        segments = []
        for row, certainty in enumerate(certainties(best, utterances, self.model, by_decoder)):
            segment = self._segment(best[row], certainty, *times[row])
            segment.language, segment.languages = languages[row], shares[row]
            judgement = best[row].judgement
            if judgement is not None:  # a Whisper's own
                segment.no_speech_probability = _rounded(judgement.no_speech_probability)
                segment.languages = judgement.language_probabilities
                segment.log_probability = round(judgement.log_probability, 4)
            segments.append(segment)
        if translated:
            for segment, text in zip(segments, self._translations(utterances, languages), strict=True):
                segment.translation = text
        return segments

    def _segment(self, best: Hypothesis, certainty: Certainty, start: float, end: float) -> Segment:
        """The last encoder frame may reach beyond the audio, words may not."""
        words = []
        for text, first, last in timed_words(best, self.model):
            word = Word(text, round(start + first, 3), round(min(start + last, end), 3))
            word.confidence = _lowest(best, certainty, first, last)
            words.append(word)
        segment = Segment(best.text, words=words, start=round(start, 3), end=round(end, 3))
        known = [word.confidence for word in words if word.confidence is not None]
        if known:
            segment.confidence = round(sum(known) / len(known), 4)
        if certainty.log_probability is not None:
            segment.log_probability = round(certainty.log_probability, 4)
        return segment

    def _translations(self, utterances: Utterances, languages: Sequence[str | None]) -> list[str]:
        """What was said, in the language of the translations; decoders of one language trust the recogniser's."""
        assert self.model.translator is not None and self.model.tokenizer.translation is not None
        named = zip(languages, utterances.languages, strict=True)
        spoken = replace(utterances, languages=[(code,) if code else allowed for code, allowed in named])
        found = translate(self.model.translator, spoken, self.options)
        return [self.model.tokenizer.translation.decode(nbest[0].tokens) for nbest in found]

    def mixes_heads(self, allowed: Tensor) -> bool:
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


def _named(shares: dict[str, float], start: float, end: float) -> Segment:
    """A segment without text in the most probable language."""
    return Segment("", max(shares, key=shares.__getitem__), start=start, end=end, languages=shares)


def _rounded(probability: float | None) -> float | None:
    return None if probability is None else round(probability, 4)


def _lowest(best: Hypothesis, certainty: Certainty, first: float, last: float) -> float | None:
    """The lowest confidence of the tokens of a word from ``first`` to ``last`` seconds."""
    found = []
    for (start, end), confidence in zip(best.timestamps, certainty.tokens, strict=False):
        if start >= first - 1e-6 and end <= last + 1e-6:
            found.append(confidence)
    return round(min(found), 4) if found else None


def _moved(segment: Segment, speech: Speech) -> Segment:
    """A segment of a stream that began at ``speech``, in the times of the recording."""
    segment.start, segment.end = round(segment.start + speech.start, 3), round(segment.end + speech.start, 3)
    for word in segment.words:
        word.start, word.end = round(word.start + speech.start, 3), round(word.end + speech.start, 3)
    segment.no_speech_probability = round(1 - speech.probability, 4)
    return segment


def _batches(speech: Sequence[Speech], seconds: float) -> Iterator[list[int]]:
    """Numbers of segments of similar length whose padded audio stays within ``seconds``."""
    batch: list[int] = []
    for number in sorted(range(len(speech)), key=lambda n: -speech[n].seconds):
        if batch and speech[batch[0]].seconds * (len(batch) + 1) > seconds:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
