"""A Whisper that masr has trained, as a plain folder of transformers, for all that reads such folders."""

import copy
from pathlib import Path
from typing import Any

from torch import Tensor

from masr.files import writing
from masr.models.whisper import WhisperRecognizer
from masr.progress import say

NAMES = {
    "attention_decoder.": "model.decoder.", "encoder.": "model.encoder.", ".positions.": ".embed_positions.",
    ".embedding.": ".embed_tokens.", ".blocks.": ".layers.",
}  # fmt: skip
"""What transformers calls the parts of Whisper."""


def write_hugging_face(model: WhisperRecognizer, output: Path, language: str | None = None) -> Path:
    """Writes ``output`` with the experts of a ``language`` (or that of all) merged into the weights; returns it.

    ValueError for what no plain Whisper can have: soft prompts, or experts of several languages.
    """
    if model.encoder.prompts is not None or model.attention_decoder.prompts is not None:
        raise ValueError("soft prompts cannot be merged into weights: this model only runs in masr")
    experts = model.encoder.experts
    if experts is not None and len(experts.names) > 1 and language is None:
        raise ValueError(f"name one language, whose expert is to be merged: {', '.join(model.languages)}")
    if experts is not None and model.encoder.fusion is not None:
        raise ValueError("fused experts cannot be merged into one: this model only runs in masr")
    merged = _merged(model, language)
    plain = model.plain()
    plain.load_state_dict({_their_name(name): tensor for name, tensor in merged.items()}, strict=False)
    with writing(output):
        plain.save_pretrained(output)
        model.save_processor(output)
    if not model.encoder.full:
        say("export: this Whisper has learnt to hear clips as long as they are; others fill them up to 30 s")
    return output


def _merged(model: WhisperRecognizer, language: str | None) -> dict[str, Tensor]:
    """Weights by our names, what was adapted merged into them."""
    model = copy.deepcopy(model)
    for part in (model.encoder, model.attention_decoder):
        if part.experts is not None:
            part.experts.merge_into_weights(language)
    vectors: Any = model.attention_decoder.language_vectors
    if vectors is not None:
        own = dict(zip(model.languages, model.attention_decoder.language_tokens.tolist(), strict=True))
        chosen = model.languages if language is None else [language]
        if len({own[code] for code in chosen}) < len(chosen):
            raise ValueError(f"several languages have one token: name one of {', '.join(model.languages)}")
        for code in chosen:
            model.attention_decoder.embedding.weight.data[own[code]] = vectors.own[code].data
    model.attention_decoder.language_vectors = None
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("feature_")}


def _their_name(name: str) -> str:
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    return name.replace("encoder.norm.", "encoder.layer_norm.").replace("decoder.norm.", "decoder.layer_norm.")


def write_ctranslate2(folder: Path, output: Path, quantization: str = "int8") -> Path:
    """Converts such a folder for CTranslate2 (faster-whisper)."""
    from ctranslate2.converters import TransformersConverter

    copied = ["tokenizer.json", "preprocessor_config.json"]
    TransformersConverter(str(folder), copy_files=copied).convert(str(output), quantization=quantization, force=True)
    return output
