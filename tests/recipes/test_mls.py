"""egs/mls from the corpus to the report, by its own run.sh and a config of it, on a miniature of the corpus."""

import json

import miniatures
import pytest
from lhotse.recipes.mls import prepare_mls

import masr
from masr.corpora import mls
from masr.models.export import export_model

TINY = [
    "corpus.languages=[es,fr,nl]", "vocab.size=60", "features.jobs=1", "data.batch_seconds=12", "data.buckets=2",
    "data.workers=0", "data.language_temperature=2", "model.encoder.layers=1", "model.encoder.width=16",
    "model.encoder.heads=2", "model.encoder.feedforward=16", "model.encoder.kernel=3",
    "model.encoder.subsampling_channels=4", "train.updates=3", "train.validate_every=3", "train.log_every=1",
    "train.threads=1", "decode.methods=[ctc-greedy]",
]  # fmt: skip


def test_from_the_corpus_to_the_report(copy_recipe, tmp_path):
    """Languages in FLAC and in Opus, features computed while training and decoding."""
    rows = miniatures.mls(tmp_path / "corpus", {"es": True, "fr": False, "nl": True})
    recipe = copy_recipe("mls")
    result = recipe.run("--conf", "conf/mamba_32m.yaml", f"corpus.path={tmp_path}/corpus", *TINY)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "skipped" not in result.stdout, "every recording is used"
    assert {path.name for path in (recipe.folder / "data").iterdir()} == {"manifests", "statistics", "vocab"}

    experiment = recipe.folder / "exp/mamba_32m"
    log = [json.loads(line) for line in (experiment / "log.jsonl").read_text().splitlines()]
    assert [line["update"] for line in log if "loss" in line] == [1, 2, 3]
    metrics = json.loads((experiment / "score/ctc-greedy/test/metrics.json").read_text(encoding="utf-8"))
    decoded = [json.loads(line) for line in (experiment / "decode/ctc-greedy/test.jsonl").read_text().splitlines()]
    test = {row["id"]: row["text"] for row in rows if row["split"] == "test"}
    assert {line["id"]: line["reference"] for line in decoded} == test
    assert metrics["languages"].keys() == {"es", "fr", "nl"}


def test_adapters_and_prompts(copy_recipe, tmp_path):
    """conf/csvmasr.yaml: every prompt is decoded and scored, and a model of one language can be exported."""
    miniatures.mls(tmp_path / "corpus", {"es": True, "fr": True, "nl": True})
    recipe = copy_recipe("mls")
    small = [
        "model.encoder.layers=2", "model.encoder.language_adapters.layers=[1,2]", "model.attention_decoder.layers=1",
        "model.encoder.language_adapters.bottleneck=4", "model.attention_decoder.width=16",
        "model.attention_decoder.heads=2", "model.attention_decoder.feedforward=16", "decode.methods=[joint-beam]",
    ]  # fmt: skip
    result = recipe.run("--conf", "conf/csvmasr.yaml", f"corpus.path={tmp_path}/corpus", *TINY, *small)
    assert result.returncode == 0, result.stdout + result.stderr
    experiment = recipe.folder / "exp/csvmasr"
    expected = {"all": 3, "oracle": 1, "oracle+2": 3, "wrong": 1}
    for prompt, allowed in expected.items():
        name = "joint-beam" if prompt == "all" else f"joint-beam@{prompt}"
        lines = [json.loads(line) for line in (experiment / f"decode/{name}/test.jsonl").read_text().splitlines()]
        for line in lines:
            weights = line["language_weights"]
            assert sum(weights.values()) == pytest.approx(1, abs=1e-3) and sum(map(bool, weights.values())) == allowed
            assert (line["language"] == line["predicted_language"]) == (prompt == "oracle") or allowed > 1
        assert (experiment / f"score/{name}/test/language_weights.svg").exists()
    exported = export_model(experiment, tmp_path / "model", languages=["fr"])
    assert masr.load(exported).model.languages == ["fr"]


def test_lhotse_reads_the_same_from_the_miniature(tmp_path):
    """So it is the published layout: lhotse's reader is used with the corpus itself."""
    miniatures.mls(tmp_path, {"es": False, "fr": False})
    ours = mls.read(tmp_path)
    theirs = prepare_mls(tmp_path, opus=False)
    assert theirs.keys() == {"spanish", "french"}
    for split in ("train", "dev", "test"):
        cuts = {cut.id: (cut.supervisions[0].text, cut.supervisions[0].speaker, cut.duration) for cut in ours[split]}
        segments = [s for language in theirs.values() for s in language[split]["supervisions"]]
        assert cuts == {segment.id: (segment.text, segment.speaker, segment.duration) for segment in segments}
