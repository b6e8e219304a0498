"""Scores of translations: BLEU and chrF of sacreBLEU (Post 2018, arXiv 1804.08771), with its signatures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sacrebleu.metrics import BLEU, CHRF

from masr.files import reading, text_lines, write_whole
from masr.progress import in_markdown, printable
from masr.score.intervals import (
    CONFIDENCE,
    RESAMPLES,
    UTTERANCES,
    Sampling,
    explained,
    interval,
    mark_of,
    resampled_totals,
    sampling_of,
    stretched,
)
from masr.score.report import title_of
from masr.text.languages import language_name

Metrics = dict[str, Any]


class _FloatScores:
    """sacreBLEU 2.6 cannot average the resamples of a weak system, some of whose scores are floats and some float32."""

    def _compute_score_from_stats(self, stats: Any) -> Any:
        score = super()._compute_score_from_stats(stats)  # type: ignore[misc]
        score.score = float(score.score)
        return score


class _BLEU(_FloatScores, BLEU):
    pass


class _CHRF(_FloatScores, CHRF):
    pass


METRICS = {"bleu": _BLEU, "chrf": _CHRF}


def write_translation_report(decode_file: Path, output: Path, *, details: Mapping[str, str]) -> Metrics:
    """Writes ``metrics.json``, ``report.md`` and ``translations.txt`` into ``output``; returns the first.

    ValueError when the decode file has no lines.
    """
    with reading(decode_file, "`masr decode --force` makes it again"):
        rows = [json.loads(line) for line in text_lines(decode_file) if line]
        check_rows(rows)
    if not rows:
        raise ValueError(f"{decode_file}: no utterances; none of this split has a translation")
    metrics = compute_metrics(rows, title_of(decode_file), details)
    output.mkdir(parents=True, exist_ok=True)
    texts = {
        "metrics.json": json.dumps(metrics, ensure_ascii=False, indent=1) + "\n",
        "report.md": markdown_report(metrics),
        "translations.txt": "".join(_in_lines(row) for row in rows),
    }
    for name, text in texts.items():
        write_whole(output / name, text)
    return metrics


def _in_lines(row: Mapping[str, Any]) -> str:
    """An utterance, what was to be written and what was."""
    return "".join(f"{printable(text)}\n" for text in (row["id"], f"  {row['reference']}", f"  {row['hypothesis']}"))


def check_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """TypeError or KeyError where a line lacks a text or a number of seconds."""
    for row in rows:
        if not all(isinstance(row[name], str) for name in ("id", "language", "into", "reference", "hypothesis")):
            raise TypeError(f"a line of other than texts: {row}")
        row["seconds"] + row["duration"] + 0.0


def compute_metrics(rows: Sequence[Mapping[str, Any]], title: str, details: Mapping[str, str]) -> Metrics:
    """Corpus scores (0 to 100) of each spoken language with half of the bootstrap interval, and their mean."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["language"], []).append(row)
    languages = {code: _scores(group) for code, group in sorted(groups.items())}
    audio, computing = (sum(row[name] for row in rows) for name in ("duration", "seconds"))
    return {
        "title": title, "details": dict(details), "into": rows[0]["into"], "utterances": len(rows),
        "real_time_factor": computing / audio if audio else None,
        "signatures": {name: _signature(name, rows) for name in METRICS},
        "languages": languages, "macro": {name: _macro(languages, name) for name in METRICS},
    }  # fmt: skip


@dataclass(frozen=True)
class _Spoken:
    speaker: str | None
    session: str | None


def _sampling(group: Sequence[Mapping[str, Any]]) -> Sampling:
    """How the sentences of a language are drawn: shares of speakers are those of the characters of references."""
    spoken = [_Spoken(row.get("speaker"), row.get("session")) for row in group]
    return sampling_of(spoken, [len(row["reference"]) for row in group])


def _scores(group: Sequence[Mapping[str, Any]]) -> Metrics:
    sampling = _sampling(group)
    scores: Metrics = {"utterances": len(group), "speakers": sampling.speakers, "over": sampling.over}
    for name in METRICS:
        scores[name] = _score(name, group, sampling)
    return scores


