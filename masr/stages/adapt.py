"""What is done to a Whisper that was adapted: another language, one expert of many, a list of what there is."""

import json
from pathlib import Path
from typing import Any

from masr.config import Lora
from masr.config_files import ConfigError, load_config
from masr.models.folder import WEIGHTS, load_model, save_model
from masr.models.whisper import WhisperRecognizer, pretrained_whisper
from masr.progress import say
from masr.stages import features, prepare, train, vocab


def expand(folder: Path, language: str, near: str | None = None, overrides: list[str] | None = None) -> Path:
    """Adds a language to a model with parameters of each language; the others stay bit for bit what they were.

    ``near`` is a language of the model with whose parameters the new one begins, and whose token it takes if Whisper
    has none for it. Returns the folder of the new model; ConfigError for a language that is there already.
    """
    model = _whisper(folder)
    if language in model.languages:
        raise ConfigError(f"{folder} knows {language} already; it knows {', '.join(model.languages)}")
    config, tokenizer, lora = model.config, model.tokenizer, model.config.model.adapt.lora
    if not model.by_language or lora.fused:
        what = "its experts are fused" if lora.fused else "nothing of it is one language's own"
        raise ConfigError(f"{folder}: {what}, so another language would change all others; train it anew with that one")
    if near is not None and near not in model.languages:
        raise ConfigError(f"near: {near} is not one of {', '.join(model.languages)}")
    code = tokenizer.code_of(language)
    if (unknown := tokenizer.backend.token_to_id(f"<|{code}|>") is None) and near is None:
        raise ConfigError(f"Whisper has no language token for {language}: name a language (near) whose token it takes")
    given = [
        f"name={config.name}-{language}", f"data_dir={config.data_dir}-{language}", f"train.init_from={folder}",
        f"corpus.languages={json.dumps([*model.languages, language])}", f"model.adapt.only={json.dumps([language])}",
        f"model.adapt.near={json.dumps({language: near} if near else {})}", "model.adapt.classifier=false",
    ]  # fmt: skip
    if unknown and near is not None:
        given += [f"model.whisper.language_codes={json.dumps(tokenizer.codes | {language: tokenizer.code_of(near)})}"]
    new = load_config(folder / "config.yaml", [*given, *(overrides or [])])
    for stage in (prepare, features, vocab, train):
        stage.run(new)
    return train.experiment_folder(new)


def merge(folder: Path, output: Path, kind: str = "svd", rank: int | None = None, density: float = 0.5) -> Path:
    """Writes a model with one expert made of all those of a model; ``kind`` is one of peft's: cat, svd, ties, ..."""
    model = _whisper(folder)
    if model.encoder.experts is None or len(model.encoder.experts.names) < 2:
        raise ConfigError(f"{folder} has no experts of several languages (model.adapt.lora.per_language)")
    ranks = [part.experts.merge(kind, rank, density) for part in (model.encoder, model.attention_decoder)]
    config = model.config.model_copy(deep=True)
    scale = model.encoder.experts.scale
    new = {"rank": max(ranks), "alpha": round(scale * max(ranks)), "per_language": False, "fused": False}
    config.model.adapt.lora = Lora.model_validate(config.model.adapt.lora.model_dump() | new)
    config.model.adapt.only, config.model.adapt.near = [], {}
    assert config.model.pretrained is not None
    one = WhisperRecognizer(config, model.tokenizer, None, pretrained_whisper(config.model.pretrained))
    one.load_state_dict(model.state_dict(), strict=False)  # prompts, language codes and all else
    one.encoder.experts.take(model.encoder.experts)
    one.attention_decoder.experts.take(model.attention_decoder.experts)
    save_model(output, one)
    say(f"adapt: {len(model.languages)} experts are one of rank {max(ranks)} ({kind}) in {output}")
    return output


def describe_all(folder: Path) -> str:
    """Markdown: every adapted model in a folder such as ``exp``."""
    lines = ["| model | Whisper | languages | adapted | learnt, M | dev CER |", "|---|---|---|---|--:|--:|"]
    models = [path for path in sorted(folder.glob(f"**/{WEIGHTS}")) if (path.parent / "config.yaml").is_file()]
    for path in models:
        config = load_config(path.parent / "config.yaml")
        if config.model.pretrained is None:
            continue
        languages = json.loads((path.parent / "vocab/languages.json").read_text())["languages"]
        record = path.parent / "training.json"
        cer = f"{json.loads(record.read_text())['best_cer']:.2%}" if record.is_file() else "-"
        learnt = path.stat().st_size / 4e6
        name, base = path.parent.relative_to(folder), Path(config.model.pretrained).name
        lines.append(f"| {name} | {base} | {', '.join(languages)} | {_kind(config)} | {learnt:.2f} | {cer} |")
    return "\n".join(lines)


def _kind(config: Any) -> str:
    adapt = config.model.adapt
    parts = [f"{adapt.prompts.languages} prompts of {adapt.prompts.length}"] if adapt.prompts.length else []
    if adapt.lora.rank:
        parts += [f"LoRA of rank {adapt.lora.rank}" + (" a language" if adapt.lora.per_language else "")]
    parts += ["language codes"] if adapt.language_codes else []
    return ", ".join(parts) or "all of it"


def _whisper(folder: Path) -> WhisperRecognizer:
    model = load_model(folder)
    if not isinstance(model, WhisperRecognizer):
        raise ConfigError(f"{folder} is no adapted Whisper (model.pretrained)")
    return model
