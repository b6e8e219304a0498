"""Charts as inline SVG. They have no colours of their own: classes and variables of the page's style decide.

So one picture serves light and dark, scales without blur, and is the same text on every run.
Sizes are in SVG user units, rates are fractions and shown in percent.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from masr.progress import in_html

WIDTH = 560
_LABEL = 108
_VALUE = 52
_ROW = 26
_AXIS = 26
_DOTS = 1500  # more points hide each other and make the page heavy


def percent(rate: float | None, digits: int = 2) -> str:
    """``0.1234`` as ``12.34``; an en dash where a rate is undefined."""
    return "–" if rate is None else f"{100 * rate:.{digits}f}"


@dataclass(frozen=True)
class Bar:
    """One row of a bar chart: stacked ``parts`` (class of the style, length) and an optional interval."""

    label: str
    parts: Sequence[tuple[str, float]]
    interval: tuple[float, float] | None = None

    @property
    def value(self) -> float:
        return sum(length for _, length in self.parts)


def ticks(maximum: float, count: int = 5) -> list[float]:
    """Round numbers from 0 up to the first at or above ``maximum``, about ``count`` steps of 1, 2 or 5 times 10^n."""
    if maximum <= 0:
        return [0.0, 0.1]
    rough = maximum / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    return [index * step for index in range(math.ceil(maximum / step - 1e-9) + 1)]


def _tick_label(value: float, scale: Sequence[float]) -> str:
    return f"{100 * value:.{max(0, -math.floor(math.log10(100 * scale[1])))}f}"


def _svg(width: float, height: float, title: str, body: Sequence[str]) -> str:
    label = in_html(title)
    style = f"max-width:{width:g}px;min-width:{0.6 * width:.0f}px;flex-basis:{width:g}px"
    size = f'viewBox="0 0 {width:g} {height:g}" style="{style}"'
    return f'<svg {size} role="img" aria-label="{label}">\n' + "\n".join(body) + "\n</svg>"


def _text(x: float, y: float, content: str, style: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}">{in_html(content)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" class="{style}"/>'


def bar_chart(bars: Sequence[Bar], title: str) -> str:
    """Horizontal bars in the given order, with the interval of each as a whisker and the value at the right, in %."""
    scale = ticks(max([bar.value for bar in bars] + [bar.interval[1] for bar in bars if bar.interval]))
    unit = (WIDTH - _LABEL - _VALUE) / scale[-1]
    bottom = _ROW * len(bars) + 4
    body = []
    for tick in scale:
        x = _LABEL + tick * unit
        body += [_line(x, 0, x, bottom, "grid"), _text(x, bottom + 16, _tick_label(tick, scale), "tick", "middle")]
    for index, bar in enumerate(bars):
        body += _bar(bar, index * _ROW + _ROW / 2 + 2, unit)
    return _svg(WIDTH, bottom + _AXIS, title, body)


def _bar(bar: Bar, middle: float, unit: float) -> list[str]:
    body = [_text(_LABEL - 10, middle + 4, bar.label, "label", "end")]
    x = float(_LABEL)
    for style, length in bar.parts:
        body.append(f'<rect x="{x:.1f}" y="{middle - 6:.1f}" width="{length * unit:.1f}" height="12" class="{style}"/>')
        x += length * unit
    if bar.interval:
        low, high = (_LABEL + end * unit for end in bar.interval)
        body += [_line(low, middle, high, middle, "whisker")]
        body += [_line(end, middle - 3.5, end, middle + 3.5, "whisker") for end in (low, high)]
    body.append(_text(WIDTH, middle + 4, percent(bar.value, 1), "value", "end"))
    return body


def scatter(points: Sequence[tuple[float, float]], curve: Sequence[tuple[float, float]], title: str, top: float) -> str:
    """One dot for each (seconds, rate), a line through ``curve``; rates above ``top`` are drawn at the upper edge."""
    left, width, height, margin = 40, 2 * WIDTH, 260, 8
    across, up = ticks(max(seconds for seconds, _ in points), 10), ticks(top)

    def place(seconds: float, rate: float) -> tuple[float, float]:
        shown = min(rate, up[-1])
        return left + seconds / across[-1] * (width - left - 16), margin + height * (1 - shown / up[-1])

    body = []
    for tick in up:
        _, y = place(0, tick)
        body += [_line(left, y, width - 16, y, "grid"), _text(left - 8, y + 4, _tick_label(tick, up), "tick", "end")]
    for tick in across:
        body.append(_text(place(tick, 0)[0], margin + height + 18, f"{tick:g} s", "tick", "middle"))
    every = math.ceil(len(points) / _DOTS)
    for x, y in (place(*point) for point in points[::every]):
        body.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" class="dot"/>')
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in (place(*point) for point in curve))
    body.append(f'<path d="M{path}" class="curve"/>')
    return _svg(width, margin + height + _AXIS, title, body)


def heat_map(matrix: Mapping[str, Mapping[str, float]], title: str) -> str:
    """Rows are true, columns predicted languages; a cell is as dark as its share (0 to 1, shown in %)."""
    columns = sorted(set(matrix) | {predicted for row in matrix.values() for predicted in row})
    cell = max(11, min(38, 2 * WIDTH // (len(columns) + 2)))
    small = cell < 24  # then column labels stand upright and cells carry no number
    left, head, style = 64, 44 if small else 30, "tick tiny" if small else "tick"
    body = []
    for column, code in enumerate(columns):
        x = left + (column + 0.5) * cell
        label = _text(0 if small else x, 3 if small else head - 10, code, style, "start" if small else "middle")
        body.append(f'<g transform="translate({x:.1f} {head - 6}) rotate(-90)">{label}</g>' if small else label)
    for index, (language, row) in enumerate(matrix.items()):
        y = head + index * cell
        body.append(_text(left - 10, y + cell / 2 + 4, language, "tiny" if small else "label", "end"))
        for column, predicted in enumerate(columns):
            body += _cell(left + column * cell, y, cell, row.get(predicted, 0.0), predicted == language)
    return _svg(left + cell * len(columns) + 2, head + cell * len(matrix) + 2, title, body)


def _cell(x: float, y: float, size: int, share: float, diagonal: bool) -> list[str]:
    place = f'x="{x + 1:.1f}" y="{y + 1:.1f}" width="{size - 2}" height="{size - 2}" rx="2"'
    body = [f'<rect {place} class="empty"/>']
    if share:
        # The square root keeps the rare confusions, which are what one looks for, visible beside the diagonal.
        body.append(f'<rect {place} class="{"hit" if diagonal else "miss"}" opacity="{math.sqrt(share):.3f}"/>')
        if size >= 24:
            style = "cell strong" if share > 0.4 else "cell"
            body.append(
                _text(x + size / 2, y + size / 2 + 4, percent(share, 0 if share > 0.095 else 1), style, "middle")
            )
    return body
