"""Calm output: progress with rate and time left, as a bar on a terminal and as plain lines elsewhere.

What came from a file (names, transcripts, messages) is shown by `printable` on a terminal and in plain text, by
`in_markdown` in a report, by `in_html` on a page.
"""

import html
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from rich.console import Console

Item = TypeVar("Item")
console = Console(highlight=False, soft_wrap=True, emoji=False)
HIDDEN = "\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
"""Control characters (with which a text could move the cursor, colour or erase what stands there), what ends a line or
turns text round, and bytes of file names that are no text."""
LINES = re.compile(f"(?![\t\n])[{HIDDEN}]")
ALL = re.compile(f"[{HIDDEN}]")
MARKUP = re.compile(r"([\\`*_\[\]|~])")
SECONDS_BETWEEN_LINES = 15.0


def say(message: str) -> None:
    """One line to the user, or several."""
    console.print(printable(message, LINES), markup=False)


def printable(text: str, hidden: re.Pattern[str] = ALL) -> str:
    """Text of one line in which ``hidden`` characters are written as ``\\x1b`` or ``\\u202e``: nothing of it acts on a
    terminal."""
    return hidden.sub(lambda found: _code(found[0]), str(text))


def _code(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


def in_markdown(text: str) -> str:
    """The text as it is, wherever it stands in Markdown, a cell of a table included: none of it is markup or HTML."""
    return html.escape(MARKUP.sub(r"\\\1", printable(text)), quote=False)


def in_html(text: str, quote: bool = True) -> str:
    """The text as it is, in HTML or an attribute."""
    return html.escape(printable(text, LINES), quote)


def json_line(value: Any) -> str:
    """JSON on one line, in which hidden characters are written as JSON has them: it means the same."""
    return ALL.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))


def track(
    items: Iterable[Item],
    description: str,
    total: float,
    size: Callable[[Item], float] = lambda item: 1.0,
    unit: str = "",
) -> Iterator[Item]:
    """Yields ``items`` and shows how far they are; ``size(item)`` counts towards ``total`` (in ``unit``)."""
    if not sys.stdout.isatty():
        yield from _track_in_lines(items, description, total, size, unit)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    rate = TextColumn("{task.percentage:>3.0f} % {task.fields[rate]}")
    columns = TextColumn("{task.description}", markup=False), BarColumn(), rate
    began, done = time.monotonic(), 0.0
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task(printable(description), total=total, rate="")
        for item in items:
            yield item
            done += size(item)
            speed = f"{done / (time.monotonic() - began):.1f} {unit}/s"
            progress.update(task, completed=done, rate=speed)


def _track_in_lines(
    items: Iterable[Item], description: str, total: float, size: Callable[[Item], float], unit: str
) -> Iterator[Item]:
    began = last = time.monotonic()
    done = 0.0
    for item in items:
        yield item
        done += size(item)
        now = time.monotonic()
        if now - last > SECONDS_BETWEEN_LINES:
            last, rate = now, done / (now - began)
            say(f"{description}: {done / total:.0%}, {rate:.1f} {unit}/s, {clock((total - done) / rate)} left")


def clock(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, seconds = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
