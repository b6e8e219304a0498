"""Cosines of expected gradients from those of single recordings."""

import pytest
import torch
from torch.nn.functional import normalize

from masr.soup.agreement import UNKNOWN, Agreement, Design, Source, kinds_of_pairs

NAMES = ["asr/cs", "st/cs", "asr/nl", "st/nl"]
COSINES = torch.tensor(
    [[1.0, -0.4, 0.5, 0.2], [-0.4, 1.0, 0.1, 0.3], [0.5, 0.1, 1.0, -0.2], [0.2, 0.3, -0.2, 1.0]], dtype=torch.float64
)
"""Planted, of the objectives ``NAMES``."""


def planted(random: torch.Generator, recordings: int, numbers: int, signal: float, shared: float) -> torch.Tensor:
    """Gradients (4, recordings, numbers), a share ``signal`` of whose square is expected. Two objectives of a language
    have a share ``shared`` of a recording's noise in common."""
    own = torch.linalg.qr(torch.randn(numbers, 4, generator=random, dtype=torch.float64))[0].T
    expected = torch.linalg.cholesky(COSINES) @ own
    shape = (2, 2, recordings, numbers)
    noise = torch.randn(shape, generator=random, dtype=torch.float64)
    of_recording = torch.randn(2, 1, *shape[2:], generator=random, dtype=torch.float64)
    noise = ((1 - shared) ** 0.5 * noise + shared**0.5 * of_recording).flatten(0, 1) / numbers**0.5
    return signal**0.5 * expected[:, None] + (1 - signal) ** 0.5 * noise


def sources(recordings: int) -> list[Source]:
    """Both tasks of a language are measured on the same recordings."""
    found = []
    for name in NAMES:
        code = name.partition("/")[2]
        found += [Source(name, frozenset({f"{code}-{number}"}), code) for number in range(recordings)]
    return found


def gramian(gradients: torch.Tensor) -> torch.Tensor:
    flat = gradients.flatten(0, 1)
    return flat @ flat.T


def of_single_gradients(gradients: torch.Tensor, first: int, second: int) -> torch.Tensor:
    """Cosines of two objectives' gradients of one recording each."""
    unit = normalize(gradients, dim=-1)
    return (unit[first] * unit[second]).sum(-1)


def test_intervals_cover_what_was_planted_where_one_percent_is_signal():
    """In 95 % of 200 repeats, of pairs with and without common recordings and of a mean; nearly in all of them where a
    bootstrap's spread is not corrected, in none by the cosines of single gradients."""
    design, random = Design(sources(32), draws=200), torch.Generator().manual_seed(1)
    pairs = kinds_of_pairs(NAMES)["all pairs"]
    truth = {"asr/cs asr/nl": 0.5, "asr/cs st/cs": -0.4, "mean": COSINES[pairs[0], pairs[1]].mean().item()}
    covered, single = dict.fromkeys(truth, 0), 0
    for _ in range(200):
        gradients = planted(random, 32, 500, signal=0.01, shared=0.5)
        found = Agreement(gramian(gradients), design)
        estimates = {"asr/cs asr/nl": found.cosine(0, 2), "asr/cs st/cs": found.cosine(0, 1)}
        estimates["mean"] = found.mean_cosine(pairs)
        for name, estimate in estimates.items():
            covered[name] += estimate.low <= truth[name] <= estimate.high
        cosines = of_single_gradients(gradients, 0, 2)
        half = 1.96 * cosines.std() / 32**0.5
        single += bool(abs(cosines.mean() - truth["asr/cs asr/nl"]) < half)
    for name, times in covered.items():
        assert 0.9 <= times / 200 <= 0.985, (name, times)
    assert single == 0


def test_noise_that_two_objectives_share_does_not_count():
    """Where asr and st have the same noise in each recording, single gradients agree though they are planted against
    each other."""
    random = torch.Generator().manual_seed(1)
    gradients = planted(random, 64, 2000, signal=0.01, shared=1.0)
    found = Agreement(gramian(gradients), Design(sources(64), draws=100))
    assert of_single_gradients(gradients, 0, 1).mean() > 0.9
    assert abs(found.cosine(0, 1).value + 0.4) < 0.2
    apart = [Source(each.objective, frozenset({f"{number}"}), "all") for number, each in enumerate(sources(64))]
    biased = Agreement(gramian(gradients), Design(apart, draws=100))
    assert biased.cosine(0, 1).value > 0.9, "if recordings were taken for different ones"


def test_products_are_those_of_different_recordings():
    gradients = torch.randn(4, 5, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients *= torch.tensor([1.0, 100.0, 1.0, 0.01])[:, None, None]
    found = Agreement(gramian(gradients), Design(sources(5), draws=10))
    scaled = gradients / gradients.square().sum(-1).mean(1).sqrt()[:, None, None]
    same_language = [scaled[0, r] @ scaled[1, s] for r in range(5) for s in range(5) if r != s]
    other_language = [scaled[0, r] @ scaled[2, s] for r in range(5) for s in range(5)]
    own = [scaled[1, r] @ scaled[1, s] for r in range(5) for s in range(5) if r != s]
    assert found.products[0, 1].item() == pytest.approx((sum(same_language) / 20).item())
    assert found.products[0, 2].item() == pytest.approx((sum(other_language) / 25).item())
    assert found.products[1, 1].item() == pytest.approx((sum(own) / 20).item())


def test_a_group_that_contains_a_recording_is_not_multiplied_with_it():
    each = [Source("asr/cs", frozenset({str(number)}), "cs") for number in range(4)]
    each += [Source("cpc", frozenset({"0", "1"}), ""), Source("cpc", frozenset({"2", "8"}), "")]
    found = Design(each, draws=10)
    assert found.independent[4:, :4].tolist() == [[0, 0, 1, 1], [1, 1, 0, 1]]
    assert found.pairs.tolist() == [[12, 5], [5, 2]]


def test_draws_take_as_many_recordings_of_each_language():
    design = Design(sources(8), draws=50)
    assert torch.equal(design.weights[:, :8], design.weights[:, 8:16]), "both tasks are those of a recording"
    assert (design.weights[:, :8].sum(1) == 8).all() and (design.weights[:, 16:24].sum(1) == 8).all()
    assert not torch.equal(design.weights[:, :8], design.weights[:, 16:24])
    assert torch.equal(design.weights, Design(sources(8), draws=50).weights)
    assert not torch.equal(design.weights, Design(sources(8), draws=50, seed=2).weights)


def test_nothing_is_known_where_all_is_noise():
    random = torch.Generator().manual_seed(2)
    found = Agreement(gramian(planted(random, 16, 200, signal=0.0, shared=0.5)), Design(sources(16), draws=200))
    cosines = [found.cosine(first, second) for first in range(4) for second in range(first)]
    assert cosines.count(UNKNOWN) >= 4
    none = Agreement(torch.zeros(64, 64), Design(sources(16), draws=200))
    assert none.mean_cosine(torch.tensor([[0], [1]])) == UNKNOWN and not none.cosines().any()


def test_one_recording_is_too_few():
    with pytest.raises(ValueError, match="asr/nl: expected gradients of two recordings at least, found one"):
        Design([*sources(4)[:4], Source("asr/nl", frozenset({"x"}), "nl")])


def test_kinds_of_pairs():
    kinds = kinds_of_pairs([*NAMES, "cpc"])
    assert {name: pairs.shape[1] for name, pairs in kinds.items()} == {
        "all pairs": 10,
        "asr-st, same language": 2,
        "asr-asr": 1,
        "asr-st, different languages": 2,
        "cpc-others": 4,
        "st-st": 1,
    }
