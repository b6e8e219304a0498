"""Languages by BCP-47 code: their English names and the unit in which errors are counted."""

import re
from collections.abc import Iterable

from masr.config import LANGUAGE

NAMES = {
    "ab": "Abkhazian", "abq": "Abaza", "ace": "Achinese", "ach": "Acoli", "ady": "Adyghe", "aeb": "Tunisian Arabic",
    "af": "Afrikaans", "alt": "Southern Altai", "am": "Amharic", "ami": "Amis", "an": "Aragonese",
    "apc": "Levantine Arabic", "ar": "Arabic", "arn": "Mapuche", "arq": "Algerian Arabic", "ars": "Najdi Arabic",
    "ary": "Moroccan Arabic", "arz": "Egyptian Arabic", "as": "Assamese", "ast": "Asturian", "av": "Avaric",
    "az": "Azerbaijani", "azb": "South Azerbaijani", "ba": "Bashkir", "bal": "Baluchi", "bas": "Basaa",
    "be": "Belarusian", "bg": "Bulgarian", "bgn": "Western Balochi", "bm": "Bambara", "bn": "Bengali",
    "bqi": "Bakhtiari", "br": "Breton", "brh": "Brahui", "bs": "Bosnian", "bxr": "Buryat", "ca": "Catalan",
    "cak": "Kaqchikel", "ce": "Chechen", "ceb": "Cebuano", "chp": "Chipewyan", "chr": "Cherokee",
    "ckb": "Sorani Kurdish", "cnh": "Hakha Chin", "cnr": "Montenegrin", "co": "Corsican", "crh": "Crimean Tatar",
    "cs": "Czech", "cv": "Chuvash", "cy": "Welsh", "da": "Danish", "dar": "Dargwa", "dav": "Taita", "de": "German",
    "dgr": "Dogrib", "dsb": "Lower Sorbian", "dv": "Divehi", "dyu": "Dyula", "el": "Greek", "en": "English",
    "eo": "Esperanto", "es": "Spanish", "et": "Estonian", "eu": "Basque", "ewo": "Ewondo", "fa": "Persian",
    "ff": "Fula", "fi": "Finnish", "fil": "Filipino", "fo": "Faroese", "fr": "French", "fuf": "Pular",
    "fur": "Friulian", "fy": "Western Frisian", "ga": "Irish", "gag": "Gagauz", "gan": "Gan Chinese", "gl": "Galician",
    "glk": "Gilaki", "gn": "Guarani", "gom": "Goan Konkani", "grc": "Ancient Greek", "gsw": "Swiss German",
    "gu": "Gujarati", "guc": "Wayuu", "gwc": "Gawri", "gwi": "Gwich'in", "ha": "Hausa", "hai": "Haida",
    "hak": "Hakka Chinese", "haw": "Hawaiian", "he": "Hebrew", "hi": "Hindi", "hil": "Hiligaynon", "hr": "Croatian",
    "hsb": "Upper Sorbian", "hsn": "Xiang Chinese", "ht": "Haitian Creole", "hu": "Hungarian", "hy": "Armenian",
    "hyw": "Western Armenian", "ia": "Interlingua", "id": "Indonesian", "ie": "Interlingue", "ig": "Igbo",
    "ilo": "Iloko", "inh": "Ingush", "is": "Icelandic", "it": "Italian", "izh": "Ingrian", "ja": "Japanese",
    "jbo": "Lojban", "jv": "Javanese", "ka": "Georgian", "kaa": "Karakalpak", "kab": "Kabyle", "kam": "Kamba",
    "kbd": "Kabardian", "kcn": "Nubi", "kea": "Kabuverdianu", "kgp": "Kaingang", "khw": "Khowar", "ki": "Kikuyu",
    "kiu": "Kirmanjki", "kk": "Kazakh", "kl": "Kalaallisut", "kln": "Kalenjin", "km": "Khmer",
    "kmr": "Kurmanji Kurdish", "kn": "Kannada", "ko": "Korean", "koi": "Komi-Permyak", "kok": "Konkani",
    "kpv": "Komi-Zyrian", "krc": "Karachay-Balkar", "krl": "Karelian", "ks": "Kashmiri", "ku": "Kurdish",
    "kum": "Kumyk", "kw": "Cornish", "ky": "Kyrgyz", "lad": "Ladino", "lb": "Luxembourgish", "lbe": "Lak",
    "lez": "Lezghian", "lg": "Ganda", "lij": "Ligurian", "liv": "Livonian", "lkt": "Lakota", "ln": "Lingala",
    "lo": "Lao", "lrc": "Northern Luri", "lt": "Lithuanian", "ltg": "Latgalian", "lu": "Luba-Katanga", "luo": "Luo",
    "lv": "Latvian", "lzh": "Literary Chinese", "lzz": "Laz", "mai": "Maithili", "mam": "Mam", "mdf": "Moksha",
    "mg": "Malagasy", "mhr": "Meadow Mari", "mi": "Maori", "mic": "Mi'kmaq", "mk": "Macedonian", "ml": "Malayalam",
    "mn": "Mongolian", "mni": "Manipuri", "mos": "Mossi", "mr": "Marathi", "mrj": "Hill Mari", "ms": "Malay",
    "mt": "Maltese", "my": "Burmese", "myv": "Erzya", "mzn": "Mazanderani", "nan": "Min Nan Chinese",
    "nb": "Norwegian Bokmål", "nds": "Low German", "ne": "Nepali", "nhe": "Eastern Huasteca Nahuatl", "nia": "Nias",
    "nl": "Dutch", "nn": "Norwegian Nynorsk", "nog": "Nogai", "nr": "South Ndebele", "nso": "Northern Sotho",
    "nv": "Navajo", "ny": "Nyanja", "nyn": "Nyankole", "oc": "Occitan", "om": "Oromo", "or": "Odia", "os": "Ossetic",
    "ote": "Mezquital Otomi", "oto": "Otomi", "pa": "Punjabi", "pap": "Papiamento", "pau": "Palauan", "pl": "Polish",
    "pnb": "Western Punjabi", "prs": "Dari", "ps": "Pashto", "pt": "Portuguese", "qu": "Quechua", "quc": "K'iche'",
    "quy": "Ayacucho Quechua", "rap": "Rapanui", "rar": "Cook Islands Maori", "rm": "Romansh", "rn": "Rundi",
    "ro": "Romanian", "ru": "Russian", "rw": "Kinyarwanda", "sah": "Sakha", "sat": "Santali", "sc": "Sardinian",
    "scl": "Shina", "scn": "Sicilian", "sd": "Sindhi", "sdh": "Southern Kurdish", "se": "Northern Sami", "seh": "Sena",
    "sg": "Sango", "sh": "Serbo-Croatian", "shi": "Tachelhit", "shn": "Shan", "si": "Sinhala", "sk": "Slovak",
    "skr": "Saraiki", "sl": "Slovenian", "sm": "Samoan", "smn": "Inari Sami", "sms": "Skolt Sami", "sn": "Shona",
    "snk": "Soninke", "so": "Somali", "sq": "Albanian", "sr": "Serbian", "ss": "Swati", "st": "Southern Sotho",
    "su": "Sundanese", "sv": "Swedish", "sw": "Swahili", "syr": "Syriac", "szy": "Sakizaya", "ta": "Tamil",
    "tab": "Tabasaran", "te": "Telugu", "teo": "Teso", "tg": "Tajik", "th": "Thai", "ti": "Tigrinya", "tig": "Tigre",
    "tk": "Turkmen", "tli": "Tlingit", "tly": "Talysh", "tn": "Tswana", "to": "Tongan", "tok": "Toki Pona",
    "tr": "Turkish", "trv": "Seediq", "trw": "Torwali", "ts": "Tsonga", "tt": "Tatar", "tui": "Tupuri", "tw": "Twi",
    "ty": "Tahitian", "tyv": "Tuvinian", "udm": "Udmurt", "ug": "Uyghur", "uk": "Ukrainian", "umb": "Umbundu",
    "ur": "Urdu", "uz": "Uzbek", "ve": "Venda", "vec": "Venetian", "vep": "Veps", "vi": "Vietnamese", "vmw": "Makhuwa",
    "vot": "Votic", "vro": "Võro", "wo": "Wolof", "wuu": "Wu Chinese", "xal": "Kalmyk", "xh": "Xhosa", "yi": "Yiddish",
    "yo": "Yoruba", "yrk": "Nenets", "yua": "Yucatec Maya", "yue": "Cantonese", "zap": "Zapotec",
    "zgh": "Standard Moroccan Tamazight", "zh": "Chinese", "zu": "Zulu", "zun": "Zuni", "zza": "Zaza",
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
CODE = re.compile(LANGUAGE)


def is_code(code: object) -> bool:
    """Whether it can be the code of a language, known or not: of letters and digits, so that files can be named so."""
    return isinstance(code, str) and CODE.fullmatch(code) is not None


def check_codes(codes: Iterable[object]) -> None:
    """ValueError names the first that can be no code of a language."""
    for code in codes:
        if not is_code(code):
            raise ValueError(f"language {code!r}: expected a code of letters and digits, e.g. cs or sv-SE")


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
