"""A model is a folder that loads anywhere: config, vocabulary and weights in safetensors (never unpickled code)."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from masr.config import Config
from masr.config_files import load_config, save_config
from masr.files import written_beside
from masr.models.recognizer import Recognizer
from masr.text.tokenizer import Tokenizer
from masr.vocab import tree as trees
from masr.vocab.tree import Tree

WEIGHTS = "averaged.safetensors"


def build_model(config: Config, tokenizer: Tokenizer, tree: Tree | None = None) -> Recognizer:
    """The untrained recogniser of a config, or the pretrained one that it names."""
    if config.model.pretrained is None:
        return Recognizer(config, tokenizer, tree)
    from masr.models.whisper import WhisperRecognizer, pretrained_whisper

    return WhisperRecognizer(config, tokenizer, None, pretrained_whisper(config.model.pretrained))


def save_model(folder: Path, model: Recognizer, weights: dict[str, Tensor] | None = None) -> None:
    """Makes ``folder`` a model that loads anywhere: config, tokenizer, tree, weights (default: those of ``model``).

    Of a pretrained model that did not learn only its hash is kept.
    """
    weights = model.learned(model.state_dict()) if weights is None else weights
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_config(model.config, folder / "config.yaml")
        model.tokenizer.save(folder / "vocab")
        if model.tree is not None:
            model.tree.save(folder / "vocab" / trees.FILE, model.tokenizer.hash())
        model.save_description(folder)
        header = {} if (base := model.base_hash(weights)) is None else {"base": base}
        with written_beside(folder / WEIGHTS) as path:
            save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path, header)
    except (OSError, SafetensorError) as error:
        raise OSError(f"cannot write the model in {folder}: {error}. Free space and run the same command.") from error


def load_model(folder: Path, device: str | torch.device = "cpu") -> Recognizer:
    """The trained recogniser of a folder, ready to recognise; weights in float16 are read as float32."""
    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(f"{folder} holds no trained model ({WEIGHTS} is missing): train it with `masr train`")
    config = load_config(folder / "config.yaml")
    tokenizer = Tokenizer.load(folder / "vocab")
    try:
        model = _model_of(folder, config, tokenizer)
        model.load_learned({name: tensor.float() for name, tensor in load_file(folder / WEIGHTS).items()})
    except (SafetensorError, RuntimeError) as error:
        problem = "damaged, or not the weights of the model that config.yaml and vocab/ describe"
        raise ValueError(f"{folder / WEIGHTS}: {problem}: {' '.join(str(error).split())}"[:400]) from error
    return model.to(device).eval()


def _model_of(folder: Path, config: Config, tokenizer: Tokenizer) -> Recognizer:
    """The model of a folder before it gets its weights."""
    if config.model.pretrained is None:
        return Recognizer(config, tokenizer, trees.load(folder / "vocab", config.vocab, tokenizer))
    from masr.models.whisper import load_whisper

    with safe_open(folder / WEIGHTS, "pt") as file:
        base = (file.metadata() or {}).get("base")
    return load_whisper(folder, config, tokenizer, base)
