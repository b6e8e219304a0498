"""A tiny Whisper through all stages, and on to a file."""

import json
import os
import subprocess
import sys

import pytest
import soundfile
import torch
from safetensors.torch import load_file
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
    both = [speech[: 35 * rate], speech[5 * rate : 7 * rate]]  # a long one is heard in windows
    together = recognizer.transcribe(both)
    assert [t.text for t in together] == [recognizer.transcribe(samples).text for samples in both]


def test_a_frozen_decoder_stays_as_it_was(workdir, tiny_corpus):
    write_tiny_whisper(workdir / "whisper", positions=64)
    (workdir / "tiny.yaml").write_text(CONF.format(corpus=tiny_corpus, on_the_fly="true"))
    config = load_config(workdir / "tiny.yaml", ["train.frozen=[attention_decoder]"])
    for stage in (prepare, features, vocab, train):
        stage.run(config)
    from masr.models.folder import load_model
    from masr.models.whisper import pretrained_whisper

    trained, base = load_model(workdir / "exp/tiny"), pretrained_whisper("whisper")
    assert torch.equal(trained.attention_decoder.embedding.weight, base.model.decoder.embed_tokens.weight)
    assert not torch.equal(trained.encoder.conv1.weight, base.model.encoder.conv1.weight)


def test_a_whisper_learns_from_augmented_audio(workdir, tiny_corpus):
    write_tiny_whisper(workdir / "whisper", positions=64)
    (workdir / "tiny.yaml").write_text(CONF.format(corpus=tiny_corpus, on_the_fly="true"))
    parts = ("concatenate", "silence", "reverberation", "noise", "gain", "clipping", "channel")
    config = load_config(workdir / "tiny.yaml", [f"data.augment.{part}.probability=0.7" for part in parts])
    for stage in (prepare, features, vocab, train):
        stage.run(config)
    rows = [json.loads(line) for line in (workdir / "exp/tiny/log.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    assert losses and all(0 < loss < 100 for loss in losses)
    assert not (workdir / "exp/tiny/unreadable.tsv").exists()


SOUP = ["data.every_language=true", "train.soup.levels=[{objectives: ['asr/*'], weights: modo}]"]


@pytest.mark.parametrize("soup", [[], SOUP], ids=["plain", "soup"])
def test_two_processes_train_experts_as_one_does(workdir, tiny_corpus, soup):
    """Each process uses the experts of the languages that it hears."""
    write_tiny_whisper(workdir / "whisper", positions=64)
    (workdir / "tiny.yaml").write_text(CONF.format(corpus=tiny_corpus, on_the_fly="true"))
    options = ["model.adapt.lora={rank: 2, alpha: 4, per_language: true}", "data.batch_seconds=3", *soup]
    config = load_config(workdir / "tiny.yaml", options)
    for stage in (prepare, features, vocab, train):
        stage.run(config)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "masr.cli"]
    done = subprocess.run(
        [*command, "train", "tiny.yaml", *options, "name=two"], cwd=workdir, env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    one, two = (load_file(workdir / f"exp/{name}/averaged.safetensors") for name in ("tiny", "two"))
    fresh = [name for name in one if "lora_B" in name]
    assert fresh and all(one[name].any() for name in fresh), "all have learnt"
    assert all(torch.allclose(two[name], tensor, atol=3e-4) for name, tensor in one.items())


@pytest.mark.parametrize(("lora", "heard"), [("0", "cpc"), ("2", "cpc"), ("2", "best-rq")])
def test_recognition_and_translation_in_a_soup(workdir, tiny_corpus, lora, heard):
    write_tiny_whisper(workdir / "whisper", positions=64)
    (workdir / "tiny.yaml").write_text(CONF.format(corpus=tiny_corpus, on_the_fly="true"))
    levels = "{objectives: ['st/*'], weights: modo}, {objectives: ['asr/*'], weights: mgda, penalty: {start: 0.5}}"
    levels += ", {objectives: ['lid/*']}, {objectives: [HEARD], penalty: {start: 0.1}}".replace("HEARD", heard)
    options = ["vocab.translation={into: en, kind: char}", "data.every_language=true", "train.soup.every=1"]
    options += ["model.translation={weight: 0.5, layers: 1, width: 16, heads: 2, feedforward: 16, encoder_layers: 1}"]
    options += [f"model.self_supervised={{kind: {heard}, weight: 1.0, batch_seconds: 5, context: 0.6, future: 0.3}}"]
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
