"""Scores a decode file: metrics.json for programs, report.md and report.html for people, alignments.txt for detail."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from masr.files import write_whole
from masr.progress import in_markdown, printable
from masr.score import errors, intervals, published
from masr.score.compare import compare_table, difference_table
from masr.score.errors import ErrorCounts, Utterance, read_decode_file
from masr.score.html import html_report, pictures
from masr.score.paired import counts_of, in_common, named
from masr.score.plots import percent
from masr.score.published import is_published, words_note
from masr.text.languages import language_name, main_error_rate
from masr.text.normalize import VERSION

Metrics = dict[str, Any]

_SEED = 0
_INTERVAL = {
    "method": "percentile bootstrap over speakers; over utterances where a language has too few, or they are unknown",
    "level": intervals.CONFIDENCE,
    "resamples": intervals.RESAMPLES,
    "seed": _SEED,
}
_KEPT_CONFUSIONS = 100  # in metrics.json, of each kind
_SHOWN_CONFUSIONS = 20
_ORACLE_SIZES = (1, 2, 5, 10, 20, 50, 100)
_AVERAGED = ("rate", "substitution_rate", "insertion_rate", "deletion_rate", "sentence_error_rate")
_SCLITE = "| language | sentences | units | correct | sub | del | ins | error | sentence error |"


def write_report(
    decode_file: Path, output: Path, *, details: dict[str, str], training: Mapping[str, str] | None = None
) -> Metrics:
    """Writes ``metrics.json``, ``report.md``, ``report.html``, ``alignments.txt`` and pictures into ``output``.

    ``details`` (command, environment, parameters ...) is shown as it is, in the order given; ``training`` are SVG
    pictures of how the model was made, for report.html. Returns what metrics.json holds: rates as fractions, durations
    in seconds. Equal input gives equal bytes.
    Raises ValueError naming file and line if the decode file cannot be scored.
    """
    utterances = read_decode_file(decode_file)
    metrics = compute_metrics(utterances, title=title_of(decode_file), details=details)
    output.mkdir(parents=True, exist_ok=True)
    texts = {
        "metrics.json": json.dumps(metrics, ensure_ascii=False, indent=1, allow_nan=False) + "\n",
        "report.md": markdown_report(metrics),
        "report.html": html_report(metrics, utterances, training or {}),
        "alignments.txt": alignments(utterances),
        **pictures(metrics),
    }
    for name, text in texts.items():
        write_whole(output / name, text)
    return metrics


def title_of(decode_file: Path) -> str:
    """``exp/<name>/decode/<method>/<split>.jsonl`` as ``name · method · split``; else the last folders and the file."""
    folders = [part for part in decode_file.absolute().parts[1:-1] if part != "decode"]
    return " · ".join([*folders[-2:], decode_file.stem])


def compute_metrics(utterances: Sequence[Utterance], *, title: str, details: Mapping[str, str]) -> Metrics:
    """Everything that the reports show, ready for JSON: an undefined rate or interval is ``None``."""
    measures = errors.measures_of(utterances)
    groups = errors.by_language(utterances)
    languages = {code: _language(code, group, measures) for code, group in groups.items()}
    audio, computing = sum(u.duration for u in utterances), sum(u.seconds for u in utterances)
    return {
        "title": title,
        "details": dict(details),
        "normalisation_version": VERSION,
        "interval": _INTERVAL,
        "utterances": len(utterances),
        "audio_seconds": audio,
        "compute_seconds": computing,
        "real_time_factor": computing / audio if audio else None,
        "languages": languages,
        "without_words": [code for code in languages if main_error_rate(code) == "cer"],
        "macro": {measure: _macro(utterances, languages, measure) for measure in measures},
        "micro": {measure: _micro(errors.averaged(utterances, measure), measure) for measure in measures},
        "oracle_cer": _oracle(utterances),
        "rate_by_duration": [row | {"rate": _known(row["rate"])} for row in errors.rate_by_duration(utterances)],
        "confusions": {
            "words": _confusions(errors.confusions(utterances)),
            "characters": _confusions(errors.confusions(utterances, characters=True)),
        },
        "language_confusion": _language_confusion(utterances),
        "language_weights": errors.mean_language_weights(utterances) or None,
    }


def _language(code: str, group: Sequence[Utterance], measures: Sequence[str]) -> Metrics:
    sampling = intervals.sampling_of_language(group)
    facts: Metrics = {
        "name": language_name(code),
        "main_measure": main_error_rate(code),
        "utterances": len(group),
        "speakers": sampling.speakers,
        "over": sampling.over,
        "audio_seconds": sum(utterance.duration for utterance in group),
        "compute_seconds": sum(utterance.seconds for utterance in group),
    }
    rates = {measure: _micro(group, measure) for measure in measures if measure != "main"}
    return facts | rates | {"main": rates[main_error_rate(code)]}


def _micro(group: Sequence[Utterance], measure: str) -> Metrics:
    counts = errors.pooled(group, measure)
    return _rates(counts) | {"interval": _ends(intervals.micro_interval(group, measure, seed=_SEED))}


def _ends(interval: tuple[float, float] | None) -> list[float] | None:
    return list(interval) if interval else None  # as JSON will give it back


def _rates(counts: ErrorCounts) -> Metrics:
    length = counts.reference_length or math.nan
    return {
        "rate": _known(counts.rate),
        "substitution_rate": _known(counts.substitutions / length),
        "insertion_rate": _known(counts.insertions / length),
        "deletion_rate": _known(counts.deletions / length),
        "sentence_error_rate": _known(counts.sentence_error_rate),
        "substitutions": counts.substitutions,
        "insertions": counts.insertions,
        "deletions": counts.deletions,
        "correct": counts.correct,
        "reference_length": counts.reference_length,
        "utterances": counts.utterances,
        "utterances_with_error": counts.utterances_with_error,
    }


def _known(rate: float) -> float | None:
    return None if math.isnan(rate) else rate


def _macro(utterances: Sequence[Utterance], languages: Mapping[str, Metrics], measure: str) -> Metrics:
    covered = errors.averaged(utterances, measure)
    codes = {utterance.language for utterance in covered}
    rows = [row[measure] for code, row in languages.items() if code in codes and row[measure]["rate"] is not None]
    means = {name: sum(row[name] for row in rows) / len(rows) if rows else None for name in _AVERAGED}
    ends = _ends(intervals.macro_interval(covered, measure, seed=_SEED))
    return means | {"interval": ends, "languages": len(rows)}


def _oracle(utterances: Sequence[Utterance]) -> Metrics | None:
    """Macro CER by the number of candidates among which the best is known; None without n-best lists."""
    longest = max(len(utterance.candidates) for utterance in utterances)
    if longest < 2:
        return None
    return {str(n): errors.oracle_cer(utterances, n) for n in _ORACLE_SIZES if n <= longest}


def _confusions(counts: Mapping[str, Counter[tuple[str, ...]]]) -> Metrics:
    names = {
        "substitutions": ("language", "reference", "hypothesis"),
        "insertions": ("language", "hypothesis"),
        "deletions": ("language", "reference"),
    }
    return {
        kind: [
            dict(zip(names[kind], key, strict=True)) | {"count": count}
            for key, count in errors.most_frequent(counts[kind], _KEPT_CONFUSIONS)
        ]
        for kind in names
    }


def _language_confusion(utterances: Sequence[Utterance]) -> Metrics | None:
    matrix = errors.language_confusion(utterances)
    predicted = sum(sum(row.values()) for row in matrix.values())
    if len({*matrix, *(code for row in matrix.values() for code in row)}) < 2:  # nothing to confuse
        return None
    correct = sum(row.get(language, 0) for language, row in matrix.items())
    return {"accuracy": correct / predicted, "utterances": predicted, "counts": matrix}


def alignments(utterances: Sequence[Utterance]) -> str:
    """Aligned text of every utterance by language, worst first; errors as ``(reference->hypothesis)``."""
    lines = ["# (a->b) substituted, (a->*) deleted, (*->b) inserted. Worst utterances of each language first."]
    for language, group in errors.by_language(utterances).items():
        measure = main_error_rate(language)
        rate = _known(errors.pooled(group, measure).rate)
        lines += ["", printable(f"## {language} {language_name(language)}: {measure.upper()} {percent(rate)} %")]
        for utterance in errors.worst_first(group):
            lines += ["", printable(_caption(utterance)), printable(_aligned(utterance))]
    return "\n".join(lines) + "\n"


def _caption(utterance: Utterance) -> str:
    counts = utterance.counts["main"]
    rate = f"{main_error_rate(utterance.language).upper()} {percent(_known(counts.rate))} %"
    kinds = f"{counts.substitutions} sub, {counts.deletions} del, {counts.insertions} ins"
    return f"{utterance.id}  {rate} ({kinds} of {counts.reference_length}), {utterance.duration:.1f} s"


def _aligned(utterance: Utterance) -> str:
    space = "" if main_error_rate(utterance.language) == "cer" else " "
    spans = errors.merge_errors(utterance.alignment)
    pairs = [(space.join(reference) or "*", space.join(hypothesis) or "*") for reference, hypothesis in spans]
    return space.join(left if left == right else f"({left}->{right})" for left, right in pairs)


def markdown_report(metrics: Metrics) -> str:
    """The report as Markdown: conditions, main table, counts in sclite's order, confusions."""
    sections = [
        f"# {in_markdown(metrics['title'])}",
        _conditions(metrics),
        "## Error rates (%)",
        main_table(metrics),
        _main_averages(metrics),
        "± is half the 95 % interval (bootstrap; macro and micro: within languages). In bold the language's main "
        "measure: CER where words are not written apart, else WER; sub, ins, del and sentence error belong to it.",
        *intervals.explained(metrics["languages"]),
    ]
    if note := words_note(metrics):
        sections.append(note)
    if is_published(metrics):
        sections += [f"## {published.TITLE} (%)", published.markdown_table(metrics), published.NOTE]
    if metrics["oracle_cer"]:
        sections += ["## Oracle: macro CER (%) of the best of n candidates", _oracle_table(metrics["oracle_cer"])]
    for name, measure in (("Words", "wer"), ("Characters", "cer")):
        sections += [f"## {name} (%)", _sclite_table(metrics, measure)]
    for name in ("words", "characters"):
        sections += [f"## Most confused {name}", _confusion_table(metrics["confusions"][name])]
    if metrics["language_confusion"]:
        sections += ["## Language confusion", _language_confusion_table(metrics["language_confusion"])]
    if metrics["language_weights"]:
        sections += ["## Weights of the languages' adapters (%)", _language_weights_table(metrics["language_weights"])]
    return "\n\n".join(sections) + "\n"


