"""Word and character errors of decoded utterances: counts, averages, confusions.

Every rate is a fraction of the reference length (0.25 is 25 %; insertions can lift it above 1) and ``nan``
where the reference is empty. Three measures are kept throughout:

- ``wer``: words, as separated by spaces in the normalised text;
- ``cer``: characters as `masr.text.characters` has them: code points, including the single space between two words;
  in languages written without spaces a space only marks where punctuation stood, so it is not counted;
- ``main``: CER in languages written without spaces, WER in all others.

Of models that write text as published there are two more: ``published_wer`` and ``published_cer`` count the same in
text with case and punctuation as it was published and written. Averages of word errors (`averaged`) leave out languages
without words.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import kaldialign
import numpy as np

from masr.files import reading
from masr.text.characters import characters as characters_of
from masr.text.characters import tidied
from masr.text.languages import main_error_rate
from masr.text.normalize import normalize

Alignment = list[tuple[str | None, str | None]]

MEASURES = ("wer", "cer", "main")
PUBLISHED = ("published_wer", "published_cer")
_GAP = -1
_TEXT_FIELDS = ("id", "language", "reference", "hypothesis")
_SECONDS_FIELDS = ("seconds", "duration")
_OPTIONAL_FIELDS = ("predicted_language", "speaker", "session", "published_reference")


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> Alignment:
    """Pairs ``(reference, hypothesis)`` of a minimum edit distance alignment, all edits at cost 1.

    ``None`` on the left is an insertion, ``None`` on the right a deletion. Any strings may be aligned: none
    is reserved as a gap symbol.
    """
    numbers: dict[str, int] = {}
    left, right = ([numbers.setdefault(token, len(numbers)) for token in side] for side in (reference, hypothesis))
    tokens: dict[int, str | None] = {number: token for token, number in numbers.items()}
    tokens[_GAP] = None
    return [(tokens[a], tokens[b]) for a, b in kaldialign.align(left, right, _GAP)]


def merge_errors(alignment: Alignment) -> list[tuple[list[str], list[str]]]:
    """Spans of an alignment, correct tokens one by one and neighbouring errors joined, for reading."""
    spans: list[tuple[list[str], list[str]]] = []
    for reference, hypothesis in alignment:
        if reference == hypothesis or not spans or spans[-1][0] == spans[-1][1]:
            spans.append(([], []))
        spans[-1][0].extend([] if reference is None else [reference])
        spans[-1][1].extend([] if hypothesis is None else [hypothesis])
    return spans


@dataclass(frozen=True)
class ErrorCounts:
    """Errors in words or characters over one or more utterances; ``+`` pools them."""

    substitutions: int = 0
    insertions: int = 0
    deletions: int = 0
    reference_length: int = 0
    utterances: int = 0
    utterances_with_error: int = 0

    def __add__(self, other: "ErrorCounts") -> "ErrorCounts":
        return ErrorCounts(
            self.substitutions + other.substitutions,
            self.insertions + other.insertions,
            self.deletions + other.deletions,
            self.reference_length + other.reference_length,
            self.utterances + other.utterances,
            self.utterances_with_error + other.utterances_with_error,
        )

    @property
    def errors(self) -> int:
        return self.substitutions + self.insertions + self.deletions

    @property
    def correct(self) -> int:
        """Reference words or characters that were recognised."""
        return self.reference_length - self.substitutions - self.deletions

    @property
    def rate(self) -> float:
        """Errors per reference word or character; ``nan`` when the reference is empty."""
        return self.errors / self.reference_length if self.reference_length else math.nan

    @property
    def sentence_error_rate(self) -> float:
        """Share of utterances with at least one error; ``nan`` without utterances."""
        return self.utterances_with_error / self.utterances if self.utterances else math.nan


def count_errors(alignment: Alignment) -> ErrorCounts:
    """Counts of one utterance from its alignment."""
    insertions = sum(reference is None for reference, _ in alignment)
    deletions = sum(hypothesis is None for _, hypothesis in alignment)
    errors = sum(reference != hypothesis for reference, hypothesis in alignment)
    return ErrorCounts(
        substitutions=errors - insertions - deletions,
        insertions=insertions,
        deletions=deletions,
        reference_length=len(alignment) - insertions,
        utterances=1,
        utterances_with_error=int(errors > 0),
    )


@dataclass(frozen=True)
class Utterance:
    """One decoded utterance. Texts are normalised here, reference and hypothesis alike.

    ``language`` is a BCP-47 code, ``duration`` the seconds of audio, ``seconds`` the seconds of computing.
    """

    id: str
    language: str
    reference: str
    hypothesis: str
    duration: float
    seconds: float
    predicted_language: str | None = None
    candidates: tuple[str, ...] = ()
    """The n-best list, best first, as it was written."""
    language_weights: Mapping[str, float] = field(default_factory=dict)
    """Shares of the adapters of each language, where the model has any."""
    published_reference: str | None = None
    """With case and punctuation, where the model writes them."""
    written: str = field(init=False)
    """The hypothesis as the model wrote it."""
    speaker: str | None = None
    """Who spoke, and in which session; None where it is not known."""
    session: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "written", self.hypothesis)
        object.__setattr__(self, "reference", normalize(self.reference, self.language))
        object.__setattr__(self, "hypothesis", normalize(self.hypothesis, self.language))

    @cached_property
    def words(self) -> Alignment:
        return align(self.reference.split(), self.hypothesis.split())

    @cached_property
    def characters(self) -> Alignment:
        return align(characters_of(self.reference, self.language), characters_of(self.hypothesis, self.language))

    @property
    def alignment(self) -> Alignment:
        """Of the units in which this language is judged: characters where its main measure is CER, else words."""
        return self.characters if main_error_rate(self.language) == "cer" else self.words

    @cached_property
    def counts(self) -> dict[str, ErrorCounts]:
        """Error counts by measure: ``wer``, ``cer``, ``main``; and those of published text where there is any."""
        by_unit = {"wer": count_errors(self.words), "cer": count_errors(self.characters)}
        return by_unit | {"main": by_unit[main_error_rate(self.language)]} | self._published_counts()

    def _published_counts(self) -> dict[str, ErrorCounts]:
        if self.published_reference is None:
            return {}
        texts = tidied(self.published_reference), tidied(self.written)
        words = align(*(text.split() for text in texts))
        letters = align(*(characters_of(text, self.language) for text in texts))
        return {"published_wer": count_errors(words), "published_cer": count_errors(letters)}


def read_decode_file(path: Path) -> list[Utterance]:
    """Utterances of a decode file (one JSON object a line), sorted by id so that their order there is irrelevant.

    Raises ValueError naming file and line for a line that cannot be used, an id seen twice, or an empty file.
    """
    utterances: dict[str, Utterance] = {}
    with reading(path, "`masr decode --force` makes it again"), path.open(encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            utterance = _parse(line, f"{path}, line {number}")
            if utterance.id in utterances:
                raise ValueError(f"{path}, line {number}: utterance {utterance.id!r} was already read; decode again")
            utterances[utterance.id] = utterance
    if not utterances:
        raise ValueError(f"{path}: no utterances, expected one JSON object a line; run the decode stage again")
    return [utterances[key] for key in sorted(utterances)]


def _parse(line: str, where: str) -> Utterance:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON ({error}); was decoding interrupted? Run it again") from error
    if not isinstance(record, dict):
        raise ValueError(f"{where}: expected a JSON object, found {type(record).__name__}")
    for name in _TEXT_FIELDS:
        if not isinstance(record.get(name), str):
            raise ValueError(f"{where}: {name!r} must be a string, found {record.get(name)!r}")
    for name in _SECONDS_FIELDS:
        if not _is_seconds(record.get(name)):
            raise ValueError(f"{where}: {name!r} must be seconds, 0 or more, found {record.get(name)!r}")
    known: dict[str, Any] = {name: record.get(name) for name in _OPTIONAL_FIELDS}
    for name, value in known.items():
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{where}: {name!r} must be a string or null, found {value!r}")
    fields = {name: record[name] for name in _TEXT_FIELDS + _SECONDS_FIELDS}
    candidates = tuple(candidate["text"] for candidate in record.get("nbest", []))
    weights = record.get("language_weights", {})
    return Utterance(**fields, **known, candidates=candidates, language_weights=weights)


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0


def by_language(utterances: Iterable[Utterance]) -> dict[str, list[Utterance]]:
    """Utterances of each language, languages in alphabetical order of their codes."""
    groups: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        groups.setdefault(utterance.language, []).append(utterance)
    return dict(sorted(groups.items()))


def worst_first(utterances: Iterable[Utterance]) -> list[Utterance]:
    """By falling main error rate, then number of errors. Errors against an empty reference count as one unit's."""

    def badness(utterance: Utterance) -> tuple[float, int, str]:
        counts = utterance.counts["main"]
        return -counts.errors / max(counts.reference_length, 1), -counts.errors, utterance.id

    return sorted(utterances, key=badness)


