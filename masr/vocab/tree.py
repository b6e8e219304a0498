"""Binary trees over a vocabulary: the shape of a hierarchical softmax.

V tokens are the leaves 0 ... V-1. Inner node V + i has the children ``children[i]``, leaves or inner nodes before it;
the last one is the root. Tokens are told apart by their names when trees are built, so that the ids decide nothing.

Sources: Huffman trees, Liu et al. 2022 (arXiv 2204.03855); clustered trees, Yang et al. 2025 (arXiv 2501.17615), whose
linkage is not known: RECONSTRUCTED. Bisecting and balanced trees are ours, for comparison.
"""

import heapq
import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.cluster.hierarchy import linkage
from scipy.cluster.vq import kmeans2

from masr.config import Vocab
from masr.files import DAMAGE, written_beside
from masr.text.tokenizer import Tokenizer

FILE = "tree.json"
LEFT, RIGHT = 0, 1


@dataclass(frozen=True)
class Tree:
    """``children`` (V - 1, 2): left and right child of every inner node."""

    children: np.ndarray

    def __post_init__(self) -> None:
        size = len(self.children)
        if self.children.ndim != 2 or sorted(self.children.flatten()) != list(range(2 * size)):
            raise ValueError("not a binary tree: every node but the root must be the child of one inner node")
        if (self.children >= size + 1 + np.arange(size)[:, None]).any():
            raise ValueError("not a binary tree: an inner node stands before one of its children")

    def __len__(self) -> int:
        """Number of tokens, V."""
        return len(self.children) + 1

    @property
    def root(self) -> int:
        return 2 * len(self.children)

    @cached_property
    def paths(self) -> tuple[np.ndarray, np.ndarray]:
        """Inner nodes (V, K), counted from 0, that lead from the root to each token, and the side (V, K) taken at each.

        Both hold -1 after the end of a path; K is the depth.
        """
        nodes: dict[int, list[int]] = {self.root: []}
        sides: dict[int, list[int]] = {self.root: []}
        for inner in reversed(range(len(self.children))):
            above, taken = nodes.pop(len(self) + inner), sides.pop(len(self) + inner)
            for side in (LEFT, RIGHT):
                nodes[self.children[inner, side]] = [*above, inner]
                sides[self.children[inner, side]] = [*taken, side]
        return _table(nodes, len(self)), _table(sides, len(self))

    @cached_property
    def depths(self) -> np.ndarray:
        """Decisions (V,) that lead to each token."""
        return (self.paths[0] >= 0).sum(1)

    def describe(self, counts: np.ndarray) -> str:
        """Depth: longest, mean over the tokens, mean over the text (``counts`` (V,) of the tokens in it)."""
        in_text = (self.depths * counts).sum() / max(counts.sum(), 1)
        return f"depth {self.depths.max()}, mean {self.depths.mean():.1f}, {in_text:.1f} in the text"

    def hoisted(self, token: int) -> "Tree":
        """The same tree with ``token`` as left child of the root: one decision instead of many."""
        rows = [tuple(row) for row in self.children.tolist()]
        parent = next(i for i, row in enumerate(rows) if token in row)
        sibling = rows[parent][LEFT] if rows[parent][RIGHT] == token else rows[parent][RIGHT]
        new = {node: node - (node > len(self) + parent) for node in range(self.root + 1)}  # one inner node is gone
        new[len(self) + parent] = new[sibling]
        kept = [(new[a], new[b]) for i, (a, b) in enumerate(rows) if i != parent]
        return Tree(np.array([*kept, (token, new[self.root])]))

    def save(self, path: Path, vocabulary: str) -> None:
        """Writes JSON; ``vocabulary`` is the hash of the tokenizer that the tree belongs to."""
        with written_beside(path) as partial:
            partial.write_text(json.dumps({"vocabulary": vocabulary, "children": self.children.tolist()}))

    @classmethod
    def load(cls, path: Path, vocabulary: str) -> "Tree":
        """Reads what `save` wrote; ValueError when it is damaged or belongs to another vocabulary."""
        try:
            saved = json.loads(path.read_text())
            if saved["vocabulary"] != vocabulary:
                raise ValueError(f"it belongs to vocabulary {saved['vocabulary']}, not to {vocabulary}")
            return cls(np.array(saved["children"], dtype=int))
        except (OSError, *DAMAGE) as error:
            raise ValueError(f"{path}: no tree for this vocabulary; `masr vocab --force` makes it: {error}") from error


def same_tree(one: Tree | None, other: Tree | None) -> bool:
    """Whether the same decisions lead to the same tokens (or neither is a tree)."""
    return (one is None) == (other is None) and (
        one is None or other is None or np.array_equal(one.children, other.children)
    )


def load(folder: Path, options: Vocab, tokenizer: Tokenizer) -> Tree | None:
    """The tree beside a tokenizer, if ``options`` want one."""
    if options.output == "softmax":
        return None
    tree = Tree.load(folder / FILE, tokenizer.hash())
    if len(tree) != len(tokenizer):
        raise ValueError(f"{folder / FILE}: damaged: {len(tree)} leaves for {len(tokenizer)} tokens")
    return tree


def _table(rows: dict[int, list[int]], tokens: int) -> np.ndarray:
    table = np.full((tokens, max(len(rows[token]) for token in range(tokens))), -1)
    for token in range(tokens):
        table[token, : len(rows[token])] = rows[token]
    return table


# --- building --------------------------------------------------------------------------------------------------------


