"""Hierarchical softmax: a token's probability is the product of the decisions on its way down a binary tree.

Shapes: D width, V vocabulary, V - 1 inner nodes, K depth of the tree, N hidden vectors. With the vector w of an inner
node, P(left) = sigmoid(w . h), P(right) = 1 - P(left) = sigmoid(-w . h).
Sources: Morin & Bengio 2005 (AISTATS, "Hierarchical Probabilistic Neural Network Language Model"); for speech, Liu et
al. 2022 (arXiv 2204.03855) and Yang et al. 2025 (arXiv 2501.17615), whose layer has no bias either.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from masr.vocab.tree import Tree

Smoothing = Literal["tokens", "decisions"]


class _PathSums(torch.autograd.Function):
    """Scores (N, V - 1) of the decisions -> log-probabilities (N, V): what is added up on the way to each token.

    On a CPU a kernel goes down the tree, V steps for each row. Elsewhere two sparse matrices (V, V - 1) do, in which
    ``edges`` is 1 for the decisions on the way to a token and ``rights`` for those of them that go to the right.
    """

    @staticmethod
    def forward(ctx, scores, tree, edges, rights):
        ctx.save_for_backward(scores, tree, edges, rights)
        log_sigmoid = F.logsigmoid(scores)
        if edges is not None:  # log sigmoid(-s) = log sigmoid(s) - s
            return (torch.sparse.mm(edges, log_sigmoid.t()) - torch.sparse.mm(rights, scores.t())).t()
        from masr.nn import tree_kernels

        log_probs = scores.new_empty(len(scores), len(tree) + 1)
        tree_kernels.run(tree_kernels.log_probs, scores, log_sigmoid, log_probs, shared=(tree,))
        return log_probs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        scores, tree, edges, rights = ctx.saved_tensors
        sigmoid = scores.sigmoid()
        if edges is not None:
            to_all, to_right = torch.sparse.mm(edges.t(), grad.t()).t(), torch.sparse.mm(rights.t(), grad.t()).t()
            return to_all * (1 - sigmoid) - to_right, None, None, None
        from masr.nn import tree_kernels

        grads = torch.empty_like(scores)
        tree_kernels.run(tree_kernels.gradients, grad.contiguous(), sigmoid, grads, shared=(tree,))
        return grads, None, None, None


class _PathScores(torch.autograd.Function):
    """Scores (N, K) of the decisions ``nodes`` (N, K), 0 where they are -1, without a copy of their vectors."""

    @staticmethod
    def forward(ctx, hidden, weight, nodes):
        from masr.nn import tree_kernels

        ctx.save_for_backward(hidden, weight, nodes)
        scores = hidden.new_empty(nodes.shape)
        tree_kernels.run(tree_kernels.path_scores, hidden, nodes, scores, shared=(weight,))
        return scores

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        from masr.nn import tree_kernels

        hidden, weight, nodes = ctx.saved_tensors
        into_weight, into_hidden = torch.zeros_like(weight), torch.zeros_like(hidden)
        arrays = (weight, hidden, nodes, grad.contiguous(), into_weight, into_hidden)
        tree_kernels.path_gradients(*(array.numpy() for array in arrays))
        return into_hidden, into_weight, None


class TreePaths(nn.Module):
    """The ways from the root of a tree to its tokens, as tensors; their buffers are made of the tree, not saved."""

    below: Tensor
    nodes: Tensor
    sides: Tensor
    left_share: Tensor
    right_share: Tensor

    def __init__(self, tree: Tree) -> None:
        super().__init__()
        nodes, sides = (torch.from_numpy(table).long() for table in tree.paths)
        left, right = (torch.bincount(nodes[sides == side], minlength=len(tree) - 1) for side in (0, 1))
        buffers = {
            "below": torch.from_numpy(tree.children).long(), "nodes": nodes, "sides": sides,
            "left_share": left / len(tree), "right_share": right / len(tree),
        }  # fmt: skip
        for name, values in buffers.items():
            self.register_buffer(name, values, persistent=False)
        self._matrices: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def forward(self, scores: Tensor) -> Tensor:
        """Scores (..., V - 1) of the decisions, positive for left -> log-probabilities (..., V), at least float32."""
        with torch.autocast(scores.device.type, enabled=False):
            rows = _float(scores).reshape(-1, scores.shape[-1]).contiguous()
            matrices = (None, None) if _kernel_knows(rows) else self._both_matrices(rows)
            return _PathSums.apply(rows, self.below, *matrices).view(*scores.shape[:-1], len(self.nodes))

    def mean(self, scores: Tensor) -> Tensor:
        """Mean (...) of the log-probabilities of all V tokens, from the scores (..., V - 1) alone."""
        with torch.autocast(scores.device.type, enabled=False):
            left, right = self.left_share.to(scores.dtype), self.right_share.to(scores.dtype)
            return F.logsigmoid(scores) @ (left + right) - scores @ right

    def _both_matrices(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Made once for a device and type."""
        key = (like.device, like.dtype)
        if key not in self._matrices:
            self._matrices[key] = self._matrix(like, 1), self._matrix(like, 0)
        return self._matrices[key]

    def _matrix(self, like: Tensor, left: float) -> Tensor:
        """(V, V - 1): 1 where the way to a token goes right at an inner node, ``left`` where it goes left."""
        tokens, places = (self.nodes >= 0).nonzero(as_tuple=True)
        values = torch.where(self.sides[tokens, places] == 1, 1.0, left).to(like.dtype)
        indices, shape = torch.stack((tokens, self.nodes[tokens, places])), (len(self.nodes), len(self.nodes) - 1)
        return torch.sparse_coo_tensor(indices, values, shape, check_invariants=False).coalesce()


