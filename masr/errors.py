"""What a user can cause ends in one line that says where and how to mend it; a bug of masr keeps its traceback."""

import dis
import errno
import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from masr.progress import LINES, printable

EXTRAS = {"av": "audio", "peft": "whisper", "transformers": "whisper", "tokenizers": "whisper", "torchjd": "soup"}
"""Packages that not everybody needs, and what installs them."""
WAYS_OUT = {
    errno.ENOSPC: "free space and run the same command again",
    errno.EDQUOT: "free space and run the same command again",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f) and run the same command again",
    errno.EROFS: "choose another folder, or make it writable",
    errno.EACCES: "change its permissions, or choose another one",
    errno.EPERM: "change its permissions, or choose another one",
    errno.EMFILE: "raise the number of open files (ulimit -n), or use fewer processes",
    errno.ENFILE: "close other programs, or use fewer processes",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: "the disk, or the network that leads to it, is broken",
}
"""What helps where the system refuses something."""
KILLED_LOADER = re.compile(r"DataLoader worker \(pid(\(s\))? [\d, ]+\) (is killed by signal|exited unexpectedly)")
OUT_OF_MEMORY = re.compile(r"not enough memory|can't allocate memory|out of memory", re.IGNORECASE)
PERHAPS = "perhaps as memory ran out: use fewer processes ({}) and run the same command again"
LESS_MEMORY = "use smaller batches (data.device_seconds, decode.batch_seconds) or fewer processes"


@contextmanager
def one_line() -> Iterator[None]:
    """Ends the program with one line for what `explain` can explain."""
    try:
        yield
    except KeyboardInterrupt:
        print("masr: interrupted; a stage goes on with the same command", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        sys.exit(f"masr: {printable(line, LINES)}")


@contextmanager
def starting_processes() -> Iterator[None]:
    """What is started here leaves an interrupt to this process, which says one line for all."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def explain(error: BaseException) -> str | None:
    """What a user is told of an error; None for a bug."""
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        return f"this needs {error.name}: pip install masr[{EXTRAS[error.name]}]"
    if type(error).__name__ == "ValidationError" and hasattr(error, "errors"):  # of options that no file holds
        return "; ".join(_wrong_option(detail) for detail in error.errors())
    if isinstance(error, EOFError):
        return f"a file ends too early ({_first_line(error)}); make it again"
    if _is_raised_by_masr(error):
        return str(error)
    if isinstance(error, shutil.Error):
        return _first_line(error)
    if isinstance(error, OSError) and error.errno not in (None, errno.EPIPE):
        return _refused(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(str(error))):
        return f"out of memory: {LESS_MEMORY} ({_first_line(error)})"
    if type(error).__name__ == "BrokenProcessPool":
        return f"a process was killed, {PERHAPS.format('features.jobs')}"
    if isinstance(error, RuntimeError) and KILLED_LOADER.match(str(error)):
        return f"{_first_line(error)}, {PERHAPS.format('data.workers')}"
    return None


def _wrong_option(detail: dict[str, Any]) -> str:
    """``methods.0: Input should be ..., found 'nope'`` of an error of pydantic."""
    return f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}, found {str(detail['input'])[:100]!r}"


def _refused(error: OSError) -> str:
    """What the system refused, for which file, and what helps."""
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes | os.PathLike) else ""
    way_out = WAYS_OUT.get(error.errno or 0, "")
    problem = ": ".join(part for part in (name, error.strerror or str(error)) if part)
    return "; ".join(part for part in (problem, way_out) if part)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].rstrip(". ")[:200] or type(error).__name__


def _is_raised_by_masr(error: BaseException) -> bool:
    """Whether a ``raise`` of masr made this error, for the user; one that comes out of an expression is a bug."""
    if not isinstance(error, ValueError | OSError | RuntimeError | MemoryError):
        return False
    innermost = _traces(error)[-1:]
    if not innermost or not _is_ours(innermost[0]):
        return False
    code = innermost[0].tb_frame.f_code.co_code
    return dis.opname[code[innermost[0].tb_lasti]] == "RAISE_VARARGS"


def _is_ours(trace: TracebackType) -> bool:
    module = str(trace.tb_frame.f_globals.get("__name__", ""))
    return module.split(".")[0] in ("masr", "__main__")  # the second of ``python -m masr.cli``


def _traces(error: BaseException) -> list[TracebackType]:
    """From the outermost function to the one that failed."""
    traces, trace = [], error.__traceback__
    while trace is not None:
        traces.append(trace)
        trace = trace.tb_next
    return traces
