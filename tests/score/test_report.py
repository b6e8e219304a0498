"""The files that scoring writes: valid, complete, self-contained, the same on every run."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from masr.progress import in_markdown
from masr.score import errors, plots
from masr.score.report import compare_files, compare_table, write_report
from masr.text.normalize import VERSION

DETAILS = {"command": "masr score conf/x.yaml | tee log", "environment": "Python\n3.11 <b>"}
ROWS = [
    ("de/1", "de", "Ein Haus am See.", "ein maus am see", "de"),
    ("de/2", "de", "Guten Morgen!", "guten morgen", "nl"),
    ("de/3", "de", "ja", "", "de"),
    ("fr/1", "fr", "L'eau est froide", "l'eau est très froide", "fr"),
    ("zh/1", "zh", "今天天气很好，我们去公园。", "今天天汽很好我们公园", "zh"),
    ("zh/2", "zh", "你好", "你好", "zh"),
]
FILES = ("metrics.json", "report.md", "report.html", "alignments.txt")


def write_decode_file(path: Path, rows=ROWS, **changes: Any) -> Path:
    names = ("id", "language", "reference", "hypothesis", "predicted_language")
    more = {"seconds": 0.5, "duration": 2.0, "score": None, "nbest": []} | changes
    lines = [json.dumps(dict(zip(names, row, strict=True)) | more, ensure_ascii=False) + "\n" for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def score(folder: Path, rows=ROWS, details=DETAILS, **changes: Any) -> tuple[dict[str, Any], dict[str, str]]:
    source = write_decode_file(folder / "exp/small/decode/greedy/test.jsonl", rows, **changes)
    metrics = write_report(source, folder / "score", details=details)
    return metrics, {name: (folder / "score" / name).read_text(encoding="utf-8") for name in FILES}


class Page(HTMLParser):
    """Checks that elements are closed in order and gathers attributes and text."""

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_metrics_by_hand(tmp_path):
    metrics, files = score(tmp_path)
    assert json.loads(files["metrics.json"]) == metrics
    assert "NaN" not in files["metrics.json"]
    assert metrics["title"] == "small · greedy · test"
    assert metrics["normalisation_version"] == VERSION
    assert (metrics["utterances"], metrics["audio_seconds"], metrics["real_time_factor"]) == (6, 12.0, 0.25)
    german, chinese = metrics["languages"]["de"], metrics["languages"]["zh"]
    assert (german["main_measure"], chinese["main_measure"]) == ("wer", "cer")
    assert german["wer"]["rate"] == pytest.approx(2 / 7)
    assert (german["wer"]["substitutions"], german["wer"]["deletions"]) == (1, 1)
    assert german["wer"]["sentence_error_rate"] == pytest.approx(2 / 3)
    assert chinese["main"] == chinese["cer"]
    assert chinese["cer"]["rate"] == pytest.approx(2 / 13)
    assert metrics["macro"]["main"]["rate"] == pytest.approx((2 / 7 + 1 / 3 + 2 / 13) / 3)
    assert metrics["micro"]["main"]["rate"] == pytest.approx((2 + 1 + 2) / (7 + 3 + 13))
    assert metrics["languages"]["fr"]["wer"]["interval"] is None
    assert metrics["language_confusion"]["accuracy"] == pytest.approx(5 / 6)
    assert metrics["language_confusion"]["counts"]["de"] == {"de": 2, "nl": 1}


def test_averages_agree_with_errors_module(tmp_path):
    metrics, _ = score(tmp_path)
    utterances = errors.read_decode_file(tmp_path / "exp/small/decode/greedy/test.jsonl")
    for measure in errors.MEASURES:
        assert metrics["macro"][measure]["rate"] == pytest.approx(errors.macro_average(utterances, measure))
        averaged = errors.averaged(utterances, measure)
        assert metrics["micro"][measure]["rate"] == pytest.approx(errors.pooled(averaged, measure).rate)


def test_averages_of_wer_leave_out_languages_without_words_and_say_so(tmp_path):
    metrics, files = score(tmp_path)
    assert metrics["without_words"] == ["zh"]
    assert metrics["macro"]["wer"]["rate"] == pytest.approx((2 / 7 + 1 / 3) / 2)
    assert metrics["macro"]["wer"]["languages"] == 2 and metrics["macro"]["cer"]["languages"] == 3
    assert (metrics["micro"]["wer"]["reference_length"], metrics["micro"]["wer"]["utterances"]) == (10, 4)
    note = "Averages of WER leave out Chinese (zh): words are not written apart there, so CER is the measure."
    assert note in files["report.md"] and note in files["report.html"]
    assert "Chinese (zh)" not in files["report.md"].partition("## Words (%)")[2].partition("##")[0]
    alone, files = score(tmp_path, [row for row in ROWS if row[1] == "zh"])
    assert alone["macro"]["wer"]["rate"] is None and alone["macro"]["cer"]["rate"] is not None
    only_words, files = score(tmp_path, [row for row in ROWS if row[1] != "zh"])
    assert only_words["without_words"] == [] and "leave out" not in files["report.md"] + files["report.html"]


def test_error_rates_of_published_text_stand_beside_those_of_normalised_text(tmp_path):
    rows = [("de/1", "de", "ein haus", "Ein haus", "de"), ("ja/1", "ja", "今日は晴れ", "今日は、晴れ", "ja")]
    published = {"de/1": "Ein Haus.", "ja/1": "今日は晴れ。"}
    source = write_decode_file(tmp_path / "test.jsonl", rows)
    lines = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    changed = [row | {"published_reference": published[row["id"]]} for row in lines]
    source.write_text("".join(json.dumps(row) + "\n" for row in changed), encoding="utf-8")
    metrics = write_report(source, tmp_path / "score", details=DETAILS)
    assert metrics["macro"]["main"]["rate"] == 0
    assert metrics["languages"]["de"]["published_wer"]["rate"] == 1 / 2
    assert metrics["languages"]["de"]["published_cer"]["rate"] == 2 / 9
    assert metrics["languages"]["ja"]["published_cer"]["rate"] == 2 / 6
    assert metrics["macro"]["published_cer"]["rate"] == pytest.approx((2 / 9 + 2 / 6) / 2)
    assert metrics["macro"]["published_wer"]["rate"] == 1 / 2, "Japanese has no words"
    report = (tmp_path / "score/report.md").read_text(encoding="utf-8")
    assert "## With case and punctuation (%)" in report and "| German (de) | 50.00 | 22.22 |" in report
    page = (tmp_path / "score/report.html").read_text(encoding="utf-8")
    assert "With case and punctuation" in Page(page).text and "22.22" in Page(page).text
    _, files = score(tmp_path)
    assert "case and punctuation" not in files["report.md"] + files["report.html"]


def test_a_published_reference_that_is_no_text_names_the_line(tmp_path):
    source = write_decode_file(tmp_path / "test.jsonl", ROWS[:1], published_reference=5)
    with pytest.raises(
        ValueError, match=r"test\.jsonl, line 1: 'published_reference' must be a string or null, found 5"
    ):
        write_report(source, tmp_path / "score", details=DETAILS)


def test_markdown(tmp_path):
    _, files = score(tmp_path)
    lines = files["report.md"].splitlines()
    assert lines[0] == "# small · greedy · test"
    assert "| command | masr score conf/x.yaml \\| tee log |" in lines
    assert "| environment | Python<br>3.11 &lt;b&gt; |" in lines
    assert any(line.startswith("| German (de) | 3 | 0.1 | **28.57 ± ") for line in lines)
    assert "| French (fr) | 1 | 0.0 | **33.33** | 31.25 | 0.00 / 33.33 / 0.00 | 100.00 |" in lines
    assert "| German (de) | 3 | 7 | 71.43 | 14.29 | 14.29 | 0.00 | 28.57 | 66.67 |" in lines
    assert "| German (de) | 3 | 66.67 | nl (1) |" in lines
    assert "1 × haus → maus (de)" in files["report.md"]


def test_tables_have_equal_numbers_of_cells(tmp_path):
    _, files = score(tmp_path)
    for block in files["report.md"].split("\n\n"):
        rows = [line.replace("\\|", "") for line in block.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1


def test_alignments_are_worst_first_within_language(tmp_path):
    _, files = score(tmp_path)
    text = files["alignments.txt"]
    assert text.index("de/3") < text.index("de/1") < text.index("de/2") < text.index("fr/1") < text.index("zh/1")
    assert "\nein (haus->maus) am see\n" in text
    assert "\n(ja->*)\n" in text
    assert "\nl'eau est (*->très) froide\n" in text
    assert "\n今天天(气->汽)很好我们(去->*)公园\n" in text
    assert "de/1  WER 25.00 % (1 sub, 0 del, 0 ins of 4), 2.0 s" in text


def test_page_is_self_contained_and_well_formed(tmp_path):
    _, files = score(tmp_path)
    page = Page(files["report.html"])
    assert not page.open
    names = {name for name, _ in page.attributes}
    assert not names & {"src", "href", "srcset", "action", "onclick"}
    assert not re.search(r"https?:|//[a-z]|url\(|@import", files["report.html"])
    assert "prefers-color-scheme: dark" in files["report.html"]
    assert "Python\n3.11 <b>" in page.text
    assert files["report.html"].count("<svg") == 4


def test_page_shows_errors_and_escapes_what_it_is_given(tmp_path):
    _, files = score(tmp_path, rows=[("<script>&", "x<y", "a b", "a c", "<i>")])
    assert "<script>&" not in files["report.html"] and "x<y" not in files["report.html"]
    assert "&lt;script&gt;&amp;" in files["report.html"]
    assert "a <del>b</del><ins>c</ins>" in files["report.html"]
    assert not Page(files["report.html"]).open


def test_equal_input_gives_equal_bytes_whatever_the_order(tmp_path):
    _, first = score(tmp_path / "first")
    _, second = score(tmp_path / "second", rows=ROWS[::-1])
    assert first == second


def test_without_language_prediction(tmp_path):
    metrics, files = score(tmp_path, predicted_language=None)
    assert metrics["language_confusion"] is None
    assert "Language confusion" not in files["report.md"] + files["report.html"]


@pytest.mark.parametrize(
    ("reference", "hypothesis", "rate"), [("", "ja", None), ("", "", None), ("ja", "", 1.0), ("ja", "ja", 0.0)]
)
def test_smallest_inputs(tmp_path, reference, hypothesis, rate):
    metrics, files = score(tmp_path, rows=[("a", "de", reference, hypothesis, "de")], details={}, duration=0.0)
    assert metrics["macro"]["main"]["rate"] == metrics["micro"]["main"]["rate"] == rate
    assert metrics["micro"]["main"]["interval"] is None
    assert metrics["real_time_factor"] is None
    assert not Page(files["report.html"]).open


def test_no_utterances_names_the_file(tmp_path):
    with pytest.raises(ValueError, match=r"test\.jsonl: no utterances"):
        score(tmp_path, rows=[])
    assert not (tmp_path / "score").exists()


def test_comparison(tmp_path):
    first, _ = score(tmp_path / "first")
    better = [(*row[:3], row[2] if row[1] == "de" else row[3], row[4]) for row in ROWS]
    second, _ = score(tmp_path / "second", rows=better)
    lines = compare_table({"baseline": first, "ours": second}).splitlines()
    assert lines[0] == "| CER (%) | baseline | ours |"
    assert lines[2] == "| German (de) | 10.34 | 0.00 (-100.0 %) |"
    assert lines[3] == "| French (fr) | 31.25 | 31.25 (+0.0 %) |"
    macro, micro = (3 / 29 + 5 / 16 + 2 / 13) / 3, (3 + 5 + 2) / (29 + 16 + 13)
    after = (0 + 5 / 16 + 2 / 13) / 3, (0 + 5 + 2) / (29 + 16 + 13)
    change = f"({100 * (after[0] / macro - 1):+.1f} %)", f"({100 * (after[1] / micro - 1):+.1f} %)"
    assert lines[5:] == [
        f"| *macro average* | {100 * macro:.2f} | {100 * after[0]:.2f} {change[0]} |",
        f"| *micro average* | {100 * micro:.2f} | {100 * after[1]:.2f} {change[1]} |",
    ]


def test_comparison_says_what_cannot_be_compared(tmp_path):
    first, _ = score(tmp_path / "first")
    second, _ = score(tmp_path / "second", rows=[row for row in ROWS if row[0] not in ("de/3", "fr/1")])
    table = compare_table({"a": first, "b": second | {"normalisation_version": "0"}})
    assert "| French (fr) | 31.25 | – |" in table
    assert "Averages cover the 2 languages" in table
    assert "scored on different utterances" in table
    assert f"versions 0, {VERSION}" in table
    with pytest.raises(ValueError, match="no systems"):
        compare_table({})


def voices(folder: Path, name: str, wrong: int, first: int = 0, language: str = "de") -> Path:
    """40 utterances of eight speakers, of which every fifth is right whatever is ``wrong`` (0 to 4)."""
    lines = []
    for number in range(first, 40):
        hypothesis = "a b c" if number % 5 > wrong else "a x c"
        row = {"id": f"{number:02}", "language": language, "speaker": f"s{number % 8}", "reference": "a b c"}
        lines.append(json.dumps(row | {"hypothesis": hypothesis, "seconds": 0.1, "duration": 1.0}) + "\n")
    path = folder / f"exp/{name}/decode/greedy/test.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(lines))
    return path


def test_files_are_compared_on_the_same_recordings(tmp_path):
    """The difference, its interval and how sure it is stand below the rates."""
    worse, better = voices(tmp_path, "worse", 3), voices(tmp_path, "better", 0)
    text = compare_files([worse, better])
    lines = text.splitlines()
    assert "| German (de) | 16.00 | 4.00 (-75.0 %) |" in lines
    (row,) = [line for line in lines if line.startswith("| German (de) | -12.00 [-")]
    assert row.endswith("], better 100.0 %, p 0.002 |")
    assert any(line.startswith("| *macro average* | -12.00 [-") for line in lines)
    assert "(Bisani & Ney 2004)" in text and "†" not in text and "left out" not in text


def test_recordings_that_a_file_lacks_are_named_and_left_out(tmp_path):
    all_of_them, some = voices(tmp_path, "all", 3), voices(tmp_path, "some", 3, first=7)
    text = compare_files([all_of_them, some])
    assert "7 recordings are not in all files and were left out: 00, 01, 02, 03, 04 and 2 more." in text
    assert "Not comparable" not in text
    assert "| German (de) | +0.00 [+0.00, +0.00], better 50.0 %, p 1.000 |" in text


def test_files_without_a_recording_in_common_are_refused(tmp_path):
    first, second = voices(tmp_path, "first", 3), voices(tmp_path, "second", 3)
    second.write_text(second.read_text().replace('"id": "', '"id": "other'))
    with pytest.raises(ValueError, match="no recording in common.*ids of the first: 00, .*of the last: other00"):
        compare_files([first, second])
    with pytest.raises(ValueError, match="00 is in different languages: de, fr"):
        compare_files([first, voices(tmp_path, "french", 3, language="fr")])


def test_files_of_the_same_name_are_told_apart(tmp_path):
    first, second = voices(tmp_path / "1", "same", 3), voices(tmp_path / "2", "same", 0)
    names = " | ".join(in_markdown(str(file)) for file in (first, second))
    assert f"| CER (%) | {names} |" in compare_files([first, second])


@pytest.mark.parametrize(
    ("maximum", "last", "steps"), [(0.33, 0.4, 4), (1.0, 1.0, 5), (0.0, 0.1, 1), (0.007, 0.008, 4), (14.5, 15, 3)]
)
def test_ticks_are_round_and_cover(maximum, last, steps):
    ticks = plots.ticks(maximum)
    assert ticks[-1] == pytest.approx(last) and len(ticks) == steps + 1


def test_percent():
    assert plots.percent(0.12345) == "12.35" and plots.percent(None) == "–" and plots.percent(1.5, 0) == "150"


def test_weights_of_adapters_are_averaged_and_drawn(tmp_path):
    rows = [("de/1", "de", "ja", "ja", "de"), ("de/2", "de", "so", "so", "de"), ("fr/1", "fr", "oui", "oui", "fr")]
    source = write_decode_file(tmp_path / "decode/greedy/test.jsonl", rows)
    weights = [{"de": 0.9, "fr": 0.1}, {"de": 0.7, "fr": 0.3}, {"de": 0.0, "fr": 1.0}]
    lines = [json.loads(line) for line in source.read_text().splitlines()]
    new = [json.dumps(line | {"language_weights": w}) for line, w in zip(lines, weights, strict=True)]
    source.write_text("\n".join(new))
    metrics = write_report(source, tmp_path / "score", details=DETAILS)
    assert metrics["language_weights"]["de"] == pytest.approx({"de": 0.8, "fr": 0.2})
    report = (tmp_path / "score/report.md").read_text()
    assert "| German (de) | 80.0 | 20.0 |\n| French (fr) | 0.0 | 100.0 |" in report
    assert "Weights of the languages" in (tmp_path / "score/report.html").read_text()
    for name in ("language_weights", "language_confusion"):
        picture = ElementTree.parse(tmp_path / f"score/{name}.svg").getroot()
        assert picture.tag == "{http://www.w3.org/2000/svg}svg" and "--accent" in "".join(picture.itertext())


def test_weights_of_zero_and_of_more_than_one_can_be_drawn():
    assert plots.heat_map({"cs": {"cs": 0.0, "nl": 0.0}, "nl": {"cs": 1.0, "nl": 1.0}}, "Weights").count(">100<") == 2


def test_a_model_without_adapters_has_no_weights_to_show(tmp_path):
    metrics, files = score(tmp_path)
    assert metrics["language_weights"] is None and "adapters" not in files["report.md"]
    assert not (tmp_path / "score/language_weights.svg").exists()


HOSTILE = [
    (
        "a|b/<script>alert(1)</script>\x1b[2J\n1",
        "x<b>|y",
        "ein | haus <img src=x> `am` see",
        "ein \x1b[31m maus",
        "x<b>|y",
    ),
    ("[x](http://evil)", "x<b>|y", "\u202eguten morgen", "guten_morgen *stark* [y](z)", "de\x9b31m"),
    ("de/3", "de", "ja | nein", "", "de"),
]


def test_nothing_of_a_name_or_a_text_acts_where_it_is_shown(tmp_path):
    """In a terminal (control characters), in Markdown (tables, links, HTML) and on the page."""
    _, files = score(tmp_path, HOSTILE, {"command": "masr <b>|\x1b[2J [x](http://y)"})
    for name in ("report.md", "alignments.txt", "report.html"):
        assert not [c for c in files[name] if not c.isprintable() and c not in "\n\t"], name
    assert json.loads(files["metrics.json"])["details"]["command"] == "masr <b>|\x1b[2J [x](http://y)", "as it was"
    for line in files["report.md"].splitlines():
        assert not re.search(r"<(?!br>)|(?<!\\)\[.*?(?<!\\)\]\(|(?<!\\)`", line), line
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in files["report.md"].splitlines() if line.startswith("| ")]
    tables = re.findall(r"(?:^\|.*\n)+", files["report.md"], re.MULTILINE)
    assert widths and all(
        len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1 for table in tables
    )
    page = Page(files["report.html"])
    assert not page.open and "<script>alert" not in files["report.html"] and "<img" not in files["report.html"]
    assert len(files["alignments.txt"].splitlines()) == 1 + 2 * 2 + 3 * 3


def test_nothing_of_a_folder_acts_where_systems_are_compared(tmp_path):
    file = write_decode_file(tmp_path / "exp/a|<b>\x1b[31m/decode/greedy/test.jsonl", HOSTILE)
    table = compare_files([file])
    assert "\x1b" not in table and "<b>" not in table
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