def pooled(utterances: Iterable[Utterance], measure: str) -> ErrorCounts:
    """Counts summed over utterances. Over all languages its rate is the micro average."""
    return sum((utterance.counts[measure] for utterance in utterances), ErrorCounts())


def measures_of(utterances: Iterable[Utterance]) -> tuple[str, ...]:
    """The measures that all utterances have."""
    published = all(utterance.published_reference is not None for utterance in utterances)
    return (*MEASURES, *PUBLISHED) if published else MEASURES


def averaged(utterances: Iterable[Utterance], measure: str) -> list[Utterance]:
    """The utterances that an average of a measure is about: of word errors those in languages with words."""
    if measure not in ("wer", "published_wer"):
        return list(utterances)
    return [utterance for utterance in utterances if main_error_rate(utterance.language) == "wer"]


def macro_average(utterances: Iterable[Utterance], measure: str) -> float:
    """Mean of the languages' rates, each language with equal weight; those without any reference are left out, and of
    word errors those without words."""
    rates = (pooled(group, measure).rate for group in by_language(averaged(utterances, measure)).values())
    defined = [rate for rate in rates if not math.isnan(rate)]
    return sum(defined) / len(defined) if defined else math.nan


def oracle_cer(utterances: Iterable[Utterance], n: int) -> float:
    """Macro CER if the best of the first ``n`` candidates of every utterance were known; nan without candidates."""
    rates = []
    for code, group in by_language(utterances).items():
        wrong = total = 0
        for utterance in group:
            texts = {normalize(text, code) for text in utterance.candidates[:n]}
            if texts:
                reference = characters_of(utterance.reference, code)
                found = [kaldialign.edit_distance(reference, characters_of(text, code)) for text in texts]
                wrong += min(edits["total"] for edits in found)
                total += len(reference)
        rates += [wrong / total] if total else []
    return sum(rates) / len(rates) if rates else math.nan


