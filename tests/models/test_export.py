"""The exported folder: half the size, loads anywhere, and says what it is."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import masr
from masr.config import Config, LanguageModel, Vocab
from masr.decode.language_models import estimate_models
from masr.models.export import export_model
from masr.models.folder import WEIGHTS, load_model, save_model
from masr.models.recognizer import Recognizer, parameter_count, parameter_count_for_one_language
from masr.models.searcher import save_scales
from masr.text.tokenizer import train_tokenizer

ENCODER = {"layers": 1, "width": 16, "heads": 2, "feedforward": 16, "kernel": 5, "subsampling_channels": 4}


@pytest.fixture
def trained(tmp_path):
    config = Config.model_validate({"name": "test", "model": {"encoder": ENCODER}})
    tokenizer = train_tokenizer({"es": ["uno dos"], "ro": ["unu doi"]}, Vocab())
    torch.manual_seed(0)
    save_model(tmp_path / "exp", Recognizer(config, tokenizer))
    return tmp_path / "exp"


def test_export_is_float16_and_loads(trained, tmp_path):
    output = export_model(trained, tmp_path / "model")
    assert {tensor.dtype for tensor in load_file(output / WEIGHTS).values()} == {torch.float16}
    before, after = load_model(trained).state_dict(), load_model(output).state_dict()
    assert all(torch.allclose(before[name], after[name], atol=1e-3) for name in before)


def test_model_card_names_languages_training_and_results(trained, tmp_path):
    progress = {"train_seconds": 61.0, "audio_seconds": 7200.0, "update": 9, "best_cer": 0.25, "best_update": 8}
    (trained / "training.json").write_text(json.dumps(progress))
    environment = {"command": "masr train x", "commit": "abc", "machine": "m", "processes": 1, "threads": 2}
    (trained / "environment.json").write_text(json.dumps(environment))
    report = trained / "score/ctc-greedy/test/report.md"
    report.parent.mkdir(parents=True)
    report.write_text("# title\n\n| x |\n\n## Error rates (%)\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nmore\n")
    card = (export_model(trained, tmp_path / "model") / "README.md").read_text()
    for fact in (
        "Spanish, Romanian",
        "masr train x",
        "1:01",
        "2.0 h",
        "25.00%",
        "## ctc-greedy, test: error rates",
        "| 1 | 2 |",
    ):
        assert fact in card
    assert "more" not in card and "| x |" not in card


def test_export_of_a_folder_without_weights_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="masr train"):
        export_model(tmp_path, tmp_path / "model")


def test_a_method_takes_its_language_models_and_scales_with_it(trained, tmp_path):
    method, tokenizer = "nbest-lm-rescoring", load_model(trained).tokenizer
    with pytest.raises(FileNotFoundError, match="lm/ngrams is missing, which nbest-lm-rescoring needs: run `masr dec"):
        export_model(trained, tmp_path / "model", method)
    estimate_models({"es": ["uno dos"], "ro": ["unu doi"]}, tokenizer, LanguageModel()).save(trained / "lm/ngrams")
    (trained / "decode" / method).mkdir(parents=True)
    save_scales(trained, method, {"token-lm": 0.5, "word-lm": 0.0, "length": 1.0}, 0.25)
    output = export_model(trained, tmp_path / "model", method)
    recognizer = masr.load(str(output))
    assert recognizer.options.methods == [method]
    assert recognizer.setting == {"token-lm": 0.5, "word-lm": 0.0, "length": 1.0}
    assert recognizer.transcribe(np.zeros(16000, dtype=np.float32)).language in (None, "es", "ro")
    with pytest.raises(FileNotFoundError, match="lm/neural.safetensors: there is no neural language model"):
        masr.load(str(output), methods=["neural-lm-rescoring"])
    with pytest.raises(FileNotFoundError, match="the scales of lattice-hg have not been chosen yet; run `masr decode`"):
        masr.load(str(output), methods=["lattice-hg"])
    with pytest.raises(ValueError, match="nbest-oracle needs to know what was said"):
        masr.load(str(output), methods=["nbest-oracle"])


ADAPTERS = {"layers": [1], "bottleneck": 3, "decoder": True, "prompt_vectors": True}


@pytest.fixture
def adapted(tmp_path):
    """A model with adapters of three languages, in the attention decoder too, with large random weights."""
    encoder = ENCODER | {"language_adapters": ADAPTERS}
    decoder = {"weight": 0.3, "layers": 1, "width": 16, "heads": 2, "feedforward": 16}
    options = {"encoder": encoder, "attention_decoder": decoder, "language_classifier": {"weight": 0.1}}
    decode = {"methods": ["joint-beam"], "segments": {"voice_activity": False}}
    config = Config.model_validate({"name": "test", "model": options, "decode": decode})
    tokenizer = train_tokenizer({"es": ["uno dos"], "pt": ["um dois"], "ro": ["unu doi"]}, Vocab())
    torch.manual_seed(0)
    model = Recognizer(config, tokenizer)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.2)
    save_model(tmp_path / "exp", model)
    return tmp_path / "exp"


def test_only_the_adapters_of_some_languages_are_exported(adapted, tmp_path):
    audio = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    output = export_model(adapted, tmp_path / "model", languages=["ro", "es"])
    whole, small = load_model(adapted), load_model(output)
    assert small.languages == ["es", "ro"]
    shapes = {n: (w.shape, small.state_dict()[n].shape) for n, w in whole.state_dict().items()}
    for_languages = [name for name, (before, after) in shapes.items() if before != after]
    assert for_languages and all("adapters" in name for name in for_languages)
    for name in for_languages:
        assert torch.allclose(small.state_dict()[name], whole.state_dict()[name][[0, 2]], atol=1e-3)
    found = masr.load(output).transcribe(audio)
    expected = masr.load(adapted).transcribe(audio, languages=["es", "ro"])
    assert (found.text, found.language) == (expected.text, expected.language)
    assert found.log_probability == pytest.approx(expected.log_probability, rel=0.002)
    other = masr.load(adapted).transcribe(audio, languages=["pt"])
    assert found.log_probability != other.log_probability and other.languages == {"pt": 1.0}
    card = (output / "README.md").read_text()
    assert "Spanish, Romanian." in card and "lacks other languages' adapters" in card
    with pytest.raises(ValueError, match="unknown: pt; this model knows es, ro"):
        masr.load(output).transcribe(audio, languages=["pt"])


def test_one_language_is_what_runs_in_the_whole_model(adapted, tmp_path):
    small = load_model(export_model(adapted, tmp_path / "model", languages=["pt"]))
    assert parameter_count(small) == parameter_count_for_one_language(load_model(adapted))
    again = load_model(export_model(tmp_path / "model", tmp_path / "again", languages=["pt"]))
    assert again.languages == ["pt"]


def test_of_heads_by_language_only_theirs_are_exported(adapted, tmp_path):
    config, tokenizer = load_model(adapted).config, load_model(adapted).tokenizer
    config.model.ctc.per_language = True
    torch.manual_seed(0)
    model = Recognizer(config, tokenizer)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.2)
    save_model(tmp_path / "heads", model)
    small = load_model(export_model(tmp_path / "heads", tmp_path / "small", languages=["ro", "es"]))
    assert list(small.ctc.heads) == ["es", "ro"]
    audio = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    expected = masr.load(tmp_path / "heads").transcribe(audio, languages=["es", "ro"])
    found = masr.load(tmp_path / "small").transcribe(audio)
    assert found.log_probability == pytest.approx(expected.log_probability, rel=0.002)


def test_languages_that_cannot_be_exported(adapted, tmp_path):
    with pytest.raises(ValueError, match="unknown: cs; this model knows es, pt, ro"):
        export_model(adapted, tmp_path / "model", languages=["es", "cs"])
    with pytest.raises(ValueError, match="none given"):
        export_model(adapted, tmp_path / "model", languages=[])


def test_a_model_without_adapters_has_nothing_of_one_language(trained, tmp_path):
    with pytest.raises(ValueError, match="has no language adapters"):
        export_model(trained, tmp_path / "model", languages=["es"])
