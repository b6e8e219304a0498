"""What the benchmarks share: timing in turn, tables, and the line ``ratio <what> <peer> <value>`` that each ends with.

Standard library only, so that it runs in every peer's environment.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def common_options(description: str, repeats: int) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="of masr, and of its peer if that can have some")
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument(
        "--shortest", action="store_true", help="masr's half alone, once, on next to nothing: shows that it runs"
    )
    return parser


def say_absent(peer: str, benchmark: str) -> None:
    """One line where masr is measured alone."""
    print(f"masr alone, without {peer}: make bench ONLY={benchmark} sets it up", flush=True)


def seconds_in_turn(contenders: Mapping[str, Callable[[], object]], repeats: int, warm_up: int = 1) -> dict[str, float]:
    """Median seconds of each contender. They run in turn (A B A B ...): a slow spell of the machine hits all."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(-warm_up, repeats):
        for name, run in contenders.items():
            began = time.perf_counter()
            run()
            if number >= 0:
                taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in taken.items()}


def thread_environment(threads: int) -> dict[str, str]:
    """Environment of a child process whose numerical libraries use this many threads."""
    return os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))


def peak_memory(run: Callable[[], object]) -> float:
    """MiB that this process needs at the peak of a run beyond what it had before."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    """A figure of this process in KiB, as Linux knows it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def print_row(cells: Iterable[object]) -> None:
    """One line of a Markdown table."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def print_head(names: Sequence[str]) -> None:
    print_row(names)
    print("|" + "---|" * len(names), flush=True)


def ratio_line(what: str, peer: str, ours: float, theirs: float) -> str:
    """The line that compares what masr (``ours``) and the peer took, seconds or errors: above 1, masr took less."""
    return f"ratio {what} {peer} {theirs / ours:.2f}"
