"""Trees over a vocabulary: valid, reproducible, the same whatever the ids of the tokens are."""

import json
import math

import numpy as np
import pytest

from masr.vocab.tree import Tree, balanced, clustered, huffman

METHODS = ["ward", "complete", "average", "bisecting"]
NAMES = [f"t{i:02}" for i in range(40)]
COUNTS = (1000 / np.arange(1, 41)).astype(int)


def vectors(count: int = 40, size: int = 8) -> np.ndarray:
    """Four groups of tokens; the last two tokens have no vector."""
    random = np.random.default_rng(0)
    made = random.normal(size=(count, size)) * 0.1 + np.eye(size)[np.arange(count) % 4]
    made[-2:] = np.nan
    return made


def build(kind: str, names=NAMES, counts=COUNTS, embeddings=None) -> Tree:
    if kind == "huffman":
        return huffman(counts, names)
    if kind == "balanced":
        return balanced(names, seed=1)
    return clustered(vectors() if embeddings is None else embeddings, counts, names, kind)


def leaves(tree: Tree, node: int) -> set[int]:
    if node < len(tree):
        return {node}
    return leaves(tree, tree.children[node - len(tree), 0]) | leaves(tree, tree.children[node - len(tree), 1])


def shape(tree: Tree, names, node: int | None = None):
    """The tree as nested pairs of names."""
    node = tree.root if node is None else node
    if node < len(tree):
        return names[node]
    return tuple(shape(tree, names, int(child)) for child in tree.children[node - len(tree)])


@pytest.mark.parametrize("kind", ["huffman", "balanced", *METHODS])
def test_every_token_is_at_the_end_of_one_path(kind):
    tree = build(kind)
    nodes, sides = tree.paths
    assert len(tree) == 40 and len(tree.children) == 39
    assert leaves(tree, tree.root) == set(range(40))
    assert sum(2.0**-depth for depth in tree.depths) == 1, "Kraft's equality: no path is missing"
    for token in range(40):
        node = tree.root
        for inner, side in zip(nodes[token], sides[token], strict=True):
            if inner < 0:
                break
            assert node == len(tree) + inner
            node = tree.children[inner, side]
        assert node == token


@pytest.mark.parametrize("kind", ["huffman", "balanced", *METHODS])
def test_the_ids_of_the_tokens_decide_nothing(kind):
    order = np.random.default_rng(3).permutation(40)
    names = [NAMES[i] for i in order]
    shuffled = build(kind, names, COUNTS[order], vectors()[order])
    assert shape(shuffled, names) == shape(build(kind), NAMES)


def test_huffman_is_as_short_as_a_code_can_be():
    shares = COUNTS / COUNTS.sum()
    mean = (huffman(COUNTS, NAMES).depths * shares).sum()
    entropy = -(shares * np.log2(shares)).sum()
    assert entropy <= mean < entropy + 1
    assert mean <= min((build(kind).depths * shares).sum() for kind in ["balanced", *METHODS])


def test_bytes_that_never_occur_do_not_make_a_chain():
    names = [f"<0x{byte:02X}>" for byte in range(256)] + list("abc")
    counts = np.array([0] * 256 + [5, 3, 2])
    counts[7] = 1
    tree = huffman(counts, names, spare=range(256))
    assert tree.depths.max() <= 3 + 9 and tree.depths[[256, 257, 258, 7]].tolist() == [1, 2, 3, 4]
    assert huffman(counts, names).depths.max() > 200
    vectors = np.full((259, 2), np.nan)
    vectors[256:] = [[1, 0], [0, 1], [1, 1]]
    assert clustered(vectors, counts, names, spare=range(256)).depths.max() <= 3 + 9


def test_huffman_with_equal_and_zero_counts_is_reproducible():
    counts = np.array([0, 5, 5, 0, 5, 0])
    assert shape(huffman(counts, "abcdef"), "abcdef") == ("e", (((("a", "d"), "f"), "b"), "c"))


@pytest.mark.parametrize("method", METHODS)
def test_similar_tokens_share_a_subtree(method):
    tree = build(method)
    subtrees = [leaves(tree, len(tree) + inner) for inner in range(len(tree.children))]
    for group in range(4):
        tokens = set(range(group, 38, 4))
        shared = min((subtree for subtree in subtrees if tokens <= subtree), key=len)
        assert len(shared) <= 2 * len(tokens), f"{method}: {tokens} lie in {shared}"


