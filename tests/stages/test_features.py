"""Stage 1: stored features, their statistics, when they are redone, and audio that spoils them."""

import os
import shutil

import miniatures
import numpy as np
import pytest
from lhotse import CutSet

from masr.config import Features
from masr.config_files import ConfigError
from masr.data.batches import CutFeatures
from masr.data.features import UnusableAudio
from masr.data.rejected import TooManyRejected
from masr.stages import features, prepare, train, vocab
from masr.stages.features import load_cuts, load_statistics
from masr.stages.output import seal_of

SPEEDS = "features.speed_perturbation=[0.9,1.0,1.1]"


@pytest.fixture
def extract(small):
    """``extract(*overrides)`` runs stages 0 and 1 and returns the config."""

    def run(*overrides: str):
        config = small.config(*overrides)
        prepare.run(config)
        features.run(config)
        return config

    return run


def test_every_recording_has_features_at_every_speed_and_the_others_at_their_own(small, extract):
    config = extract(SPEEDS)
    train = {cut.id: cut for cut in load_cuts(config, "train")}
    names = [row["id"] for row in small.rows if row["split"] == "train"]
    assert train.keys() == {name + suffix for name in names for suffix in ("", "_sp0.9", "_sp1.1")}
    for name in names:
        for suffix, speed in (("", 1.0), ("_sp0.9", 0.9), ("_sp1.1", 1.1)):
            cut = train[name + suffix]
            assert cut.duration == pytest.approx(train[name].duration / speed, abs=1e-3)
            assert cut.load_features().shape == (cut.num_frames, 80)
            assert cut.num_frames == pytest.approx(cut.duration * 100, abs=1)
            assert cut.supervisions[0].text == train[name].supervisions[0].text
    for split in ("dev", "test"):
        assert all(cut.has_features and "_sp" not in cut.id for cut in load_cuts(config, split))


def test_stored_features_are_those_computed_on_the_fly(extract):
    stored, computed = extract(SPEEDS), extract(SPEEDS, "features.on_the_fly=true")
    load = CutFeatures(Features())
    computed_cuts = {cut.id: cut for cut in load_cuts(computed, "train")}
    stored_cuts = load_cuts(stored, "train")
    assert {cut.id for cut in stored_cuts} == computed_cuts.keys()
    for cut in stored_cuts:
        other = computed_cuts[cut.id]
        assert cut.has_features and not other.has_features
        assert load(cut).shape == load(other).shape
        # lilcom keeps values to about 0.02; the last frame may see one sample more of a resampled recording
        np.testing.assert_allclose(load(cut)[:-1], load(other)[:-1], atol=0.05, err_msg=cut.id)


def test_statistics_are_those_of_the_training_features(extract):
    config = extract(SPEEDS)
    frames = np.concatenate([cut.load_features() for cut in load_cuts(config, "train")])
    statistics = load_statistics(config)
    assert statistics.frames == len(frames)
    np.testing.assert_allclose(statistics.mean, frames.mean(axis=0), atol=0.01)
    np.testing.assert_allclose(statistics.deviation, frames.std(axis=0), atol=0.01)


def test_on_the_fly_only_the_statistics_are_written(small, extract):
    config = extract("features.on_the_fly=true")
    assert {path.name for path in (small.folder / "data/statistics/train").iterdir()} == {
        "complete.json",
        "statistics.json",
    }
    assert not (small.folder / "data/fbank").exists()
    stored = extract()
    np.testing.assert_allclose(load_statistics(config).mean, load_statistics(stored).mean)


def test_the_number_of_jobs_does_not_change_the_features(small, extract, monkeypatch):
    monkeypatch.setattr(features, "CUTS_PER_TASK", 2)
    many = {cut.id: cut.load_features() for cut in load_cuts(extract("features.jobs=2"), "train")}
    monkeypatch.setattr(features, "CUTS_PER_TASK", 50)
    few = {cut.id: cut.load_features() for cut in load_cuts(extract("features.jobs=1"), "train")}
    assert list(many) == list(few)
    for name, frames in few.items():
        np.testing.assert_array_equal(many[name], frames)


