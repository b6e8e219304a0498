import math

import pytest
import torch
from torch import nn

from masr.config import Train
from masr.train.optim import build_optimizer, build_schedule, learning_rate_factor


def factors(updates: list[int], **options) -> list[float]:
    return [learning_rate_factor(update, Train(updates=10, warmup=4, **options)) for update in updates]


@pytest.mark.parametrize("schedule", ["linear", "cosine", "noam"])
def test_warm_up_is_linear_to_the_peak(schedule):
    assert factors([0, 1, 2, 3], schedule=schedule) == [0.25, 0.5, 0.75, 1.0]


def test_linear_decay_by_hand():
    assert factors([4, 5, 7, 9, 10, 11], schedule="linear") == pytest.approx([1, 5 / 6, 0.5, 1 / 6, 0, 0])


def test_cosine_decay_by_hand():
    expected = [1.0, (1 + math.sqrt(3) / 2) / 2, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert factors([4, 5, 6, 7, 8, 10, 12], schedule="cosine") == pytest.approx(expected)


def test_noam_decay_by_hand():
    assert factors([4, 15, 35, 399], schedule="noam") == pytest.approx([math.sqrt(0.8), 0.5, 1 / 3, 0.1])


@pytest.mark.parametrize("schedule", ["linear", "cosine", "noam"])
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
    optimizer = build_optimizer(model, Train(weight_decay=0.1, learning_rate=0.01))
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
