"""Normalisation: what it does to the eleven languages, and that doing it twice changes nothing."""

import json
import random
import unicodedata
from pathlib import Path

import pytest

from masr.text.languages import NAMES, language_name, main_error_rate
from masr.text.normalize import normalize

MANIFEST = Path(__file__).parents[2] / "egs/freevoices/corpus/manifest.jsonl"


@pytest.fixture(scope="module")
def published() -> list[tuple[str, str]]:
    """(text, language) of every recording of freevoices."""
    rows = [json.loads(line) for line in MANIFEST.read_text(encoding="utf-8").splitlines()]
    return [(row["text"], row["language"]) for row in rows]


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("be", "Тэлефон — «Нокія», так?", "тэлефон нокія так"),
        ("be", "З'ява, аб’ём і ЎЎЎ.", "з'ява аб'ём і ўўў"),
        ("bg", "Ѝ, „Ъгъл“; Щъркел!", "ѝ ъгъл щъркел"),
        ("ca", "L'ESPAI: «Col·lecció» d’ànecs.", "l'espai col·lecció d'ànecs"),
        ("ca", "coŀlegi", "col·legi"),
        ("cs", "Příliš žluťoučký KŮŇ…", "příliš žluťoučký kůň"),
        ("da", "Æblegrød på Ærø, ØL & ÅL", "æblegrød på ærø øl ål"),
        ("el", "Ο ΟΔΥΣΣΕΥΣ; Άνθρωπος·", "ο οδυσσευς άνθρωπος"),
        ("es", "¿Qué? ¡El ñandú, sí!", "qué el ñandú sí"),
        ("fr", "L’œuf d'ÉTÉ, aujourd'hui : « Noël »", "l'œuf d'été aujourd'hui noël"),
        ("nl", "'s Avonds: zo'n IJsje, foto’s", "s avonds zo'n ijsje foto's"),
        ("ro", "Ştiinţă şi ȚARĂ", "știință și țară"),
        ("ru", "Ёлка — «объект» №5", "ёлка объект no5"),
    ],
)
def test_every_language(language, text, expected):
    assert normalize(text, language) == expected


@pytest.mark.parametrize("apostrophe", ["'", "’", "‘", "ʼ", "`", "´"])
def test_every_apostrophe_is_one_and_stays_only_inside_a_word(apostrophe):
    text = f"{apostrophe}aujourd{apostrophe}hui{apostrophe} l{apostrophe} {apostrophe}"
    assert normalize(text, "fr") == "aujourd'hui l"


def test_a_middle_dot_stays_only_inside_a_word():
    assert normalize("col·lecció · col· ·lecció", "ca") == "col·lecció col lecció"


@pytest.mark.parametrize("hyphen", ["-", "‐", "‑", "–", "—", "_", "/", "...", "\u00a0", "\t\n"])
def test_hyphens_and_other_signs_separate_words(hyphen):
    assert normalize(f"Rolls{hyphen}Royce", "en") == "rolls royce"


def test_a_final_sigma_stays_final_and_the_others_do_not_become_so():
    assert normalize("ΣΕΙΣΜΟΣ, ΣΟΦΟΣ!", "el") == "σεισμος σοφος"
    assert normalize("σεισμός", "el") == "σεισμός"


def test_romanian_cedillas_become_commas_only_in_romanian():
    assert normalize("Ş ş Ţ ţ Ș Ț", "ro") == "ș ș ț ț ș ț"
    assert normalize("şţ", "ro-MD") == "șț"
    assert normalize("Ş", "tr") == "ş"


def test_decomposed_letters_are_composed():
    decomposed = unicodedata.normalize("NFD", "Ñandú ΰ й ț")
    assert decomposed != "Ñandú ΰ й ț"
    assert normalize(decomposed, "es") == "ñandú ΰ й ț"


def test_marks_that_have_no_composed_form_stay():
    assert normalize("а́збука", "ru") == "а́збука"


def test_digits_stay_and_their_variants_become_them():
    assert normalize("6x7=42, 3² und ½", "de") == "6x7 42 32 und 1 2"


@pytest.mark.parametrize("text", ["", " ", "…", "?!", "'", "·", "\u200b", "♪♪"])
def test_text_without_words_becomes_empty(text):
    assert normalize(text, "cs") == ""


def test_nothing_but_words_and_single_spaces_is_left_of_any_published_text(published):
    for text, language in published:
        words = normalize(text, language).split(" ")
        assert all(words), text
        for character in "".join(words):
            assert unicodedata.category(character)[0] in "LMN" or character in "'·", (text, character)


def test_twice_is_once_on_every_published_text(published):
    assert len(published) > 8000
    for text, language in published:
        once = normalize(text, language)
        assert normalize(once, language) == once, text


def test_twice_is_once_on_any_latin_greek_or_cyrillic_text():
    """But for two letters that change under a second NFKC: ŉ (an apostrophe in it) and İ before a mark below."""
    ranges = [(0x20, 0x250), (0x2B0, 0x530), (0x1E00, 0x2070), (0x20A0, 0x2150)]
    characters = [chr(code) for first, end in ranges for code in range(first, end)]
    characters = [c for c in characters if unicodedata.category(c) != "Cn" and c not in "ŉİ"]
    generator = random.Random(1)
    for _ in range(5000):
        text = "".join(generator.choices(characters, k=8))
        once = normalize(text, "ro")
        assert normalize(once, "ro") == once, ascii(text)


def test_case_never_matters_to_published_text(published):
    changed = [text for text, code in published if normalize(text.lower(), code) != normalize(text, code)]
    assert changed == []


def test_languages_have_names_and_a_main_measure(published):
    languages = {language for _, language in published}
    assert len(languages) == 11
    assert languages <= NAMES.keys()
    assert {main_error_rate(code) for code in languages} == {"wer"}
    assert [main_error_rate(code) for code in ("zh", "zh-TW", "yue", "ja", "th", "lo", "km", "my")] == ["cer"] * 8
    assert (language_name("pt-BR"), language_name("xx")) == ("Portuguese", "xx")


def test_invisible_characters_do_not_split_words():
    assert normalize("co\u00adoperate zero\u200bwidth \ufeffmark", "en") == "cooperate zerowidth mark"
    assert normalize("می\u200cخواهم", "fa") == "می\u200cخواهم"


def test_turkic_dotless_i():
    assert normalize("IŞIK İzmir", "tr") == "ışık izmir"
    assert normalize("INDIA", "en") == "india"
