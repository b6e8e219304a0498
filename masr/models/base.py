"""The Whisper under an adapted model, whose folder has only what was learnt and the hash of the rest: where it is."""

from collections.abc import Iterator
from pathlib import Path

from masr.config import Config
from masr.files import is_hub_name, read_json
from masr.models.pretrained import cached_folder, has_weights, hub_folder, is_pretrained
from masr.models.whisper import BASE, WhisperRecognizer, pretrained_whisper
from masr.text.tokenizer import Tokenizer

SHAPE = ("model_type", "d_model", "encoder_layers", "decoder_layers", "vocab_size", "num_mel_bins")
"""What two descriptions of one Whisper agree on."""
OWN_CACHE = Path(".cache/masr")
"""In the home folder: a folder for each model that was fetched by hand."""
ABOVE = 3
"""Folders above a model in which a relative ``model.pretrained`` is looked for: exp/<name> lies in that of a recipe."""


def on_its_base(
    folder: Path, config: Config, tokenizer: Tokenizer, hashed: str, base: str | None = None
) -> WhisperRecognizer:
    """The recogniser of a folder with the weights of the Whisper whose hash is ``hashed``, before it gets its own.

    ``base``, a folder or a name on the hub, is the only place to look at, if it is given. FileNotFoundError names what
    was searched, ValueError when what was named is another Whisper.
    """
    searched, others = list[str](), list[str]()
    for place in _places(folder, str(config.model.pretrained), base):
        searched.append(str(place))
        if not has_weights(place):
            continue
        model = WhisperRecognizer(config, tokenizer, None, pretrained_whisper(str(place)))
        found = model.hash_of_base()
        if found == hashed:
            return model
        others.append(f"{place} has {found}: it is another model")
    way_out = "say where it is: masr.load(..., base=FOLDER)"
    needed = f"{folder} was trained on the Whisper with hash {hashed} ({config.model.pretrained})"
    if others:
        raise ValueError(f"{needed}, but {'; '.join(others)}; {way_out}")
    where = ", ".join(searched) or "the folder of that name"
    raise FileNotFoundError(f"{needed}, which is not in {where}, beside the model or in the cache; {way_out}")


def _places(folder: Path, name: str, base: str | None) -> Iterator[Path]:
    """Folders that may hold the Whisper ``name``, the likeliest first; the last one is downloaded."""
    if base is not None:
        yield hub_folder(base) if is_hub_name(base) else Path(base)
        return
    above = [Path(), *folder.resolve().parents[:ABOVE]]
    named = {(parent / name).resolve() for parent in above}
    for parent in above:
        if (parent / name).is_dir():
            yield parent / name
    if (folder / "base").is_dir():
        yield folder / "base"
    cached = cached_folder(name) if is_hub_name(name) else None
    if cached is not None:
        yield cached
    for place in [*_beside(folder), *_in_caches()]:
        if place.resolve() not in named and _same_shape(folder, place):
            yield place
    if cached is None and is_hub_name(name):
        yield hub_folder(name)


def _beside(folder: Path) -> list[Path]:
    """Models of transformers in the folder that a model lies in."""
    return sorted(path for path in folder.resolve().parent.iterdir() if path.is_dir() and is_pretrained(path))


def _in_caches() -> list[Path]:
    """Models of transformers that were fetched before, from the hub or by hand."""
    from huggingface_hub import constants

    hub, own = Path(constants.HF_HUB_CACHE), Path.home() / OWN_CACHE
    found = [*hub.glob("models--*/snapshots/*"), *own.glob("*")]
    return sorted(path for path in found if path.is_dir() and is_pretrained(path))


def _same_shape(folder: Path, place: Path) -> bool:
    """Whether the Whisper in a place may be the one on which the model in a folder was trained, before it is read."""
    described = folder / BASE / "config.json"
    if not described.is_file():
        return True
    ours, theirs = read_json(described), read_json(place / "config.json")
    return all(ours.get(name) == theirs.get(name) for name in SHAPE)
