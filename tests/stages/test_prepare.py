"""Stage 0: the manifests, when they are redone, and what is rejected or refused."""

import json
import os
import shutil

import miniatures
import numpy as np
import pytest
import soundfile
from lhotse import CutSet

from masr.config_files import ConfigError
from masr.data.rejected import TooManyRejected
from masr.stages import prepare
from masr.stages.output import seal_of
from masr.text.normalize import VERSION


@pytest.fixture
def cuts_of():
    """``cuts_of(small, "train")``: the cuts that stage 0 wrote, by id."""
    return lambda small, split: {
        cut.id: cut for cut in CutSet.from_file(small.folder / f"data/manifests/{split}.jsonl.gz")
    }


def test_manifests_hold_the_corpus_with_normalised_text(small, cuts_of, capsys):
    prepare.run(small.config())
    for split, number in {"train": 3, "dev": 1, "test": 1}.items():
        rows = {row["id"]: row for row in small.rows if row["split"] == split}
        cuts = cuts_of(small, split)
        assert cuts.keys() == rows.keys() and len(cuts) == number
        for name, row in rows.items():
            supervision = cuts[name].supervisions[0]
            assert supervision.text == row["text"].lower().rstrip(".")
            assert supervision.custom["published_text"] == row["text"]
            assert supervision.custom["translation"]["en"] == row["translation"]["en"]
            assert (supervision.language, supervision.speaker) == ("es", "tuxpaint-es")
            assert (cuts[name].start, cuts[name].duration) == pytest.approx((row["start"], row["duration"]))
    assert "prepare: train: Spanish 0.0 min" in capsys.readouterr().out
    assert small.rejected() == {}


def test_the_second_run_does_nothing(small, snapshot, capsys):
    prepare.run(small.config())
    before = snapshot(small.folder / "data")
    capsys.readouterr()
    prepare.run(small.config("train.updates=9", "decode.beam=3"))
    assert capsys.readouterr().out == "prepare: complete in data/manifests (--force redoes it)\n"
    assert snapshot(small.folder / "data") == before


@pytest.mark.parametrize("reason", ["force", "limits", "another line", "another file", "half-written", "damaged"])
def test_it_is_redone_when_something_changed(small, cuts_of, reason, half_written):
    prepare.run(small.config())
    stray = small.folder / "data/manifests/stray"
    stray.touch()
    match reason:
        case "another line":
            small.publish(small.bad_row(id="one-more"))
        case "another file":
            os.utime(small.corpus / "tuxpaint_es.opus", (1, 1))
        case "half-written":
            half_written(small.folder / "data/manifests")
        case "damaged":
            (small.folder / "data/manifests/train.jsonl.gz").write_bytes(b"")
    prepare.run(small.config(*(["data.min_seconds=0.2"] if reason == "limits" else [])), force=reason == "force")
    assert not stray.exists()
    assert len(cuts_of(small, "train")) == 3 + (reason == "another line")


def test_data_of_normalisation_version_1_are_made_again(small, cuts_of, capsys):
    """Its seal names the version, in the layout of that time."""
    prepare.run(small.config())
    (small.folder / "data/manifests/complete.json").write_text('{"inputs": {"normalization": "1"}, "files": {}}')
    with pytest.raises(FileNotFoundError, match="data/manifests is not complete: run `masr prepare`"):
        prepare.require(small.config(), "train")
    capsys.readouterr()
    prepare.run(small.config())
    assert "prepare: makes data/manifests again (an older masr made it, or it is damaged)" in capsys.readouterr().out
    seal = json.loads((small.folder / "data/manifests/complete.json").read_text())
    assert seal["inputs"]["normalization"] == VERSION and len(cuts_of(small, "train")) == 3


@pytest.mark.parametrize(
    "moment", [("lhotse:CutSet.to_file", 2), ("masr.stages.output:StageOutput.seal", 1), ("os:replace", 3)]
)
def test_killed_and_run_again_it_is_as_if_never_killed(small, cuts_of, kill_at, moment):
    kill_at(*moment, lambda: prepare.run(small.config()))
    assert (small.folder / "data/manifests").is_dir()
    with pytest.raises(FileNotFoundError, match="run `masr prepare`"):
        seal_of(prepare.manifests(small.config()), "prepare")
    prepare.run(small.config())
    assert [len(cuts_of(small, split)) for split in ("train", "dev", "test")] == [3, 1, 1]


def test_dev_may_also_be_decoded(small, cuts_of):
    prepare.run(small.config("corpus.test=[dev,test]"))
    (cut,) = cuts_of(small, "dev").values()
    assert cut.supervisions[0].custom["published_text"] != cut.supervisions[0].text


