import pytest
import torch

from masr.nn.dropout import Dropout


def drop(p: float, values: torch.Tensor, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return Dropout(p).train()(values)


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_rate_and_mean(p):
    dropped = drop(p, torch.ones(1000, 1000))
    assert (dropped == 0).float().mean().item() == pytest.approx(round(p * 256) / 256, abs=0.002)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.01)
    assert len(dropped.unique()) == 2  # zero, and one scale for all that stay


def test_neighbours_are_dropped_independently():
    zero = (drop(0.5, torch.ones(1_000_000)) == 0).float()
    for distance in range(1, 17):  # eight values share one random number
        assert (zero[distance:] * zero[:-distance]).mean().item() == pytest.approx(0.25, abs=0.005)


def test_rate_is_the_same_at_every_place():
    """None of the eight bytes of a random number is special."""
    zero = (drop(0.2, torch.ones(100_000, 8)) == 0).float().mean(0)
    assert torch.allclose(zero, torch.full((8,), round(0.2 * 256) / 256), atol=0.006)


def test_evaluation_and_zero_rate_are_the_identity():
    values = torch.randn(3, 5)
    assert Dropout(0.5).eval()(values) is values
    assert Dropout(0.0).train()(values) is values


def test_seed_decides():
    values = torch.randn(7, 11)
    assert torch.equal(drop(0.5, values, seed=3), drop(0.5, values, seed=3))
    assert not torch.equal(drop(0.5, values, seed=3), drop(0.5, values, seed=4))


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5, 3), (0, 4)])
def test_any_shape(shape):
    values = torch.rand(shape) + 1
    dropped = drop(0.5, values)
    assert dropped.shape == values.shape
    assert ((dropped == 0) | torch.isclose(dropped, 2 * values)).all()


def test_values_that_are_not_contiguous():
    values = torch.rand(4, 6).T + 1
    dropped = drop(0.5, values)
    assert ((dropped == 0) | torch.isclose(dropped, 2 * values)).all()


def test_gradient_is_the_mask():
    values = torch.rand(50, requires_grad=True)
    dropped = drop(0.5, values)
    dropped.sum().backward()
    assert torch.equal(values.grad, (dropped != 0) * 2.0)


@pytest.mark.parametrize("p", [1.0, 0.999, -0.1])
def test_rates_that_leave_nothing_are_refused(p):
    with pytest.raises(ValueError, match=f"dropout {p:g} leaves nothing"):
        Dropout(p)
