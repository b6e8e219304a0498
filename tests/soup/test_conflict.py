"""Conflicts of gradients by layer."""

import torch

from masr.soup.conflict import Conflicts


def conflicts() -> Conflicts:
    """Three objectives: in layer a two agree and one is against both, in b all agree, in c one has no gradient."""
    gradients = {
        "a": [[1.0, 0], [1, 0.1], [-1, 0]], "b": [[1.0, 0], [1, 1], [1, 0.5]], "c": [[1.0, 0], [0, 0], [-0.1, 1]],
    }  # fmt: skip
    found = Conflicts(list(gradients), ["x", "y", "z"])
    stacked = torch.tensor(list(gradients.values()))
    for _ in range(3):
        found.add(stacked @ stacked.transpose(1, 2))
    return found


def test_scores_are_mean_cosines_of_all_pairs():
    scores = conflicts().scores()
    one = torch.nn.functional.cosine_similarity
    a = [torch.tensor(g) for g in ([1.0, 0], [1, 0.1], [-1, 0])]
    expected = (one(a[0], a[1], 0) + one(a[0], a[2], 0) + one(a[1], a[2], 0)) / 3
    assert abs(scores["a"] - expected.item()) < 1e-6 and scores["a"] < 0 < scores["b"]


def test_layers_in_conflict():
    assert conflicts().conflicting() == ["a", "c"]
    assert conflicts().conflicting("any") == ["a", "c"]
    agreeing = conflicts()
    agreeing.sums = agreeing.sums[1:2]
    agreeing.layers = ["b"]
    assert agreeing.conflicting() == ["b"], "all, where there is none"


def test_measurements_are_state():
    first, second = conflicts(), Conflicts(["a", "b", "c"], ["x", "y", "z"])
    second.load_state_dict(first.state_dict())
    assert second.scores() == first.scores() and second.measured == 3
