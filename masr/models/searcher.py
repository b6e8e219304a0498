"""What a trained folder needs to search well: its model, its language models in ``lm/``, the scales that dev chose."""

import json
import shutil
from pathlib import Path

from masr.config import Decode
from masr.decode.language_models import LanguageModels
from masr.decode.search import METHODS, Searcher, Setting, check_methods, result_name
from masr.files import reading, write_whole
from masr.models.recognizer import Recognizer
from masr.nn.language_model import LSTMLanguageModel
from masr.tensor_files import load_tensors, save_tensors
from masr.text.tokenizer import START_END, Tokenizer

NGRAMS, NEURAL = "ngrams", "neural.safetensors"
SCALES = "scales.json"


def load_searcher(folder: Path, model: Recognizer, options: Decode) -> Searcher:
    """All of ``options.methods`` on the model of a folder (exp/<name>)."""
    check_methods(options, model)
    needed = [METHODS[name] for name in options.methods]
    ngrams = neural = None
    if any(method.ngrams for method in needed):
        ngrams = LanguageModels.load(folder / "lm" / NGRAMS, model.tokenizer)
    if any(method.neural for method in needed):
        neural = load_neural(folder / "lm" / NEURAL, model.tokenizer).to(model.feature_mean.device)
    return Searcher(model, options, ngrams, neural, folder / "graphs")


def save_neural(model: LSTMLanguageModel, path: Path, tokenizer: Tokenizer) -> None:
    """Weights, with the shape of the model and its tokenizer's hash in the file's header."""
    header = {name: str(getattr(model.lstm, name)) for name in ("hidden_size", "num_layers")}
    header["tokens"] = tokenizer.hash()
    save_tensors(path, model.state_dict(), header)


def load_neural(path: Path, tokenizer: Tokenizer) -> LSTMLanguageModel:
    """What `save_neural` wrote, in eval mode; ValueError when it belongs to another vocabulary."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no neural language model; make it with `masr lm`")
    with reading(path, "make it again: `masr lm --force`"):
        weights, header = load_tensors(path)
        if header["tokens"] != tokenizer.hash():
            raise ValueError(f"{path} is a model of another vocabulary; run `masr lm` again")
        model = LSTMLanguageModel(len(tokenizer), int(header["hidden_size"]), int(header["num_layers"]), 0.0, START_END)
        model.load_state_dict(weights)
    return model.eval()


def save_scales(folder: Path, method: str, setting: Setting, dev_cer: float) -> None:
    """Keeps what dev chose."""
    path = folder / "decode" / method / SCALES
    write_whole(path, json.dumps({"scales": setting, "dev_macro_cer": round(dev_cer, 6)}, indent=1))


def load_scales(folder: Path, method: str, options: Decode) -> Setting:
    """The scales that dev chose for a method."""
    if not METHODS[method].has_scales(options):
        return METHODS[method].scales(options)[0]
    path = _scales_file(folder, method, options)
    with reading(path, "`masr decode --force` chooses them again"):
        found = json.loads(path.read_text())["scales"]
        return {name: float(found[name]) for name in METHODS[method].scales(options)[0]}


def _scales_file(folder: Path, method: str, options: Decode) -> Path:
    """Those for all languages, or for the first prompt for which there are any."""
    names = dict.fromkeys(result_name(method, prompt) for prompt in ("all", *options.prompts))
    files = [folder / "decode" / name / SCALES for name in names]
    found = [file for file in files if file.is_file()]
    if not found:
        raise FileNotFoundError(f"{files[0]}: the scales of {method} have not been chosen yet; run `masr decode`")
    return found[0]


def copy_search(folder: Path, output: Path, method: str, options: Decode) -> None:
    """Gives another folder what a method needs beside the model."""
    wanted = [(METHODS[method].ngrams, f"lm/{NGRAMS}"), (METHODS[method].neural, f"lm/{NEURAL}")]
    for name in [name for needed, name in wanted if needed]:
        if not (folder / name).exists():
            raise FileNotFoundError(
                f"{folder / name} is missing, which {method} needs: run `masr decode` with it first"
            )
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (folder / name).is_dir() else shutil.copy
        copy(folder / name, output / name)
    if METHODS[method].has_scales(options):
        (output / "decode" / method).mkdir(parents=True, exist_ok=True)
        shutil.copy(_scales_file(folder, method, options), output / "decode" / method / SCALES)
