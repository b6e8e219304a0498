"""Pictures and tables of a tree over the vocabulary, for people to look at."""

import itertools
import warnings
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import dendrogram

from masr.files import write_whole, writing
from masr.progress import in_markdown, printable
from masr.text.tokenizer import Tokenizer
from masr.vocab.embeddings import Texts, foreign_neighbours, token_users
from masr.vocab.tree import Tree

MOST = 400
"""Leaves of the picture; of a larger vocabulary the lowest subtrees are drawn as one."""


def draw_tree(tree: Tree, tokenizer: Tokenizer, ids: Texts, path: Path) -> None:
    """A dendrogram, as high as subtrees are deep; beside each token the languages that use it."""
    users = [" ".join(itertools.compress(ids, row)) for row in token_users(ids, len(tree))]
    labels = [_label(f"{name}   {codes}") for name, codes in zip(tokenizer.names, users, strict=True)]
    leaves = min(len(tree), MOST)
    figure = Figure(figsize=(9, 1 + 0.16 * leaves), layout="constrained")
    axes = figure.add_subplot()
    dendrogram(
        _linkage(tree), ax=axes, orientation="left", labels=labels, leaf_font_size=7, color_threshold=0,
        above_threshold_color="0.3", p=leaves, truncate_mode="lastp" if leaves < len(tree) else None,
    )  # fmt: skip
    axes.set_xlabel("levels below")
    axes.spines[["top", "left", "right"]].set_visible(False)
    same_file_for_same_tree = rc_context({"svg.hashsalt": "masr", "svg.fonttype": "none"})
    with same_file_for_same_tree, writing(path), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # letters stay text: who opens the file draws them
        figure.savefig(path, metadata={"Date": None})


def _label(text: str) -> str:
    """Text that matplotlib takes for no formula."""
    return printable(text).replace("$", r"\$")


def _linkage(tree: Tree) -> np.ndarray:
    """The tree as `scipy.cluster.hierarchy` has it: children, height, number of leaves."""
    heights, sizes = [0.0] * len(tree), [1] * len(tree)
    for left, right in tree.children.tolist():
        heights.append(1 + max(heights[left], heights[right]))
        sizes.append(sizes[left] + sizes[right])
    return np.column_stack((tree.children, heights[len(tree) :], sizes[len(tree) :])).astype(float)


def write_neighbours(vectors: np.ndarray, tokenizer: Tokenizer, ids: Texts, path: Path) -> None:
    """A table of each token's nearest tokens in languages that do not use it, with their cosines."""
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    lines = ["| token | nearest in languages without it (cosine) |", "|---|---|"]
    for token, others in foreign_neighbours(vectors, tokenizer, ids).items():
        near = ", ".join(f"{in_markdown(tokenizer.pieces[o])} {units[token] @ units[o]:.2f}" for o in others)
        lines.append(f"| {in_markdown(tokenizer.pieces[token])} | {near} |")
    write_whole(path, "\n".join(lines) + "\n")
