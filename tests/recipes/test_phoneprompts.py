"""egs/phoneprompts from the corpus to the report; each of the two packs in the box has strangers for the other."""

import json
import os

import miniatures
import pytest
from lhotse import CutSet

from masr.config_files import load_config
from masr.stages import prepare

TINY = [
    "features.speed_perturbation=[1.0]",
    "features.jobs=1",
    "data.batch_seconds=8",
    "data.buckets=2",
    "data.workers=0",
    "model.encoder={layers: 1, width: 16, heads: 2, feedforward: 16, kernel: 3, subsampling_channels: 4}",
    "train.updates=2",
    "train.warmup=1",
    "train.validate_every=2",
    "decode.methods=[ctc-greedy]",
]
COUNTS = {"train": 3, "dev": 1, "test": 2}


@pytest.fixture
def recipe(copy_recipe, tmp_path):
    """``recipe(name)``: a copy of it, and both packs where the configs look for them."""

    def copy(name: str):
        copied = copy_recipe(name)
        miniatures.freevoices(tmp_path / "egs/freevoices/corpus", ("ro", "es", "fr", "ru"), COUNTS)
        miniatures.phoneprompts(tmp_path / "egs/phoneprompts/corpus", ("en", "es", "fr", "ru"), COUNTS)
        return copied

    return copy


def test_from_the_corpus_to_the_report_of_known_voices_and_strangers(recipe):
    copied = recipe("phoneprompts")
    result = copied.run("--stage", "0", "--stop-stage", "5", *TINY)
    assert result.returncode == 0, result.stdout + result.stderr
    languages = {"test": {"en", "es", "fr", "ru"}, "strangers": {"es", "fr", "ru"}}
    for split, spoken in languages.items():
        path = copied.folder / f"exp/conformer/score/ctc-greedy/{split}/metrics.json"
        metrics = json.loads(path.read_text(encoding="utf-8"))
        assert metrics["languages"].keys() == spoken
        assert metrics["utterances"] == COUNTS["test"] * len(spoken)


def test_the_voices_of_phoneprompts_are_strangers_to_freevoices(recipe, monkeypatch):
    """In the languages that a config trains on."""
    monkeypatch.chdir(recipe("freevoices").folder)
    for conf, languages in {"conformer": {"es", "fr", "ru"}, "demo": {"es", "ru"}}.items():
        config = load_config(f"conf/{conf}.yaml")
        prepare.run(config)
        cuts = list(CutSet.from_file(prepare.manifests(config) / "strangers.jsonl.gz"))
        assert len(cuts) == COUNTS["test"] * len(languages)
        assert {cut.supervisions[0].language for cut in cuts} == languages
        assert all("phoneprompts" in os.path.realpath(cut.recording.sources[0].source) for cut in cuts)