BAD = {
    "garbage": ({"audio": "garbage.opus"}, "corpus/garbage.opus cannot be read"),
    "empty file": ({"audio": "empty.wav"}, "corpus/empty.wav cannot be read, or is empty"),
    "no samples": ({"audio": "silence.wav"}, "corpus/silence.wav cannot be read, or is empty"),
    "missing file": ({"audio": "missing.opus"}, "corpus/missing.opus cannot be read"),
    "empty text": ({"text": ""}, "empty transcript (as published: '')"),
    "no text": ({"text": None}, "empty transcript (as published: None)"),
    "only punctuation": ({"text": "¿…?"}, "empty transcript (as published: '¿…?')"),
    "beyond the end": ({"start": 100.0, "duration": 1.0}, "ends at 101.00 s, but its recording has"),
}


@pytest.mark.parametrize(("fields", "reason"), BAD.values(), ids=BAD)
def test_an_unusable_recording_is_counted_listed_and_skipped(small, cuts_of, fields, reason, capsys):
    (small.corpus / "garbage.opus").write_bytes(b"garbage" * 99)
    (small.corpus / "empty.wav").touch()
    soundfile.write(small.corpus / "silence.wav", np.zeros(0), 16000)
    small.publish(small.bad_row(**fields))
    prepare.run(small.config())
    assert small.rejected().keys() == {"bad"}
    assert small.rejected()["bad"].startswith(reason)
    assert len(cuts_of(small, "train")) == 3
    assert "prepare: 1 of 6 recordings skipped (first: bad: " in capsys.readouterr().out


def test_a_second_recording_with_the_same_id_is_rejected(small, cuts_of):
    small.publish(small.rows[0])
    prepare.run(small.config())
    assert small.rejected() == {small.rows[0]["id"]: "a second recording with this id"}
    assert len(cuts_of(small, "train")) == 3


def test_what_the_shortest_duration_leaves_out_is_counted_apart(small, cuts_of, capsys):
    small.publish(*(small.bad_row(id=f"short {number}", duration=0.05) for number in range(9)), small.bad_row(text=""))
    prepare.run(small.config("data.max_bad_fraction=0.2"))
    assert small.rejected()["short 0"] == "limit: 0.050 s is shorter than data.min_seconds=0.1"
    assert len(cuts_of(small, "train")) == 3 and len(small.rejected()) == 10
    printed = capsys.readouterr().out
    assert "prepare: 9 of 15 recordings left out by a limit (first: short 0: 0.050 s" in printed
    assert "prepare: 1 of 6 recordings skipped (first: bad: empty transcript" in printed
    with pytest.raises(TooManyRejected, match=r"1 of 6 recordings skipped .* more than data\.max_bad_fraction=0\.1"):
        prepare.run(small.config("data.max_bad_fraction=0.1"))


def test_every_recording_of_an_id_that_is_there_already_counts(small):
    small.publish(*[small.rows[0]] * 5)
    with pytest.raises(TooManyRejected, match="prepare: 5 of 10 recordings skipped"):
        prepare.run(small.config("data.max_bad_fraction=0.4"))
    assert small.rejected() == {small.rows[0]["id"]: "a second recording with this id"}


def test_an_id_cannot_break_the_list(small):
    small.publish(small.bad_row(id="one\ttwo\nthree", text=""))
    prepare.run(small.config())
    assert list(small.rejected()) == [r"one\x09two\x0athree"]


def test_too_many_unusable_recordings_stop_the_stage_with_their_number(small):
    small.publish(small.bad_row(text=""))
    with pytest.raises(TooManyRejected) as caught:
        prepare.run(small.config("data.max_bad_fraction=0.1"))
    message = str(caught.value)
    assert message.startswith("prepare: 1 of 6 recordings skipped (first: bad: empty transcript")
    assert "data/manifests/rejected.tsv" in message
    assert "more than data.max_bad_fraction=0.1" in message
    assert small.rejected().keys() == {"bad"}, "the list is there to work with"
    with pytest.raises(TooManyRejected):
        prepare.run(small.config("data.max_bad_fraction=0.1"))
    prepare.run(small.config("data.max_bad_fraction=0.2"))


def test_the_list_goes_when_there_is_nothing_to_list(small):
    small.publish(small.bad_row(text=""))
    prepare.run(small.config())
    small.publish()
    prepare.run(small.config())
    assert not (small.folder / "data/manifests/rejected.tsv").exists()


