"""Languages added to an adapted Whisper, experts made one, and the list of what there is."""

import json

import pytest
import torch
from tiny_whisper import CONF, write_tiny_whisper

from masr.config_files import ConfigError, load_config
from masr.models.folder import load_model
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


def test_a_language_is_added_and_the_others_stay(trained, workdir, capsys):
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
    (workdir / "exp/spoilt").mkdir()
    for file, text in (("config.yaml", "no_such_option: 1"), ("averaged.safetensors", "")):
        (workdir / "exp/spoilt" / file).write_text(text)
    capsys.readouterr()
    table = adapt.describe_all(workdir / "exp")
    assert "| tiny-ro | whisper | el, es, ro | add prompts of 2 | 0.00 |" in table and "spoilt" not in table
    said = capsys.readouterr().out
    assert "adapt: spoilt is left out: " in said and "checkpoints" not in said
    with pytest.raises(FileNotFoundError, match="nowhere is no folder"):
        adapt.describe_all(workdir / "nowhere")
    with pytest.raises(ConfigError, match="knows es already"):
        adapt.expand(workdir / "exp/tiny", "es")
    with pytest.raises(ConfigError, match="near: fr is not one of el, es"):
        adapt.expand(workdir / "exp/tiny", "ro", near="fr")
    with pytest.raises(ConfigError, match=r"no language token for ast: name a language \(near\)"):
        adapt.expand(workdir / "exp/tiny", "ast")


def test_what_the_model_was_made_with_does_not_bind_the_new_language(trained, workdir):
    """Experts that were frozen, or that no training made, learn another one."""
    trained(EXPERTS)
    made = "train.init_from=exp/tiny", "corpus.languages=[el,es]", EXPERTS
    classified = ["name=classified", "model.adapt.classifier=true", "train.frozen=[experts]"]
    train.run(load_config(workdir / "tiny.yaml", [*made, *classified]))
    new = adapt.expand(workdir / "exp/classified", "ro", overrides=["train.updates=2"])
    assert load_model(new).languages == ["el", "es", "ro"]
    train.run(load_config(workdir / "tiny.yaml", [*made, "name=soft", "model.adapt.routing=soft", "train.updates=0"]))
    with pytest.raises(ConfigError, match="exp/soft was made without training: say for how long"):
        adapt.expand(workdir / "exp/soft", "ro")


def test_what_was_adapted_is_not_lost(trained, workdir):
    trained(EXPERTS)
    plain = ["name=plain", "corpus.languages=[el,es]", "train.init_from=exp/tiny"]
    with pytest.raises(ConfigError, match="exp/tiny is an adapted Whisper .* nothing here takes what it learnt"):
        train.run(load_config(workdir / "tiny.yaml", plain))


def test_languages_are_learnt_beside_the_data_of_the_recipe(trained, workdir):
    trained(PROMPTS)
    before = (workdir / "data/manifests/complete.json").read_text()
    folder = adapt.learn(workdir / "tiny.yaml", ["el", "ro"], ["name=two", PROMPTS, "train.updates=1"])
    assert load_model(folder).languages == ["el", "ro"] and (workdir / "data-el-ro/manifests").is_dir()
    with pytest.raises(ValueError, match="no recordings in gr"):
        adapt.learn(workdir / "tiny.yaml", ["el", "gr"], ["name=typo", PROMPTS])
    assert (workdir / "data/manifests/complete.json").read_text() == before
    with pytest.raises(ConfigError, match="adapts nothing: set model.pretrained and model.adapt"):
        adapt.learn(workdir / "tiny.yaml", ["el"])
    with pytest.raises(ConfigError, match="languages: none given"):
        adapt.learn(workdir / "tiny.yaml", [])


@pytest.mark.parametrize(
    "option",
    ["model.adapt.lora.rank=2", "model.adapt.prompts.length=2", "train.updates=1", EXPERTS[:-1] + ", fused: true}"],
)
def test_what_all_languages_share_cannot_take_another(trained, workdir, option):
    with pytest.raises(ConfigError, match="so another language would change all others"):
        adapt.expand(trained(option), "ro")


def test_a_whisper_tuned_here_is_adapted_as_an_export_of_it(trained, workdir):
    """What is adapted belongs to the weights that ``model.pretrained`` names."""
    from masr.models.export import export_whisper

    folder = trained("train.updates=2")
    options = ["name=second", "corpus.languages=[el,es]", EXPERTS]
    with pytest.raises(ConfigError, match="is another Whisper than model.pretrained=whisper. To adapt it: masr export"):
        train.run(load_config(workdir / "tiny.yaml", [*options, f"train.init_from={folder}"]))
    export_whisper(folder, workdir / "tuned", None)
    config = load_config(workdir / "tiny.yaml", [*options, "model.pretrained=tuned"])
    vocab.run(config)
    train.run(config)
    second, first = load_model(workdir / "exp/second"), load_model(folder)
    assert second.hash_of_base() == first.hash_of_base()


