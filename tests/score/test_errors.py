"""Error counts against jiwer, hand-computed cases, averages and bootstrap intervals."""

import json
import math
import random
from pathlib import Path

import jiwer
import kaldialign
import numpy as np
import pytest

from masr.score import errors, intervals
from masr.score.errors import ErrorCounts, Utterance, align, count_errors, merge_errors

SENTENCES = {
    "de": "Was für ein seltsames Schiff ist das denn?",
    "fr": "Ce n'est pas un œil de verre, mais un gyroscope.",
    "cs": "To není skleněné oko, ale gyroskop. Aspoň v této místnosti.",
    "el": "Τι παράξενο πλοίο είναι αυτό;",
    "ru": "Это не стеклянный глаз, а гироскоп.",
    "ca": "El col·legi és a l'altra banda del riu.",
}


def utterance(reference: str, hypothesis: str, language: str = "de", **fields: object) -> Utterance:
    values = {"id": f"{language}/{reference}/{hypothesis}", "duration": 2.0, "seconds": 0.1} | fields
    return Utterance(language=language, reference=reference, hypothesis=hypothesis, **values)  # type: ignore[arg-type]


def corrupted(text: str, generator: random.Random) -> str:
    """``text`` with 30 % of its words dropped, doubled, swapped for another or misspelt."""
    words = text.split()
    damaged = []
    for word in words:
        choices = [[], [word, word], [generator.choice(words)], [word[1:] + "x"]]
        damaged += generator.choice(choices) if generator.random() < 0.3 else [word]
    return " ".join(damaged)


def decode_file(folder: Path, *lines: str) -> Path:
    path = folder / "test.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def line(**fields: object) -> str:
    record = {"id": "a", "language": "de", "reference": "ja", "hypothesis": "ja", "seconds": 0.1, "duration": 1.0}
    return json.dumps(record | fields)


def test_alignment_by_hand():
    reference, hypothesis = ["the", "cat", "sat", "on", "the", "mat"], ["the", "hat", "sat", "the", "big", "mat"]
    pairs = align(reference, hypothesis)
    assert [left for left, _ in pairs if left is not None] == reference
    assert [right for _, right in pairs if right is not None] == hypothesis
    assert count_errors(pairs) == ErrorCounts(1, 1, 1, 6, 1, 1)


def test_alignment_of_empty_sides_and_of_symbols_that_look_like_gaps():
    assert align([], []) == []
    assert align(["a", "b"], []) == [("a", None), ("b", None)]
    assert align([], ["a"]) == [(None, "a")]
    assert align(["*", "-1", ""], ["*", ""]) == [("*", "*"), ("-1", None), ("", "")]


@pytest.mark.parametrize(
    ("reference", "hypothesis", "pairs"),
    [
        ("мир", "мор", [("м", "м"), ("и", "о"), ("р", "р")]),
        ("你好吗", "你们好", [("你", "你"), (None, "们"), ("好", "好"), ("吗", None)]),
        ("𝒜😀b", "𝒜b", [("𝒜", "𝒜"), ("😀", None), ("b", "b")]),
        ("e\u0301a", "ea", [("e", "e"), ("\u0301", None), ("a", "a")]),
    ],
)
def test_unicode_alignment_is_by_code_point(reference, hypothesis, pairs):
    assert align(reference, hypothesis) == pairs


def test_neighbouring_errors_are_merged_for_reading():
    pairs = [("a", "a"), ("b", "x"), (None, "y"), ("c", "c"), ("d", None), ("e", "e"), ("f", "f")]
    expected = [("a", "a"), ("b", "x y"), ("c", "c"), ("d", ""), ("e", "e"), ("f", "f")]
    assert [(" ".join(left), " ".join(right)) for left, right in merge_errors(pairs)] == expected
    assert merge_errors([]) == []


