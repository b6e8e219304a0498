"""egs/librispeech_aishell from the corpora to the report, by its own run.sh and config, on miniatures of both."""

import json
import shutil
from pathlib import Path

import miniatures
import pytest
from lhotse.recipes.aishell import prepare_aishell
from lhotse.recipes.librispeech import prepare_librispeech

from masr.config_files import load_config
from masr.corpora import aishell, librispeech
from masr.soup.levels import Soup
from masr.stages import decode, score, train
from masr.tables import experiment, load_table, print_table
from masr.text.normalize import normalize

RECIPE = Path(__file__).parents[2] / "egs/librispeech_aishell"
TINY = [
    "vocab.size=10", "features.jobs=1", "data.batch_seconds=12", "data.buckets=2", "data.workers=0",
    "model.encoder.layers=1", "model.encoder.width=16", "model.encoder.heads=2", "model.encoder.feedforward=16",
    "model.encoder.kernel=3", "model.encoder.subsampling_channels=4", "train.updates=3", "train.validate_every=3",
    "train.log_every=1", "train.threads=1", "train.precision=fp32", "decode.methods=[ctc-greedy]",
    "model.self_supervised={kind: cpc, weight: 0.5, split: unlabelled, batch_seconds: 4, context: 0.4, future: 0.2}",
]  # fmt: skip


def test_from_the_corpora_to_the_report(copy_recipe, tmp_path, monkeypatch):
    """Two languages with transcripts, speech of one of them without, and three tests; then a row of the table."""
    english, chinese = miniatures.librispeech(tmp_path / "corpus"), miniatures.aishell(tmp_path / "corpus")
    recipe = copy_recipe("librispeech_aishell")
    result = recipe.run(f"corpus.path={tmp_path}/corpus", *TINY)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "skipped" not in result.stdout, "every recording is used"

    experiment = recipe.folder / "exp/conformer"
    log = [json.loads(line) for line in (experiment / "log.jsonl").read_text().splitlines()]
    losses = [line for line in log if "loss" in line]
    assert [line["update"] for line in losses] == [1, 2, 3] and all("cpc" in json.dumps(line) for line in losses)
    expected = {
        "test-clean": {row["id"]: normalize(row["text"], "en") for row in english if row["split"] == "test-clean"},
        "test-other": {row["id"]: normalize(row["text"], "en") for row in english if row["split"] == "test-other"},
        "test-aishell": {
            row["id"]: row["text"].replace(" ", "").replace("ｋｔｖ", "ktv")
            for row in chinese
            if row["split"] == "test"
        },
    }
    for split, texts in expected.items():
        decoded = (experiment / f"decode/ctc-greedy/{split}.jsonl").read_text(encoding="utf-8").splitlines()
        assert {line["id"]: line["reference"] for line in map(json.loads, decoded)} == texts and texts
        metrics = json.loads((experiment / f"score/ctc-greedy/{split}/metrics.json").read_text(encoding="utf-8"))
        assert metrics["languages"].keys() == {"zh" if split == "test-aishell" else "en"}
    units = (recipe.folder / "data/vocab/unigram10-per-language/tokens.txt").read_text(encoding="utf-8").split()[::2]
    assert {unit for unit in units if set(unit) & set("抑制作用")} == set("抑制作用"), "Chinese units are characters"

    monkeypatch.chdir(recipe.folder)
    titles, _, cells = run_row("uec").splitlines()[-3:]
    assert titles.startswith("|  | WER test-clean | WER test-other | CER test-aishell | M parameters |")
    ours = [cell.split() for cell in cells.split("|")[2:5]]
    assert [paper for _, paper in ours] == ["(6.50)", "(17.00)", "(6.10)"] and all(float(rate) > 0 for rate, _ in ours)


def run_row(row: str) -> str:
    """Trains and scores a row of the table on what stages 0-2 have made of the miniatures; the table as printed."""
    path = shutil.copytree(RECIPE / "tables", Path("tables").absolute()) / "objective_soups.yaml"
    scale = [*TINY, "data_dir=data", "decode.methods=[ctc-prefix-beam]", "decode.beam=2"]
    path.write_text(f"{path.read_text()}scales: {{tiny: {json.dumps(scale)}}}\n")
    table = load_table(path)
    config = load_config(table.config, experiment(path, table, row, 1, "tiny")[1])
    for stage in (train, decode, score):
        stage.run(config)
    return print_table(path, "tiny", [row])


@pytest.mark.parametrize("name", ["objective_soups", "objective_soups_large"])
def test_levels_of_every_row_hold_all_objectives(name, monkeypatch):
    """In the 11th epoch, with penalties of 0.02 an epoch."""
    monkeypatch.chdir(RECIPE)
    path = RECIPE / f"tables/{name}.yaml"
    table, counts = load_table(path), {}
    for row, content in table.rows.items():
        config = load_config(content.config or table.config, experiment(path, table, row, 1, None)[1])
        heard = ["cpc"] if config.model.self_supervised.weight else []
        counts[row] = {"cpc": 0.0} | Soup(config.train.soup, ["asr/en", "asr/zh", *heard]).coefficients(epoch=10)
    assert {row: [pytest.approx(count[o]) for o in ("asr/zh", "asr/en", "cpc")] for row, count in counts.items()} == {
        "pretrain": [0, 0, 1], "two_stage": [0.5, 0.5, 0], "joint": [0.5, 0.5, 0.2], "vs": [1 / 3, 1 / 3, 1 / 3],
        "vc": [0.5, 0.5, 0.2], "uec": [1, 0.3, 0.06], "uce": [0.3, 1, 0.06],
    }  # fmt: skip


def test_lhotse_reads_the_same_from_the_miniatures(tmp_path):
    """So they are the published layouts: lhotse's readers are used with the corpora themselves."""
    miniatures.librispeech(tmp_path)
    miniatures.aishell(tmp_path)
    ours = librispeech.read(tmp_path) | aishell.read(tmp_path)
    theirs = prepare_librispeech(tmp_path / "LibriSpeech") | prepare_aishell(tmp_path)
    assert len(theirs) == 9
    for split, manifests in theirs.items():
        code = (
            "zh" if split in ("train", "dev", "test") else "en"
        )  # lhotse changes full-width letters of AISHELL itself
        segments = {s.id: (normalize(s.text, code), s.speaker, s.duration) for s in manifests["supervisions"]}
        supervisions = {cut.id: (cut.supervisions[0], cut.duration) for cut in ours[split]}
        assert segments == {
            name: (normalize(s.text, code), s.speaker, duration) for name, (s, duration) in supervisions.items()
        }
