"""Stage 3: trains the recogniser of a config in ``exp/<name>``."""

import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed
from lhotse.cut import Cut

from masr.adapt.distill import Teacher
from masr.config import Config
from masr.config_files import ConfigError, load_config, save_config
from masr.data.batches import transcript_tokens
from masr.data.features import FRAME_SHIFT
from masr.data.random import Purpose, seed_of
from masr.data.rejected import Rejected
from masr.data.sampling import EpochPlan, language_of
from masr.files import DAMAGE, file_hash, text_lines, write_whole
from masr.models.folder import WEIGHTS, build_model, load_model
from masr.models.recognizer import Recognizer, parameter_count, parameter_count_for_one_language
from masr.progress import clock, say
from masr.stages import features, vocab
from masr.stages.features import load_cuts, load_statistics
from masr.stages.output import SEAL, StageOutput, plain, read_seal
from masr.stages.resume import DATA, changes_on_the_way, decisive, newest_update
from masr.stages.vocab import load_tokenizer, load_tree
from masr.train.trainer import Trainer
from masr.vocab.tree import same_tree

FEWEST_COMPARED = 4
"""Recordings that comparing some with others takes: two in each half of an update."""


def experiment_folder(config: Config) -> Path:
    """``exp/<name>``."""
    return Path("exp") / config.name


def run(config: Config, force: bool = False, verify: bool = False) -> None:
    """Trains, or goes on from the newest complete checkpoint; the best averaged weights end in the folder."""
    folder = experiment_folder(config)
    data = _data(config)
    output = StageOutput("train", folder, inputs={**data, "config": decisive(config), **_start(config)})
    output.files = "*.safetensors"
    if _finished_by_first_masr(config, folder) and not force:
        say(f"train: complete in {folder}, by masr 0.1 (--force redoes it)")
        return
    accelerator = _accelerator(config)
    with ExitStack() as stack:
        if accelerator.is_main_process:  # the others wait for it below
            finished = read_seal(folder) is not None
            complete = output.is_complete(verify)
            changes = [] if force or complete else changes_on_the_way(config, data, folder, finished)
            begun = newest_update(folder) > 0 and not force
            needed = stack.enter_context(output.writing(force, clear=not begun, verify=verify))
            found = [needed, changes, _history(folder, changes) if begun else []]
        else:
            found = [None, None, None]
        needed, changes, config.train.changed = broadcast_object_list(found)
        if needed:
            _train(config, folder, data, changes, accelerator)


def _data(config: Config) -> dict[str, str]:
    """What stands for the recordings, texts and vocabulary that a run is trained with."""
    used = {
        "the training split": features.require(config, config.corpus.train),
        "the dev split": features.require(config, config.corpus.dev),
        "the vocabulary": vocab.require(config),
    }
    options = config.model.self_supervised
    if options.weight and options.split:
        used["the split without text"] = features.require(config, options.split)
    return used


def _start(config: Config) -> dict[str, str]:
    """Hashes of the models that a run starts from and learns from; FileNotFoundError when the first is not there."""
    found = {}
    if config.train.init_from:
        start = Path(config.train.init_from) / WEIGHTS
        if not start.is_file():
            raise FileNotFoundError(f"train.init_from: {start.parent} holds no trained model ({WEIGHTS} is missing)")
        found["init_from"] = file_hash(start)
    if (teacher := Path(config.train.distill.teacher or "") / WEIGHTS).is_file():
        found["teacher"] = file_hash(teacher)
    return found


def _finished_by_first_masr(config: Config, folder: Path) -> bool:
    """Whether masr 0.1, whose seals were other ones, has trained this model, and its weights are still the same."""
    try:
        seal = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        weights = seal["files"][WEIGHTS]
        if not isinstance(weights, str) or file_hash(folder / WEIGHTS) != weights:
            return False
        before = load_config(folder / "config.yaml")
    except (OSError, *DAMAGE):
        return False
    return plain(decisive(before)) == plain(decisive(config))


def _accelerator(config: Config) -> Accelerator:
    gpu = torch.cuda.is_available()
    full = config.train.precision == "fp32" or (config.train.precision == "fp16" and not gpu)
    return Accelerator(mixed_precision="no" if full else config.train.precision, cpu=not gpu)


def _train(config: Config, folder: Path, data: dict[str, str], changes: list[str], accelerator: Accelerator) -> None:
    """Trains in a folder that is ours; the main process writes the records."""
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    set_seed(config.seed)
    trainer = _build_trainer(config, folder, accelerator, changes)
    # The same weights everywhere, but not the same dropout.
    set_seed(seed_of(Purpose.DROPOUT, config.seed, accelerator.process_index))
    if accelerator.is_main_process:
        save_config(config, folder / "config.yaml")
        write_whole(folder / DATA, json.dumps(data, indent=1))
        _write_environment(folder, accelerator)
    progress = trainer.run()
    if accelerator.is_main_process:
        _write_record(trainer, progress, folder)
    accelerator.wait_for_everyone()
    accelerator.end_training()


def _history(folder: Path, changes: list[str]) -> list[str]:
    """Options that were others in a part of the run: those noted before, and the present ``changes``."""
    earlier = load_config(folder / "config.yaml").train.changed if (folder / "config.yaml").exists() else []
    return [*earlier, *(f"update {newest_update(folder)}: {change}" for change in changes)]


