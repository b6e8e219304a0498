"""Languages by BCP-47 code: their English names and the unit in which errors are counted."""

NAMES = {
    "af": "Afrikaans", "am": "Amharic", "ar": "Arabic", "as": "Assamese", "ast": "Asturian", "az": "Azerbaijani",
    "ba": "Bashkir", "be": "Belarusian", "bg": "Bulgarian", "bn": "Bengali", "bs": "Bosnian", "ca": "Catalan",
    "ceb": "Cebuano", "ckb": "Sorani Kurdish", "cs": "Czech", "cy": "Welsh", "da": "Danish", "de": "German",
    "el": "Greek", "en": "English", "es": "Spanish", "et": "Estonian", "fa": "Persian", "ff": "Fula", "fi": "Finnish",
    "fil": "Filipino", "fr": "French", "ga": "Irish", "gl": "Galician", "gu": "Gujarati", "ha": "Hausa", "he": "Hebrew",
    "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "hy": "Armenian", "id": "Indonesian", "ig": "Igbo",
    "is": "Icelandic", "it": "Italian", "ja": "Japanese", "jv": "Javanese", "ka": "Georgian", "kam": "Kamba",
    "kea": "Kabuverdianu", "kk": "Kazakh", "km": "Khmer", "kn": "Kannada", "ko": "Korean", "ky": "Kyrgyz",
    "lb": "Luxembourgish", "lg": "Ganda", "ln": "Lingala", "lo": "Lao", "lt": "Lithuanian", "luo": "Luo",
    "lv": "Latvian", "mi": "Maori", "mk": "Macedonian", "ml": "Malayalam", "mn": "Mongolian", "mr": "Marathi",
    "ms": "Malay", "mt": "Maltese", "my": "Burmese", "nb": "Norwegian Bokmål", "ne": "Nepali", "nl": "Dutch",
    "nso": "Northern Sotho", "ny": "Nyanja", "oc": "Occitan", "om": "Oromo", "or": "Odia", "pa": "Punjabi",
    "pl": "Polish", "ps": "Pashto", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sd": "Sindhi",
    "sk": "Slovak", "sl": "Slovenian", "sn": "Shona", "so": "Somali", "sr": "Serbian", "sv": "Swedish", "sw": "Swahili",
    "ta": "Tamil", "te": "Telugu", "tg": "Tajik", "th": "Thai", "tr": "Turkish", "tt": "Tatar", "ug": "Uyghur",
    "uk": "Ukrainian", "umb": "Umbundu", "ur": "Urdu", "uz": "Uzbek", "vi": "Vietnamese", "wo": "Wolof", "xh": "Xhosa",
    "yo": "Yoruba", "yue": "Cantonese", "zh": "Chinese", "zu": "Zulu",
}  # fmt: skip

WRITTEN_WITHOUT_SPACES = frozenset({
    "zh", "zho", "cmn", "yue", "wuu", "nan", "hak", "cdo", "gan", "hsn", "cjy", "cpx", "cnp", "csp", "czh", "czo",
    "mnp", "lzh", "ja", "jpn", "ryu", "ams", "th", "tha", "nod", "tts", "sou", "lo", "lao", "km", "khm", "my", "mya",
    "shn", "rki", "mnw", "khb", "tdd", "blt",
})  # fmt: skip
"""Languages whose own script, the one CLDR's likelySubtags.xml gives them, has no spaces between words: Chinese and its
languages, Japanese and its relatives (Han, kana), Thai, Lao, Khmer, Burmese, Shan and the other scripts of Unicode's
line breaking class SA (UAX #14, "Complex-Context Dependent": words are found with a dictionary). Not Tibetan and
Dzongkha: a tsheg ends each syllable, so that normalised text has a space behind each, and their WER counts syllables
(The Unicode Standard, chapter 13.4). Not Korean, Vietnamese or Lisu, which have spaces."""

SCRIPTS_WITHOUT_SPACES = frozenset({
    "hani", "hans", "hant", "hanb", "bopo", "jpan", "hira", "kana", "hrkt", "thai", "laoo", "khmr", "mymr", "lana",
    "talu", "tale", "tavt", "ahom", "java", "bali",
})  # fmt: skip
"""The same by script (ISO 15924); Javanese and Balinese after The Unicode Standard, chapter 17."""

ROMANISATIONS = frozenset({"pinyin", "wadegile", "jyutping", "tailo", "pehoeji", "tongyong", "hepburn", "heploc"})
"""Variant subtags (IANA's registry) of text in Latin letters."""


def language_name(code: str) -> str:
    """English name of a language; the code itself when we have no name for it."""
    return NAMES.get(code, NAMES.get(code.split("-")[0], code))


def written_without_spaces(code: str) -> bool:
    """Whether words are not written apart in a language; a script subtag decides, e.g. ``zh-Latn`` has spaces."""
    language, *subtags = code.lower().replace("_", "-").split("-")
    scripts = [tag for tag in subtags if len(tag) == 4 and tag.isalpha()]  # no other subtag is of four letters
    if scripts:
        return scripts[0] in SCRIPTS_WITHOUT_SPACES
    if ROMANISATIONS.intersection(subtags):
        return False
    return language in WRITTEN_WITHOUT_SPACES


def main_error_rate(code: str) -> str:
    """``"cer"`` where words are not written apart, else ``"wer"``. Both are always reported."""
    return "cer" if written_without_spaces(code) else "wer"
