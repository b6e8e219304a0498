"""What is done to a Whisper that was adapted: another language, one expert of many, a list of what there is."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from masr.config import Config
from masr.config_files import ConfigError, load_config
from masr.files import read_json, reading
from masr.models.folder import WEIGHTS, load_model, save_model
from masr.models.whisper import ADDED, WhisperRecognizer, pretrained_whisper
from masr.progress import in_markdown, say
from masr.stages import features, prepare, train, vocab
from masr.text.whisper_tokenizer import WhisperTokenizer

KINDS = (
    "cat", "svd", "ties", "ties_svd", "dare_ties", "dare_ties_svd", "dare_linear", "dare_linear_svd", "magnitude_prune",
    "magnitude_prune_svd",
)  # fmt: skip
"""Ways to merge experts: cat is their exact mean, svd that mean at a rank; others keep some of the values."""


def learn(conf: Path, languages: Sequence[str], overrides: Sequence[str] = ()) -> Path:
    """Stages 0 to 3 of a config on some languages, with data of their own, so that those of the recipe stay; the
    folder of the model.

    ConfigError where the config adapts nothing.
    """
    if not languages:
        raise ConfigError("languages: none given; name some, e.g. ca,el")
    given = [f"corpus.languages={json.dumps(list(languages))}", *overrides]
    config = load_config(conf, given)
    if config.model.pretrained is None or not _kind(config):
        raise ConfigError(
            f"{conf} adapts nothing: set model.pretrained and model.adapt (prompts, lora, language_codes)"
        )
    if config.data_dir == load_config(conf).data_dir:
        config = load_config(conf, [*given, f"data_dir={config.data_dir}-{'-'.join(languages)}"])
    return _through_training(config)


def expand(
    folder: Path, language: str, near: str | None = None, overrides: Sequence[str] = (), force: bool = False
) -> Path:
    """Adds a language to a model with parameters of each language; the others stay bit for bit what they were.

    ``near`` is a language of the model with whose parameters the new one begins, and whose token it takes if Whisper
    has none for it. Returns the folder of the new model; ConfigError for a language that is there already.
    """
    model = _whisper(folder)
    _check_new(folder, model, language, near)
    config, tokenizer = model.config, model.tokenizer
    given = [
        f"name={config.name}-{language}", f"data_dir={config.data_dir}-{language}", f"train.init_from={folder}",
        f"corpus.languages={json.dumps([*model.languages, language])}", f"model.adapt.only={json.dumps([language])}",
        f"model.adapt.near={json.dumps({language: near} if near else {})}", "model.adapt.classifier=false",
        "train.frozen=[]", "train.distill.teacher=null",
    ]  # fmt: skip
    if near is not None and not tokenizer.knows(language):
        given += [f"model.whisper.language_codes={json.dumps(tokenizer.codes | {language: tokenizer.code_of(near)})}"]
    new = load_config(folder / "config.yaml", [*given, *overrides])
    if not new.train.updates:
        raise ConfigError(f"{folder} was made without training: say for how long, e.g. train.updates=200")
    return _through_training(new, force)


def _check_new(folder: Path, model: WhisperRecognizer, language: str, near: str | None) -> None:
    if language in model.languages:
        raise ConfigError(f"{folder} knows {language} already; it knows {', '.join(model.languages)}")
    fused = model.config.model.adapt.lora.fused
    if not model.by_language or fused:
        what = "its experts are fused" if fused else "nothing of it is one language's own"
        raise ConfigError(f"{folder}: {what}, so another language would change all others; train it anew with that one")
    if near is not None and near not in model.languages:
        raise ConfigError(f"near: {near} is not one of {', '.join(model.languages)}")
    if near is None and not model.tokenizer.knows(language):
        raise ConfigError(f"Whisper has no language token for {language}: name a language (near) whose token it takes")


def _through_training(config: Config, force: bool = False) -> Path:
    for stage in (prepare, features, vocab):
        stage.run(config)
    train.run(config, force)
    return train.experiment_folder(config)


def join(folders: Sequence[Path], output: Path, languages: Sequence[str] | None = None) -> Path:
    """Writes a model of what several models have learnt of single languages (experts, prompts, language codes): each of
    the ``languages`` (default: all) as the first that knows it has it, bit for bit.

    ConfigError where models do not fit together, or none knows a language.
    """
    models = {folder: _whisper(folder) for folder in folders}
    owners = {code: model for model in reversed(models.values()) for code in model.languages}
    chosen = sorted(owners) if languages is None else sorted(set(languages))
    if unknown := [code for code in chosen if code not in owners]:
        raise ConfigError(f"languages: no model knows {', '.join(unknown)}; they know {', '.join(sorted(owners))}")
    if (output / WEIGHTS).exists():
        raise ConfigError(f"{output} holds a model already: name another folder")
    for name, model in models.items():
        if not model.by_language or model.config.model.adapt.lora.fused:
            raise ConfigError(f"{name}: what it learnt does not belong to single languages")
        model.fold()
    (folder, first), *others = models.items()
    for name, model in others:
        if difference := _difference(first, model):
            raise ConfigError(f"{name} and {folder} {difference}")
    one = _of_languages(first, {code: owners[code] for code in chosen})
    save_model(output, one)
    say(f"adapt: {', '.join(chosen)} of {len(models)} models in {output}")
    return output


def _difference(ours: WhisperRecognizer, theirs: WhisperRecognizer) -> str | None:
    """What two models differ in beside their languages, if anything."""
    if ours.hash_of_base() != theirs.hash_of_base():
        return "are adapted from different Whispers"
    own = {"only", "near", "classifier", "routing"}
    if ours.config.model.adapt.model_dump(exclude=own) != theirs.config.model.adapt.model_dump(exclude=own):
        return "are adapted in different ways (model.adapt)"
    if ours.tokenizer.text != theirs.tokenizer.text:
        return f"write different text (vocab.text: {theirs.tokenizer.text} and {ours.tokenizer.text})"
    both = dict(ours.named_parameters()), dict(theirs.named_parameters())
    shared = [name for name in both[0].keys() & both[1].keys() if ADDED.search(name) and not _owner(name, ours)]
    differing = sorted(name for name in shared if not torch.equal(both[0][name], both[1][name]))
    return f"differ in what their languages share, e.g. {differing[0]}" if differing else None


def _owner(name: str, model: WhisperRecognizer) -> str | None:
    """The language to which a parameter belongs."""
    return next((part for part in name.split(".") if part in model.languages), None)


def _of_languages(model: WhisperRecognizer, owners: dict[str, WhisperRecognizer]) -> WhisperRecognizer:
    """A model like another one, with the languages and what belongs to them of their owners."""
    config = model.config.model_copy(deep=True)
    codes = {code: owner.tokenizer.codes[code] for code, owner in owners.items() if code in owner.tokenizer.codes}
    config.corpus.languages, config.model.whisper.language_codes = list(owners), codes
    config.model.adapt.only, config.model.adapt.near, config.model.adapt.classifier = [], {}, False
    tokenizer = WhisperTokenizer(list(owners), codes, model.tokenizer.backend)
    tokenizer.text = model.tokenizer.text
    tokenizer.normalization = model.tokenizer.normalization
    assert config.model.pretrained is not None
    one = WhisperRecognizer(config, tokenizer, None, pretrained_whisper(config.model.pretrained))
    states = {code: owner.state_dict() for code, owner in owners.items()}
    shared, wanted = model.state_dict(), one.state_dict()
    learnt = {name: states.get(_owner(name, one) or "", shared)[name] for name in wanted}
    one.load_state_dict(learnt)
    return one


def merge(folder: Path, output: Path, kind: str = "svd", rank: int | None = None, density: float = 0.5) -> Path:
    """Writes a model with one expert made of all those of a model, by one of the ``KINDS`` of peft.

    ConfigError for options that the kind has not, and for an ``output`` that holds a model.
    """
    model = _whisper(folder)
    if model.encoder.experts is None or len(model.encoder.experts.names) < 2:
        raise ConfigError(f"{folder} has no experts of several languages (model.adapt.lora.per_language)")
    if model.config.model.adapt.lora.fused:
        raise ConfigError(f"{folder}: its experts are fused, with weights that one expert cannot have")
    if (output / WEIGHTS).exists():
        raise ConfigError(f"{output} holds a model already: name another folder")
    _check_kind(kind, rank, density)
    ranks = [part.experts.merge(kind, rank, density) for part in (model.encoder, model.attention_decoder)]
    save_model(output, _with_one_expert(model, max(ranks)))
    say(f"adapt: {len(model.languages)} experts are one of rank {max(ranks)} ({kind}) in {output}")
    return output


def _check_kind(kind: str, rank: int | None, density: float) -> None:
    if kind not in KINDS:
        raise ConfigError(f"kind={kind}: unknown; there are {', '.join(KINDS)}")
    if rank is not None and (rank < 1 or not kind.endswith("svd")):
        raise ConfigError(f"rank={rank}: kinds that end in svd have one, of 1 or more")
    if not 0 < density <= 1:
        raise ConfigError(f"density={density:g}: it is a share, above 0 and at most 1")


def _with_one_expert(model: WhisperRecognizer, rank: int) -> WhisperRecognizer:
    """A model whose one expert is that which a merge has made; prompts, language codes and all else as they were."""
    config = model.config.model_copy(deep=True)
    adapt, lora = config.model.adapt, config.model.adapt.lora
    lora.rank, lora.alpha, lora.per_language = rank, round(model.encoder.experts.scale * rank), False
    adapt.only, adapt.near = [], {}
    if not adapt.by_language or adapt.routing == "arrow":
        adapt.routing, adapt.classifier = "hard", adapt.classifier and adapt.by_language
    assert config.model.pretrained is not None
    one = WhisperRecognizer(config, model.tokenizer, None, pretrained_whisper(config.model.pretrained))
    one.load_state_dict(model.state_dict(), strict=False)
    one.encoder.experts.take(model.encoder.experts)
    one.attention_decoder.experts.take(model.attention_decoder.experts)
    return one


def describe_all(folder: Path) -> str:
    """Markdown: every adapted model in a folder such as ``exp``; FileNotFoundError when there is no such folder."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; name one that holds models, e.g. exp")
    lines = ["| model | Whisper | languages | adapted | learnt, M | dev CER |", "|---|---|---|---|--:|--:|"]
    models = [path for path in sorted(folder.glob(f"**/{WEIGHTS}")) if (path.parent / "config.yaml").is_file()]
    for path in models:
        name = path.parent.relative_to(folder)
        try:
            config = load_config(path.parent / "config.yaml")
            described = _described(path.parent, config) if config.model.pretrained is not None else None
        except (OSError, ValueError) as error:
            say(f"adapt: {name} is left out: {error}")
            continue
        if config.model.pretrained is not None:
            lines.append(
                f"| {in_markdown(str(name))} | {in_markdown(Path(config.model.pretrained).name)} | {described} |"
            )
    return "\n".join(lines)


