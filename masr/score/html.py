"""One page that shows a scored decode file: no script or picture from elsewhere, so it opens anywhere, also offline."""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from masr.progress import in_html as escape
from masr.score import published
from masr.score.errors import Utterance, by_language, merge_errors, worst_first
from masr.score.intervals import explained, mark_of
from masr.score.plots import Bar, bar_chart, heat_map, percent, scatter
from masr.score.published import is_published, words_note
from masr.text.languages import language_name, main_error_rate

Metrics = Mapping[str, Any]

_KINDS = ("substitution", "insertion", "deletion")
_SHOWN_CONFUSIONS = 12
_WORST = 6  # utterances of each language

_COLOURS = """
:root { color-scheme: light dark;
  --paper: #fbfbf9; --card: #ffffff; --ink: #22282d; --soft: #6a737a; --line: #e6e7e3; --accent: #33708c;
  --substitution: #d09a3e; --insertion: #4684ac; --deletion: #b05263; --wash: #f3f4f1; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #15181b; --card: #1b1f23; --ink: #dfe3e6; --soft: #8f989f; --line: #2b3136; --accent: #6fabc8;
  --substitution: #cf9f50; --insertion: #6da4c8; --deletion: #cc7b88; --wash: #20252a; } }
"""

_PICTURE = """
svg { display: block; width: 100%; height: auto; margin-top: 6px; }
svg text { font-size: 12px; fill: var(--ink); font-variant-numeric: tabular-nums; }
svg .tick { fill: var(--soft); font-size: 11px; } svg .value { fill: var(--soft); }
svg .grid { stroke: var(--line); } svg .whisker { stroke: var(--ink); stroke-width: 1.2; opacity: .75; fill: none; }
svg .plain, svg .hit { fill: var(--accent); } svg .plain { opacity: .8; }
svg .substitution { fill: var(--substitution); } svg .insertion { fill: var(--insertion); }
svg .deletion, svg .miss { fill: var(--deletion); }
svg .dot { fill: var(--accent); opacity: .28; }
svg .curve { fill: none; stroke: var(--deletion); stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
svg .tiny { font-size: 8px; }
svg .empty { fill: var(--wash); } svg .cell { font-size: 11px; } svg .strong { fill: #ffffff; font-weight: 600; }
@media (prefers-color-scheme: dark) { svg .strong { fill: #101316; } }
"""

