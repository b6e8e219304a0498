"""Stage 3: trains the recogniser of a config in ``exp/<name>``."""

import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from lhotse.cut import Cut

from masr.adapt.distill import Teacher
from masr.config import Config
from masr.config_files import ConfigError, load_config, save_config
from masr.data.features import FRAME_SHIFT
from masr.data.rejected import Rejected
from masr.data.sampling import EpochPlan, language_of
from masr.files import file_hash, read_json, write_text
from masr.models.folder import WEIGHTS, build_model, load_model
from masr.models.recognizer import Recognizer, parameter_count, parameter_count_for_one_language
from masr.progress import clock, say
from masr.stages import features, vocab
from masr.stages.features import load_cuts, load_statistics
from masr.stages.output import StageOutput, differences
from masr.stages.vocab import load_tokenizer, load_tree
from masr.text.tokenizer import Tokenizer
from masr.train.trainer import Trainer
from masr.vocab.tree import same_tree

DECIDES_NOTHING: dict[str, Any] = {
    "name": True,
    "decode": True,
    "data_dir": True,
    "corpus": {"path", "test"},
    "features": {"jobs"},
    "data": {"workers", "max_bad_fraction"},
    "train": {"threads", "log_every", "keep_checkpoints", "max_bad_steps"},
}
DATA = "data.json"
"""Which output of stages 1 and 2 a run was begun with."""


def experiment_folder(config: Config) -> Path:
    """``exp/<name>``."""
    return Path("exp") / config.name


def run(config: Config, force: bool = False) -> None:
    """Trains, or goes on from the newest complete checkpoint; the best averaged weights end in the folder."""
    folder = experiment_folder(config)
    data = {"features": features.require(config), "vocab": vocab.require(config)}
    decisive = {**data, "config": config.model_dump(exclude=DECIDES_NOTHING)}
    if config.train.init_from:
        start = Path(config.train.init_from) / WEIGHTS
        if not start.is_file():
            raise FileNotFoundError(f"train.init_from: {start.parent} holds no trained model ({WEIGHTS} is missing)")
        decisive["init_from"] = file_hash(start)
    if (teacher := Path(config.train.distill.teacher or "") / WEIGHTS).is_file():
        decisive["teacher"] = file_hash(teacher)
    output = StageOutput("train", folder, decisive)
    gpu = torch.cuda.is_available()
    full = config.train.precision == "fp32" or (config.train.precision == "fp16" and not gpu)
    accelerator = Accelerator(mixed_precision="no" if full else config.train.precision, cpu=not gpu)
    with accelerator.main_process_first():
        if accelerator.is_main_process and not force:
            _refuse_another_run(config, data, folder)
        if not output.begin(force and accelerator.is_main_process, clear=force and accelerator.is_main_process):
            return
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    set_seed(config.seed)
    trainer = _build_trainer(config, folder, accelerator)
    set_seed(config.seed + accelerator.process_index)  # the same weights everywhere, but not the same dropout
    if accelerator.is_main_process:
        save_config(config, folder / "config.yaml")
        (folder / DATA).write_text(json.dumps(data, indent=1))
        _write_environment(folder, accelerator)
    progress = trainer.run()
    if accelerator.is_main_process:
        best = f"dev CER {progress['best_cer']:.2%} at update {progress['best_update']}"
        say(f"train: {best}; weights in {folder / WEIGHTS}")
        say(f"train: {clock(progress['train_seconds'])} for {progress['audio_seconds'] / 3600:.1f} h of audio")
        model = trainer.recognizer
        one = parameter_count_for_one_language(model)
        learnt = sum(p.numel() for p in model.parameters() if p.requires_grad) if config.train.updates else 0
        counts = {"parameters": parameter_count(model), "parameters_of_one_language": one, "learnt": learnt}
        record = counts | progress
        write_text(folder / "training.json", json.dumps(record, indent=1))
        output.seal("*.safetensors")
    accelerator.wait_for_everyone()
    accelerator.end_training()


