"""Speech translation through all stages, on the miniature corpus: Greek, Spanish and Romanian into English."""

import json
import shutil

import numpy as np
import pytest

import masr
from masr.config_files import ConfigError, load_config
from masr.models.folder import load_model
from masr.stages import decode, score, train, vocab
from masr.train.evaluate import evaluate

OPTIONS = [
    "vocab.translation={into: en, kind: char}", "decode.beam=2", "decode.methods=[ctc-greedy,translation-beam]",
    "model.translation={weight: 0.5, layers: 1, width: 16, heads: 2, feedforward: 16, encoder_layers: 1}",
]  # fmt: skip


@pytest.fixture
def config(prepared, workdir):
    shutil.copytree(prepared.folder / "data", workdir / "data")
    return lambda *more: load_config(prepared.conf, [f"data_dir={workdir}/data", *OPTIONS, *more])


def test_from_the_vocabulary_to_the_scores(config, workdir, capsys):
    vocab.run(config())
    assert "tokens for translations into en" in capsys.readouterr().out
    train.run(config())
    model = load_model(workdir / "exp/tiny")
    assert model.tokenizer.translation.languages == ["en"]
    assert list(model.tokenizer.translation.used) == model.translator.languages == ["el", "es", "ro"]
    log = [json.loads(line) for line in (workdir / "exp/tiny/log.jsonl").read_text().splitlines()]
    assert {"st", "st/es", "ctc", "ctc/el"} <= set().union(*log) and log[0]["st"] > 2
    decode.run(config())
    score.run(config())
    printed = capsys.readouterr().out
    assert "score: test: translation-beam: mean BLEU " in printed and "macro CER" in printed
    decoded = (workdir / "exp/tiny/decode/translation-beam/test.jsonl").read_text()
    lines = [json.loads(line) for line in decoded.splitlines()]
    assert {line["into"] for line in lines} == {"en"} and len(lines) == 12
    assert any(c.isupper() for line in lines for c in line["reference"]), "case and punctuation stay"
    metrics = json.loads((workdir / "exp/tiny/score/translation-beam/test/metrics.json").read_text())
    assert metrics["languages"].keys() == {"el", "es", "ro"} and metrics["signatures"]["bleu"].startswith("nrefs:1")
    report = (workdir / "exp/tiny/score/translation-beam/test/report.md").read_text()
    assert "| Spanish (es) | 4 | " in report and "tok:13a" in report


@pytest.mark.parametrize(("by", "best"), [("cer", 4), ("bleu", 6), ("sum", 8)])
def test_what_is_kept_may_be_what_translates_best(config, workdir, monkeypatch, by, best):
    scores = iter([(0.9, 10.0), (0.3, 15.0), (0.5, 30.0), (0.31, 29.0)])

    def scripted(*arguments):
        result = evaluate(*arguments)
        assert result.bleu.keys() == (set() if by == "cer" else {"el", "es", "ro"})
        cer, bleu = next(scores)
        result.cer, result.bleu = {"es": cer}, {code: bleu for code in result.bleu}
        return result

    monkeypatch.setattr("masr.train.trainer.evaluate", scripted)
    vocab.run(config())
    more = ["train.validate_every=2", f"train.keep_by={by}", "model.translation.per_language=true"]
    train.run(config(*more))
    record = json.loads((workdir / "exp/tiny/training.json").read_text())
    assert record["best_update"] == best and record["best_cer"] == {4: 0.3, 6: 0.5, 8: 0.31}[best]


def test_only_what_translates_is_kept_by_its_translations(config):
    with pytest.raises(ConfigError, match=r"train.keep_by=bleu: nothing is translated; set model.translation.weight"):
        config("model.translation.weight=0", "train.keep_by=bleu")


def test_a_decoder_for_each_language_must_know_what_is_spoken(config):
    vocab.run(config())
    train.run(config("model.translation.per_language=true"))
    with pytest.raises(ValueError, match="must be told which one is spoken"):
        decode.run(config("model.translation.per_language=true"))
    decode.run(config("model.translation.per_language=true", "decode.prompts=[oracle]"))
    score.run(config("model.translation.per_language=true", "decode.prompts=[oracle]"))


@pytest.mark.parametrize("per_language", ["true", "false"])
def test_a_recording_is_translated(config, workdir, prepared, per_language):
    chosen = [f"model.translation.per_language={per_language}", "model.language_classifier.weight=0.1"]
    vocab.run(config(*chosen))
    train.run(config(*chosen))
    audio = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    recognizer = masr.load(workdir / "exp/tiny", segments={"voice_activity": False})
    assert recognizer.transcribe(audio).translation is None
    assert isinstance(recognizer.transcribe(audio, translate=True).translation, str)
    one, two = recognizer.transcribe([audio, audio[:9000]], translate=True, languages=["es"])
    assert isinstance(one.translation, str) and one.language == two.language == "es"


def test_what_cannot_translate_is_refused(config, workdir):
    with pytest.raises(ValueError, match="set vocab.translation.into"):
        train.run(config("vocab.translation.into=null"))
    with pytest.raises(ValueError, match="no recording of train is translated"):
        vocab.run(config("vocab.translation.into=is"))
    plain = ["model.translation.weight=0.0", "vocab.translation.into=null"]
    train.run(config(*plain, "train.updates=2", "train.validate_every=2"))
    with pytest.raises(ValueError, match="translation-beam needs a model that translates"):
        decode.run(config(*plain))
    with pytest.raises(ValueError, match="this model does not translate"):
        masr.load(workdir / "exp/tiny").transcribe(np.zeros(16000, dtype=np.float32), translate=True)
