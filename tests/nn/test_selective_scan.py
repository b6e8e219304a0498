"""Scans of selective state spaces against the recurrence of the papers, frame by frame in float64."""

import pytest
import torch
from torch import Tensor

from masr.nn.selective_scan import _doubling_scan, chunked_scan, selective_scan, selective_step, state_space_duality


def sequential(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Mamba-1 as it is written: x, dt (batch, T, D), A (D, N), B, C (batch, T, N), state (batch, D, N)."""
    outputs = []
    for t in range(x.shape[1]):
        state = torch.exp(dt[:, t, :, None] * A) * state + (dt[:, t] * x[:, t])[..., None] * B[:, t, None]
        outputs.append((state * C[:, t, None]).sum(-1))
    return torch.stack(outputs, 1), state


def sequential_heads(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Mamba-2 as a Mamba-1 whose channels of a head share their rate."""
    size = x.shape[-1]
    rates = A.repeat_interleave(size)[:, None].expand(-1, B.shape[-1])
    y, state = sequential(x.flatten(2), dt.repeat_interleave(size, -1), rates, B, C, state.flatten(1, 2))
    return y.view_as(x), state.view(len(x), len(A), size, -1)


def inputs(batch: int, time: int, channels: int, size: int, heads: int = 0) -> list[Tensor]:
    """float64 inputs with steps and rates as a model has them; with ``heads``, of Mamba-2."""
    torch.manual_seed(0)
    shape = (batch, time, heads or channels)
    x, state = torch.randn(batch, time, channels), torch.randn(batch, channels, size)
    A = -torch.linspace(1, 16, size).expand(channels, size)
    if heads:
        x, state, A = x.unflatten(-1, (heads, -1)), state.unflatten(1, (heads, -1)), -torch.linspace(1, 16, heads)
    drawn = [
        x,
        torch.rand(shape) * 0.1 + 1e-3,
        A,
        torch.randn(batch, time, size),
        torch.randn(batch, time, size),
        state,
    ]
    return [value.double().contiguous() for value in drawn]


def assert_same_values_and_gradients(scan, reference, values: list[Tensor]) -> None:
    exact = [value.clone().requires_grad_() for value in values]
    single = [value.float().requires_grad_() for value in values]
    expected, found = reference(*exact), scan(*single)
    weights = [torch.randn_like(part) for part in expected]
    sum((part * weight).sum() for part, weight in zip(expected, weights, strict=True)).backward()
    sum((part * weight).sum() for part, weight in zip(found, weights, strict=True)).backward()
    for one, other in zip([*found, *(v.grad for v in single)], [*expected, *(v.grad for v in exact)], strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5 * max(1.0, other.abs().max().item()))


SHAPES = [(1, 1, 3, 2), (3, 37, 40, 4), (2, 90, 512, 16), (9, 5, 512, 16)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scan", [selective_scan, _doubling_scan])
def test_mamba_1_is_the_recurrence_of_the_paper_and_so_are_all_gradients(scan, shape):
    assert_same_values_and_gradients(scan, sequential, inputs(*shape))


@pytest.mark.parametrize("time", [1, 32, 77])
def test_mamba_2_is_the_recurrence_of_the_paper_and_so_are_all_gradients(time):
    assert_same_values_and_gradients(state_space_duality, sequential_heads, inputs(2, time, 32, 6, heads=4))


@pytest.mark.parametrize("chunk", [1, 8, 32, 200])
@pytest.mark.parametrize("time", [1, 32, 77])
def test_so_is_its_form_as_products_of_matrices(time, chunk):
    values = inputs(2, time, 32, 6, heads=4)
    assert_same_values_and_gradients(lambda *v: chunked_scan(*v, chunk=chunk), sequential_heads, values)


@pytest.mark.parametrize("scan", [selective_scan, state_space_duality])
def test_gradients_agree_with_finite_differences(scan):
    values = [value.requires_grad_() for value in inputs(2, 5, 4, 2, heads=2 if scan is state_space_duality else 0)]
    assert torch.autograd.gradcheck(scan, values)


@pytest.mark.parametrize("scan", [selective_scan, state_space_duality])
def test_the_number_of_threads_changes_nothing(scan):
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        values = [
            v.float().requires_grad_() for v in inputs(5, 20, 8, 4, heads=2 if scan is state_space_duality else 0)
        ]
        y, state = scan(*values)
        (y.pow(2).sum() + state.sum()).backward()
        found.append([y, state, *(value.grad for value in values)])
    torch.set_num_threads(1)
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("scan", [selective_scan, state_space_duality])
def test_second_derivatives_are_refused(scan):
    values = [v.float().requires_grad_() for v in inputs(1, 4, 4, 2, heads=2 if scan is state_space_duality else 0)]
    gradients = torch.autograd.grad(scan(*values)[0].pow(2).sum(), values[:2], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradients[0].sum().backward()


def test_very_fast_decay_forgets_and_does_not_overflow():
    x, dt, A, B, C, state = (value.float() for value in inputs(1, 4, 3, 2))
    y, after = selective_scan(x, dt * 1e4, A, B, C, state)
    torch.testing.assert_close(after, (dt[:, -1] * 1e4 * x[:, -1])[..., None] * B[:, -1, None])
    assert torch.isfinite(y).all()


def test_what_is_not_a_number_is_not_hidden():
    x, dt, A, B, C, _ = (value.float() for value in inputs(1, 4, 3, 2))
    dt[0, 1, 2] = torch.nan
    y, _ = selective_scan(x, dt, A, B, C)
    assert torch.isnan(y[0, 1:, 2]).all() and torch.isfinite(y[0, :, :2]).all()


@pytest.mark.parametrize("cuts", [[40], [1, 39], [7, 8, 25], [1] * 40])
def test_the_state_after_all_frames_does_not_depend_on_the_pieces(cuts):
    x, dt, A, B, C, state = (value.float() for value in inputs(2, 40, 12, 4))
    whole, last = selective_scan(x, dt, A, B, C, state)
    outputs = []
    for part in zip(*(value.split(cuts, 1) for value in (x, dt, B, C)), strict=True):
        xs, dts, Bs, Cs = part
        output, state = selective_scan(xs, dts, A, Bs, Cs, state)
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, 1), whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(state, last, rtol=1e-5, atol=1e-6)


def test_a_step_is_a_scan_of_one_frame():
    x, dt, A, B, C, state = (value.float() for value in inputs(3, 6, 8, 4))
    whole, _ = selective_scan(x, dt, A, B, C, state)
    for frame in range(6):
        y, state = selective_step(x[:, frame], dt[:, frame], A, B[:, frame], C[:, frame], state)
        torch.testing.assert_close(y, whole[:, frame], rtol=1e-5, atol=1e-6)


def test_frames_without_a_step_leave_the_state_as_it_is():
    x, dt, A, B, C, state = (value.float() for value in inputs(2, 9, 8, 4))
    torch.testing.assert_close(selective_scan(x, torch.zeros_like(dt), A, B, C, state)[1], state)


@pytest.mark.parametrize("scan", [selective_scan, state_space_duality])
def test_no_frames(scan):
    x, dt, A, B, C, state = inputs(2, 0, 8, 4, heads=2 if scan is state_space_duality else 0)
    y, after = scan(x, dt, A, B, C, state)
    assert y.shape == x.shape and torch.equal(after, state)


def test_autocast_does_not_touch_the_scan():
    values = [value.float() for value in inputs(2, 9, 8, 4)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = selective_scan(values[0].bfloat16(), *values[1:])
    assert y.dtype == state.dtype == torch.float32
    torch.testing.assert_close(y, selective_scan(values[0].bfloat16().float(), *values[1:])[0])
