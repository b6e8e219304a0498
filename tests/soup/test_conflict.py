"""Conflicts of gradients by layer."""

import torch

from masr.soup.conflict import Conflicts


def conflicts() -> Conflicts:
    """Three objectives: in layer a two agree and one is against both, in b all agree, in c one has no gradient; in d
    one pair disagrees less than the others agree."""
    gradients = {
        "a": [[1.0, 0], [1, 0.1], [-1, 0]], "b": [[1.0, 0], [1, 1], [1, 0.5]], "c": [[1.0, 0], [0, 0], [-0.1, 1]],
        "d": [[1.0, 0], [1, 1], [-0.1, 1]],
    }  # fmt: skip
    found = Conflicts(list(gradients), ["x", "y", "z"])
    stacked = torch.tensor(list(gradients.values()))
    for size in (1.0, 100.0, 0.01):  # every measurement counts alike
        found.add(size * stacked @ stacked.transpose(1, 2))
    return found


def test_scores_are_mean_cosines_of_all_pairs():
    scores = conflicts().scores()
    one = torch.nn.functional.cosine_similarity
    a = [torch.tensor(g) for g in ([1.0, 0], [1, 0.1], [-1, 0])]
    expected = (one(a[0], a[1], 0) + one(a[0], a[2], 0) + one(a[1], a[2], 0)) / 3
    assert abs(scores["a"] - expected.item()) < 1e-6 and scores["a"] < 0 < scores["b"]


def test_layers_in_conflict():
    assert conflicts().conflicting() == ["a", "c"]
    assert conflicts().conflicting("any") == ["a", "c", "d"]
    ranked = sorted(conflicts().scores().items(), key=lambda pair: pair[1])
    assert conflicts().conflicting(0.25) == [ranked[0][0]]
    assert conflicts().conflicting(0.5) == sorted(name for name, _ in ranked[:2])
    assert conflicts().conflicting(0.01) == [ranked[0][0]], "one at least"
    agreeing = Conflicts(["b"], ["x", "y", "z"])
    agreeing.add(torch.ones(1, 3, 3))
    assert agreeing.conflicting() == ["b"], "all, where there is none"


def test_a_measurement_against_the_others_does_not_drown_them():
    found = Conflicts(["a"], ["asr/cs", "st/cs"])
    for size, product in ((1.0, 0.5), (1.0, 0.5), (1e4, -0.4)):
        found.add(size * torch.tensor([[[1.0, product], [product, 1.0]]]))
    assert abs(found.scores()["a"] - 0.2) < 1e-6 and found.conflicting("any") == ["a"]
    assert found.by_task() == {"asr-st": found.scores()["a"]}
    assert torch.equal(found.overall(), found.cosines()[0])


def test_measurements_are_state():
    first, second = conflicts(), Conflicts(["a", "b", "c", "d"], ["x", "y", "z"])
    second.load_state_dict(first.state_dict())
    assert second.scores() == first.scores() and second.measured == 3
