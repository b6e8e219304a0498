"""egs/fleurs from the corpus to the report, by its own run.sh and its configs, on a miniature of the corpus."""

import json
from pathlib import Path

import miniatures
import pytest
import torch
from lhotse.recipes.fleurs import prepare_fleurs
from tiny_whisper import write_tiny_whisper

from masr.config import Config
from masr.config_files import load_config
from masr.corpora import fleurs
from masr.models.folder import load_model
from masr.models.whisper import WhisperRecognizer, pretrained_whisper
from masr.stages import decode, features, prepare, score, train, vocab
from masr.tables import experiment, load_table
from masr.text.normalize import normalize
from masr.text.whisper_tokenizer import WhisperTokenizer

RECIPE = Path(__file__).parents[2] / "egs/fleurs"
KNOWN = {"ar": "ru", "cy": "da", "en": "nl", "es": "es", "fa": "ro", "pt": "fr"}
NEW = {"ast": "ca", "ckb": "be", "ga": "el"}
"""Languages of the configs, and those of freevoices that stand in for them."""
TOKENS = ("ar", "be", "ca", "cs", "cy", "el", "en", "es", "fa", "fr", "nl", "pt", "ro", "ru")
TINY = [
    "model.whisper.context=clip", "features.jobs=1", "data.batch_seconds=8", "data.buckets=2", "data.workers=0",
    "train.updates=2", "train.warmup=1", "train.validate_every=2", "train.log_every=1", "train.threads=1",
    "train.precision=fp32", "decode.beam=2",
]  # fmt: skip
PROMPTS = ["model.adapt.prompts.length=3", "model.adapt.prompts.bottleneck=8"]


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_whisper(tmp_path_factory.mktemp("whisper"), positions=80, known=TOKENS)


def lines_of(experiment: Path, method: str = "attention-beam@oracle") -> list[dict]:
    text = (experiment / f"decode/{method}/test.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_from_the_corpus_to_the_report_and_three_more_languages(copy_recipe, whisper, tmp_path, monkeypatch):
    """Both stages of LAPT: what six languages had is not changed by the three that come."""
    rows = miniatures.fleurs(tmp_path / "corpus", KNOWN | NEW)
    recipe = copy_recipe("fleurs")
    options = [f"corpus.path={tmp_path}/corpus", f"model.pretrained={whisper}", *TINY]
    result = recipe.run("--conf", "conf/soft_prompts_known.yaml", *options, *PROMPTS)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "skipped" not in result.stdout, "every recording is used"
    before = recipe.folder / "exp/soft_prompts_known"
    log = [json.loads(line) for line in (before / "log.jsonl").read_text().splitlines()]
    assert [line["update"] for line in log if "loss" in line] == [1, 2]
    test = {row["id"]: normalize(row["text"], row["language"]) for row in rows if row["split"] == "test"}
    known = {line["id"]: line["reference"] for line in lines_of(before)}
    assert known == {name: text for name, text in test.items() if name.split("-")[0] in KNOWN}

    monkeypatch.chdir(recipe.folder)
    for name, more in {"soft_prompts_lapt": PROMPTS, "whisper_nine": []}.items():
        config = load_config(f"conf/{name}.yaml", [*options, *more])
        for stage in (prepare, features, vocab, train, decode, score):
            stage.run(config)
        after = recipe.folder / "exp" / name
        assert {line["id"]: line["reference"] for line in lines_of(after)} == test
        lines = [json.loads(line) for line in (after / "log.jsonl").read_text().splitlines()]
        assert {key for line in lines for key in line if key.startswith("cer/")} == {f"cer/{code}" for code in NEW}
    after = recipe.folder / "exp/soft_prompts_lapt"
    said = {line["id"]: line["hypothesis"] for line in lines_of(after)}
    assert {line["id"]: line["hypothesis"] for line in lines_of(before)}.items() <= said.items()
    metrics = json.loads((after / "score/attention-beam@oracle/test/metrics.json").read_text(encoding="utf-8"))
    assert metrics["languages"].keys() == KNOWN.keys() | NEW.keys()
    weights, old = load_model(after).state_dict(), load_model(before).state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in old.items())
    near = weights["encoder.prompts.left.ga"], old["encoder.prompts.left.cy"]
    assert not torch.equal(*near) and torch.allclose(*near, atol=0.05), "it began there"


