"""The ways down the tree of `masr.nn.hierarchical_softmax` on a CPU, compiled by numba when first used (seconds, once).

N rows, V tokens, D width. ``tree`` (V - 1, 2) are the children of the inner nodes; node V + i is inner node i, the last
one is the root, and children stand before their parents.
"""

import heapq

import numpy as np

from masr.nn.kernels import compiled, run

__all__ = ["best_first", "gradients", "log_probs", "path_gradients", "path_scores", "run"]


@compiled
def log_probs(tree, scores, log_sigmoid, sums):
    """``scores`` and their ``log_sigmoid`` (N, V - 1) -> ``sums`` (N, V): from the root down."""
    tokens = len(tree) + 1
    below = np.zeros(2 * tokens - 1, scores.dtype)
    for n in range(len(scores)):
        for i in range(tokens - 2, -1, -1):
            left = below[tokens + i] + log_sigmoid[n, i]
            below[tree[i, 0]] = left
            below[tree[i, 1]] = left - scores[n, i]
        sums[n] = below[:tokens]


@compiled
def gradients(tree, grads, sigmoid, into):
    """Gradients (N, V) of the sums -> ``into`` (N, V - 1), those of the scores: from the tokens up."""
    tokens = len(tree) + 1
    above = np.zeros(2 * tokens - 1, grads.dtype)
    for n in range(len(grads)):
        above[:tokens] = grads[n]
        for i in range(tokens - 1):
            left = above[tree[i, 0]]
            both = left + above[tree[i, 1]]
            above[tokens + i] = both
            into[n, i] = left - both * sigmoid[n, i]


@compiled
def path_scores(weight, hidden, nodes, scores):
    """Products ``scores`` (N, K) of ``hidden`` (N, D) with rows ``nodes`` (N, K) of ``weight``; nodes of -1 give 0."""
    for n in range(len(nodes)):
        for k in range(nodes.shape[1]):
            score = weight.dtype.type(0)
            if nodes[n, k] >= 0:
                for d in range(hidden.shape[1]):
                    score += weight[nodes[n, k], d] * hidden[n, d]
            scores[n, k] = score


@compiled
def path_gradients(weight, hidden, nodes, grads, into_weight, into_hidden):
    """Adds the gradients of the products, ``grads`` (N, K), to those of ``weight`` and ``hidden``."""
    for n in range(len(nodes)):
        for k in range(nodes.shape[1]):
            if nodes[n, k] >= 0:
                for d in range(hidden.shape[1]):
                    into_hidden[n, d] += grads[n, k] * weight[nodes[n, k], d]
                    into_weight[nodes[n, k], d] += grads[n, k] * hidden[n, d]


@compiled
def best_first(tree, weight, hidden, values, ids):
    """Fills ``values`` and ``ids`` (N, k) with the best tokens of ``hidden`` (N, D); ``weight`` is (V - 1, D)."""
    tokens = len(tree) + 1
    for n in range(len(hidden)):
        heap = [(0.0, np.int64(2 * tokens - 2))]  # (-log P, node)
        found = 0
        while found < ids.shape[1]:
            cost, node = heapq.heappop(heap)
            if node < tokens:
                values[n, found] = -cost
                ids[n, found] = node
                found += 1
                continue
            score = 0.0
            for d in range(hidden.shape[1]):
                score += weight[node - tokens, d] * hidden[n, d]
            left = cost + max(-score, 0.0) + np.log1p(np.exp(-abs(score)))  # - log sigmoid(score)
            heapq.heappush(heap, (left, tree[node - tokens, 0]))
            heapq.heappush(heap, (left + score, tree[node - tokens, 1]))
