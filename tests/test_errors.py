"""Errors: one line for what a user can cause, a traceback for a bug."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from masr import cli
from masr.errors import explain

MASR = [sys.executable, "-m", "masr.cli"]


def raised(function, *arguments) -> BaseException:
    with pytest.raises(BaseException) as caught:
        function(*arguments)
    return caught.value


def in_masr(code: str):
    """A function that belongs to a module of masr."""
    names: dict = {"__name__": "masr.some", "Path": Path}
    exec(f"def run():\n    {code}", names)
    return names["run"]


@pytest.mark.parametrize(
    "code",
    [
        "raise ValueError('mend it')",
        "raise OSError('mend it')",
        "raise RuntimeError('mend it')",
        "raise MemoryError('mend it')",
    ],
)
def test_what_masr_raises_is_for_the_user(code):
    assert explain(raised(in_masr(code))) == "mend it"


@pytest.mark.parametrize(
    "code",
    [
        "int('x')", "[][1]", "{}['a']", "None.x", "1 / 0", "raise KeyError('a')", "raise TypeError('a')",
        "assert False",
        "float('x')", "b'\\xff'.decode()", "import nothing_like_this", "[].remove(1)", "next(iter([]))",
        "len(5)",
    ],
)  # fmt: skip
def test_a_bug_keeps_its_traceback(code):
    """Also a ValueError, if no ``raise`` of masr made it."""
    assert explain(raised(in_masr(code))) is None


def test_a_bug_in_a_library_keeps_its_traceback():
    assert explain(raised(json.loads, "{")) is None
    assert explain(raised(lambda: os.fspath(5))) is None


def test_what_the_system_refuses_names_the_file_and_what_helps(tmp_path):
    (tmp_path / "file").write_text("")
    assert (
        explain(raised(in_masr(f"Path({str(tmp_path / 'file' / 'x')!r}).mkdir()")))
        == f"{tmp_path}/file/x: Not a directory"
    )
    assert explain(raised(in_masr(f"open({str(tmp_path)!r})"))) == f"{tmp_path}: Is a directory"
    assert explain(raised((tmp_path / "none").read_text)) == f"{tmp_path}/none: No such file or directory"
    assert "shorter name" in explain(raised((tmp_path / ("x" * 300)).mkdir))
    for number in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EMFILE, errno.EDQUOT, errno.EIO):
        line = explain(OSError(number, os.strerror(number), "exp/a"))
        assert line.startswith(f"exp/a: {os.strerror(number)}; ")


def test_a_file_that_the_system_does_not_name_is_no_bug():
    assert explain(OSError(errno.ENOSPC, "No space left on device")).startswith("No space left on device; free space")
    assert explain(shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")])).count("No space left") == 1


def test_a_pipe_that_nobody_reads_is_no_error_of_masr():
    assert explain(BrokenPipeError(errno.EPIPE, "Broken pipe")) is None


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_explained():
    with ProcessPoolExecutor(1) as pool:
        error = raised(pool.submit(_die).result)
    assert "features.jobs" in explain(error)
    for text in (
        "DataLoader worker (pid 12) is killed by signal: Killed. ",
        "DataLoader worker (pid(s) 12, 13) exited unexpectedly",
    ):
        line = explain(RuntimeError(text))
        assert line.startswith(text.rstrip(". ")) and "data.workers" in line


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB.\nmore"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    ],
)
def test_memory_that_ran_out_is_explained(error):
    line = explain(error)
    assert line.startswith("out of memory: ") and "device_seconds" in line and "\n" not in line


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (KeyboardInterrupt(), 130, "masr: interrupted; a stage goes on with the same command"),
        (EOFError("Compressed file ended"), 1, "masr: a file ends too early (Compressed file ended); make it again"),
        (
            OSError(errno.ENOSPC, "No space left on device", "exp/\x1b[31m"),
            1,
            r"masr: exp/\x1b[31m: No space left on device;",
        ),
        (ModuleNotFoundError("x", name="peft"), 1, "masr: this needs peft: pip install masr[whisper]"),
    ],
)
def test_the_command_ends_with_one_line(error, status, line, monkeypatch, capsys):
    """typer ends an interrupt in silence and a file that ends too early with ``Aborted!``."""

    def failing(*_):
        raise error

    monkeypatch.setattr("masr.config_files.load_config", failing)
    monkeypatch.setattr(sys, "argv", ["masr", "config", "a.yaml"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    shown = capsys.readouterr().err if isinstance(caught.value.code, int) else f"{caught.value.code}\n"
    assert (caught.value.code if isinstance(caught.value.code, int) else 1) == status
    assert shown.startswith(line) and shown.count("\n") == 1


def test_an_interrupt_of_a_running_stage_is_one_line(prepared, workdir):
    """Sent to all processes of the stage, as a terminal does."""
    command = [*MASR, "features", str(prepared.conf), "data_dir=data", "features.jobs=2"]
    assert subprocess.run([*MASR, "prepare", *command[4:]], capture_output=True).returncode == 0
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, text=True
    )
    deadline = time.monotonic() + 60
    while not (workdir / "data/fbank/train").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)  # its processes are being started
    os.killpg(process.pid, signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode in (130, 0)
    assert "Traceback" not in errors
    if process.returncode:
        assert errors.strip().splitlines()[-1] == "masr: interrupted; a stage goes on with the same command"


def _small_files_only() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))


@pytest.mark.parametrize("verb", ["prepare", "features", "vocab"])
def test_a_stage_that_cannot_write_ends_with_one_line(verb, prepared, workdir):
    """A limit of a file's size stands for a full disk."""
    options = [str(prepared.conf), "data_dir=data", "features.jobs=1", "features.speed_perturbation=[1.0]"]
    for stage in ["prepare"] * (verb != "prepare"):
        assert subprocess.run([*MASR, stage, *options], capture_output=True).returncode == 0
    result = subprocess.run([*MASR, verb, *options], capture_output=True, text=True, preexec_fn=_small_files_only)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert result.stderr.startswith("masr: ") and result.stderr.count("\n") == 1
    assert "data/" in result.stderr and "File too large; raise the limit" in result.stderr


def test_letters_that_a_terminal_lacks_are_no_error(tmp_path):
    (tmp_path / "a.yaml").write_text("name: ěščř\n", encoding="utf-8")
    result = subprocess.run(
        [*MASR, "config", "a.yaml"], capture_output=True, cwd=tmp_path, env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    assert result.returncode == 0 and b"name: \\u011b" in result.stdout
