"""The reader of Common Voice: the tables of any release arrive whole, and what is wrong with them is named."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import soundfile

from masr.config import Config, Corpus, Data
from masr.corpora import commonvoice, corpus_module
from masr.corpora.tables import BadRow
from masr.data.features import load_audio
from masr.stages import prepare
from masr.text.normalize import normalize

RELEASE_17 = (
    "client_id path sentence_id sentence sentence_domain up_votes down_votes age gender accents variant locale segment"
)
SORTED = " ".join(sorted(RELEASE_17.split()))
RELEASE_1 = "client_id path sentence up_votes down_votes age gender accent"
SENTENCES = {"train": ["Un.", "«Dos», diu."], "dev": ["Tres!"], "test": ['Ell va dir: "quatre']}


def add_clip(folder: Path, name: str, rate: int = 32000) -> None:
    """Writes half a second of noise."""
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(list(name.encode())).normal(0, 0.1, rate // 2)
    soundfile.write(folder / "clips" / f"{name}.mp3", samples, rate, format="MP3")


def write_table(file: Path, columns: str, rows: list[dict[str, str]]) -> None:
    lines = ["\t".join(columns.split()), *("\t".join(row.get(c, "") for c in columns.split()) for row in rows)]
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@pytest.fixture
def publish(tmp_path: Path):
    """``publish("ca")``: the folder of a language with four clips; returns it."""

    def put(locale: str, columns: str = RELEASE_17, suffix: str = ".mp3", rate: int = 32000) -> Path:
        folder = tmp_path / "cv-corpus-17.0-2024-03-15" / locale
        rows: dict[str, list[dict[str, str]]] = {}
        for split, sentences in SENTENCES.items():
            names = [f"common_voice_{locale}_{split}{number}" for number in range(len(sentences))]
            for name in names:
                add_clip(folder, name, rate)
            rows[split] = [
                {"client_id": f"{split} speaker", "path": name + suffix, "sentence": sentence, "up_votes": "2"}
                for name, sentence in zip(names, sentences, strict=True)
            ]
        rows |= {"validated": [*chain.from_iterable(rows.values())], "other": [], "invalidated": []}
        for split in rows:
            write_table(folder / f"{split}.tsv", columns, rows[split])
        return folder

    return put


def texts(cuts) -> list[str]:
    return [cut.supervisions[0].text for cut in cuts]


def config_of(folder: Path, tmp_path: Path, **corpus) -> Config:
    corpus = Corpus(name="commonvoice", path=str(folder.parent), **corpus)
    return Config(name="x", data_dir=str(tmp_path / "data"), corpus=corpus, data=Data(max_bad_fraction=0.9))


@pytest.mark.parametrize(
    ("columns", "suffix"), [(RELEASE_17, ".mp3"), (SORTED, ".mp3"), (RELEASE_1, "")], ids=["17", "sorted", "1"]
)
def test_every_field_arrives_from_any_release(publish, columns, suffix):
    folder = publish("ca", columns, suffix)
    (cut,) = commonvoice.read(folder.parent)["dev"]
    (supervision,) = cut.supervisions
    assert (cut.id, cut.start, cut.duration) == ("common_voice_ca_dev0", 0.0, 0.5)
    assert (supervision.start, supervision.duration, supervision.channel) == (0.0, 0.5, 0)
    assert (supervision.text, supervision.language, supervision.speaker) == ("Tres!", "ca", "dev speaker")
    assert cut.recording.sources[0].source == str(folder / "clips/common_voice_ca_dev0.mp3")


def test_quotation_marks_and_rare_separators_belong_to_the_sentence(publish):
    folder = publish("ca")
    rows = [{"client_id": "s", "path": f"{i}.mp3", "sentence": s} for i, s in enumerate(['"a', "b", 'c"', "d\u2028e"])]
    write_table(folder / "train.tsv", RELEASE_17, rows)
    splits = commonvoice.read(folder.parent)
    assert texts(splits["train"]) == ['"a', "b", 'c"', "d\u2028e"]
    assert texts(splits["test"]) == SENTENCES["test"]


def test_the_splits_are_apart_and_validated_leaves_out_dev_and_test(publish, capsys):
    splits = commonvoice.read(publish("ca").parent)
    assert {split: texts(cuts) for split, cuts in splits.items()} == {**SENTENCES, "validated": SENTENCES["train"]}
    assert [len(cuts) for cuts in splits.values()] == [2, 1, 1, 2]
    assert "prepare: validated: 2 of 4 clips are in dev or test: left out\n" in capsys.readouterr().out


def test_who_trains_on_validated_trains_on_no_clip_of_test(publish, tmp_path):
    config = config_of(publish("ca"), tmp_path, train="validated")
    prepare.run(config)
    trained, tested = (prepare.read_cuts(prepare.manifests(config), split) for split in ("validated", "test"))
    assert len(trained) == 2 and len(tested) == 1
    assert {cut.id for cut in trained}.isdisjoint(cut.id for cut in tested)


def test_validated_needs_no_tables_of_dev_and_test(publish):
    folder = publish("ca")
    (folder / "dev.tsv").unlink()
    assert texts(commonvoice.read(folder.parent)["validated"]) == [*SENTENCES["train"], *SENTENCES["dev"]]


def test_a_table_is_read_only_when_its_split_is_asked_for(publish):
    folder = publish("ca")
    (folder / "validated.tsv").unlink()
    splits = commonvoice.read(folder.parent)
    assert texts(splits["train"]) == SENTENCES["train"]
    with pytest.raises(FileNotFoundError, match=f"corpus.path: {folder}/validated.tsv is missing: unpack ca again"):
        len(splits["validated"])


def test_languages_are_the_locales_and_all_that_are_there_is_the_default(publish):
    for locale in ("zh-CN", "sr", "nan-tw"):
        corpus = publish(locale).parent
    (corpus / "notes").mkdir()

    def languages(*chosen: str) -> list[str]:
        return [cut.supervisions[0].language for cut in commonvoice.read(corpus, chosen)["dev"]]

    assert languages() == ["nan-tw", "sr", "zh-CN"]
    assert languages("zh-CN", "sr") == ["zh-CN", "sr"]


@pytest.mark.parametrize("rate", [16000, 32000, 48000])
def test_clips_are_read_at_any_rate(publish, rate):
    (cut,) = commonvoice.read(publish("ca", rate=rate).parent)["dev"]
    assert (cut.recording.sampling_rate, cut.duration) == (rate, 0.5)
    assert load_audio(cut).shape == (8000,)


def test_clips_that_are_missing_or_broken_are_listed_by_stage_0_with_their_reason(publish, tmp_path):
    folder = publish("ca")
    clips = [folder / f"clips/common_voice_ca_{name}.mp3" for name in ("train0", "dev0")]
    clips[0].unlink()
    clips[1].write_bytes(b"garbage")
    with pytest.raises(ValueError, match="no recording of dev can be used; reasons in .*rejected.tsv"):
        prepare.run(config_of(folder, tmp_path))
    rejected = (tmp_path / "data/manifests/rejected.tsv").read_text(encoding="utf-8").splitlines()
    assert rejected == [f"{clip.stem}\t{clip} cannot be read, or is empty" for clip in clips]


def test_stage_0_sees_that_a_clip_or_a_line_has_come(publish, tmp_path, capsys):
    folder = publish("ca")
    missing = folder / "clips/common_voice_ca_train0.mp3"
    missing.rename(tmp_path / "later.mp3")
    config = config_of(folder, tmp_path, train="validated")
    prepare.run(config)
    assert "1 of 4 recordings skipped (first: common_voice_ca_train0:" in capsys.readouterr().out
    (tmp_path / "later.mp3").rename(missing)
    prepare.run(config)
    assert "skipped" not in capsys.readouterr().out
    prepare.run(config)
    assert "prepare: complete" in capsys.readouterr().out
    with (folder / "validated.tsv").open("a", encoding="utf-8") as table:
        table.write("\t".join(["s", "none.mp3", "", "Cinc", *[""] * 9]) + "\n")
    prepare.run(config)
    assert "1 of 5 recordings skipped (first: none:" in capsys.readouterr().out


@pytest.mark.parametrize(("line", "found"), [("a b", 1), ("s\tx.mp3\tUn.", 3), ("\t" * 13, 14)])
def test_a_malformed_line_is_named_with_what_was_found_and_expected(publish, line, found):
    file = publish("ca") / "train.tsv"
    first, second, *others = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join([first, second, f"{line}\n", *others]), encoding="utf-8")
    first, bad, last = commonvoice.read(file.parents[1])["train"]
    assert bad == BadRow(f"{file}:3", f"expected 13 columns with TABs between them, found {found}: {line!r}")
    assert texts([first, last]) == SENTENCES["train"]


@pytest.mark.parametrize(("header", "missing"), [("", "path, sentence, client_id"), ("path\tclient_id", "sentence")])
def test_a_missing_column_is_named(publish, header, missing):
    file = publish("ca") / "dev.tsv"
    file.write_text(header)
    with pytest.raises(ValueError) as caught:
        len(commonvoice.read(file.parents[1])["dev"])
    assert str(caught.value) == f"{file}:1: expected columns path, sentence, client_id, found no {missing}"


def test_a_missing_language_is_named_with_what_is_there_and_the_way_out(publish, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no <locale>/train.tsv in .*; there is: nothing\."):
        commonvoice.read(tmp_path)
    corpus = publish("ca").parent
    with pytest.raises(FileNotFoundError, match=r"no <locale>/train.tsv in .*; there is: cv-corpus-17.0-2024-03-15\."):
        commonvoice.read(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        commonvoice.read(corpus, ["zh", "ca", "tt"])
    assert str(caught.value) == (
        f"corpus.path: no zh, tt/train.tsv in {corpus}; there is: ca. Set it to the folder that holds those of the "
        "languages, or choose among them with corpus.languages=[...]"
    )


@pytest.mark.parametrize(
    ("language", "published", "text"),
    [
        ("ca", "«L’ela geminada» és a col·legi.", "l'ela geminada és a col·legi"),
        ("tr", "IŞIK İzmir'den geldi.", "ışık izmir'den geldi"),
        ("uk", "П’ять — не п'ятнадцять!", "п'ять не п'ятнадцять"),
        ("ug", "ياخشىمۇسىز؟", "ياخشىمۇسىز"),
    ],
)
def test_published_text_has_case_and_punctuation_that_normalisation_removes(language, published, text):
    assert normalize(published, language) == text


def test_the_corpus_is_found_by_its_name():
    assert corpus_module("commonvoice") is commonvoice