_PAGE = """
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Noto Sans", "Noto Sans CJK SC", sans-serif; -webkit-text-size-adjust: 100%; }
main { max-width: 1080px; margin: 0 auto; padding: 56px 28px 96px; }
h1 { font-size: 27px; font-weight: 600; letter-spacing: -.015em; line-height: 1.25; margin: 2px 0 0;
  overflow-wrap: anywhere; }
h2 { font-size: 17px; font-weight: 600; letter-spacing: -.005em; margin: 0 0 14px; }
h3 { font-size: 13px; font-weight: 600; color: var(--soft); margin: 0 0 8px; }
section { margin-top: 48px; }
.eyebrow { margin: 0; color: var(--soft); font-size: 13px; }
.note { color: var(--soft); font-size: 13px; max-width: 78ch; margin: 12px 0 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin-top: 28px; }
.tile, .card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: 14px 12px 12px 16px; }
.tile b { display: block; font-size: 23px; font-weight: 600; letter-spacing: -.02em; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.tile b small { white-space: nowrap; font-size: 12px; font-weight: 400; color: var(--soft); letter-spacing: 0; }
.tile span { color: var(--soft); font-size: 12.5px; }
.card { padding: 18px 20px; overflow-x: auto; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 16px; }
.trio { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(250px, 100%), 1fr)); gap: 4px 36px; }
.card > h3 { color: var(--ink); } .card + .card { margin-top: 16px; } .pair > .card + .card { margin-top: 0; }
.beside { display: flex; flex-wrap: wrap; gap: 20px 56px; } .beside > svg { width: auto; margin: 0; }
.beside > :last-child { flex: 1 1 220px; max-width: 380px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 0 7px 18px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { font-weight: 500; font-size: 12.5px; color: var(--soft); }
thead th[data-sort] { cursor: pointer; }
thead th[data-sort]:hover, thead th[aria-sort] { color: var(--ink); }
thead th[aria-sort=ascending]::after { content: " ↑"; } thead th[aria-sort=descending]::after { content: " ↓"; }
tbody tr:hover { background: var(--wash); }
tbody tr:last-child td { border-bottom-color: var(--soft); }
tfoot tr:last-child td { border-bottom: 0; }
td small { display: inline-block; min-width: 4.1em; margin-left: .4em; text-align: left; }
td small, td .code { color: var(--soft); } td .code { font-size: 12.5px; margin-left: 6px; }
td.main { font-weight: 600; } td.main small { font-weight: 400; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 12.5px; color: var(--soft); margin: 0 0 4px; }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 6px; }
ol.counts { list-style: none; margin: 0 0 14px; padding: 0; }
ol.counts li { display: flex; gap: 10px; padding: 3px 0; border-bottom: 1px solid var(--line); }
ol.counts li:last-child { border-bottom: 0; }
ol.counts .n { color: var(--soft); min-width: 34px; text-align: right; font-variant-numeric: tabular-nums; }
ol.counts .code { margin-left: auto; color: var(--soft); font-size: 12.5px; }
details { border-bottom: 1px solid var(--line); } details:last-child { border-bottom: 0; }
summary { cursor: pointer; padding: 9px 0; } summary small { color: var(--soft); margin-left: 8px; }
.utterance { margin: 4px 0 18px; } .utterance p { margin: 0; }
.utterance .caption { color: var(--soft); font-size: 12.5px; overflow-wrap: anywhere; }
.diff { font-size: 16px; line-height: 1.7; overflow-wrap: anywhere; }
.diff del, .diff ins { border-radius: 3px; padding: 1px 3px; }
.diff del { color: var(--deletion); background: color-mix(in srgb, var(--deletion) 13%, transparent);
  text-decoration: line-through 1px color-mix(in srgb, var(--deletion) 60%, transparent); }
.diff ins { color: var(--insertion); background: color-mix(in srgb, var(--insertion) 15%, transparent);
  text-decoration: none; border-bottom: 1.5px solid var(--insertion); }
dl { display: grid; grid-template-columns: minmax(110px, max-content) 1fr; gap: 7px 28px; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap; }
dd.exact { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 13px; }
@media (max-width: 560px) { main { padding: 32px 16px 64px; } dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: 10px; } }
@media print { .card, .tile { break-inside: avoid; } body { background: none; } }
"""

_SCRIPT = """
for (const head of document.querySelectorAll("th[data-sort]")) head.onclick = () => {
  const rows = [...head.closest("table").tBodies[0].rows], column = head.cellIndex;
  const down = head.getAttribute("aria-sort") !== "descending" && column > 0
    || head.getAttribute("aria-sort") === "ascending";
  const key = row => row.cells[column].dataset.value, compare = (a, b) => column ? a - b : a.localeCompare(b);
  rows.sort((a, b) => (down ? -1 : 1) * compare(key(a), key(b)));
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  head.closest("table").tBodies[0].append(...rows);
};
"""


def html_report(metrics: Metrics, utterances: Sequence[Utterance], training: Mapping[str, str]) -> str:
    """The page. ``metrics`` is what ``masr.score.report.compute_metrics`` returned for these utterances, ``training``
    are SVG pictures of how the model was made."""
    title = escape(metrics["title"])
    sections = [
        f'<header><p class="eyebrow">Speech recognition report</p><h1>{title}</h1></header>',
        _tiles(metrics),
        _main_table(metrics),
        _section(published.TITLE, published.html_table(metrics), published.NOTE) if is_published(metrics) else "",
        _charts(metrics),
        _duration(metrics, utterances),
        _languages(metrics),
        _language_weights(metrics),
        _confusions(metrics),
        _worst(utterances),
        _training(training),
        _conditions(metrics),
    ]
    meta = '<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f"<head>\n{meta}\n<title>{title}</title>\n<style>{_COLOURS}{_PAGE}{_PICTURE}</style>\n</head>"
    body = "\n".join(section for section in sections if section)
    script = f"<script>{_SCRIPT}</script>"
    return f'<!doctype html>\n<html lang="en">\n{head}\n<body>\n<main>\n{body}\n</main>\n{script}\n</body>\n</html>\n'


_TRAINING = {
    "weights": "What every objective counted", "objectives": "Cosines of the objectives' gradients",
    "layers": "Mean cosine of all pairs in every layer",
}  # fmt: skip


