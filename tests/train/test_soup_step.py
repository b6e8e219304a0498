"""Updates of soups, on the miniature corpus: recognition and translation of three languages."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from masr.config_files import load_config
from masr.data.sampling import language_of
from masr.models.recognizer import Recognizer
from masr.stages import train, vocab
from masr.stages.train import _build_trainer
from masr.train.checkpoint import find_checkpoint, load_state
from masr.train.log import counted
from masr.train.trainer import Trainer

OPTIONS = [
    "vocab.translation={into: en, kind: char}", "data.batch_seconds=12", "model.encoder.dropout=0.0",
    "model.translation={weight: 0.5, layers: 1, width: 16, heads: 2, feedforward: 16, dropout: 0.0}",
    "model.ctc.intermediate_layers=[1]", "train.updates=6", "train.validate_every=3", "data.every_language=true",
]  # fmt: skip
UNIFORM = "train.soup.levels=[{objectives: ['*']}]"
MULTILEVEL = (
    "train.soup.levels=[{objectives: ['asr/*'], weights: modo}, "
    "{objectives: ['st/*'], weights: modo, penalty: {start: 0.5}}]"
)


@pytest.fixture
def config(prepared, workdir):
    shutil.copytree(prepared.folder / "data", workdir / "data")
    made = lambda *more: load_config(prepared.conf, [f"data_dir={workdir}/data", *OPTIONS, *more])  # noqa: E731
    vocab.run(made())
    return made


def trainer_of(config):
    torch.manual_seed(0)
    return _build_trainer(config, train.experiment_folder(config), Accelerator(cpu=True))


def gradients(model: Recognizer) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def objective_gradients(trainer, update, name: str) -> list[torch.Tensor]:
    """Of one objective, by a backward pass of its own."""
    model, (task, code) = trainer.recognizer, name.split("/")
    total = 0.0 * sum(p.sum() for p in model.parameters())
    for batch in update.micro_batches:
        losses, weights = model.objectives(batch), model.objective_weights()
        for key, value in losses.items():
            objective, language = key.split("/")
            if language == code and (task == "st") == (objective == "st"):
                total = total + weights[objective] * value / counted(objective, update.counts[code])
    return [g if g is not None else torch.zeros_like(p) for p, g in zip(
        model.parameters(), torch.autograd.grad(total, list(model.parameters()), allow_unused=True), strict=True
    )]  # fmt: skip


def flat_gradient(trainer, update, name: str, numbers: list[int]) -> torch.Tensor:
    each = objective_gradients(trainer, update, name)
    return torch.cat([each[number].flatten() for number in numbers])


@pytest.mark.parametrize("heads", [[], ["model.ctc.per_language=true", "model.translation.per_language=true"]])
def test_the_encoder_gets_the_weighted_sum_and_heads_their_own_losses(config, heads):
    static = "{'asr/*': 1.0, 'st/el': 3.0, 'st/es': 0.0, 'st/ro': 0.0}"
    levels = f"train.soup.levels=[{{objectives: ['*'], weights: static, static: {static}}}]"
    trainer = trainer_of(config(levels, *heads))
    update = trainer._loader().dataset[0]
    trainer.model.train()
    assert trainer._backward(update)
    found = gradients(trainer.recognizer)
    trainer.optimizer.zero_grad()
    weights = trainer.soup.soup.coefficients(0)
    assert weights["st/el"] == 0.5 and weights["asr/ro"] == pytest.approx(1 / 6)
    each = {name: objective_gradients(trainer, update, name) for name in weights}
    for number, (name, _) in enumerate(trainer.recognizer.named_parameters()):
        shared = name.startswith("encoder.")
        expected = sum((weights[o] if shared else 1.0) * each[o][number] for o in weights)
        assert torch.allclose(found[name], expected, atol=1e-5, rtol=1e-4), name


def test_equal_weights_are_plain_training(config):
    """Of the encoder, but for a factor, if every language counts as many tokens: a soup divides each language's loss by
    its own, plain training by those of all."""
    soup = trainer_of(config(UNIFORM, "model.translation.weight=0.0", "vocab.translation.into=null"))
    update = soup._loader().dataset[0]
    soup.model.train()
    plain = trainer_of(config("model.translation.weight=0.0", "vocab.translation.into=null"))
    same = {code: sum(update.counts.values(), type(next(iter(update.counts.values())))()) for code in update.counts}
    plain.recognizer.load_state_dict(soup.recognizer.state_dict())
    plain._backward(update)
    soup.optimizer.zero_grad()
    soup._backward(update._replace(counts=same))
    for (name, p), (_, q) in zip(plain.recognizer.named_parameters(), soup.recognizer.named_parameters(), strict=True):
        factor = 3 if name.startswith("encoder.") else 1
        assert torch.allclose(p.grad, factor * q.grad, atol=1e-5, rtol=1e-4), name


def test_products_are_those_of_gradients(config):
    """The step of MoDo, from differences of outputs, beside backward passes of every objective."""
    trainer = trainer_of(config(MULTILEVEL))
    update = trainer._loader().dataset[0]
    assert len(update.samples) == 2
    trainer.model.train()
    moved = {}
    trainer.soup.soup.step = lambda level, products: moved.__setitem__(level.objectives[0][:3], products)
    trainer._backward(update)
    shared = [n for n, (name, _) in enumerate(trainer.recognizer.named_parameters()) if name.startswith("encoder.")]
    for task, level in (("asr", 0), ("st/", 1)):
        names = trainer.soup.soup.levels[level].objectives
        halves = [
            torch.stack([flat_gradient(trainer, update._replace(samples=[half]), name, shared) for name in names])
            for half in update.samples
        ]
        expected = 4 * halves[0] @ halves[1].mean(0)
        assert torch.allclose(moved[task], expected, rtol=1e-3, atol=1e-3 * expected.abs().max()), (moved, expected)


def test_products_of_scaled_losses(config):
    """A factor of a loss is one of its gradient, in both samples."""
    moved = []
    for scale in (1.0, 0.5):
        scales = f"scales: {{'*': {{start: {scale}}}}}"
        trainer = trainer_of(config(f"train.soup.levels=[{{objectives: ['*'], weights: modo, {scales}}}]"))
        trainer.model.train()
        trainer.soup.soup.step = lambda level, products: moved.append(products)
        trainer._backward(trainer._loader().dataset[0])
    assert torch.allclose(moved[1], moved[0] / 4, rtol=0.05, atol=0.02 * moved[0].abs().max())


def test_the_update_follows_the_weights_that_its_own_gradients_gave(config):
    trainer = trainer_of(config("train.soup.levels=[{objectives: ['*'], weights: mgda}]"))
    update = trainer._loader().dataset[0]
    trainer.model.train()
    trainer._backward(update)
    weights, found = trainer.soup.soup.coefficients(0), gradients(trainer.recognizer)
    assert max(weights.values()) > 1.5 * min(weights.values())
    each = {name: objective_gradients(trainer, update, name) for name in weights}
    for number, (name, _) in enumerate(trainer.recognizer.named_parameters()):
        if name.startswith("encoder."):
            expected = sum(weights[o] * each[o][number] for o in weights)
            assert torch.allclose(found[name], expected, atol=1e-4, rtol=1e-3), name


def test_weights_stay_where_an_objective_is_missing_or_a_loss_is_not_finite(config):
    for kind in ("modo", "mgda"):
        trainer = trainer_of(config(f"train.soup.levels=[{{objectives: ['*'], weights: {kind}}}]"))
        update, before = trainer._loader().dataset[0], trainer.soup.soup.coefficients(0)
        counts = {code: count for code, count in update.counts.items() if code != "el"}
        for sample in update.samples:
            keep = [i for i, code in enumerate(sample[0].languages) if code != "el"]
            assert 0 < len(keep) < len(sample[0])
        missing = update._replace(counts=counts | {"el": type(update.counts["es"])()})
        trainer._backward(missing)
        assert trainer.soup.soup.coefficients(0) == before
        trainer.optimizer.zero_grad()
        update.samples[0][0].features[0] = float("nan")
        assert not trainer._backward(update) and trainer.soup.soup.coefficients(0) == before


def test_weights_that_are_not_due_stay(config):
    trainer = trainer_of(config(MULTILEVEL, "train.soup.every=2"))
    before = trainer.soup.soup.coefficients(0)
    trainer.progress["update"] = 1
    trainer._backward(trainer._loader().dataset[0])
    assert trainer.soup.soup.coefficients(0) == before
    trainer.progress["update"] = 2
    trainer._backward(trainer._loader().dataset[0])
    assert trainer.soup.soup.coefficients(0) != before


def test_weights_stay_equal_in_the_first_updates(config):
    trainer = trainer_of(config(MULTILEVEL, "train.soup.every=1", "train.soup.warmup=2"))
    equal = trainer.soup.soup.coefficients(0)
    for number in range(3):
        assert trainer.soup.soup.coefficients(0) == equal
        trainer.progress["update"] = number
        trainer._backward(trainer._loader().dataset[0])
    assert trainer.soup.soup.coefficients(0) != equal


def test_penalties_grow_within_an_epoch(config):
    trainer = trainer_of(config(MULTILEVEL.replace("start: 0.5", "start: 0.5, rate: 0.6")))
    updates = trainer._loader().dataset
    factors = []
    for position in (0, len(updates.updates) - 1):
        trainer.progress["position"] = position
        trainer._backward(updates[position])
        factors.append(trainer.soup.now.factors[1])
        assert trainer.soup.now.coefficients["st/el"] == pytest.approx(factors[-1] / 3, rel=0.1), (
            "weights move a little"
        )
    assert factors == pytest.approx([0.5, 0.5 + 0.6 * position / len(updates.updates)]) and position


@pytest.mark.parametrize(("kind", "layers"), [("mgda", ["block 1"]), ("PCGrad", None)])
def test_solved_weights_are_those_of_all_gradients(config, kind, layers, monkeypatch):
    """Or, where layers are selected, of those in them."""
    trainer = trainer_of(config(f"train.soup.levels=[{{objectives: ['*'], weights: {kind}}}]"))
    update = trainer._loader().dataset[0]
    if layers:
        monkeypatch.setattr(trainer.soup, "selected", lambda epoch: layers)
    trainer.model.train()
    grams = []
    trainer.soup.soup.solve = lambda level, gramian: grams.append(gramian)
    trainer._backward(update)
    start = "encoder.blocks.0." if layers else "encoder."
    shared = [n for n, (name, _) in enumerate(trainer.recognizer.named_parameters()) if name.startswith(start)]
    names = trainer.soup.soup.levels[0].objectives
    each = torch.stack([flat_gradient(trainer, update, name, shared) for name in names])
    assert torch.allclose(grams[0], each @ each.T, rtol=1e-3, atol=1e-4)


def test_conflicts_are_products_across_halves(config):
    """Beside backward passes of every objective in either half; without MoDo updates have halves too."""
    detect = ["train.soup.detect_epochs=1", "train.soup.detect_every=1"]
    trainer = trainer_of(config("train.soup.levels=[{objectives: ['*'], weights: mgda}]", *detect))
    update, names = trainer._loader().dataset[0], trainer.soup.objectives
    assert len(update.samples) == 2
    trainer.model.train()
    trainer._backward(update)
    named = [name for name, _ in trainer.recognizer.named_parameters()]
    for place, start in enumerate(["encoder.subsampling.", "encoder.blocks.0.", "encoder.blocks.1.", "encoder."]):
        numbers = [n for n, name in enumerate(named) if name.startswith(start)]
        one, two = (
            torch.stack([flat_gradient(trainer, update._replace(samples=[half]), name, numbers) for name in names])
            for half in update.samples
        )
        unit = [torch.nn.functional.normalize(half, dim=-1) for half in (one, two)]
        across = unit[0] @ unit[1].T
        assert torch.allclose(trainer.soup.conflicts.sums[place].float(), (across + across.T) / 2, atol=1e-3), start


def test_conflicts_choose_the_layers_that_decide(config):
    detect = ["train.soup.detect_epochs=1", "train.soup.detect_every=1"]
    trainer = trainer_of(config(MULTILEVEL, *detect))
    for update in range(2):
        trainer.progress["update"] = update
        trainer._backward(trainer._loader().dataset[0])
    step = trainer.soup
    assert step.conflicts.measured == 2 and list(step.layers) == ["subsampling", "block 1", "block 2"]
    assert {"conflict/block 1", "cosine/asr-st", "cosine/st-st"} <= step.describe(0).keys()
    step.conflicts.sums[1] = 4 * torch.eye(6) - 2
    assert step.selected(0) == list(step.layers)
    step.conflicts.sums[[0, 2]] = step.conflicts.sums[[0, 2]].abs()
    assert step.selected(1) == ["block 1"]
    trainer.progress["epoch"] = 1
    assert trainer._backward(trainer._loader().dataset[0])
    assert step.conflicts.measured == 2
    assert step.now.parameters == step.layers["block 1"], "only they decide"
    assert {"weight/asr/el", "penalty/2"} <= step.describe(1).keys()
    assert "conflict/block 1" not in step.describe(1), "it is no longer measured"


@pytest.mark.parametrize("kind", ["mgda", "modo"])
def test_all_layers_follow_the_weights_on_which_some_decide(config, kind):
    levels = f"train.soup.levels=[{{objectives: ['*'], weights: {kind}}}]"
    trainer = trainer_of(config(levels, "train.soup.detect_epochs=1", "train.soup.every=1"))
    step, update = trainer.soup, trainer._loader().dataset[0]
    step.conflicts.add(torch.stack([2 * torch.eye(6) - sign for sign in (-1, 1, -1)]).repeat(1, 2, 2))
    trainer.progress["epoch"] = 1
    assert step.selected(1) == ["block 1"]
    before = step.soup.coefficients(1)
    trainer.model.train()
    trainer._backward(update)
    after = step.soup.coefficients(1)
    assert after != before
    weights = after if kind == "mgda" else before  # MoDo's step is for the next update
    expected = [sum(weights[name] * g for name, g in zip(weights, each, strict=True)) for each in zip(
        *(objective_gradients(trainer, update, name) for name in weights), strict=True
    )]  # fmt: skip
    for (name, parameter), gradient in zip(trainer.recognizer.named_parameters(), expected, strict=True):
        if name.startswith("encoder."):
            assert torch.allclose(parameter.grad, gradient, atol=1e-4, rtol=1e-3), name


def test_selecting_all_layers_is_selecting_none(config):
    products = []
    for detect in ("0", "1"):
        trainer = trainer_of(config(MULTILEVEL, f"train.soup.detect_epochs={detect}", "train.soup.every=1"))
        if detect == "1":
            trainer.soup.conflicts.add((2 * torch.eye(6).expand(3, 6, 6) - 1).repeat(1, 2, 2))
        trainer.progress["epoch"] = 1
        update = trainer.plan.updates(0) and trainer._loader().dataset[0]
        trainer.model.train()
        torch.manual_seed(0)
        trainer._backward(update)
        products.append(trainer.soup.soup.coefficients(1))
    assert products[0] == products[1] and len(set(products[0].values())) > 2


def test_each_part_is_clipped_by_itself(config):
    """A head that has no gradient has no norm."""
    trainer = trainer_of(config(UNIFORM, "train.clip=1.0"))
    trainer._backward(trainer._loader().dataset[0])
    parts = {"encoder": 300.0, "ctc": 0.5, "translator": None}
    for name, norm in parts.items():
        gradients = [p for p in getattr(trainer.recognizer, name).parameters() if p.grad is not None]
        now = torch.stack([p.grad.norm() for p in gradients]).norm()
        for p in gradients:
            p.grad = None if norm is None else p.grad * (norm / now)
    assert trainer._clip() == pytest.approx((300**2 + 0.5**2) ** 0.5)
    for name, norm in {"encoder": 1.0, "ctc": 0.5}.items():
        found = [p.grad.norm() for p in getattr(trainer.recognizer, name).parameters() if p.grad is not None]
        assert torch.stack(found).norm().item() == pytest.approx(norm, rel=1e-3)


def test_half_precision_finds_the_same_weights(config):
    """bf16: the products are differences of outputs in full precision."""
    moved, found = {}, {}
    for precision in ("no", "bf16"):
        made = config(MULTILEVEL, f"train.precision='{precision}'")
        torch.manual_seed(0)
        AcceleratorState._reset_state(reset_partial_state=True)  # a process has one precision otherwise
        accelerator = Accelerator(cpu=True, mixed_precision=precision)
        trainer = _build_trainer(made, train.experiment_folder(made), accelerator)
        trainer.soup.soup.step = lambda level, products, kind=precision: moved.setdefault(kind, []).append(products)
        trainer.model.train()
        assert trainer._backward(trainer._loader().dataset[0])
        found[precision] = torch.cat([p.grad.flatten() for p in trainer.recognizer.encoder.parameters()])
    AcceleratorState._reset_state(reset_partial_state=True)
    for one, other in zip(moved["no"], moved["bf16"], strict=True):
        assert torch.allclose(one, other, rtol=0.1, atol=0.05 * one.abs().max())
    assert torch.cosine_similarity(found["no"], found["bf16"], dim=0) > 0.999
    assert not torch.equal(found["no"], found["bf16"])


def test_what_is_frozen_from_end_to_end_is_left_out(config):
    trainer = trainer_of(config(UNIFORM, "train.frozen=[encoder,ctc]"))
    assert trainer._backward(trainer._loader().dataset[0])
    assert {name.split(".")[0] for name in gradients(trainer.recognizer)} == {"translator"}


def test_memory_is_checked_with_all_that_is_due_later(config, monkeypatch):
    trainer = trainer_of(config(MULTILEVEL, "train.soup.warmup=100", "train.soup.every=3"))
    moved, step = [], trainer.soup.soup.step
    monkeypatch.setattr(trainer.soup.soup, "step", lambda *given: (moved.append(given), step(*given)))
    before = trainer.soup.soup.coefficients(0)
    trainer._check_memory()
    assert moved and trainer.soup.soup.coefficients(0) == before


def test_what_cannot_be(config, monkeypatch):
    with pytest.raises(ValueError, match="weights=modo compares all objectives, .* set data.every_language=true"):
        trainer_of(config(MULTILEVEL, "data.every_language=false"))
    with pytest.raises(ValueError, match="detect_epochs=1 compares all objectives, .* set data.every_language=true"):
        trainer_of(config(UNIFORM, "train.soup.detect_epochs=1", "data.every_language=false"))
    monkeypatch.setattr(train, "_trainable", lambda cuts, *_: [cut for cut in cuts if language_of(cut) != "el"])
    with pytest.raises(ValueError, match="there is nothing of el to train on"):
        trainer_of(config(MULTILEVEL))
    monkeypatch.undo()
    with pytest.raises(ValueError, match="train.frozen: nothing that objectives share is left to learn"):
        trainer_of(config(MULTILEVEL, "train.frozen=[encoder]"))


def run_in(folder, prepared, processes, *options):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    done = subprocess.run(
        [*command, "-m", "masr.cli", "train", str(prepared.conf), *options], cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


SELF_SUPERVISED = (
    "model.self_supervised={kind: KIND, weight: 1.0, batch_seconds: 8, context: 0.6, future: 0.3, codes: 16}"
)
THREE = (
    "train.soup.levels=[{objectives: ['st/*'], weights: modo}, {objectives: ['asr/*'], weights: modo, "
    "penalty: {start: 0.5}}, {objectives: [KIND], penalty: {start: PENALTY}}]"
)


@pytest.mark.parametrize("kind", ["cpc", "best-rq"])
def test_speech_without_text_is_a_level(config, kind):
    found = {}
    for penalty in ("0.0", "1.0"):
        given = [option.replace("KIND", kind).replace("PENALTY", penalty) for option in (SELF_SUPERVISED, THREE)]
        trainer = trainer_of(config(*given))
        update = trainer._loader().dataset[0]
        assert len(update.unlabelled) == 2 and update.unlabelled_utterances > 2
        trainer.model.train()
        torch.manual_seed(0)
        assert trainer._backward(update)
        found[penalty] = gradients(trainer.recognizer)
    heads = [name for name in found["0.0"] if name.startswith("self_supervised.")]
    assert heads and all(torch.equal(found["0.0"][n], found["1.0"][n]) and found["1.0"][n].any() for n in heads)
    encoder = [name for name in found["0.0"] if name.startswith("encoder.blocks")]
    assert not any(torch.allclose(found["0.0"][n], found["1.0"][n]) for n in encoder if n.endswith("weight"))
    plain = trainer_of(config(SELF_SUPERVISED.replace("KIND", kind)))
    assert plain._backward(plain._loader().dataset[0])
    assert all(p.grad is not None for p in plain.recognizer.parameters() if p.requires_grad)


def test_all_in_one_vector(config):
    """VS-MSP: speech without text has its weight among the others, from two samples of its own."""
    levels = "train.soup.levels=[{objectives: ['*'], weights: modo}]"
    trainer = trainer_of(config(SELF_SUPERVISED.replace("KIND", "cpc"), levels))
    for update in range(3):
        trainer.progress["update"] = update
        assert trainer._backward(trainer._loader().dataset[update])
    assert trainer.soup.now.directions == {} and trainer.soup.now.products[0].abs().min() > 0, (
        "all have products, cpc too"
    )
    weights = trainer.soup.soup.coefficients(0)
    assert sum(weights.values()) == pytest.approx(1) and len(set(weights.values())) > 2 and "cpc" in weights
    short = trainer._loader().dataset
    short.unlabelled = [batch[:1] for batch in short.unlabelled]
    assert [len(part[0].ids) for part in short[0].unlabelled] == [2, 2], "each sample hears what it can compare"
    one = trainer._loader().dataset[0]._replace(unlabelled_utterances=1)  # half of the update hears none
    trainer._backward(one)
    assert trainer.soup.soup.coefficients(0) == weights


def test_what_is_too_short_for_cpc_is_left_out(config, capsys):
    """Its loss, and what that is divided by, are those of the others."""
    brief = SELF_SUPERVISED.replace("KIND", "cpc")
    longer = brief.replace("0.6, future: 0.3", "0.8, future: 0.4")
    trainer = trainer_of(config(longer))
    cuts = [cut for update in trainer.unlabelled.updates(0) for cut in update]
    everything = [cut for update in trainer_of(config(brief)).unlabelled.updates(0) for cut in update]
    assert min(cut.duration for cut in everything) < 1.2 <= min(cut.duration for cut in cuts)
    for update in trainer._loader().dataset:
        [batches] = update.unlabelled
        names = [name for batch in batches for name in batch.ids]
        assert update.unlabelled_utterances == len(names) > 1
        for batch in batches:
            encoded, target = trainer.recognizer.encode_views(batch)
            assert (trainer.recognizer.losses(encoded, batch, target)["cpc"] > 0).all()
    with pytest.raises(ValueError, match="no recording of train has 60 to"):
        trainer_of(config(brief.replace("0.6, future", "59.7, future")))
    longest = sorted({cut.duration for cut in everything})[-2]
    with pytest.raises(ValueError, match="it takes 4 to compare them: lower context or future"):
        trainer_of(config(brief.replace("0.6, future", f"{longest - 0.3:.3f}, future")))
    trainer_of(config(brief.replace("codes", "negatives: recording, codes")))


@pytest.mark.parametrize("negatives", ["batch, group: 3", "recording"])
def test_the_gradient_of_cpc_does_not_depend_on_micro_batches(config, negatives):
    found = []
    for seconds in (600, 4, 1):
        given = SELF_SUPERVISED.replace("KIND", "cpc").replace("codes", f"negatives: {negatives}, codes")
        trainer = trainer_of(config(given, f"data.device_seconds={seconds}"))
        trainer.model.train()
        update = trainer._loader().dataset[0]
        assert trainer._backward(update)
        found.append((len(update.unlabelled[0]), gradients(trainer.recognizer)))
    assert found[0][0] < found[1][0] <= found[2][0]
    for _, other in found[1:]:
        assert all(torch.allclose(other[n], g, atol=1e-4, rtol=1e-3) for n, g in found[0][1].items())


def test_two_processes_and_micro_batches_are_as_one(config, prepared, workdir):
    levels = THREE.replace("KIND", "cpc").replace("PENALTY", "0.5")
    heard = SELF_SUPERVISED.replace("KIND", "cpc")
    options = [levels, heard, "train.soup.detect_epochs=1", "train.soup.detect_every=2", "name=alone"]
    alone = config(*options)
    train.run(alone)
    overrides = [f"data_dir={workdir}/data", *OPTIONS, *options[:-1], "name=two", "data.device_seconds=4"]
    run_in(workdir, prepared, 2, *overrides)
    expected = load_file(workdir / "exp/alone/averaged.safetensors")
    for name, tensor in load_file(workdir / "exp/two/averaged.safetensors").items():
        if not name.endswith("key.bias"):
            assert torch.allclose(tensor, expected[name], atol=3e-4), name
    logs = [(workdir / f"exp/{name}/log.jsonl").read_text().splitlines() for name in ("alone", "two")]
    for one, two in zip(*([json.loads(line) for line in log if '"weight/' in line] for log in logs), strict=True):
        shown = [name for name in one if name.startswith(("weight/", "penalty/", "conflict/", "cosine/"))]
        assert [two[name] for name in shown] == pytest.approx([one[name] for name in shown], rel=0.01, abs=1e-3)
    assert any(abs(row - 1 / 3) > 0.01 for row in (one["weight/asr/el"], one["weight/st/es"]))


def test_a_run_goes_on_exactly(config, workdir, monkeypatch):
    options = [MULTILEVEL, "train.soup.detect_epochs=1", "train.soup.detect_every=1", "model.encoder.dropout=0.1"]
    train.run(config(*options, "name=straight"))

    evaluate = Trainer._evaluate_and_save
    calls = []

    def once(self):
        evaluate(self)
        calls.append(self)
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_evaluate_and_save", once)
    with pytest.raises(KeyboardInterrupt):
        train.run(config(*options, "name=broken"))
    train.run(config(*options, "name=broken"))
    assert len(calls) == 2, "at update 3, and at the end"
    straight, broken = (
        [json.loads(line) for line in (workdir / f"exp/{name}/log.jsonl").read_text().splitlines()]
        for name in ("straight", "broken")
    )
    states = [load_state(find_checkpoint(workdir / f"exp/{run}/checkpoints"), 0)[0] for run in ("straight", "broken")]
    conflicts = [state["soup"]["conflicts"] for state in states]
    assert conflicts[0]["measured"] == conflicts[1]["measured"] == 3
    assert torch.equal(conflicts[0]["sums"], conflicts[1]["sums"])
    for name in ("weights", "objectives", "layers"):
        one, other = ((workdir / f"exp/{run}/soup/{name}.svg").read_text() for run in ("straight", "broken"))
        assert one == other and "<svg" in one
    for one, other in zip(straight, broken, strict=True):
        speed = {"audio_seconds_per_second": 0}
        assert one | speed == other | speed
