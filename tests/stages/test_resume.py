"""A run goes on with other options where that makes it no other run, and a damaged result is never used."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

import masr
from masr.config_files import ConfigError, load_config
from masr.data.random import Purpose, generator, seed_of
from masr.files import file_hash
from masr.models.folder import load_model
from masr.stages import decode, train
from masr.train.trainer import Trainer, TrainingFailed

EXPERIMENT = Path("exp/small")
SHORT = ("train.updates=4", "train.validate_every=2", "train.keep_checkpoints=1")


def log_lines(kind: str) -> list[dict]:
    rows = [json.loads(line) for line in (EXPERIMENT / "log.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def flip_a_bit(path: Path, place: int = -9) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.fixture(autouse=True)
def any_precision():
    """A process has one precision, until it forgets it."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def stopped(ready, monkeypatch):
    """A run of four updates that ends after the third one, whose checkpoint is that of the second."""
    take = Trainer._train

    def until_the_fourth(self, update):
        if self.progress["update"] == 3:
            raise KeyboardInterrupt
        take(self, update)

    monkeypatch.setattr(Trainer, "_train", until_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        train.run(ready.config(*SHORT))
    monkeypatch.setattr(Trainer, "_train", take)
    return ready


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("train.updates=6", "train.updates (4 -> 6)"),
        ("train.patience=3", "train.patience (0 -> 3)"),
        ("train.validate_every=1", "train.validate_every (2 -> 1)"),
        ("train.learning_rate=0.0001", "train.learning_rate (0.001 -> 0.0001)"),
        ("train.precision=bf16", "train.precision (fp32 -> bf16)"),
        ("train.keep=last", "train.keep (best -> last)"),
    ],
)
def test_what_makes_no_other_run_may_change_and_is_logged(stopped, option, said, capsys):
    name, value = option.split("=")
    AcceleratorState._reset_state(reset_partial_state=True)
    train.run(stopped.config(*SHORT, option))
    assert f"train: from update 2 on: {said}" in capsys.readouterr().out
    assert [row["update"] for row in log_lines("changed")] == [2]
    assert log_lines("changed")[0]["options"] == [said]
    config = load_config(EXPERIMENT / "config.yaml")
    assert config.train.changed == [f"update 2: {said}"]
    assert str(getattr(config.train, name.removeprefix("train."))) == value
    assert (EXPERIMENT / "complete.json").exists()


@pytest.mark.parametrize("option", ["data.device_seconds=3", "train.log_every=1", "data.workers=1", "decode.beam=7"])
def test_what_decides_nothing_may_change_without_a_word(stopped, option, capsys):
    """Among it what masr advises when memory runs out."""
    train.run(stopped.config(*SHORT, option))
    assert "train: from update" not in capsys.readouterr().out
    assert load_config(EXPERIMENT / "config.yaml").train.changed == []


def test_what_makes_another_run_is_refused_with_the_way_out(stopped):
    with pytest.raises(ConfigError, match=r"changed: data\.batch_seconds \(6\.0 -> 5\.0\)\. Choose another name="):
        train.run(stopped.config(*SHORT, "data.batch_seconds=5", "train.updates=9"))


def test_a_finished_run_goes_on_when_asked_for_more_updates(ready, capsys):
    train.run(ready.config(*SHORT))
    before = log_lines("train"), log_lines("dev")
    train.run(ready.config(*SHORT, "train.updates=8", "train.log_every=1"))
    printed = capsys.readouterr().out
    assert "train: from update 4 on: train.updates (4 -> 8)" in printed
    assert "the cosine schedule goes on with a learning rate of" in printed and "to its end at update 8" in printed
    assert [row["update"] for row in log_lines("train")] == [row["update"] for row in before[0]] + [5, 6, 7, 8]
    assert log_lines("dev")[:2] == before[1]
    rates = [row["learning_rate"] for row in log_lines("train")]
    assert rates[-4] > rates[-3] > rates[-2] > rates[-1] == 0, "the cosine of eight updates"
    assert json.loads((EXPERIMENT / "training.json").read_text())["update"] == 8
    train.run(ready.config(*SHORT, "train.updates=8"))
    assert "train: complete in exp/small" in capsys.readouterr().out


@pytest.mark.parametrize("schedule", ["noam", "constant"])
def test_a_schedule_without_an_end_is_not_said_to_end(ready, schedule, capsys):
    options = [*SHORT, f"train.schedule={schedule}", "train.warmup=2"]
    train.run(ready.config(*options))
    train.run(ready.config(*options, "train.updates=6", "train.log_every=1"))
    printed = capsys.readouterr().out
    assert f"the {schedule} schedule goes on with a learning rate of" in printed and "to its end" not in printed


