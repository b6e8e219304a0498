"""Text normalisation: one function, versioned, applied to references and hypotheses alike.

Change any rule here or in `rules` and raise ``VERSION``: every result table names it, and prepared data is rebuilt.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

from masr.text import rules
from masr.text.rules import DOT, GROUP_SPACE, ZWJ, ZWNJ, Rule

VERSION = "2"
READABLE = ("1", "2")
"""Versions whose vocabularies can be read: what such a model writes is normalised again before it is scored."""

_JOINERS = re.compile(f"[{ZWNJ}{ZWJ}]+")
_NUMBERS = re.compile(r"[0-9]+(?:[.,'][0-9]+)+|[.,]")
_GROUPED = re.compile(r"[1-9][0-9]{0,2}([.,'])[0-9]{3}(?:\1[0-9]{3})*|[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}")
_GROUPED_BY_SPACES = re.compile(rf"(?<![0-9.,])[1-9][0-9]{{0,2}}(?:{GROUP_SPACE}[0-9]{{3}})+(?![0-9])")
_OUTER_DOT = re.compile(rf"(?<![^\s'0-9{DOT}]){DOT}|{DOT}(?![^\s'0-9{DOT}])")
_INNER = ("'", DOT, ZWNJ, ZWJ, "״")
_VIRAMA = 9  # UCD, canonical combining class

Compiled = tuple[str, re.Pattern[str], rules.Replacement]


def normalize(text: str, language: str) -> str:
    """Lower-cased words without punctuation, separated by single spaces; twice is once. ``language`` is a BCP-47 code.

    - NFC; compatibility forms (full-width, ligatures, presentation forms) become the letters they stand for.
    - Every apostrophe is ``'``. It stays inside a word, and at its edge where the language has it for a letter there.
    - Hyphens and all other punctuation and symbols separate words. Format characters, variation selectors, tatweel,
      and vowel signs that writers may leave out vanish; joiners stay where they decide how a word is written.
    - All digits are ASCII. A decimal separator stays, one between thousands vanishes (1,000 is 1000 in English, 1.000
      in German); other signs between digits separate them, as in times, dates and versions.
    - Where another code point looks the same as a letter of the language, it is that letter.
    """
    rule = _rule_of(language)
    text = unicodedata.normalize("NFC", text).translate(rule.letters)
    if not text.isascii():
        text = _spelled(text, rule)
    text = _replace(text, rule.sequences)
    if GROUP_SPACE in text:
        text = _GROUPED_BY_SPACES.sub(lambda match: match[0].replace(GROUP_SPACE, ""), text)
    text = _NUMBERS.sub(rule.number, text)
    if DOT in text:
        text = _OUTER_DOT.sub(" ", text)
    if text.isascii() and "'" not in text:
        return " ".join(text.split())
    words = [_without_edges(word, rule) for word in text.replace("''", " ").split()]
    return unicodedata.normalize("NFC", " ".join(word for word in words if word))


class _Letters(dict[int, str]):
    """What each character becomes, worked out when it is met first; for ``str.translate``."""

    def __init__(self, special: dict[str, str]):
        super().__init__()
        self.special = special

    def __missing__(self, code: int) -> str:
        self[code] = self._folded(chr(code))
        return self[code]

    def _folded(self, character: str) -> str:
        """Letters, marks and digits; "" for what vanishes, a space for what separates words."""
        if character in self.special:
            return self.special[character]
        category = unicodedata.category(character)
        if category == "Zs":
            return " "
        if category in ("Cf", "Me"):
            return ""
        if category == "Nd":
            return str(unicodedata.decimal(character))
        meant = _compatible(character)
        if meant.startswith(" "):  # a mark on its own: vanishes if it does so on a letter
            return " " if self._folded_all(meant[1:]) else ""
        if meant:
            return self._folded_all(meant)
        lower = character.lower()
        if lower != character:
            return self._folded_all(lower)
        return character if category[0] in "LMN" else " "

    def _folded_all(self, characters: str) -> str:
        return "".join(self._folded(character) for character in characters)


def _compatible(character: str) -> str:
    """What a compatibility form stands for (UCD, Decomposition_Mapping, one step); "" if it is none or stays."""
    kind, *codes = unicodedata.decomposition(character).split() or [""]
    if not kind.startswith("<") or character in rules.UNBROKEN:
        return ""
    meant = "".join(chr(int(code, 16)) for code in codes)
    return "" if kind in ("<super>", "<sub>") and not meant.isascii() else meant


class _LanguageRules:
    """All that `rules` says of one language, ready to be applied."""

    def __init__(self, found: Iterable[Rule]):
        special = dict(rules.COMMON)
        sequences: list[rules.Sequence] = []
        initial = final = ""
        self.group = ","
        for rule in found:
            special |= rule.letters
            sequences += rule.sequences
            initial = rule.initial or initial
            final = rule.final or final
            self.group = self.group if rule.group is None else rule.group
        self.letters = _Letters(special)
        self.initial = re.compile(initial) if initial else None
        self.final = re.compile(f"(?:{final})$") if final else None
        self.joined = _compiled([*rules.JOINED, *(s for s in sequences if _JOINERS.search(s[1]))])
        self.sequences = _compiled([s for s in sequences if not _JOINERS.search(s[1])])

    def number(self, match: re.Match[str]) -> str:
        """A number without the signs between its thousands; its parts, if there is more than one other sign."""
        text = match[0]
        if len(text) == 1:
            return " "
        signs = text.strip("0123456789").translate(_NO_DIGITS)
        whole, fraction = text[: text.rindex(signs[-1])], text[text.rindex(signs[-1]) + 1 :]
        if _GROUPED.fullmatch(text) and (len(signs) > 1 or signs in ("'", self.group)):
            return text.translate(_NO_SIGNS)
        if signs in (".", ","):
            return text
        if signs[-1] in ".," and signs[-1] not in whole and _GROUPED.fullmatch(whole):
            return whole.translate(_NO_SIGNS) + signs[-1] + fraction
        return text.translate(_SPACED_SIGNS)


_NO_DIGITS = str.maketrans("", "", "0123456789")
_NO_SIGNS = str.maketrans("", "", ".,'")
_SPACED_SIGNS = str.maketrans(".,'", "   ")


@lru_cache(maxsize=1024)
def _rule_of(language: str) -> _LanguageRules:
    """Of a BCP-47 code, whatever its case; a script that it does not name is that of ``rules.SCRIPTS``."""
    code, *subtags = language.replace("_", "-").lower().split("-")
    code = rules.ALIASES.get(code, code)
    script = rules.SCRIPTS.get(code, "")
    regions = [subtag.upper() for subtag in subtags if re.fullmatch("[a-z]{2}|[0-9]{3}", subtag)]
    for subtag in subtags:
        script = subtag.title() if re.fullmatch("[a-z]{4}", subtag) else script
    names = {code, f"{code}-{script}", *(f"{code}-{region}" for region in regions)}
    return _merged(tuple(n for n, rule in enumerate(rules.RULES) if not names.isdisjoint(rule.languages.split())))


@lru_cache(maxsize=1024)
def _merged(numbers: tuple[int, ...]) -> _LanguageRules:
    return _LanguageRules(rules.RULES[number] for number in numbers)


def _compiled(sequences: Iterable[rules.Sequence]) -> list[Compiled]:
    return [(guard, re.compile(pattern), replacement) for guard, pattern, replacement in sequences]


def _replace(text: str, sequences: Sequence[Compiled]) -> str:
    for guard, pattern, replacement in sequences:
        if guard in text:
            text = pattern.sub(replacement, text)
    return text


_PAIRS = re.compile(f"[{''.join({pair[0] for pair in rules.PAIRS})}][{''.join({pair[1] for pair in rules.PAIRS})}]+")
_SEQUENCES = _compiled(rules.SEQUENCES)


def _spelled(text: str, rule: _LanguageRules) -> str:
    """With one spelling of what can be written as several sequences of characters."""
    composed = unicodedata.normalize("NFC", text)
    if composed != text:  # without what stood between a letter and its mark
        text = unicodedata.normalize("NFC", composed.translate(rule.letters))
    if ZWNJ in text or ZWJ in text:
        text = _replace(text, rule.joined)
        text = _JOINERS.sub(_needed_joiner, text)
    return _replace(_PAIRS.sub(_paired, text), _SEQUENCES)


def _paired(match: re.Match[str]) -> str:
    """Each pair of `rules.PAIRS` as one, what comes out of a pair with the next sign, too."""
    text = match[0][0]
    for sign in match[0][1:]:
        pair = text[-1] + sign
        text = text[:-1] + rules.PAIRS.get(pair, pair)
    return text


def _needed_joiner(match: re.Match[str]) -> str:
    """The first of some joiners, if it decides how the letters around it are written (TUS 9.2, 12.1, 23.2)."""
    joiner = match[0][0]
    before, after = match.string[: match.start()][-1:], match.string[match.end() :][:1]
    if not before or not after:
        return ""
    if _is_arabic(before) and _is_arabic(after):
        return joiner if joiner == ZWNJ and before not in rules.UNJOINED else ""
    if not (_is_indic(before) and _is_indic(after)):
        return ""
    if unicodedata.combining(before) == _VIRAMA and after.isalpha():
        return joiner
    if joiner == ZWJ and before.isalpha() and unicodedata.combining(after) == _VIRAMA:
        return joiner
    return ""


def _is_arabic(character: str) -> bool:
    return "\u0600" <= character <= "\u08ff" and unicodedata.category(character)[0] in "LM"


def _is_indic(character: str) -> bool:
    return "\u0900" <= character <= "\u0dff"


def _without_edges(word: str, rule: _LanguageRules) -> str:
    """Without signs that have no letter before them, and without apostrophes at its edges that are no letters."""
    start = 0
    while start < len(word) and (word[start] in _INNER or unicodedata.category(word[start])[0] == "M"):
        start += 1
    bare = word[start:].rstrip("'")
    begins, ends = word[0] == "'", word[-1] == "'"
    quoted = begins and ends and not (rule.initial and rule.final)
    if quoted or not bare:
        return bare
    if begins and start == 1 and rule.initial and rule.initial.match(bare):
        bare = "'" + bare
    if ends and rule.final and rule.final.search(bare):
        bare += "'"
    return bare