def confusions(utterances: Iterable[Utterance], *, characters: bool = False) -> dict[str, Counter[tuple[str, ...]]]:
    """How often each error occurs, by kind: ``substitutions``, ``insertions``, ``deletions``.

    Keys are ``(language, reference, hypothesis)`` for substitutions, ``(language, word or character)`` otherwise.
    Words are those of languages that have any.
    """
    counts: dict[str, Counter[tuple[str, ...]]] = {
        kind: Counter() for kind in ("substitutions", "insertions", "deletions")
    }
    for utterance in utterances if characters else averaged(utterances, "wer"):
        for reference, hypothesis in utterance.characters if characters else utterance.words:
            if reference is None and hypothesis is not None:
                counts["insertions"][utterance.language, hypothesis] += 1
            elif hypothesis is None and reference is not None:
                counts["deletions"][utterance.language, reference] += 1
            elif reference is not None and hypothesis is not None and reference != hypothesis:
                counts["substitutions"][utterance.language, reference, hypothesis] += 1
    return counts


def most_frequent(counts: Mapping[tuple[str, ...], int], limit: int) -> list[tuple[tuple[str, ...], int]]:
    """The ``limit`` largest counts; ties in alphabetical order, so that the list is always the same."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:limit]


def language_confusion(utterances: Iterable[Utterance]) -> dict[str, dict[str, int]]:
    """Utterances by true, then predicted language; empty when no utterance has a prediction."""
    matrix: dict[str, Counter[str]] = {}
    for utterance in utterances:
        if utterance.predicted_language is not None:
            matrix.setdefault(utterance.language, Counter())[utterance.predicted_language] += 1
    return {language: dict(sorted(row.items())) for language, row in sorted(matrix.items())}


def mean_language_weights(utterances: Iterable[Utterance]) -> dict[str, dict[str, float]]:
    """Mean share of each language's adapters by true language; empty when the model has none."""
    groups = by_language(utterance for utterance in utterances if utterance.language_weights)
    return {
        language: {
            code: float(np.mean([u.language_weights[code] for u in group])) for code in group[0].language_weights
        }
        for language, group in groups.items()
    }


def rate_by_duration(utterances: Sequence[Utterance], *, groups: int = 8) -> list[dict[str, Any]]:
    """Main error rate in up to ``groups`` equally large groups of utterances, from short to long (seconds)."""
    ordered = sorted(utterances, key=lambda utterance: (utterance.duration, utterance.id))
    bounds = np.linspace(0, len(ordered), min(groups, len(ordered)) + 1).astype(int)
    rows = []
    for start, stop in pairwise(bounds):
        group = ordered[start:stop]
        rows.append(
            {
                "shortest": group[0].duration,
                "median": float(np.median([utterance.duration for utterance in group])),
                "longest": group[-1].duration,
                "utterances": len(group),
                "rate": pooled(group, "main").rate,
            }
        )
    return rows