def _conditions(metrics: Metrics) -> str:
    speed = metrics["real_time_factor"]
    facts = metrics["details"] | {
        "text normalisation": f"version {metrics['normalisation_version']}",
        "real-time factor": "–" if speed is None else f"{speed:.4f} (seconds of computing per second of audio)",
    }
    rows = [f"| {_in_cell(name)} | {_in_cell(value)} |" for name, value in facts.items()]
    return "\n".join(["| | |", "|---|---|", *rows])


def _in_cell(text: str) -> str:
    return "<br>".join(in_markdown(line) for line in str(text).split("\n"))


def _name(code: str) -> str:
    """``Czech (cs)``"""
    return in_markdown(f"{language_name(code)} ({code})")


def main_table(metrics: Metrics) -> str:
    """Markdown: one line a language with WER, CER and the kinds of error, then the macro and micro averages."""
    lines = ["| language | utterances | minutes | WER ± CI | CER ± CI | sub / ins / del | sentence error |"]
    lines.append("|---|--:|--:|--:|--:|--:|--:|")
    for code, row in metrics["languages"].items():
        label = in_markdown(f"{row['name']} ({code})")
        lines.append(_main_line(label, row, row, row["main_measure"], intervals.mark_of([row])))
    for name in ("macro", "micro"):
        lines.append(_main_line(f"*{name} average*", metrics, metrics[name], "main", marks_of(metrics)))
    return "\n".join(lines)


