import copy
import math

import pytest
import torch
from torch import nn

from masr.config import Train
from masr.nn.conformer import fuse
from masr.train.optim import build_optimizer, build_schedule, learning_rate_factor, orthogonalize


def factors(updates: list[int], **options) -> list[float]:
    return [learning_rate_factor(update, Train(updates=10, warmup=4, **options)) for update in updates]


@pytest.mark.parametrize("schedule", ["linear", "cosine", "noam", "constant"])
def test_warm_up_is_linear_to_the_peak(schedule):
    assert factors([0, 1, 2, 3], schedule=schedule) == [0.25, 0.5, 0.75, 1.0]


def test_linear_decay_by_hand():
    assert factors([4, 5, 7, 9, 10, 11], schedule="linear") == pytest.approx([1, 5 / 6, 0.5, 1 / 6, 0, 0])


def test_cosine_decay_by_hand():
    expected = [1.0, (1 + math.sqrt(3) / 2) / 2, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert factors([4, 5, 6, 7, 8, 10, 12], schedule="cosine") == pytest.approx(expected)


def test_noam_decay_by_hand():
    assert factors([4, 15, 35, 399], schedule="noam") == pytest.approx([math.sqrt(0.8), 0.5, 1 / 3, 0.1])


def test_a_constant_rate_stays_at_the_peak():
    assert factors([4, 5, 9, 10, 4000], schedule="constant") == [1.0] * 5


@pytest.mark.parametrize("schedule", ["linear", "cosine", "noam", "constant"])
def test_no_warm_up_starts_at_the_peak(schedule):
    assert learning_rate_factor(0, Train(updates=10, warmup=0, schedule=schedule)) == 1.0


def test_warm_up_as_long_as_the_run():
    options = Train(updates=3, warmup=3, schedule="cosine")
    assert [learning_rate_factor(update, options) for update in range(4)] == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0])


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(2, 3, 3), nn.LayerNorm(3), nn.Linear(3, 4), nn.Embedding(5, 3))


def test_decay_acts_on_matrices_and_kernels_only(model):
    optimizer = build_optimizer(model, Train(optimizer="adamw", weight_decay=0.1, learning_rate=0.01))
    decayed, others = optimizer.param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(p)] for p in decayed["params"]} == {"0.weight", "2.weight", "3.weight"}
    assert {names[id(p)] for p in others["params"]} == {"0.bias", "1.weight", "1.bias", "2.bias"}
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # without a gradient only the decay acts
    for name, parameter in model.named_parameters():
        shrunk = 1 - 0.01 * 0.1 if parameter.ndim > 1 else 1.0
        assert torch.allclose(parameter, before[name] * shrunk, atol=1e-7), name


def test_frozen_parameters_are_left_out(model):
    model[2].requires_grad_(False)
    groups = build_optimizer(model, Train()).param_groups
    assert sum(len(group["params"]) for group in groups) == 5


def test_schedule_sets_the_rate_of_every_update(model):
    options = Train(updates=6, warmup=2, schedule="linear", learning_rate=0.02)
    optimizer = build_optimizer(model, options)
    schedule = build_schedule(optimizer, options)
    rates = []
    for _ in range(6):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert rates == [pytest.approx([rate, rate]) for rate in (0.01, 0.02, 0.02, 0.015, 0.01, 0.005)]


def test_gradient_is_followed(model):
    """One step of Adam with bias correction moves every weight by the learning rate against its gradient's sign."""
    optimizer = build_optimizer(model, Train(learning_rate=0.01, weight_decay=0.0))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    optimizer.step()
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert torch.allclose(parameter, old - 0.01, atol=1e-6)


# --- Muon -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 8), (8, 24), (24, 8)])
def test_orthogonalized_matrices_turn_every_direction_equally(shape):
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    left, values, right = torch.linalg.svd(orthogonalize(matrices), full_matrices=False)
    assert values.min() > 0.6 and values.max() < 1.25
    exact_left, _, exact_right = torch.linalg.svd(matrices, full_matrices=False)
    assert torch.allclose(left @ right, exact_left @ exact_right, atol=1e-4)


