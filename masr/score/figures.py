"""The figures of a scored experiment by column of a table, and what is kept of an experiment beside a README.

A column is a rate (``cer``), of a language (``cer/cs``), prompt (``cer@oracle``) or split (``cer:test-other``), or what
a run costs (``training``); `masr.tables` lists them.
"""

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from masr.score.errors import read_decode_file
from masr.score.paired import Counts, counts_of, read_counts, write_counts

KEPT = (
    "config.yaml",
    "environment.json",
    "training.json",
    "log.jsonl",
    "score/complete.json",
    "score/*/*/metrics.json",
)
"""What is kept of an experiment beside a recipe's README."""
COUNTS = "counts.jsonl.gz"
"""Errors of each recording, beside metrics.json: later tables pair rows by recording."""
TRANSLATION = "translation-beam"
"""Method whose scores are shown as BLEU and chrF."""


def keep_figures(experiment: Path, folder: Path) -> None:
    """Copies what a table shows of an experiment, and what says how it came about, but no weights."""
    shutil.rmtree(folder, ignore_errors=True)
    for file in [file for pattern in KEPT for file in experiment.glob(pattern)]:
        copy = folder / file.relative_to(experiment)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if file.name != "metrics.json":
            shutil.copyfile(file, copy)
            continue
        metrics = json.loads(file.read_text(encoding="utf-8"))
        metrics.pop("confusions", None)  # half of it, and never in a table
        copy.write_text(json.dumps(metrics), encoding="utf-8")
        counts = counts_in(experiment, file.parts[-3], file.parts[-2])
        if counts is not None:
            write_counts(counts, copy.with_name(COUNTS))


def counts_in(folder: Path, method: str, split: str) -> list[Counts] | None:
    """Errors of each recording of an experiment or of what is kept of one; None where nobody knows them any more."""
    kept = folder / "score" / method / split / COUNTS
    if kept.is_file():
        return read_counts(kept)
    decoded = folder / "decode" / method / f"{split}.jsonl"
    if not decoded.is_file() or method.partition("@")[0] == TRANSLATION:
        return None
    return [counts_of(utterance) for utterance in read_decode_file(decoded)]


@dataclass(frozen=True)
class Run:
    """A scored experiment."""

    folder: Path
    method: str
    """Search method of the table, maybe with a prompt: ``ctc-greedy``, ``attention-beam@oracle``."""
    split: str

    @cached_property
    def values(self) -> dict[str, float]:
        """Figures by column; FileNotFoundError where the method or split was not scored."""
        return _values(self.folder, self.method, self.split)

    def counts(self, column: str) -> list[Counts] | None:
        """Errors of each recording that a column of error rates is about; None if it is no such column, or unknown."""
        name, _, split = column.partition(":")
        kind, _, prompt = name.partition("/")[0].partition("@")
        if kind not in ("cer", "wer"):
            return None
        method = f"{self.method.partition('@')[0]}@{prompt}" if prompt else self.method
        return counts_in(self.folder, method, split or self.split)


def _values(folder: Path, method: str, split: str) -> dict[str, float]:
    """The figures of an experiment by column."""
    file = folder / "score" / method / split / "metrics.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: {method} or {split} is not among what is decoded")
    metrics = _read(file)
    training: dict[str, Any] = json.loads((folder / "training.json").read_text())
    values, search = _rates(metrics, ""), method.partition("@")[0]
    for other in folder.glob(f"score/{search}@*/{split}/metrics.json"):
        values |= _rates(_read(other), f"@{other.parts[-3].partition('@')[2]}")
    for other in folder.glob(f"score/{method}/*/metrics.json"):
        rates = _rates(_read(other), "")
        values |= {f"{name}:{other.parent.name}": rate for name, rate in rates.items()}
    translations = method.replace(search, TRANSLATION)  # with the same prompt
    if (translated := folder / "score" / translations / split / "metrics.json").is_file():
        values |= _translation_scores(_read(translated))
    one = training.get("parameters_of_one_language", training["parameters"])
    return values | {
        "parameters": training["parameters"] / 1e6, "training": training["train_seconds"] / 60,
        "audio": training["audio_seconds"] / 3600, "rtf": metrics["real_time_factor"], "one": one / 1e6,
        "learnt": training.get("learnt", training["parameters"]) / 1e6,
    }  # fmt: skip


def _read(file: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return metrics


def _rates(metrics: dict[str, Any], prompt: str) -> dict[str, float]:
    """Error rates, and how often the language is right, in % by column."""
    rates = {}
    for name, group in _groups(metrics).items():
        for kind in ("cer", "wer"):
            if group[kind]["rate"] is not None:
                rates[f"{kind}{prompt}{name}"] = 100 * group[kind]["rate"]
    confusion = metrics.get("language_confusion")
    if confusion:
        rates[f"lid{prompt}"] = 100 * confusion["accuracy"]
    return rates


def _translation_scores(metrics: dict[str, Any]) -> dict[str, float]:
    scores = {}
    for name, group in _groups(metrics).items():
        for kind in ("bleu", "chrf"):
            scores[f"{kind}{name}"] = group[kind]["score"]
    return scores


def _groups(metrics: dict[str, Any]) -> dict[str, Any]:
    """The macro average and every language by the end of a column's name."""
    return {"": metrics["macro"]} | {f"/{code}": values for code, values in metrics["languages"].items()}