def marks_of(metrics: Metrics) -> str:
    """Marks behind the intervals of averages: those of all languages."""
    return intervals.mark_of(metrics["languages"].values())


def _main_line(label: str, size: Metrics, row: Metrics, main: str, mark: str) -> str:
    rates = {name: f"{percent(row[name]['rate'])}{_half_width(row[name]['interval'], mark)}" for name in ("wer", "cer")}
    if main in rates:
        rates[main] = f"**{rates[main]}**"
    kinds = " / ".join(percent(row["main"][f"{kind}_rate"]) for kind in ("substitution", "insertion", "deletion"))
    sentence = percent(row["main"]["sentence_error_rate"])
    minutes = f"{size['audio_seconds'] / 60:.1f}"
    cells = [label, str(size["utterances"]), minutes, rates["wer"], rates["cer"], kinds, sentence]
    return f"| {' | '.join(cells)} |"


def _main_averages(metrics: Metrics) -> str:
    macro, micro = (
        f"{percent(average['rate'])}{_half_width(average['interval'], marks_of(metrics))} %"
        for average in (metrics["macro"]["main"], metrics["micro"]["main"])
    )
    return f"**Each language by its main measure: macro average {macro}, micro average {micro}.**"


def _half_width(interval: Sequence[float] | None, mark: str) -> str:
    return f" ± {percent((interval[1] - interval[0]) / 2)}{mark}" if interval else ""


