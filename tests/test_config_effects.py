"""Options that do nothing beside the others are refused where someone wrote them, and only there."""

from pathlib import Path

import pytest

from masr.config import Config
from masr.config_effects import RULES, options_without_effect
from masr.config_files import ConfigError, load_config, save_config

ROOT = Path(__file__).parents[1]
SAVED = sorted([*ROOT.glob("egs/*/results/**/config.yaml"), *ROOT.glob("egs/*/model/config.yaml")])
WHISPER = """\
features: {kind: whisper}
vocab: {kind: whisper}
model: {pretrained: openai/whisper-small, ctc: {weight: 0.0}, attention_decoder: {weight: 1.0}}
"""


@pytest.fixture
def error_of(tmp_path):
    """``error_of(text, overrides)``: what is wrong with a config file; None if nothing is."""

    def load(text: str, *overrides: str) -> str | None:
        (tmp_path / "x.yaml").write_text(text)
        try:
            load_config(tmp_path / "x.yaml", overrides)
        except ConfigError as error:
            return str(error)
        return None

    return load


@pytest.mark.parametrize(
    "option",
    [
        "model.encoder.type=mamba",
        "model.encoder.layers=4",
        "model.encoder.language_adapters.layers=[1]",
        "model.normalization=corpus",
        "model.ctc.intermediate_layers=[3]",
        "model.ctc.upsampling=2",
        "model.attention_decoder.layers=2",
        "model.attention_decoder.smoothed=decisions",
        "model.attention_decoder.bias=false",
        "vocab.size=700",
        "vocab.per_language=true",
        "vocab.tree.linkage=average",
        "model.adapt.lora.alpha=8",
        "model.adapt.prompts.deep=false",
        "train.distill.temperature=2.0",
    ],
)
def test_what_a_whisper_does_not_use_is_refused(error_of, option):
    message = error_of(WHISPER, option)
    assert message is not None and message.startswith(f"command line: {option.replace('true', 'True')[:20]}")
    assert " has no effect " in message and message.endswith(": leave it out")


@pytest.mark.parametrize(
    "option",
    [
        "features.mel_bins=128",
        "model.attention_decoder.label_smoothing=0.0",
        "model.spec_augment.time_masks=2",
        "model.language_classifier.weight=0.1",
        "model.whisper.context=full",
        "model.adapt.lora.rank=8",
        "train.encoder_factor=0.1",
        "decode.bias_boost=2.0",
        "model.encoder.layers=12",
    ],
)
def test_what_it_uses_is_not_and_neither_is_a_default(error_of, option):
    assert error_of(WHISPER, option) is None


@pytest.mark.parametrize(
    ("option", "switch"),
    [
        ("model.whisper.margin=1.0", "model.pretrained"),
        ("model.encoder.state_size=8", "model.encoder.type=mamba"),
        ("model.encoder.language_adapters.gate=sigmoid", "model.encoder.language_adapters.layers=[1]"),
        ("model.ctc.intermediate_weight=0.5", "model.ctc.intermediate_layers=[3]"),
        ("model.attention_decoder.layers=2", "model.attention_decoder.weight=0.3"),
        ("model.translation.per_language=true", "model.translation.weight=0.3"),
        ("model.spec_augment.time_fraction=0.1", "model.spec_augment.time_masks"),
        ("vocab.size=700", "vocab.kind=bpe"),
        ("vocab.tree.dimensions=8", "vocab.output=clustered"),
        ("vocab.translation.size=8", "vocab.translation.into=en"),
        ("train.soup.step=0.1", "train.soup.levels=[{objectives: ['*']}]"),
        ("train.distill.weight=0.3", "train.distill.teacher=exp/x"),
        ("data.prompts.wrong=0.1", "data.prompts.all=0.3"),
    ],
)
def test_options_of_what_is_switched_off_are_refused(error_of, option, switch):
    off = {"model.spec_augment.time_masks": "model: {spec_augment: {time_masks: 0}}"}.get(switch, "")
    message = error_of(off, option)
    assert message is not None and f"{option.partition('=')[0]}=" in message and "no effect" in message
    if "=" in switch:
        assert error_of(off, option, switch) is None