class HierarchicalSoftmax(nn.Module):
    """One vector for every inner node of ``tree``, no bias."""

    def __init__(self, width: int, tree: Tree, smoothing: Smoothing = "tokens") -> None:
        super().__init__()
        self.tree, self.smoothing = tree, smoothing
        self.paths = TreePaths(tree)
        self.output = nn.Linear(width, len(tree) - 1, bias=False)

    def log_probs(self, hidden: Tensor) -> Tensor:
        """Log-probabilities (..., V), at least float32, of hidden vectors (..., D)."""
        return self.paths(self.output(hidden))

    def loss(self, hidden: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        """Negative log-likelihood (...) of ``targets`` (...) given ``hidden`` (..., D), from the targets' paths only.

        A share ``smoothing`` of the mass is spread evenly over all V tokens, as in a flat softmax, which needs the
        scores of all decisions; or in each decision on the way goes to the other side (RECONSTRUCTED), which does not.
        """
        nodes, sides = self.paths.nodes[targets], self.paths.sides[targets]
        signs = (1 - 2 * sides).masked_fill(sides < 0, 0)
        if smoothing and self.smoothing == "tokens":
            scores = _float(self.output(hidden))
            path = scores.gather(-1, nodes.clamp(min=0)) * signs
            return -torch.lerp((F.logsigmoid(path) * signs.abs()).sum(-1), self.paths.mean(scores), smoothing)
        path = self._path_scores(hidden, nodes) * signs
        # -(1 - e) log sigmoid(s) - e log sigmoid(-s) = -log sigmoid(s) + e s
        return (signs.abs() * (smoothing * path - F.logsigmoid(path))).sum(-1)

    def _path_scores(self, hidden: Tensor, nodes: Tensor) -> Tensor:
        """(..., D), (..., K) -> scores (..., K), at least float32; any number where nodes are -1."""
        if _kernel_knows(hidden):
            rows = _float(hidden).reshape(-1, hidden.shape[-1]).contiguous()
            weight = _float(self.output.weight).contiguous()
            return _PathScores.apply(rows, weight, nodes.reshape(-1, nodes.shape[-1])).view(nodes.shape)
        vectors = F.embedding(nodes.clamp(min=0), self.output.weight)
        return _float(torch.matmul(vectors, hidden.to(vectors.dtype)[..., None]).squeeze(-1))

    def best_first(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The ``k`` most probable tokens of hidden vectors (N, D), exactly: log-probabilities and ids, each (N, k).

        Probabilities only fall on the way down, so the node that is opened next is always the most probable one; on a
        CPU no more decisions are computed than that takes.
        """
        if not _kernel_knows(hidden):
            values, ids = self.log_probs(hidden).topk(k, dim=-1)
            return values, ids
        from masr.nn import tree_kernels

        hidden, weight = (_float(tensor.detach()).contiguous() for tensor in (hidden, self.output.weight))
        values, ids = hidden.new_empty(len(hidden), k), torch.empty(len(hidden), k, dtype=torch.long)
        tree_kernels.run(tree_kernels.best_first, hidden, values, ids, shared=(self.paths.below, weight))
        return values, ids

    def descend(self, hidden: Tensor, beam: int = 1, levels: int = 2) -> tuple[Tensor, Tensor]:
        """``beam`` tokens of each hidden vector (N, D), their log-probabilities and ids, each (N, beam), best first.

        The search goes down ``levels`` levels at once and keeps the ``beam`` best nodes there (Liu et al. 2022). It is
        not exact: a probable token can lie below an improbable node.
        """
        nodes = torch.full((len(hidden), 1), self.tree.root, device=hidden.device)
        log_probs = torch.zeros(len(hidden), 1, device=hidden.device)
        while (nodes >= len(self.tree)).any():
            for _ in range(levels):
                nodes, log_probs = self._open(hidden, nodes, log_probs)
            log_probs, kept = log_probs.topk(min(beam, nodes.shape[1]), dim=-1)
            nodes = nodes.gather(1, kept)
        return log_probs, nodes

    def _open(self, hidden: Tensor, nodes: Tensor, log_probs: Tensor) -> tuple[Tensor, Tensor]:
        """Nodes (N, F) and their log-probabilities -> their children (N, 2F); tokens stay."""
        inner = (nodes - len(self.tree)).clamp(min=0)
        scores = _float(torch.matmul(self.output.weight[inner], hidden[..., None]).squeeze(-1))
        is_token = (nodes < len(self.tree))[..., None]
        below = log_probs[..., None] + torch.stack((F.logsigmoid(scores), F.logsigmoid(-scores)), dim=-1)
        stay = torch.stack((log_probs, torch.full_like(log_probs, -torch.inf)), dim=-1)
        opened = torch.where(is_token, nodes[..., None], self.paths.below[inner])
        return opened.flatten(1), torch.where(is_token, stay, below).flatten(1)


def _float(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _kernel_knows(values: Tensor) -> bool:
    return values.device.type == "cpu"
