"""What normalisation does by language and script, each rule with its source. `normalize` applies it.

Sources: UCD is the Unicode Character Database, TUS the Unicode Standard (chapter), UAX its annexes, CLDR the Common
Locale Data Repository (exemplar characters, number symbols, likely subtags), nisaba the script rules of
google-research/nisaba, which follow the UCD's DoNotEmit.txt. Change a rule and raise ``normalize.VERSION``.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain

Replacement = str | Callable[[re.Match[str]], str]
Sequence = tuple[str, str, Replacement]
"""(a character without which there is nothing to do, or "", regular expression, replacement) on lower-cased text."""


@dataclass(frozen=True)
class Rule:
    """What holds for some languages on top of what holds for all."""

    languages: str
    """Codes, separated by spaces: ``az`` in any script and region, ``az-Latn``, ``de-CH``."""
    letters: Mapping[str, str] = field(default_factory=dict)
    """A character as written, or lower-cased -> what stands for it. It comes before everything that holds for all."""
    sequences: tuple[Sequence, ...] = ()
    initial: str = ""
    """Regular expression of what may follow an apostrophe that begins a word; empty: there it is a quotation mark."""
    final: str = ""
    """Regular expression of what may precede an apostrophe that ends a word; empty: there it is a quotation mark."""
    group: str | None = None
    """The sign between thousands, ``.`` or ``,``, or "" if it is neither."""


def _each(characters: str, replacement: str) -> dict[str, str]:
    return dict.fromkeys(characters, replacement)


def _kept(characters: str) -> dict[str, str]:
    return {character: character for character in characters}


def _between(*ranges: str) -> str:
    """All characters of ranges such as ``a-z``."""
    codes = [range(ord(ends[0]), ord(ends[-1]) + 1) for ends in ranges]
    return "".join(map(chr, chain(*codes)))


# ---------------------------------------------------------------------------------------------------------------------
# All languages, by script

# UAX 29 (MidLetter, MidNumLet), CLDR exemplars of uz, haw, ty, quc, gn; TUS 6.2 (apostrophes), 7.8 (modifier letters),
# 7.2 (Greek koronis and tonos as apostrophe), 7.6 (Armenian apostrophe), 9.1 (geresh).
APOSTROPHES = (
    "'\u2018\u2019\u201b\u02bb\u02bc\u02bd\u02be\u02bf\u02b9\u2032\u2035\u00b4\u0060\u0384\u1fbd\u1fbf\u1ffe\u055a"
    "\u05f3\ua78b\ua78c\uff07\u275b\u275c"
)

# UAX 29: dots that do not part words: col·legi, étudiant·e·s.
DOT = "·"
DOTS = "\u00b7\u2027\u2219\u22c5"
# The same as typed between names in Chinese and Japanese (GB/T 15834 4.14, JIS X 4051), bullets among them.
NAME_DOTS = DOTS + "\u2022\u30fb\uff65\u16eb\ua78f\u2e31\u2e33\u1427\U00010101"

# TUS 23.2. Kept only where `normalize` finds that they decide how a word is written.
ZWNJ, ZWJ = "\u200c", "\u200d"
# UCD, Joining_Type R and U: letters that are not joined to the next one, so that ZWNJ behind them is not seen.
UNJOINED = (
    "\u0621\u0622\u0623\u0624\u0625\u0627\u0629\u062f\u0630\u0631\u0632\u0648\u0671\u0672\u0673\u0674\u0675\u0676"
    "\u0677\u0688\u0689\u068a\u068b\u068c\u068d\u068e\u068f\u0690\u0691\u0692\u0693\u0694\u0695\u0696\u0697\u0698"
    "\u0699\u06c0\u06c3\u06c4\u06c5\u06c6\u06c7\u06c8\u06c9\u06ca\u06cb\u06cd\u06cf\u06d2\u06d3\u06d5\u06ee\u06ef"
    "\u0759\u075a\u075b\u076b\u076c\u0771\u0773\u0774\u0778\u0779"
)

# Spaces that CLDR puts between thousands.
GROUP_SPACE = "\u00a0"
GROUP_SPACES = "\u00a0\u2007\u2009\u202f"

# Optional vowel signs: TUS 9.2 (tashkil, Koranic marks) and 9.1 (points, cantillation). Hamza above and below stay.
HARAKAT = _between("\u064b-\u0653", "\u0656-\u065e", "\u0610-\u061a", "\u06d6-\u06dc", "\u06df-\u06e4", "\u06ea-\u06ed")
HARAKAT += _between("\u08d3-\u08e1", "\u08e3-\u08ff") + "\u0670\u06e7\u06e8"
NIQQUD = _between("\u0591-\u05bd") + "\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"

# What is deleted, and so does not part words; besides: format characters and enclosing marks (UCD, Cf and Me).
DELETED = (
    HARAKAT
    + NIQQUD
    + "\u0640\u07fa"  # tatweel and lajanyalan stretch a word: TUS 9.2, 19.4
    + "\u055b\u055c\u055e\u055f"  # TUS 7.6: Armenian signs of emphasis, exclamation, question stand inside of words
    + "\u034f\u115f\u1160\u3164\uffa0\u17b4\u17b5\u180b\u180c\u180d\u180f"  # UCD, Default_Ignorable_Code_Point
    + _between("\ufe00-\ufe0f", "\U000e0100-\U000e01ef")  # TUS 23.4: variation selectors
)
# Format characters that are seen (UCD, Prepended_Concatenation_Mark), and signs with letters in them that no one reads.
SEPARATORS = "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd" + "™℠"
# Symbols that are words: Sindhi "and" and "in" (TUS 9.2).
WORDS = "\u06fd\u06fe"

# Letters that NFKC would break. Everything else with a compatibility mapping is folded, except superscripts of what is
# not ASCII (Tifinagh labialisation, Georgian nar).
UNBROKEN = (
    "\u0e33\u0eb3"  # SARA AM of Thai and Lao: TUS 16.1
    + "\u0edc\u0edd"  # HO NO and HO MO of Lao, letters of its alphabet: TUS 16.2
    + "\u0587"  # ECH YIWN, a letter of the Armenian alphabet: TUS 7.6
    + "\u0675\u0676\u0677\u0678"  # high hamza letters of Kazakh: TUS 9.2
    + "\u0f77\u0f79"  # Tibetan vowels: TUS 13.4
    + _between("\u3131-\u318e")  # jamo that stand alone: TUS 18.6
)

COMMON: dict[str, str] = {
    **_each(APOSTROPHES, "'"),
    **_each(DOTS, DOT),
    **_each(GROUP_SPACES, GROUP_SPACE),
    **_each(DELETED, ""),
    **_each(SEPARATORS, " "),
    **_kept(WORDS + ZWNJ + ZWJ + ".,Σ"),
    "\u066b": ".", "\u066c": ",",  # CLDR: decimal and thousands of the digits that become ASCII
    "İ": "i",  # UCD, SpecialCasing: i with a dot that it has anyway
    "\u17a3": "\u17a2", "\u17a4": "\u17a2\u17b6",  # TUS 16.4: deprecated Khmer letters
}  # fmt: skip

# TUS, tables of chapters 12, 13 and 16 (UCD, DoNotEmit): what looks like one letter and is written as two.
PAIRS = {
    # Devanagari
    "अॆ": "ऄ", "अा": "आ", "उु": "ऊ", "एॅ": "ऍ", "एॆ": "ऎ", "एे": "ऐ", "अॉ": "ऑ", "आॅ": "ऑ", "अॊ": "ऒ", "आॆ": "ऒ",
    "अो": "ओ", "आे": "ओ", "अौ": "औ", "आै": "औ", "अॅ": "ॲ", "अऺ": "ॳ", "अऻ": "ॴ", "आऺ": "ॴ", "अॏ": "ॵ", "अॖ": "ॶ",
    "अॗ": "ॷ", "ाॅ": "ॉ", "ाॆ": "ॊ", "ाे": "ो", "ाै": "ौ",
    # Bengali, Gurmukhi, Gujarati, Oriya
    "অা": "আ", "ঋৃ": "ৠ", "ঌৢ": "ৡ",
    "ਅਾ": "ਆ", "ੲਿ": "ਇ", "ੲੀ": "ਈ", "ੳੁ": "ਉ", "ੳੂ": "ਊ", "ੲੇ": "ਏ", "ਅੈ": "ਐ", "ੳੋ": "ਓ", "ਅੌ": "ਔ",
    "અા": "આ", "અૅ": "ઍ", "અે": "એ", "અૈ": "ઐ", "અૉ": "ઑ", "અો": "ઓ", "આે": "ઓ", "અૌ": "ઔ", "આૈ": "ઔ", "આૅ": "ઑ",
    "ૅા": "ૉ", "ଅା": "ଆ", "ଏୗ": "ଐ", "ଓୗ": "ଔ",
    # Tamil, Telugu, Kannada, Malayalam, Sinhala
    "அூ": "ஆ", "ఒౕ": "ఓ", "ఒౌ": "ఔ", "ిౕ": "ీ", "ెౕ": "ే", "ొౕ": "ో", "ಉಾ": "ಊ", "ಒೌ": "ಔ", "ಋಾ": "ೠ",
    "ഇൗ": "ഈ", "ഉൗ": "ഊ", "എെ": "ഐ", "ഒാ": "ഓ", "ഒൗ": "ഔ",
    "අා": "ආ", "අැ": "ඇ", "අෑ": "ඈ", "උෟ": "ඌ", "ඍෘ": "ඎ", "ඏෟ": "ඐ", "එ්": "ඒ", "එෙ": "ඓ", "ඔෟ": "ඖ",
    # Thai and Lao: two E for AE (PyThaiNLP, normalize); Lao HO and NO or MO for the letter (UCD, compatibility mapping)
    "เเ": "แ", "ເເ": "ແ", "ຫນ": "ໜ", "ຫມ": "ໝ",
    # Khmer: vowels of two parts; subscripts of TA and DA look the same
    "េី": "ើ", "េា": "ោ", "្ដ": "្ត",
    # Armenian: two letters for ECH YIWN (UCD, compatibility mapping)
    "եւ": "և",
    # Arabic (nisaba): yeh with hamza; a dot that i and j have anyway (UCD, Soft_Dotted)
    "یٔ": "ئ", "i̇": "i", "j̇": "j", "į̇": "į",
}  # fmt: skip


def _signs_before_tones(match: re.Match[str]) -> str:
    return "".join(sorted(match[0], key=lambda sign: sign in "\u0e48\u0e49\u0e4a\u0e4b\u0e4c\u0ec8\u0ec9\u0eca\u0ecb"))


SEQUENCES: tuple[Sequence, ...] = (
    # TUS 16.1, 16.2: SARA AM as NIKHAHIT and SARA AA, or with the tone behind it; order of signs as PyThaiNLP mends it.
    ("", "[\u0e31\u0e34-\u0e3a\u0e47-\u0e4d\u0eb1\u0eb4-\u0ebb\u0ec8-\u0ecd]{2,}", _signs_before_tones),
    ("\u0e4d", "\u0e4d([\u0e48-\u0e4b]*)\u0e32", "\\1\u0e33"),
    ("\u0e33", "\u0e33([\u0e48-\u0e4b]+)", "\\1\u0e33"),
    ("\u0ecd", "\u0ecd([\u0ec8-\u0ecb]*)\u0eb2", "\\1\u0eb3"),
    ("\u0eb3", "\u0eb3([\u0ec8-\u0ecb]+)", "\\1\u0eb3"),
    # UCD, SpecialCasing (Final_Sigma): a capital at the end of a word. Small letters stay as they were written.
    ("Σ", "(?<=[^\\W\\d_])Σ(?![\\w\u0300-\u036f])", "ς"),
    ("Σ", "Σ", "σ"),
)

# The same where a joiner is part of it.
JOINED: tuple[Sequence, ...] = (
    # TUS 12.9: chillu letters as they were written before Unicode 5.1.
    ("ണ", "ണ്\u200d", "ൺ"), ("ന", "ന്\u200d", "ൻ"), ("ര", "ര്\u200d", "ർ"), ("ല", "ല്\u200d", "ൽ"),
    ("ള", "ള്\u200d", "ൾ"), ("ക", "ക്\u200d", "ൿ"),
    # TUS 12.2: khanda ta as it was written before Unicode 4.1.
    ("ত", "ত্\u200d", "ৎ"),
)  # fmt: skip

# ---------------------------------------------------------------------------------------------------------------------
# By language

# Yeh and kaf as Persian, and not Arabic, writes them.
_FARSI = {**_each("يى", "ی"), **_each("كڪ", "ک")}
_HEBREW = "[\u05b0-\u05ea]"
_CYRILLIC = "[\u0430-\u045f\u048a-\u04ff]"

RULES: tuple[Rule, ...] = (
    # Casing. UCD, SpecialCasing (tr, az); alphabets with both letters: Crimean Tatar, Gagauz, Karakalpak, Zazaki,
    # Talysh, the Latin ones of Tatar, Kazakh, Bashkir, Karachay, Nogai, Kumyk.
    Rule(
        "tr az-Latn crh-Latn gag kaa-Latn zza diq kiu tly-Latn tt-Latn kk-Latn ba-Latn krc-Latn nog-Latn kum-Latn",
        letters={"I": "ı", "İ": "i"},
    ),
    # UCD, CaseFolding: Cherokee has its capitals for both.
    Rule("chr", letters={chr(0xAB70 + i): chr(0x13A0 + i) for i in range(80)} | _kept(_between("\u13a0-\u13f5"))),

    # Latin. TUS 7.1: comma below in Romanian, cedilla elsewhere; the code points were mixed up for long.
    Rule("ro", letters={"ş": "ș", "ţ": "ț"}),
    Rule("tr az-Latn crh-Latn gag tk ku kmr tt-Latn kk-Latn kaa-Latn zza diq", letters={"ș": "ş", "ț": "ţ"}),
    Rule("lv ltg liv", sequences=(("\u0326", "(?<=[gklnr])\u0326", "\u0327"),)),
    # CLDR exemplars have d with stroke; the capital of eth looks the same.
    Rule("vi hr bs-Latn sr-Latn cnr-Latn sh se smn", letters={"ð": "đ"}),
    # CLDR exemplars: dot below, which Yoruba and Igbo are also written with a line for.
    Rule("yo ig", letters={"\u0329": "\u0323"}),
    # TUS 7.1, CLDR exemplars: one schwa in each script.
    Rule("az-Latn", letters={"ә": "ə", "ǝ": "ə"}),
    Rule("kk-Cyrl tt-Cyrl ba-Cyrl az-Cyrl kaa-Cyrl tk-Cyrl ku-Cyrl", letters={"ə": "ә", "ǝ": "ә"}),
    # IEC, Ortografia catalana: l geminada, also typed with a bullet or a full stop. Gascon: n·h, s·h.
    Rule("ca oc an", letters={"\u2022": DOT}),
    Rule("ca", sequences=((".", "(?<=l)\\.(?=l)", DOT),)),
    # Pe̍h-ōe-jī: o with dot right above, also typed as o and a middle dot; raised n is not n. Other dots are of names.
    Rule(
        "nan",
        letters={**_kept("ⁿ"), "ᴺ": "ⁿ"},
        sequences=((DOT, "(?<=[oòóôōŏőǒ\u030d])·", "\u0358"), (DOT, "·(?=[\u3400-\u9fff\U00020000-\U0003ffff])", "")),
    ),

    # Cyrillic. TUS 7.4, CLDR exemplars: Latin letters that stand for Cyrillic ones of the same look.
    Rule("kk-Cyrl ky-Cyrl tt-Cyrl ba-Cyrl mn-Cyrl tyv sah bxr xal", letters={"ɵ": "ө"}),
    Rule("cv", letters={"ă": "ӑ", "ĕ": "ӗ", "ç": "ҫ", "ÿ": "ӳ"}),
    Rule("os", letters={"æ": "ӕ"}),
    Rule("kpv koi udm mhr mrj alt", letters={"ö": "ӧ", "ÿ": "ӱ", "ü": "ӱ", "ä": "ӓ"}),
    # UCD, NamesList: Abkhaz letters before and since the reform.
    Rule("ab", letters={"ҕ": "ӷ", "ҧ": "ԥ"}),
    # TUS 7.4: palochka, for which keyboards have i, l, 1 or the Ukrainian letter.
    Rule(
        "ady kbd ce inh av lez dar lbe tab abq uby agx rut ddo",
        sequences=(("", f"(?<={_CYRILLIC})(?:[iіl]|1(?![0-9]))|[iіl](?={_CYRILLIC})", "ӏ"),),
    ),

    # Arabic. CLDR exemplars and nisaba, by language: yeh, kaf, heh.
    Rule("ar arz apc ajp acm ary aeb arq ars acq ayl", letters={"ی": "ي", "ک": "ك", **_each("ھہە", "ه"), "ٱ": "ا"}),
    Rule(
        "fa prs haz azb az-Arab mzn glk lrc luz bqi tg-Arab uz-Arab tly-Arab",
        letters={**_FARSI, **_each("ہەھ", "ه"), "ۃ": "ة"},
        sequences=(("ه", "ه\u0654", "ۀ"),),
    ),
    Rule(
        "ur pnb pa-Arab skr hno khw trw gwc scl gju phr",
        letters={**_FARSI, **_each("هە", "ہ"), "ة": "ۃ", "ۀ": "ۂ"},
    ),
    # Pashto has yeh and Farsi yeh both.
    Rule(
        "ps pbt pbu pst",
        letters={"ى": "ی", **_each("كڪ", "ک"), **_each("ہەھ", "ه")},
        sequences=(("ه", "ه\u0654", "ۀ"),),
    ),
    # Sindhi has keheh (kh) and swash kaf (k) both, and heh doachashmee for aspirates.
    Rule("sd-Arab", letters={**_each("یى", "ي"), "ك": "ک", **_each("ہە", "ه")}),
    # Sorani: heh and ZWNJ was the vowel AE, before it had a letter (sequences with joiners come first).
    Rule(
        "ckb ku-Arab kmr-Arab sdh",
        letters={**_FARSI, "ے": "ی", "ة": "ە", **_each("ھہ", "ه")},
        sequences=((ZWNJ, "ه\u200c", "ە"),),
    ),
    # Uyghur: AE is heh in its final form, h in all others; keheh and Farsi yeh by their look.
    Rule(
        "ug kk-Arab ky-Arab",
        letters={"ک": "ك", "ہ": "ه"},
        sequences=(
            (ZWNJ, "ه(?=\u200c)", "ە"), ("ه", "ه(?!\\w)", "ە"), ("ه", "ه", "ھ"),
            ("ی", "ی(?!\\w)", "ى"), ("ی", "ی", "ي"),
        ),
    ),
    Rule("ks-Arab", letters={**_FARSI, **_each("هە", "ہ")}),
    Rule("bal bgp bgn brh", letters=_FARSI),
    # TUS 9.2: here vowel signs are part of the spelling.
    Rule("ks-Arab ha-Arab ff-Arab wo-Arab dyu-Arab bm-Arab", letters=_kept(HARAKAT)),

    # Hebrew. TUS 9.1: gershayim, also typed as a quotation mark, two apostrophes or double prime; geresh ends words.
    Rule(
        "he yi lad-Hebr",
        letters=_each('"“”„‟″״', "״"),
        sequences=(
            ("''", f"(?<={_HEBREW})''(?={_HEBREW})", "״"),
            ("״", f"(?<!{_HEBREW})״|״(?!{_HEBREW})", " "),
        ),
        final=_HEBREW,
    ),
    # YIVO: in Yiddish points are part of the spelling; its ligatures are pairs of letters.
    Rule("yi", letters={**_kept(NIQQUD), "װ": "וו", "ױ": "וי", "ײ": "יי"}),

    # Indic. TUS 12.1: eyelash ra, as Marathi and as Nepali writes it.
    Rule("mr kok", sequences=(("र", "र्\u200d(?=[यह])", "ऱ्"),)),
    Rule("ne", sequences=(("ऱ", "ऱ्(?=[यह])", "र्\u200d"),)),
    # TUS 12.6: shrii with sa or sha; 12.9: nta with chillu n; 16.3: the digit zero typed for wa.
    Rule("ta", sequences=(("ஶ", "ஶ்ரீ", "ஸ்ரீ"),)),
    Rule("ml", sequences=(("ൻ", "ൻ്റ", "ന്റ"),)),
    Rule("my shn ksw mnw", letters=_kept("၀"), sequences=(("၀", "၀(?=[\u102b-\u103e])", "ဝ"), ("၀", "၀", "0"))),

    # East Asia. The dot between parts of a foreign name is not spoken; in Korean it parts words; Greek ano teleia, too.
    Rule("zh yue wuu hak cdo gan hsn cjy cpx mnp lzh ja", letters=_each(NAME_DOTS, "")),
    Rule("nan", letters=_each(NAME_DOTS, DOT)),
    Rule("ko jje", letters=_each(NAME_DOTS + "ㆍ", " ")),
    Rule("el grc", letters=_each(DOTS, " ")),

    # Apostrophes that are letters at the edge of a word. CLDR exemplars (haw, to, uz), the languages' alphabets.
    # Glottal stop before vowels: ʻokina and its relatives; Tahitian, Samoan, Rapa Nui, Cook Islands.
    Rule("haw to sm ty rar rap wls fud mrq pau", initial="[^0-9]"),
    # A letter wherever it stands: languages of Mexico with saltillo, Oto-Manguean and others; Athabaskan; Formosan.
    Rule(
        "nv apw apm gwi chp dgr tli hai hop lkt zun ote otm otq ots oto mau maa mat vmz tos top too trc trq trs tcf "
        "zap zai zaw zpq mix mto mxp mim mib cta ctz cco cpa azg amu cux yaq mfy szy trv ami pwn bnn tay tsu dru xsy "
        "pyu ckv ssf sxr yrk",
        initial="[^0-9]", final="[^0-9]",
    ),
    # Glottal stop or ejective that may end a word: Mayan (ALMG), Maltese (ta', qata'), Somali (lo'), Mi'kmaq.
    Rule(
        "quc cak mam yua tzh tzo kek poh poc pok ixl jac kjb tzj tzu toj ctu chf lac hus ttc usp acr agu mop itz knj "
        "cac caa mhc quv tzz mt so mic lzz",
        final="[^0-9]",
    ),
    # Palatalisation: Võro, Votic, Karelian, Veps, Ludic, Ingrian.
    Rule("vro vot krl vep lud izh", final="[^0-9]"),
    # Uzbek oʻ, gʻ; Karakalpak aʼ, gʼ, iʼ, nʼ, oʼ, uʼ. The tutuq belgisi stands inside of words.
    Rule("uz-Latn", final="[og]"),
    Rule("kaa-Latn", final="[aginou]"),
    # ng' (velar nasal) ends words in Nilotic languages, but not in Bantu ones.
    Rule("luo kln tuy ach lgo teo alz", final="ng"),
    # Hausa 'y, Sotho 'm, Macedonian 'р.
    Rule("ha-Latn", initial="y"),
    Rule("st", initial="m"),
    Rule("mk", initial="р"),
    # Skolt Sami: the prime is a suprasegmental, not the apostrophe.
    Rule("sms", letters=_kept("ʹ")),

    # Numbers. CLDR 41, symbols of Latin digits: thousands with full stop, or with neither full stop nor comma (a space,
    # an apostrophe); all others have the comma.
    Rule(
        "ast az bs ca da de dsb el es eu fo fur fy gl hr hsb ia id is it jv kgp kl km ku kmr lb ln lo lu mk nds nl ps "
        "pt qu rn ro rw sc seh sg sl sr su tr vi wo ar-DZ ar-LB ar-LY ar-MA ar-MR ar-TN ary arq aeb ms-BN ms-ID sw-CD "
        "fr-LU fr-MA uz-Arab",
        group=".",
    ),
    Rule(
        "af be bg br cs en-FI en-SE en-ZA eo et ff fi fr hu hy ka kab kea kk ky lt lv nb nn oc os pl ru se sk smn sq "
        "sv tg tk tt uk uz-Latn uz-Cyrl zgh sah xh rm gsw de-AT de-CH de-LI it-CH pt-PT es-CR "
        # Not in CLDR; written as in Russian.
        "ab ady alt av ba bxr ce cv inh kbd koi kpv krc lez mdf mhr mrj myv tyv udm xal",
        group="",
    ),
    Rule(
        "es-419 es-MX es-US es-PR es-GT es-HN es-NI es-PA es-PE es-SV es-DO es-CU es-BZ",
        group=",",
    ),
)  # fmt: skip

# CLDR, supplementalMetadata: codes that mean another one.
ALIASES = {"iw": "he", "in": "id", "ji": "yi", "jw": "jv", "mo": "ro", "tl": "fil", "no": "nb", "cmn": "zh"}
ALIASES |= {"pes": "fa", "azj": "az", "uzn": "uz", "ekk": "et", "lvs": "lv", "swh": "sw", "zlm": "ms"}
ALIASES |= {"arb": "ar", "ydd": "yi", "npi": "ne", "ory": "or", "khk": "mn", "als": "sq", "plt": "mg", "gug": "gn"}

# CLDR, likelySubtags, of the languages whose rules name a script; but Crimean Tatar and Karakalpak are Latin in Common
# Voice.
SCRIPTS = {
    "az": "Latn", "crh": "Latn", "kaa": "Latn", "tly": "Latn", "uz": "Latn", "bs": "Latn", "tk": "Latn", "ku": "Latn",
    "kmr": "Latn", "ha": "Latn", "ff": "Latn", "wo": "Latn", "dyu": "Latn", "bm": "Latn", "lad": "Latn",
    "tt": "Cyrl", "kk": "Cyrl", "ba": "Cyrl", "ky": "Cyrl", "mn": "Cyrl", "krc": "Cyrl", "nog": "Cyrl", "kum": "Cyrl",
    "sr": "Cyrl", "tg": "Cyrl", "cnr": "Latn", "pa": "Guru", "sd": "Arab", "ks": "Arab",
}  # fmt: skip