def test_every_option_without_effect_is_listed_with_its_file(error_of):
    text = WHISPER.replace("model: {", "model: {encoder: {layers: 4}, ")
    message = error_of(text, "vocab.size=700")
    assert message is not None
    first, second = message.splitlines()
    assert first.partition("x.yaml: ")[2] == (
        "model.encoder.layers=4 has no effect beside model.pretrained, which brings its own: leave it out"
    )
    assert second.startswith("command line: vocab.size=700 has no effect beside model.pretrained")


def test_what_a_later_file_switches_off_is_no_mistake(tmp_path):
    """A config may start from one with an encoder and put a Whisper in its place."""
    (tmp_path / "base.yaml").write_text("model: {encoder: {layers: 4}}\nvocab: {kind: bpe, size: 700}\n")
    (tmp_path / "x.yaml").write_text(f"extends: base.yaml\n{WHISPER}")
    assert load_config(tmp_path / "x.yaml").model.encoder.layers == 4
    with pytest.raises(ConfigError, match="command line: model.encoder.width=64 has no effect"):
        load_config(tmp_path / "x.yaml", ["model.encoder.width=64"])


def test_an_override_may_undo_those_before_it(error_of):
    part = ["model.translation={weight: 0.3, layers: 2}", "vocab.translation={into: en, size: 50}"]
    assert error_of("", *part) is None
    assert error_of("", *part, "model.translation.weight=0.0", "vocab.translation.into=null") is None
    late = error_of("", *part, "model.translation.weight=0.0", "model.translation.width=9")
    assert late is not None and late.startswith("command line: model.translation.width=9 has no effect without ")


def test_saved_models_load_whatever_they_hold(tmp_path):
    model = {"translation": {"layers": 7}, "encoder": {"expansion": 3}}
    config = Config.model_validate({"name": "old", "model": model})
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    with pytest.raises(ConfigError, match="model.translation.width=64 has no effect"):
        load_config(tmp_path / "config.yaml", ["model.translation.width=64"])


@pytest.mark.parametrize("path", SAVED, ids=lambda path: "/".join(path.parts[-4:-1]))
def test_published_experiments_load(path):
    load_config(path)


def test_rules_are_about_options_that_there_are():
    schema = Config(name="x").model_dump()
    for rule in RULES:
        for name in [*rule.switches, *rule.options]:
            node = schema
            for part in name.split("."):
                node = node[part]
    assert options_without_effect(Config(name="x"), []) == []


ALSO = "corpus: {also: [{name: phoneprompts, path: p, splits: {strangers: test, more: dev}}]}"


def test_splits_of_other_corpora_that_nothing_names_are_refused(error_of):
    for named in ("test: [test, strangers]", "dev: more", ""):
        message = error_of(ALSO.replace("{also", f"{{{named}, also" if named else "{also"))
        assert message is not None and "corpus.also=" in message
        assert "has no effect where corpus.test (or dev, or train) does not name each of its splits" in message
    assert error_of(ALSO.replace("{also", "{test: [test, strangers, more], also")) is None
    assert error_of(ALSO.replace("{also", "{test: [strangers], dev: more, also")) is None


def test_what_an_override_switches_off_brings_nothing_and_is_not_refused(error_of):
    text = ALSO.replace("corpus: {", "corpus: {test: [test, strangers, more], ")
    assert error_of(text) is None
    assert error_of(text, "corpus.test=[test]") is None


def test_two_splits_of_other_corpora_have_two_names(error_of):
    text = (
        "corpus: {test: [a], also: [{name: mls, path: p, splits: {a: dev}}, {name: fleurs, path: q, splits: {a: dev}}]}"
    )
    message = error_of(text)
    assert message is not None and "corpus.also: two splits are called a; choose another name" in message
    message = error_of("corpus: {also: [{name: mls, path: p}]}")
    assert message is not None and "corpus.also.0.splits" in message
