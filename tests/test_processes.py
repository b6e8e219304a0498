"""Several processes: one reason when they fail, and none that outlives who started it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

MASR = [sys.executable, "-m", "masr.cli"]
CUSTOM = "import os\nexec(os.environ.get('CUSTOM', ''))\n"
RANK = """
import sys, types
stage = types.ModuleType("masr.stages.train")
def run(config, force):
    rank = int(os.environ["RANK"])
    {body}
stage.run = run
sys.modules["masr.stages.train"] = stage
"""
USER_ERROR = "from masr.config_files import load_config\nload_config('x.yaml', ['x'])"
SLEEPING_WORKER = """
import sys
if "--multiprocessing-fork" in sys.orig_argv:
    import time
    import masr.stages.features
    def sleep(task):
        open("asleep", "w")
        time.sleep(600)
    masr.stages.features._extract_task = sleep
"""
Start = Callable[..., subprocess.Popen]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """``start("train", ..., custom=code)``: masr in ``tmp_path``, with what Python is to do first in every process."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(CUSTOM)
    started = []

    def masr(*arguments: str, custom: str = "") -> subprocess.Popen:
        path = f"{tmp_path}/site:{os.environ.get('PYTHONPATH', '')}"
        process = subprocess.Popen(
            [*MASR, *arguments],
            env=os.environ | {"PYTHONPATH": path, "CUSTOM": custom, "OMP_NUM_THREADS": "1"},
            cwd=tmp_path,
            text=True,
            stdout=(tmp_path / "stdout").open("w"),
            stderr=(tmp_path / "stderr").open("w"),
        )
        started.append(process)
        return process

    yield masr
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def fail(start: Start, tmp_path: Path) -> Callable[[str], tuple[int, str, str]]:
    """Status, output and errors of a training in two processes in which each does ``body``."""

    def run(body: str) -> tuple[int, str, str]:
        (tmp_path / "x.yaml").write_text("")
        code = RANK.format(body=body.replace("\n", "\n    "))
        status = start("train", "x.yaml", "--nproc", "2", custom=code).wait(timeout=120)
        return status, (tmp_path / "stdout").read_text(), (tmp_path / "stderr").read_text()

    return run


def test_an_error_of_all_processes_is_said_once(fail):
    status, output, errors = fail(USER_ERROR)
    assert (status, output) == (1, "")
    assert errors == "masr: command line: 'x' is not an override; write section.key=value\n"


def test_the_process_that_failed_first_gives_the_reason(fail):
    """The other one, which only waits for it, is ended and says nothing."""
    status, _, errors = fail(f"import time\ntime.sleep(60 * (rank == 0))\n{USER_ERROR}")
    assert status == 1
    assert errors == "masr: command line: 'x' is not an override; write section.key=value\n"


def test_a_bug_shows_the_traceback_of_the_process_that_has_it(fail):
    status, _, errors = fail("import time\ntime.sleep(60 * (rank == 0))\n{}['of masr']")
    assert status == 1
    assert errors.startswith("Traceback") and errors.endswith("KeyError: 'of masr'\n")
    assert errors.count("Traceback") == 1 and "torch" not in errors


def test_a_process_that_was_killed_is_one_line(fail):
    """As when memory runs out; that the others then lose their connection is no news."""
    killed = "import time, signal\nif rank: os.kill(os.getpid(), signal.SIGKILL)\n"
    body = f"{killed}time.sleep(2)\nraise RuntimeError('lost rank 1')"
    status, _, errors = fail(body)
    assert status == 128 + signal.SIGKILL
    assert errors.startswith("masr: process 2 of 2 was killed (SIGKILL), as the system does when memory runs out")
    assert errors.count("\n") == 1


def test_a_crash_names_its_signal(fail):
    status, _, errors = fail("import time, signal\nif rank: os.kill(os.getpid(), signal.SIGSEGV)\ntime.sleep(60)")
    assert status == 128 + signal.SIGSEGV
    assert errors.startswith("masr: process 2 of 2 was ended by SIGSEGV") and errors.count("\n") == 1


def descendants(process: subprocess.Popen, number: int, seconds: float = 60) -> list[psutil.Process]:
    """All processes below one, once there are at least ``number``."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = psutil.Process(process.pid).children(recursive=True)
        if len(found) >= number:
            return found
        time.sleep(0.2)
    raise AssertionError(f"{len(found)} processes, expected {number}")


def wait_for(path: Path, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path} does not come"
        time.sleep(0.1)


def running(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended, whether or not someone has taken note of it."""
    left = []
    for process in processes:
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                left.append(process)
        except psutil.NoSuchProcess:
            continue
    return left


def assert_gone(processes: list[psutil.Process], seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while running(processes) and time.monotonic() < until:
        time.sleep(0.1)
    left = running(processes)
    for process in left:
        process.kill()
    assert not left


def test_processes_of_a_training_end_with_their_launcher(start, prepared, tmp_path):
    """Those that load batches, too."""
    options = ["train.updates=100000", "train.validate_every=100000", "data.workers=1"]
    launcher = start("train", str(prepared.conf), *options, "--nproc", "2")
    wait_for(tmp_path / "exp/tiny/log.jsonl")
    found = descendants(launcher, 4)
    launcher.kill()
    launcher.wait()
    assert_gone(found)
    size = (tmp_path / "exp/tiny/log.jsonl").stat().st_size
    time.sleep(1)
    assert (tmp_path / "exp/tiny/log.jsonl").stat().st_size == size


@pytest.mark.parametrize("when", ["at work", "starting"])
def test_workers_of_stage_1_end_with_it(start, prepared, tmp_path, when):
    stage = start("prepare", str(prepared.conf), f"data_dir={tmp_path}/data")
    assert stage.wait(timeout=120) == 0
    stage = start("features", str(prepared.conf), f"data_dir={tmp_path}/data", custom=SLEEPING_WORKER)
    found = descendants(stage, 2)  # one tracks the resources that they share
    if when == "at work":
        wait_for(tmp_path / "asleep")
    stage.kill()
    stage.wait()
    assert_gone(found, 30)
