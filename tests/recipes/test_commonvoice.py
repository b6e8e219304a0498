"""egs/commonvoice from the corpus to the report, by its own run.sh and a config of it, on a miniature of the corpus."""

import json

import miniatures
from lhotse.recipes.commonvoice import prepare_commonvoice

from masr.corpora import commonvoice
from masr.text.normalize import normalize

RELEASE = "cv-corpus-17.0-2024-03-15"
TINY = [
    "corpus.languages=[es,ru]", "features.jobs=1", "data.batch_seconds=12", "data.buckets=2", "data.workers=0",
    "model.encoder.layers=1", "model.encoder.width=16", "model.encoder.heads=2", "model.encoder.feedforward=16",
    "model.encoder.kernel=3", "model.encoder.subsampling_channels=4", "model.attention_decoder.layers=1",
    "model.attention_decoder.width=16", "model.attention_decoder.heads=2", "model.attention_decoder.feedforward=16",
    "train.updates=3", "train.validate_every=3", "train.log_every=1", "train.threads=1", "train.precision=fp32",
    "decode.beam=2",
]  # fmt: skip


def test_from_the_corpus_to_the_report(copy_recipe, tmp_path):
    """CTC, an attention decoder with a clustered tree, and all three searches of the config."""
    rows = miniatures.commonvoice(tmp_path / RELEASE, ["es", "ru", "ro"])
    recipe = copy_recipe("commonvoice")
    result = recipe.run("--conf", "conf/clustered.yaml", f"corpus.path={tmp_path}/{RELEASE}", *TINY)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "skipped" not in result.stdout, "every clip is used"
    assert {path.name for path in (recipe.folder / "data").iterdir()} == {"manifests", "statistics", "vocab"}

    experiment = recipe.folder / "exp/clustered"
    log = [json.loads(line) for line in (experiment / "log.jsonl").read_text().splitlines()]
    assert [line["update"] for line in log if "loss" in line] == [1, 2, 3]
    test = {row["id"]: normalize(row["text"], row["language"]) for row in rows if row["split"] == "test"}
    for method in ("joint-beam", "attention-beam", "ctc-greedy"):
        decoded = [json.loads(line) for line in (experiment / f"decode/{method}/test.jsonl").read_text().splitlines()]
        assert {line["id"]: line["reference"] for line in decoded} == {
            name: text for name, text in test.items() if "_ro_" not in name
        }
    metrics = json.loads((experiment / "score/joint-beam/test/metrics.json").read_text(encoding="utf-8"))
    assert metrics["languages"].keys() == {"es", "ru"}


def test_lhotse_reads_the_same_from_the_miniature(tmp_path):
    """So it is the published layout: lhotse's reader is used with the corpus itself."""
    miniatures.commonvoice(tmp_path / "corpus", ["ru"])
    ours = commonvoice.read(tmp_path / "corpus")
    theirs = prepare_commonvoice(tmp_path / "corpus", tmp_path / "lhotse", splits=["train", "test"])
    for split in ("train", "test"):
        cuts = {cut.id: (cut.supervisions[0].text, cut.supervisions[0].speaker, cut.duration) for cut in ours[split]}
        segments = theirs["ru"][split]["supervisions"]
        assert cuts == {segment.id: (segment.text, segment.speaker, segment.duration) for segment in segments}
