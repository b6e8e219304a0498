"""FLEURS: the sentences of FLoRes-101 in 102 languages, read aloud (Conneau et al. 2022, arXiv 2205.12446).

Published (huggingface.co/datasets/google/fleurs) as tables, ``data/<language>_<country>/<split>.tsv``, and an archive
of recordings for each, ``data/<language>_<country>/audio/<split>.tar.gz``, which is unpacked where it lies;
``corpus.path`` is the folder that holds those of the languages. A table has no header: number of the sentence, file,
text as written, text normalised, its characters, number of samples, gender. A sentence is read by one to three people,
who are not named, and stands in one split only. Not read by lhotse's ``prepare_fleurs``: it wants the folders that its
own download makes, takes the normalised text, and passes over languages that are not there.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from masr.corpora import Split, Utterance, there
from masr.corpora.tables import BadRow, made_of, read_rows

SPLITS = ("train", "dev", "test")
# The folder of recordings instead of thousands of them: its time changes when a recording comes or goes.
SOURCES = (*(f"*/{split}.tsv" for split in SPLITS), *(f"*/audio/{split}" for split in SPLITS))
COLUMNS = 7
FOLDERS = [
    "af_za", "am_et", "ar_eg", "as_in", "ast_es", "az_az", "be_by", "bg_bg", "bn_in", "bs_ba", "ca_es", "ceb_ph",
    "ckb_iq", "cmn_hans_cn", "cs_cz", "cy_gb", "da_dk", "de_de", "el_gr", "en_us", "es_419", "et_ee", "fa_ir", "ff_sn",
    "fi_fi", "fil_ph", "fr_fr", "ga_ie", "gl_es", "gu_in", "ha_ng", "he_il", "hi_in", "hr_hr", "hu_hu", "hy_am",
    "id_id", "ig_ng", "is_is", "it_it", "ja_jp", "jv_id", "ka_ge", "kam_ke", "kea_cv", "kk_kz", "km_kh", "kn_in",
    "ko_kr", "ky_kg", "lb_lu", "lg_ug", "ln_cd", "lo_la", "lt_lt", "luo_ke", "lv_lv", "mi_nz", "mk_mk", "ml_in",
    "mn_mn", "mr_in", "ms_my", "mt_mt", "my_mm", "nb_no", "ne_np", "nl_nl", "nso_za", "ny_mw", "oc_fr", "om_et",
    "or_in", "pa_in", "pl_pl", "ps_af", "pt_br", "ro_ro", "ru_ru", "sd_in", "sk_sk", "sl_si", "sn_zw", "so_so", "sr_rs",
    "sv_se", "sw_ke", "ta_in", "te_in", "tg_tj", "th_th", "tr_tr", "uk_ua", "umb_ao", "ur_pk", "uz_uz", "vi_vn",
    "wo_sn", "xh_za", "yo_ng", "yue_hant_hk", "zu_za",
]  # fmt: skip
LANGUAGES = {folder.split("_")[0].replace("cmn", "zh"): folder for folder in FOLDERS}
"""BCP-47 code, without the country, as a language is there once: its folder."""


def read(path: Path, languages: Sequence[str] = ()) -> dict[str, Split]:
    """Cuts by split; ``languages`` empty means all whose folder is there.

    Text is as it was written, with case and punctuation. Recordings that are missing or cannot be read become cuts that
    stage 0 rejects.
    """
    folders = _folders(path, languages)
    return {name: Split(name, partial(_read_split, folders, name)) for name in SPLITS}


def _folders(path: Path, languages: Sequence[str]) -> dict[str, Path]:
    """Folder of every language; the error says what is there instead."""
    if unknown := [code for code in languages if code not in LANGUAGES]:
        raise ValueError(f"corpus.languages: FLEURS has no {', '.join(unknown)}; it has {', '.join(LANGUAGES)}")
    found = {code: path / folder for code, folder in LANGUAGES.items() if (path / folder).is_dir()}
    missing = ", ".join(LANGUAGES[code] for code in languages if code not in found)
    if missing or not found:
        raise FileNotFoundError(
            f"corpus.path: no folder {missing or '<language>_<country>'} in {path}; there is: {there(path)}. Set it to "
            "the folder that holds those of the languages, or choose among them with corpus.languages=[...]"
        )
    return {code: found[code] for code in languages or found}


def _read_split(folders: dict[str, Path], split: str) -> list[Utterance | BadRow]:
    """In the order of the tables of all languages."""
    utterances: list[Utterance | BadRow] = []
    for code, folder in folders.items():
        utterances += made_of(_read_table(folder, split), partial(_utterance, folder / "audio" / split, code))
    return utterances


def _utterance(folder: Path, language: str, sentence: str, file: str, text: str, *_: str) -> Utterance:
    """As nobody is named, every recording has a speaker of its own."""
    audio = folder / file
    name = f"{language}-{sentence}-{audio.stem}"
    return Utterance(name, audio, text, language, name)


def _read_table(folder: Path, split: str) -> Iterator[list[str] | BadRow]:
    """All fields of every row."""
    file = folder / f"{split}.tsv"
    if not file.is_file():
        raise FileNotFoundError(f"corpus.path: {file} is missing: download it again")
    if not (audio := folder / "audio" / split).is_dir():
        raise FileNotFoundError(f"corpus.path: no folder {audio}: unpack {split}.tar.gz in {audio.parent}")
    return read_rows(file, COLUMNS)
