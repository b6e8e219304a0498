"""Confidence intervals of error rates: speakers are drawn, not utterances.

Utterances of one speaker resemble each other, so an interval that draws them one by one is too narrow for voices that
were not recorded. Here an utterance belongs to a block, and blocks share neither a speaker nor a session. Blocks are
drawn with replacement and come with all that they hold (Bisani & Ney, Bootstrap estimates for confidence intervals in
ASR performance evaluation, ICASSP 2004; Davison & Hinkley, Bootstrap methods and their application, 1997, section 3.8,
where drawing utterances within the drawn blocks as well is shown to count their spread twice).

The bootstrap is too narrow by itself for few blocks. Draws are therefore stretched about the estimate by
``sqrt(n / (n - 1)) * t / z`` with the 97.5 % quantiles of Student's t with n - 1 degrees of freedom and of the normal
distribution (Hesterberg, What teachers should know about the bootstrap, The American Statistician 69, 2015, section
5.3; Cameron, Gelbach & Miller, Bootstrap-based improvements for inference with clustered errors, 2008). With one or two
speakers no stretch would do: then utterances are drawn within each speaker, and the interval is one of these speakers.
"""

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from masr.score.errors import Utterance, by_language

CONFIDENCE = 0.95
RESAMPLES = 1000
ENOUGH_SPEAKERS = 3
"""With fewer, an interval says nothing about speakers who were not recorded."""

SPEAKERS, FEW_SPEAKERS, UTTERANCES = "speakers", "utterances of few speakers", "utterances"
"""What was drawn: see `Sampling`."""

_CHUNK = 2**21  # drawn blocks held in memory at once


class Spoken(Protocol):
    """What is known of who spoke an utterance."""

    @property
    def speaker(self) -> str | None: ...

    @property
    def session(self) -> str | None: ...


@dataclass(frozen=True)
class Sampling:
    """How the utterances of a language are drawn."""

    over: str
    """``speakers``: blocks are drawn whole; ``utterances of few speakers``: utterances within their block;
    ``utterances``: one by one, as nobody knows who spoke them."""
    blocks: tuple[tuple[int, ...], ...]
    """Places of the utterances of each block."""

    @property
    def speakers(self) -> int | None:
        """Number of blocks; None where they are unknown."""
        return None if self.over == UTTERANCES else len(self.blocks)

    @property
    def stretch(self) -> float:
        """Factor by which draws are too close to the estimate."""
        if self.over != SPEAKERS:
            return 1.0
        from scipy.stats import norm, t  # half a second, which help has not

        number, tail = len(self.blocks), 0.5 * (1 + CONFIDENCE)
        return float(math.sqrt(number / (number - 1)) * t.ppf(tail, number - 1) / norm.ppf(tail))


def sampling_of(utterances: Sequence[Spoken], lengths: Sequence[float]) -> Sampling:
    """How utterances of one language are drawn. ``lengths``: how much was said in each, in any unit."""
    if any(utterance.speaker is None and utterance.session is None for utterance in utterances):
        return Sampling(UTTERANCES, (tuple(range(len(utterances))),))
    blocks = blocks_of(utterances)
    enough = _effective_number([sum(lengths[place] for place in block) for block in blocks]) >= ENOUGH_SPEAKERS
    return Sampling(SPEAKERS if enough else FEW_SPEAKERS, tuple(tuple(block) for block in blocks))


def blocks_of(utterances: Sequence[Spoken]) -> list[list[int]]:
    """Places of utterances that share a speaker or a session, directly or through others."""
    parents: dict[tuple[str, str], tuple[str, str]] = {}

    def root(key: tuple[str, str]) -> tuple[str, str]:
        parents.setdefault(key, key)
        while parents[key] != key:
            key = parents[key]
        return key

    keys = []
    for utterance in utterances:
        known = [("speaker", utterance.speaker), ("session", utterance.session)]
        named = [(kind, name) for kind, name in known if name is not None]
        for key in named:
            parents[root(key)] = root(named[0])
        keys.append(named[0])
    blocks: dict[tuple[str, str], list[int]] = {}
    for place, key in enumerate(keys):
        blocks.setdefault(root(key), []).append(place)
    return list(blocks.values())