def test_fewer_updates_than_were_made_are_refused(ready):
    train.run(ready.config(*SHORT))
    with pytest.raises(ConfigError, match=r"exp/small has made 4 updates already, more than train\.updates=2"):
        train.run(ready.config(*SHORT, "train.updates=2"))


def test_a_finished_run_is_not_told_another_learning_rate(ready):
    train.run(ready.config(*SHORT))
    with pytest.raises(ConfigError, match=r"changed: train\.learning_rate"):
        train.run(ready.config(*SHORT, "train.learning_rate=0.0001"))


def test_a_finished_run_goes_on_with_another_learning_rate(ready, capsys):
    train.run(ready.config(*SHORT))
    train.run(ready.config(*SHORT, "train.updates=6", "train.learning_rate=0.0001"))
    assert len(load_config(EXPERIMENT / "config.yaml").train.changed) == 2


def test_a_changed_learning_rate_is_that_of_the_next_update(stopped):
    train.run(stopped.config(*SHORT, "train.learning_rate=0.0001", "train.log_every=1"))
    rows = {row["update"]: row["learning_rate"] for row in log_lines("train")}
    factor = 0.5 * (1 + np.cos(np.pi * 2 / 3))
    assert rows[3] == pytest.approx(0.0001 * factor)


def test_before_the_first_checkpoint_nothing_is_refused(ready, monkeypatch):
    """A run that stopped in its first update has nothing to lose."""
    with monkeypatch.context() as context:
        context.setattr(Trainer, "_train", lambda self, update: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train.run(ready.config())
    assert (EXPERIMENT / "unfinished.json").exists()
    other = ready.config("seed=2", "data.max_seconds=20", "model.encoder.width=8")
    train.run(other)
    assert load_config(EXPERIMENT / "config.yaml") == other


def test_force_throws_away_only_what_masr_made(ready):
    EXPERIMENT.mkdir(parents=True)
    (EXPERIMENT / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"exp/small holds files that masr did not write \(thesis\.txt\)"):
        train.run(ready.config(), force=True)
    assert (EXPERIMENT / "thesis.txt").exists()


@pytest.mark.parametrize("damage", ["a flipped bit", "no bytes", "half of it", "missing"])
def test_a_damaged_result_is_made_again_from_its_checkpoint(ready, damage, capsys):
    train.run(ready.config(*SHORT))
    path = EXPERIMENT / "averaged.safetensors"
    whole = {name: tensor.clone() for name, tensor in load_file(path).items()}
    match damage:
        case "a flipped bit":
            flip_a_bit(path)
        case "no bytes":
            path.write_bytes(b"")
        case "half of it":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        case "missing":
            path.unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=r"averaged\.safetensors"):
        decode.run(ready.config(*SHORT))
    capsys.readouterr()
    train.run(ready.config(*SHORT))
    assert (
        "averaged.safetensors is missing or damaged: made again from exp/small/checkpoints/" in capsys.readouterr().out
    )
    again = load_file(path)
    assert again.keys() == whole.keys() and all(again[name].equal(tensor) for name, tensor in whole.items())
    decode.run(ready.config(*SHORT))


@pytest.mark.parametrize("checkpoints", ["step-00000002", "step-*"])
def test_a_damaged_result_without_its_checkpoint_is_refused_and_not_sealed(ready, checkpoints):
    train.run(ready.config(*SHORT))
    assert json.loads((EXPERIMENT / "training.json").read_text())["best_update"] == 2
    flip_a_bit(EXPERIMENT / "averaged.safetensors")
    for checkpoint in (EXPERIMENT / "checkpoints").glob(checkpoints):
        flip_a_bit(checkpoint / "averaged.safetensors")
    with pytest.raises(TrainingFailed, match=r"(checkpoint of update 2|no checkpoint is whole).*--force to train"):
        train.run(ready.config(*SHORT))
    assert not (EXPERIMENT / "complete.json").exists()


def test_a_model_whose_checkpoints_were_removed_is_not_thrown_away(ready, snapshot):
    train.run(ready.config(*SHORT))
    shutil.rmtree(EXPERIMENT / "checkpoints")
    train.run(ready.config(*SHORT))
    before = snapshot(EXPERIMENT)
    with pytest.raises(ConfigError, match=r"changed: seed \(1 -> 2\)"):
        train.run(ready.config(*SHORT, "seed=2"))
    with pytest.raises(ConfigError, match=r"exp/small holds a model and no checkpoint"):
        train.run(ready.config(*SHORT, "train.updates=8"))
    assert snapshot(EXPERIMENT) == before


