"""Normalisation: what it does to each language, and that doing it twice changes nothing."""

import json
import random
import re
import unicodedata
from pathlib import Path

import pytest

from masr.corpora.fleurs import LANGUAGES as FLEURS
from masr.text import rules
from masr.text.languages import NAMES, language_name, main_error_rate
from masr.text.normalize import normalize

MANIFEST = Path(__file__).parents[2] / "egs/freevoices/corpus/manifest.jsonl"
BLOCKS = [  # first and last character of blocks that languages of the corpora are written in, signs among them
    " \u024f", "\u0250\u052f", "\u0531\u07ff", "\u08a0\u0dff", "\u0e01\u0fff", "\u1000\u139f", "\u13a0\u17ff",
    "\u1800\u1cff", "\u1d00\u21ff", "\u2200\u2bff", "\u2c00\u33ff", "\ua000\uabff", "\uac00\uafff", "\uf900\uffef",
    "\U0001e900\U0001faff",
]  # fmt: skip


def read_table(name: str) -> list[tuple[str, str, str]]:
    """(language, input, expected) of each row; code points that are not seen are written ``\\u200c``."""
    lines = (Path(__file__).parent / name).read_text(encoding="utf-8").split("\n")
    rows = []
    for line in lines[1:-1]:
        language, text, expected, _ = line.split("\t")
        rows.append((language, _unescaped(text), _unescaped(expected)))
    return rows


def _unescaped(text: str) -> str:
    return re.sub(r"\\u([0-9a-f]{4})|\\U([0-9a-f]{8})", lambda match: chr(int(match[1] or match[2], 16)), text)


CASES = read_table("normalization.tsv")
SENTENCES = read_table("languages.tsv")
CODES = sorted({code for rule in rules.RULES for code in rule.languages.split()} | FLEURS.keys() | {"xx"})


@pytest.mark.parametrize(("language", "text", "expected"), CASES + SENTENCES)
def test_what_is_written_differently_is_compared_in_one_form(language, text, expected):
    for form in ("NFC", "NFD"):
        assert normalize(unicodedata.normalize(form, text), language) == unicodedata.normalize("NFC", expected)
    assert normalize(expected, language) == unicodedata.normalize("NFC", expected), "twice is once"


def test_every_language_of_fleurs_has_a_sentence():
    assert FLEURS.keys() <= {language for language, _, _ in SENTENCES}


def random_texts(generator: random.Random, count: int) -> list[str]:
    """Letters of one block, with all that normalisation looks at between them."""
    blocks = []
    for first, last in BLOCKS:
        characters = map(chr, range(ord(first), ord(last) + 1))
        blocks.append([c for c in characters if unicodedata.category(c) not in ("Cn", "Co", "Cs")])
    special = [*rules.COMMON, *" '.,:·019", *(letter for pair in rules.PAIRS for letter in pair)]
    special += [letter for rule in rules.RULES for letter in rule.letters]
    texts = []
    for _ in range(count):
        pools = generator.choices([generator.choice(blocks), special], weights=[2, 1], k=generator.randint(1, 10))
        texts.append("".join(generator.choice(pool) for pool in pools))
    return texts


def test_twice_is_once_on_any_text_in_any_language():
    generator = random.Random(1)
    for language in CODES:
        for text in random_texts(generator, 30):
            once = normalize(text, language)
            assert normalize(once, language) == once, (language, ascii(text))
            assert len(once) <= 20 * len(text), "the longest letter stands for 18"


def test_twice_is_once_on_any_character_between_letters():
    for code in range(0x110000):
        if unicodedata.category(chr(code)) in ("Cn", "Co", "Cs"):
            continue
        once = normalize(f"a{chr(code)}b", "xx")
        assert normalize(once, "xx") == once, hex(code)


def test_composed_and_decomposed_text_are_the_same_in_any_language():
    generator = random.Random(2)
    for language in CODES:
        for text in random_texts(generator, 15):
            forms = {normalize(unicodedata.normalize(form, text), language) for form in ("NFC", "NFD")}
            assert forms == {normalize(text, language)}, (language, ascii(text))


def test_reference_and_hypothesis_meet_however_they_are_written():
    """Composed or not, with any apostrophe, with bidirectional marks and soft hyphens."""
    for language, text, expected in CASES + SENTENCES:
        written = (unicodedata.normalize("NFD", text), text.replace("'", "\u2019"), f"\u2068\ufeff{text}\u2069\u00ad")
        found = {normalize(form, language) for form in written}
        assert found == {unicodedata.normalize("NFC", expected)}, (language, text)


