"""Text normalisation: one function, versioned, applied to references and hypotheses alike.

Change any rule here and raise ``VERSION``: every result table names it, and prepared data is rebuilt.
"""

import re
import unicodedata

VERSION = "1"

# An apostrophe or a Catalan middle dot belongs to the word (l'espai, col·legi); a final one is a quotation mark.
_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "`": "'", "´": "'"})
_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u2060\ufeff"))  # soft hyphen, zero-width space and joiners
_JOINERS = "\u200c\u200d"  # they decide how a Persian or Indic word is written
_DOTLESS = str.maketrans({"I": "ı", "İ": "i"})  # Turkic
_WORD_INTERNAL = re.compile(r"(?<=\w)['·](?=\w)")
_KEEP = {"'": "\ue000", "·": "\ue001"}
_KEPT = {mark: character for character, mark in _KEEP.items()}
_VARIANTS = {"ro": str.maketrans({"ş": "ș", "ţ": "ț"})}  # cedilla forms are a legacy encoding of comma-below


def normalize(text: str, language: str) -> str:
    """Lower-cased words without punctuation, separated by single spaces.

    NFKC; typographic apostrophes become ``'`` and stay inside a word; hyphens and all other punctuation and symbols
    separate words; combining marks and joiners stay, soft hyphens and zero-width spaces vanish. ``language`` is a
    BCP-47 code.
    """
    code = language.split("-")[0]
    text = unicodedata.normalize("NFKC", text.translate(_APOSTROPHES).translate(_INVISIBLE))
    text = text.translate(_DOTLESS).lower() if code in ("tr", "az") else text.lower()
    text = text.translate(_VARIANTS.get(code, {}))
    text = _WORD_INTERNAL.sub(lambda match: _KEEP[match[0]], text)
    text = "".join(c if c in _KEPT or c in _JOINERS or unicodedata.category(c)[0] in "LMN" else " " for c in text)
    return " ".join("".join(_KEPT.get(c, c) for c in text).split())
