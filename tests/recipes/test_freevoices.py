"""egs/freevoices from the corpus to the report, by its own run.sh, on a miniature of the corpus."""

import json
from pathlib import Path

import miniatures

CONF = """\
vocab: {language_token: true}
features: {speed_perturbation: [0.9, 1.0], jobs: 2}
data: {batch_seconds: 8, buckets: 2, workers: 1}
model:
  encoder: {layers: 1, width: 16, heads: 2, feedforward: 16, kernel: 3, subsampling_channels: 4}
  attention_decoder: {weight: 0.3, layers: 1, width: 16, heads: 2, feedforward: 16}
train: {updates: 4, warmup: 1, validate_every: 2, log_every: 1, threads: 1}
decode: {methods: [joint-beam, ctc-greedy], beam: 2}
"""
STAGES = ("prepare", "features", "vocab", "train", "decode", "score")


def files_under(folder: Path) -> dict[str, int]:
    """Time of change of every file."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_from_the_corpus_to_the_report(copy_recipe, tmp_path):
    """One test, because every step needs the one before it: stages 0-2, 3 alone, 4-5, and all of them again."""
    rows = miniatures.freevoices(tmp_path / "corpus")
    recipe = copy_recipe("freevoices")
    (recipe.folder / "conf/tiny.yaml").write_text(CONF)
    options = ["--conf", "conf/tiny.yaml", f"corpus.path={tmp_path}/corpus", f"data_dir={tmp_path}/data"]

    def run(*arguments: str) -> str:
        result = recipe.run(*arguments, *options)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    printed = run("--stop-stage", "2")
    assert "--- stage 2: vocab" in printed and "stage 3" not in printed
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"manifests", "fbank", "vocab"}
    assert not (recipe.folder / "exp").exists()

    printed = run("--stage", "3", "--stop-stage", "3")
    assert [line for line in printed.splitlines() if line.startswith("---")] == ["--- stage 3: train"]
    experiment = recipe.folder / "exp/tiny"
    written = {path.name for path in experiment.iterdir()}
    assert {"config.yaml", "averaged.safetensors", "log.jsonl", "environment.json", "checkpoints"} <= written

    printed = run("--stage", "4")
    assert "--- stage 4: decode" in printed and "--- stage 5: score" in printed
    for method in ("joint-beam", "ctc-greedy"):
        check_report(experiment / "score" / method / "test", rows)

    before = files_under(tmp_path)
    printed = run("--stage", "0", "--stop-stage", "5")
    assert [stage for stage in STAGES if f"{stage}: complete in " in printed] == list(STAGES)
    assert files_under(tmp_path) == before


def check_report(folder: Path, rows: list[dict]) -> None:
    """The files of a report are there, and its numbers are possible ones."""
    files = {path.name for path in folder.iterdir()}
    assert files - {"language_confusion.svg"} == {"report.md", "report.html", "metrics.json", "alignments.txt"}
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    test = [row for row in rows if row["split"] == "test"]
    assert metrics["utterances"] == len(test)
    assert metrics["languages"].keys() == {"ro", "es", "fr"}
    assert abs(metrics["audio_seconds"] - sum(row["duration"] for row in test)) < 0.01
    assert 0 < metrics["real_time_factor"] < 10
    for code, scores in metrics["languages"].items():
        assert scores["utterances"] == sum(row["language"] == code for row in test)
        for measure in ("wer", "cer"):
            low, high = scores[measure]["interval"]
            assert 0 <= low <= scores[measure]["rate"] <= high
            assert scores[measure]["reference_length"] > 0
    assert "masr train conf/tiny.yaml" in metrics["details"]["trained by"]
    for code in ("Romanian (ro)", "Spanish (es)", "French (fr)"):
        assert code in (folder / "report.md").read_text(encoding="utf-8")
