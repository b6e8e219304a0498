"""Whispers as they come: from a folder of transformers or the hub, and what adapted ones need of them."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_whisper import batch_of, build, moved, search, write_tiny_whisper
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

import masr
from masr.config import Config, Decode
from masr.corpora import freevoices
from masr.data.features import load_audio
from masr.decode.utterances import utterances_of
from masr.decode.whisper import whisper_search
from masr.models.folder import load_model, save_model
from masr.models.pretrained import hub_name, load_pretrained
from masr.models.whisper import WhisperRecognizer

ROOT = Path(__file__).parents[2]
REAL = Path(os.environ.get("MASR_WHISPER_BASE", Path.home() / ".cache/masr/whisper-base"))
"""Whisper-base with its real weights, where somebody has fetched it."""
GREEDY = {"whisper": {"temperatures": [0.0], "no_speech": None}, "beam": 1, "methods": ["whisper"]}


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """An empty cache of the hub, which cannot be reached."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / "hub"


def cache(hub: Path, name: str, source: Path) -> Path:
    """Puts a model into a cache as the hub's client does."""
    model = hub / f"models--{name.replace('/', '--')}"
    folder = model / "snapshots" / ("0123456789" * 4)
    shutil.copytree(source, folder)
    (model / "refs").mkdir()
    (model / "refs/main").write_text(folder.name)
    return folder


# --- as they come ----------------------------------------------------------------------------------------------------


def test_a_folder_of_transformers_is_a_recogniser_of_all_its_languages(tiny_whisper, speech):
    recognizer = masr.load(str(tiny_whisper), "cpu")
    assert recognizer.model.languages == ["el", "es", "ro", "ru"]
    assert recognizer.options.methods == ["whisper"] and recognizer.model.encoder.full
    assert not any(parameter.requires_grad for parameter in recognizer.model.parameters())
    assert recognizer.transcribe(speech[0], languages=["ro"]).language == "ro"


def test_languages_have_the_codes_of_masr(tmp_path):
    write_tiny_whisper(tmp_path, known=["en", "no", "jw", "tl"])
    model = load_pretrained(tmp_path)
    assert model.languages == ["en", "fil", "jv", "nb"]
    named = [model.tokenizer.backend.id_to_token(token) for token in model.tokenizer.language_tokens]
    assert named == ["<|en|>", "<|tl|>", "<|jw|>", "<|no|>"]


def test_an_english_whisper_is_told_neither_language_nor_task(tmp_path, speech):
    folder = write_tiny_whisper(tmp_path / "base", known=["en", "es"])
    generation = json.loads((folder / "generation_config.json").read_text())
    for name in ("lang_to_id", "task_to_id"):
        generation.pop(name)
    (folder / "generation_config.json").write_text(json.dumps(generation | {"is_multilingual": False}))
    model = load_pretrained(folder)
    assert model.languages == ["en"]
    tokens = model.tokenizer
    [given] = model.attention_decoder.beginning(torch.ones(1, 1)).tolist()
    assert given == [tokens.start, tokens.special("notimestamps")]
    ours, theirs = greedy_of_both(model, folder, [np.resize(speech[2], 32000)], ["en"])
    assert ours == theirs and len(ours[0]) > 5
    save_model(tmp_path / "saved", model)
    assert load_model(tmp_path / "saved").tokenizer.multilingual is False


def test_the_cache_of_the_hub_is_enough(hub, tiny_whisper):
    folder = cache(hub, "somebody/whisper-mini", tiny_whisper)
    assert hub_name(folder) == "somebody/whisper-mini"
    assert masr.load("somebody/whisper-mini", "cpu").model.config.model.pretrained == "somebody/whisper-mini"


def test_what_cannot_be_loaded_is_said_in_one_line(hub, tmp_path, tiny_whisper):
    with pytest.raises(FileNotFoundError, match="openai/whisper-small: it is not in the cache .* cannot be reached"):
        masr.load("openai/whisper-small")
    half = cache(hub, "somebody/half", tiny_whisper)
    (half / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="somebody/half of the hub, or of its cache .* no safetensors"):
        masr.load("somebody/half")
    with pytest.raises(ValueError, match="has no weights in safetensors"):
        masr.load(str(half))
    (half / "config.json").write_text('{"model_type": "wav2vec2"}')
    with pytest.raises(ValueError, match="holds a model of type wav2vec2; without training"):
        masr.load(str(half))


def test_a_config_that_uses_the_method_for_another_model_is_refused(prepared):
    with pytest.raises(ValueError, match="decode.whisper.no_speech=0.5 has no effect without whisper among"):
        prepared.config("decode.whisper.no_speech=0.5")