def test_experts_become_one(trained, workdir):
    folder = trained(EXPERTS)
    adapt.merge(folder, workdir / "exp/merged", "cat")
    one, many = load_model(workdir / "exp/merged"), load_model(folder)
    assert one.encoder.experts.names == ["all"]
    features_, lengths = torch.randn(2, 60, 80), torch.tensor([60, 60])
    mean = torch.full((2, 2), 0.5)
    assert one.config.model.adapt.near == {}
    assert torch.allclose(
        one.encoder(features_, lengths, mean).frames, many.encoder(features_, lengths, mean).frames, atol=1e-4
    )
    with pytest.raises(ConfigError, match="has no experts of several languages"):
        adapt.merge(workdir / "exp/merged", workdir / "exp/again")
    for options, message in (
        ({"kind": "tie"}, "kind=tie: unknown; there are cat, svd, "),
        ({"kind": "cat", "rank": 4}, "kinds that end in svd have one"),
        ({"kind": "ties", "density": 7.0}, "density=7: it is a share"),
    ):
        with pytest.raises(ConfigError, match=message):
            adapt.merge(folder, workdir / "exp/again", **options)
    with pytest.raises(ConfigError, match="exp/tiny holds a model already"):
        adapt.merge(folder, folder, "cat")
    fused = ["name=fused", "corpus.languages=[el,es]", EXPERTS[:-1] + ", fused: true}"]
    train.run(load_config(workdir / "tiny.yaml", fused))
    with pytest.raises(ConfigError, match="its experts are fused"):
        adapt.merge(workdir / "exp/fused", workdir / "exp/again", "cat")


def test_experts_become_one_where_others_were_added_and_prompts_are(trained, workdir):
    trained(EXPERTS)
    folder = adapt.expand(workdir / "exp/tiny", "ro", near="es", overrides=["train.updates=2"])
    assert load_model(folder).languages == ["el", "es", "ro"]
    adapt.merge(folder, workdir / "exp/merged", "svd", 4)
    assert load_model(workdir / "exp/merged").encoder.experts.names == ["all"]
    both = load_config(workdir / "tiny.yaml", ["name=both", "corpus.languages=[el,es]", EXPERTS, PROMPTS])
    train.run(both)
    adapt.merge(workdir / "exp/both", workdir / "exp/with_prompts", "cat")
    one, many = load_model(workdir / "exp/with_prompts").encoder, load_model(workdir / "exp/both").encoder
    assert all(torch.equal(a, b) for a, b in zip(one.prompts.parameters(), many.prompts.parameters(), strict=True))


@pytest.mark.parametrize(
    "option", [EXPERTS, "model.adapt={prompts: {length: 2, languages: own}, language_codes: true}"]
)
def test_models_of_single_languages_are_joined(trained, workdir, option):
    """Each language of the new model is as the model that learnt it has it."""
    write_tiny_whisper(workdir / "whisper", positions=64)
    first, second = load_model(trained(option)), ["name=second", "corpus.languages=[el,ro]", "data_dir=second", option]
    for stage in (prepare, features, vocab, train):
        stage.run(load_config(workdir / "tiny.yaml", second))
    other = load_model(workdir / "exp/second")
    adapt.join([workdir / "exp/tiny", workdir / "exp/second"], workdir / "exp/joined")
    joined = load_model(workdir / "exp/joined")
    assert joined.languages == ["el", "es", "ro"] and not joined.config.model.adapt.only
    heard, lengths = torch.randn(1, 60, 80), torch.tensor([60])
    for code, model in (("el", first), ("es", first), ("ro", other)):
        ours, theirs = (
            m.encode(heard, lengths, torch.tensor([[known == code for known in m.languages]])) for m in (joined, model)
        )
        assert torch.equal(ours.frames, theirs.frames)
    adapt.join([workdir / "exp/joined"], workdir / "exp/two", ["ro", "es"])
    assert load_model(workdir / "exp/two").languages == ["es", "ro"]
    with pytest.raises(ConfigError, match="no model knows fr; they know el, es, ro"):
        adapt.join([workdir / "exp/joined"], workdir / "exp/three", ["fr"])
    with pytest.raises(ConfigError, match="exp/two holds a model already"):
        adapt.join([workdir / "exp/joined"], workdir / "exp/two")


def test_models_that_do_not_fit_are_not_joined(trained, workdir):
    trained(PROMPTS)
    made = ["corpus.languages=[el,es]", "train.updates=1"]
    kinds = {"again": [PROMPTS, "seed=2"], "experts": [EXPERTS], "shared": ["model.adapt.prompts.length=2"]}
    for name, options in kinds.items():
        train.run(load_config(workdir / "tiny.yaml", [*made, *options, f"name={name}"]))

    def join(*names: str):
        return adapt.join([workdir / f"exp/{name}" for name in names], workdir / "exp/joined")

    with pytest.raises(ConfigError, match="differ in what their languages share, e.g. .*prompts.shared"):
        join("tiny", "again")
    with pytest.raises(ConfigError, match="exp/experts and .*exp/tiny are adapted in different ways"):
        join("tiny", "experts")
    with pytest.raises(ConfigError, match="exp/shared: what it learnt does not belong to single languages"):
        join("shared")
    write_tiny_whisper(workdir / "other", seed=3, positions=64)
    other = load_config(workdir / "tiny.yaml", [*made, PROMPTS, "name=other", "model.pretrained=other"])
    vocab.run(other)
    train.run(other)
    with pytest.raises(ConfigError, match="exp/other and .*exp/tiny are adapted from different Whispers"):
        join("tiny", "other")
