"""The readers of LibriSpeech and AISHELL-1, and the one that joins them: what is wrong with the corpora is named."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from masr.config import Config, Corpus, Data, Model, SelfSupervised
from masr.corpora import aishell, corpus_module, librispeech, librispeech_aishell
from masr.stages import prepare
from masr.text.normalize import normalize

PARTS = ("train-clean-100", "train-clean-360", "train-other-500", "dev-clean", "dev-other", "test-clean", "test-other")
SPEAKERS = {"train": ["S0002", "S0003"], "dev": ["S0724"], "test": ["S0764"]}


def add_recording(file: Path) -> str:
    """Half a second of noise; returns its id."""
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, np.random.default_rng(list(file.stem.encode())).normal(0, 0.1, 8000), 16000)
    return file.stem


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two recordings of every part of LibriSpeech and of every speaker of AISHELL-1."""
    folder = tmp_path / "corpus"
    for number, part in enumerate(PARTS):
        chapter = folder / "LibriSpeech" / part / str(19 + number) / "198"
        names = [add_recording(chapter / f"{19 + number}-198-000{i}.flac") for i in range(2)]
        lines = [f"{name} NORTHANGER {part.upper()} {i}\n" for i, name in enumerate(names)]
        (chapter / f"{19 + number}-198.trans.txt").write_text("".join(lines))
    lines = []
    for split, speakers in SPEAKERS.items():
        for speaker in speakers:
            audio = folder / "data_aishell/wav" / split / speaker
            lines += [
                f"{add_recording(audio / f'BAC009{speaker}W012{i}.wav')} 而 对 楼市 {'成交' * i}\n" for i in (2, 3)
            ]
    transcripts(folder).parent.mkdir()
    transcripts(folder).write_text("".join(lines), encoding="utf-8")
    return folder


def transcripts(folder: Path) -> Path:
    return folder / "data_aishell/transcript/aishell_transcript_v0.8.txt"


def ids(cuts) -> list[str]:
    return [cut.id for cut in cuts]


def texts(cuts) -> list[str]:
    return [cut.supervisions[0].text for cut in cuts]


def config_of(folder: Path, tmp_path: Path, **options) -> Config:
    corpus = Corpus(name="librispeech_aishell", path=str(folder), test=["test-clean", "test-other", "test-aishell"])
    return Config(name="x", data_dir=str(tmp_path / "data"), corpus=corpus, data=Data(max_bad_fraction=0.9), **options)


def test_every_field_arrives_from_librispeech(corpus):
    splits = librispeech.read(corpus)
    assert splits.keys() == {*PARTS, "train-960"}
    first, second = splits["dev-clean"]
    (supervision,) = first.supervisions
    assert (first.id, first.start, first.duration, second.id) == ("22-198-0000", 0.0, 0.5, "22-198-0001")
    assert (supervision.start, supervision.duration, supervision.channel) == (0.0, 0.5, 0)
    assert (supervision.text, supervision.language, supervision.speaker) == ("NORTHANGER DEV-CLEAN 0", "en", "22")
    assert first.recording.sources[0].source == str(corpus / "LibriSpeech/dev-clean/22/198/22-198-0000.flac")
    assert ids(splits["train-960"]) == [name for part in PARTS[:3] for name in ids(splits[part])]


def test_every_field_arrives_from_aishell_without_the_spaces_between_words(corpus):
    splits = aishell.read(corpus)
    assert {split: len(cuts) for split, cuts in splits.items()} == {"train": 4, "dev": 2, "test": 2}
    first, second = splits["test"]
    (supervision,) = first.supervisions
    assert (first.id, first.duration, second.id) == ("BAC009S0764W0122", 0.5, "BAC009S0764W0123")
    assert (supervision.text, supervision.language, supervision.speaker) == ("而对楼市成交成交", "zh", "S0764")


def test_full_width_letters_of_aishell_are_normalised():
    assert normalize("去ＫＴＶｂ", "zh") == "去ktvb"