def _training(pictures: Mapping[str, str]) -> str:
    """Each picture for itself, as their ids may be the same."""
    cards = [
        f'<div class="card"><h3>{_TRAINING.get(name, escape(name))}</h3><img alt="{escape(name)}" '
        f'style="max-width: 100%; background: #fff" src="data:image/svg+xml;base64,{_base64(svg)}"></div>'
        for name, svg in pictures.items()
    ]
    return _section("Objectives in training", "\n".join(cards)) if cards else ""


def _base64(text: str) -> str:
    return b64encode(text.encode()).decode()


def _section(title: str, content: str, note: str = "") -> str:
    below = f'\n<p class="note">{note}</p>' if note else ""
    return f"<section>\n<h2>{title}</h2>\n{content}{below}\n</section>"


def _measure_name(metrics: Metrics) -> str:
    measures = {row["main_measure"] for row in metrics["languages"].values()}
    return measures.pop().upper() if len(measures) == 1 else "WER or CER"


def _tiles(metrics: Metrics) -> str:
    name, speed, confusion = _measure_name(metrics), metrics["real_time_factor"], metrics["language_confusion"]
    many = f"mean of {len(metrics['languages'])} languages" if len(metrics["languages"]) > 1 else "one language"
    tiles = [
        (_rate(metrics["macro"]["main"], _marks(metrics)), f"{name}, {many}"),
        (_rate(metrics["micro"]["main"], _marks(metrics)), f"{name}, all utterances pooled"),
        (_rate(metrics["macro"]["cer"], _marks(metrics)), f"CER, {many}"),
        (f"{metrics['utterances']:,}", f"utterances, {metrics['audio_seconds'] / 60:.1f} minutes"),
        ("–" if speed is None else f"{speed:.3g}", "real-time factor"),
    ]
    if confusion:
        tiles.append((f"{percent(confusion['accuracy'], 1)}<small> %</small>", "language recognised"))
    return '<div class="tiles">' + "".join(_tile(*tile) for tile in tiles) + "</div>"


def _tile(value: str, label: str) -> str:
    return f'<div class="tile"><b>{value}</b><span>{escape(label)}</span></div>'


def _marks(metrics: Metrics) -> str:
    """Marks behind the intervals of averages: those of all languages."""
    return mark_of(metrics["languages"].values())


def _rate(row: Metrics, mark: str) -> str:
    interval = row["interval"]
    width = f" ± {percent((interval[1] - interval[0]) / 2)}{mark}" if interval else ""
    return f"{percent(row['rate'])}<small> %{width}</small>"


def _main_table(metrics: Metrics) -> str:
    heads = ["Language", "Utterances", "Minutes", "WER", "CER", "Sub", "Ins", "Del", "Sentence error"]
    rows = [
        _row(
            f'{escape(row["name"])}<span class="code">{escape(code)}</span>',
            row,
            row,
            row["main_measure"],
            mark_of([row]),
        )
        for code, row in metrics["languages"].items()
    ]
    marks = _marks(metrics)
    averages = [_row(f"{name} average", metrics, metrics[name.lower()], "main", marks) for name in ("Macro", "Micro")]
    head = "".join(f"<th data-sort>{name}</th>" for name in heads)
    body = f"<tbody>{''.join(rows)}</tbody>\n<tfoot>{''.join(averages)}</tfoot>"
    note = (
        "In per cent of the reference, with the 95 % bootstrap interval. In bold the measure by which a language is "
        "judged: CER where words are not written apart, else WER; kinds of error and sentence error belong to it."
    )
    notes = [words_note(metrics), *explained(metrics["languages"])]
    note = " ".join([note, *map(escape, filter(None, notes))])
    table = f'<div class="card"><table><thead><tr>{head}</tr></thead>\n{body}</table></div>'
    return _section("Error rates by language", table, note)


def _row(label: str, size: Metrics, row: Metrics, main: str, mark: str) -> str:
    minutes = size["audio_seconds"] / 60
    cells = [f"<td data-value='{escape(str(size.get('name', '')), quote=True)}'>{label}</td>"]
    cells += [_cell(size["utterances"], f"{size['utterances']:,}"), _cell(minutes, f"{minutes:.1f}")]
    for measure in ("wer", "cer"):
        low, high = row[measure]["interval"] or (None, None)
        span = f"95 % interval {percent(low)} to {percent(high)}" if row[measure]["interval"] else "no interval"
        style = f' class="{"main" if measure == main else ""}" title="{span}"'
        cells.append(_cell(row[measure]["rate"], _rate(row[measure], mark).replace(" %", ""), style))
    rates = [row["main"][f"{kind}_rate"] for kind in _KINDS] + [row["main"]["sentence_error_rate"]]
    cells += [_cell(rate, percent(rate)) for rate in rates]
    return f"<tr>{''.join(cells)}</tr>\n"


