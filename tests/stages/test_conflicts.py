"""``masr conflicts`` of a tiny trained model, on the miniature corpus."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from masr.cli import app
from masr.config_files import ConfigError, load_config
from masr.stages import conflicts, train, vocab

OPTIONS = [
    "vocab.translation={into: en, kind: char}",
    "model.translation={weight: 0.5, layers: 1, width: 16, heads: 2, feedforward: 16}",
    "model.self_supervised={kind: cpc, weight: 1.0, context: 0.3, future: 0.2, group: 4}",
    "train.keep_checkpoints=2",
]  # fmt: skip


@pytest.fixture
def folder(prepared, workdir):
    """A trained model of three languages that recognises, translates and learns from speech without text."""
    shutil.copytree(prepared.folder / "data", workdir / "data")
    config = load_config(prepared.conf, [f"data_dir={workdir}/data", *OPTIONS])
    vocab.run(config)
    train.run(config)
    return workdir / "exp/tiny"


def test_from_a_trained_model_to_the_report(folder, monkeypatch):
    monkeypatch.setattr(conflicts, "DRAWS", 100)
    done = CliRunner().invoke(app, ["conflicts", str(folder), "--recordings", "8"], catch_exceptions=False)
    assert done.exit_code == 0
    found = json.loads((folder / "conflicts/train.json").read_text())
    each = ["asr/el", "st/el", "asr/es", "st/es", "asr/ro", "st/ro", "cpc"]
    assert sorted(found["objectives"]) == sorted(each) and found["left_out"] == {}
    assert found["gradients"] == dict.fromkeys(each[:-1], 8) | {"cpc": 8}
    assert list(found["layers"]) == ["subsampling", "block 1", "block 2", "all layers"]
    for kinds in found["layers"].values():
        assert {"all pairs", "asr-asr", "st-st", "asr-st, same language", "cpc-others"} < kinds.keys()
        assert all(-1 <= kind["low"] <= kind["value"] <= kind["high"] <= 1 for kind in kinds.values())
    assert len(found["pairs"]) == 21 and found["layers"]["all layers"]["asr-asr"]["low"] > 0, "all learn blanks"
    report = (folder / "conflicts/train.md").read_text()
    assert "| all layers | " in report and "| all layers | " in done.output and "| cpc | 8 | " in report
    assert "<svg" in (folder / "conflicts/train-layers.svg").read_text()


def test_a_checkpoint_has_figures_of_its_own(folder, monkeypatch):
    monkeypatch.setattr(conflicts, "DRAWS", 100)
    last = conflicts.run(folder, recordings=4, split="dev", checkpoint=8)
    assert conflicts.run(folder, recordings=4, split="dev", checkpoint=8) == last, "the same every time"
    assert conflicts.run(folder, recordings=4, split="dev", checkpoint=4) != last
    names = {path.name for path in (folder / "conflicts").glob("*.json")}
    assert names == {"dev-4.json", "dev-8.json"}
    with pytest.raises(FileNotFoundError, match=r"step-00000005 is missing; there are .* updates: 4, 8"):
        conflicts.run(folder, checkpoint=5)


def test_what_cannot_be_measured_is_left_out(folder, monkeypatch, capsys):
    monkeypatch.setattr(conflicts, "DRAWS", 100)
    conflicts.run(folder, ["data.min_seconds=1.3"], recordings=4, split="dev")
    left_out = json.loads((folder / "conflicts/dev.json").read_text())["left_out"]
    assert left_out and all("2 are needed" in reason for reason in left_out.values())
    assert f"{next(iter(left_out))} is left out: " in capsys.readouterr().out
    with pytest.raises(ValueError, match="there are not two objectives to compare"):
        conflicts.run(folder, ["data.min_seconds=60"], split="dev")
    with pytest.raises(ConfigError, match=r"model.encoder.dropout=0.5 changes nothing in a model that is trained"):
        conflicts.run(folder, ["model.encoder.dropout=0.5"])
