"""Epochs: what is drawn, how it forms updates, and that nothing else has a say in it."""

import random
from collections import Counter

import numpy as np
import pytest
import torch
from lhotse import MonoCut, SupervisionSegment

from masr.config import Data
from masr.data.sampling import EpochPlan, recording_name, split_by_duration, temperature_shares


def make_cut(name: str, duration: float, language: str = "es") -> MonoCut:
    supervision = SupervisionSegment(name, name, 0.0, duration, text="a", language=language)
    return MonoCut(name, 0.0, duration, 0, supervisions=[supervision])


@pytest.fixture
def cuts() -> list[MonoCut]:
    """90 recordings of Spanish and 10 of Dutch, one to four seconds long."""
    lengths = np.random.default_rng(0).uniform(1, 4, 100)
    return [make_cut(f"r{i:03}", float(length), "nl" if i % 10 == 0 else "es") for i, length in enumerate(lengths)]


def ids(updates: list[list[MonoCut]]) -> list[list[str]]:
    return [[cut.id for cut in update] for update in updates]


def draws(plan: EpochPlan, epoch: int) -> Counter[str]:
    """How often each recording comes in an epoch."""
    return Counter(cut.id.split("#")[0] for update in plan.updates(epoch) for cut in update)


def test_shares_by_hand():
    hours = {"es": 9.0, "nl": 1.0}
    assert temperature_shares(hours, 1.0) == pytest.approx({"es": 0.9, "nl": 0.1})
    assert temperature_shares(hours, 2.0) == pytest.approx({"es": 0.75, "nl": 0.25})
    assert temperature_shares(hours, 1e9) == pytest.approx({"es": 0.5, "nl": 0.5})


def test_epoch_depends_on_seed_and_number_alone(cuts):
    first = EpochPlan(cuts, Data(batch_seconds=10.0), seed=1)
    expected = {epoch: ids(first.updates(epoch)) for epoch in range(3)}
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    second = EpochPlan(cuts, Data(batch_seconds=10.0), seed=1)
    assert {epoch: ids(second.updates(epoch)) for epoch in (2, 0, 1)} == expected
    assert expected[0] != expected[1] != expected[2]
    assert ids(EpochPlan(cuts, Data(batch_seconds=10.0), seed=2).updates(0)) != expected[0]


def test_drawing_leaves_global_random_numbers_alone(cuts):
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    EpochPlan(cuts, Data(), seed=1).updates(0)
    assert random.getstate() == before[0] and np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_number_of_processes_has_no_say(cuts, monkeypatch):
    plan = EpochPlan(cuts, Data(batch_seconds=10.0), seed=1)
    alone = ids(plan.updates(0))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda *_: 2)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda *_: 1)
    assert ids(plan.updates(0)) == alone


def test_temperature_one_draws_every_recording_once(cuts):
    assert draws(EpochPlan(cuts, Data(), seed=1), 0) == {cut.id: 1 for cut in cuts}


@pytest.mark.parametrize("temperature", [1.5, 3.0, 1e6])
def test_every_recording_is_drawn_floor_or_ceil_times(cuts, temperature):
    plan = EpochPlan(cuts, Data(language_temperature=temperature), seed=1)
    counts = draws(plan, 0)
    total = sum(plan.hours.values())
    for code in ("es", "nl"):
        times = plan.shares[code] * total / plan.hours[code]
        own = [counts[cut.id] for cut in cuts if cut.supervisions[0].language == code]
        assert set(own) <= {int(times), int(times) + 1}
        assert sum(own) == int(times) * len(own) + round(times % 1 * len(own))


def test_an_epoch_has_the_shares_of_its_languages(cuts):
    plan = EpochPlan(cuts, Data(language_temperature=1e9), seed=1)
    seconds: Counter[str] = Counter()
    for cut in (cut for update in plan.updates(0) for cut in update):
        seconds[cut.supervisions[0].language] += cut.duration
    assert sum(seconds.values()) == pytest.approx(sum(cut.duration for cut in cuts), rel=0.05)
    assert seconds["nl"] / sum(seconds.values()) == pytest.approx(0.5, abs=0.05)


def test_repeated_recordings_have_ids_of_their_own(cuts):
    drawn = [cut.id for update in EpochPlan(cuts, Data(language_temperature=5.0), seed=1).updates(0) for cut in update]
    assert len(drawn) == len(set(drawn))
    assert Counter(name.split("#")[1] for name in drawn).keys() > {"0", "1"}


def test_a_recording_comes_at_one_of_its_speeds():
    cuts = [make_cut(f"r{i}{end}", 2.0 / speed) for i in range(30) for end, speed in (("_sp0.5", 0.5), ("", 1.0))]
    plan = EpochPlan(cuts, Data(batch_seconds=20.0), seed=1)
    assert plan.hours["es"] * 3600 == pytest.approx(30 * 3.0)  # the mean of two and four seconds
    lengths: dict[str, set[float]] = {}
    for epoch in range(8):
        drawn = [cut for update in plan.updates(epoch) for cut in update]
        assert len(drawn) == 30
        for cut in drawn:
            lengths.setdefault(recording_name(cut), set()).add(cut.duration)
    assert len(lengths) == 30
    assert sum(found == {2.0, 4.0} for found in lengths.values()) >= 25


