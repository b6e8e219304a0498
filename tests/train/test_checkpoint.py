import errno
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from masr.train import checkpoint as checkpoints
from masr.train.checkpoint import (
    CheckpointError,
    find_checkpoint,
    load_state,
    load_weights,
    random_state,
    save_checkpoint,
    set_random_state,
)

STATE = {
    "progress": {"update": 4, "best_cer": float("inf"), "audio_seconds": 1.5},
    "optimizer": {"state": {0: {"step": torch.tensor(4.0), "exp_avg": torch.arange(3.0)}}, "param_groups": [{"lr": 1}]},
    "meters": [{"ctc/es": [1.0, 2.0]}], "schedule": {"last_epoch": 4}, "scaler": None,
}  # fmt: skip


def weights(value: float = 1.0) -> dict[str, dict[str, torch.Tensor]]:
    tensors = {"a.weight": torch.full((2, 3), value).T, "a.bias": torch.tensor([value, -value])}  # one not contiguous
    return {"model": tensors, "averaged": {name: tensor * 2 for name, tensor in tensors.items()}}


def save(folder: Path, step: int, keep: int = 2, processes: int = 1) -> Path:
    return save_checkpoint(folder, step, weights(step), STATE, [random_state()] * processes, keep)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_roundtrip(tmp_path: Path):
    path = save(tmp_path, 4, processes=2)
    assert path == tmp_path / "step-00000004" == find_checkpoint(tmp_path)
    for name, tensors in weights(4).items():
        loaded = load_weights(path, name)
        assert loaded.keys() == tensors.keys()
        assert all(torch.equal(loaded[key], tensor) for key, tensor in tensors.items())
    state, first = load_state(path, rank=0)
    assert state["progress"] == STATE["progress"] and state["meters"] == STATE["meters"]
    assert torch.equal(state["optimizer"]["state"][0]["exp_avg"], torch.arange(3.0))
    assert first is not None and load_state(path, rank=1)[1] is not None
    assert load_state(path, rank=2)[1] is None  # the run had two processes


def test_random_states_continue_where_they_were(tmp_path: Path):
    def draw() -> list[float]:
        return [random.random(), random.gauss(0, 1), *np.random.randn(3), *torch.randn(3).tolist()]

    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    np.random.randn()  # leaves a second normal number in numpy's state
    path = save(tmp_path, 1)
    expected = draw()
    assert draw() != expected
    set_random_state(load_state(path, 0)[1])
    assert draw() == expected


def test_newest_is_found(tmp_path: Path):
    for step in (9, 10, 100):
        save(tmp_path, step, keep=3)
    assert find_checkpoint(tmp_path) == tmp_path / "step-00000100"


def test_no_checkpoints(tmp_path: Path):
    assert find_checkpoint(tmp_path) is None
    assert find_checkpoint(tmp_path / "missing") is None


@pytest.mark.parametrize("name", ["model.safetensors", "averaged.safetensors", "state.pt", "random-0.pt", "files.json"])
@pytest.mark.parametrize("damage", ["truncated", "changed", "missing"])
def test_damaged_checkpoint_is_passed_over_for_the_older_one(tmp_path: Path, capsys, name, damage):
    older, newer = save(tmp_path, 1), save(tmp_path, 2)
    file = newer / name
    content = file.read_bytes()
    if damage == "truncated":
        file.write_bytes(content[:-7])
    elif damage == "changed":
        file.write_bytes(content.replace(content[-8:-4], b"oops"))
    else:
        file.unlink()
    assert find_checkpoint(tmp_path) == older
    assert f"checkpoint {newer} is" in " ".join(capsys.readouterr().out.split())


def test_only_damaged_checkpoints(tmp_path: Path):
    (save(tmp_path, 1) / "state.pt").write_bytes(b"")
    assert find_checkpoint(tmp_path) is None


def test_unfinished_checkpoint_is_ignored_and_removed(tmp_path: Path):
    done = save(tmp_path, 1)
    partial = tmp_path / "step-00000002.partial"
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"half")
    assert find_checkpoint(tmp_path) == done
    save(tmp_path, 3)
    assert names(tmp_path) == ["step-00000001", "step-00000003"]


@pytest.mark.parametrize(("keep", "expected"), [(1, [5]), (2, [4, 5]), (9, [1, 2, 3, 4, 5])])
def test_newest_are_kept(tmp_path: Path, keep, expected):
    for step in range(1, 6):
        save(tmp_path, step, keep)
    assert names(tmp_path) == [f"step-{step:08}" for step in expected]


def test_same_step_again_replaces_it(tmp_path: Path):
    first = save(tmp_path, 1)
    (first / "state.pt").write_bytes(b"damaged")
    assert save(tmp_path, 1) == find_checkpoint(tmp_path)
    assert names(tmp_path) == ["step-00000001"]


def full_disk(*arguments, **options):
    raise OSError(errno.ENOSPC, "No space left on device")


def wrapped_full_disk(*arguments, **options):
    """What safetensors makes of it."""
    raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    ("owner", "function", "failure"),
    [
        (checkpoints, "save_file", wrapped_full_disk),
        (torch, "save", full_disk),
        (Path, "write_text", full_disk),
        (checkpoints.os, "replace", full_disk),
    ],
)
def test_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch, owner, function, failure):
    last = save(tmp_path, 1)
    before = {path.name: path.read_bytes() for path in last.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(owner, function, failure)
        with pytest.raises(CheckpointError) as raised:
            save(tmp_path, 2)
    message = str(raised.value)
    assert "No space left on device" in message and f"the last complete one is {last}." in message
    assert "step-00000002" in message and "run the same command" in message
    assert names(tmp_path) == ["step-00000001"] and find_checkpoint(tmp_path) == last
    assert {path.name: path.read_bytes() for path in last.iterdir()} == before
    assert save(tmp_path, 2) == find_checkpoint(tmp_path)  # once there is room again


def test_full_disk_before_the_first_checkpoint(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(CheckpointError, match="there is none yet"):
        save(tmp_path, 1)


def test_nothing_is_unpickled_as_code(tmp_path: Path):
    path = save(tmp_path, 1)
    torch.save({"progress": print}, path / "state.pt")
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        load_state(path, 0)


def test_hashes_name_every_file(tmp_path: Path):
    path = save(tmp_path, 1, processes=2)
    assert sorted([*json.loads((path / "files.json").read_text()), "files.json"]) == names(path)