def _score(name: str, group: Sequence[Mapping[str, Any]], sampling: Sampling) -> Metrics:
    """The score, and half of its bootstrap interval: over speakers, or sacreBLEU's own over sentences."""
    hypotheses, references = [row["hypothesis"] for row in group], [[row["reference"] for row in group]]
    metric = METRICS[name](references=references, **_options(name, group[0]["into"]))
    if sampling.over == UTTERANCES:
        score = metric.corpus_score(hypotheses, None, n_bootstrap=RESAMPLES)
        half = getattr(score, "_ci", None)
        return {"score": score.score, "half_interval": None if half is None or half < 0 else half}
    value = metric.corpus_score(hypotheses, None).score
    # sacreBLEU sums what it counts in each sentence, and makes a score of the sums.
    counted = np.array(metric._extract_corpus_statistics(hypotheses, None), dtype=np.float64)
    totals = resampled_totals(counted, sampling)
    draws = np.array([metric._compute_score_from_stats(row.tolist()).score for row in totals])
    ends = interval(stretched(draws, value, sampling)) if len(group) > 1 else None
    return {"score": value, "half_interval": None if ends is None else (ends[1] - ends[0]) / 2}


def _signature(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """What sacreBLEU says of how the scores of the languages came about."""
    metric = METRICS[name](**_options(name, rows[0]["into"]))
    own_interval = any(row.get("speaker") is None and row.get("session") is None for row in rows)
    resamples = RESAMPLES if own_interval else 1
    metric.corpus_score([rows[0]["hypothesis"]], [[rows[0]["reference"]]], n_bootstrap=resamples)
    return str(metric.get_signature())


def _options(name: str, into: str) -> dict[str, Any]:
    """BLEU of languages that are not written in words counts characters or pieces, as sacreBLEU advises."""
    return {"trg_lang": into} if name == "bleu" else {}


def _macro(languages: Mapping[str, Metrics], name: str) -> Metrics:
    """Mean over languages; their intervals are independent."""
    scores = [row[name]["score"] for row in languages.values()]
    halves = [row[name]["half_interval"] for row in languages.values()]
    known = None if None in halves else sum(half**2 for half in halves) ** 0.5 / len(halves)
    return {"score": sum(scores) / len(scores), "half_interval": known}


def markdown_report(metrics: Metrics) -> str:
    """The report as Markdown."""
    facts = {name: in_markdown(value) for name, value in metrics["details"].items()}
    facts |= {name: f"`{signature}`" for name, signature in metrics["signatures"].items()}
    lines = [
        f"# {in_markdown(metrics['title'])}",
        "",
        "| | |",
        "|---|---|",
        *(f"| {in_markdown(name)} | {value} |" for name, value in facts.items()),
    ]
    notes = "\n\n".join([_NOTE, *explained(metrics["languages"])])
    return "\n".join([*lines, "", "## Translation", "", main_table(metrics), "", notes]) + "\n"


_NOTE = f"± is half the {100 * CONFIDENCE:g} % interval (bootstrap)."


def main_table(metrics: Metrics) -> str:
    """Markdown: one line a spoken language, then the mean."""
    lines = ["| spoken | utterances | BLEU | chrF |", "|---|--:|--:|--:|"]
    for code, row in metrics["languages"].items():
        mark = mark_of([row])
        cells = f"{_cell(row['bleu'], mark)} | {_cell(row['chrf'], mark)}"
        lines.append(f"| {in_markdown(f'{language_name(code)} ({code})')} | {row['utterances']} | {cells} |")
    macro, marks = metrics["macro"], mark_of(metrics["languages"].values())
    cells = f"{_cell(macro['bleu'], marks)} | {_cell(macro['chrf'], marks)}"
    return "\n".join([*lines, f"| *mean* | {metrics['utterances']} | {cells} |"])


def averages(metrics: Metrics) -> str:
    """What matters, and how it was computed."""
    macro = metrics["macro"]
    mean = ", ".join(f"{title} {macro[name]['score']:.2f}" for name, title in (("bleu", "BLEU"), ("chrf", "chrF")))
    signatures = " and ".join(metrics["signatures"].values())
    return f"mean {mean}, real-time factor {metrics['real_time_factor']:.4f} (sacreBLEU {signatures})"


def _cell(score: Metrics, mark: str) -> str:
    half = score["half_interval"]
    return f"{score['score']:.2f}" + ("" if half is None else f" ± {half:.2f}{mark}")
