"""What a character is: the unit of a language's CER, and where text of languages without spaces is divided.

A character is a Unicode code point. In languages written with spaces the single space between two words is one; in
languages written without, a space only marks where punctuation stood, so it is left out. `masr.text.languages` says
which languages these are.
"""

import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from masr.text.languages import written_without_spaces

LETTERS_WITHOUT_SPACES = (
    "CJK ", "IDEOGRAPHIC ", "HIRAGANA ", "KATAKANA", "HALFWIDTH KATAKANA ", "BOPOMOFO ", "THAI ", "LAO ", "KHMER ",
    "MYANMAR ", "TAI THAM ", "NEW TAI LUE ", "TAI LE ", "TAI VIET ", "AHOM ", "JAVANESE ", "BALINESE ",
)  # fmt: skip
"""Beginnings of the Unicode names of letters of scripts without spaces."""
STACKERS = "\u1039\u17d2\u1a60"
"""Signs that put the next letter below the one before: Myanmar virama, Khmer coeng, Tai Tham sakot."""


def tidied(text: str) -> str:
    """Text as it was published, in NFC and with single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def characters(text: str, language: str) -> list[str]:
    """The characters of a text in a language (BCP-47) by which CER is counted."""
    return [c for c in text if not c.isspace()] if written_without_spaces(language) else list(text)


def joined(parts: Iterable[tuple[str, str | None]]) -> str:
    """One text of successive ``(text, language)``, with a space between two of them where the language has spaces.

    Of an unknown language (None) the letters on both sides decide. Two words of a script with spaces, such as English
    ones within Chinese, stay apart in any language.
    """
    whole, before = "", None
    for text, language in parts:
        if not text:
            continue
        if whole and _is_space_between(whole, text, before, language):
            whole += " "
        whole, before = whole + text, language
    return whole


def _is_space_between(left: str, right: str, language: str | None, next_language: str | None) -> bool:
    letters = _first_letter(reversed(left)), _first_letter(right)
    spaced = [not is_written_without_spaces(letter) for letter in letters if letter]
    if language is None or next_language is None:
        return any(spaced) or not spaced
    if written_without_spaces(language) and written_without_spaces(next_language):
        return len(spaced) == 2 and all(spaced)
    return True


def _first_letter(text: Iterable[str]) -> str:
    """The first letter or number of a text, as marks and punctuation belong to any script; "" if there is none."""
    return next((character for character in text if character.isalnum()), "")


def begins_a_word(piece: str, before: str) -> bool:
    """Whether a piece of text begins a word of its own behind the text ``before``, with which no space parts it.

    In scripts without spaces every piece does, but for letters that are stacked below the one before; marks and
    punctuation belong to what they follow.
    """
    if not before or not piece or not piece[0].isalnum() or before[-1] in STACKERS:
        return False
    return is_written_without_spaces(piece[0]) or is_written_without_spaces(_first_letter(reversed(before)) or " ")


def unspaced_words(text: str) -> list[str]:
    """Text without spaces as words: whole, or where its script has no spaces, each letter with what belongs to it."""
    words: list[str] = []
    for character in text:
        if words and not begins_a_word(character, words[-1]):
            words[-1] += character
        else:
            words.append(character)
    return words


@lru_cache(maxsize=2**16)
def is_written_without_spaces(character: str) -> bool:
    """Whether a character is a letter or number of a script without spaces; its marks and punctuation are not."""
    is_letter = unicodedata.category(character)[0] in "LN"
    return is_letter and unicodedata.name(character, "").startswith(LETTERS_WITHOUT_SPACES)