def _effective_number(sizes: Sequence[float]) -> float:
    """Number of equally large blocks that would weigh as these do: one who says nearly all counts nearly alone."""
    total = sum(sizes)
    if not total:
        return float(len(sizes))
    return round(total**2 / sum(size**2 for size in sizes), 6)


def resampled_totals(
    table: np.ndarray, sampling: Sampling, *, resamples: int = RESAMPLES, seed: int | Sequence[int] = 0
) -> np.ndarray:
    """Totals ``(resamples, columns)`` of as many draws of the rows of ``table`` ``(utterances, columns)``."""
    generator = np.random.default_rng(seed)
    if sampling.over == SPEAKERS:
        sums = [table[list(block)].sum(axis=0) for block in sampling.blocks]
        return _drawn_totals(generator, np.stack(sums), resamples)
    parts = [_drawn_totals(generator, table[list(block)], resamples) for block in sampling.blocks]
    return np.sum(parts, axis=0)


def _drawn_totals(generator: np.random.Generator, table: np.ndarray, resamples: int) -> np.ndarray:
    """Totals ``(resamples, columns)`` of as many rows as the table has, drawn with replacement."""
    rows = max(1, _CHUNK // len(table))
    chunks = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    return np.concatenate([_draws(generator, chunk, len(table)) @ table for chunk in chunks])


def _draws(generator: np.random.Generator, rows: int, number: int) -> np.ndarray:
    """``(rows, number)``: how often each of ``number`` things is drawn in each resample."""
    drawn = generator.integers(0, number, size=(rows, number)) + number * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * number).reshape(rows, number).astype(np.float64)


def resampled_rates(
    table: np.ndarray, sampling: Sampling, *, resamples: int = RESAMPLES, seed: int | Sequence[int] = 0
) -> np.ndarray:
    """Rates ``(resamples,)``, stretched as the module says; ``table``: errors and lengths ``(utterances, 2)``.

    A draw without any reference gives ``nan``.
    """
    totals = resampled_totals(table, sampling, resamples=resamples, seed=seed)
    return stretched(_ratio(totals), _ratio(table.sum(axis=0, keepdims=True))[0], sampling)


def _ratio(totals: np.ndarray) -> np.ndarray:
    """Errors over lengths of ``(..., 2)``; ``nan`` without length."""
    empty = np.full(totals.shape[:-1], np.nan)
    return np.divide(totals[..., 0], totals[..., 1], out=empty, where=totals[..., 1] > 0)


def stretched(draws: np.ndarray, estimate: float, sampling: Sampling) -> np.ndarray:
    """Draws as far from the estimate as few speakers ask for."""
    if sampling.over != SPEAKERS:
        return draws
    return estimate + sampling.stretch * (draws - estimate)


