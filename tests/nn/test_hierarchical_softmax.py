"""The hierarchical softmax against a walk down the tree, decision by decision, in float64."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from masr.nn.hierarchical_softmax import HierarchicalSoftmax, TreePaths
from masr.vocab.tree import Tree, balanced, huffman

WIDTH = 6
COUNTS = np.exp2(np.arange(23) / 2).astype(int)
NAMES = [f"{i:02}" for i in range(23)]


@pytest.fixture(params=["huffman", "balanced", "chain", "two tokens"])
def tree(request) -> Tree:
    chain = [(0, 1), *((2 + i, 9 + i) for i in range(7))]
    return {
        "huffman": lambda: huffman(COUNTS, NAMES), "balanced": lambda: balanced(NAMES, seed=1),
        "chain": lambda: Tree(np.array(chain)), "two tokens": lambda: Tree(np.array([(1, 0)])),
    }[request.param]()  # fmt: skip


def layer(tree: Tree, smoothing="tokens", scale: float = 1.0) -> HierarchicalSoftmax:
    torch.manual_seed(0)
    made = HierarchicalSoftmax(WIDTH, tree, smoothing).double()
    torch.nn.init.normal_(made.output.weight, std=scale)
    return made


def by_hand(made: HierarchicalSoftmax, hidden: torch.Tensor) -> torch.Tensor:
    """(N, V) log-probabilities, walking down from the root."""
    tree = made.tree

    def walk(node: int, log_prob: float, vector: torch.Tensor, into: list) -> list:
        if node < len(tree):
            into[node] = log_prob
            return into
        inner = node - len(tree)
        score = (made.output.weight[inner] @ vector).item()
        for child, sign in zip(tree.children[inner], (1, -1), strict=True):
            walk(int(child), log_prob - math.log1p(math.exp(-sign * score)), vector, into)
        return into

    return torch.tensor([walk(tree.root, 0.0, vector, [0.0] * len(tree)) for vector in hidden], dtype=torch.float64)


def test_equal_to_a_walk_down_the_tree(tree):
    made, hidden = layer(tree), torch.randn(3, 5, WIDTH, dtype=torch.float64)
    log_probs = made.log_probs(hidden)
    assert log_probs.shape == (3, 5, len(tree))
    assert torch.allclose(log_probs.flatten(0, 1), by_hand(made, hidden.flatten(0, 1)), atol=1e-12)
    assert torch.allclose(log_probs.exp().sum(-1), torch.ones(3, 5, dtype=torch.float64), atol=1e-12)


def test_what_is_certain_stays_finite(tree):
    made = layer(tree, scale=300.0).float()
    hidden = torch.randn(4, WIDTH, requires_grad=True)
    log_probs = made.log_probs(hidden)
    assert log_probs.isfinite().all() and torch.allclose(log_probs.exp().sum(-1), torch.ones(4), atol=1e-5)
    made.loss(hidden, torch.zeros(4, dtype=torch.long), 0.1).sum().backward()
    assert hidden.grad.isfinite().all() and made.output.weight.grad.isfinite().all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_from_the_path_is_that_from_all_tokens(tree, smoothing):
    made, hidden = layer(tree), torch.randn(2, 7, WIDTH, dtype=torch.float64)
    targets = torch.randint(len(tree), (2, 7))
    log_probs = made.log_probs(hidden)
    flat = F.cross_entropy(log_probs.flatten(0, 1), targets.flatten(), reduction="none", label_smoothing=smoothing)
    assert torch.allclose(made.loss(hidden, targets, smoothing).flatten(), flat, atol=1e-12)


def test_smoothed_decisions(tree):
    """Each decision on the way is a cross-entropy with a target of 1 - e on its side."""
    made, hidden = layer(tree, "decisions"), torch.randn(9, WIDTH, dtype=torch.float64)
    targets = torch.arange(9) % len(tree)
    expected = []
    for vector, token in zip(hidden, targets.tolist(), strict=True):
        loss = torch.zeros((), dtype=torch.float64)
        for inner, side in zip(*(table[token] for table in tree.paths), strict=True):
            if inner >= 0:
                left = torch.tensor(0.9 if side == 0 else 0.1, dtype=torch.float64)
                loss = loss + F.binary_cross_entropy_with_logits(made.output.weight[inner] @ vector, left)
        expected.append(loss)
    assert torch.allclose(made.loss(hidden, targets, 0.1), torch.stack(expected), atol=1e-12)
    assert torch.allclose(
        made.loss(hidden, targets, 0.0), -made.log_probs(hidden).gather(1, targets[:, None])[:, 0], atol=1e-12
    )


def test_gradients(tree):
    made = layer(tree)
    hidden = torch.randn(4, WIDTH, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(len(tree), (4,))
    weight = made.output.weight

    def of(function):
        return lambda hidden, weight: torch.func.functional_call(made, {"output.weight": weight}, (hidden,), {})

    made.forward = made.log_probs
    assert torch.autograd.gradcheck(of(made), (hidden, weight))
    for smoothing, kind in ((0.0, "tokens"), (0.2, "tokens"), (0.2, "decisions")):
        made.smoothing = kind
        made.forward = lambda hidden, e=smoothing: made.loss(hidden, targets, e)
        assert torch.autograd.gradcheck(of(made), (hidden, weight))


def test_devices_without_the_kernels_compute_the_same(tree, monkeypatch):
    """The way of other devices, taken on this one."""
    hidden = torch.randn(5, WIDTH, dtype=torch.float64, requires_grad=True)
    targets, direction = torch.randint(len(tree), (5,)), torch.randn(5, len(tree), dtype=torch.float64)

    def results() -> list[torch.Tensor]:
        made = layer(tree, "decisions")
        values = [made.log_probs(hidden), made.loss(hidden, targets, 0.1)]
        grads = [
            grad for value, weight in zip(values, (direction, torch.ones(5)), strict=True)
            for grad in torch.autograd.grad((value * weight).sum(), (hidden, made.output.weight))
        ]  # fmt: skip
        return [*values, *grads, *made.best_first(hidden, 2)]

    with_kernels = results()
    monkeypatch.setattr("masr.nn.hierarchical_softmax._kernel_knows", lambda values: False)
    for ours, theirs in zip(with_kernels, results(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)


def test_padding_and_shape_change_nothing():
    tree = huffman(COUNTS, NAMES)
    paths, scores = TreePaths(tree), torch.randn(3, 4, 22)
    assert torch.equal(paths(scores)[1], paths(scores[1])) and paths(scores[:0]).shape == (0, 4, 23)
    assert paths(scores.bfloat16()).dtype == torch.float32
    assert torch.equal(paths(scores.transpose(0, 1)), paths(scores).transpose(0, 1))


@pytest.mark.parametrize("kind", ["tokens", "decisions"])
@pytest.mark.parametrize("kernels", [True, False])
def test_mixed_precision(kind, kernels, monkeypatch):
    """Scores may be rounded, sums over the vocabulary may not."""
    monkeypatch.setattr("masr.nn.hierarchical_softmax._kernel_knows", lambda values: kernels)
    made = layer(huffman(COUNTS, NAMES), kind).float()
    hidden, targets = torch.randn(2, 3, WIDTH), torch.randint(23, (2, 3))
    expected = made.loss(hidden, targets, 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        found, log_probs = made.loss(hidden, targets, 0.1), made.log_probs(hidden)
    assert found.dtype == log_probs.dtype == torch.float32
    assert torch.allclose(found, expected, rtol=0.02, atol=0.05)
    assert torch.allclose(log_probs.exp().sum(-1), torch.ones(2, 3), atol=1e-5)


def test_one_vector_alone():
    made, vector = layer(huffman(COUNTS, NAMES)), torch.randn(WIDTH, dtype=torch.float64)
    assert torch.equal(made.log_probs(vector), made.log_probs(vector[None])[0])
    for smoothing in (0.0, 0.1):
        loss = made.loss(vector, torch.tensor(3), smoothing)
        assert torch.equal(loss, made.loss(vector[None], torch.tensor([3]), smoothing)[0])


@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0])
def test_best_first_is_exact(tree, scale):
    made, hidden = layer(tree, scale=scale), torch.randn(20, WIDTH, dtype=torch.float64)
    with torch.inference_mode():
        for k in (1, min(5, len(tree)), len(tree)):
            values, ids = made.best_first(hidden, k)
            expected = made.log_probs(hidden).topk(k)
            assert torch.allclose(values, expected.values, atol=1e-12)
            assert torch.equal(ids, expected.indices)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_a_wide_descent_is_exact_and_a_narrow_one_finds_a_token(tree, levels):
    made, hidden = layer(tree), torch.randn(20, WIDTH, dtype=torch.float64)
    log_probs = made.log_probs(hidden)
    values, ids = made.descend(hidden, beam=len(tree), levels=levels)
    best = log_probs.topk(len(tree))
    assert torch.allclose(values, best.values, atol=1e-12) and torch.equal(ids, best.indices)
    values, ids = made.descend(hidden, beam=1, levels=levels)
    assert torch.allclose(values, log_probs.gather(1, ids), atol=1e-12)


def test_a_greedy_descent_goes_the_more_probable_way():
    made = layer(huffman(COUNTS, NAMES))
    for vector in torch.randn(10, WIDTH, dtype=torch.float64):
        node = made.tree.root
        while node >= len(made.tree):
            inner = node - len(made.tree)
            node = int(made.tree.children[inner, 0 if made.output.weight[inner] @ vector > 0 else 1])
        assert made.descend(vector[None], levels=1)[1].item() == node


def test_the_ids_of_the_tokens_decide_nothing():
    """Token v of one vocabulary is token order[v] of the other."""
    order = np.random.default_rng(0).permutation(len(NAMES))
    names, counts = [""] * len(NAMES), np.zeros(len(NAMES))
    for token, other in enumerate(order):
        names[other], counts[other] = NAMES[token], COUNTS[token]
    one, two = layer(huffman(COUNTS, NAMES)), layer(huffman(counts, names))
    hidden = torch.randn(5, WIDTH, dtype=torch.float64)
    assert torch.equal(one.log_probs(hidden), two.log_probs(hidden)[:, order])


def test_nothing_of_the_tree_is_in_the_weights():
    assert list(layer(huffman(COUNTS, NAMES)).state_dict()) == ["output.weight"]