class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(5, 4)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8)), nn.Conv1d(8, 8, 3)])
        self.head = nn.Linear(8, 5)


def with_gradients(model: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    return model


def test_muon_takes_the_matrices_of_blocks_only():
    model = Stack()
    optimizer = build_optimizer(model, Train(optimizer="muon"))
    [matrix] = [p for group in optimizer.param_groups if group["orthogonal"] for p in group["params"]]
    assert matrix is model.blocks[0][0].weight
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


def test_muon_moves_as_torchs_own(steps=3):
    """torch.optim.Muon computes in bfloat16, hence the tolerance; the rest follows AdamW."""
    ours, theirs = Stack(), Stack()
    optimizer = build_optimizer(ours, Train(optimizer="muon", learning_rate=0.01, weight_decay=0.1))
    matrix = theirs.blocks[0][0].weight
    peer = torch.optim.Muon([matrix], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adamw = build_optimizer(theirs, Train(optimizer="adamw", learning_rate=0.01, weight_decay=0.1))
    adamw.param_groups[0]["params"] = [p for p in adamw.param_groups[0]["params"] if p is not matrix]
    before = matrix.detach().clone()
    for _ in range(steps):
        with_gradients(ours), with_gradients(theirs)
        optimizer.step(), peer.step(), adamw.step()
    moved = (matrix - before).norm()
    assert (ours.blocks[0][0].weight - matrix).norm() < 0.1 * moved and moved > 0.01
    others = [(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True) if b is not matrix]
    assert all(torch.equal(a, b) for a, b in others)


def test_layers_computed_at_once_are_orthogonalized_apart():
    torch.manual_seed(0)
    together, apart = nn.ModuleDict({"blocks": fuse(nn.Linear(4, 12), 3)}), nn.ModuleDict()
    apart["blocks"] = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
    options = Train(optimizer="muon", learning_rate=0.1, weight_decay=0.0)
    gradient, before = torch.randn(12, 4), together["blocks"].weight.detach().clone()
    together["blocks"].weight.grad = gradient
    old = [linear.weight.detach().clone() for linear in apart["blocks"]]
    for linear, part in zip(apart["blocks"], gradient.split(4), strict=True):
        linear.weight.grad = part
    build_optimizer(together, options).step()
    build_optimizer(apart, options).step()
    steps = [linear.weight - weight for linear, weight in zip(apart["blocks"], old, strict=True)]
    assert torch.allclose(together["blocks"].weight - before, torch.cat(steps), atol=1e-6)


def test_muon_goes_on_from_its_state():
    straight, resumed = Stack(), Stack()
    optimizer = build_optimizer(straight, Train())
    with_gradients(straight)
    optimizer.step()
    resumed.load_state_dict(straight.state_dict())
    again = build_optimizer(resumed, Train())
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for model, own in ((straight, optimizer), (resumed, again)):
        with_gradients(model)
        own.step()
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))


def test_a_gradient_scaler_skips_muons_bad_steps():
    """As in float16, where the first scale is often too large."""
    model = with_gradients(Stack())
    optimizer, scaler = build_optimizer(model, Train()), torch.amp.GradScaler("cpu")
    scaler.scale(torch.ones(())), scaler.step(optimizer), scaler.update()
    before = [p.detach().clone() for p in model.parameters()]
    with_gradients(model).blocks[0][0].weight.grad[0, 0] = math.inf
    scaler.step(optimizer), scaler.update()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    with_gradients(model)
    scaler.step(optimizer)
    assert all(p.isfinite().all() for p in model.parameters())
    assert not torch.equal(before[1], model.blocks[0][0].weight)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_encoder_has_a_learning_rate_of_its_own(optimizer):
    block = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(4, 4)])})
    model = nn.ModuleDict({"encoder": block, "head": nn.Linear(4, 3)})
    options = Train(optimizer=optimizer, learning_rate=0.01, encoder_factor=0.1, warmup=0)
    groups = build_optimizer(model, options).param_groups
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert len(rates) == 4
    assert {name: rates[id(p)] for name, p in model.named_parameters()} == {
        name: pytest.approx(0.001 if name.startswith("encoder") else 0.01) for name, _ in model.named_parameters()
    }
