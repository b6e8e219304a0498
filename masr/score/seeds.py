"""Differences between rows of a table: trainings are paired by seed, and their errors by recording.

Two kinds of chance stand side by side. How much another training would differ is what seeds tell: the differences of
equal seeds and Student's t. How much other recordings of the same speakers, or other speakers, would differ is what a
paired bootstrap tells (`masr.score.paired`), of the mean errors over the seeds.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from masr.score.figures import Run
from masr.score.intervals import FEW_SPEAKERS, MARK, UNKNOWN_MARK, UTTERANCES
from masr.score.paired import Difference, difference, half_of_t, in_common, mean_of_seeds, named
from masr.text.languages import main_error_rate


@dataclass(frozen=True)
class Compared:
    """The difference of a row from another one in a column."""

    by_seed: list[float]
    """Differences of equal seeds, as the column has them (points of %)."""
    recordings: Difference | None
    """On the same recordings, as a fraction; None where errors of single recordings are not known."""
    left_out: list[str]
    """Recordings that not all runs have."""

    def __str__(self) -> str:
        """Mean ± half of the interval over seeds, which one seed has not, and in brackets that over recordings."""
        half = half_of_t(self.by_seed)
        text = f"{statistics.mean(self.by_seed):+.2f}" + ("" if half is None else f" ± {half:.2f}")
        if self.recordings is None or self.recordings.interval is None:
            return text
        low, high = self.recordings.interval
        return f"{text} (recordings ± {50 * (high - low):.2f}{self.recordings.mark}, p {self.recordings.p:.3f})"


def compare(column: str, ours: Mapping[int, Run], theirs: Mapping[int, Run]) -> Compared | None:
    """Of the runs of two rows by seed; None where no seed has both figures.

    ValueError where two runs share no recording.
    """
    seeds = [seed for seed in sorted(ours.keys() & theirs.keys()) if column in _both(ours[seed], theirs[seed])]
    if not seeds:
        return None
    by_seed = [ours[seed].values[column] - theirs[seed].values[column] for seed in seeds]
    first = [theirs[seed].counts(column) for seed in seeds]
    second = [ours[seed].counts(column) for seed in seeds]
    known = [counts for counts in (*first, *second) if counts is not None]
    if len(known) < 2 * len(seeds):
        return Compared(by_seed, None, [])
    common = in_common({str(number): counts for number, counts in enumerate(known, 1)})
    theirs_then_ours = common.systems[: len(seeds)], common.systems[len(seeds) :]
    languages, measure = _languages(column, common.languages)
    if common.left_out:  # the figures of the columns are about different recordings
        pairs = zip(*theirs_then_ours, strict=True)
        each = [difference(a, b, measure, languages) for a, b in pairs]
        by_seed = [100 * found.value for found in each if found is not None]
    means = [mean_of_seeds(runs) for runs in theirs_then_ours]
    return Compared(by_seed, difference(means[0], means[1], measure, languages), common.left_out)


def _both(ours: Run, theirs: Run) -> set[str]:
    return ours.values.keys() & theirs.values.keys()


def _languages(column: str, codes: Sequence[str]) -> tuple[list[str], str]:
    """The languages that a column is about, and its measure; averages of words leave out languages without words."""
    name, _, language = column.partition(":")[0].partition("/")
    measure = name.partition("@")[0]
    if language:
        return [language], measure
    return [code for code in codes if measure == "cer" or main_error_rate(code) == "wer"], measure


def compare_pooled(column: str, pairs: Sequence[tuple[Mapping[int, Run], Mapping[int, Run]]]) -> list[float]:
    """One difference for every seed that all pairs have: the mean over the pairs, which are not independent."""
    seeds = set.intersection(*({*ours} & {*theirs} for ours, theirs in pairs))
    means = []
    for seed in sorted(seeds):
        runs = [(ours[seed], theirs[seed]) for ours, theirs in pairs]
        if all(column in _both(*pair) for pair in runs):
            means.append(statistics.mean(ours.values[column] - theirs.values[column] for ours, theirs in runs))
    return means


def explained(differences: Sequence[Compared]) -> list[str]:
    """What has to be said below a table with differences over recordings."""
    found = [compared.recordings for compared in differences if compared.recordings is not None]
    if not found:
        return []
    sentences = [
        "Differences: mean for the same seeds ± half of the 95 % interval over seeds (Student's t); in brackets the "
        "same over recordings, and p of a two-sided test (paired bootstrap in blocks of a speaker, Bisani & Ney 2004)."
    ]
    overs = {over for difference in found for over in difference.overs}
    if FEW_SPEAKERS in overs:
        sentences.append(f"{MARK} Some languages have one or two speakers: it says nothing about others.")
    if UTTERANCES in overs:
        sentences.append(f"{UNKNOWN_MARK} Speakers unknown: recordings were drawn one by one, as if each had its own.")
    left_out = sorted({name for compared in differences for name in compared.left_out})
    return [*sentences, *([named(left_out)] if left_out else [])]
