"""Languages by BCP-47 code: their English names and the unit in which errors are counted."""

NAMES = {
    "az": "Azerbaijani", "ba": "Bashkir", "be": "Belarusian", "bg": "Bulgarian", "ca": "Catalan", "cs": "Czech",
    "da": "Danish", "de": "German", "el": "Greek", "en": "English", "es": "Spanish", "fr": "French",
    "gl": "Galician", "it": "Italian", "ja": "Japanese", "kk": "Kazakh", "km": "Khmer", "ko": "Korean",
    "ky": "Kyrgyz", "lo": "Lao", "my": "Burmese", "nl": "Dutch", "pl": "Polish", "pt": "Portuguese",
    "ro": "Romanian", "ru": "Russian", "sk": "Slovak", "sl": "Slovenian", "th": "Thai", "tr": "Turkish",
    "tt": "Tatar", "ug": "Uyghur", "uk": "Ukrainian", "uz": "Uzbek", "vi": "Vietnamese", "yue": "Cantonese",
    "zh": "Chinese",
}  # fmt: skip

WRITTEN_WITHOUT_SPACES = frozenset({"zh", "yue", "ja", "th", "lo", "km", "my"})


def language_name(code: str) -> str:
    """English name of a language; the code itself when we have no name for it."""
    return NAMES.get(code, NAMES.get(code.split("-")[0], code))


def main_error_rate(code: str) -> str:
    """``"cer"`` where words are not written apart, else ``"wer"``. Both are always reported."""
    return "cer" if code.split("-")[0] in WRITTEN_WITHOUT_SPACES else "wer"
