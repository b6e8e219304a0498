"""A tiny Whisper through all stages, and on to a file."""

import json

import pytest
import soundfile
import torch
from tiny_whisper import CONF, write_tiny_whisper

import masr
from masr.config_files import load_config
from masr.stages import decode, features, prepare, score, train, vocab


@pytest.mark.parametrize("on_the_fly", ["true", "false"])
def test_from_data_to_a_transcript(workdir, tiny_corpus, on_the_fly):
    write_tiny_whisper(workdir / "whisper", positions=64)
    (workdir / "tiny.yaml").write_text(CONF.format(corpus=tiny_corpus, on_the_fly=on_the_fly))
    config = load_config(workdir / "tiny.yaml")
    for stage in (prepare, features, vocab, train, decode, score):
        stage.run(config)
    for method in ("attention-beam", "attention-beam@oracle"):
        metrics = json.loads((workdir / f"exp/tiny/score/{method}/test/metrics.json").read_text())
        assert set(metrics["languages"]) == {"el", "es", "ro"}
    lines = (workdir / "exp/tiny/decode/attention-beam@oracle/test.jsonl").read_text().splitlines()
    assert all(row["predicted_language"] == row["language"] for row in map(json.loads, lines))
    recognizer = masr.load(workdir / "exp/tiny")
    speech, rate = soundfile.read(next(tiny_corpus.glob("*_es.opus")), dtype="float32")
    transcripts = recognizer.transcribe([speech[: 35 * rate], speech[:rate]], languages=["es"])
    assert [t.language for t in transcripts] == ["es", "es"]
    assert all(0 <= word.start < word.end <= t.end for t in transcripts for word in t.words) and transcripts[0].words
    assert recognizer.transcribe(torch.from_numpy(speech[:rate]), languages=["es"]).text == transcripts[1].text


def test_a_frozen_decoder_stays_as_it_was(workdir, tiny_corpus):
    write_tiny_whisper(workdir / "whisper", positions=64)
    (workdir / "tiny.yaml").write_text(CONF.format(corpus=tiny_corpus, on_the_fly="true"))
    config = load_config(workdir / "tiny.yaml", ["train.frozen=[attention_decoder]"])
    for stage in (prepare, features, vocab, train):
        stage.run(config)
    from masr.models.recognizer import load_model
    from masr.models.whisper import pretrained_whisper

    trained, base = load_model(workdir / "exp/tiny"), pretrained_whisper("whisper")
    assert torch.equal(trained.attention_decoder.embedding.weight, base.model.decoder.embed_tokens.weight)
    assert not torch.equal(trained.encoder.conv1.weight, base.model.encoder.conv1.weight)


@pytest.mark.parametrize("lora", ["0", "2"])
def test_recognition_and_translation_in_a_soup(workdir, tiny_corpus, lora):
    write_tiny_whisper(workdir / "whisper", positions=64)
    (workdir / "tiny.yaml").write_text(CONF.format(corpus=tiny_corpus, on_the_fly="true"))
    levels = "{objectives: ['st/*'], weights: modo}, {objectives: ['asr/*'], weights: mgda, penalty: {start: 0.5}}"
    levels += ", {objectives: ['lid/*']}, {objectives: [cpc], penalty: {start: 0.1}}"
    options = ["vocab.translation={into: en, kind: char}", "data.every_language=true", "train.soup.every=1"]
    options += ["model.translation={weight: 0.5, layers: 1, width: 16, heads: 2, feedforward: 16, encoder_layers: 1}"]
    options += ["model.self_supervised={kind: cpc, weight: 1.0, batch_seconds: 5}"]
    options += [f"model.adapt.lora.rank={lora}", "decode.methods=[attention-beam,translation-beam]"]
    config = load_config(workdir / "tiny.yaml", [f"train.soup.levels=[{levels}]", *options])
    for stage in (prepare, features, vocab, train, decode, score):
        stage.run(config)
    log = [json.loads(line) for line in (workdir / "exp/tiny/log.jsonl").read_text().splitlines()]
    weights = [{name: row[name] for name in row if name.startswith("weight/")} for row in log if "loss" in row]
    for task in ("st", "asr"):
        each = [[row[f"weight/{task}/{code}"] for code in ("el", "es", "ro")] for row in weights]
        assert all(sum(row) == pytest.approx(1) for row in each) and each[0] != each[-1]
    metrics = json.loads((workdir / "exp/tiny/score/translation-beam/test/metrics.json").read_text())
    assert set(metrics["languages"]) == {"el", "es", "ro"}