@pytest.mark.parametrize("apostrophe", rules.APOSTROPHES)
@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("fr", "l'été d'hiver", "l'été d'hiver"),
        ("uz", "o'zbek tog' sog'", "o'zbek tog' sog'"),
        ("haw", "'okina mo'olelo", "'okina mo'olelo"),
        ("yo", "ọ̀'kan", "ọ̀'kan"),
        ("gn", "g̃'a mba'e", "g̃'a mba'e"),
        ("quc", "k'iche' ja'", "k'iche' ja'"),
        ("mt", "ta' qata'", "ta' qata'"),
        ("he", "ג'ורג' רח'", "ג'ורג' רח'"),
        ("en", "'tis the boys'", "tis the boys"),
    ],
)
def test_every_apostrophe_is_one_code_point_and_a_letter_where_the_language_has_it(
    apostrophe, language, text, expected
):
    assert normalize(text.replace("'", apostrophe), language) == expected


@pytest.mark.parametrize(
    ("language", "word"), [("quc", "'utz'"), ("mt", "'kelma'"), ("haw", "'aloha'"), ("uz", "'bog'")]
)
def test_apostrophes_around_a_word_are_quotation_marks(language, word):
    assert normalize(word, language) == word.strip("'")


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("en", "1,000,000.5 and 3.14 and 1,000 and 1.000", "1000000.5 and 3.14 and 1000 and 1.000"),
        ("de", "1.000.000,5 und 3,14 und 1.000 und 1,000", "1000000,5 und 3,14 und 1000 und 1,000"),
        ("hi", "12,34,56,789 और 1,00,000", "123456789 और 100000"),
        ("fr", "12\u202f345,6 et 1\u00a0000\u00a0000", "12345,6 et 1000000"),
        ("en", "at 10:30 on 01.02.2003, version 1.2.3", "at 10 30 on 01 02 2003 version 1 2 3"),
        ("en", "1'000 and 5'10 and 1'234.50", "1000 and 5 10 and 1234.50"),
        ("ar", "١٬٠٠٠٫٥ و ٣٫١٤", "1000.5 و 3.14"),
        ("en", "-5 % .5 7. 1990-2000", "5 5 7 1990 2000"),
        ("en", "0,123 1,0000 12345,678", "0,123 1,0000 12345,678"),
        ("am", "፳፻ ፩", "፳፻ ፩"),
    ],
)
def test_numbers_keep_the_decimal_separator_and_lose_the_one_between_thousands(language, text, expected):
    assert normalize(text, language) == expected


def test_every_native_digit_is_an_ascii_digit():
    digits = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) == "Nd"]
    assert len(digits) > 600
    for digit in digits:
        assert normalize(digit, "xx") == str(unicodedata.decimal(digit))


UNSEEN = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u061c\u00ad\u200b\u2060\ufeff\u034f\ufe0f"


@pytest.mark.parametrize("sign", UNSEEN)
def test_signs_that_are_not_seen_vanish_and_do_not_part_words(sign):
    for language, word in (("ar", "كتاب"), ("he", "שלום"), ("en", "word")):
        assert normalize(f"{sign}{word[:2]}{sign}{word[2:]}{sign} {sign}", language) == word


@pytest.mark.parametrize("emoji", ["❤️", "👨‍👩‍👧", "👍🏽", "🇫🇷", "🏴\U000e0067\U000e0062\U000e007f", "™️", "🏳️‍🌈", "#️⃣"])
def test_emoji_of_any_number_of_code_points_part_words_and_leave_nothing(emoji):
    assert normalize(f"a{emoji}b {emoji}", "en") == "a b"


def test_joiners_stay_only_where_they_decide_how_a_word_is_written():
    assert normalize("می\u200cخواهم \u200cاو\u200c کار\u200cها", "fa") == "می\u200cخواهم او کارها", "r is never joined"
    assert normalize("ह\u200cम श्\u200dम", "hi") == "हम श्\u200dम", "behind a virama"
    assert normalize("auf\u200clage", "de") == "auflage"
    assert normalize("می\u200c\u200c\u200dخواهم", "fa") == "می\u200cخواهم"


@pytest.mark.parametrize("code", ["az", "az-Latn", "az-Latn-AZ", "AZ_latn", "tr-TR", "azj"])
def test_subtags_choose_rules(code):
    assert normalize("IĞ", code) == "ığ"


@pytest.mark.parametrize("code", ["az-Cyrl", "tt", "uz-Cyrl", "en-tr"])
def test_subtags_of_another_script_or_region_do_not(code):
    assert normalize("IG", code) == "ig"


def test_languages_with_rules_for_a_script_have_a_usual_one():
    named = {code.split("-")[0] for code in CODES if re.search("-[A-Z][a-z]{3}$", code)}
    assert named == rules.SCRIPTS.keys()


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
        for character in re.sub("(?<=[0-9])[.,](?=[0-9])", "", "".join(words)):
            assert unicodedata.category(character)[0] in "LMN" or character in "'·", (text, character)


def test_twice_is_once_on_every_published_text(published):
    assert len(published) > 8000
    for text, language in published:
        once = normalize(text, language)
        assert normalize(once, language) == once, text


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