def test_the_second_run_does_nothing(small, extract, snapshot, capsys):
    extract()
    before = snapshot(small.folder / "data")
    capsys.readouterr()
    extract("train.updates=9", "data.batch_seconds=3")
    assert "features: complete in data/fbank (--force redoes it)" in capsys.readouterr().out
    assert snapshot(small.folder / "data") == before


@pytest.mark.parametrize("reason", ["force", "manifests", "half-written", "damaged"])
def test_they_are_redone_when_something_changed(small, extract, reason, half_written):
    config = extract()
    split = "dev" if reason == "damaged" else "train"
    stray = small.folder / f"data/fbank/{split}/stray"
    stray.touch()
    match reason:
        case "manifests":
            small.publish(small.bad_row(id="one-more"))
            prepare.run(config)
        case "half-written":
            half_written(small.folder / "data/fbank/train")
        case "damaged":
            (small.folder / "data/fbank/dev/00000.lca").write_bytes(b"")
    features.run(config, force=reason == "force")
    assert not stray.exists()
    cuts = load_cuts(config, "train")
    assert len(cuts) == 3 + (reason == "manifests")


@pytest.mark.parametrize(
    "moment",
    [
        ("masr.data.features:LogMel.__call__", 2),
        ("lhotse:CutSet.to_file", 2),
        ("masr.stages.output:StageOutput.seal", 1),
    ],
)
def test_killed_and_run_again_it_is_as_if_never_killed(small, kill_at, moment):
    config = small.config()
    prepare.run(config)
    kill_at(*moment, lambda: features.run(config))
    assert (small.folder / "data/fbank/train").is_dir()
    with pytest.raises(FileNotFoundError, match="run `masr features`"):
        seal_of(features.feature_folder(config) / "test", "features")
    features.run(config)
    for split, number in {"train": 3, "dev": 1, "test": 1}.items():
        assert [cut.load_features() is not None for cut in load_cuts(config, split)] == [True] * number


def test_before_stage_0_and_with_a_split_it_did_not_prepare_it_names_the_way_out(small):
    with pytest.raises(FileNotFoundError, match="run `masr prepare`"):
        features.run(small.config())
    prepare.run(small.config())
    with pytest.raises(FileNotFoundError, match=r"data/manifests has no split other .*: run `masr prepare`"):
        features.run(small.config("corpus.test=[other]"))


def test_dev_may_also_be_decoded(extract):
    config = extract("corpus.test=[dev,test]")
    assert len(load_cuts(config, "dev")) == 1


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_audio_of_any_rate_and_stereo_is_used(small, extract, rate):
    speech = miniatures.samples_of(miniatures.choose(["es"], {"train": 1})[0])
    at = np.arange(int(len(speech) * rate / 16000)) * 16000 / rate
    stereo = np.stack([np.interp(at, np.arange(len(speech)), speech)] * 2, axis=1)
    small.publish(
        miniatures.add_recording(small.corpus, small.bad_row(id="resampled", audio="other.wav"), stereo, rate),
        miniatures.add_recording(small.corpus, small.bad_row(id="original", audio="same.wav"), speech),
    )
    cuts = {cut.id: cut.load_features() for cut in load_cuts(extract(), "train")}
    assert cuts["resampled"].shape == cuts["original"].shape
    low = slice(0, 50)  # mel bins below 4 kHz, which every rate here holds
    loud = cuts["original"][:, low].mean(axis=1) > np.median(cuts["original"])
    assert np.abs(cuts["resampled"] - cuts["original"])[loud, low].mean() < 0.3


