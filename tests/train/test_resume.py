"""Resume is exact: a run that is killed and started again is, bit for bit, the run that was never killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

# Checkpoints at 4, 8 and 12 of 12 updates, between two lines of the log and across the end of an epoch (at 9).
OPTIONS = [
    "train.updates=12", "train.validate_every=4", "train.log_every=3", "data.language_temperature=2",
    "model.ctc.intermediate_layers=[1]", "model.language_classifier.weight=0.2",
    "model.attention_decoder={weight: 0.3, layers: 1, width: 16, heads: 2, feedforward: 16, dropout: 0.1}",
]  # fmt: skip

# `masr train`, which kills itself as `kill -9` would: in the middle of an epoch, or while it writes a checkpoint.
KILLED = """
import os, signal, torch
from masr.cli import main
from masr.train.trainer import Trainer

train, save = Trainer._train, torch.save

def killed_in_update_7(self, update):
    if self.progress["update"] == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    train(self, update)

def killed_in_checkpoint_8(value, path):
    save(value, path)
    if "step-00000008.partial" in str(path):
        os.kill(os.getpid(), signal.SIGKILL)

if WHERE == "update":
    Trainer._train = killed_in_update_7
else:
    torch.save = killed_in_checkpoint_8
main()
"""


def run(folder: Path, program: list[str], conf: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """`masr train`, whose output goes to a file that a killed process's orphans cannot hold open."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, *program, "train", str(conf), *OPTIONS, *options]
    with (folder / "output.txt").open("w") as output:
        one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=folder, env=one_thread, stdout=output, stderr=subprocess.STDOUT, timeout=600)
    return subprocess.CompletedProcess(command, done.returncode, (folder / "output.txt").read_text())


def log_of(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "exp/tiny/log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "audio_seconds_per_second"} for line in lines]


def assert_same_run(folder: Path, expected: Path) -> None:
    assert log_of(folder) == log_of(expected)
    for name in ("averaged.safetensors", "checkpoints/step-00000012/model.safetensors"):
        found, weights = load_file(folder / "exp/tiny" / name), load_file(expected / "exp/tiny" / name)
        assert found.keys() == weights.keys()
        assert all(found[key].equal(tensor) for key, tensor in weights.items()), name
    records = [json.loads((f / "exp/tiny/training.json").read_text()) for f in (folder, expected)]
    for record in records:
        del record["train_seconds"], record["logged_seconds"]
    assert records[0] == records[1]


@pytest.fixture(scope="module")
def straight(prepared, tmp_path_factory) -> Path:
    """The run that is not killed."""
    folder = tmp_path_factory.mktemp("straight")
    done = run(folder, ["-m", "masr.cli"], prepared.conf, "data.workers=0")
    assert done.returncode == 0, done.stdout
    assert [line["update"] for line in log_of(folder)] == [3, 4, 6, 8, 9, 12, 12]
    assert {line["epoch"] for line in log_of(folder) if line["kind"] == "train"} == {0, 1}
    return folder


@pytest.mark.parametrize(("where", "workers"), [("update", 0), ("checkpoint", 1)])
def test_killed_run_goes_on_exactly(prepared, straight, tmp_path, where, workers):
    folder, options = tmp_path / "killed", [f"data.workers={workers}"]
    killed = run(folder, ["-c", KILLED.replace("WHERE", repr(where))], prepared.conf, *options)
    assert killed.returncode == -signal.SIGKILL, killed.stdout
    checkpoints = sorted(path.name for path in (folder / "exp/tiny/checkpoints").iterdir())
    partial = ["step-00000008.partial"] if where == "checkpoint" else []
    assert checkpoints == ["step-00000004", *partial]
    assert log_of(folder)[-1]["update"] == (8 if where == "checkpoint" else 6)
    assert not (folder / "exp/tiny/complete.json").exists()

    resumed = run(folder, ["-m", "masr.cli"], prepared.conf, *options)
    assert resumed.returncode == 0, resumed.stdout
    assert "going on from update 4" in resumed.stdout
    assert_same_run(folder, straight)
