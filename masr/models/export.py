"""Makes a small folder of a trained model that can be given away: float16 weights, config, tokenizer, model card."""

import importlib.util
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from masr.config import Decode
from masr.files import read_json, reading, write_whole
from masr.models.folder import load_model, save_model
from masr.models.recognizer import Recognizer, parameter_count
from masr.models.searcher import copy_search
from masr.progress import clock
from masr.score.intervals import MARK, UNKNOWN_MARK
from masr.text.languages import language_name


def export_model(folder: Path, output: Path, method: str | None = None, languages: Sequence[str] | None = None) -> Path:
    """Writes ``output`` from an experiment's folder; returns it. Recognition with it needs nothing else, but an adapted
    Whisper its ``model.pretrained``.

    ``method`` is the search that it will recognise with; default: the experiment's first. ``languages`` are those whose
    adapters are kept, and that the exported model then knows; ValueError if it has none, or not these.
    """
    model = load_model(folder)
    if languages is not None:
        model = _with_languages(model, languages)
    model.fold()
    options = model.config.decode
    methods = [method] if method else options.methods[:1]
    model.config.decode = options = Decode.model_validate(options.model_dump() | {"methods": methods})
    shutil.rmtree(output / "lm", ignore_errors=True)
    copy_search(folder, output, options.methods[0], options)
    weights = {name: tensor.half() for name, tensor in model.learned(model.state_dict()).items()}
    save_model(output, model, weights)
    card = _model_card(folder, model, options.methods[0])
    write_whole(output / "README.md", card)
    return output


def export_whisper(folder: Path, output: Path, languages: Sequence[str] | None, ctranslate2: bool = False) -> Path:
    """Writes a Whisper for transformers, or for CTranslate2, from an experiment's folder; ValueError for other models.

    Of experts of languages only that of one language can be in it.
    """
    if ctranslate2 and importlib.util.find_spec("ctranslate2") is None:
        raise RuntimeError("CTranslate2 is not installed: pip install ctranslate2")
    from masr.models.hugging_face import write_ctranslate2, write_hugging_face
    from masr.models.whisper import WhisperRecognizer

    model = load_model(folder)
    if not isinstance(model, WhisperRecognizer):
        raise ValueError(f"{folder} is no Whisper (model.pretrained), so that others cannot read it")
    if languages is not None and (len(languages) != 1 or languages[0] not in model.languages):
        raise ValueError(f"languages: name one of {', '.join(model.languages)}")
    language = languages[0] if languages else None
    if not ctranslate2:
        return write_hugging_face(model, output, language)
    with tempfile.TemporaryDirectory() as plain:
        return write_ctranslate2(write_hugging_face(model, Path(plain), language), output)


def _with_languages(model: Recognizer, languages: Sequence[str]) -> Recognizer:
    """A smaller model: of all that there is of each language, only the parts of these."""
    if model.config.model.pretrained is not None:
        raise ValueError("languages: an adapted Whisper keeps all of them; or --hugging-face with one language")
    if model.encoder.language_adapters is None:
        raise ValueError("languages: this model has no language adapters, so nothing of it belongs to one language")
    if not languages or (unknown := [code for code in languages if code not in model.languages]):
        found = f"unknown: {', '.join(unknown)}" if languages else "none given"
        raise ValueError(f"languages: {found}; this model knows {', '.join(model.languages)}")
    config = model.config.model_copy(deep=True)
    config.model.encoder.language_adapters.languages = [code for code in model.languages if code in languages]
    kept = torch.tensor([index for index, code in enumerate(model.languages) if code in languages])
    smaller = Recognizer(config, model.tokenizer, model.tree)
    shapes = {name: tensor.shape for name, tensor in smaller.state_dict().items()}
    weights = {name: tensor for name, tensor in model.state_dict().items() if name in shapes}
    smaller.load_state_dict({name: w if w.shape == shapes[name] else w[kept] for name, w in weights.items()})
    return smaller.eval()


def _model_card(folder: Path, model: Recognizer, method: str) -> str:
    names = ", ".join(language_name(code) for code in model.languages)
    lines = [
        f"# {folder.name}", "",
        f"A masr recogniser of {parameter_count(model) / 1e6:.2f} M parameters (float16 here) for {names}.",
        *_base(model), "", "```", "masr transcribe THIS_FOLDER a.wav", "```", "",
    ]  # fmt: skip
    if len(model.languages) < len(model.tokenizer.languages):
        lines += [f"Part of {folder}, where training and error rates are; it lacks other languages' adapters.", ""]
        return "\n".join(lines)
    return "\n".join([*lines, *_training(folder), *_results(folder, method)]) + "\n"


def _base(model: Recognizer) -> list[str]:
    """What else it takes to run it."""
    found = model.base_hash(model.learned(model.state_dict()))
    if found is None:
        return []
    return [f"Here is what was adapted; the rest is the Whisper `{model.config.model.pretrained}` (hash {found})."]


def _training(folder: Path) -> list[str]:
    if not (folder / "training.json").exists():
        return []
    training, environment = (read_json(folder / name) for name in ("training.json", "environment.json"))
    with reading(folder / "training.json or environment.json", "remove both: they only describe the run"):
        return _described(training, environment)


def _described(training: dict[str, Any], environment: dict[str, Any]) -> list[str]:
    run = f"`{environment['command']}` at commit {environment['commit']}; every option is in `config.yaml`"
    machine = f"{environment['machine']} ({environment['processes']} x {environment['threads']} threads)"
    audio = f"{training['audio_seconds'] / 3600:.1f} h of audio in {training['update']} updates"
    best = f"dev CER {training['best_cer']:.2%} at update {training['best_update']}"
    return [
        "## Training", "", f"- {run}", f"- {clock(training['train_seconds'])} on {machine}: {audio}; {best}", "",
    ]  # fmt: skip


def _results(folder: Path, method: str) -> list[str]:
    """The error rates of a method on every scored split."""
    lines = []
    for path in sorted(folder.glob(f"score/{method}/*/report.md")):
        with reading(path, "`masr score --force` makes it again"):
            _, _, rates = path.read_text("utf-8").partition("## Error rates (%)\n\n")
        table, *sentences = rates.partition("\n## ")[0].strip().split("\n\n")
        lines += [f"## {path.parent.parent.name}, {path.parent.name}: error rates (%)", "", table, ""]
        for sentence in sentences:
            if sentence.startswith((MARK, UNKNOWN_MARK)):
                lines += [sentence, ""]
    return lines
