"""Whisper's own way to decode (Radford et al. 2022, arXiv 2212.04356, 4.5): a text that repeats itself, or that is
improbable, is drawn again at higher temperatures, and what is probably no speech becomes no text.

Of several texts that all fail, the most probable one is taken, of those that do not repeat themselves if there are any.

B utterances, T frames, V vocabulary, K languages.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from masr.config import Decode, WhisperRules
from masr.decode.attention_beam import attention_beam
from masr.decode.hypothesis import Hypothesis, Judgement, Phrase
from masr.decode.sampling import sample
from masr.decode.utterances import SearchableModel, Utterances
from masr.decode.whisper_rules import RuledDecoder

TIMESTAMP = 0.02
"""Seconds between two timestamps."""
LOWEST = -100.0
"""Log-probability of a text that cannot be: JSON has no infinity."""

NBest = list[list[Hypothesis]]


def whisper_search(model: SearchableModel, utterances: Utterances, options: Decode) -> NBest:
    """The n-best transcripts of each utterance, the best with a `Judgement`; one where it was drawn."""
    attempts = [_Attempts(row) for row in range(len(utterances.lengths))]
    no_speech: list[float | None] = [None] * len(attempts)
    failed = attempts
    for step, temperature in enumerate(options.whisper.temperatures):
        rows = [attempt.row for attempt in failed]
        found, probabilities = _decode(model, utterances.of_rows(rows), options, step)
        for attempt, nbest, probability in zip(failed, found, probabilities, strict=True):
            if step == 0:
                no_speech[attempt.row] = probability
            judgement = _judge(nbest[0], model, temperature, no_speech[attempt.row])
            attempt.nbest.append(nbest)
            attempt.judgements.append(judgement)
        failed = [attempt for attempt in failed if _fails(attempt.judgements[-1], options.whisper)]
        if not failed:
            break
    shares = _language_probabilities(utterances, model.tokenizer.languages)
    return [
        _finished(attempt, share, model, utterances, options) for attempt, share in zip(attempts, shares, strict=True)
    ]


@dataclass
class _Attempts:
    """What was found for the utterance in a row of the batch, at one temperature after the other."""

    row: int
    nbest: NBest = field(default_factory=list)
    judgements: list[Judgement] = field(default_factory=list)

    def best(self, rules: WhisperRules) -> int:
        """The number of the last attempt if that is good enough, else that of the most probable one."""
        if not _fails(self.judgements[-1], rules):
            return len(self.judgements) - 1
        numbers = range(len(self.judgements))
        fluent = [number for number in numbers if not _repeats(self.judgements[number], rules)]
        return max(fluent or numbers, key=lambda number: self.judgements[number].log_probability)


def _decode(
    model: SearchableModel, utterances: Utterances, options: Decode, step: int
) -> tuple[NBest, Sequence[float | None]]:
    """N-best transcripts at one of the temperatures, and the probabilities of there being no speech."""
    decoder = RuledDecoder(model.attention_decoder, options.whisper.timestamps)
    temperature, end = options.whisper.temperatures[step], model.attention_decoder.sos_eos
    spoken = utterances.lengths if utterances.recorded is None else utterances.recorded
    longest = model.attention_decoder.longest
    given = utterances.frames, utterances.lengths
    if temperature:
        limits = (spoken * model.tokens_per_frame).long().clamp(min=1, max=longest)
        found = sample(
            decoder, *given, limits, temperature=temperature, seeds=[options.whisper.seed, step], sos_eos=end,
            language_weights=utterances.language_weights,
        )  # fmt: skip
    else:
        found = attention_beam(
            decoder, *given, beam=options.beam, n_best=options.n_best, sos_eos=end, blank=-1,
            max_length_ratio=model.tokens_per_frame, longest=longest, spoken=spoken,
            length_bonus=options.length_bonus, per_token=True, language_weights=utterances.language_weights,
        )  # fmt: skip
    no_speech = decoder.no_speech
    return found, [None] * len(found) if no_speech is None else no_speech.tolist()


def _judge(best: Hypothesis, model: Any, temperature: float, no_speech: float | None) -> Judgement:
    text = model.tokenizer.decode(model.tokenizer.spoken(best.tokens)).encode()
    ratio = len(text) / len(zlib.compress(text)) if text else 0.0
    mean = best.parts.get("attention", LOWEST) / (len(best.tokens) + 1)
    return Judgement(max(mean, LOWEST), no_speech, {}, ratio, temperature)


def _fails(judgement: Judgement, rules: WhisperRules) -> bool:
    """Whether it is to be decoded again; not where there is nothing to decode."""
    if _is_silent(judgement, rules):
        return False
    return _repeats(judgement, rules) or _is_improbable(judgement, rules)


def _repeats(judgement: Judgement, rules: WhisperRules) -> bool:
    return rules.compression_ratio is not None and judgement.compression_ratio > rules.compression_ratio


def _is_improbable(judgement: Judgement, rules: WhisperRules) -> bool:
    return rules.log_probability is not None and judgement.log_probability < rules.log_probability


def _is_silent(judgement: Judgement, rules: WhisperRules) -> bool:
    """Whether there is probably no speech, and what was written is not probable enough to be some all the same."""
    if rules.no_speech is None or judgement.no_speech_probability is None:
        return False
    unlikely = rules.log_probability is None or _is_improbable(judgement, rules)
    return unlikely and judgement.no_speech_probability > rules.no_speech


def _language_probabilities(utterances: Utterances, languages: Sequence[str]) -> list[dict[str, float]]:
    """Of each utterance, those of the languages that it may be in."""
    probable = utterances.language_probabilities
    if probable is None:
        probable = utterances.language_weights
    assert probable is not None
    found = []
    for allowed, shares in zip(utterances.languages, probable.tolist(), strict=True):
        named = dict(zip(languages, shares, strict=True))
        found.append({code: named[code] for code in allowed})
    return found


def _finished(
    attempts: _Attempts, shares: dict[str, float], model: Any, utterances: Utterances, options: Decode
) -> list[Hypothesis]:
    """The chosen attempt without timestamps among its tokens; one empty transcript for silence."""
    number = attempts.best(options.whisper)
    judgement = replace(attempts.judgements[number], language_probabilities=shares)
    language = max(shares, key=shares.__getitem__)
    if _is_silent(judgement, options.whisper):
        silence = replace(judgement, silent=True)
        return [Hypothesis([], 0.0, {"attention": 0.0}, language=language, judgement=silence)]
    seconds = _seconds(utterances, attempts.row, model.frame_seconds)
    nbest = attempts.nbest[number]
    nbest[0].judgement = judgement
    for hypothesis in nbest:
        hypothesis.language = language
        if options.whisper.timestamps:
            hypothesis.phrases = phrases(hypothesis.tokens, model, seconds)
        hypothesis.tokens = model.tokenizer.spoken(hypothesis.tokens)
    return nbest


def _seconds(utterances: Utterances, row: int, frame_seconds: float) -> float:
    frames: Tensor = utterances.lengths if utterances.recorded is None else utterances.recorded
    return int(frames[row]) * frame_seconds


def phrases(tokens: Sequence[int], model: Any, seconds: float) -> list[Phrase]:
    """The texts between timestamps; one without an end lasts until the end of the utterance, after ``seconds``."""
    first = model.attention_decoder.first_timestamp
    found: list[Phrase] = []
    start, text = 0.0, list[int]()
    for token in tokens:
        if token < first:
            text.append(token)
            continue
        time = min((token - first) * TIMESTAMP, seconds)
        if text:
            found.append(Phrase(start, time, model.tokenizer.decode(text)))
            text = []
        start = time
    if text:
        found.append(Phrase(start, seconds, model.tokenizer.decode(text)))
    return found
