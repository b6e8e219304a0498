"""Calm output: progress with rate and time left, as a bar on a terminal and as plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console

Item = TypeVar("Item")
console = Console(highlight=False, soft_wrap=True)
SECONDS_BETWEEN_LINES = 15.0


def say(message: str) -> None:
    """One line to the user."""
    console.print(message, markup=False)


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

    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} % {task.fields[rate]}")
    began, done = time.monotonic(), 0.0
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task(description, total=total, rate="")
        for item in items:
            yield item
            done += size(item)
            rate = f"{done / (time.monotonic() - began):.1f} {unit}/s"
            progress.update(task, completed=done, rate=rate)


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
