"""A stage runs once: complete output is left alone, other output of masr is redone, what is not masr's is refused."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from masr.config_files import ConfigError
from masr.files import file_hash
from masr.locks import FolderBusy, locked
from masr.stages.output import SEAL, UNFINISHED, StageOutput, seal_of

SPEEDS = {"features": {"speeds": [0.9, 1.0]}}


def output_of(folder: Path, options: dict = SPEEDS, inputs: dict | None = None) -> StageOutput:
    return StageOutput("features", folder, options, inputs if inputs is not None else {"audio": "a"})


def write(output: StageOutput, force: bool = False, clear: bool = True) -> bool:
    """Whether there was work to do; the work is two files, one of them in a subfolder."""
    with output.writing(force, clear) as needed:
        if needed:
            (output.folder / "train").mkdir(exist_ok=True)
            (output.folder / "train/00000.lca").write_bytes(b"features")
            (output.folder / "statistics.json").write_text("{}")
    return needed


@pytest.fixture
def sealed(tmp_path: Path) -> StageOutput:
    """A complete folder."""
    output = output_of(tmp_path / "out")
    assert write(output)
    return output


def test_a_complete_folder_is_left_alone_and_said_to_be(sealed, capsys):
    assert not write(output_of(sealed.folder, {"features": {"speeds": (0.9, 1.0)}}))
    assert f"features: complete in {sealed.folder} (--force redoes it)" in capsys.readouterr().out
    assert not (sealed.folder / UNFINISHED).exists()


@pytest.mark.parametrize("inputs", [{"audio": "b"}, {}, {"audio": "a", "more": 1}])
def test_other_inputs_redo_it_from_an_empty_folder(sealed, inputs, capsys):
    (sealed.folder / "left").touch()
    assert write(output_of(sealed.folder, inputs=inputs))
    assert not (sealed.folder / "left").exists()
    assert f"features: makes {sealed.folder} again (changed: " in capsys.readouterr().out


@pytest.mark.parametrize("options", [{"features": {"speeds": [1.0]}}, {"features": {"speeds": [0.9, 1.0], "bins": 4}}])
def test_other_options_are_refused_and_nothing_is_touched(sealed, options, snapshot):
    before = snapshot(sealed.folder)
    with pytest.raises(ConfigError, match=r"out was made with other options; changed: features\..*--force"):
        write(output_of(sealed.folder, options))
    assert snapshot(sealed.folder) == before
    assert write(output_of(sealed.folder, options), force=True)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("names", [["thesis.txt"], ["a/b.wav"], ["train.jsonl.gz", "config.yaml"]])
def test_what_masr_did_not_make_is_never_removed(tmp_path, force, names, snapshot):
    for name in names:
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text("mine")
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match="holds files that masr did not write .*: nothing was touched. Move them"):
        write(output_of(tmp_path / "out"), force)
    assert snapshot(tmp_path) == before


def test_a_folder_that_is_there_and_empty_is_used(tmp_path):
    (tmp_path / "out").mkdir()
    assert write(output_of(tmp_path / "out"))


def test_a_half_written_folder_is_marked_and_redone(tmp_path):
    output = output_of(tmp_path / "out")
    with pytest.raises(KeyError), output.writing():
        (output.folder / "half").touch()
        raise KeyError
    assert (output.folder / UNFINISHED).exists() and not output.is_complete()
    assert write(output_of(tmp_path / "out", {"features": {"speeds": [2.0]}})), "nothing complete is lost"
    assert not (output.folder / "half").exists()


def test_a_copied_folder_is_read_once_and_then_known_by_its_times(sealed, tmp_path, monkeypatch):
    shutil.copytree(sealed.folder, tmp_path / "copy", copy_function=shutil.copyfile)
    os.utime(tmp_path / "copy/statistics.json", (1, 1))
    assert output_of(tmp_path / "copy").is_complete()
    monkeypatch.setattr("masr.stages.output.file_hash", lambda path: pytest.fail(f"{path} was read"))
    assert output_of(tmp_path / "copy").is_complete()


def test_a_flipped_bit_that_left_size_and_time_alone_is_found_by_verify(sealed):
    file = sealed.folder / "train/00000.lca"
    state = file.stat()
    file.write_bytes(b"featurez")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert sealed.is_complete() and not sealed.is_complete(verify=True)


def test_the_second_of_two_runs_ends_with_a_line_that_names_the_first(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from masr.locks import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('in', flush=True); time.sleep(60)"
    )
    first = subprocess.Popen([sys.executable, "-c", code, tmp_path / "out"], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout is not None and first.stdout.readline() == "in\n"
        with pytest.raises(FolderBusy, match=rf"out is being written by process {first.pid} on .*: wait for it"):
            write(output_of(tmp_path / "out"))
        assert not (tmp_path / "out").exists()
    finally:
        first.kill()
        first.wait()
    began = time.monotonic()
    assert write(output_of(tmp_path / "out")) and time.monotonic() - began < 10, "a killed run holds nothing"


def test_a_forked_worker_keeps_no_lock_of_a_run_that_was_killed(tmp_path):
    """As those that load batches outlive ``kill -9`` by a moment."""
    code = (
        "import os, sys, time; from pathlib import Path; from masr.locks import locked\n"
        "with locked(Path(sys.argv[1])):\n"
        "    if os.fork() == 0:\n        print(os.getpid(), flush=True); time.sleep(60)\n    time.sleep(60)"
    )
    run = subprocess.Popen([sys.executable, "-c", code, tmp_path / "out"], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    worker = int(run.stdout.readline())
    try:
        with pytest.raises(FolderBusy):
            write(output_of(tmp_path / "out"))
        run.kill()
        run.wait()
        assert write(output_of(tmp_path / "out"))
    finally:
        os.kill(worker, signal.SIGKILL)


def test_what_another_run_finished_meanwhile_is_not_made_again(tmp_path, monkeypatch):
    """Both found the folder incomplete; the second one gets the lock when the first has sealed it."""
    assert write(output_of(tmp_path / "out"))
    (tmp_path / "out/stray").touch()
    second, look = output_of(tmp_path / "out"), StageOutput.is_complete
    seen_before_the_lock = [False]

    def is_complete(verify: bool = False) -> bool:
        return seen_before_the_lock.pop() if seen_before_the_lock else look(second, verify)

    monkeypatch.setattr(second, "is_complete", is_complete)
    assert not write(second)
    assert (tmp_path / "out/stray").exists()


def test_a_lock_leaves_nothing_behind_and_can_be_taken_again(tmp_path):
    for _ in range(2):
        with locked(tmp_path / "out"):
            assert [path.name for path in tmp_path.iterdir()] == [".out.lock"]
        assert list(tmp_path.iterdir()) == []


def test_when_a_compressed_file_was_written_is_nothing_that_counts(tmp_path):
    hashes = set()
    for when in (1, 2):
        (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"the same", mtime=when))
        hashes.add(file_hash(tmp_path / "a.jsonl.gz"))
    assert len(hashes) == 1


@pytest.mark.parametrize(
    "damaged",
    [b"", b"nonsense", gzip.compress(b"x" * 99, mtime=1)[:-9], b"\x1f\x8b" + bytes(30)],
    ids=["empty", "not gzip", "cut off", "nonsense after the magic number"],
)
def test_a_damaged_compressed_file_is_redone(tmp_path, damaged):
    output = output_of(tmp_path / "out")
    with output.writing():
        (output.folder / "a.jsonl.gz").write_bytes(gzip.compress(b"the same"))
    assert output.is_complete()
    (output.folder / "a.jsonl.gz").write_bytes(damaged)
    assert not output.is_complete()


def test_force_redoes_it(sealed):
    (sealed.folder / "left").touch()
    assert write(sealed, force=True)
    assert not (sealed.folder / "left").exists()


@pytest.mark.parametrize("damage", ["changed", "missing", "broken seal", "empty seal", "a list for a seal"])
def test_a_folder_that_is_not_as_it_was_written_is_redone(sealed, damage):
    match damage:
        case "changed":
            (sealed.folder / "train/00000.lca").write_bytes(b"Features")
        case "missing":
            (sealed.folder / "statistics.json").unlink()
        case "broken seal":
            (sealed.folder / SEAL).write_text((sealed.folder / SEAL).read_text()[:-9])
        case "empty seal":
            (sealed.folder / SEAL).write_text("{}")
        case "a list for a seal":
            (sealed.folder / SEAL).write_text("[]")
    assert not sealed.is_complete()
    assert write(sealed)
    assert sealed.is_complete()


def test_without_clearing_only_the_seal_goes(sealed):
    with pytest.raises(KeyError), sealed.writing(force=True, clear=False):
        assert (sealed.folder / "statistics.json").exists()
        assert not (sealed.folder / SEAL).exists()
        raise KeyError


def test_it_is_not_complete_before_it_is_sealed(tmp_path):
    output = StageOutput("vocab", tmp_path / "deep/out")
    with output.writing():
        assert not output.is_complete()
        with pytest.raises(FileNotFoundError, match=r"deep/out is not complete: run `masr vocab`"):
            seal_of(output.folder, "vocab")


def test_sealing_some_files_ignores_changes_of_the_others(tmp_path):
    output = StageOutput("train", tmp_path / "out")
    output.files = "*.safetensors"
    with output.writing():
        (output.folder / "averaged.safetensors").write_text("weights")
        (output.folder / "log.jsonl").write_text("a line")
    (output.folder / "log.jsonl").write_text("two lines")
    assert output.is_complete()
    (output.folder / "averaged.safetensors").write_text("others")
    assert not output.is_complete()


def test_the_seal_of_a_folder_changes_with_what_others_read_of_it(tmp_path):
    seals = []
    for place, content, picture in (("a", "{}", "x"), ("b", "{}", "y"), ("c", "[]", "x")):
        output = output_of(tmp_path / place)
        with output.writing():
            (output.folder / "statistics.json").write_text(content)
            (output.folder / "tree.svg").write_text(picture)
        seals.append(seal_of(output.folder, "features"))
    assert seals[0] == seals[1] != seals[2]
    assert json.loads((tmp_path / "a" / SEAL).read_text())["files"].keys() == {"statistics.json", "tree.svg"}
