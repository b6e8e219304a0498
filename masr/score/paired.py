"""Differences between systems on the same recordings: which is better, and is it more than chance.

Blocks of recordings are drawn once for both systems, so that what is hard for both cancels (Bisani & Ney, ICASSP 2004;
their blocks are speakers, as here, see `masr.score.intervals`). Trainings are another source of chance: of several
seeds the differences of equal seeds are what Student's t is for.
"""

import gzip
import json
import statistics
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from masr.files import written_beside
from masr.score.errors import MEASURES, Utterance
from masr.score.intervals import CONFIDENCE, Sampling, interval, mark_of, resampled_totals, sampling_of, stretched

_MEASURES = tuple(measure for measure in MEASURES if measure != "main")


@dataclass(frozen=True)
class Counts:
    """What a comparison needs of a recording: whose it is, and its errors by measure."""

    id: str
    language: str
    speaker: str | None
    session: str | None
    errors: Mapping[str, float]
    """By measure, ``wer`` and ``cer``."""
    lengths: Mapping[str, float]
    """Words and characters of the reference, likewise."""


def counts_of(utterance: Utterance) -> Counts:
    """The counts of a decoded utterance."""
    errors = {measure: utterance.counts[measure].errors for measure in _MEASURES}
    lengths = {measure: utterance.counts[measure].reference_length for measure in _MEASURES}
    return Counts(utterance.id, utterance.language, utterance.speaker, utterance.session, errors, lengths)


def write_counts(counts: Iterable[Counts], path: Path) -> None:
    """A compressed file of one JSON object a line; equal counts give equal bytes."""
    lines = [json.dumps(vars(row), ensure_ascii=False) + "\n" for row in counts]
    with written_beside(path) as partial:
        partial.write_bytes(gzip.compress("".join(lines).encode(), mtime=0))