def test_the_checkpoint_of_the_best_weights_is_kept(ready, monkeypatch):
    from masr.train import trainer
    from masr.train.evaluate import evaluate

    scores = iter([0.5, 0.9, 0.8])

    def scripted(*arguments):
        result = evaluate(*arguments)
        result.cer = {"es": next(scores)}
        return result

    monkeypatch.setattr(trainer, "evaluate", scripted)
    train.run(ready.config("train.updates=3", "train.validate_every=1", "train.keep_checkpoints=1"))
    assert sorted(path.name for path in (EXPERIMENT / "checkpoints").iterdir()) == ["step-00000001", "step-00000003"]


def test_every_flipped_bit_of_the_weights_is_noticed(ready, tmp_path):
    """A kind of damage that neither sizes nor safetensors tell."""
    train.run(ready.config())
    places = np.random.default_rng(0).integers(0, (EXPERIMENT / "averaged.safetensors").stat().st_size, 40)
    for number, place in enumerate(places.tolist()):
        copy = tmp_path / f"copy-{number}"
        shutil.copytree(EXPERIMENT, copy, ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
        flip_a_bit(copy / "averaged.safetensors", place)
        with pytest.raises(ValueError, match=r"averaged\.safetensors|not the weights"):
            load_model(copy)


def test_models_without_a_digest_load_as_before(ready, tmp_path):
    from safetensors.torch import save_file

    train.run(ready.config())
    weights = load_file(EXPERIMENT / "averaged.safetensors")
    save_file(weights, EXPERIMENT / "averaged.safetensors")
    assert masr.load(str(EXPERIMENT)).transcribe(np.zeros(16000, dtype=np.float32)) is not None


def test_seeds_and_epochs_share_no_random_numbers():
    """``seed + epoch`` gave seed 1 in epoch 1 what seed 2 has in epoch 0."""
    drawn: dict[tuple, tuple] = {}
    for purpose in Purpose:
        for seed in range(4):
            for epoch in range(4):
                drawn[purpose, seed, epoch] = tuple(generator(purpose, seed, epoch).integers(0, 2**31, 3).tolist())
    assert len(set(drawn.values())) == len(drawn)
    assert generator(Purpose.MASKS, 1).random() != generator(Purpose.MASKS, 1, 0).random(), "zeros count"
    assert len({seed_of(Purpose.DROPOUT, seed, rank) for seed in range(9) for rank in range(9)}) == 81


def test_two_seeds_mask_otherwise_in_every_epoch(ready):
    """Seeds of a table have nothing in common, shifted by an epoch or not."""
    from masr.data.batches import TrainingUpdates
    from masr.stages.features import load_cuts
    from masr.stages.vocab import load_tokenizer

    config = ready.config()
    cuts, tokenizer = load_cuts(config, "train"), load_tokenizer(config)
    seen = []
    for seed in (1, 2, 3):
        for epoch in (0, 1, 2):
            options = (tokenizer, config.features, config.model.spec_augment, (seed, epoch), 600.0)
            [batch] = TrainingUpdates([cuts], *options)[0].micro_batches
            seen.append(batch.features)
    assert not any(torch.equal(a, b) for number, a in enumerate(seen) for b in seen[:number])


def as_masr_01_left_it(finished: bool) -> None:
    """Seals of masr 0.1 held hashes alone, and its data.json those of whole stages."""
    (EXPERIMENT / "data.json").write_text(json.dumps({"features": "abc", "vocab": "def"}))
    seal = EXPERIMENT / "complete.json"
    seal.unlink()
    if finished:
        weights = {"averaged.safetensors": file_hash(EXPERIMENT / "averaged.safetensors")}
        seal.write_text(json.dumps({"inputs": {"features": "abc"}, "files": weights}))


def test_what_masr_01_trained_is_complete_and_decodes(ready, capsys):
    train.run(ready.config(*SHORT))
    as_masr_01_left_it(finished=True)
    train.run(ready.config(*SHORT))
    assert "train: complete in exp/small, by masr 0.1" in capsys.readouterr().out
    decode.run(ready.config(*SHORT))


def test_what_masr_01_did_not_finish_is_not_mixed_with_other_texts(ready):
    train.run(ready.config(*SHORT))
    as_masr_01_left_it(finished=False)
    with pytest.raises(ConfigError, match="the data, as masr 0.1 began this run, whose text normalisation was another"):
        train.run(ready.config(*SHORT, "train.updates=6"))