def _build_trainer(config: Config, folder: Path, accelerator: Accelerator) -> Trainer:
    quiet = not accelerator.is_main_process
    tokenizer = load_tokenizer(config)
    model = build_model(config, tokenizer, load_tree(config))
    model.set_statistics(*load_statistics(config).tensors())
    if config.train.init_from:
        start_from(Path(config.train.init_from), model, quiet)
    model.start_near()
    if config.model.encoder.language_adapters.languages:
        raise ConfigError("model.encoder.language_adapters.languages: training has all of them; use masr export")
    for name in config.train.frozen:
        _freeze(model, name)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"train.frozen: {', '.join(config.train.frozen)}: nothing is left to learn")
    only = config.model.adapt.only  # the others have nothing to teach
    cuts = [cut for cut in load_cuts(config, config.corpus.train) if not only or language_of(cut) in only]
    trainable = _trainable(cuts, model, config, folder, quiet)
    plan = EpochPlan(trainable, config.data, config.seed)
    _check_every_language(config, model.languages, plan)
    if not quiet:
        as_it_comes = config.model.pretrained and not (config.train.updates or config.train.init_from)
        if as_it_comes and config.model.whisper.context == "clip":
            say("train: a Whisper as it comes does not know when a short clip ends: set model.whisper.context=full")
        say(f"train: {parameter_count(model) / 1e6:.2f} M parameters, {len(tokenizer)} tokens, in {folder}")
        say(f"train: {plan.describe()}")
    dev = [cut for cut in load_cuts(config, config.corpus.dev) if not only or language_of(cut) in only]
    if config.train.distill.teacher:
        model.teacher = _teacher(model.to(accelerator.device), Path(config.train.distill.teacher), accelerator.device)
    return Trainer(model, plan, dev, config, folder, accelerator, _unlabelled(config, quiet))


def _check_every_language(config: Config, languages: Sequence[str], plan: EpochPlan) -> None:
    """Weights that move, and conflicts, are found by comparing all objectives in one update."""
    soup = config.train.soup
    kinds = sorted({level.weights for level in soup.levels} - {"uniform", "static"})
    compared = [f"levels: weights={', '.join(kinds)}"] * bool(kinds)
    compared += [f"detect_epochs={soup.detect_epochs:g}"] * bool(soup.levels and soup.detect_epochs)
    if compared and not config.data.every_language:
        raise ConfigError(
            f"train.soup.{compared[0]} compares all objectives, so every update must have recordings of every "
            "language: set data.every_language=true"
        )
    if compared and (absent := [code for code in languages if code not in plan.recordings]):
        raise ConfigError(
            f"train.soup.{compared[0]} compares all objectives, but there is nothing of {', '.join(absent)} to train "
            "on: leave them out of corpus.languages"
        )


def _teacher(model: Recognizer, folder: Path, device: torch.device) -> Teacher:
    if model.config.model.pretrained is None:
        raise ConfigError("train.distill.teacher: only a pretrained model (model.pretrained) can have one")
    return Teacher(load_model(folder).to(device), model, folder)


def _unlabelled(config: Config, quiet: bool = False) -> EpochPlan | None:
    """Speech of which the text is not looked at."""
    options = config.model.self_supervised
    if not options.weight:
        return None
    limits = config.data.min_seconds, config.data.max_seconds
    split = options.split or config.corpus.train
    found = load_cuts(config, split)
    cuts = [cut for cut in found if limits[0] <= cut.duration <= limits[1]]
    if not cuts:
        raise ValueError(f"model.self_supervised: no recording of {split} has {limits[0]:g} to {limits[1]:g} s")
    if not quiet:
        hours = sum(cut.duration for cut in cuts) / 3600
        say(f"train: {len(cuts)} of {len(found)} of {split} ({hours:.2f} h, every speed) are heard without their text")
    data = config.data.model_copy(update={"batch_seconds": options.batch_seconds, "every_language": False})
    return EpochPlan(cuts, data, config.seed + 1)


def _freeze(model: Recognizer, name: str) -> None:
    """Stops a part of the model from learning; its encoder is all but the adapters, which may be added to it."""
    adapters = model.encoder.language_adapters
    if name == "experts":
        found = [parameter for key, parameter in model.named_parameters() if "lora_" in key]
        for parameter in found:
            parameter.requires_grad_(False)
        if not found:
            raise ConfigError("train.frozen: this model has no experts")
        return
    part = adapters if name == "language_adapters" else getattr(model, name)
    if part is None:
        raise ConfigError(f"train.frozen: this model has no {name}")
    ours = set() if adapters is None or name != "encoder" else set(adapters.parameters())
    for parameter in part.parameters():
        parameter.requires_grad_(parameter in ours)


