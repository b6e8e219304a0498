"""Training in several processes of one machine, and processes that end with the one that started them.

Standard library alone at the top, so that ``masr --help`` stays instant; `run_ranks` imports torch.
"""

import json
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

PARENT_SECONDS = 0.5
"""How often a process looks whether its parent is still alive."""
LAUNCHER = "MASR_LAUNCHER"
"""Environment variable: the process that started this rank, which says what went wrong for all of them."""
RECIPE = "MASR_RECIPE"
"""Environment variable: the run.sh that started masr."""
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
"""Environment variable by which torch names the file that a failing rank leaves."""


def end_with_parent() -> None:
    """Ends this process soon after its parent has ended, even by kill -9, so that nothing goes on writing unseen.

    For processes that only work for their parent: ranks of a training, workers of a pool, loaders of batches. Linux
    could send a signal instead (PR_SET_PDEATHSIG), but it also does so when only the parent's thread has ended.
    A thread of a pool (as tests use them) is no process of its own: nothing happens.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    parent, started_by = os.getppid(), multiprocessing.parent_process()

    def watch() -> None:
        # A worker may take seconds to come this far, by when its parent may have ended: that is what started_by knows.
        while os.getppid() == parent and (started_by is None or started_by.is_alive()):
            time.sleep(PARENT_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()


def end_with_recipe() -> None:
    """Ends masr with the run.sh that started it, if one did."""
    if os.environ.get(RECIPE) == str(os.getppid()):
        end_with_parent()


def is_rank() -> bool:
    """Whether a launcher (`run_ranks`, torchrun) started this process as one of several."""
    return "LOCAL_RANK" in os.environ


def run_ranks(arguments: Sequence[str], number: int) -> None:
    """Runs ``masr <arguments>`` in ``number`` processes that train together, by torchrun's own launcher.

    SystemExit when they fail, after the reason has been printed once: the message of the process that failed first, or
    its traceback if that was a bug. Its status is 1, or 128 + the signal that ended a process or the launcher.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    _silence_launcher()
    os.environ[LAUNCHER] = str(os.getpid())
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the cores are for the processes
    with tempfile.TemporaryDirectory(prefix="masr-") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=number,
            run_id=f"masr-{os.getpid()}",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            signals_to_handle=",".join(_wanted_signals()),
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, sys.executable)("-m", "masr.cli", *arguments)
        except ChildFailedError as error:
            failures = [Failure.read(failure) for failure in error.failures.values()]
            cause = min(failures, key=Failure.order)
            print(cause.describe(number), file=sys.stderr)
            sys.exit(cause.status())
        except SignalException as error:
            print(f"masr: training was stopped ({error.sigval.name})", file=sys.stderr)
            sys.exit(128 + error.sigval)


def _wanted_signals() -> list[str]:
    """Signals that end training; not those that whoever started masr has it ignore, as nohup does."""
    names = ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"]
    return [name for name in names if signal.getsignal(signal.Signals[name]) != signal.SIG_IGN]


def _silence_launcher() -> None:
    """Its own report of a failure is a hundred lines long."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def run_as_rank(main: Callable[[], None]) -> None:
    """Runs ``main``; in a process of `run_ranks`, why it ended is left to the launcher, which says it once for all."""
    launcher = os.environ.get(LAUNCHER)
    if launcher is None or not is_rank():
        main()
        return
    if os.getppid() != int(launcher):  # it ended before this process could look
        sys.exit(1)
    try:
        main()
    except SystemExit as end:
        if not isinstance(end.code, str):
            raise
        _leave_word(end.code, is_bug=False)
        sys.exit(1)
    except BaseException:
        _leave_word(traceback.format_exc().rstrip(), is_bug=True)
        sys.exit(1)


def _leave_word(message: str, is_bug: bool) -> None:
    """Writes the file that the launcher reads when this process has ended; as torch wants it, and ours beside that."""
    now = time.time()
    word = {"message": message, "timestamp": int(now), "time": now, "is_bug": is_bug}
    with open(os.environ[ERROR_FILE], "w", encoding="utf-8") as file:
        json.dump(word, file)


@dataclass
class Failure:
    """How one process of several ended."""

    rank: int
    exit_code: int
    """Negative: the signal that ended it."""
    message: str | None = None
    """What it would have printed, had it been alone."""
    is_bug: bool = False
    time: float = 0.0

    @classmethod
    def read(cls, found: Any) -> "Failure":
        """Of torch's ``ProcessFailure``."""
        word = found.error_file_data
        if "time" not in word:
            return cls(found.local_rank, found.exitcode)
        return cls(found.local_rank, found.exitcode, word["message"], word["is_bug"], word["time"])

    def order(self) -> tuple[int, float]:
        """The lowest one is the cause: the others then lost their connection, or were ended by the launcher."""
        if self.exit_code == -signal.SIGKILL:  # which the launcher does not send to who ends by SIGTERM
            return 0, self.time
        if self.message is not None and not self.is_bug:
            return 1, self.time
        if self.exit_code < 0 and self.exit_code != -signal.SIGTERM:
            return 2, self.time
        if self.message is not None:
            return 3, self.time
        return (5 if self.exit_code == -signal.SIGTERM else 4), self.time

    def describe(self, number: int) -> str:
        """What the user reads."""
        if self.message is not None:
            return self.message
        process = f"masr: process {self.rank + 1} of {number}"
        resume = "the same command goes on from the newest checkpoint"
        if self.exit_code == -signal.SIGKILL:
            return (
                f"{process} was killed (SIGKILL), as the system does when memory runs out: use fewer processes or a "
                f"lower data.device_seconds; {resume}"
            )
        if self.exit_code < 0:
            return f"{process} was ended by {signal.Signals(-self.exit_code).name}; {resume}"
        return f"{process} ended with status {self.exit_code}"

    def status(self) -> int:
        """What the launcher exits with, as a shell counts; 1 for who left a message and was ended while it left."""
        if self.message is not None:
            return 1
        return 128 - self.exit_code if self.exit_code < 0 else self.exit_code
