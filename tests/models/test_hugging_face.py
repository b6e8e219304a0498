"""What masr learnt, read by transformers."""

import pytest
import torch
from tiny_whisper import LANGUAGES, batch_of, build
from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration

from masr.models.export import export_model, export_whisper
from masr.models.folder import load_model, save_model

EXPERTS = {"lora": {"rank": 2, "alpha": 4, "per_language": True}, "language_codes": True}
FULL = {"whisper": {"context": "full"}}


def moved(model):
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("adapt", [{}, {"lora": {"rank": 2, "alpha": 4}}, EXPERTS])
def test_transformers_hears_what_masr_hears(tiny_whisper, speech, tmp_path, adapt):
    model = moved(build(tiny_whisper, adapt=adapt, **FULL))
    save_model(tmp_path / "exp", model)
    export_whisper(tmp_path / "exp", tmp_path / "plain", ["es"])
    theirs = WhisperForConditionalGeneration.from_pretrained(tmp_path / "plain").eval()
    batch = batch_of(model, speech, [0])
    extractor = WhisperFeatureExtractor.from_pretrained(tmp_path / "plain")
    features = extractor([speech[0]], sampling_rate=16000, return_tensors="pt")["input_features"]
    with torch.no_grad():
        encoded = model.encode(batch.features, batch.feature_lengths, batch.allowed_languages)
        given = batch.targets["transcript"]
        ours = model.attention_decoder.log_probs(encoded.frames, encoded.lengths, *given, encoded.language_weights)
        tokens = torch.cat([model.attention_decoder.beginning(encoded.language_weights), given.ids], 1)
        logits = theirs(input_features=features, decoder_input_ids=tokens).logits[:, 3:]
    text = slice(0, model.tokenizer.end + 1)  # the outputs of languages' tokens are tied to their vectors
    assert torch.allclose(ours[..., text].log_softmax(-1), logits[..., text].log_softmax(-1), atol=1e-3)
    assert theirs.generation_config.lang_to_id["<|es|>"] == model.tokenizer.special("es")
    read = AutoTokenizer.from_pretrained(tmp_path / "plain")
    assert read(" uno", add_special_tokens=False)["input_ids"] == model.tokenizer.encode("uno", "es")


def test_a_small_folder_needs_the_pretrained_one(tiny_whisper, speech, tmp_path):
    adapt = {"prompts": {"length": 2, "languages": "add", "bottleneck": 4}}
    model = moved(build(tiny_whisper, adapt=adapt))
    save_model(tmp_path / "exp", model)
    export_model(tmp_path / "exp", tmp_path / "small", "attention-beam")
    small = load_model(tmp_path / "small")
    assert small.encoder.prompts.mlp is None and small.languages == LANGUAGES
    weights = torch.eye(3)
    assert torch.allclose(small.encoder.prompts(weights), model.encoder.prompts(weights), atol=5e-3)


def test_what_cannot_be_exported(tiny_whisper, tmp_path):
    for name, adapt in {"prompts": {"prompts": {"length": 2}}, "experts": EXPERTS}.items():
        save_model(tmp_path / name, build(tiny_whisper, adapt=adapt))
    with pytest.raises(ValueError, match="soft prompts cannot be merged"):
        export_whisper(tmp_path / "prompts", tmp_path / "x", None)
    with pytest.raises(ValueError, match="name one language, whose expert is to be merged: el, es, ro"):
        export_whisper(tmp_path / "experts", tmp_path / "x", None)
    with pytest.raises(ValueError, match="name one of el, es, ro"):
        export_whisper(tmp_path / "experts", tmp_path / "x", ["xx"])
