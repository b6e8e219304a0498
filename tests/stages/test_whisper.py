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