def _cell(value: float | None, shown: str, attributes: str = "") -> str:
    return f'<td data-value="{-1 if value is None else value}"{attributes}>{shown}</td>'


def _charts(metrics: Metrics) -> str:
    cer, kinds = [], []
    for code, row in metrics["languages"].items():
        if row["main"]["rate"] is None:
            continue
        label = code if "-" in code else row["name"]
        cer.append(Bar(label, [("plain", row["cer"]["rate"])], row["cer"]["interval"]))
        kinds.append(Bar(label, [(kind, row["main"][f"{kind}_rate"]) for kind in _KINDS]))
    if not cer:
        return ""
    by_value = [sorted(bars, key=lambda bar: -bar.value) for bars in (cer, kinds)]
    whiskers = '<p class="legend">whiskers: 95 % bootstrap interval</p>'
    left = f"<h3>Character error rate, %</h3>{whiskers}{bar_chart(by_value[0], 'Character error rate by language')}"
    legend = _legend((kind, f"{kind}s") for kind in _KINDS)
    title = f"Kinds of error, % ({_measure_name(metrics)})"
    right = f"<h3>{title}</h3>{legend}{bar_chart(by_value[1], 'Kinds of error by language')}"
    cards = f'<div class="pair"><div class="card">{left}</div><div class="card">{right}</div></div>'
    return _section("Where the errors are", cards)


def _legend(entries: Iterable[tuple[str, str]]) -> str:
    swatches = (f'<span><i style="background:var(--{style})"></i>{name}</span>' for style, name in entries)
    return f'<p class="legend">{"".join(swatches)}</p>'


def _duration(metrics: Metrics, utterances: Sequence[Utterance]) -> str:
    counts = [(utterance.duration, utterance.counts["main"]) for utterance in utterances]
    points = [(seconds, count.rate) for seconds, count in counts if count.reference_length]
    curve = [(row["median"], row["rate"]) for row in metrics["rate_by_duration"] if row["rate"] is not None]
    if not points or not any(seconds for seconds, _ in points):
        return ""
    top = max(min(1.0, max(rate for _, rate in points)), *(rate for _, rate in curve), 0.1)
    plot = scatter(points, curve, "Error rate against duration", top)
    note = (
        f"A dot is an utterance, its height the error rate in % ({_measure_name(metrics)}); what lies above the axis "
        f"is drawn at its upper edge. The line joins the pooled rates of {len(curve)} equally large groups."
    )
    return _section("Errors and duration", f'<div class="card">{plot}</div>', note)


def _languages(metrics: Metrics) -> str:
    confusion = metrics["language_confusion"]
    if not confusion:
        return ""
    pairs = [
        {"language": spoken, "reference": spoken, "hypothesis": recognised, "count": count}
        for spoken, row in confusion["counts"].items()
        for recognised, count in row.items()
        if recognised != spoken
    ]
    pairs.sort(key=lambda pair: -pair["count"])
    named = [pair | {side: language_name(pair[side]) for side in ("reference", "hypothesis")} for pair in pairs]
    plot = heat_map(_shares(confusion["counts"]), "Language confusion")
    parts = f"{plot}<div><h3>Most often confused</h3>{_counts(named)}</div>"
    note = f"Rows: spoken; columns: recognised; in % of the row. {confusion['utterances']:,} utterances."
    return _section("Language confusion", f'<div class="card"><div class="beside">{parts}</div></div>', note)


def _language_weights(metrics: Metrics) -> str:
    if not metrics["language_weights"]:
        return ""
    card = f'<div class="card">{heat_map(metrics["language_weights"], "Weights of adapters")}</div>'
    return _section("Weights of the languages' adapters", card, "Rows: spoken; columns: adapters; means in %.")


def _shares(counts: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, float]]:
    return {code: {other: count / sum(row.values()) for other, count in row.items()} for code, row in counts.items()}