def _oracle_table(rates: Mapping[str, float]) -> str:
    cells = [" | ".join(rates), "--:|" * len(rates), " | ".join(percent(rate) for rate in rates.values())]
    return f"| n | {cells[0]} |\n|---|{cells[1]}\n| CER | {cells[2]} |"


def _sclite_table(metrics: Metrics, measure: str) -> str:
    left_out = metrics["without_words"] if measure == "wer" else []
    languages = {code: row for code, row in metrics["languages"].items() if code not in left_out}
    rows = {in_markdown(f"{row['name']} ({code})"): row[measure] for code, row in languages.items()}
    lines = [_SCLITE, "|---|" + "--:|" * 8]
    for label, row in (rows | {"*all*": metrics["micro"][measure]}).items():
        length = row["reference_length"]
        correct = percent(row["correct"] / length if length else None)
        rates = [percent(row[f"{kind}_rate"]) for kind in ("substitution", "deletion", "insertion")]
        cells = [label, str(row["utterances"]), str(length), correct, *rates]
        lines.append(f"| {' | '.join([*cells, percent(row['rate']), percent(row['sentence_error_rate'])])} |")
    return "\n".join(lines)


def _confusion_table(confusions: Metrics) -> str:
    kinds = ("substitutions", "deletions", "insertions")
    columns = [[_confusion(entry) for entry in confusions[kind][:_SHOWN_CONFUSIONS]] for kind in kinds]
    lines = [f"| {' | '.join(kinds)} |", "|---|---|---|"]
    for index in range(max(len(column) for column in columns)):
        lines.append("| " + " | ".join(column[index] if index < len(column) else "" for column in columns) + " |")
    return "\n".join(lines) if len(lines) > 2 else "None."


def _confusion(entry: Metrics) -> str:
    texts = [entry[side].replace(" ", "␣") for side in ("reference", "hypothesis") if side in entry]
    return in_markdown(f"{entry['count']} × {' → '.join(texts)} ({entry['language']})")


def _language_confusion_table(confusion: Metrics) -> str:
    lines = [f"Right for {percent(confusion['accuracy'])} % of {confusion['utterances']} utterances.", ""]
    lines += ["| language | utterances | right (%) | taken for |", "|---|--:|--:|---|"]
    for language, row in confusion["counts"].items():
        total, right = sum(row.values()), row.get(language, 0)
        wrong = sorted((-count, other) for other, count in row.items() if other != language)
        taken = in_markdown(", ".join(f"{other} ({-count})" for count, other in wrong))
        lines.append(f"| {_name(language)} | {total} | {percent(right / total)} | {taken} |")
    return "\n".join(lines)


def _language_weights_table(weights: Mapping[str, Mapping[str, float]]) -> str:
    codes = list(next(iter(weights.values())))
    lines = [f"| spoken | {' | '.join(map(in_markdown, codes))} |", "|---|" + "--:|" * len(codes)]
    for language, row in weights.items():
        lines.append(f"| {_name(language)} | {' | '.join(percent(row[c], 1) for c in codes)} |")
    return "\n".join(lines)


def compare_files(files: Sequence[Path]) -> str:
    """`compare_table` of the recordings that all decode files have, and `difference_table` of them.

    Each file is named as its experiment, method and split, or by its path where two would have one name. Recordings
    that a file lacks are named and left out. ValueError without a file, or where the files share no recording.
    """
    if not files:
        raise ValueError("compare: no decode files given, expected at least one")
    titles = [title_of(file) for file in files]
    names = [str(file) if titles.count(title) > 1 else title for file, title in zip(files, titles, strict=True)]
    systems = dict(zip(names, map(read_decode_file, files), strict=True))
    common = in_common({name: [counts_of(u) for u in utterances] for name, utterances in systems.items()})
    ids = {row.id for row in common.systems[0]}
    metrics = {}
    for name, utterances in systems.items():
        kept = [utterance for utterance in utterances if utterance.id in ids]
        metrics[name] = compute_metrics(kept, title=name, details={})
    parts = [compare_table(metrics)]
    if len(systems) > 1:
        parts.append(difference_table(common, names))
    if common.left_out:
        parts.append(named(common.left_out) + "\n")
    return "\n".join(parts)
