"""Every format reads back as what was recognised, whatever a stranger said, at times that can be shown."""

import html
import json
import re
from itertools import pairwise

import pytest

from masr.recognize.subtitles import BRIEFEST, LINE, LONGEST, columns, cues
from masr.recognize.transcript import Segment, Transcript, Word
from masr.recognize.writers import FORMATS, render

SENTENCE = "Everybody who has ever stood in front of a whale, knows how small a person is. Nobody forgets it; why?"
TIME = {"srt": r"(\d+):(\d\d):(\d\d),(\d{3})", "vtt": r"(\d+):(\d\d):(\d\d)\.(\d{3})"}


def spoken(text: str, language: str = "en", start: float = 0.0, seconds: float = 0.4, confidence=0.5) -> Segment:
    """A segment whose words take so many seconds each and follow each other without a pause."""
    words = []
    for number, word in enumerate(text.split()):
        begin = round(start + number * seconds, 3)
        words.append(Word(word, begin, round(begin + seconds, 3), confidence))
    end = words[-1].end if words else start
    return Segment(text, language, words, start=start, end=end)


def transcript_of(*segments: Segment) -> Transcript:
    words = [word for segment in segments for word in segment.words]
    text = " ".join(segment.text for segment in segments)
    end = max((segment.end for segment in segments), default=0.0)
    return Transcript(text, segments[0].language if segments else None, words, end=end, segments=list(segments))


def read_cues(content: str, form: str) -> list[tuple[int, int, list[str]]]:
    """``(start, end, lines)`` of a file of subtitles, read as players do: blocks between empty lines."""
    blocks = [block.split("\n") for block in re.split(r"\n\n+", content.strip("\n"))] if content.strip() else []
    if form == "vtt":
        assert blocks.pop(0) == ["WEBVTT"]
    found = []
    for number, block in enumerate(blocks, start=1):
        if form == "srt":
            assert block.pop(0) == str(number)
        times = re.fullmatch(f"{TIME[form]} --> {TIME[form]}", block.pop(0))
        assert times is not None and block
        assert not any("-->" in line for line in block)
        values = list(map(int, times.groups()))
        start, end = ((h * 60 + m) * 60000 + s * 1000 + ms for h, m, s, ms in (values[:4], values[4:]))
        found.append((start, end, [html.unescape(line) for line in block] if form == "vtt" else block))
    return found


def assert_readable(found: list[tuple[int, int, list[str]]]) -> None:
    """At most two lines of 42 columns, at most 7 s, one after the other."""
    before = 0
    for start, end, lines in found:
        assert before <= start < end
        assert end - start <= LONGEST
        assert len(lines) <= 2
        assert all(0 < columns(line) <= LINE for line in lines)
        before = end


def text_of(found: list[tuple[int, int, list[str]]], between: str = " ") -> str:
    return between.join(line for *_, lines in found for line in lines)


@pytest.mark.parametrize("form", ["srt", "vtt"])
def test_subtitles_read_back_as_what_was_said(form):
    transcript = transcript_of(spoken(SENTENCE), spoken(SENTENCE, start=3599.0), spoken("The end.", start=3700.0))
    found = read_cues(render(transcript, "a.wav", form), form)
    assert_readable(found)
    assert text_of(found) == transcript.text
    assert found[0][0] == 0 and found[-1][:2] == (3_700_000, 3_700_800)


def test_cues_end_at_pauses_and_signs_rather_than_when_they_are_full():
    words = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    segment = spoken(words, seconds=0.3)
    for word in segment.words[9:]:
        word.start, word.end = word.start + 0.6, word.end + 0.6
    assert cues(transcript_of(segment))[0].lines[-1].endswith("nine")
    segment = spoken(words.replace("seven", "seven."), seconds=0.3)
    assert cues(transcript_of(segment))[0].lines[-1].endswith("seven.")
    segment = spoken("yes no")
    segment.words[1].start, segment.words[1].end = 5.0, 5.4
    shown = [(cue.start, cue.end, cue.lines) for cue in cues(transcript_of(segment))]
    assert shown == [(0, BRIEFEST, ["yes"]), (5000, 5000 + BRIEFEST, ["no"])]


def test_slow_speech_is_shown_no_longer_than_seven_seconds():
    found = cues(transcript_of(spoken("one two three four five six", seconds=2.5)))
    assert [" ".join(cue.lines) for cue in found] == ["one two", "three four", "five six"] or len(found) > 2
    assert all(cue.end - cue.start <= LONGEST for cue in found)
    [held] = cues(transcript_of(spoken("aaah", seconds=60.0)))
    assert (held.start, held.end) == (0, LONGEST)


