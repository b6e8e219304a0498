"""Any Whisper as it comes: a folder of transformers, or a name on the hub, as a recogniser of all of its languages."""

import re
from pathlib import Path

from masr.config import Config
from masr.files import HUB_NAME, read_json
from masr.models.whisper import WhisperRecognizer, pretrained_whisper
from masr.text.whisper_tokenizer import WhisperTokenizer

FILES = ["*.json", "*.txt", "model.safetensors", "model-*.safetensors"]
"""What is wanted of a model on the hub: not its weights in other formats."""
ENGLISH_ONLY = 51864
"""Tokens of an English Whisper; multilingual ones have more."""


def is_pretrained(folder: Path) -> bool:
    """Whether a folder holds a model of transformers, and none that masr has trained."""
    return (folder / "config.json").is_file() and not (folder / "config.yaml").exists()


def load_pretrained(folder: Path) -> WhisperRecognizer:
    """The recogniser of a Whisper in the format of transformers, which hears 30 s and obeys Whisper's own rules.

    ValueError for another kind of model, or weights that are not safetensors.
    """
    described = read_json(folder / "config.json")
    kind = described.get("model_type")
    if kind != "whisper":
        raise ValueError(f"{folder} holds a model of type {kind}; without training masr can only use a Whisper")
    if not has_weights(folder):
        raise ValueError(f"{folder} has no weights in safetensors: save the model with save_pretrained of transformers")
    pretrained = pretrained_whisper(str(folder))
    multilingual = getattr(pretrained.generation_config, "is_multilingual", None)
    if multilingual is None:
        multilingual = pretrained.config.vocab_size > ENGLISH_ONLY
    tokenizer = WhisperTokenizer.of_all_languages(str(folder), multilingual)
    tokenizer.text = "published"
    config = config_as_it_comes(hub_name(folder) or str(folder), pretrained.config.num_mel_bins)
    model = WhisperRecognizer(config, tokenizer, None, pretrained)
    return model.requires_grad_(False)


def config_as_it_comes(name: str, mel_bins: int) -> Config:
    """What a config says of a Whisper that masr has not trained."""
    options = {
        "name": "whisper",
        "features": {"kind": "whisper", "mel_bins": mel_bins, "on_the_fly": True},
        "vocab": {"kind": "whisper", "text": "published"},
        "model": {
            "pretrained": name,
            "whisper": {"context": "full"},
            "ctc": {"weight": 0.0},
            "attention_decoder": {"weight": 1.0},
        },
        "train": {"updates": 0},
        "decode": {"methods": ["whisper"], "beam": 1, "segments": {"longest": 29.0, "joined": 29.0}},
    }
    return Config.model_validate(options)


def has_weights(folder: Path) -> bool:
    """Whether weights in safetensors are there."""
    return any(folder.glob("model*.safetensors"))


def hub_folder(name: str) -> Path:
    """Where the cache has a model of the hub, which is downloaded if it is not there yet.

    FileNotFoundError in one line if it cannot be had.
    """
    if (cached := cached_folder(name)) is not None:
        return cached
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

    searched = f"it is not in the cache ({constants.HF_HUB_CACHE})"
    way_out = "fetch it where there is a network, or give the folder of a model"
    try:
        folder = Path(snapshot_download(name, allow_patterns=FILES))
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(f"{name}: the hub has no such model, or does not show it to you") from error
    except (OfflineModeIsEnabled, FileNotFoundError) as error:
        raise FileNotFoundError(f"{name}: {searched}, and the hub cannot be reached: {way_out}") from error
    except Exception as error:  # of the network, of the hub, of the disk: its client raises many kinds
        problem = " ".join(str(error).split())[:200]
        raise FileNotFoundError(f"{name}: {searched}, and downloading it failed ({problem}): {way_out}") from error
    if not (folder / "config.json").is_file() or not has_weights(folder):
        lacking = "of the hub, or of its cache while that cannot be reached, has no config.json or no safetensors"
        raise FileNotFoundError(f"{name} {lacking}: {way_out}")
    return folder


def cached_folder(name: str) -> Path | None:
    """Where the cache has a whole model of the hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=FILES, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return folder if (folder / "config.json").is_file() and has_weights(folder) else None


def hub_name(folder: Path) -> str | None:
    """The name on the hub of a folder in its cache, e.g. openai/whisper-small."""
    for part in folder.parts:
        name = part.removeprefix("models--").replace("--", "/")
        if part.startswith("models--") and re.fullmatch(HUB_NAME, name):
            return name
    return None
