"""Conflicts of gradients by layer."""

import torch

from masr.soup.conflict import Conflicts


def both_halves(gramians: torch.Tensor) -> torch.Tensor:
    """(L, 2M, 2M) of (L, M, M): gradients without noise, the same in both halves."""
    return gramians.repeat(1, 2, 2)


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
        found.add(both_halves(size * stacked @ stacked.transpose(1, 2)))
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
    agreeing.add(both_halves(torch.ones(1, 3, 3)))
    assert agreeing.conflicting() == ["b"], "all, where there is none"


def test_a_measurement_against_the_others_does_not_drown_them():
    found = Conflicts(["a"], ["asr/cs", "st/cs"])
    for size, product in ((1.0, 0.5), (1.0, 0.5), (1e4, -0.4)):
        found.add(both_halves(size * torch.tensor([[[1.0, product], [product, 1.0]]])))
    assert abs(found.scores()["a"] - 0.2) < 1e-6 and found.conflicting("any") == ["a"]
    assert found.by_task() == {"asr-st": found.scores()["a"]}
    assert torch.equal(found.overall(), found.cosines()[0])


def test_measurements_are_state():
    first, second = conflicts(), Conflicts(["a", "b", "c", "d"], ["x", "y", "z"])
    second.load_state_dict(first.state_dict())
    assert second.scores() == first.scores() and second.measured == 3
    for each in (first, second):
        each.add(both_halves(torch.eye(3).expand(4, 3, 3)))
    assert second.scores() == first.scores() and second.measured == 4


def noisy_updates(updates: int, numbers: int, signal: float, shared: float):
    """Gradients (halves 2, layers 2, objectives 4, numbers) of some updates, of length 1 about, a share ``signal`` of
    its square expected. In the first layer the second pair of objectives is against the first one (planted: cosine
    -0.6), in the other layer all agree (+0.6). Objectives 0 and 2, and 1 and 3, are those of one recording, a share
    ``shared`` of whose noise they have in common."""
    random = torch.Generator().manual_seed(1)
    own = torch.linalg.qr(torch.randn(2, numbers, 5, generator=random))[0].transpose(1, 2)
    signs = torch.tensor([[1.0, 1, -1, -1], [1, 1, 1, 1]])[..., None]
    expected = signs * (0.6**0.5 * own[:, :1] + 0.4**0.5 * own[:, 1:])
    for _ in range(updates):
        noise = torch.randn(2, 2, 4, numbers, generator=random) / numbers**0.5
        of_recording = torch.randn(2, 2, 2, numbers, generator=random).repeat(1, 1, 2, 1) / numbers**0.5
        noise = (1 - shared) ** 0.5 * noise + shared**0.5 * of_recording
        yield signal**0.5 * expected + (1 - signal) ** 0.5 * noise


def products(gradients: torch.Tensor) -> torch.Tensor:
    """(L, 2M, 2M) of gradients (2, L, M, P)."""
    stacked = torch.cat(list(gradients), 1)
    return stacked @ stacked.transpose(1, 2)


def test_a_conflict_in_a_noisy_layer_is_found_where_cosines_of_single_updates_miss_it():
    """1 % of a gradient is signal, half of its noise that of a recording which two objectives share."""
    found, of_single_updates = Conflicts(["against", "agreeing"], list("wxyz")), torch.zeros(2, 4, 4)
    for gradients in noisy_updates(32, 20000, signal=0.01, shared=0.5):
        found.add(products(gradients))
        whole = torch.nn.functional.normalize(gradients.sum(0), dim=-1)
        of_single_updates += whole @ whole.transpose(1, 2) / 32
    pairs = torch.triu_indices(4, 4, 1)
    missed = of_single_updates[:, pairs[0], pairs[1]].mean(1)
    assert missed[0] > 0.1, "the mean of cosines takes the recording's noise for agreement"
    assert abs(found.scores()["against"] - (2 * 0.6 - 4 * 0.6) / 6) < 0.1
    assert abs(found.scores()["agreeing"] - 0.6) < 0.1
    assert found.conflicting() == ["against"]
    sides = torch.tensor([1.0, 1, -1, -1])
    assert torch.equal(found.cosines()[0].sign().float(), sides * sides[:, None]), "of every pair, too"


def test_cosines_of_single_updates_have_the_size_of_the_noise_and_these_that_of_the_conflict():
    for signal in (0.01, 0.1, 1.0):
        found, of_single_updates = Conflicts(["against", "agreeing"], list("wxyz")), []
        for gradients in noisy_updates(32, 20000, signal, shared=0.0):
            found.add(products(gradients))
            whole = torch.nn.functional.normalize(gradients.sum(0), dim=-1)
            of_single_updates.append((whole[1, 0] @ whole[1, 1]).item())
        assert abs(found.scores()["agreeing"] - 0.6) < 0.1, "whatever the noise"
        mean = sum(of_single_updates) / 32
        assert abs(mean - 0.6 * 2 * signal / (1 + signal)) < 0.01, "0.012 where 1 % is signal"


def test_where_all_is_noise_nothing_is_said_beyond_one():
    found = Conflicts(["a", "b"], list("wxyz"))
    for gradients in noisy_updates(4, 50, signal=0.0, shared=0.5):
        found.add(products(gradients))
    assert found.cosines().abs().max() <= 1 and max(map(abs, found.scores().values())) <= 1
    assert found.cosines().isfinite().all() and found.overall().isfinite().all()


def test_what_one_half_lacks_is_not_measured():
    found = Conflicts(["a"], ["x", "y"])
    gramian = both_halves(torch.ones(1, 2, 2))
    gramian[:, 3] = gramian[:, :, 3] = 0.0
    found.add(gramian)
    assert found.measured == 0 and not found.sums.any()


def test_cosines_of_single_updates_in_a_checkpoint_decide_as_they_did():
    sums = torch.tensor([[[3.0, -1.5], [-1.5, 3.0]], [[3.0, 0.3], [0.3, 3.0]], [[3.0, -0.6], [-0.6, 3.0]]])
    found = Conflicts(["a", "b"], ["x", "y"])
    found.load_state_dict({"sums": sums.double(), "measured": 3})
    assert abs(found.scores()["a"] + 0.5) < 1e-9 and found.conflicting() == ["a"]
    again = Conflicts(["a", "b"], ["x", "y"])
    again.load_state_dict(found.state_dict())
    again.add(both_halves(torch.ones(2, 2, 2)))
    assert again.measured == 1 and again.scores() == {"a": 1.0, "b": 1.0}, "the old ones are not mixed with the new"