@pytest.mark.parametrize("form", FORMATS)
def test_an_empty_transcript_is_a_file_of_that_format(form):
    content = render(Transcript("", end=2.0), "a.wav", form)
    match form:
        case "srt" | "txt" | "ctm":
            assert content == ""
        case "vtt":
            assert content == "WEBVTT\n"
        case "tsv":
            assert content == "start\tend\ttext\n"
        case "json":
            assert json.loads(content)["text"] == ""
        case "textgrid":
            assert read_textgrid(content) == [(0.0, 2.0, "")]


@pytest.mark.parametrize("form", ["srt", "vtt"])
def test_a_word_longer_than_two_lines_is_parted_and_nothing_is_lost(form):
    word = "Donau" * 60
    transcript = transcript_of(spoken(f"die {word} fährt", seconds=3.0))
    found = read_cues(render(transcript, "a.wav", form), form)
    assert_readable(found)
    assert len(found) > 3
    assert text_of(found, "").replace(" ", "") == f"die{word}fährt"


@pytest.mark.parametrize("form", ["srt", "vtt"])
@pytest.mark.parametrize(
    ("language", "text"),
    [("zh", "今天天气很好，我们一起去公园散步吧。" * 6), ("ja", "今日は晴れです。" * 9), ("th", "วันนี้อากาศดีมาก" * 12)],
)
def test_languages_without_spaces_have_none_and_break_anywhere_but_before_a_sign(form, language, text):
    letters = list(re.findall(r"\w[^\w]*", text))
    words = [Word(letter, 0.2 * n, 0.2 * n + 0.2) for n, letter in enumerate(letters)]
    transcript = Transcript(text, language, words, end=0.2 * len(words))
    found = read_cues(render(transcript, "a.wav", form), form)
    assert_readable(found)
    assert text_of(found, "") == text
    assert all(line[0] not in "，。" for *_, lines in found for line in lines)
    assert max(len(line) for *_, lines in found for line in lines) <= (LINE if language == "th" else LINE // 2)
    words = [Word(word, n, n + 1.0) for n, word in enumerate(["用", "open", "AI", "写"])]
    english = Transcript("", "zh", words)
    assert text_of(read_cues(render(english, "a.wav", form), form)) == "用open AI写"


@pytest.mark.parametrize("form", ["srt", "vtt", "tsv", "txt", "textgrid", "json"])
def test_text_from_right_to_left_stays_as_it_is(form):
    text = "שלום \u200fעולם, مرحبا\u200c ها"
    content = render(transcript_of(spoken(text, "he")), "a.wav", form)
    assert all(word in content for word in text.split())
    assert content.encode("utf-8").decode("utf-8") == content


@pytest.mark.parametrize("form", ["srt", "vtt"])
@pytest.mark.parametrize("times", [True, False])
def test_segments_without_words_give_cues_that_share_their_time(form, times):
    segments = [Segment(SENTENCE, "en", start=10.0, end=18.0), Segment("今天" * 30, "zh", start=20.0, end=30.0)]
    if not times:
        segments = [Segment(SENTENCE, "en"), Segment("今天" * 30, "zh")]
    transcript = Transcript(SENTENCE, "en", segments=segments)
    found = read_cues(render(transcript, "a.wav", form), form)
    assert_readable(found)
    assert text_of(found, "").replace(" ", "") == SENTENCE.replace(" ", "") + "今天" * 30
    assert min(end - start for start, end, _ in found) >= (BRIEFEST if times else 2 * BRIEFEST)
    if times:
        assert found[0][0] == 10_000 and max(end for _, end, _ in found) == 30_000


@pytest.mark.parametrize("form", ["srt", "vtt"])
def test_nothing_that_is_said_ends_a_cue_or_acts_as_markup(form):
    said = ["a\n\n2", "-->", "00:00\r", "<b>&amp;", "x\x00\u2028y\x85", "\ud800", "--->"]
    transcript = Transcript("", "en", [Word(text, n, n + 1.0) for n, text in enumerate(said)])
    content = render(transcript, "a.wav", form)
    content.encode("utf-8")
    found = read_cues(content, form)
    assert_readable(found)
    assert text_of(found).startswith("a 2 ")
    assert "<b>&amp;" in text_of(found)
    assert "x y" in text_of(found) and "\ufffd" in text_of(found)
    assert form == "srt" or "<b>" not in content


@pytest.mark.parametrize("form", ["srt", "vtt", "ctm", "textgrid", "tsv"])
def test_times_are_never_negative_and_never_go_back(form):
    first = Segment("a b", "en", [Word("a", -0.3, 0.5), Word("b", 0.4, 0.2)], start=-0.3, end=0.5)
    second = Segment("c d", "en", [Word("c", 0.1, 0.1), Word("d", 7.0004, 7.0004)], start=0.1, end=7.0)
    content = render(Transcript("a b c d", "en", segments=[first, second], end=1.0), "a.wav", form)
    match form:
        case "srt" | "vtt":
            assert_readable(read_cues(content, form))
        case "ctm":
            rows = [line.split() for line in content.splitlines()]
            assert [row[4] for row in rows] == list("abcd")
            assert_in_order([(float(row[2]), float(row[2]) + float(row[3])) for row in rows])
        case "textgrid":
            intervals = read_textgrid(content)
            assert [text for *_, text in intervals if text] == list("abcd")
            assert_in_order([(start, end) for start, end, _ in intervals])
        case "tsv":
            rows = [line.split("\t") for line in content.splitlines()[1:]]
            assert [row[2] for row in rows] == ["a b", "c d"]
            assert all(0 <= int(row[0]) <= int(row[1]) for row in rows)


def assert_in_order(times: list[tuple[float, float]]) -> None:
    before = 0.0
    for start, end in times:
        assert before <= start + 1e-9 and start < end
        before = end


def test_ctm_has_a_confidence_where_there_is_one_and_no_space_within_a_column():
    segment = spoken("dvě  slova")
    segment.words[1].text, segment.words[1].confidence = "slo\u00a0va", None
    content = render(transcript_of(segment), "some where/a b.wav", "ctm")
    assert content == "a_b 1 0.000 0.400 dvě 0.5000\na_b 1 0.400 0.400 slo_va\n"
    assert render(transcript_of(segment), "b/a b.wav#1", "ctm") == content.replace("a_b 1", "a_b 2")


def test_tsv_has_milliseconds_and_a_row_a_segment():
    transcript = transcript_of(spoken("one\ttwo", start=1.5), spoken("three", start=4.0))
    assert render(transcript, "a.wav", "tsv") == "start\tend\ttext\n1500\t2300\tone two\n4000\t4400\tthree\n"


def test_json_holds_everything():
    segment = spoken("one two")
    segment.no_speech_probability, segment.languages = 0.1, {"en": 0.9, "nl": 0.1}
    segment.words[1].confidence = None
    found = json.loads(render(transcript_of(segment), "b/a.wav", "json"))
    assert (found["file"], found["text"], found["language"]) == ("b/a.wav", "one two", "en")
    [row] = found["segments"]
    assert (row["no_speech_probability"], row["languages"]) == (0.1, {"en": 0.9, "nl": 0.1})
    assert row["words"][1] == {"text": "two", "start": 0.4, "end": 0.8, "confidence": None}


def test_text_is_a_line_a_segment():
    transcript = transcript_of(spoken("one two"), spoken("three\nfour", start=4.0))
    assert render(transcript, "a.wav", "txt") == "one two\nthree four\n"
    assert render(Transcript("alone"), "a.wav", "txt") == "alone\n"


def read_textgrid(content: str) -> list[tuple[float, float, str]]:
    """The intervals of the only tier, which fill its time."""
    pattern = r'intervals \[\d+\]:\s+xmin = ([\d.]+)\s+xmax = ([\d.]+)\s+text = "((?:[^"]|"")*)"\n'
    found = [(float(a), float(b), text.replace('""', '"')) for a, b, text in re.findall(pattern, content)]
    assert f"intervals: size = {len(found)}\n" in content
    assert set(re.findall(r"^ *xmax = ([\d.]+)$", content.partition("intervals:")[0], re.M)) == {f"{found[-1][1]:.3f}"}
    assert found[0][0] == 0.0
    assert all(one[1] == following[0] for one, following in pairwise(found))
    return found


def test_textgrid_fills_the_recording_and_doubles_quotation_marks():
    transcript = transcript_of(spoken('say "no"', start=1.0))
    transcript.end = 3.0
    expected = [(0.0, 1.0, ""), (1.0, 1.4, "say"), (1.4, 1.8, '"no"'), (1.8, 3.0, "")]
    assert read_textgrid(render(transcript, "a.wav", "textgrid")) == expected


def test_an_unknown_format_names_the_known_ones():
    with pytest.raises(ValueError, match="format: unknown: doc; expected one of txt, json, srt, vtt, tsv, ctm, textg"):
        render(Transcript("a"), "a.wav", "doc")