def interval(draws: np.ndarray, lowest: float = -math.inf) -> tuple[float, float] | None:
    """Percentile interval at 95 % of draws, not below ``lowest``; ``None`` when none of them is defined."""
    defined = draws[np.isfinite(draws)]
    if not defined.size:
        return None
    low, high = np.percentile(defined, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    return max(float(low), lowest), max(float(high), lowest)


def error_table(utterances: Iterable[Utterance], measure: str) -> np.ndarray:
    """``(utterances, 2)``: errors and reference length of each."""
    counts = [utterance.counts[measure] for utterance in utterances]
    return np.array([(count.errors, count.reference_length) for count in counts], dtype=np.float64)


def sampling_of_language(utterances: Sequence[Utterance]) -> Sampling:
    """How the utterances of a language are drawn, by any measure: shares of speakers are those of characters."""
    return sampling_of(utterances, [utterance.counts["cer"].reference_length for utterance in utterances])


def micro_interval(utterances: Sequence[Utterance], measure: str, *, seed: int = 0) -> tuple[float, float] | None:
    """95 % interval of the pooled rate of one language, or of several, which stay fixed.

    ``None`` for a single utterance, which says nothing about spread.
    """
    if len(utterances) < 2:
        return None
    groups = by_language(utterances)
    if len(groups) == 1:
        table = error_table(utterances, measure)
        return interval(resampled_rates(table, sampling_of_language(utterances), seed=seed), 0.0)
    total = error_table(utterances, measure).sum(axis=0)
    if not total[1]:
        return None
    rate = total[0] / total[1]
    # To first order: how much the languages' draws move the ratio of two sums.
    moved = [
        _surplus(group, measure, rate, [seed, zlib.crc32(language.encode())]) / total[1]
        for language, group in groups.items()
    ]
    return interval(rate + np.sum(moved, axis=0), 0.0)


def _surplus(group: Sequence[Utterance], measure: str, rate: float, seed: Sequence[int]) -> np.ndarray:
    """Errors ``(resamples,)`` of a language's draws beyond ``rate``, less those of its utterances as they are."""
    table, sampling = error_table(group, measure), sampling_of_language(group)
    excess = (table[:, 0] - rate * table[:, 1])[:, None]
    return stretched(resampled_totals(excess, sampling, seed=seed)[:, 0], excess.sum(), sampling) - excess.sum()


def macro_interval(utterances: Sequence[Utterance], measure: str, *, seed: int = 0) -> tuple[float, float] | None:
    """95 % interval of the macro average: draws are made within the languages, which stay fixed.

    A language of one utterance cannot vary, so it adds nothing to the width; ``None`` if all are like that.
    """
    groups = by_language(utterances)
    if all(len(group) < 2 for group in groups.values()):
        return None
    rates = []
    for language, group in groups.items():
        table = error_table(group, measure)
        if table[:, 1].any():
            # Own random numbers for each language: equal draws would make unrelated languages move together.
            seeds = [seed, zlib.crc32(language.encode())]
            rates.append(resampled_rates(table, sampling_of_language(group), seed=seeds))
    return interval(np.mean(rates, axis=0), 0.0) if rates else None


MARK, UNKNOWN_MARK = "†", "‡"
"""Behind a ± that says nothing about other speakers, and one that knows nothing about speakers."""
_MARKS = {SPEAKERS: "", FEW_SPEAKERS: MARK, UTTERANCES: UNKNOWN_MARK}


def mark_of(languages: Iterable[Mapping[str, Any]]) -> str:
    """Marks behind a ± that is about these languages of a report; of several, all that one of them needs."""
    overs = {_over(language) for language in languages}
    return "".join(mark for over, mark in _MARKS.items() if over in overs)


def _over(language: Mapping[str, Any]) -> str:
    """What was drawn; reports from before masr knew speakers do not say."""
    return str(language.get("over", UTTERANCES))


def explained(languages: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Sentences on what the intervals of a report are about; ``languages`` as in metrics.json, by code."""
    few = [f"{code} {row['speakers']}" for code, row in languages.items() if _over(row) == FEW_SPEAKERS]
    unknown = [code for code, row in languages.items() if _over(row) == UTTERANCES]
    sentences = []
    if len(few) + len(unknown) < len(languages):
        sentences.append("Intervals draw speakers with all that they said, so they are about speakers like these.")
    if few:
        sentences.append(
            f"{MARK} Of these speakers; it says nothing about others: one or two say all or nearly all of the "
            f"language (speakers: {', '.join(few)}), so their utterances were drawn."
        )
    if unknown:
        which = "any language" if len(unknown) == len(languages) else ", ".join(unknown)
        sentences.append(
            f"{UNKNOWN_MARK} The speakers of {which} are not known: utterances were drawn one by one, and the interval "
            "does not know about speakers. For voices that were not recorded it is too narrow."
        )
    return sentences
