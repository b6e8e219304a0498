"""The reader of freevoices: every field of a line arrives, and a wrong line is named."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from masr.corpora import corpus_module, freevoices, phoneprompts
from masr.corpora.tables import BadRow

CORPUS = Path(__file__).parents[2] / "egs/freevoices/corpus"


def row(**fields) -> dict:
    """A line of a manifest."""
    return {
        "id": "tuxpaint/ca/ànec", "audio": "a.wav", "language": "ca", "start": 0.25, "duration": 0.5, "split": "train",
        "speaker": "s", "text": "Un ànec.", "translation": {"en": "A duck."},
    } | fields  # fmt: skip


@pytest.fixture
def publish(tmp_path: Path):
    """``publish(*lines)``: a corpus folder with one second of noise and these manifest lines."""
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 16000), 16000, subtype="FLOAT")

    def put(*lines) -> Path:
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (tmp_path / "manifest.jsonl").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
        return tmp_path

    return put


def test_every_field_arrives(publish):
    (cut,) = freevoices.read(publish(row()))["train"]
    (supervision,) = cut.supervisions
    assert (cut.id, cut.start, cut.duration) == ("tuxpaint/ca/ànec", 0.25, 0.5)
    assert (supervision.start, supervision.duration) == (0.0, 0.5)
    assert (supervision.text, supervision.language, supervision.speaker) == ("Un ànec.", "ca", "s")
    assert supervision.custom == {"translation": {"en": "A duck."}}


def test_the_audio_of_a_cut_is_its_part_of_the_file(publish):
    (cut,) = freevoices.read(publish(row()))["train"]
    whole, _ = soundfile.read(cut.recording.sources[0].source)
    np.testing.assert_allclose(cut.load_audio()[0], whole[4000:12000], atol=1e-6)


def test_lines_go_to_their_splits_and_languages_can_be_chosen(publish):
    folder = publish(row(), row(id="b", split="dev"), row(id="c", language="el", split="other"))
    assert {split: [cut.id for cut in cuts] for split, cuts in freevoices.read(folder).items()} == {
        "train": ["tuxpaint/ca/ànec"], "dev": ["b"], "other": ["c"],
    }  # fmt: skip
    assert freevoices.read(folder, ["el"]).keys() == {"other"}
    assert freevoices.read(folder, ["cs"]) == {}


def test_a_recording_is_opened_once(publish, monkeypatch):
    opened = []
    original = freevoices.recording_of
    monkeypatch.setattr(freevoices, "recording_of", lambda path: opened.append(path.name) or original(path))
    freevoices.read(publish(row(), row(id="b"), row(id="c")))
    assert opened == ["a.wav"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('{"id": ', "Expecting value"),
        ("5", "expected a JSON object, found 5"),
        ('{"id": "x", "language": "ca"}', "no audio, split, speaker, start, duration, text; expected id,"),
        (row(language=None), "language: expected text, found None"),
        (row(split=1), "split: expected text, found 1"),
        (row(start=-1), "start: expected seconds, found -1"),
        (row(duration="1.0"), "duration: expected seconds, found '1.0'"),
        (row(duration=float("nan")), "duration: expected seconds, found nan"),
    ],
)
def test_a_malformed_line_is_named_with_what_was_found_and_expected(publish, line, found):
    folder = publish(row(), line, row(id="c"))
    rows = freevoices.read(folder)["train"]
    (bad,) = (row for row in rows if isinstance(row, BadRow))
    assert bad.where == f"{folder}/manifest.jsonl:2" and bad.reason.startswith(found)
    assert [cut.id for cut in rows if cut is not bad] == ["tuxpaint/ca/ànec", "c"]


def test_a_bad_row_is_in_its_split_or_else_in_all(publish):
    folder = publish(row(), row(id="b", split="dev"), row(start=-1, split="dev"), "{", row(text=5, split="test"))
    splits = freevoices.read(folder)

    def lines(split: str) -> list[int]:
        return [int(bad.where.split(":")[-1]) for bad in splits[split] if isinstance(bad, BadRow)]

    assert {split: lines(split) for split in splits} == {"train": [4], "dev": [4, 3], "test": [4, 5]}


def test_a_manifest_without_a_good_row_is_named_with_its_first(publish):
    folder = publish("{", "}")
    with pytest.raises(ValueError, match=f"no row can be read; the first, {folder}/manifest.jsonl:1: Expecting prop"):
        freevoices.read(folder)


def test_audio_that_cannot_be_read_has_no_samples(publish):
    folder = publish(row(audio="missing.opus"), row(id="b", audio="garbage.opus"), row(id="c"))
    (folder / "garbage.opus").write_bytes(b"garbage")
    cuts = freevoices.read(folder)["train"]
    assert [cut.recording.num_samples for cut in cuts] == [0, 0, 16000]
    assert cuts[0].recording.sources[0].source == str(folder / "missing.opus")


def test_a_folder_without_a_manifest_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="corpus.path: .*manifest.jsonl is missing: .* is not the folder of such"
    ):
        freevoices.read(tmp_path)
    (tmp_path / "manifest.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"manifest\.jsonl:1: not UTF-8 text"):
        freevoices.read(tmp_path)


def test_the_shipped_corpus_is_read_whole():
    splits = freevoices.read(CORPUS)
    assert {split: len(cuts) for split, cuts in splits.items()} == {"train": 7427, "dev": 586, "test": 838}
    cuts = [cut for group in splits.values() for cut in group]
    assert len({cut.id for cut in cuts}) == len(cuts)
    assert sum(cut.duration for cut in cuts) / 3600 == pytest.approx(5.42, abs=0.01)
    assert all(cut.supervisions[0].custom["translation"]["en"] for cut in cuts)
    assert all(cut.end <= cut.recording.duration + 0.05 for cut in cuts)


def test_a_corpus_is_found_by_its_name():
    assert corpus_module("freevoices") is freevoices
    with pytest.raises(ValueError, match="known corpora: .*freevoices"):
        corpus_module("free_voices")


def test_translations_may_be_missing(publish):
    line = row()
    del line["translation"]
    (cut,) = freevoices.read(publish(line))["train"]
    assert cut.supervisions[0].custom is None


def test_phoneprompts_is_read_whole_and_its_speakers_are_strangers_to_freevoices():
    assert corpus_module("phoneprompts") is phoneprompts
    splits = phoneprompts.read(CORPUS.parents[1] / "phoneprompts/corpus")
    assert {split: len(cuts) for split, cuts in splits.items()} == {"train": 1053, "dev": 170, "test": 272}
    cuts = [cut for group in splits.values() for cut in group]
    assert len({cut.id for cut in cuts}) == len(cuts)
    assert all(cut.end <= cut.recording.duration + 0.05 for cut in cuts)
    known = freevoices.read(CORPUS, ["es", "fr", "ru"])
    speakers = {cut.supervisions[0].speaker for group in known.values() for cut in group}
    strangers = {cut.supervisions[0].speaker for cut in cuts}
    assert len(strangers) == 5 and not strangers & speakers
