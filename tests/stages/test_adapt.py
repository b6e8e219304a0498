"""Languages added to an adapted Whisper, experts made one, and the list of what there is."""

import json

import pytest
import torch
from tiny_whisper import CONF, write_tiny_whisper

from masr.config_files import ConfigError, load_config
from masr.models.recognizer import load_model
from masr.stages import adapt, features, prepare, train, vocab

PROMPTS = "model.adapt.prompts={length: 2, languages: add}"
EXPERTS = "model.adapt.lora={rank: 2, alpha: 4, per_language: true}"


@pytest.fixture
def trained(workdir, tiny_corpus):
    """exp/tiny: Greek and Spanish learnt by the option given."""

    def run(option: str):
        write_tiny_whisper(workdir / "whisper", positions=64)
        (workdir / "tiny.yaml").write_text(CONF.format(corpus=tiny_corpus, on_the_fly="true"))
        config = load_config(workdir / "tiny.yaml", [option, "corpus.languages=[el,es]"])
        for stage in (prepare, features, vocab, train):
            stage.run(config)
        return workdir / "exp/tiny"

    return run


def test_a_language_is_added_and_the_others_stay(trained, workdir):
    old = load_model(trained(PROMPTS))
    folder = adapt.expand(workdir / "exp/tiny", "ro", near="es", overrides=["train.updates=2"])
    new = load_model(workdir / folder)
    assert new.languages == ["el", "es", "ro"]
    theirs, ours = old.state_dict(), new.state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    fresh = [name for name in ours if name not in theirs]
    assert fresh and all(name.endswith(".ro") for name in fresh)
    assert any(not torch.equal(ours[name], ours[name.replace(".ro", ".es")]) for name in fresh), "it has learnt"
    log = [json.loads(line) for line in (workdir / folder / "log.jsonl").read_text().splitlines()]
    assert any("attention/ro" in row for row in log) and not any("attention/es" in row for row in log)
    table = adapt.describe_all(workdir / "exp")
    assert "| tiny-ro | whisper | el, es, ro | add prompts of 2 |" in table
    with pytest.raises(ConfigError, match="knows es already"):
        adapt.expand(workdir / "exp/tiny", "es")


def test_experts_become_one(trained, workdir):
    folder = trained(EXPERTS)
    adapt.merge(folder, workdir / "exp/merged", "cat")
    one, many = load_model(workdir / "exp/merged"), load_model(folder)
    assert one.encoder.experts.names == ["all"]
    features_, lengths = torch.randn(2, 60, 80), torch.tensor([60, 60])
    mean = torch.full((2, 2), 0.5)
    assert torch.allclose(
        one.encoder(features_, lengths, mean).frames, many.encoder(features_, lengths, mean).frames, atol=1e-4
    )
    with pytest.raises(ConfigError, match="has no experts of several languages"):
        adapt.merge(workdir / "exp/merged", workdir / "exp/again")
