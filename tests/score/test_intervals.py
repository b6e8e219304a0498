"""Intervals that know about speakers: how often they hold the truth, and what they say of themselves."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from masr.score import intervals
from masr.score.errors import Utterance
from masr.score.intervals import FEW_SPEAKERS, SPEAKERS, UTTERANCES, Sampling, blocks_of, sampling_of
from masr.score.report import compute_metrics, write_report

RATE = 0.25  # of errors, of the population


def utterance(number: int, speaker: str | None, hypothesis: str = "a b", **fields: object) -> Utterance:
    return Utterance(f"{number:03}", "de", "a b", hypothesis, 2.0, 0.1, speaker=speaker, **fields)  # type: ignore[arg-type]


def drawn_corpus(generator: np.random.Generator, speakers: int, spread: float) -> tuple[np.ndarray, Sampling]:
    """400 utterances of 4 to 15 words, of speakers whose error rates have this standard deviation."""
    rates = np.clip(RATE + spread * generator.standard_normal(speakers), 0.01, 0.9)
    who = np.arange(400) % speakers
    words = generator.integers(4, 16, 400)
    table = np.stack([generator.binomial(words, rates[who]), words], axis=1).astype(np.float64)
    blocks = tuple(tuple(np.flatnonzero(who == speaker)) for speaker in range(speakers))
    return table, Sampling(SPEAKERS, blocks)


def coverage(speakers: int, spread: float, over: str = SPEAKERS, trials: int = 200) -> float:
    """How often the interval of a test set holds the error rate of the population from which its speakers come."""
    generator = np.random.default_rng([speakers, int(1000 * spread)])
    held = 0
    for trial in range(trials):
        table, sampling = drawn_corpus(generator, speakers, spread)
        rates = intervals.resampled_rates(table, replace(sampling, over=over), resamples=300, seed=trial)
        low, high = intervals.interval(rates) or (0.0, 0.0)
        held += low <= RATE <= high
    return held / trials


@pytest.mark.parametrize("speakers", [3, 10, 30])
def test_an_interval_over_speakers_holds_the_truth_about_as_often_as_it_says(speakers):
    """One over utterances, as masr had it, does in 57 % of the cases with 10 speakers."""
    assert 0.89 <= coverage(speakers, 0.05) <= 0.99
    if speakers < 30:
        assert coverage(speakers, 0.05, UTTERANCES) < 0.75


def test_an_interval_is_no_wider_than_it_has_to_be_where_speakers_are_alike():
    assert 0.89 <= coverage(20, 0.0) <= 0.99


def test_one_or_two_speakers_are_not_drawn():
    """The interval is then that of their recordings."""
    many = [utterance(number, f"s{number % 12}") for number in range(60)]
    assert intervals.sampling_of_language(many).over == SPEAKERS
    for speakers in (1, 2):
        few = [utterance(number, f"s{number % speakers}") for number in range(60)]
        sampling = intervals.sampling_of_language(few)
        assert (sampling.over, sampling.speakers) == (FEW_SPEAKERS, speakers)
    unknown = [utterance(0, None), *many[1:]]
    assert intervals.sampling_of_language(unknown).over == UTTERANCES
    assert intervals.sampling_of_language(unknown).speakers is None


def test_speakers_who_say_nearly_nothing_do_not_count():
    main = [utterance(number, f"s{number % 2}") for number in range(100)]
    rare = [utterance(100 + number, f"rare{number}") for number in range(5)]
    sampling = intervals.sampling_of_language([*main, *rare])
    assert (sampling.over, sampling.speakers) == (FEW_SPEAKERS, 7)


def test_a_block_holds_all_that_shares_a_speaker_or_a_session():
    voices = [("anna", "1"), ("ben", "1"), ("carl", "2"), ("anna", "3"), ("dora", None), (None, "2"), ("carl", None)]
    spoken = [utterance(number, speaker, session=session) for number, (speaker, session) in enumerate(voices)]
    assert blocks_of(spoken) == [[0, 1, 3], [2, 5, 6], [4]]
    assert sampling_of(spoken, [1.0] * 7).speakers == 3


def test_speakers_who_differ_make_an_interval_wider_and_order_makes_none():
    texts = ["a b" if number % 10 < 5 else "x y" for number in range(200)]
    alike = [utterance(number, f"s{number // 10}", text) for number, text in enumerate(texts)]
    differing = [utterance(number, f"s{number % 10}", text) for number, text in enumerate(texts)]
    widths = []
    for group in (alike, differing, [replace(u, speaker=None) for u in differing]):
        low, high = intervals.micro_interval(group, "wer") or (0.0, 0.0)
        assert low <= 0.5 <= high
        widths.append(high - low)
    assert widths[0] == 0.0, "each speaker has half of it right"
    assert widths[1] > 2 * widths[2]


def test_no_interval_goes_below_zero():
    rows = [utterance(number, f"s{number // 10}", "a x" if number < 2 else "a b") for number in range(40)]
    assert (intervals.micro_interval(rows, "wer") or (1.0, 1.0))[0] == 0.0


def report_of(tmp_path: Path, speakers: dict[str, str | None]) -> tuple[dict, str, str]:
    """Scores 12 utterances of each language, whose speakers are named by a pattern with ``{}`` in it, or not at all."""
    lines = []
    for language, pattern in speakers.items():
        for number in range(12):
            row = {"id": f"{language}{number:02}", "language": language, "reference": "a b"}
            row |= {"hypothesis": "a x" if number % 3 else "a b", "seconds": 0.1, "duration": 1.0}
            if pattern is not None:
                row["speaker"] = pattern.format(number // 2)
            lines.append(json.dumps(row) + "\n")
    (tmp_path / "test.jsonl").write_text("".join(lines))
    metrics = write_report(tmp_path / "test.jsonl", tmp_path / "score", details={})
    return metrics, *((tmp_path / "score" / name).read_text() for name in ("report.md", "report.html"))


def test_a_report_says_where_an_interval_is_about_these_speakers_alone(tmp_path):
    metrics, markdown, page = report_of(tmp_path, {"de": "s{}", "fr": "f", "nl": None})
    assert {code: row["over"] for code, row in metrics["languages"].items()} == {
        "de": SPEAKERS, "fr": FEW_SPEAKERS, "nl": UTTERANCES
    }  # fmt: skip
    assert {code: row["speakers"] for code, row in metrics["languages"].items()} == {"de": 6, "fr": 1, "nl": None}
    rows = {line.split(" ")[1]: line for line in markdown.splitlines() if line.startswith("| ") and "±" in line}
    assert "†" in rows["French"] and "‡" in rows["Dutch"]
    assert "†" not in rows["German"] and "‡" not in rows["German"]
    assert "†‡" in rows["*macro"]
    for text in (markdown, page):
        assert "† Of these speakers; it says nothing about others" in text and "(speakers: fr 1)" in text
        assert "‡ The speakers of nl are not known" in text
        assert "Intervals draw speakers" in text


def test_a_decode_file_without_speakers_loads_and_its_report_says_what_that_means(tmp_path):
    metrics, markdown, page = report_of(tmp_path, {"de": None, "fr": None})
    for text in (markdown, page):
        assert "‡ The speakers of any language are not known" in text
        assert "does not know about speakers" in text
        assert "†" not in text
    assert metrics["interval"]["level"] == 0.95


def test_averages_of_languages_with_many_and_few_speakers_have_intervals():
    group = [utterance(number, f"s{number // 4}", "a x" if number % 3 else "a b") for number in range(40)]
    other = [replace(u, id=f"fr{u.id}", language="fr", speaker="f") for u in group]
    metrics = compute_metrics([*group, *other], title="", details={})
    for average in ("macro", "micro"):
        low, high = metrics[average]["wer"]["interval"]
        assert low < metrics[average]["wer"]["rate"] < high
    single = metrics["languages"]["de"]["wer"]["interval"]
    assert high - low < single[1] - single[0]