class _Builder:
    """Joins nodes, two at a time, until one is left."""

    def __init__(self, names: Sequence[str]) -> None:
        if len(names) < 2:
            raise ValueError(f"a tree needs at least two tokens, found {len(names)}")
        self.names, self.children = names, list[tuple[int, int]]()

    def by_name(self) -> list[int]:
        """The tokens in an order that does not depend on their ids."""
        return sorted(range(len(self.names)), key=lambda token: self.names[token])

    def join(self, left: int, right: int) -> int:
        self.children.append((left, right))
        return len(self.names) + len(self.children) - 1

    def join_rarest(self, weights: Sequence[tuple[float, int]]) -> None:
        """Huffman's algorithm for (weight, node) pairs; among equals the first come first."""
        heap = [(weight, order, node) for order, (weight, node) in enumerate(weights)]
        heapq.heapify(heap)
        while len(heap) > 1:
            (first, order, left), (second, _, right) = heapq.heappop(heap), heapq.heappop(heap)
            heapq.heappush(heap, (first + second, order, self.join(left, right)))

    def tree(self) -> Tree:
        return Tree(np.array(self.children))


def huffman(counts: np.ndarray, names: Sequence[str], spare: Collection[int] = ()) -> Tree:
    """The tree with the fewest decisions for a text in which the tokens occur ``counts`` (V,) times.

    ``spare`` tokens, such as bytes, that never occur are joined evenly; they would make a chain.
    """
    builder = _Builder(names)
    builder.join_rarest(_weighted(builder, builder.by_name(), counts, spare))
    return builder.tree()


def balanced(names: Sequence[str], seed: int) -> Tree:
    """All tokens at the same depth (± 1), in a random order: what a tree gains that knows nothing of its tokens."""
    builder = _Builder(names)
    _halve(builder, np.random.default_rng(seed).permutation(builder.by_name()).tolist())
    return builder.tree()


def clustered(
    embeddings: np.ndarray, counts: np.ndarray, names: Sequence[str], method: str = "ward", spare: Collection[int] = ()
) -> Tree:
    """Tokens with similar ``embeddings`` (V, D) close together; rows of NaN have none and are placed by frequency, as
    `huffman` does it.

    ``method``: ward, complete or average (agglomerative, Euclidean distance of vectors of unit length), or bisecting
    (2-means from the root down; what is clustered is at most 2 levels deeper than a balanced tree).
    """
    builder = _Builder(names)
    known = [token for token in builder.by_name() if not np.isnan(embeddings[token]).any()]
    others = [token for token in builder.by_name() if np.isnan(embeddings[token]).any()]
    if len(known) < 2:
        raise ValueError(f"only {len(known)} of {len(names)} tokens have an embedding")
    points = embeddings[known] / np.maximum(np.linalg.norm(embeddings[known], axis=1, keepdims=True), 1e-12)
    root = _bisect(builder, known, points) if method == "bisecting" else _agglomerate(builder, known, points, method)
    builder.join_rarest([(float(counts[known].sum()), root), *_weighted(builder, others, counts, spare)])
    return builder.tree()


def _weighted(
    builder: _Builder, tokens: Sequence[int], counts: np.ndarray, spare: Collection[int]
) -> list[tuple[float, int]]:
    """(weight, node) of the tokens; ``spare`` ones that never occur have one node, which joins them evenly."""
    unused = [token for token in tokens if token in spare and not counts[token]]
    others = [(counts[token], token) for token in tokens if token not in set(unused)]
    return [(0, _halve(builder, unused)), *others] if unused else others


def _halve(builder: _Builder, tokens: list[int]) -> int:
    """Root of a tree in which ``tokens`` keep their order."""
    if len(tokens) == 1:
        return tokens[0]
    middle = len(tokens) // 2
    return builder.join(_halve(builder, tokens[:middle]), _halve(builder, tokens[middle:]))


def _agglomerate(builder: _Builder, tokens: list[int], points: np.ndarray, method: str) -> int:
    """Root of a tree by linkage, which would make a chain of equal points: those are joined evenly before."""
    groups: dict[bytes, list[int]] = {}
    for row, point in enumerate(points):
        groups.setdefault(point.round(9).tobytes(), []).append(row)
    nodes = [_halve(builder, [tokens[row] for row in rows]) for rows in groups.values()]
    if len(nodes) > 1:
        for left, right, _, _ in linkage(points[[rows[0] for rows in groups.values()]], method):
            nodes.append(builder.join(nodes[int(left)], nodes[int(right)]))
    return nodes[-1]


def _bisect(builder: _Builder, tokens: list[int], points: np.ndarray) -> int:
    """Root of a tree by 2-means; a part is cut where it would become too deep otherwise."""
    rows = {token: row for row, token in enumerate(tokens)}
    cap = math.ceil(math.log2(len(tokens))) + 2

    def join(part: list[int], levels: int) -> int:
        if len(part) == 1:
            return part[0]
        order, left = _two_means(points[[rows[token] for token in part]])
        room = 2 ** (levels - 1)
        left = min(max(left, len(part) - room), room)
        ordered = [part[i] for i in order]
        return builder.join(join(ordered[:left], levels - 1), join(ordered[left:], levels - 1))

    return join(tokens, cap)


def _two_means(points: np.ndarray) -> tuple[np.ndarray, int]:
    """Order of the points from one mean to the other, and how many of them (at least one) are closer to the first."""
    centred = points - points.mean(0)
    along = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
    if np.ptp(along) < 1e-9:  # all the same
        return np.arange(len(points)), len(points) // 2
    means = kmeans2(points, points[[along.argmin(), along.argmax()]], minit="matrix")[0]
    nearer = np.linalg.norm(points - means[0], axis=1) - np.linalg.norm(points - means[1], axis=1)
    return nearer.argsort(kind="stable"), int(np.clip((nearer < 0).sum(), 1, len(points) - 1))
