"""The training loop in this process, on the miniature corpus: what it refuses, skips, stops at, and that it learns."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from safetensors.torch import load_file

from masr.config import Config
from masr.config_files import ConfigError
from masr.data.batches import CutFeatures
from masr.data.sampling import EpochPlan
from masr.models.folder import WEIGHTS, load_model
from masr.models.recognizer import Recognizer
from masr.stages import train
from masr.stages.features import load_cuts, load_statistics
from masr.stages.vocab import load_tokenizer
from masr.train import checkpoint as checkpoints
from masr.train.evaluate import evaluate
from masr.train.trainer import Trainer, TrainingFailed

EXPERIMENT = Path("exp/tiny")


def log_lines(folder: Path = EXPERIMENT, kind: str = "train") -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def build_model(config: Config) -> Recognizer:
    set_seed(config.seed)
    model = Recognizer(config, load_tokenizer(config))
    model.set_statistics(*load_statistics(config).tensors())
    return model


def build_trainer(config: Config, number: int | None = None) -> Trainer:
    """A trainer on the first ``number`` training recordings, which are its dev set too."""
    EXPERIMENT.mkdir(parents=True)
    cuts = load_cuts(config, "train")[:number]
    plan = EpochPlan(cuts, config.data, config.seed)
    return Trainer(build_model(config), plan, cuts, config, EXPERIMENT, Accelerator(cpu=True))


def snapshot(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> None:
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch):
    """A function that makes the features of the drawn recordings it is given NaN (of all of them: ``spoil(None)``)."""

    def spoil(names: set[str] | None) -> None:
        load = CutFeatures.__call__

        def spoiled(self, cut):
            return load(self, cut) * (torch.nan if names is None or cut.id in names else 1.0)

        monkeypatch.setattr(CutFeatures, "__call__", spoiled)

    return spoil


def test_a_run_leaves_a_model_and_its_records(prepared, workdir, capsys):
    config = prepared.config()
    train.run(config)
    assert [line["update"] for line in log_lines()] == list(range(1, 9))
    assert [line["update"] for line in log_lines(kind="dev")] == [4, 8]
    assert all(line["loss"] > 0 and line["gradient_norm"] > 0 for line in log_lines())
    assert log_lines()[-1]["loss"] < log_lines()[0]["loss"]
    environment = json.loads((EXPERIMENT / "environment.json").read_text())
    assert environment["processes"] == 1 and environment["packages"]["torch"] == torch.__version__
    record = json.loads((EXPERIMENT / "training.json").read_text())
    model = load_model(EXPERIMENT)
    assert record["update"] == 8 and record["parameters"] == sum(p.numel() for p in model.parameters())
    assert model.config == config
    assert_same(load_file(EXPERIMENT / WEIGHTS), model.state_dict())
    mean, deviation = load_statistics(config).tensors()
    assert torch.equal(model.feature_mean, mean) and torch.equal(model.feature_deviation, deviation)

    capsys.readouterr()
    files = {path: path.stat().st_mtime_ns for path in EXPERIMENT.rglob("*")}
    train.run(prepared.config("data.workers=1", "decode.beam=3"))  # neither changes what training gives
    assert capsys.readouterr().out.strip() == "train: complete in exp/tiny (--force redoes it)"
    assert {path: path.stat().st_mtime_ns for path in EXPERIMENT.rglob("*")} == files

    with pytest.raises(ConfigError) as raised:
        train.run(prepared.config("train.learning_rate=0.5", "model.encoder.layers=1"))
    message = str(raised.value)
    assert "exp/tiny was trained with another config" in message and "--force" in message
    assert "model.encoder.layers (2 -> 1), train.learning_rate (0.002 -> 0.5)" in message
    assert {path: path.stat().st_mtime_ns for path in EXPERIMENT.rglob("*")} == files

    train.run(prepared.config("train.updates=2"), force=True)
    assert [line["update"] for line in log_lines()] == [1, 2]
    assert [path.name for path in (EXPERIMENT / "checkpoints").iterdir()] == ["step-00000002"]


def test_best_average_is_kept(prepared, workdir, monkeypatch):
    """The weights of the folder are the running average at the evaluation with the lowest CER."""
    scores = iter([0.9, 0.7, 0.8, 0.7])

    def scripted(*arguments):
        result = evaluate(*arguments)
        result.cer = {"es": next(scores)}
        return result

    monkeypatch.setattr("masr.train.trainer.evaluate", scripted)
    train.run(prepared.config("train.validate_every=2", "train.keep_checkpoints=9"))
    checkpoint = EXPERIMENT / "checkpoints/step-00000004"
    assert_same(load_file(EXPERIMENT / WEIGHTS), load_file(checkpoint / "averaged.safetensors"))
    record = json.loads((EXPERIMENT / "training.json").read_text())
    assert (record["best_cer"], record["best_update"], record["stale"]) == (0.7, 4, 2)


def test_average_by_hand(prepared, workdir, monkeypatch):
    """It follows the weights with a decay that grows from 0.1 to ``average_decay``."""
    trainer = build_trainer(prepared.config("train.updates=3", "train.average_decay=0.15", "train.validate_every=9"))
    expected, follow = snapshot(trainer.averaged), Trainer._update_average

    def follow_by_hand(self):
        decay = (0.1, 0.15, 0.15)[self.progress["update"]]
        for name, parameter in self.recognizer.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * parameter.detach()
        follow(self)

    monkeypatch.setattr(Trainer, "_update_average", follow_by_hand)
    trainer.run()
    for name, tensor in trainer.averaged.state_dict().items():
        assert torch.allclose(tensor, expected[name], atol=1e-6), name


def test_four_recordings_are_learned_by_heart(prepared, workdir):
    """At two speeds each."""
    options = ["train.updates=250", "train.learning_rate=5e-3", "train.warmup=20", "train.validate_every=250"]
    quiet = ["train.log_every=250", "model.encoder.dropout=0.0", "train.average_decay=0.9", "data.batch_seconds=9"]
    plain = ["model.spec_augment.frequency_masks=0", "model.spec_augment.time_masks=0", "model.encoder.width=64"]
    progress = build_trainer(prepared.config(*options, *quiet, *plain), number=8).run()
    assert progress["best_cer"] < 0.05


def test_patience_stops_a_run_that_does_not_improve(prepared, workdir):
    slow = ["train.learning_rate=1e-12", "train.validate_every=1", "train.patience=2", "train.updates=50"]
    train.run(prepared.config(*slow))
    assert [line["update"] for line in log_lines(kind="dev")] == [1, 2, 3]  # the first one is the best
    assert (EXPERIMENT / "complete.json").exists()


def test_update_with_a_non_finite_loss_is_skipped(prepared, workdir, spoil, capsys):
    config = prepared.config("train.validate_every=1", "train.keep_checkpoints=9", "train.updates=4")
    plan = EpochPlan(load_cuts(config, "train"), config.data, config.seed)
    second = plan.updates(0)[1]
    spoil({second[0].id})
    train.run(config)
    assert "update 2: the loss is not finite; skipped" in " ".join(capsys.readouterr().out.split())
    saved = [EXPERIMENT / f"checkpoints/step-0000000{number}" for number in (1, 2, 3)]
    before, after, later = (checkpoints.load_weights(path, "model") for path in saved)
    assert_same(before, after)
    assert not torch.equal(after["ctc.output.weight"], later["ctc.output.weight"])
    assert_same(*(checkpoints.load_weights(path, "averaged") for path in saved[:2]))
    assert [checkpoints.load_state(path, 0)[0]["progress"]["bad_steps"] for path in saved] == [0, 1, 0]
    (dump,) = (EXPERIMENT / "bad_batches").iterdir()
    (batch,) = torch.load(dump, weights_only=True)
    assert dump.name == "update-2-0.pt" and set(batch["ids"]) == {cut.id for cut in second}
    assert batch["features"].isnan().any()


def test_too_many_bad_updates_in_a_row_stop_the_run(prepared, workdir, spoil):
    spoil(None)
    with pytest.raises(TrainingFailed, match=r"3 updates in a row had non-finite gradients; look at exp/tiny/bad_bat"):
        train.run(prepared.config("train.max_bad_steps=2"))
    assert len(list((EXPERIMENT / "bad_batches").iterdir())) == 3
    assert not (EXPERIMENT / "complete.json").exists()


def test_bad_updates_that_are_not_in_a_row_do_not_stop_the_run(prepared, workdir, spoil):
    config = prepared.config("train.max_bad_steps=1", "train.updates=6", "train.validate_every=6")
    updates = EpochPlan(load_cuts(config, "train"), config.data, config.seed).updates(0)
    spoil({updates[number][0].id for number in (0, 2, 4)})
    train.run(config)
    assert len(list((EXPERIMENT / "bad_batches").iterdir())) == 3


def test_unusable_recordings_are_listed(prepared, workdir, capsys):
    config = prepared.config("data.max_seconds=1.55", "train.updates=1")
    train.run(config)
    long = {cut.id for cut in load_cuts(config, "train") if cut.duration > 1.55}
    lines = (EXPERIMENT / "rejected.tsv").read_text(encoding="utf-8").splitlines()
    assert {line.split("\t")[0] for line in lines} == long != set()
    assert f"{len(long)} of 72 recordings left out by a limit" in " ".join(capsys.readouterr().out.split())


def test_memory_check_changes_nothing(prepared, workdir):
    trainer = build_trainer(prepared.config("model.encoder.dropout=0.5"))
    before, progress = (snapshot(trainer.recognizer), snapshot(trainer.averaged)), dict(trainer.progress)
    random = checkpoints.random_state()
    trainer._check_memory()
    assert_same(before[0], trainer.recognizer.state_dict())
    assert_same(before[1], trainer.averaged.state_dict())
    after = checkpoints.random_state()
    assert torch.equal(random["torch"], after["torch"]) and random["python"] == after["python"]
    assert torch.equal(random["numpy"]["keys"], after["numpy"]["keys"])
    assert all(parameter.grad is None for parameter in trainer.recognizer.parameters())
    assert trainer.progress == progress and not trainer.optimizer.state_dict()["state"] and not trainer.meter.sums


def test_memory_check_takes_the_largest_updates(prepared, workdir, monkeypatch):
    trainer = build_trainer(prepared.config())
    seen = []
    monkeypatch.setattr(Trainer, "_backward", lambda self, update, measure: seen.append(update))
    trainer._check_memory()
    frames = [batch.features.shape[0] * batch.features.shape[1] for update in seen for batch in update.micro_batches]
    longest = [batch.features.shape[1] for update in seen for batch in update.micro_batches]
    everything = [max(cut.duration for cut in cuts) * len(cuts) for cuts in trainer.plan.updates(0)]
    assert max(frames) == pytest.approx(100 * max(everything), rel=0.02)
    assert max(longest) == pytest.approx(100 * max(cut.duration for cut in trainer.dev), rel=0.02)


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.cuda.OutOfMemoryError("CUDA out of memory"), RuntimeError("not enough memory")]
)
def test_memory_that_does_not_suffice_is_explained(prepared, workdir, monkeypatch, error):
    trainer = build_trainer(prepared.config())

    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(Trainer, "_backward", fail)
    with pytest.raises(TrainingFailed, match=r"out of memory on the largest batch .* data.device_seconds \(now 600\)"):
        trainer.run()


def test_other_errors_are_not_taken_for_memory(prepared, workdir, monkeypatch):
    trainer = build_trainer(prepared.config())

    def fail(*arguments, **options):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(Trainer, "_backward", fail)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        trainer.run()


def test_objective_without_weight_does_not_train(prepared, workdir):
    """CTC with weight 0 beside an attention decoder: its output layer gets no gradient, and asks for none."""
    decoder = "model.attention_decoder={weight: 1.0, layers: 1, width: 16, heads: 2, feedforward: 16}"
    trainer = build_trainer(prepared.config("model.ctc.weight=0.0", decoder))
    trainer._backward(trainer._loader().dataset[0])
    gradients = {name: parameter.grad for name, parameter in trainer.recognizer.named_parameters()}
    assert gradients["ctc.output.weight"] is None and gradients["attention_decoder.output.weight"].any()
    assert not trainer.recognizer.ctc.output.weight.requires_grad


def test_a_checkpoint_from_when_cer_alone_decided_goes_on(prepared, workdir):
    config = prepared.config("train.updates=2")
    trainer = build_trainer(config, 4)
    trainer.run()
    [step] = (EXPERIMENT / "checkpoints").glob("step-*")
    state = torch.load(step / "state.pt")
    best = state["progress"].pop("best_score")
    torch.save(state, step / "state.pt")
    hashes = {path.name: checkpoints.file_hash(path) for path in sorted(step.iterdir()) if path.name != "files.json"}
    (step / "files.json").write_text(json.dumps(hashes))
    again = Trainer(build_model(config), trainer.plan, trainer.dev, config, EXPERIMENT, Accelerator(cpu=True))
    assert again.run()["best_score"] == best == trainer.progress["best_cer"]