def test_the_splits_of_both_together(corpus):
    splits = librispeech_aishell.read(corpus)
    assert {split: [cut.supervisions[0].speaker for cut in cuts][::2] for split, cuts in splits.items()} == {
        "train": ["19", "S0002", "S0003"],
        "unlabelled": ["20", "21"],
        "dev": ["22", "S0724"],
        "test-clean": ["24"],
        "test-other": ["25"],
        "test-aishell": ["S0764"],
    }


def test_one_of_the_languages_needs_only_its_own_corpus(corpus):
    transcripts(corpus).unlink()
    english = librispeech_aishell.read(corpus, ["en"])
    assert english.keys() == {"train", "unlabelled", "dev", "test-clean", "test-other"} and len(english["train"]) == 2
    with pytest.raises(FileNotFoundError, match=f"no data_aishell/transcript/.*txt in {corpus}; there is: LibriSpeech"):
        librispeech_aishell.read(corpus)
    (corpus / "LibriSpeech").rename(corpus / "libri")
    with pytest.raises(FileNotFoundError) as caught:
        librispeech_aishell.read(corpus, ["en"])
    assert str(caught.value) == (
        f"corpus.path: no folder LibriSpeech in {corpus}; there is: data_aishell, libri. Unpack the archives of its "
        "parts there"
    )


@pytest.mark.parametrize(
    ("reader", "message"),
    [
        (librispeech, "corpus.languages: LibriSpeech has no zh, de; it has en"),
        (aishell, "corpus.languages: AISHELL-1 has no en, de; it has zh"),
        (librispeech_aishell, "corpus.languages: there is no de here, but en, zh"),
    ],
)
def test_a_language_that_the_corpus_has_not_is_named(corpus, reader, message):
    with pytest.raises(ValueError) as caught:
        reader.read(corpus, ["en", "zh", "de"])
    assert str(caught.value) == message


def test_a_missing_part_is_named_only_when_it_is_asked_for(corpus):
    part = corpus / "LibriSpeech/train-other-500"
    part.rename(corpus / "elsewhere")
    splits = librispeech_aishell.read(corpus)
    assert len(splits["train"]) == 6
    with pytest.raises(FileNotFoundError) as caught:
        len(splits["unlabelled"])
    there = ", ".join(sorted(set(PARTS) - {part.name}))
    assert str(caught.value) == (
        f"corpus.path: no train-other-500/<speaker>/<chapter> in {part.parent}; there is: {there}. Unpack "
        f"train-other-500.tar.gz in {corpus}"
    )


def test_speakers_that_are_still_packed_are_named(corpus):
    wav = corpus / "data_aishell/wav"
    (wav / "test").rename(corpus / "elsewhere")
    (wav / "S0764.tar.gz").touch()
    with pytest.raises(FileNotFoundError) as caught:
        aishell.read(corpus)
    assert str(caught.value) == (
        f"corpus.path: 1 of 4 speakers have no folder in {wav}/<train|dev|test> (first: S0764); there is: "
        "S0764.tar.gz, dev, train. Unpack there the archives of speakers that it holds"
    )


def test_a_chapter_without_its_transcripts_is_named(corpus):
    file = corpus / "LibriSpeech/test-clean/24/198/24-198.trans.txt"
    file.unlink()
    with pytest.raises(FileNotFoundError) as caught:
        len(librispeech.read(corpus)["test-clean"])
    assert str(caught.value) == f"corpus.path: {file} is missing: unpack test-clean.tar.gz again"


@pytest.mark.parametrize("line", ["24-198-0002", "24-199-0002 OTHER CHAPTER", "24-198-0002\tTAB", "NO ID"])
def test_a_damaged_line_of_librispeech_is_named(corpus, line):
    file = corpus / "LibriSpeech/test-clean/24/198/24-198.trans.txt"
    file.write_text(file.read_text() + f"{line}\n")
    first, second, bad = librispeech.read(corpus)["test-clean"]
    assert bad[:2] == (f"{file}:3", f"expected 24-198-\\d+, a space and the text, found {line!r}")
    assert ids([first, second]) == ["24-198-0000", "24-198-0001"]


