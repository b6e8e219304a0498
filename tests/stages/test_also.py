"""Splits of further corpora (corpus.also): they arrive in the languages of training, and touch nothing else."""

import json
import shutil
from pathlib import Path

import miniatures
import pytest

from masr.stages import decode, features, prepare, score, train, vocab
from masr.stages.features import load_cuts
from masr.stages.output import read_seal

ALSO = "corpus.also=[{{name: phoneprompts, path: {path}, splits: {{strangers: {split}}}}}]"
TEST = "corpus.test=[test,strangers]"


def also(path: str = "others", split: str = "test") -> list[str]:
    """Overrides that bring a split of another corpus under the name strangers."""
    return [TEST, ALSO.format(path=path, split=split)]


@pytest.fixture(scope="session")
def other_corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    folder = tmp_path_factory.mktemp("others") / "others"
    return folder, miniatures.phoneprompts(folder, languages=("en", "es"), counts={"dev": 1, "test": 2})


@pytest.fixture
def strangers(small, other_corpus) -> list[dict]:
    """Lines of the manifest of ``others/``: a dev recording and two test recordings in English and in Spanish."""
    shutil.copytree(other_corpus[0], small.folder / "others")
    return other_corpus[1]


def names_of(rows: list[dict], language: str, split: str) -> set[str]:
    return {row["id"] for row in rows if (row["language"], row["split"]) == (language, split)}


def test_they_arrive_in_the_languages_of_training(small, strangers, capsys):
    prepare.run(small.config(*also()))
    cuts = {cut.id: cut for cut in prepare.read_cuts(small.folder / "data/manifests", "strangers")}
    assert cuts.keys() == names_of(strangers, "es", "test") and len(cuts) == 2
    assert {cut.recording.sources[0].source for cut in cuts.values()} == {"others/es.opus"}
    english = names_of(strangers, "en", "test")
    assert small.rejected() == dict.fromkeys(english, "limit: train has no recordings in en")
    assert "prepare: strangers: Spanish 0.0 min" in capsys.readouterr().out


def test_adding_them_touches_nothing_else(small, strangers, snapshot, capsys):
    """Stages 0 to 3 without them, and then all stages with them: features of the new split, and scores of both."""
    for stage in (prepare, features, vocab, train):
        stage.run(small.config())
    kept = [small.folder / path for path in ("data/fbank", "data/vocab", "exp/small")]
    before = [snapshot(folder) for folder in kept]
    content = read_seal(small.folder / "data/manifests")["content"]
    capsys.readouterr()
    for stage in (prepare, features, vocab, train):
        stage.run(small.config(*also()))
    printed = capsys.readouterr().out
    assert "vocab: complete in" in printed and "train: complete in" in printed
    assert "features: strangers: 2 recordings" in printed and "features: train" not in printed
    after = [snapshot(folder) for folder in kept]
    for old, new in zip(before, after, strict=True):
        assert old.items() <= new.items()
    assert content.items() <= read_seal(small.folder / "data/manifests")["content"].items()

    config = small.config(*also(), "decode.methods=[ctc-greedy]")
    decode.run(config)
    score.run(config)
    for split in ("test", "strangers"):
        path = small.folder / f"exp/small/score/ctc-greedy/{split}/metrics.json"
        assert json.loads(path.read_text(encoding="utf-8"))["languages"].keys() == {"es"}


def test_a_config_without_them_leaves_them(small, strangers, capsys):
    prepare.run(small.config(*also()))
    content = read_seal(small.folder / "data/manifests")["content"]
    prepare.run(small.config())
    assert read_seal(small.folder / "data/manifests")["content"] == content
    capsys.readouterr()
    for overrides in (also(), []):
        prepare.run(small.config(*overrides))
        assert capsys.readouterr().out == "prepare: complete in data/manifests (--force redoes it)\n"


def test_they_go_with_their_corpus_when_no_config_at_hand_names_them(small, strangers):
    prepare.run(small.config(*also()))
    content = read_seal(small.folder / "data/manifests")["content"]
    shutil.rmtree(small.folder / "others")
    prepare.run(small.config())
    left = read_seal(small.folder / "data/manifests")["content"]
    assert left == {split: content[split] for split in ("train", "dev", "test")}


def test_another_place_of_their_corpus_changes_no_content(small, strangers):
    prepare.run(small.config(*also()))
    content = read_seal(small.folder / "data/manifests")["content"]
    (small.folder / "others").rename(small.folder / "moved")
    prepare.run(small.config(*also("moved")))
    assert read_seal(small.folder / "data/manifests")["content"] == content
    assert len(load_cuts(small.config(*also("moved"), "features.on_the_fly=true"), "strangers")) == 2


def test_their_corpus_is_read_again_when_it_changed(small, strangers):
    prepare.run(small.config(*also()))
    miniatures.write_manifest(small.folder / "others", [row for row in strangers if row["id"] != strangers[-1]["id"]])
    prepare.run(small.config(*also()))
    assert strangers[-1]["language"] == "es"
    assert len(prepare.read_cuts(small.folder / "data/manifests", "strangers")) == 1


def test_another_split_under_the_same_name_is_not_taken_for_it(small, strangers):
    prepare.run(small.config(*also()))
    for config in (small.config(*also(split="dev")), small.config(TEST)):
        with pytest.raises(
            ValueError, match=r"split strangers that is not the one of corpus\.also: run `masr prepare`"
        ):
            prepare.require(config, "strangers")
    prepare.run(small.config(*also(split="dev")))
    [cut] = prepare.read_cuts(small.folder / "data/manifests", "strangers")
    assert {cut.id} == names_of(strangers, "es", "dev")
    assert prepare.require(small.config(*also(split="dev")), "strangers")["recordings"] == 1


def test_a_leak_into_them_stops_the_stage(small):
    """The same recordings under other names, as if another corpus had published them, too."""
    shutil.copytree(small.corpus, small.folder / "others")
    rows = [row | {"id": f"other/{row['id']}", "split": "test"} for row in small.rows]
    miniatures.write_manifest(small.folder / "others", rows)
    with pytest.raises(ValueError, match="5 recordings have audio that another split has, too .*strangers"):
        prepare.run(small.config(*also()))


def test_speech_without_text_may_come_from_them_in_any_language(small, strangers):
    also_dev = ALSO.format(path="others", split="dev")
    config = small.config(also_dev, "model.self_supervised.weight=0.1", "model.self_supervised.split=strangers")
    prepare.run(config)
    cuts = prepare.read_cuts(small.folder / "data/manifests", "strangers")
    assert {cut.supervisions[0].language for cut in cuts} == {"en", "es"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (also(path="nowhere"), r"corpus\.also: no folder .*nowhere, which has strangers; set its path"),
        (also(split="tests"), r"corpus\.also: others: no recordings for tests, .* strangers; splits found: test, dev"),
        (
            ["corpus.test=[test]", ALSO.format(path="others", split="test").replace("strangers", "test")],
            r"corpus\.also: corpus has a split test of its own; choose another name in splits",
        ),
        ([TEST], "no recordings for strangers; splits found: test, train, dev"),
    ],
)
def test_what_is_wrong_is_named(small, strangers, overrides, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        prepare.run(small.config(*overrides))


def test_nothing_in_the_languages_of_training_is_an_error_with_the_way_out(small, strangers):
    rows = [row for row in strangers if row["language"] == "en"]
    miniatures.write_manifest(small.folder / "others", rows)
    with pytest.raises(ValueError, match=r"no recording of strangers can be used; .*; corpus\.test=\[test\] does with"):
        prepare.run(small.config(*also()))
