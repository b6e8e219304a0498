"""What `masr compare` prints: error rates of several systems, and their differences on the same recordings."""

from collections.abc import Mapping, Sequence
from typing import Any

from masr.progress import in_markdown
from masr.score.intervals import FEW_SPEAKERS, MARK, UNKNOWN_MARK, UTTERANCES
from masr.score.paired import Common, Difference, difference
from masr.score.plots import percent
from masr.text.languages import language_name

Metrics = dict[str, Any]

MEASURE = "cer"


def difference_table(common: Common, names: Sequence[str]) -> str:
    """Markdown: CER of every system less that of the first, in points, by language and in the macro average."""
    codes = common.languages
    rows = {in_markdown(f"{language_name(code)} ({code})"): [code] for code in codes} | {"*macro average*": codes}
    baseline, *others = common.systems
    shown = [in_markdown(name) for name in names]
    lines = [f"| CER, points against {shown[0]} | {' | '.join(shown[1:])} |", "|---" + "|--:" * len(others) + "|"]
    overs: set[str] = set()
    for label, languages in rows.items():
        cells = []
        for other in others:
            found = difference(baseline, other, MEASURE, languages)
            overs |= set(found.overs if found else ())
            cells.append(_difference_cell(found))
        lines.append(f"| {label} | {' | '.join(cells)} |")
    note = (
        "Difference [95 % interval], probability of improvement (fewer errors) and p of a two-sided test: paired "
        "bootstrap on the same recordings, in blocks of a speaker (Bisani & Ney 2004), macro average within languages."
    )
    remarks = []
    if FEW_SPEAKERS in overs:
        remarks.append(
            f"{MARK} One or two speakers (or who say nearly all): of their recordings; it says nothing about others."
        )
    if UTTERANCES in overs:
        remarks.append(f"{UNKNOWN_MARK} Speakers unknown: recordings were drawn one by one, as if each had its own.")
    return "\n\n".join(["\n".join(lines), note, *remarks]) + "\n"


def _difference_cell(found: Difference | None) -> str:
    if found is None:
        return "–"
    value = f"{100 * found.value:+.2f}"
    if found.interval is None:
        return value
    low, high = (f"{100 * end:+.2f}" for end in found.interval)
    return f"{value} [{low}, {high}]{found.mark}, better {percent(found.better, 1)} %, p {found.p:.3f}"


def compare_table(metrics: dict[str, Metrics]) -> str:
    """Markdown table of CER (%) by language, one column a system, with the change relative to the first system.

    ``metrics`` maps the name shown to what ``write_report`` returned. Averages cover the languages that every system
    has; what makes systems not comparable is said below the table. Raises ValueError without systems.
    """
    if not metrics:
        raise ValueError("compare_table: no systems given, expected at least one")
    codes = sorted({code for system in metrics.values() for code in system["languages"]})
    shared = [code for code in codes if all(code in system["languages"] for system in metrics.values())]
    lines = [f"| CER (%) | {' | '.join(map(in_markdown, metrics))} |", "|---|" + "--:|" * len(metrics)]
    for code in codes:
        rates = [system["languages"].get(code, {"cer": {"rate": None}})["cer"]["rate"] for system in metrics.values()]
        lines.append(_compare_line(in_markdown(f"{language_name(code)} ({code})"), rates))
    for label, average in (("*macro average*", _shared_macro), ("*micro average*", _shared_micro)):
        lines.append(_compare_line(label, [average(system, shared) for system in metrics.values()]))
    return "\n".join([*lines, *(f"\n{remark}" for remark in _remarks(metrics, codes, shared))]) + "\n"


def _shared_macro(system: Metrics, codes: Sequence[str]) -> float | None:
    rates = [system["languages"][code]["cer"]["rate"] for code in codes]
    defined = [rate for rate in rates if rate is not None]
    return sum(defined) / len(defined) if defined else None


def _shared_micro(system: Metrics, codes: Sequence[str]) -> float | None:
    rows = [system["languages"][code]["cer"] for code in codes]
    length = sum(row["reference_length"] for row in rows)
    wrong = sum(row[kind] for row in rows for kind in ("substitutions", "insertions", "deletions"))
    return wrong / length if length else None


def _compare_line(label: str, rates: Sequence[float | None]) -> str:
    cells = [percent(rates[0])] + [percent(rate) + _change(rates[0], rate) for rate in rates[1:]]
    return f"| {label} | {' | '.join(cells)} |"


def _change(first: float | None, rate: float | None) -> str:
    return f" ({100 * (rate / first - 1):+.1f} %)" if first and rate is not None else ""


def _remarks(metrics: Mapping[str, Metrics], codes: Sequence[str], shared: Sequence[str]) -> list[str]:
    remarks = []
    if len(shared) < len(codes):
        remarks.append(f"Averages cover the {len(shared)} languages that all systems have.")
    lengths = {tuple(_size(system, code) for code in shared) for system in metrics.values()}
    if len(lengths) > 1:
        remarks.append("**Not comparable**: the systems were scored on different utterances or references.")
    versions = sorted({system["normalisation_version"] for system in metrics.values()})
    if len(versions) > 1:
        remarks.append(f"**Not comparable**: text normalisation differs (versions {', '.join(versions)}).")
    return remarks


def _size(system: Metrics, code: str) -> tuple[int, int]:
    row = system["languages"][code]["cer"]
    return row["utterances"], row["reference_length"]