def test_a_split_of_which_nothing_is_left_stops_the_stage(small):
    small.rows = [row | {"text": "!"} if row["split"] == "dev" else row for row in small.rows]
    small.publish()
    with pytest.raises(ValueError, match=r"no recording of dev can be used; reasons in data/manifests/rejected\.tsv"):
        prepare.run(small.config())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("corpus.path=nowhere", "corpus.path: no folder .*nowhere; set corpus.path="),
        ("corpus.name=frevoices", "corpus.name: no module masr/corpora/frevoices.py; known corpora: .*freevoices"),
        ("corpus.test=[tests]", "no recordings for tests; splits found: .*test"),
        ("corpus.languages=[cs]", "no recordings for train, dev, test; splits found: none"),
    ],
)
def test_a_wrong_corpus_option_names_what_there_is(small, override, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        prepare.run(small.config(override))


def test_a_language_without_recordings_is_named(small):
    with pytest.raises(ValueError, match="corpus.languages: corpus has no recordings in gr"):
        prepare.run(small.config("corpus.languages=[es,gr]"))


def test_a_language_that_only_dev_has_is_named_with_the_way_out(small):
    small.publish(small.bad_row(split="dev", language="el"))
    with pytest.raises(ValueError, match=r"dev has recordings in el, train has none: .*; set corpus\.languages=\[es\]"):
        prepare.run(small.config())
    prepare.run(small.config("corpus.languages=[es]"))


def test_a_language_that_only_test_has_is_named_with_the_ways_out(small, cuts_of):
    small.publish(small.bad_row(split="test", language="el"), small.bad_row(id="b", split="other", language="el"))
    with pytest.raises(ValueError) as caught:
        prepare.run(small.config())
    assert str(caught.value) == (
        "prepare: test has recordings in el, train has none: no model trained on it can decode them; set "
        "corpus.languages=[es], or corpus.test=[dev] without test"
    )
    prepare.run(small.config("corpus.test=[dev]"))
    prepare.run(small.config("corpus.languages=[es]", "data_dir=other"))
    with pytest.raises(ValueError, match=r"other has recordings in el, .*; set corpus\.test=\[dev\] without other"):
        prepare.run(small.config("corpus.test=[dev,other]", "data_dir=third"))


def test_minutes_cut_the_training_split_of_each_language(small, cuts_of):
    """A draw of fewer minutes lies in one of more; dev and test stay whole."""
    counts = {"train": 6, "dev": 1, "test": 1}
    shutil.rmtree(small.corpus)
    miniatures.freevoices(small.corpus, languages=("es", "ro"), counts=counts)
    drawn = {}
    for minutes in (0.01, 0.1, 0):
        prepare.run(small.config(f"corpus.minutes={minutes}"), force=True)
        drawn[minutes] = {name: cut.supervisions[0].language for name, cut in cuts_of(small, "train").items()}
        assert len(cuts_of(small, "dev")) == len(cuts_of(small, "test")) == 2
    assert sorted(drawn[0.01].values()) == ["es", "ro"], "one recording is the least"
    assert drawn[0.01].keys() < drawn[0.1].keys() < drawn[0].keys() and len(drawn[0]) == 12
    with pytest.raises(ValueError, match=r"corpus\.minutes \(0\.0 -> 5\.0\)"):
        prepare.require(small.config("corpus.minutes=5"), "train")


def test_other_languages_need_a_place_of_their_own_and_wipe_nothing(small, snapshot):
    prepare.run(small.config())
    before = snapshot(small.folder / "data")
    with pytest.raises(ConfigError, match=r"manifests was made with other options; changed: corpus\.languages .*force"):
        prepare.run(small.config("corpus.languages=[es]"))
    assert snapshot(small.folder / "data") == before


def test_a_folder_of_the_users_own_is_not_cleared(small):
    (small.folder / "mine/manifests").mkdir(parents=True)
    (small.folder / "mine/manifests/thesis.txt").write_text("years of work")
    for force in (False, True):
        with pytest.raises(ValueError, match=r"mine/manifests holds files that masr did not write \(thesis\.txt\)"):
            prepare.run(small.config("data_dir=mine"), force=force)
    assert (small.folder / "mine/manifests/thesis.txt").read_text() == "years of work"


def test_splits_that_another_config_prepared_stay(small, cuts_of, capsys):
    small.publish(small.bad_row(id="more", split="test-other"))
    prepare.run(small.config("corpus.test=[test-other]"))
    prepare.run(small.config())
    assert len(cuts_of(small, "test-other")) == len(cuts_of(small, "test")) == 1
    capsys.readouterr()
    prepare.run(small.config("corpus.test=[test-other]"))
    assert "prepare: complete in" in capsys.readouterr().out


def test_a_leak_between_the_splits_in_use_stops_the_stage(small):
    tested = next(row for row in small.rows if row["split"] == "test")
    small.publish(tested | {"id": "again", "split": "train"})
    with pytest.raises(ValueError, match=r"1 recording has audio that another split has, too \(first: again in train"):
        prepare.run(small.config())
    with pytest.raises(FileNotFoundError, match="run `masr prepare`"):
        prepare.require(small.config(), "train")


def test_texts_that_splits_share_are_a_leak_on_request(small):
    tested = next(row for row in small.rows if row["split"] == "test")
    small.publish(small.bad_row(text=tested["text"].upper() + "!"))
    prepare.run(small.config())
    with pytest.raises(ValueError, match="1 recording has a text that another split has"):
        prepare.run(small.config("corpus.disjoint=[text]"), force=True)


def test_splits_of_other_configs_are_compared_when_a_config_uses_both(small):
    small.publish(small.bad_row(id="more", split="test-other"))
    prepare.run(small.config("corpus.test=[test-other]"))
    prepare.run(small.config())
    with pytest.raises(ValueError, match="1 recording has audio .* test and test-other overlap"):
        prepare.run(small.config("corpus.test=[test,test-other]"))
