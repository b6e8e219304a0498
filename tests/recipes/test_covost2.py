"""egs/covost2 from the corpus to the report, by its own run.sh and its config, on a miniature of the corpus."""

import json
from pathlib import Path

import miniatures
import pytest

import masr
from masr.config_files import load_config
from masr.soup.levels import Soup
from masr.tables import experiment, load_table
from masr.text.normalize import normalize

TABLES = Path(__file__).parents[2] / "egs/covost2/tables"
TINY = [
    "vocab.size=40", "vocab.translation.size=60", "data.batch_seconds=12", "data.buckets=2", "data.workers=0",
    "model.encoder.layers=1", "model.encoder.width=16", "model.encoder.heads=2", "model.encoder.feedforward=16",
    "model.encoder.kernel=3", "model.encoder.subsampling_channels=4", "model.translation.encoder_layers=1",
    "model.translation.layers=1", "model.translation.width=16", "model.translation.heads=2",
    "model.translation.feedforward=16", "train.updates=3", "train.validate_every=3", "train.log_every=1",
    "train.threads=1", "train.precision=fp32", "decode.beam=2",
]  # fmt: skip


def test_from_the_corpus_to_the_report(copy_recipe, tmp_path):
    """Four languages heard, and three of them translated by a decoder each; tables beside the folders and in them."""
    rows = miniatures.covost2(tmp_path / "corpus", ["es", "fr", "ca"], english="nl", beside=["es", "en"])
    recipe = copy_recipe("covost2")
    assert {(row["language"], row["split"]) for row in rows} == {
        (code, split) for code in ("ca", "en", "es", "fr") for split in ("train", "dev", "test")
    }
    result = recipe.run(f"corpus.path={tmp_path}/corpus", "corpus.languages=[en,fr,es,ca]", *TINY)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "skipped" not in result.stdout, "every clip is used"
    assert {path.name for path in (recipe.folder / "data").iterdir()} == {"manifests", "statistics", "vocab"}

    experiment = recipe.folder / "exp/recognition_translation"
    log = [json.loads(line) for line in (experiment / "log.jsonl").read_text().splitlines()]
    assert [line["update"] for line in log if "loss" in line] == [1, 2, 3]
    model = masr.load(experiment).model
    assert model.translator.parts.keys() == {"ca", "es", "fr"} and model.tokenizer.models.keys() >= {"ca", "en"}

    def lines_of(method: str) -> list[dict]:
        text = (experiment / f"decode/{method}@oracle/test.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    test = [row for row in rows if row["split"] == "test"]
    for method in ("ctc-prefix-beam", "ctc-greedy"):
        assert {line["id"]: line["reference"] for line in lines_of(method)} == {
            row["id"]: normalize(row["text"], row["language"]) for row in test
        }
    assert {line["id"]: line["reference"] for line in lines_of("translation-beam")} == {
        row["id"]: " ".join(row["translated"].split()) for row in test if row["into"] == "en"
    }
    for method, languages in (("ctc-prefix-beam", {"ca", "en", "es", "fr"}), ("translation-beam", {"ca", "es", "fr"})):
        metrics = json.loads((experiment / f"score/{method}@oracle/test/metrics.json").read_text(encoding="utf-8"))
        assert metrics["languages"].keys() == languages


@pytest.mark.parametrize(("name", "scale"), [("", None), ("", "mini"), ("_large", None), ("_whisper", None)])
def test_levels_of_every_row_of_a_table_hold_all_objectives(name, scale, monkeypatch):
    """At scale mini, too, where two languages are others; static weights are then those of the ones they stand for."""
    monkeypatch.chdir(TABLES.parent)
    path = TABLES / f"objective_soups{name}.yaml"
    table, soups = load_table(path), {}
    for row, content in table.rows.items():
        config = load_config(content.config or table.config, experiment(path, table, row, 1, scale)[1])
        codes = config.corpus.languages
        heard = [f"asr/{code}" for code in codes], [f"st/{code}" for code in codes if code != "en"]
        unlabelled = [config.model.self_supervised.kind] if config.model.self_supervised.weight else []
        soups[row] = Soup(config.train.soup, [*heard[0], *heard[1], *unlabelled])
    epoch = 0.2 / 0.43 if name == "_whisper" else 10  # where the penalty of most rows has grown by 0.2
    counts = {row: soup.coefficients(epoch) for row, soup in soups.items()}
    english, french, german, *_ = codes
    assert counts["static"][f"asr/{german}"] / counts["static"][f"asr/{english}"] == pytest.approx(0.27 / 0.18)
    assert counts["uas"][f"asr/{french}"] == pytest.approx(0.3 / 5) and counts["uas"]["cpc"] == pytest.approx(0.06)
    tasks = {row: [level.objectives[0][:3] for level in soup.levels] for row, soup in soups.items()}
    assert tasks["uas"] == ["st/", "asr", "cpc"] and tasks["usa"] == ["asr", "st/", "cpc"]
    slow = {row: [level.options.penalty.rate for level in soups[row].levels] for row in soups if row.endswith("_slow")}
    assert slow == ({"uas_slow": [0, 0.002, 0.002], "usa_slow": [0, 0.002, 0.002]} if not name else {})
    assert table.rows["uas"].paper["wer"] == {"": 23.6, "_large": 18.4, "_whisper": 14.1}[name]
