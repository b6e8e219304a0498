"""Weights of objectives, against references."""

import sys

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from masr.soup.weighting import mgda_weights, modo_step, project_to_simplex, torchjd_weights


@pytest.mark.parametrize("size", [1, 2, 5, 22])
def test_projection_is_the_closest_point_of_the_simplex(size):
    random = np.random.default_rng(size)
    for _ in range(5):
        point = random.normal(0, 1, size)
        found = project_to_simplex(torch.from_numpy(point))
        assert found.sum().item() == pytest.approx(1) and (found >= 0).all()
        limits = {"type": "eq", "fun": lambda x: x.sum() - 1}
        start = np.full(size, 1 / size)
        reference = minimize(lambda x, p=point: ((x - p) ** 2).sum(), start, bounds=[(0, 1)] * size, constraints=limits)
        assert np.allclose(found.numpy(), reference.x, atol=1e-4)


def test_a_point_of_the_simplex_stays():
    weights = torch.tensor([0.2, 0.0, 0.8])
    assert torch.allclose(project_to_simplex(weights), weights)


@pytest.mark.parametrize("size", [2, 3, 11])
def test_mgda_is_that_of_torchjd(size):
    from torchjd.aggregation import MGDAWeighting

    for seed in range(5):
        gradients = torch.randn(size, 40, generator=torch.Generator().manual_seed(seed)).double()
        gradients[0] *= 5
        gramian = gradients @ gradients.T
        ours, theirs = mgda_weights(gramian), MGDAWeighting(epsilon=1e-9, max_iters=20000)(gramian)
        assert torch.allclose(ours, theirs, atol=2e-3)
        assert ours @ gramian @ ours <= theirs @ gramian @ theirs * (1 + 1e-6)


def test_two_gradients_have_the_closed_form():
    one, two = torch.tensor([2.0, 0.0]), torch.tensor([-1.0, 1.0])
    gradients = torch.stack((one, two))
    share = ((two - one) @ two / (one - two).square().sum()).clamp(0, 1)
    assert mgda_weights(gradients @ gradients.T)[0].item() == pytest.approx(share.item(), abs=1e-6)


def test_modo_comes_to_rest_on_the_pareto_front():
    """|x - a|^2 and |x - b|^2, seen through noise: stationary between a and b, where their gradients cancel out."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.tensor([[1.0, 0.0], [-1.0, 2.0]])
    x, weights = torch.tensor([3.0, 3.0]), torch.tensor([0.5, 0.5])

    def gradients() -> torch.Tensor:
        return 2 * (x - targets) + 0.1 * torch.randn(2, 2, generator=generator)

    for number in range(4000):
        rate = 0.02 / (1 + number / 500)
        first, second = gradients(), gradients()
        weights = modo_step(weights, first @ (second.T @ weights), rate, 0.0)
        x = x - rate * weights @ gradients()
    true = 2 * (x - targets)
    best = mgda_weights(true @ true.T).float()
    assert (best @ true).norm() < 0.05
    along = (x - targets[0]) @ (targets[1] - targets[0]) / (targets[1] - targets[0]).square().sum()
    assert 0 <= along <= 1


def test_pull_leads_back_to_equal_weights():
    weights = torch.tensor([0.9, 0.1, 0.0])
    for _ in range(2000):
        weights = modo_step(weights, torch.zeros(3), 0.01, 1.0)
    assert torch.allclose(weights, torch.full((3,), 1 / 3), atol=1e-3)


@pytest.mark.parametrize("name", ["UPGrad", "PCGrad", "MGDA(max_iters=50)"])
def test_aggregators_of_torchjd(name):
    gradients = torch.randn(4, 30, generator=torch.Generator().manual_seed(1))
    assert torchjd_weights(name, gradients @ gradients.T).sum().item() == pytest.approx(1)


@pytest.mark.parametrize("name", ["MODO", "MoDo", "ExcessMTL", "GradVac", "Random", "IMTLG", "AlignedMTL"])
def test_aggregators_that_remember_look_at_gradients_or_go_against_some_are_refused(name):
    with pytest.raises(ValueError, match=f"weights={name}: unknown; there are uniform, static, modo, mgda, .*UPGrad"):
        torchjd_weights(name, torch.eye(2))


def test_aggregators_get_their_options():
    pytest.importorskip("cvxpy", reason="of torchjd's CAGrad")
    assert torchjd_weights("CAGrad(c=0.4)", torch.eye(2)).tolist() == pytest.approx([0.5, 0.5], abs=1e-3)


def test_without_torchjd_a_misspelt_name_is_named_all_the_same(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchjd", None)
    with pytest.raises(ValueError, match=r"weights=uniformm: unknown; there are uniform, .* pip install masr\[soup\]"):
        torchjd_weights("uniformm", torch.eye(2))


@pytest.mark.parametrize("name", ["CAGrad", "UPGrad(c)", "UPGrad(d=1)", "UPGrad(c=x)"])
def test_options_that_are_wrong_are_named(name):
    with pytest.raises(ValueError, match="train.soup: weights="):
        torchjd_weights(name, torch.eye(2))
