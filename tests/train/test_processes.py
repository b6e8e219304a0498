"""Without dropout the number of processes and micro-batches changes nothing: updates are the same, and their losses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from masr.data.sampling import EpochPlan
from masr.stages import train
from masr.stages.features import load_cuts

# Updates of one or two recordings, so that a second process sometimes has nothing to do; SpecAugment stays on.
OPTIONS = [
    "data.batch_seconds=2.4", "train.updates=10", "train.validate_every=5", "model.encoder.dropout=0.0",
    "model.ctc.intermediate_layers=[1]", "model.language_classifier.weight=0.2", "data.prompts.all=0.3",
    "model.encoder.language_adapters={layers: [1, 2], bottleneck: 4, decoder: true}",
    "model.attention_decoder={weight: 0.3, layers: 1, width: 16, heads: 2, feedforward: 16, dropout: 0.0}",
]  # fmt: skip


def log_of(folder: Path) -> list[dict[str, float]]:
    """Every line's numbers, without the speed."""
    rows = [json.loads(line) for line in (folder / "exp/tiny/log.jsonl").read_text().splitlines()]
    left_out = {"kind", "audio_seconds_per_second"}
    return [{key: value for key, value in row.items() if key not in left_out} for row in rows]


def assert_same_losses(folder: Path, expected: Path) -> None:
    assert log_of(folder) == [pytest.approx(line, rel=1e-4, abs=1e-9) for line in log_of(expected)]
    weights = load_file(folder / "exp/tiny/averaged.safetensors")
    for name, tensor in load_file(expected / "exp/tiny/averaged.safetensors").items():
        if not name.endswith("key.bias"):  # which has no true gradient, so that Adam follows rounding errors
            assert torch.allclose(weights[name], tensor, atol=1e-4), name


@pytest.fixture
def alone(prepared, tmp_path, monkeypatch) -> Path:
    """A run in one process, with one batch an update."""
    folder = tmp_path / "alone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    train.run(prepared.config(*OPTIONS))
    return folder


def test_two_processes_are_as_one(prepared, alone, tmp_path):
    config = prepared.config(*OPTIONS)
    sizes = [len(update) for update in EpochPlan(load_cuts(config, "train"), config.data, config.seed).updates(0)]
    assert {1, 2} <= set(sizes[:10])
    folder = tmp_path / "two"
    folder.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "masr.cli"]
    done = subprocess.run(
        [*command, "train", str(prepared.conf), *OPTIONS], cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert json.loads((folder / "exp/tiny/environment.json").read_text())["processes"] == 2
    assert_same_losses(folder, alone)
    assert (folder / "exp/tiny/complete.json").exists()
    assert sorted(path.name for path in (folder / "exp/tiny/checkpoints/step-00000010").glob("random-*")) == [
        "random-0.pt", "random-1.pt",
    ]  # fmt: skip


def test_micro_batches_are_as_one_batch(prepared, alone, tmp_path, monkeypatch):
    folder = tmp_path / "micro"
    folder.mkdir()
    monkeypatch.chdir(folder)
    train.run(prepared.config(*OPTIONS, "data.device_seconds=1.0"))  # every recording on its own
    assert_same_losses(folder, alone)