def test_tokens_without_a_vector_are_placed_by_frequency():
    counts = COUNTS.copy()
    counts[-2], counts[-1] = 10 * counts.sum(), 0
    tree = build("ward", counts=counts)
    assert tree.depths[-2] == 1, "the most frequent one is a child of the root"
    assert tree.depths[-1] == 2, "the other one is beside the cluster"


def test_bisecting_is_never_much_deeper_than_a_balanced_tree():
    """Points on a line, each twice as far as the one before: linkage makes a chain of them."""
    points = np.stack([np.exp2(np.arange(64.0)), np.full(64, 2.0**32)], axis=1)
    names = [f"{i:02}" for i in range(64)]
    assert clustered(points, np.ones(64), names, "bisecting").depths.max() <= 8
    assert clustered(points, np.ones(64), names, "average").depths.max() > 8
    same = clustered(np.ones((64, 3)), np.ones(64), names, "bisecting")
    assert same.depths.max() == 6


def test_balanced_has_two_depths_and_depends_on_the_seed():
    depths = balanced(NAMES, seed=1).depths
    assert set(depths) <= {math.floor(math.log2(40)), math.ceil(math.log2(40))}
    assert shape(balanced(NAMES, seed=1), NAMES) != shape(balanced(NAMES, seed=2), NAMES)


@pytest.mark.parametrize("kind", ["huffman", "ward"])
@pytest.mark.parametrize("token", [0, 7, 39])
def test_a_hoisted_token_is_a_child_of_the_root(kind, token):
    tree = build(kind).hoisted(token)
    assert tree.depths[token] == 1 and tree.children[-1, 0] == token
    assert leaves(tree, tree.root) == set(range(40))
    assert np.array_equal(tree.hoisted(token).children, tree.children)
    pairs = {frozenset(leaves(tree, len(tree) + i)) for i in range(39)}
    before = {frozenset(leaves(build(kind), 40 + i) - {token}) for i in range(39)}
    assert pairs - {frozenset(range(40))} <= before, "nothing else has moved"


def test_two_tokens_are_a_tree_and_one_is_not():
    assert huffman(np.array([1, 2]), "ab").depths.tolist() == [1, 1]
    with pytest.raises(ValueError, match="at least two tokens, found 1"):
        huffman(np.array([1]), "a")
    with pytest.raises(ValueError, match="only 1 of 3 tokens have an embedding"):
        clustered(np.array([[1.0], [np.nan], [np.nan]]), np.ones(3), "abc")


def test_depths_in_words():
    assert huffman(np.array([2, 1, 1]), "abc").describe(np.array([2, 1, 1])) == "depth 2, mean 1.7, 1.5 in the text"


def test_saved_and_loaded(tmp_path):
    tree = build("ward")
    tree.save(tmp_path / "tree.json", "0123")
    assert np.array_equal(Tree.load(tmp_path / "tree.json", "0123").children, tree.children)


@pytest.mark.parametrize(
    "change, problem",
    [
        ({"vocabulary": "4567"}, "belongs to vocabulary 4567, not to 0123"),
        ({"children": [[0, 1], [0, 2]]}, "every node but the root must be the child of one"),
        ({"children": [[0, 3], [1, 2]]}, "stands before one of its children"),
        ({"children": None}, "no tree for this vocabulary"),
    ],
    ids=["other vocabulary", "not a tree", "wrong order", "nothing"],
)
def test_a_wrong_file_is_refused(tmp_path, change, problem):
    path = tmp_path / "tree.json"
    huffman(np.array([2, 1, 1]), "abc").save(path, "0123")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=problem):
        Tree.load(path, "0123")
    path.unlink()
    with pytest.raises(ValueError, match="masr vocab --force"):
        Tree.load(path, "0123")


@pytest.mark.parametrize("method", METHODS)
def test_equal_vectors_make_no_chain(method):
    points = np.concatenate([np.ones((60, 3)), np.eye(3), np.full((1, 3), np.nan)])
    assert clustered(points, np.ones(64), [f"{i:02}" for i in range(64)], method).depths.max() <= 10