@pytest.mark.parametrize("language", SENTENCES)
def test_rates_equal_jiwer_on_real_sentences(language):
    generator = random.Random(language)
    utterances = [
        utterance(SENTENCES[language], corrupted(SENTENCES[language], generator), language) for _ in range(50)
    ]
    references, hypotheses = [u.reference for u in utterances], [u.hypothesis for u in utterances]
    assert errors.pooled(utterances, "wer").rate == pytest.approx(jiwer.wer(references, hypotheses), abs=1e-12)
    assert errors.pooled(utterances, "cer").rate == pytest.approx(jiwer.cer(references, hypotheses), abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_rates_equal_jiwer_on_random_text(seed):
    generator = random.Random(seed)
    texts = [
        " ".join("".join(generator.choices("abcd", k=2)) for _ in range(generator.randint(1, 12))) for _ in "12345678"
    ]
    utterances = [utterance(texts[i], texts[i + 1]) for i in range(0, 8, 2)]
    wer, cer = errors.pooled(utterances, "wer"), errors.pooled(utterances, "cer")
    assert wer.rate == pytest.approx(jiwer.wer(texts[::2], texts[1::2]), abs=1e-12)
    assert cer.rate == pytest.approx(jiwer.cer(texts[::2], texts[1::2]), abs=1e-12)
    assert wer.correct + wer.substitutions + wer.deletions == wer.reference_length


def test_texts_are_normalised_alike():
    assert utterance("Ja, das Haus!", "ja das  HAUS").counts["wer"].errors == 0
    assert utterance("L’espai", "l'espai", "ca").counts["cer"].errors == 0


def test_space_counts_as_a_character_where_words_are_written_apart():
    assert utterance("ein haus", "einhaus", "de").counts["cer"] == ErrorCounts(0, 0, 1, 8, 1, 1)


@pytest.mark.parametrize("language", ["zh", "yue", "ja", "th", "lo", "km", "my", "zh-TW"])
def test_space_is_no_character_and_cer_the_main_measure_where_they_are_not(language):
    counts = utterance("你好，世界", "你好世", language).counts
    assert counts["cer"] == counts["main"] == ErrorCounts(0, 0, 1, 4, 1, 1)


def test_word_error_rate_is_the_main_measure_elsewhere():
    counts = utterance("ein haus", "ein maus").counts
    assert counts["main"] == counts["wer"] == ErrorCounts(1, 0, 0, 2, 1, 1)


def test_empty_reference_and_hypothesis():
    assert utterance("", "").counts["wer"] == ErrorCounts(utterances=1)
    assert utterance("ja ja", "").counts["wer"] == ErrorCounts(
        deletions=2, reference_length=2, utterances=1, utterances_with_error=1
    )
    silence = utterance("...", "ja").counts["wer"]
    assert silence == ErrorCounts(insertions=1, utterances=1, utterances_with_error=1)
    assert math.isnan(silence.rate) and silence.sentence_error_rate == 1
    assert math.isnan(ErrorCounts().sentence_error_rate)


def test_macro_and_micro_average_by_hand():
    utterances = [
        utterance("a b c d", "a b c x"),  # de: 1 of 4
        utterance("a b", "a b"),  # de: 1 of 6 in all
        utterance("a b", "", "fr"),  # fr: 2 of 2
        utterance("你好", "你", "zh"),  # zh: 1 of 2 characters, 1 of 1 word
        utterance("", "a", "it"),  # no reference: in micro, not in macro
    ]
    assert errors.macro_average(utterances, "wer") == pytest.approx((1 / 6 + 1) / 2), "Chinese has no words"
    assert errors.macro_average(utterances, "main") == pytest.approx((1 / 6 + 1 + 1 / 2) / 3)
    assert errors.pooled(utterances, "main").rate == pytest.approx((1 + 2 + 1 + 1) / (6 + 2 + 2))
    assert errors.pooled(utterances, "main").sentence_error_rate == pytest.approx(4 / 5)
    assert math.isnan(errors.macro_average([], "wer"))


def sample(size: int, language: str = "de", seed: int = 0) -> list[Utterance]:
    generator = random.Random(seed)
    return [
        utterance(SENTENCES[language], corrupted(SENTENCES[language], generator), language, id=f"{language}{i}")
        for i in range(size)
    ]


@pytest.mark.parametrize("measure", errors.MEASURES)
def test_interval_contains_the_estimate_and_shrinks(measure):
    widths = []
    for size in (20, 200, 2000):
        utterances = sample(size)
        low, high = intervals.micro_interval(utterances, measure)
        assert low < errors.pooled(utterances, measure).rate < high
        widths.append(high - low)
    # The width falls with the square root of the number of utterances.
    assert widths[0] / widths[1] == pytest.approx(math.sqrt(10), rel=0.35)
    assert widths[1] / widths[2] == pytest.approx(math.sqrt(10), rel=0.35)


def test_interval_agrees_with_kaldialign():
    utterances = sample(100)
    texts = [(u.reference.split(), u.hypothesis.split()) for u in utterances]
    theirs = kaldialign.bootstrap_wer_ci(*map(list, zip(*texts, strict=True)), replications=4000)
    table = intervals.error_table(utterances, "wer")
    rates = intervals.resampled_rates(table, intervals.sampling_of_language(utterances), resamples=4000)
    assert rates.mean() == pytest.approx(theirs["wer"], rel=0.01)
    assert intervals.interval(rates) == pytest.approx((theirs["ci95min"], theirs["ci95max"]), rel=0.03)


def test_resampling_in_chunks_and_by_seed(monkeypatch):
    utterances = sample(30)
    given = intervals.error_table(utterances, "wer"), intervals.sampling_of_language(utterances)
    whole = intervals.resampled_rates(*given, resamples=101)
    assert np.array_equal(whole, intervals.resampled_rates(*given, resamples=101))
    assert not np.array_equal(whole, intervals.resampled_rates(*given, resamples=101, seed=1))
    monkeypatch.setattr(intervals, "_CHUNK", 250)
    assert np.array_equal(whole, intervals.resampled_rates(*given, resamples=101))


def test_macro_interval_resamples_within_languages():
    groups = sample(60, "de", 1), sample(60, "fr", 2), sample(60, "cs", 3)
    utterances = [u for group in groups for u in group]
    low, high = intervals.macro_interval(utterances, "wer")
    assert low < errors.macro_average(utterances, "wer") < high
    single = [intervals.micro_interval(group, "wer") for group in groups]
    # Independent languages: the variance of a mean of three is a ninth of the sum of the variances.
    expected = math.sqrt(sum((b - a) ** 2 for a, b in single)) / 3
    assert high - low == pytest.approx(expected, rel=0.2)


def test_no_interval_from_one_utterance_or_without_reference():
    assert intervals.micro_interval([utterance("a", "b")], "wer") is None
    assert intervals.macro_interval([utterance("a", "b"), utterance("a", "b", "fr")], "wer") is None
    assert intervals.micro_interval([utterance("", "b"), utterance("", "c")], "wer") is None
    assert intervals.macro_interval([utterance("", "b"), utterance("", "c")], "wer") is None
    low, high = intervals.macro_interval([*sample(20), utterance("a", "b", "fr")], "wer")
    assert 0.5 < low < high < 1


def test_confusions():
    utterances = [utterance("a b c", "a x"), utterance("a b c", "a x c"), utterance("a", "a a", "fr")]
    words = errors.confusions(utterances)
    assert words["substitutions"] == {("de", "b", "x"): 2}
    assert words["deletions"] == {("de", "c"): 1}
    assert words["insertions"] == {("fr", "a"): 1}
    characters = errors.confusions(utterances, characters=True)
    assert characters["deletions"][("de", " ")] == 1
    assert errors.most_frequent({("b",): 1, ("a",): 1, ("c",): 5}, 2) == [(("c",), 5), (("a",), 1)]


JAPANESE = ("今日 は 晴れ", "今日は晴れ", "ja")


def test_the_oracle_does_not_count_spaces_where_words_are_not_written_apart():
    reference, hypothesis, language = JAPANESE
    assert errors.oracle_cer([utterance(reference, hypothesis, language, candidates=("今日は雨", hypothesis))], 2) == 0
    assert errors.oracle_cer([utterance(reference, hypothesis, language, candidates=("今日は雨",))], 2) == 2 / 5
    thai = utterance("ไม่ ใช่", "", "th", candidates=("ไม่ใช่",))
    assert errors.oracle_cer([thai], 1) == 0


def test_words_are_not_confused_where_there_are_none():
    utterances = [utterance(*JAPANESE), utterance("ein haus", "ein maus")]
    assert errors.confusions(utterances)["substitutions"] == {("de", "haus", "maus"): 1}
    assert not errors.confusions([utterance(*JAPANESE)], characters=True)["deletions"]


def test_published_text_is_compared_as_it_is_beside_the_normalised():
    found = utterance("das haus", "Das haus", published_reference="Das  Haus!")
    assert found.counts["wer"].errors == found.counts["cer"].errors == 0
    assert found.counts["published_wer"] == ErrorCounts(1, 0, 0, 2, 1, 1)
    assert found.counts["published_cer"] == ErrorCounts(1, 0, 1, 9, 1, 1)
    assert (
        utterance("你好", "你好", "zh", published_reference="你好。 世").counts["published_cer"].reference_length == 4
    )
    assert errors.measures_of([found]) == ("wer", "cer", "main", "published_wer", "published_cer")
    assert errors.measures_of([found, utterance("a", "a")]) == errors.MEASURES


def test_language_confusion():
    heard = [("de", "de"), ("de", "nl"), ("de", "nl"), ("fr", None), ("es", "es")]
    utterances = [utterance("a", "a", spoken, predicted_language=guess) for spoken, guess in heard]
    assert errors.language_confusion(utterances) == {"de": {"de": 1, "nl": 2}, "es": {"es": 1}}
    assert errors.language_confusion([utterance("a", "a")]) == {}


def test_worst_first():
    utterances = [utterance("a b", "a b"), utterance("a b", "x y"), utterance("a", "b c d"), utterance("a b", "a x")]
    assert [u.hypothesis for u in errors.worst_first(utterances)] == ["b c d", "x y", "a x", "a b"]


def test_rate_by_duration():
    utterances = [utterance("a b", "a b" if i < 5 else "a x", duration=float(i), id=str(i)) for i in range(10)]
    rows = errors.rate_by_duration(utterances, groups=2)
    assert [row["rate"] for row in rows] == [0, 0.5]
    assert [(row["shortest"], row["median"], row["longest"]) for row in rows] == [(0, 2, 4), (5, 7, 9)]
    assert len(errors.rate_by_duration(utterances[:1])) == 1


def test_reading_sorts_by_id_and_ignores_blank_lines(tmp_path):
    path = decode_file(tmp_path, line(id="b"), "", line(id="a", predicted_language="nl", score=None))
    assert [(u.id, u.predicted_language) for u in errors.read_decode_file(path)] == [("a", "nl"), ("b", None)]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([""], "test.jsonl: no utterances"),
        ([line(), '{"id": "b", "lang'], "test.jsonl, line 2: not JSON"),
        (["[]"], "line 1: expected a JSON object, found list"),
        ([line(hypothesis=None)], "line 1: 'hypothesis' must be a string, found None"),
        ([line(duration="long")], "line 1: 'duration' must be seconds, 0 or more, found 'long'"),
        ([line(seconds=float("nan"))], "line 1: 'seconds' must be seconds"),
        ([line(predicted_language=3)], "line 1: 'predicted_language' must be a string or null, found 3"),
        ([line(speaker=3)], "line 1: 'speaker' must be a string or null, found 3"),
        ([line(), line()], "line 2: utterance 'a' was already read"),
    ],
)
def test_bad_decode_files_are_named(tmp_path, lines, message):
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        errors.read_decode_file(decode_file(tmp_path, *lines))
