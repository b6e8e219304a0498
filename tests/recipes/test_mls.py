"""egs/mls from the corpus to the report, by its own run.sh and a config of it, on a miniature of the corpus."""

import json

import miniatures
from lhotse.recipes.mls import prepare_mls

from masr.corpora import mls

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
