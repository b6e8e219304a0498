"""The reader of CoVoST 2: clips, transcripts and translations arrive whole, and what is wrong with them is named."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from masr.config import Config, Corpus, Data
from masr.corpora import corpus_module, covost2
from masr.corpora.tables import BadRow
from masr.data.sampling import translation_of
from masr.stages import prepare

COLUMNS = ["path", "sentence", "translation", "client_id"]
ROWS = {
    "train": [("Un «dos».", 'One "two".'), ("L'ela geminada", "The long l")],
    "dev": [("Tres!", "Three!")],
    "test": [("Quatre?", "Four?")],
}


def write_table(file: Path, rows: list[list[str]], columns: list[str] = COLUMNS) -> None:
    file.write_text("".join("\t".join(line) + "\n" for line in [columns, *rows]), encoding="utf-8")


@pytest.fixture
def publish(tmp_path: Path):
    """``publish("ca", "ca_en")``: a language, its tables in its folder or beside it; returns the corpus."""

    def put(language: str, pair: str, beside: bool = False) -> Path:
        corpus = tmp_path / "covost2"
        (corpus / language / "clips").mkdir(parents=True)
        for split, texts in ROWS.items():
            names = [f"common_voice_{language}_{split}{number}.mp3" for number in range(len(texts))]
            for name in names:
                noise = np.random.default_rng(list(name.encode())).normal(0, 0.1, 24000)
                soundfile.write(corpus / language / "clips" / name, noise, 48000, format="MP3")
            lines = [[name, *text, f"{split} speaker"] for name, text in zip(names, texts, strict=True)]
            write_table((corpus if beside else corpus / language) / f"covost_v2.{pair}.{split}.tsv", lines)
        return corpus

    return put


def config_of(corpus: Path, tmp_path: Path) -> Config:
    options = Corpus(name="covost2", path=str(corpus))
    return Config(name="x", data_dir=str(tmp_path / "data"), corpus=options, data=Data(max_bad_fraction=0.9))


@pytest.mark.parametrize("beside", [False, True])
def test_every_field_arrives_from_tables_in_the_folder_of_a_language_or_beside_it(publish, beside):
    corpus = publish("ca", "ca_en", beside)
    splits = covost2.read(corpus)
    assert {name: len(split) for name, split in splits.items()} == {"train": 2, "dev": 1, "test": 1}
    cut = next(iter(splits["train"]))
    (supervision,) = cut.supervisions
    assert (cut.id, cut.start, cut.duration) == ("common_voice_ca_train0", 0.0, 0.5)
    assert (supervision.text, supervision.language, supervision.speaker) == ("Un «dos».", "ca", "train speaker")
    assert translation_of(cut, "en") == 'One "two".'
    assert cut.recording.sources[0].source == str(corpus / "ca/clips/common_voice_ca_train0.mp3")


def test_english_comes_from_its_german_tables_and_has_no_translation(publish):
    corpus = publish("en", "en_de")
    publish("de", "de_en")
    write_table(corpus / "covost_v2.en_ca.train.tsv", [["x.mp3", "Not", "read", "s"]])
    splits = covost2.read(corpus, ["en", "de"])
    cuts = {cut.id: cut for cut in splits["dev"]}
    assert list(cuts) == ["common_voice_en_dev0", "common_voice_de_dev0"]
    assert cuts["common_voice_en_dev0"].supervisions[0].custom is None
    assert translation_of(cuts["common_voice_de_dev0"], "en") == "Three!"
    assert len(splits["train"]) == 4
    assert [cut.supervisions[0].language for cut in covost2.read(corpus)["test"]] == ["de", "en"]


def test_what_get_covost_splits_escapes_belongs_to_the_text_again(publish):
    corpus = publish("ca", "ca_en")
    rows = [["a.mp3", '"u', "a\\\\b", "s"], ["b.mp3", "d\u2028e\\\tf", 'c" d', "s"], ["c.mp3", "g", " ", "s"]]
    write_table(corpus / "ca/covost_v2.ca_en.dev.tsv", rows)
    cuts = list(covost2.read(corpus)["dev"])
    assert [cut.supervisions[0].text for cut in cuts] == ['"u', "d\u2028e\tf", "g"]
    assert [translation_of(cut, "en") for cut in cuts] == ["a\\b", 'c" d', None]


def test_clips_that_are_missing_or_empty_are_listed_by_stage_0_with_their_reason(publish, tmp_path):
    corpus = publish("ca", "ca_en")
    clips = [corpus / f"ca/clips/common_voice_ca_{name}.mp3" for name in ("train0", "dev0")]
    clips[0].unlink()
    clips[1].write_bytes(b"")
    with pytest.raises(ValueError, match="no recording of dev can be used; reasons in .*rejected.tsv"):
        prepare.run(config_of(corpus, tmp_path))
    rejected = (tmp_path / "data/manifests/rejected.tsv").read_text(encoding="utf-8").splitlines()
    assert rejected == [f"{clip.stem}\t{clip} cannot be read, or is empty" for clip in clips]


@pytest.mark.parametrize("beside", [False, True])
def test_stage_0_sees_that_a_line_has_come(publish, tmp_path, capsys, beside):
    corpus = publish("ca", "ca_en", beside)
    prepare.run(config_of(corpus, tmp_path))
    assert "skipped" not in capsys.readouterr().out
    prepare.run(config_of(corpus, tmp_path))
    assert "prepare: complete" in capsys.readouterr().out
    with ((corpus if beside else corpus / "ca") / "covost_v2.ca_en.train.tsv").open("a") as table:
        table.write("none.mp3\tCinc\tFive\ts\n")
    prepare.run(config_of(corpus, tmp_path))
    assert "1 of 5 recordings skipped (first: none:" in capsys.readouterr().out


def test_a_missing_language_is_named_with_what_is_there_and_the_way_out(publish, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no covost_v2.<language>_en.train.tsv in .*; languages with one: none\."
    ):
        covost2.read(tmp_path)
    corpus = publish("ca", "ca_en")
    write_table(corpus / "ca/covost_v2.fr_en.tsv", [], ["path", "translation", "split"])
    write_table(corpus / "covost_v2.en_ca.train.tsv", [])  # not the table of English that is read
    with pytest.raises(FileNotFoundError) as caught:
        covost2.read(corpus, ["fr", "ca", "en"])
    assert str(caught.value) == (
        f"corpus.path: no covost_v2.fr_en.train.tsv, covost_v2.en_de.train.tsv in {corpus} or in its folder of the "
        "language; languages with one: ca. get_covost_splits.py of CoVoST makes it; choose among languages with "
        "corpus.languages=[...]"
    )


def test_a_language_without_clips_is_named(publish):
    corpus = publish("ca", "ca_en", beside=True)
    (corpus / "ca/clips").rename(corpus / "clips")  # all archives unpacked into one folder
    with pytest.raises(FileNotFoundError, match="no ca/clips in .*: unpack the archive of each language"):
        covost2.read(corpus)


def test_a_table_is_read_only_when_its_split_is_asked_for(publish):
    corpus = publish("ca", "ca_en")
    (corpus / "ca/covost_v2.ca_en.test.tsv").unlink()
    splits = covost2.read(corpus)
    assert len(splits["dev"]) == 1
    with pytest.raises(FileNotFoundError, match=r"covost_v2\.ca_en\.test\.tsv is missing: get_covost_splits\.py"):
        len(splits["test"])


@pytest.mark.parametrize(
    ("columns", "missing"),
    [([], "path, sentence, translation, client_id"), (["path", "translation"], "sentence, client_id")],
)
def test_a_missing_column_is_named(publish, columns, missing):
    file = publish("ca", "ca_en") / "ca/covost_v2.ca_en.dev.tsv"
    file.write_text("\t".join(columns))
    with pytest.raises(ValueError) as caught:
        len(covost2.read(file.parents[1])["dev"])
    assert str(caught.value) == (
        f"{file}:1: expected columns path, sentence, translation, client_id, found no {missing}"
    )


@pytest.mark.parametrize(("line", "found"), [("x.mp3\tUn.", 2), ("a\tb\tc\td\te", 5)])
def test_a_malformed_line_is_named_with_what_was_found_and_expected(publish, line, found):
    file = publish("ca", "ca_en") / "ca/covost_v2.ca_en.train.tsv"
    first, second, *others = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join([first, second, f"{line}\n", *others]), encoding="utf-8")
    first, bad, last = covost2.read(file.parents[1])["train"]
    assert bad == BadRow(f"{file}:3", f"expected 4 columns with TABs between them, found {found}: {line!r}")
    assert [cut.supervisions[0].text for cut in (first, last)] == [text for text, _ in ROWS["train"]]


def test_the_corpus_is_found_by_its_name():
    assert corpus_module("covost2") is covost2
