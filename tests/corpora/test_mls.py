"""The reader of Multilingual LibriSpeech: the published layout arrives whole, and what is wrong with it is named."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from masr.config import Config, Corpus, Data
from masr.corpora import corpus_module, mls
from masr.corpora.tables import BadRow
from masr.data.features import load_audio
from masr.stages import prepare
from masr.text.normalize import normalize

TRANSCRIPTS = {"train": {"1_20_000000": "eins", "1_20_000001": "zwei", "3_20_000002": "drei"},
               "dev": {"4_21_000000": "vier"}, "test": {"5_22_000000": "fünf"}}  # fmt: skip
HANDLES = {"9hr": ["3_20_000002"], "1hr/0": ["1_20_000000"], "1hr/5": ["1_20_000001"]}


def audio_file(language: Path, split: str, name: str) -> Path:
    """Where a recording is published."""
    speaker, book, _ = name.split("_")
    suffix = "opus" if language.name.endswith("_opus") else "flac"
    return language / split / "audio" / speaker / book / f"{name}.{suffix}"


def add_audio(file: Path, rate: int = 16000) -> None:
    """Writes half a second of noise."""
    file.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(list(file.name.encode())).normal(0, 0.1, rate // 2)
    soundfile.write(file, samples, rate, format="OGG" if file.suffix == ".opus" else None,
                    subtype="OPUS" if file.suffix == ".opus" else None)  # fmt: skip


@pytest.fixture
def publish(tmp_path: Path):
    """``publish("mls_german")``: the folder of a language with five recordings; returns it."""

    def put(name: str, rate: int = 16000) -> Path:
        language = tmp_path / name
        for split, transcripts in TRANSCRIPTS.items():
            for utterance in transcripts:
                add_audio(audio_file(language, split, utterance), rate)
            lines = [f"{utterance}\t{text}\n" for utterance, text in transcripts.items()]
            (language / split / "transcripts.txt").write_text("".join(lines), encoding="utf-8")
        for part, names in HANDLES.items():
            folder = language / "train/limited_supervision" / part
            folder.mkdir(parents=True)
            (folder / "handles.txt").write_text("".join(f"{name}\n" for name in names))
        return language

    return put


def ids(splits: dict) -> dict[str, list[str]]:
    return {split: [cut.id for cut in cuts] for split, cuts in splits.items()}


def test_every_field_arrives(publish):
    folder = publish("mls_german")
    (cut,) = mls.read(folder.parent)["test"]
    (supervision,) = cut.supervisions
    assert (cut.id, cut.start, cut.duration) == ("5_22_000000", 0.0, 0.5)
    assert (supervision.start, supervision.duration, supervision.channel) == (0.0, 0.5, 0)
    assert (supervision.text, supervision.language, supervision.speaker) == ("fünf", "de", "5")
    assert cut.recording.sources[0].source == str(folder / "test/audio/5/22/5_22_000000.flac")


def test_the_splits_and_the_published_parts_of_the_training_set(publish):
    assert ids(mls.read(publish("mls_german").parent)) == {
        **{split: list(transcripts) for split, transcripts in TRANSCRIPTS.items()},
        "train_9hr": HANDLES["9hr"],
        "train_1hr": ["1_20_000000", "1_20_000001"],
        "train_10hr": ["1_20_000000", "1_20_000001", "3_20_000002"],
    }


def test_a_cut_of_a_part_is_not_the_one_of_the_training_set(publish):
    splits = mls.read(publish("mls_german").parent)
    splits["train_1hr"][0].supervisions[0].text = "stage 0 changes it"
    assert splits["train"][0].supervisions[0].text == splits["train_10hr"][0].supervisions[0].text == "eins"


def test_without_handles_there_are_no_parts(publish):
    folder = publish("mls_german")
    shutil.rmtree(folder / "train/limited_supervision")
    assert mls.read(folder.parent).keys() == {"train", "dev", "test"}


def test_languages_can_be_chosen_and_all_that_are_there_is_the_default(publish, tmp_path):
    for name in ("mls_german", "mls_polish_opus", "mls_lm_german"):
        publish(name)
    assert [cut.supervisions[0].language for cut in mls.read(tmp_path)["test"]] == ["de", "pl"]
    assert [cut.supervisions[0].language for cut in mls.read(tmp_path, ["pl", "de"])["dev"]] == ["pl", "de"]


@pytest.mark.parametrize("rate", [16000, 48000])
def test_opus_is_read_at_any_rate(publish, rate):
    (cut,) = mls.read(publish("mls_dutch_opus", rate).parent)["dev"]
    assert (cut.recording.sampling_rate, cut.duration) == (rate, 0.5)
    assert load_audio(cut).shape == (8000,)


def test_flac_comes_before_its_copy_in_opus(publish, tmp_path):
    publish("mls_german_opus")
    publish("mls_german")
    (cut,) = mls.read(tmp_path, ["de"])["dev"]
    assert cut.recording.sources[0].source.endswith(".flac")


def test_what_lacks_audio_or_text_is_a_cut_that_stage_0_lists_with_its_reason(publish, tmp_path):
    folder = publish("mls_german")
    audio_file(folder, "train", "1_20_000001").unlink()
    audio_file(folder, "train", "3_20_000002").write_bytes(b"garbage")
    add_audio(audio_file(folder, "train", "9_29_000000"))
    (folder / "train/limited_supervision/9hr/handles.txt").write_text("7_27_000000\n")
    corpus = Corpus(name="mls", path=str(tmp_path), languages=["de"], test=["test", "train_9hr", "train_1hr"])
    config = Config(name="x", data_dir=str(tmp_path / "data"), corpus=corpus, data=Data(max_bad_fraction=0.9))
    with pytest.raises(ValueError, match="no recording of train_9hr can be used; reasons in .*rejected.tsv"):
        prepare.run(config)
    rejected = (tmp_path / "data/manifests/rejected.tsv").read_text(encoding="utf-8").splitlines()
    train = folder / "train/audio"
    assert rejected == [
        f"1_20_000001\t{train}/1/20/1_20_000001.flac cannot be read, or is empty",
        f"3_20_000002\t{train}/3/20/3_20_000002.flac cannot be read, or is empty",
        "9_29_000000\tempty transcript (as published: '')",
        "7_27_000000\tempty transcript (as published: '')",
    ]


def test_stage_0_sees_that_a_recording_has_come(publish, tmp_path, capsys):
    folder = publish("mls_german")
    missing = audio_file(folder, "train", "1_20_000001")
    missing.rename(tmp_path / "later.flac")
    corpus = Corpus(name="mls", path=str(tmp_path))
    config = Config(name="x", data_dir=str(tmp_path / "data"), corpus=corpus, data=Data(max_bad_fraction=0.5))
    prepare.run(config)
    assert "1 of 5 recordings skipped (first: 1_20_000001:" in capsys.readouterr().out
    (tmp_path / "later.flac").rename(missing)
    prepare.run(config)
    assert "skipped" not in capsys.readouterr().out
    prepare.run(config)
    assert "prepare: complete" in capsys.readouterr().out


@pytest.mark.parametrize("line", ["1_20_000000 eins", "1_20\teins", "eins\t1_20_000000"])
def test_a_malformed_line_is_named_with_what_was_found_and_expected(publish, line):
    folder = publish("mls_german")
    file = folder / "train/transcripts.txt"
    file.write_text(f"1_20_000000\teins\n{line}\n1_20_000001\tzwei\n", encoding="utf-8")
    rows = mls.read(folder.parent)["train"]
    reason = f"expected {mls.NAME}, a TAB and the text, found {line!r}"
    assert rows[1][:2] == (f"{file}:2", reason)
    assert [rows[place].supervisions[0].text for place in (0, 2)] == ["eins", "zwei"]


def test_a_row_that_cannot_be_read_is_not_a_recording_without_text_too(publish):
    folder = publish("mls_german")
    (folder / "train/transcripts.txt").write_bytes(b"1_20_000000\teins\n1_20_000001\tzw\xff\n3_20_000002\tdrei\n")
    (folder / "train/limited_supervision/1hr/0/handles.txt").write_bytes(b"\xef\xbb\xbf1_20_000000\r\n\xff\r\n\r\n")
    splits = mls.read(folder.parent)

    def bad(split: str) -> list[str]:
        return [row.where.rpartition("/")[2] for row in splits[split] if isinstance(row, BadRow)]

    assert bad("train") == ["transcripts.txt:2"] and len(splits["train"]) == 3
    assert bad("train_1hr") == ["handles.txt:2", "transcripts.txt:2"] and len(splits["train_1hr"]) == 3


def test_only_the_end_of_a_line_ends_a_transcript(publish):
    folder = publish("mls_german")
    (folder / "dev/transcripts.txt").write_bytes("4_21_000000\tvier\u2028und\u0085noch\tmehr\r\n".encode())
    (cut,) = mls.read(folder.parent)["dev"]
    assert cut.supervisions[0].text == "vier\u2028und\u0085noch\tmehr"


def test_a_missing_folder_is_named_with_what_is_there_and_the_way_out(publish, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder mls_german or mls_german_opus, .* there is: nothing"):
        mls.read(tmp_path)
    publish("mls_french")
    publish("mls_dutch_opus")
    with pytest.raises(FileNotFoundError) as caught:
        mls.read(tmp_path, ["fr", "de", "nl"])
    assert str(caught.value) == (
        f"corpus.path: no folder mls_german or mls_german_opus in {tmp_path}; there is: mls_dutch_opus, mls_french. "
        "Unpack what is missing there, or choose among what there is with corpus.languages=[...]"
    )
    with pytest.raises(ValueError, match="corpus.languages: MLS has no ru, cs; it has de, en, es, fr, it, nl, pl, pt"):
        mls.read(tmp_path, ["ru", "fr", "cs"])


def test_a_missing_split_is_named(publish):
    folder = publish("mls_german")
    shutil.rmtree(folder / "dev")
    with pytest.raises(FileNotFoundError, match=f"corpus.path: {folder}/dev/transcripts.txt is missing"):
        mls.read(folder.parent)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("de", "daß er größer wäre als der übrige straßenzug"),
        ("en", "i'm glad phyllis's hand didn't tremble"),
        ("es", "qué pingüino señaló el ñandú aquí"),
        ("fr", "l'œuvre où aujourd'hui ça naît à noël"),
        ("it", "perché c'è più gioventù nell'università"),
        ("nl", "zo'n geïnteresseerde reünie vóór één uur"),
        ("pl", "zażółć gęślą jaźń źdźbło"),
        ("pt", "não há lição nem d'água às três avós"),
    ],
)
def test_text_as_published_is_already_normalised(language, text):
    assert normalize(text, language) == text


def test_hyphens_separate_words_and_outer_apostrophes_go():
    """Both are in published transcripts, so that error rates are not quite those of toolkits that keep them."""
    assert normalize("i-i'm on a wheel-chair 'tis an' po'", "en") == "i i'm on a wheel chair tis an po"


def test_the_corpus_is_found_by_its_name():
    assert corpus_module("mls") is mls