def _write_record(trainer: Trainer, progress: dict[str, Any], folder: Path) -> None:
    """Writes ``training.json``, and says how it went."""
    best = f"dev CER {progress['best_cer']:.2%} at update {progress['best_update']}"
    say(f"train: {best}; weights in {folder / WEIGHTS}")
    say(f"train: {clock(progress['train_seconds'])} for {progress['audio_seconds'] / 3600:.1f} h of audio")
    model = trainer.recognizer
    one = parameter_count_for_one_language(model)
    learnt = sum(p.numel() for p in model.parameters() if p.requires_grad) if trainer.options.updates else 0
    counts = {"parameters": parameter_count(model), "parameters_of_one_language": one, "learnt": learnt}
    write_whole(folder / "training.json", json.dumps(counts | progress, indent=1))


def _build_trainer(config: Config, folder: Path, accelerator: Accelerator, changes: Sequence[str] = ()) -> Trainer:
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
    return Trainer(model, plan, dev, config, folder, accelerator, _unlabelled(config, quiet), changes)


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
    limits = max(config.data.min_seconds, options.least_seconds), config.data.max_seconds
    split = options.split or config.corpus.train
    found = load_cuts(config, split)
    cuts = [cut for cut in found if limits[0] <= cut.duration <= limits[1]]
    if not cuts:
        raise ValueError(f"model.self_supervised: no recording of {split} has {limits[0]:g} to {limits[1]:g} s")
    if not quiet:
        hours = sum(cut.duration for cut in cuts) / 3600
        say(f"train: {len(cuts)} of {len(found)} of {split} ({hours:.2f} h, every speed) are heard without their text")
    data = config.data.model_copy(update={"batch_seconds": options.batch_seconds, "every_language": False})
    plan = EpochPlan(cuts, data, config.seed, stream=1)
    recordings = sum(len(group) for group in plan.recordings.values())
    if recordings < FEWEST_COMPARED and options.compared > 1:
        raise ValueError(
            f"model.self_supervised.negatives=batch: {recordings} recordings of {split} have {limits[0]:g} to "
            f"{limits[1]:g} s, and it takes {FEWEST_COMPARED} to compare them: lower context or future, or choose "
            "another split"
        )
    return plan


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
    """Cuts within the limits that leave CTC enough frames; the others are listed in ``rejected.tsv``."""
    rejected = Rejected(folder / "rejected.tsv")
    good = []
    for cut in cuts:
        tokens = np.array(transcript_tokens(cut, model.tokenizer))
        if limit := _outside(cut, len(tokens), model, config):
            rejected.leave_out(cut.id, limit)
        elif problem := _problem(cut, tokens, model, config):
            rejected.add(cut.id, problem)
        else:
            good.append(cut)
    if not quiet:
        rejected.finish("train", len(cuts), config.data.max_bad_fraction)
    if not good:
        raise ValueError(f"train: no recording of {config.corpus.train} can be used; reasons in {rejected.path}")
    return good


def _outside(cut: Cut, tokens: int, model: Recognizer, config: Config) -> str | None:
    """The limit that leaves out a cut, in which nothing need be wrong."""
    if not config.data.min_seconds <= cut.duration <= config.data.max_seconds:
        limits = f"data.min_seconds={config.data.min_seconds:g} to data.max_seconds={config.data.max_seconds:g}"
        return f"{cut.duration:.2f} s is outside {limits}"
    longest = None if model.attention_decoder is None else model.attention_decoder.longest
    if longest is not None and tokens > longest:
        return f"{tokens} tokens, but the decoder writes {longest} at most"
    return None


def _problem(cut: Cut, tokens: np.ndarray, model: Recognizer, config: Config) -> str | None:
    """What is wrong with a cut within the limits."""
    if not config.model.ctc.weight:
        return None
    frames = (
        int(model.encoder.subsampling.lengths(torch.tensor(int(cut.duration / FRAME_SHIFT)))) * model.ctc.upsampling
    )
    needed = len(tokens) + int((tokens[1:] == tokens[:-1]).sum())  # CTC puts a blank between equal tokens
    return f"{frames} CTC frames for {needed} tokens and blanks of CTC" if frames < needed else None


def reason_to_leave_out(cut: Cut, model: Recognizer, config: Config) -> str | None:
    """Why training leaves out a cut, if it does: a limit, or what is wrong with it."""
    tokens = np.array(transcript_tokens(cut, model.tokenizer))
    return _outside(cut, len(tokens), model, config) or _problem(cut, tokens, model, config)


def _write_environment(folder: Path, accelerator: Accelerator) -> None:
    """What is needed to run this again, and on what it ran."""
    packages = ("masr", "torch", "lhotse", "accelerate", "sentencepiece", "numpy")
    environment = {
        "command": " ".join(["masr", *sys.argv[1:]]), "commit": commit(),
        "python": platform.python_version(), "packages": {name: version(name) for name in packages},
        "processes": accelerator.num_processes, "threads": torch.get_num_threads(), "device": str(accelerator.device),
        "machine": f"{platform.machine()}, {_processor()}",
    }  # fmt: skip
    write_whole(folder / "environment.json", json.dumps(environment, indent=1))


def commit() -> str | None:
    """Of masr's own checkout, if it is one and git is there."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() or None
    except OSError:
        return None


def _processor() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    processors = Path("/proc/cpuinfo")
    lines = text_lines(processors) if processors.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()