def test_bad_audio_is_counted_listed_and_skipped(small, extract, capsys):
    speech = miniatures.samples_of(small.rows[0])
    spoilt = speech.copy()
    spoilt[7] = np.nan
    nan = miniatures.add_recording(small.corpus, small.bad_row(id="nan", audio="nan.wav"), spoilt)
    gone = miniatures.add_recording(small.corpus, small.bad_row(id="gone", audio="gone.wav"), speech)
    garbage = miniatures.add_recording(small.corpus, small.bad_row(id="garbage", audio="garbage.wav"), speech)
    small.publish(nan, gone, garbage)
    prepare.run(small.config())
    (small.corpus / "gone.wav").unlink()
    (small.corpus / "garbage.wav").write_bytes(b"garbage")
    features.run(small.config())
    reasons = small.rejected("fbank/train")
    assert reasons.keys() == {"nan", "gone", "garbage"}
    assert reasons["nan"] == "1 samples are NaN or infinite"
    assert reasons["gone"].startswith("cannot be read: ") and "gone.wav" in reasons["gone"]
    assert reasons["garbage"].startswith("cannot be read: ")
    assert len(load_cuts(small.config(), "train")) == 3
    assert "features: train: 3 of 8 recordings skipped (first: nan: 1 samples" in capsys.readouterr().out


def test_too_much_bad_audio_stops_the_stage_with_its_number(small, extract):
    prepare.run(small.config("data.max_bad_fraction=0.5"))
    (small.corpus / "tuxpaint_es.opus").unlink()
    with pytest.raises(
        TooManyRejected, match=r"features: train: 3 of 5 recordings skipped .* data\.max_bad_fraction=0\.5"
    ):
        features.run(small.config("data.max_bad_fraction=0.5"))
    assert len(small.rejected("fbank/train")) == 3
    assert not features.feature_folder(small.config()).joinpath("train/complete.json").exists()


def test_a_split_of_which_nothing_is_left_stops_the_stage(small):
    prepare.run(small.config())
    (small.corpus / "tuxpaint_es.opus").unlink()
    with pytest.raises(ValueError, match=r"no recording of train can be used; .*rejected\.tsv"):
        features.run(small.config())


def test_features_lie_in_the_order_of_the_manifest(small, extract):
    config = extract()
    prepared = CutSet.from_file(small.folder / "data/manifests/train.jsonl.gz")
    assert [cut.id for cut in load_cuts(config, "train")] == [cut.id for cut in prepared]


def times_of(folder) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*.lca")}


@pytest.mark.parametrize("change", ["another test split", "moved", "copied", "touched", "another text"])
def test_what_leaves_a_split_as_it_is_extracts_nothing_again(small, extract, change, capsys):
    """And a model that was trained on it is trained still."""
    config = extract()
    vocab.run(config)
    train.run(config)
    before = times_of(small.folder / "data/fbank/train")
    match change:
        case "another test split":
            other = small.bad_row(id="more", split="test-other", audio="other.wav")
            small.rows = [
                *small.rows,
                miniatures.add_recording(small.corpus, other, miniatures.samples_of(small.rows[1])[::-1]),
            ]
            small.publish()
            config = small.config("corpus.test=[test,test-other]")
        case "moved":
            small.corpus.rename(small.folder / "elsewhere")
            config = small.config("corpus.path=elsewhere")
        case "copied":
            shutil.copytree(small.corpus, small.folder / "copy")
            shutil.rmtree(small.corpus)
            config = small.config("corpus.path=copy")
        case "touched":
            for path in small.corpus.iterdir():
                os.utime(path, (1, 1))
        case "another text":
            small.rows = [row | {"text": "otra cosa"} if row["split"] == "test" else row for row in small.rows]
            small.publish()
    capsys.readouterr()
    for stage in (prepare, features, vocab, train):
        stage.run(config)
    assert times_of(small.folder / "data/fbank/train") == before
    assert "train: complete in exp/small" in capsys.readouterr().out
    (cut,) = load_cuts(config, "test")
    assert cut.load_features().shape[1] == 80
    if change == "another text":
        assert cut.supervisions[0].text == "otra cosa"
    if change == "moved":
        assert cut.recording.sources[0].source.startswith("elsewhere/")


