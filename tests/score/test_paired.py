"""Differences of two systems on the same recordings, and over seeds."""

import numpy as np
import pytest

from masr.score.paired import Counts, difference, half_of_t, in_common, mean_of_seeds, read_counts, write_counts


def counts(number: int, errors: float, speaker: str | None = None, language: str = "de", length: int = 10) -> Counts:
    both = {"wer": errors, "cer": errors}
    return Counts(f"{language}{number:03}", language, speaker, None, both, {"wer": length, "cer": length})


def pair(
    generator: np.random.Generator, better_by: float, by_speaker: float = 0.0
) -> tuple[list[Counts], list[Counts]]:
    """Two systems on 200 recordings of ten speakers; what is hard is hard for both."""
    gains = better_by + by_speaker * generator.standard_normal(10)
    first, second = [], []
    for number in range(200):
        hard, speaker = generator.uniform(0.1, 0.7), number % 10
        rates = hard, max(0.0, hard - gains[speaker])
        for rows, rate in zip((first, second), rates, strict=True):
            rows.append(counts(number, float(generator.binomial(50, rate)), f"s{speaker}", length=50))
    return first, second


def test_a_difference_is_surer_than_the_systems_are(tmp_path):
    first, second = pair(np.random.default_rng(1), 0.03)
    found = difference(first, second, "cer", ["de"])
    assert found is not None and found.interval is not None
    low, high = found.interval
    assert low < found.value < high < 0 and found.better > 0.999 and found.p < 0.01
    shuffled = [counts(number, row.errors["cer"], row.speaker, length=50) for number, row in enumerate(second[::-1])]
    apart = difference(first, shuffled, "cer", ["de"])
    assert apart is not None and apart.interval is not None
    assert apart.value == pytest.approx(found.value)
    assert apart.interval[1] - apart.interval[0] > 1.5 * (high - low)


def test_the_better_one_by_chance_is_rarely_called_better():
    """Gains differ by speaker and are 0 on average; a test that draws recordings finds one in 44 of these 100 cases."""
    surprises = 0
    for trial in range(100):
        found = difference(*pair(np.random.default_rng(trial), 0.0, by_speaker=0.05), "cer", ["de"], seed=trial)
        assert found is not None
        surprises += found.p < 0.05
    assert surprises <= 12


def test_equal_systems_do_not_differ():
    first, _ = pair(np.random.default_rng(1), 0.0)
    found = difference(first, first, "cer", ["de"])
    assert found is not None
    assert (found.value, found.interval, found.better, found.p) == (0.0, (0.0, 0.0), 0.5, 1.0)


def test_the_macro_average_draws_within_languages_and_leaves_out_those_without_text():
    generator = np.random.default_rng(1)
    first, second = pair(generator, 0.03)
    french = [counts(number, 1.0, "f", "fr") for number in range(20)]
    better = [counts(number, 0.5, "f", "fr") for number in range(20)]
    silent = [counts(number, 1.0, "f", "it", length=0) for number in range(3)]
    found = difference([*first, *french, *silent], [*second, *better, *silent], "cer", ["de", "fr", "it"])
    alone = difference(first, second, "cer", ["de"])
    assert found is not None and alone is not None
    assert found.value == pytest.approx((alone.value - 0.05) / 2)
    assert found.mark == "†", "there is one French speaker"
    assert difference(silent, silent, "cer", ["it"]) is None


def test_counts_are_kept_in_equal_bytes(tmp_path):
    rows = [counts(1, 2), counts(2, 0, "a\u2028b"), counts(3, 1.5, "s")]
    write_counts(rows, tmp_path / "a.gz")
    write_counts(rows, tmp_path / "b.gz")
    assert read_counts(tmp_path / "a.gz") == rows
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    (tmp_path / "a.gz").write_bytes((tmp_path / "b.gz").read_bytes()[:-9])
    with pytest.raises(ValueError, match="a.gz: not a file of error counts"):
        read_counts(tmp_path / "a.gz")


def test_the_mean_of_seeds_is_that_of_each_recording():
    means = mean_of_seeds([[counts(1, 2), counts(2, 0)], [counts(2, 1), counts(1, 4), counts(3, 9)]])
    assert [row.errors["cer"] for row in means] == [3, 0.5]
    common = in_common({"a": [counts(1, 2)], "b": [counts(1, 2), counts(2, 2)]})
    assert common.left_out == ["de002"]


def test_one_seed_has_no_interval():
    assert half_of_t([1.0]) is None
    assert half_of_t([1.0, 2.0]) == pytest.approx(6.353, abs=1e-3), "t of one degree of freedom: 12.71"
