"""The reader of FLEURS: the published layout arrives whole, and what is wrong with it is named."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from masr.config import Config, Corpus, Data
from masr.corpora import corpus_module, fleurs
from masr.corpora.tables import BadRow
from masr.data.features import load_audio
from masr.stages import prepare
from masr.text.languages import NAMES
from masr.text.normalize import normalize

ROWS = {
    "train": [("7", "1001.wav", "Un «dos»."), ("7", "1002.wav", "Un «dos»."), ("12", "1003.wav", 'D\'"aquí"')],
    "dev": [("20", "1004.wav", "Tres!")],
    "test": [("33", "1005.wav", "Quatre?")],
}
"""Sentence, file, text."""


def line_of(sentence: str, file: str, text: str) -> str:
    letters = " ".join("|".join(normalize(text, "ca").split())) + " |"
    return "\t".join([sentence, file, text, normalize(text, "ca"), letters, "8000", "FEMALE"]) + "\n"


@pytest.fixture
def publish(tmp_path: Path):
    """``publish("ca_es")``: the folder of a language with five recordings; returns it."""

    def put(name: str) -> Path:
        folder = tmp_path / "fleurs" / name
        for split, rows in ROWS.items():
            (folder / "audio" / split).mkdir(parents=True)
            for _, file, _ in rows:
                noise = np.random.default_rng(list(file.encode())).normal(0, 0.1, 8000)
                soundfile.write(folder / "audio" / split / file, noise, 16000, subtype="FLOAT")
            (folder / f"{split}.tsv").write_text("".join(line_of(*row) for row in rows), encoding="utf-8")
        return folder

    return put


def config_of(corpus: Path, tmp_path: Path) -> Config:
    options = Corpus(name="fleurs", path=str(corpus))
    return Config(name="x", data_dir=str(tmp_path / "data"), corpus=options, data=Data(max_bad_fraction=0.9))


def test_every_field_arrives(publish):
    folder = publish("ca_es")
    (cut,) = fleurs.read(folder.parent)["dev"]
    (supervision,) = cut.supervisions
    assert (cut.id, cut.start, cut.duration) == ("ca-20-1004", 0.0, 0.5)
    assert (supervision.start, supervision.duration, supervision.channel) == (0.0, 0.5, 0)
    assert (supervision.text, supervision.language, supervision.speaker) == ("Tres!", "ca", "ca-20-1004")
    assert cut.recording.sources[0].source == str(folder / "audio/dev/1004.wav")
    assert load_audio(cut).shape == (8000,)


def test_a_sentence_that_several_read_is_several_recordings(publish):
    cuts = list(fleurs.read(publish("ca_es").parent)["train"])
    assert [cut.id for cut in cuts] == ["ca-7-1001", "ca-7-1002", "ca-12-1003"]
    assert cuts[0].supervisions[0].text == cuts[1].supervisions[0].text == "Un «dos»."
    assert cuts[2].supervisions[0].text == 'D\'"aquí"', "quotation marks belong to the text"


def test_a_table_is_read_only_when_its_split_is_asked_for(publish):
    folder = publish("ca_es")
    (folder / "test.tsv").unlink()
    splits = fleurs.read(folder.parent)
    assert {name: len(splits[name]) for name in ("train", "dev")} == {"train": 3, "dev": 1}
    with pytest.raises(FileNotFoundError, match=f"corpus.path: {folder}/test.tsv is missing"):
        len(splits["test"])


def test_languages_are_codes_without_a_country_and_all_that_are_there_is_the_default(publish):
    for name in ("yue_hant_hk", "es_419", "cmn_hans_cn", "ckb_iq"):
        corpus = publish(name).parent
    (corpus / "xx_yy").mkdir()

    def languages(*chosen: str) -> list[str]:
        return [cut.supervisions[0].language for cut in fleurs.read(corpus, chosen)["test"]]

    assert languages() == ["ckb", "zh", "es", "yue"]
    assert languages("zh", "ckb") == ["zh", "ckb"]


def test_every_language_has_its_folder_and_a_name():
    assert len(fleurs.LANGUAGES) == len(fleurs.FOLDERS) == 102
    assert [code for code in fleurs.LANGUAGES if code not in NAMES] == []


def test_recordings_that_are_missing_or_broken_are_listed_by_stage_0_with_their_reason(publish, tmp_path):
    folder = publish("ca_es")
    files = [folder / "audio/train/1002.wav", folder / "audio/dev/1004.wav"]
    files[0].unlink()
    files[1].write_bytes(b"garbage")
    with pytest.raises(ValueError, match="no recording of dev can be used; reasons in .*rejected.tsv"):
        prepare.run(config_of(folder.parent, tmp_path))
    rejected = (tmp_path / "data/manifests/rejected.tsv").read_text(encoding="utf-8").splitlines()
    assert rejected == [
        f"{name}\t{file} cannot be read, or is empty"
        for name, file in zip(["ca-7-1002", "ca-20-1004"], files, strict=True)
    ]


def test_stage_0_sees_that_a_recording_or_a_line_has_come(publish, tmp_path, capsys):
    folder = publish("ca_es")
    missing = folder / "audio/train/1001.wav"
    missing.rename(tmp_path / "later.wav")
    config = config_of(folder.parent, tmp_path)
    prepare.run(config)
    assert "1 of 5 recordings skipped (first: ca-7-1001:" in capsys.readouterr().out
    (tmp_path / "later.wav").rename(missing)
    prepare.run(config)
    assert "skipped" not in capsys.readouterr().out
    prepare.run(config)
    assert "prepare: complete" in capsys.readouterr().out
    with (folder / "train.tsv").open("a", encoding="utf-8") as table:
        table.write(line_of("99", "none.wav", "Cinc"))
    prepare.run(config)
    assert "1 of 6 recordings skipped (first: ca-99-none:" in capsys.readouterr().out


@pytest.mark.parametrize(("line", "found"), [("7 1001.wav Un", 1), ("7\t1001.wav\tUn", 3), ("\t" * 7, 8)])
def test_a_malformed_line_is_named_with_what_was_found_and_expected(publish, line, found):
    file = publish("ca_es") / "train.tsv"
    first, *others = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join([first, f"{line}\n", *others]), encoding="utf-8")
    rows = list(fleurs.read(file.parents[1])["train"])
    assert rows.pop(1) == BadRow(f"{file}:2", f"expected 7 columns with TABs between them, found {found}: {line!r}")
    assert [cut.supervisions[0].text for cut in rows] == [text for _, _, text in ROWS["train"]]


def test_only_the_end_of_a_line_ends_a_text(publish):
    file = publish("ca_es") / "dev.tsv"
    file.write_text(line_of("1", "1004.wav", "a\u2028b\u0085c"), encoding="utf-8")
    (cut,) = fleurs.read(file.parents[1])["dev"]
    assert cut.supervisions[0].text == "a\u2028b\u0085c"


def test_an_archive_that_has_not_been_unpacked_is_named(publish):
    folder = publish("ca_es")
    shutil.rmtree(folder / "audio/dev")
    with pytest.raises(FileNotFoundError) as caught:
        len(fleurs.read(folder.parent)["dev"])
    assert str(caught.value) == (f"corpus.path: no folder {folder}/audio/dev: unpack dev.tar.gz in {folder}/audio")


def test_a_missing_folder_is_named_with_what_is_there_and_the_way_out(publish, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder <language>_<country> in .*; there is: nothing"):
        fleurs.read(tmp_path)
    corpus = publish("ca_es").parent
    with pytest.raises(FileNotFoundError) as caught:
        fleurs.read(corpus, ["zh", "ca", "ga"])
    assert str(caught.value) == (
        f"corpus.path: no folder cmn_hans_cn, ga_ie in {corpus}; there is: ca_es. Set it to the folder that holds "
        "those of the languages, or choose among them with corpus.languages=[...]"
    )
    with pytest.raises(ValueError, match="corpus.languages: FLEURS has no xx, tt; it has af, am, ar, as, ast,"):
        fleurs.read(corpus, ["xx", "ca", "tt"])


@pytest.mark.parametrize(
    ("language", "published", "text"),
    [
        ("ast", "L'ayuntamientu, «Xixón».", "l'ayuntamientu xixón"),
        ("ckb", "زمانی کوردیی سۆرانی، چۆنە؟", "زمانی کوردیی سۆرانی چۆنە"),
        ("ga", "Tá an t-uisce te – d'ól sé é.", "tá an t uisce te d'ól sé é"),
    ],
)
def test_published_text_has_case_and_punctuation_that_normalisation_removes(language, published, text):
    assert normalize(published, language) == text


def test_the_corpus_is_found_by_its_name():
    assert corpus_module("fleurs") is fleurs