def start_from(folder: Path, model: Recognizer, quiet: bool = False) -> None:
    """Gives ``model`` the weights of a trained one, where both have them in the same shape; ValueError if nowhere.

    Rows of a vocabulary would be those of other tokens: both must have the same one. Vectors of another tree are left.
    """
    theirs = load_model(folder)
    if not model.tokenizer.same_tokens(theirs.tokenizer):
        raise ValueError(
            f"train.init_from: {folder} has another vocabulary; use the data_dir and vocab it was trained with"
        )
    base = model.base_hash(model.learned(model.state_dict()))
    if base is not None and theirs.hash_of_base() != base:
        raise ConfigError(
            f"train.init_from: {folder} is another Whisper than model.pretrained={model.config.model.pretrained}. To "
            f"adapt it: masr export {folder} FOLDER --hugging-face, and model.pretrained=FOLDER without init_from"
        )
    if theirs.adapted and not model.adapted:
        raise ConfigError(
            f"train.init_from: {folder} is an adapted Whisper (model.adapt), and nothing here takes what it learnt: "
            f"adapt alike, or masr export {folder} FOLDER --hugging-face, and model.pretrained=FOLDER without init_from"
        )
    ours, weights = model.state_dict(), theirs.state_dict()
    shared = {name: weights[name] for name in ours if name in weights and weights[name].shape == ours[name].shape}
    if not same_tree(theirs.tree, model.tree):
        outputs = ["attention_decoder.output."] + ["ctc.output."] * model.config.model.ctc.hierarchical
        shared = {name: tensor for name, tensor in shared.items() if not name.startswith(tuple(outputs))}
    if not shared:
        raise ValueError(f"train.init_from: {folder} shares no weights with this model")
    model.load_state_dict(shared, strict=False)
    fresh = sorted({".".join(name.split(".")[:2]) for name in ours.keys() - shared.keys() - model.pretrained_names})
    if not quiet:
        say(f"train: starts from {folder}; at random: {', '.join(fresh) or 'nothing'}")


def _trainable(cuts: list[Cut], model: Recognizer, config: Config, folder: Path, quiet: bool) -> list[Cut]:
    """Cuts within the duration limits that leave CTC enough frames; the others are listed in ``rejected.tsv``."""
    rejected = Rejected(folder / "rejected.tsv")
    good = []
    for cut in cuts:
        if problem := _problem(cut, model, model.tokenizer, config):
            rejected.add(cut.id, problem)
        else:
            good.append(cut)
    if not quiet:
        rejected.finish("train", len(cuts), config.data.max_bad_fraction)
    if not good:
        raise ValueError(f"train: no recording of {config.corpus.train} can be used; reasons in {rejected.path}")
    return good


def _problem(cut: Cut, model: Recognizer, tokenizer: Tokenizer, config: Config) -> str | None:
    if not config.data.min_seconds <= cut.duration <= config.data.max_seconds:
        limits = f"data.min_seconds={config.data.min_seconds:g} to data.max_seconds={config.data.max_seconds:g}"
        return f"{cut.duration:.2f} s is outside {limits}"
    tokens = np.array(tokenizer.encode(cut.supervisions[0].text, language_of(cut)))
    limit = None if model.attention_decoder is None else model.attention_decoder.longest
    if limit is not None and len(tokens) > limit:
        return f"{len(tokens)} tokens, but the decoder writes {limit} at most"
    if not config.model.ctc.weight:
        return None
    frames = (
        int(model.encoder.subsampling.lengths(torch.tensor(int(cut.duration / FRAME_SHIFT)))) * model.ctc.upsampling
    )
    needed = len(tokens) + int((tokens[1:] == tokens[:-1]).sum())  # CTC puts a blank between equal tokens
    return f"{frames} CTC frames for {needed} tokens and blanks of CTC" if frames < needed else None


def _refuse_another_run(config: Config, data: dict[str, str], folder: Path) -> None:
    """A folder belongs to one config and its data; training another one into it would mix two runs."""
    if not (folder / "config.yaml").exists():
        return
    before, now = (c.model_dump(exclude=DECIDES_NOTHING) for c in (load_config(folder / "config.yaml"), config))
    changed = sorted(differences(before, now))
    if (folder / DATA).exists():
        old = read_json(folder / DATA, "remove it if you know that the data is the same")
        changed += [f"the output of `masr {stage}`" for stage in data if data[stage] != old.get(stage)]
    if changed:
        raise ConfigError(
            f"{folder} was trained with another config or data; changed: {', '.join(changed)}. "
            "Choose another name=..., or --force to throw the old run away."
        )


def _write_environment(folder: Path, accelerator: Accelerator) -> None:
    """What is needed to run this again, and on what it ran."""
    packages = ("masr", "torch", "lhotse", "accelerate", "sentencepiece", "numpy")
    environment = {
        "command": " ".join(["masr", *sys.argv[1:]]), "commit": _commit(),
        "python": platform.python_version(), "packages": {name: version(name) for name in packages},
        "processes": accelerator.num_processes, "threads": torch.get_num_threads(), "device": str(accelerator.device),
        "machine": f"{platform.machine()}, {_processor()}",
    }  # fmt: skip
    write_text(folder / "environment.json", json.dumps(environment, indent=1))


def _commit() -> str | None:
    """Of masr's own checkout, if it is one and git is there."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() or None
    except OSError:
        return None


def _processor() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()