def read_counts(path: Path) -> list[Counts]:
    """What `write_counts` wrote; ValueError names a file that is something else."""
    try:
        text = gzip.decompress(path.read_bytes()).decode()
        return [Counts(**json.loads(line)) for line in text.split("\n") if line]
    except (EOFError, TypeError, ValueError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: not a file of error counts ({error}); score the experiment again") from error


@dataclass(frozen=True)
class Difference:
    """Rate of the second system less that of the first, as a fraction: below 0 the second is better."""

    value: float
    interval: tuple[float, float] | None
    """At 95 %; None for a single recording."""
    better: float
    """Probability of improvement: share of draws in which the second has fewer errors, and half of those of as many."""
    p: float
    """Two-sided: chance of a difference as large if there were none."""
    overs: tuple[str, ...]
    """What was drawn in the languages that it is about, see `masr.score.intervals.Sampling`."""

    @property
    def mark(self) -> str:
        """Mark of an interval that is not about other speakers."""
        return mark_of({"over": over} for over in self.overs)


def difference(
    first: Sequence[Counts], second: Sequence[Counts], measure: str, languages: Sequence[str], *, seed: int = 0
) -> Difference | None:
    """Of one language, or of the macro average of several; both sequences hold the same ids in the same order.

    Languages without a reference are left out; None where none is left.
    """
    values, draws, overs, recordings = [], [], [], 0
    for language in languages:
        places = [place for place, row in enumerate(first) if row.language == language]
        ours, theirs = [second[place] for place in places], [first[place] for place in places]
        table = np.array([_pair(a, b, measure) for a, b in zip(theirs, ours, strict=True)], dtype=np.float64)
        total = table.sum(axis=0, keepdims=True)
        if not (total[0, 1] and total[0, 3]):
            continue
        sampling = sampling_of(theirs, [row.lengths["cer"] for row in theirs])
        # Own random numbers for each language, the same for every pair of systems.
        value, drawn = _differences(total)[0], _drawn(table, sampling, [seed, zlib.crc32(language.encode())])
        values.append(value)
        draws.append(stretched(drawn, value, sampling))
        overs.append(sampling.over)
        recordings = max(recordings, len(places))
    if not values:
        return None
    mean, means = float(np.mean(values)), np.mean(draws, axis=0)
    known = means[np.isfinite(means)]
    ends = interval(known) if recordings > 1 else None
    better = float(np.mean(known < 0) + np.mean(known == 0) / 2)
    return Difference(mean, ends, better, _two_sided(known), tuple(dict.fromkeys(overs)))


def _pair(first: Counts, second: Counts, measure: str) -> tuple[float, float, float, float]:
    return first.errors[measure], first.lengths[measure], second.errors[measure], second.lengths[measure]


def _drawn(table: np.ndarray, sampling: Sampling, seed: Sequence[int]) -> np.ndarray:
    return _differences(resampled_totals(table, sampling, seed=seed))


def _differences(totals: np.ndarray) -> np.ndarray:
    """Second rate less first ``(...)`` of errors and lengths of both ``(..., 4)``; nan without a reference."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return totals[..., 2] / totals[..., 3] - totals[..., 0] / totals[..., 1]


def _two_sided(draws: np.ndarray) -> float:
    """Twice the smaller share of draws on one side of 0 (Davison & Hinkley 1997, 4.2: one draw more on each)."""
    tail = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(draws) + 1))


@dataclass(frozen=True)
class Common:
    """Several systems' counts of the recordings that all of them have, in the same order."""

    systems: list[list[Counts]]
    left_out: list[str]
    """Ids that some of them lack."""

    @property
    def languages(self) -> list[str]:
        """Codes of the languages in alphabetical order."""
        return sorted({row.language for row in self.systems[0]})


def in_common(systems: Mapping[str, Sequence[Counts]]) -> Common:
    """ValueError where the systems share no recording, or take one for different languages."""
    by_id = [{row.id: row for row in rows} for rows in systems.values()]
    everywhere = set.intersection(*(set(rows) for rows in by_id))
    if not everywhere:
        raise ValueError(
            f"{', '.join(systems)}: no recording in common, so that there is nothing to compare; ids of the first: "
            f"{_some(by_id[0])}; of the last: {_some(by_id[-1])}"
        )
    ids = sorted(everywhere)
    for name in ids:
        codes = {rows[name].language for rows in by_id}
        if len(codes) > 1:
            raise ValueError(f"{', '.join(systems)}: {name} is in different languages: {', '.join(sorted(codes))}")
    left_out = sorted(set.union(*(set(rows) for rows in by_id)) - everywhere)
    return Common([[rows[name] for name in ids] for rows in by_id], left_out)


def _some(ids: Iterable[str], number: int = 5) -> str:
    """The first few names, and how many more there are."""
    names = sorted(ids)
    more = f" and {len(names) - number} more" if len(names) > number else ""
    return ", ".join(names[:number]) + more


def named(left_out: Sequence[str]) -> str:
    """A sentence on the recordings that are not compared; empty if there are none."""
    if not left_out:
        return ""
    if len(left_out) == 1:
        return f"1 recording is not in all files and was left out: {left_out[0]}."
    return f"{len(left_out)} recordings are not in all files and were left out: {_some(left_out)}."


def mean_of_seeds(runs: Sequence[Sequence[Counts]]) -> list[Counts]:
    """Mean errors of the same recordings in several trainings of one row; recordings that one lacks are left out."""
    common = in_common({str(number): run for number, run in enumerate(runs, 1)})
    rows = []
    for each in zip(*common.systems, strict=True):
        errors = {measure: statistics.mean(row.errors[measure] for row in each) for measure in _MEASURES}
        rows.append(Counts(each[0].id, each[0].language, each[0].speaker, each[0].session, errors, each[0].lengths))
    return rows


def half_of_t(differences: Sequence[float]) -> float | None:
    """Half of the 95 % interval of the mean of independent differences (Student's t); None for fewer than two."""
    if len(differences) < 2:
        return None
    from scipy.stats import t

    error = statistics.stdev(differences) / len(differences) ** 0.5
    return float(t.ppf(0.5 * (1 + CONFIDENCE), len(differences) - 1) * error)
