"""What is shown: nothing of a file name or a transcript acts on a terminal, in Markdown or on a page."""

import json

import pytest

from masr.progress import in_html, in_markdown, json_line, printable, say

ACTS = [
    "\x1b[2J\x1b[31m",
    "\x9b31m",
    "\r",
    "\x08\x08",
    "\x07",
    "\x00",
    "\x7f",
    "\u202e",
    "\u2066",
    "\u2028",
    "\x85",
    "\udce9",
]
LETTERS = "Příliš žluťoučký 語 می‌خواهم שָׁלוֹם हिन्दी 👩‍👩‍👧 l’été"


@pytest.mark.parametrize("text", ACTS)
def test_nothing_of_a_text_acts_on_a_terminal(text, capsys):
    shown = printable(f"a{text}b")
    assert shown.isprintable() and shown[0] == "a" and shown[-1] == "b" and "\\" in shown
    say(f"a{text}b\nline two")
    assert capsys.readouterr().out == f"{shown}\nline two\n"


def test_a_line_stays_one_line():
    assert printable("a\nb\tc") == r"a\x0ab\x09c"


def test_letters_of_all_languages_stay_what_they_are():
    assert printable(LETTERS) == LETTERS
    assert in_html(LETTERS) == LETTERS
    assert in_markdown(LETTERS) == LETTERS


def test_no_word_becomes_a_picture_or_markup(capsys):
    say("[bold]x[/bold] :warning: [1/2]")
    assert capsys.readouterr().out == "[bold]x[/bold] :warning: [1/2]\n"


def test_nothing_of_a_text_is_markdown_or_html():
    text = "a|b<script>alert(1)</script> [x](http://y) `c` *d* _e_ ~f~ \\ & \n| g"
    shown = in_markdown(text)
    assert "\n" not in shown and "<" not in shown and ">" not in shown
    for mark in "|[]`*_~":
        assert shown.count(mark) == shown.count(f"\\{mark}")
    assert in_html("<b>\x1b'\"&") == "&lt;b&gt;\\x1b&#x27;&quot;&amp;"


def test_json_means_the_same_without_what_acts_on_a_terminal():
    value = {"file": "a\x1b\x9b\u202e\x7f\udce9\nb", "text": LETTERS}
    line = json_line(value)
    assert json.loads(line) == value
    assert printable(line) == line and LETTERS in line
