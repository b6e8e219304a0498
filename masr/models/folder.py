"""A model is a folder that loads anywhere: config, vocabulary and weights in safetensors (never unpickled code)."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from masr.config import Config
from masr.config_files import load_config, save_config
from masr.models.recognizer import Recognizer
from masr.tensor_files import DamagedWeights, load_tensors, save_tensors
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
        save_tensors(folder / WEIGHTS, weights, header)
    except (OSError, SafetensorError) as error:
        raise OSError(f"cannot write the model in {folder}: {error}. Free space and run the same command.") from error


def load_model(folder: Path, device: str | torch.device = "cpu", base: str | None = None) -> Recognizer:
    """The recogniser of a folder that masr has written, or of a Whisper as it comes (a folder of transformers), ready
    to recognise; weights in float16 are read as float32.

    ``base`` is the folder, or the name on the hub, of the Whisper that an adapted one needs; default: the one that its
    config names, or one with the same hash beside the folder or in the cache (`masr.models.base`).
    """
    from masr.models.pretrained import is_pretrained, load_pretrained

    if is_pretrained(folder):
        return load_pretrained(folder).to(device).eval()
    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(f"{folder} holds no trained model ({WEIGHTS} is missing): train it with `masr train`")
    config = load_config(folder / "config.yaml")
    tokenizer = Tokenizer.load(folder / "vocab")
    try:
        weights, header = load_tensors(folder / WEIGHTS)
        model = _model_of(folder, config, tokenizer, header.get("base"), base)
        model.load_learned({name: tensor.float() for name, tensor in weights.items()})
    except DamagedWeights as error:
        raise ValueError(f"{error}. Take it from a copy, or train again: `masr train` goes on where it can") from error
    except RuntimeError as error:
        problem = "not the weights of the model that config.yaml and vocab/ describe"
        raise ValueError(f"{folder / WEIGHTS}: {problem}: {' '.join(str(error).split())}"[:400]) from error
    return model.to(device).eval()


def _model_of(folder: Path, config: Config, tokenizer: Tokenizer, hashed: str | None, base: str | None) -> Recognizer:
    """The model of a folder before it gets its weights; ``hashed`` stands for the pretrained one under them."""
    if config.model.pretrained is None:
        return Recognizer(config, tokenizer, trees.load(folder / "vocab", config.vocab, tokenizer))
    if hashed is None:
        from masr.models.whisper import WhisperRecognizer, without_weights

        return WhisperRecognizer(config, tokenizer, None, without_weights(folder))
    from masr.models.base import on_its_base

    return on_its_base(folder, config, tokenizer, hashed, base)