@pytest.mark.parametrize(
    ("name", "expected"), [("a_sp0.9", "a"), ("a", "a"), ("house_sparrow", "house_sparrow"), ("a_spot_sp1.1", "a_spot")]
)
def test_recording_name(name, expected):
    assert recording_name(make_cut(name, 1.0)) == expected


@pytest.mark.parametrize("seconds", [4.0, 10.0, 33.0])
@pytest.mark.parametrize("buckets", [1, 2, 10])
def test_updates_hold_about_batch_seconds(cuts, seconds, buckets):
    """lhotse closes a batch when one more recording as long as its longest would be too much."""
    updates = EpochPlan(cuts, Data(batch_seconds=seconds, buckets=buckets), seed=1).updates(0)
    longest = max(cut.duration for cut in cuts)
    for update in updates:
        assert 0 < sum(cut.duration for cut in update) < seconds + longest
    filled = sum(cut.duration for cut in cuts) / (seconds * len(updates))
    assert 0.4 < filled <= 1.0


def test_buckets_keep_similar_lengths_together(cuts):
    def padding(buckets: int) -> float:
        updates = EpochPlan(cuts, Data(batch_seconds=10.0, buckets=buckets), seed=1).updates(0)
        padded = sum(max(cut.duration for cut in update) * len(update) for update in updates)
        return padded / sum(cut.duration for cut in cuts) - 1

    assert padding(10) < 0.6 * padding(1)


def test_first_epochs_may_go_from_short_to_long(cuts):
    sorted_first = EpochPlan(cuts, Data(batch_seconds=10.0, short_first_epochs=1), seed=1)
    plain = EpochPlan(cuts, Data(batch_seconds=10.0), seed=1)
    longest = [max(cut.duration for cut in update) for update in sorted_first.updates(0)]
    assert longest == sorted(longest)
    assert sorted(ids(sorted_first.updates(0))) == sorted(ids(plain.updates(0))) != ids(plain.updates(0))
    assert ids(sorted_first.updates(1)) == ids(plain.updates(1))


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_few_recordings_are_an_epoch(number):
    plan = EpochPlan([make_cut(f"r{i}", 1.0 + i) for i in range(number)], Data(batch_seconds=2.0), seed=1)
    assert sorted(name for update in ids(plan.updates(0)) for name in update) == [f"r{i}#0" for i in range(number)]


def test_split_by_duration():
    cuts = [make_cut(name, seconds) for name, seconds in (("d", 1.0), ("a", 7.0), ("b", 3.0), ("c", 2.0), ("e", 1.0))]
    assert ids(split_by_duration(cuts, 6.0)) == [["a"], ["b", "c"], ["d", "e"]]
    assert ids(split_by_duration(cuts, 9.0)) == [["a"], ["b", "c", "d"], ["e"]]
    assert split_by_duration([], 9.0) == []


def test_split_keeps_everything_within_its_limit(cuts):
    parts = split_by_duration(cuts, 12.0)
    assert sorted(cut.id for part in parts for cut in part) == [cut.id for cut in cuts]
    assert all(max(cut.duration for cut in part) * len(part) <= 12.0 for part in parts)
    assert ids(split_by_duration(cuts[::-1], 12.0)) == ids(parts)


def test_description_names_hours_and_shares():
    cuts = [make_cut("a", 9 * 360.0), make_cut("b", 360.0, "nl")]
    text = EpochPlan(cuts, Data(language_temperature=2.0), seed=1).describe()
    assert text == "an epoch at language temperature 2: Spanish 0.75 h (has 0.90), Dutch 0.25 h (has 0.10)"


def test_every_language_is_in_every_update_as_often(cuts):
    """90 Spanish and 10 Dutch recordings: an update has two of each, of about the same length."""
    plan = EpochPlan(cuts, Data(batch_seconds=10.0, every_language=True), seed=1)
    updates = plan.updates(0)
    for update in updates:
        assert Counter(cut.supervisions[0].language for cut in update) == {"es": 2, "nl": 2}
    times = draws(plan, 0)
    dutch = [times[f"r{i:03}"] for i in range(0, 100, 10)]
    assert sum(dutch) == 2 * len(updates) and max(dutch) - min(dutch) <= 1
    spread = np.mean([np.ptp([cut.duration for cut in update]) for update in updates])
    assert spread < 1.0 < np.ptp([cut.duration for cut in cuts])
    assert ids(plan.updates(0)) == ids(updates) != ids(plan.updates(1))
    total = sum(cut.duration for update in updates for cut in update)
    assert total == pytest.approx(sum(cut.duration for cut in cuts), rel=0.1), "an epoch is as long as ever"
