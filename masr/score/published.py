"""What reports say of text as the model wrote it, with case and punctuation, and of averages without words.

``metrics`` is what ``masr.score.report.compute_metrics`` returned.
"""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from masr.score.errors import PUBLISHED
from masr.score.intervals import mark_of
from masr.score.plots import percent

Metrics = Mapping[str, Any]

TITLE = "With case and punctuation"
NOTE = (
    "The text as the model wrote it beside the text as it was published: wrong case and punctuation are errors. All "
    "other error rates are those of normalised text."
)


def is_published(metrics: Metrics) -> bool:
    """Whether the model writes text as published, so that there are error rates of that, too."""
    return all(measure in metrics["macro"] for measure in PUBLISHED)


def markdown_table(metrics: Metrics) -> str:
    """WER and CER of each language and their averages in %, with half of the interval."""
    lines = ["| language | WER ± CI | CER ± CI |", "|---|--:|--:|"]
    for name, code, row, mark in _rows(metrics):
        label = f"{name} ({code})" if code else f"*{name}*"
        lines.append(f"| {label} | {' | '.join(_cell(row, measure, mark) for measure in PUBLISHED)} |")
    return "\n".join(lines)


def html_table(metrics: Metrics) -> str:
    """The same for report.html."""
    rows = []
    for name, code, row, mark in _rows(metrics):
        label = f'{escape(name)}<span class="code">{escape(code)}</span>'
        cells = "".join(f"<td>{_cell(row, measure, mark)}</td>" for measure in PUBLISHED)
        rows.append(f"<tr><td>{label}</td>{cells}</tr>\n")
    head = "<thead><tr><th>Language</th><th>WER</th><th>CER</th></tr></thead>"
    return f'<div class="card"><table>{head}\n<tbody>{"".join(rows)}</tbody></table></div>'


def words_note(metrics: Metrics) -> str:
    """Which languages averages of WER leave out, and why; "" if none."""
    if not metrics["without_words"]:
        return ""
    left_out = ", ".join(f"{metrics['languages'][code]['name']} ({code})" for code in metrics["without_words"])
    return f"Averages of WER leave out {left_out}: words are not written apart there, so CER is the measure."


def _rows(metrics: Metrics) -> Iterator[tuple[str, str, Metrics, str]]:
    """Name, code, rates and mark (what the interval is over) of the languages, then of the averages without a code."""
    for code, row in metrics["languages"].items():
        yield row["name"], code, row, mark_of([row])
    of_all = mark_of(list(metrics["languages"].values()))
    for average in ("macro", "micro"):
        yield f"{average} average", "", metrics[average], of_all


def _cell(row: Metrics, measure: str, mark: str) -> str:
    interval = row[measure]["interval"]
    half = f" ± {percent((interval[1] - interval[0]) / 2)}{mark}" if interval else ""
    return percent(row[measure]["rate"]) + half
