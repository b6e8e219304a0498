"""A text whose audio is known: its words as they are written, and the tokens as which a model would write them.

W words, U tokens.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from masr.data.sampling import as_written
from masr.text.characters import unspaced_words
from masr.text.tokenizer import WORD_START, Tokenizer

SPACES = re.compile(r"[^\S\u00a0\u2007\u202f]+")
"""White space between words; no-break spaces are inside them, as in ``1 000`` or before a French ``?``."""
NAMED = 5
"""Words or characters that a message names at most."""


@dataclass
class Script:
    """What `masr.recognize.align` finds in a recording."""

    words: list[str] = field(default_factory=list)
    """(W,) as they are written, each with the punctuation beside it."""
    lines: list[int] = field(default_factory=list)
    """(W,) number of the line in which each word stands, from 1."""
    tokens: list[int] = field(default_factory=list)
    """(U,)"""
    owners: list[int | None] = field(default_factory=list)
    """(U,) number of the word to which each token belongs; None for the spaces between words."""
    warnings: list[str] = field(default_factory=list)


@dataclass
class _Unit:
    """The least that can be a word: what stands between spaces, or one character of a script without spaces."""

    text: str
    line: int
    after_space: bool
    letters: str
    """What of it the model can write."""
    in_one_token: bool = False
    """Whether a token holds the end of the unit before, too."""


def read_script(lines: Sequence[str], language: str, tokenizer: Tokenizer, name: str = "text") -> Script:
    """The script of a text in a language, normalised as the model's training text was.

    Characters for which the model has no tokens are left out, with a warning. ValueError names the words of which
    nothing would be left, and their line. A line without words is left out.
    """
    units: list[_Unit] = []
    spoken: list[str] = []
    unwritable: list[tuple[int, str]] = []
    left_out: Counter[str] = Counter()
    for number, line in enumerate(lines, start=1):
        for chunk in SPACES.split(line):
            form = as_written(chunk, language, tokenizer)
            unknown = tokenizer.unknown_characters(form, language)
            left_out.update(unknown)
            writable = _without(form, unknown)
            if not writable and any(character.isalnum() for character in unknown):
                unwritable.append((number, chunk))
            own = list(_units(chunk, number, language, tokenizer))
            units += own
            letters = "".join(unit.letters for unit in own)
            # Normalised alone, a character may become another one than among its neighbours.
            spoken.append(writable if writable.replace(" ", "") == letters else letters)
    if unwritable:
        raise ValueError(_named(unwritable, name))
    script = Script(warnings=_warnings(left_out, name))
    script.tokens = tokenizer.encode(" ".join(text for text in spoken if text), language)
    covered = _covered_units(script.tokens, units, tokenizer)
    word_of = _join_units(units, script)
    script.owners = [None if unit is None else word_of[unit] for unit in covered]
    return script


def _units(chunk: str, line: int, language: str, tokenizer: Tokenizer) -> Iterator[_Unit]:
    """The units of what stands between two spaces."""
    for number, text in enumerate(unspaced_words(chunk)):
        form = as_written(text, language, tokenizer)
        letters = _without(form, tokenizer.unknown_characters(form, language))
        after_space = number == 0
        yield _Unit(text, line, after_space, letters.replace(" ", ""))


def _without(text: str, unknown: Sequence[str]) -> str:
    """Text with single spaces, without some characters."""
    kept = [c for c in text if c not in unknown and c != WORD_START]
    return " ".join("".join(kept).split())


def _covered_units(tokens: Sequence[int], units: Sequence[_Unit], tokenizer: Tokenizer) -> list[int | None]:
    """The first unit of which each token holds a part (U,); marks the others that it holds."""
    owner_of_letter = [number for number, unit in enumerate(units) for _ in unit.letters]
    special = set(tokens) - set(tokenizer.spoken(tokens))
    covered: list[int | None] = []
    at = 0
    for token, piece in zip(tokens, tokenizer.word_pieces(tokens), strict=True):
        if token in special or piece == WORD_START:
            covered.append(None)
            continue
        covered.append(owner_of_letter[at])
        length = len(piece.replace(WORD_START, ""))  # 0 for a byte whose character ends with a later one
        for number in owner_of_letter[at : at + length]:
            units[number].in_one_token |= number != owner_of_letter[at]
        at += length
    return covered


def _join_units(units: Sequence[_Unit], script: Script) -> list[int]:
    """Adds the words to a script, and gives the number of the word of each unit.

    What has no letters (a dash, a quotation mark) goes with the word before it in its line, or else with the next.
    """
    letters: list[str] = []
    word_of: list[int] = []
    for unit in units:
        continues = bool(script.lines) and script.lines[-1] == unit.line
        if continues and (unit.in_one_token or not unit.letters or not letters[-1]):
            space = " " if unit.after_space and script.words[-1] else ""
            script.words[-1] += space + unit.text
            letters[-1] += unit.letters
        else:
            if letters and not letters[-1]:
                _drop_last(script, letters)
            script.words.append(unit.text)
            script.lines.append(unit.line)
            letters.append(unit.letters)
        word_of.append(len(letters) - 1)
    if letters and not letters[-1]:
        _drop_last(script, letters)
    return word_of


def _drop_last(script: Script, letters: list[str]) -> None:
    """Takes away a line in which there is nothing to say."""
    script.words.pop()
    script.lines.pop()
    letters.pop()


def _named(unwritable: Sequence[tuple[int, str]], name: str) -> str:
    number, _ = unwritable[0]
    words = ", ".join(repr(word) for _, word in unwritable[:NAMED])
    more = f" and {len(unwritable) - NAMED} more words" if len(unwritable) > NAMED else ""
    return f"{name}, line {number}: the model has no tokens for {words}{more}; write them as they are spoken"


def _warnings(left_out: Counter[str], name: str) -> list[str]:
    if not left_out:
        return []
    characters = ", ".join(f"{character!r} ({count})" for character, count in left_out.most_common(NAMED))
    more = f" and {len(left_out) - NAMED} other characters" if len(left_out) > NAMED else ""
    return [f"{name}: left out, as the model has no tokens for them: {characters}{more}"]