@pytest.mark.parametrize("line", ["BAC009S0002W0124", "BAC009S0002W124 对", "对 楼市"])
def test_a_damaged_line_of_aishell_is_named(corpus, line):
    file = transcripts(corpus)
    file.write_text(f"{line}\n" + file.read_text(encoding="utf-8"), encoding="utf-8")
    splits = {split: list(rows) for split, rows in aishell.read(corpus).items()}
    bad = splits["train"].pop(0)
    assert bad[:2] == (f"{file}:1", f"expected BAC009S\\d{{4}}W\\d{{4}}, a space and the text, found {line!r}")
    assert (bad in splits["dev"]) == (not bad.name), "it may be of any split if it does not say of which"
    assert len(ids(splits["train"])) == 4


def test_rare_separators_belong_to_the_text(corpus):
    file = corpus / "LibriSpeech/test-clean/24/198/24-198.trans.txt"
    file.write_text("24-198-0000 ONE\u2028TWO\n24-198-0001 THREE\n", encoding="utf-8")
    assert texts(librispeech.read(corpus)["test-clean"]) == ["ONE\u2028TWO", "THREE"]


def test_what_has_no_transcript_or_no_recording_is_listed_by_stage_0_with_its_reason(corpus, tmp_path, capsys):
    chapter, speaker = corpus / "LibriSpeech/train-clean-100/19/198", corpus / "data_aishell/wav/train/S0003"
    add_recording(chapter / "19-198-0009.flac")
    (chapter / "19-198-0000.flac").unlink()
    add_recording(speaker / "BAC009S0003W0499.wav")
    (speaker / "BAC009S0003W0123.wav").write_bytes(b"garbage")
    prepare.run(config_of(corpus, tmp_path))
    rejected = (tmp_path / "data/manifests/rejected.tsv").read_text(encoding="utf-8").splitlines()
    assert rejected == [
        f"19-198-0000\t{chapter}/19-198-0000.flac cannot be read, or is empty",
        "19-198-0009\tempty transcript (as published: '')",
        f"BAC009S0003W0123\t{speaker}/BAC009S0003W0123.wav cannot be read, or is empty",
        "BAC009S0003W0499\tempty transcript (as published: '')",
    ]
    assert "4 of 18 recordings skipped" in capsys.readouterr().out


def test_stage_0_sees_that_a_recording_or_a_line_has_come(corpus, tmp_path, capsys):
    def outcome() -> str:
        prepare.run(config_of(corpus, tmp_path))
        return capsys.readouterr().out

    assert "skipped" not in outcome() and "complete" in outcome()
    add_recording(corpus / "LibriSpeech/dev-clean/22/198/22-198-0002.flac")
    assert "1 of 17 recordings skipped (first: 22-198-0002:" in outcome()
    with (corpus / "LibriSpeech/dev-clean/22/198/22-198.trans.txt").open("a") as file:
        file.write("22-198-0002 THREE\n")
    assert "skipped" not in outcome()
    add_recording(corpus / "data_aishell/wav/dev/S0724/BAC009S0724W0124.wav")
    assert "1 of 18 recordings skipped (first: BAC009S0724W0124:" in outcome()


def test_stage_0_sees_that_speech_without_text_is_wanted(corpus, tmp_path):
    prepare.run(config_of(corpus, tmp_path))
    manifest = tmp_path / "data/manifests/unlabelled.jsonl.gz"
    assert not manifest.exists()
    heard = Model(self_supervised=SelfSupervised(weight=0.5, split="unlabelled"))
    prepare.run(config_of(corpus, tmp_path, model=heard))
    assert manifest.exists()


def test_the_corpora_are_found_by_their_names():
    for module in (librispeech, aishell, librispeech_aishell):
        assert corpus_module(module.__name__.rpartition(".")[2]) is module