# --- beside transformers ---------------------------------------------------------------------------------------------


@torch.no_grad()
def greedy_of_both(
    model: WhisperRecognizer, folder: Path, audio: list[np.ndarray], languages: list[str]
) -> tuple[list[list[int]], list[list[int]]]:
    """Tokens that masr and transformers' own `generate` find, with the languages given, without timestamps."""
    base = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    bins = base.config.num_mel_bins
    given = WhisperFeatureExtractor(feature_size=bins)(audio, sampling_rate=16000, return_tensors="pt")
    named = {"language": languages, "task": "transcribe"} if model.tokenizer.multilingual else {}
    theirs = base.generate(
        given["input_features"], do_sample=False, max_new_tokens=model.attention_decoder.longest, **named
    )
    features = given["input_features"].transpose(1, 2)
    lengths = torch.full((len(audio),), features.shape[1])
    allowed = torch.tensor([[code == known for known in model.languages] for code in languages])
    encoded = model.encode(features, lengths, allowed)
    found = whisper_search(model, utterances_of(model, encoded, allowed), Decode.model_validate(GREEDY))
    return [nbest[0].tokens for nbest in found], [model.tokenizer.spoken(row) for row in theirs.tolist()]


def test_greedy_texts_of_30_seconds_are_those_of_transformers(tiny_whisper, speech):
    audio = [np.resize(samples, 32000) for samples in speech[:3]]
    ours, theirs = greedy_of_both(load_pretrained(tiny_whisper), tiny_whisper, audio, ["es", "el", "ru"])
    assert ours == theirs and min(map(len, ours)) > 5


@pytest.mark.skipif(not (REAL / "model.safetensors").is_file(), reason=f"no Whisper-base in {REAL}")
def test_greedy_texts_of_the_real_whisper_base_are_those_of_transformers():
    languages = ["es", "ro"]
    cuts = [next(iter(freevoices.read(ROOT / "egs/freevoices/corpus", [code])["test"])) for code in languages]
    audio = [load_audio(cut) for cut in cuts]
    model = load_pretrained(REAL)
    ours, theirs = greedy_of_both(model, REAL, audio, languages)
    assert ours == theirs
    texts = [model.tokenizer.decode(tokens) for tokens in ours]
    assert texts[0] == "Una rana." and texts[1]


# --- the Whisper under an adapted one --------------------------------------------------------------------------------


@pytest.fixture
def adapted(hub, tmp_path) -> Path:
    """A model whose Whisper has gone from where it was trained."""
    base = write_tiny_whisper(tmp_path / "gone")
    experts = {"lora": {"rank": 2, "alpha": 4, "per_language": True}}
    model = moved(build(base, adapt=experts))
    save_model(tmp_path / "exp/model", model)
    base.rename(tmp_path / "moved")
    return tmp_path / "exp/model"


def test_a_base_is_found_beside_the_model_or_in_a_cache_or_where_it_is_said_to_be(adapted, hub, tmp_path, speech):
    base = tmp_path / "moved"
    for place in (adapted / "base", adapted.parent / "other name", tmp_path / ".cache/masr/x", tmp_path / "gone"):
        shutil.copytree(base, place)
        model = load_model(adapted)
        shutil.rmtree(place)
        with pytest.raises(FileNotFoundError, match="on the Whisper with hash .*/gone.*; say where it is.*base=FOLDER"):
            load_model(adapted)
    assert search(load_model(adapted, base=str(base)), batch_of(model, speech, [0]), 1)
    cache(hub, "somebody/mini", base)
    assert load_model(adapted).languages == load_model(adapted, base="somebody/mini").languages


def test_a_relative_base_is_found_from_any_working_directory(adapted, tmp_path, monkeypatch):
    config = adapted / "config.yaml"
    config.write_text(config.read_text().replace(str(tmp_path / "gone"), "moved"))
    monkeypatch.chdir(ROOT)
    assert load_model(adapted).languages == ["el", "es", "ro"]


def test_another_whisper_is_not_taken_for_the_base(adapted, tmp_path):
    other = write_tiny_whisper(tmp_path / "other", seed=1)
    shutil.copytree(other, adapted.parent / "beside")
    with pytest.raises(ValueError, match="with hash .*beside has .*: it is another model; say where it is"):
        load_model(adapted)
    with pytest.raises(ValueError, match="other has .*: it is another model"):
        load_model(adapted, base=str(other))
    with pytest.raises(FileNotFoundError, match="not in nowhere"):
        load_model(adapted, base="nowhere")


def test_configs_of_before_the_method_whisper_load():
    assert Config.model_validate({"name": "x", "decode": {"methods": ["attention-beam"]}}).decode.whisper.seed == 1
