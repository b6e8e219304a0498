"""What a character is in each language, and where text of languages without spaces is divided and joined."""

import pytest

from masr.text.characters import begins_a_word, characters, joined, tidied
from masr.text.languages import main_error_rate, written_without_spaces

WITHOUT_SPACES = [
    "zh", "zh-CN", "zh-HK", "zh-Hant-TW", "cmn-Hans", "yue", "yue-Hant-HK", "nan-tw", "nan-TW", "wuu", "hak", "cdo",
    "ja", "ja-JP", "th", "lo", "km", "my", "my-MM", "shn", "nod", "ko-Hani", "jv-Java", "tha", "zh_CN",
]  # fmt: skip
WITH_SPACES = [
    "de", "ko", "vi", "zh-Latn", "zh-Latn-pinyin", "zh-pinyin", "yue-jyutping", "nan-Latn-TW", "nan-tailo", "ja-Latn",
    "th-Latn", "jv", "bo", "dz", "pa-Arab", "sr-Cyrl", "es-419",
]  # fmt: skip


@pytest.mark.parametrize("code", WITHOUT_SPACES)
def test_languages_without_spaces_are_judged_by_characters_and_spaces_are_none(code):
    assert written_without_spaces(code) and main_error_rate(code) == "cer"
    assert characters("今日 は\u3000晴れ", code) == list("今日は晴れ")


@pytest.mark.parametrize("code", WITH_SPACES)
def test_elsewhere_the_space_between_two_words_is_a_character(code):
    assert not written_without_spaces(code) and main_error_rate(code) == "wer"
    assert characters("ni hao", code) == list("ni hao")


def test_thai_marks_are_characters_of_their_own():
    assert characters("ไม่ ใช่", "th") == ["ไ", "ม", "่", "ใ", "ช", "่"]


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        ([("今日は", "ja"), ("晴れです", "ja")], "今日は晴れです"),
        ([("วันนี้", "th"), ("", "th"), ("อากาศดี", "th")], "วันนี้อากาศดี"),
        ([("你好。", "zh-CN"), ("我们走吧。", "zh-CN")], "你好。我们走吧。"),
        ([("今日は", None), ("晴れ", None)], "今日は晴れ"),
        ([("วันนี้", None), ("「ดี」", None)], "วันนี้「ดี」"),
        ([("in 2024", "zh"), ("年", "zh")], "in 2024年"),
        ([("我用 google", "zh"), ("maps 导航", "zh")], "我用 google maps 导航"),
        ([("你好", "zh"), ("hello", "en"), ("世界", "zh")], "你好 hello 世界"),
        ([("ni", "zh-Latn"), ("hao", "zh-Latn")], "ni hao"),
        ([("una", "es"), ("", "es"), ("vaca", "es")], "una vaca"),
        ([("una", None), ("vaca", None)], "una vaca"),
        ([], ""),
    ],
)
def test_texts_are_joined_with_a_space_where_their_language_has_spaces(parts, whole):
    assert joined(parts) == whole


@pytest.mark.parametrize(
    ("before", "piece", "begins"),
    [
        ("你", "好", True), ("今", "日", True), ("ก", "า", True), ("ม", "่", False), ("你", "。", False),
        ("你", "g", True), ("g", "o", False), ("go", "你", True), ("het", "ze", False), ("ស្", "រ", False),
        ("", "你", False), ("한", "국", False),
    ],
)  # fmt: skip
def test_pieces_of_scripts_without_spaces_are_words_of_their_own(before, piece, begins):
    assert begins_a_word(piece, before) == begins


def test_published_text_is_in_nfc_with_single_spaces():
    assert tidied("  U\u0308ber\t den\u00a0Fluss.\u2028 Ja! ") == "Über den Fluss. Ja!"