def test_features_move_with_their_folder(small, extract):
    config = extract()
    (small.folder / "data").rename(small.folder / "moved")
    cuts = load_cuts(small.config("data_dir=moved"), "train")
    assert all(CutFeatures(config.features)(cut).shape[1] == 80 for cut in cuts)


def test_a_damaged_archive_is_noticed_where_it_is_read_and_mended_by_verify(small, extract):
    """The bit is flipped by the disk: neither size nor time of the file tell."""
    config = extract()
    archive = small.folder / "data/fbank/train/00000.lca"
    state, whole = archive.stat(), archive.read_bytes()
    archive.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    os.utime(archive, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(UnusableAudio, match=r"00000\.lca is damaged: `masr features --verify`"):
        CutFeatures(config.features)(load_cuts(config, "train")[0])
    features.run(config)
    assert archive.read_bytes() != whole
    features.run(config, verify=True)
    assert archive.read_bytes() == whole


def test_other_options_need_a_place_of_their_own(small, extract, snapshot):
    extract()
    before = snapshot(small.folder / "data")
    with pytest.raises(ConfigError, match=r"fbank/train was made with other options; changed: features\.mel_bins"):
        features.run(small.config("features.mel_bins=40"))
    assert snapshot(small.folder / "data") == before
    features.run(small.config("features.mel_bins=40"), force=True)
    assert load_cuts(small.config("features.mel_bins=40"), "dev")[0].load_features().shape[1] == 40


def test_a_recording_that_was_mended_in_place_is_looked_at_again(small, extract):
    speech = miniatures.samples_of(small.rows[0])
    row = miniatures.add_recording(small.corpus, small.bad_row(audio="broken.wav"), speech)
    whole = (small.corpus / "broken.wav").read_bytes()
    (small.corpus / "broken.wav").write_bytes(b"garbage")
    small.publish(row)
    config = extract()
    assert small.rejected().keys() == {"bad"}
    (small.corpus / "broken.wav").write_bytes(whole)
    for stage in (prepare, features):
        stage.run(config)
    assert "bad" in {cut.id for cut in load_cuts(config, "train")}


def test_another_recording_in_the_same_place_is_extracted_again(small, extract):
    speech = miniatures.samples_of(small.rows[0])
    small.publish(miniatures.add_recording(small.corpus, small.bad_row(audio="one.wav"), speech))
    config = extract()
    before = {cut.id: cut.load_features() for cut in load_cuts(config, "train")}["bad"]
    miniatures.add_recording(small.corpus, small.bad_row(audio="one.wav"), speech[::-1])
    for stage in (prepare, features):
        stage.run(config)
    after = {cut.id: cut.load_features() for cut in load_cuts(config, "train")}["bad"]
    assert after.shape == before.shape and not np.allclose(after, before)


def test_a_recording_of_silence_is_rejected_with_this_reason_and_one_of_the_right_channel_is_used(small, extract):
    """Stored, and while training."""
    speech = miniatures.samples_of(small.rows[0])
    right = np.stack([0 * speech, speech], axis=1)
    small.publish(
        miniatures.add_recording(small.corpus, small.bad_row(id="off", audio="off.wav"), 0 * speech),
        miniatures.add_recording(small.corpus, small.bad_row(id="right", audio="right.wav"), right),
    )
    config = extract(SPEEDS)
    reason = f"all {len(speech)} samples are the same: digital silence"
    assert small.rejected("fbank/train") == {"off": reason}
    cuts = {cut.id: cut for cut in load_cuts(config, "train")}
    assert {"right", "right_sp0.9", "right_sp1.1"} <= cuts.keys()
    assert np.ptp(cuts["right"].load_features()) > 5
    load = CutFeatures(Features())
    prepared = {cut.id: cut for cut in prepare.read_cuts(prepare.manifests(config), "train")}
    np.testing.assert_allclose(load(prepared["right"]), load(cuts["right"]), atol=0.02)
    with pytest.raises(UnusableAudio, match=reason):
        load(prepared["off"])