def _described(folder: Path, config: Config) -> str:
    with reading(described := folder / "vocab/languages.json"):
        languages = ", ".join(json.loads(described.read_text())["languages"])
    record = read_json(file) if (file := folder / "training.json").is_file() else {}
    with reading(file):
        learnt = f"{record['learnt'] / 1e6:.2f}" if "learnt" in record else "-"
        cer = f"{record['best_cer']:.2%}" if "best_cer" in record else "-"
    return " | ".join([languages, _kind(config) or "all of it", learnt, cer])


def _kind(config: Config) -> str:
    """What is adapted; nothing if Whisper itself learns."""
    adapt, lora = config.model.adapt, config.model.adapt.lora
    parts = [f"{adapt.prompts.languages} prompts of {adapt.prompts.length}"] if adapt.prompts.length else []
    if lora.rank:
        of_each = (" a language" if lora.per_language else "") + (", fused" if lora.fused else "")
        parts += [f"LoRA of rank {lora.rank}{of_each}"]
    parts += ["language codes"] if adapt.language_codes else []
    parts += [f"{adapt.routing} routing"] if adapt.routing != "hard" else []
    return ", ".join([*parts, *(["classifier"] if adapt.classifier else [])])


def _whisper(folder: Path) -> WhisperRecognizer:
    model = load_model(folder)
    if not isinstance(model, WhisperRecognizer):
        raise ConfigError(f"{folder} is no adapted Whisper (model.pretrained)")
    return model
