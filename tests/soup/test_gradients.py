"""Products of gradients by differences of outputs, against automatic differentiation in float64."""

import copy

import pytest
import torch

from masr.config import Encoder
from masr.nn.conformer import ConformerBlock
from masr.soup.gradients import STEP, directional_change, full_precision

OPTIONS = Encoder(width=32, heads=2, feedforward=64, kernel=5, dropout=0.0)


def through(blocks, frames: torch.Tensor) -> list[torch.Tensor]:
    for block in blocks:
        frames = block(frames, None)
    return [frames]


def rms_error(scale: float, **options) -> float:
    """Of the products of eight gradients with one another through four blocks, as a share of their norms: in units of
    a cosine. Matrices ``scale`` times as large as at the beginning bend more."""
    torch.manual_seed(0)
    model = torch.nn.ModuleList([ConformerBlock(OPTIONS) for _ in range(4)]).eval()
    for parameter in model.parameters():
        parameter.data *= scale if parameter.dim() > 1 else 1.0
    exact, frames = copy.deepcopy(model).double(), torch.randn(3, 20, 32)
    [there] = through(exact, frames.double())
    cotangents = torch.randn(8, *there.shape, dtype=torch.float64)
    each = [torch.autograd.grad(there, list(exact.parameters()), c, retain_graph=True) for c in cotangents]
    products = []
    for gradient in each:
        direction = [part.float() for part in gradient]
        [change] = directional_change(lambda: through(model, frames), list(model.parameters()), direction, **options)
        products.append((cotangents.float() * change).flatten(1).sum(1).double())
    gradients = torch.stack([torch.cat([part.flatten() for part in gradient]) for gradient in each])
    norms = gradients.norm(dim=1)
    errors = (torch.stack(products) - gradients @ gradients.T) / (norms * norms[:, None])
    return errors.square().mean().sqrt().item()


@pytest.mark.parametrize("scale", [1.0, 2.0, 3.0])
def test_products_are_those_of_float64_within_the_stated_error(scale):
    """6e-5, 6e-5 and 2.2e-4; one-sided differences with a step of 1e-5 had 8e-3 at the last."""
    error = rms_error(scale)
    assert error < 3e-4, error


def test_a_larger_and_a_smaller_step_have_larger_errors():
    """Curvature above, rounding below."""
    assert rms_error(3.0, step=10 * STEP) > 2 * rms_error(3.0) < rms_error(3.0, step=STEP / 10)


def test_products_are_in_full_precision_whatever_surrounds_them():
    """Differences of bfloat16 numbers would be nothing but rounding."""
    torch.manual_seed(0)
    layer, frames = torch.nn.Linear(8, 8), torch.randn(4, 8)
    direction = [torch.randn_like(parameter) for parameter in layer.parameters()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        [change] = directional_change(lambda: [layer(frames)], list(layer.parameters()), direction)
    exact = frames @ direction[0].T + direction[1]
    assert (change - exact).norm() < 0.03 * exact.norm()


def test_tensor_cores_do_not_round_and_are_as_before_afterwards():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    try:
        matmul.allow_tf32 = cudnn.allow_tf32 = True
        with full_precision("cpu"):
            assert not matmul.allow_tf32 and not cudnn.allow_tf32
        assert matmul.allow_tf32 and cudnn.allow_tf32
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def test_a_direction_without_length_changes_nothing():
    layer, frames = torch.nn.Linear(8, 8), torch.randn(4, 8)
    zeros = [torch.zeros_like(parameter) for parameter in layer.parameters()]
    before = layer.weight.clone()
    for direction in (zeros, [torch.full_like(part, float("nan")) for part in zeros]):
        [change] = directional_change(lambda: [layer(frames)], list(layer.parameters()), direction)
        assert not change.any() and torch.equal(layer.weight, before)