def pictures(metrics: Metrics) -> dict[str, str]:
    """The heat maps of the page as files of their own, by name."""
    confusion = metrics["language_confusion"]
    found = {
        "language_confusion": (confusion and _shares(confusion["counts"]), "Language confusion"),
        "language_weights": (metrics["language_weights"], "Weights of adapters"),
    }
    alone = f"><style>{_COLOURS}{_PICTURE}</style>"
    maps = {name: heat_map(matrix, title) for name, (matrix, title) in found.items() if matrix}
    return {
        f"{name}.svg": picture.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1).replace(">", alone, 1)
        for name, picture in maps.items()
    }


def _confusions(metrics: Metrics) -> str:
    cards = []
    for name in ("words", "characters"):
        kinds = metrics["confusions"][name]
        lists = "".join(f"<div><h3>{kind.capitalize()}</h3>{_counts(kinds[kind])}</div>" for kind in kinds)
        cards.append(f'<div class="card"><h3>{name.capitalize()}</h3><div class="trio">{lists}</div></div>')
    return _section("Most frequent errors", "".join(cards), "␣ is the space between two words.")


def _counts(entries: Sequence[Metrics]) -> str:
    items = []
    for entry in entries[:_SHOWN_CONFUSIONS]:
        texts = [escape(entry[side].replace(" ", "␣")) for side in ("reference", "hypothesis") if side in entry]
        code = escape(entry["language"], quote=True)
        text = f'<bdi lang="{code}">{" → ".join(texts)}</bdi>'
        items.append(f'<li><span class="n">{entry["count"]}</span>{text}<span class="code">{code}</span></li>')
    return f'<ol class="counts">{"".join(items)}</ol>' if items else '<p class="note">None.</p>'


def _worst(utterances: Sequence[Utterance]) -> str:
    blocks: list[str] = []
    for code, group in by_language(utterances).items():
        wrong = [utterance for utterance in worst_first(group) if utterance.counts["main"].errors]
        if not wrong:
            continue
        title = f"{escape(language_name(code))}<small>{len(wrong)} of {len(group)} utterances with errors</small>"
        shown = "".join(_utterance(utterance) for utterance in wrong[:_WORST])
        blocks.append(f"<details{'' if blocks else ' open'}><summary>{title}</summary>{shown}</details>")
    if not blocks:
        return ""
    legend = _legend([("deletion", "<del>spoken, not recognised</del>"), ("insertion", "recognised, not spoken")])
    note = "All utterances are in alignments.txt."
    return _section("Worst utterances", f'<div class="card">{legend}{"".join(blocks)}</div>', note)


def _utterance(utterance: Utterance) -> str:
    counts, measure = utterance.counts["main"], main_error_rate(utterance.language).upper()
    rate = percent(counts.rate, 1) if counts.reference_length else "–"
    facts = f"{measure} {rate} %, {utterance.duration:.1f} s, {escape(utterance.id)}"
    text = f'<p class="diff" dir="auto" lang="{escape(utterance.language, quote=True)}">{_diff(utterance)}</p>'
    return f'<div class="utterance"><p class="caption">{facts}</p>{text}</div>'


def _diff(utterance: Utterance) -> str:
    space = "" if main_error_rate(utterance.language) == "cer" else " "
    pieces = []
    for reference, hypothesis in merge_errors(utterance.alignment):
        left, right = escape(space.join(reference)), escape(space.join(hypothesis))
        wrong = (f"<del>{left}</del>" if left else "") + (f"<ins>{right}</ins>" if right else "")
        pieces.append(left if left == right else wrong)
    return space.join(pieces)


def _conditions(metrics: Metrics) -> str:
    interval = metrics["interval"]
    facts = [(name, str(value), "exact") for name, value in metrics["details"].items()]
    facts += [
        ("text normalisation", f"version {metrics['normalisation_version']}, reference and hypothesis alike", ""),
        ("characters", "with the single space between words; without spaces where words are not written apart", ""),
        ("intervals", f"{interval['method']}, {interval['resamples']} resamples, seed {interval['seed']}", ""),
        ("macro average", "mean of the languages' rates; its interval resamples within languages", ""),
        ("micro average", "all errors over all reference words (characters where CER is the measure)", ""),
    ]
    items = (f'<dt>{escape(name)}</dt><dd class="{style}">{escape(value)}</dd>' for name, value, style in facts)
    return _section("Conditions", f'<div class="card"><dl>{"".join(items)}</dl></div>')