def test_experts_and_what_is_made_of_them(copy_recipe, whisper, tmp_path, monkeypatch):
    """Hard and soft routing, fusion and a student, whose teacher and beginning the configs name themselves."""
    codes = ["ca", "el", "es"]
    miniatures.fleurs(tmp_path / "corpus", dict(zip(codes, codes, strict=True)))
    recipe = copy_recipe("fleurs")
    monkeypatch.chdir(recipe.folder)
    options = [f"corpus.path={tmp_path}/corpus", f"corpus.languages=[{','.join(codes)}]", *TINY,
               f"model.pretrained={whisper}", "model.adapt.lora.rank=2", "model.adapt.lora.alpha=4"]  # fmt: skip
    for name in ("experts", "experts_fused", "experts_soft", "experts_student"):
        config = load_config(f"conf/{name}.yaml", options + ["train.updates=0"] * (name == "experts_soft"))
        for stage in (prepare, features, vocab, train, decode, score):
            stage.run(config)
        for method in ("attention-beam@oracle", "attention-beam"):
            assert {line["language"] for line in lines_of(recipe.folder / "exp" / name, method)} == set(codes)
            assert (recipe.folder / f"exp/{name}/score/{method}/test/report.md").is_file()
    heard, soft = (lines_of(recipe.folder / "exp" / name) for name in ("experts", "experts_soft"))
    assert [line["hypothesis"] for line in heard] == [line["hypothesis"] for line in soft]
    weights = [line["language_weights"] for line in lines_of(recipe.folder / "exp/experts_soft", "attention-beam")]
    assert all(0 < share < 1 for row in weights for share in row.values())


@pytest.mark.parametrize("path", sorted(RECIPE.glob("conf/*.yaml")), ids=lambda path: path.stem)
def test_every_config_is_a_model(path, whisper):
    build(load_config(path, [f"model.pretrained={whisper}"]))


@pytest.mark.parametrize("path", sorted(RECIPE.glob("tables/*.yaml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("scale", [None, "mini"])
def test_every_row_of_a_table_is_a_model_that_begins_where_another_row_ends(path, scale, whisper, monkeypatch):
    monkeypatch.chdir(RECIPE)
    table, done = load_table(path), []
    for row, content in table.rows.items():
        name, overrides = experiment(path, table, row, 1, scale)
        config = load_config(content.config or table.config, [*overrides, f"model.pretrained={whisper}"])
        build(config)
        before = config.train.init_from or config.train.distill.teacher
        assert before is None or before.removeprefix("exp/") in done
        done.append(name)


def build(config: Config) -> WhisperRecognizer:
    codes = config.model.whisper.language_codes
    name = str(config.model.pretrained)
    tokenizer = WhisperTokenizer.of_pretrained(name, sorted(config.corpus.languages), codes)
    model = WhisperRecognizer(config, tokenizer, None, pretrained_whisper(name))
    model.start_near()
    return model


def test_lhotse_reads_the_same_from_the_miniature(tmp_path):
    """So it is the published layout, but for the folders, which lhotse names otherwise."""
    rows = miniatures.fleurs(tmp_path / "data", {"ga": "el", "zh": "nl"})
    for folder in {row["folder"] for row in rows}:
        (tmp_path / "lhotse/metadata" / folder.name).mkdir(parents=True)
        (tmp_path / "lhotse" / folder.name).symlink_to(folder / "audio")
        for split in fleurs.SPLITS:
            (tmp_path / f"lhotse/metadata/{folder.name}/{split}.tsv").symlink_to(folder / f"{split}.tsv")
    ours = fleurs.read(tmp_path / "data")
    theirs = prepare_fleurs(tmp_path / "lhotse", tmp_path / "manifests", ["ga_ie", "cmn_hans_cn"])
    assert theirs.keys() == {"ga_ie", "cmn_hans_cn"}
    for split in fleurs.SPLITS:
        cuts = {cut.recording.id: (cut.supervisions[0].text, cut.duration) for cut in ours[split]}
        segments = [s for language in theirs.values() for s in language[split]["supervisions"]]
        assert cuts == {s.recording_id: (s.custom["raw_text"], pytest.approx(s.duration, abs=1e-4)) for s in segments}
