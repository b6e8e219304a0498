"""Options that do nothing beside the others: refused where someone wrote them, instead of ignored."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel

from masr.config import Config

ALWAYS_SAVED = {"name", "seed", "data_dir", "corpus", "features", "vocab", "data", "model", "train", "decode"}
"""Keys of every config that masr ever wrote (`masr config`, exp/<name>/config.yaml), with all options, idle or not."""


@dataclass(frozen=True)
class Rule:
    """``options`` (or whole groups of them) do nothing while ``idle`` holds, which ``switches`` decide."""

    idle: Callable[[Config], bool]
    switches: Sequence[str]
    options: Sequence[str]
    why: str
    """Ends the sentence "model.encoder.layers=4 has no effect …"."""


def _below(group: str, names: str) -> list[str]:
    return [f"{group}.{name}" for name in names.split()]


DECODER = "layers width heads feedforward dropout label_smoothing"
# Not here: heads, head_size, bottleneck and what a self-supervised objective does, which scales of tables set for all
# of their rows, with and without these parts.
MAMBA = "state_space directions state_size expansion"
ADAPTERS = (
    "weights gate shared_classifier previous detached summary_start summary_heard summary_adapted "
    "language_loss prompt_vectors"
)
SOUP = "step pull every warmup detect_epochs detect_every conflict"


def _brings_unused_splits(config: Config) -> bool:
    """Whether corpus.also has splits that the config names nowhere."""
    corpus = config.corpus
    used = {corpus.train, corpus.dev, *corpus.test, config.model.self_supervised.split}
    return any(not other.splits.keys() <= used for other in corpus.also)


AUGMENTATIONS = {
    "concatenate": "utterances pause max_seconds same_speaker",
    "silence": "seconds zeros noise_decibels",
    "reverberation": "path rt60 direct_decibels",
    "noise": "snr path kinds voices",
    "gain": "decibels",
    "clipping": "decibels",
    "channel": "kinds equalizer_decibels",
}
"""Parts of data.augment, and their options beside the probability."""


def _part_of_augment(part: str) -> Rule:
    """Options of a part of data.augment do nothing where its probability is 0."""
    switch = f"data.augment.{part}.probability"
    return Rule(
        lambda c: not getattr(c.data.augment, part).probability,
        [switch],
        _below(f"data.augment.{part}", AUGMENTATIONS[part]),
        f"without {switch}",
    )


RULES = [
    # --- data ---
    Rule(
        _brings_unused_splits,
        ["corpus.train", "corpus.dev", "corpus.test", "model.self_supervised.split"],
        ["corpus.also"],
        "where corpus.test (or dev, or train) does not name each of its splits",
    ),
    # --- a pretrained model, and what adapts it ---
    Rule(
        lambda c: c.model.pretrained is not None,
        ["model.pretrained"],
        [
            "model.encoder",
            "model.normalization",
            *_below("model.ctc", "upsampling hierarchical per_language intermediate_layers intermediate_weight"),
            *_below("model.attention_decoder", "layers width heads feedforward dropout smoothed bias"),
            *_below("vocab", "size per_language tree"),
        ],
        "beside model.pretrained, which brings its own",
    ),
    Rule(
        lambda c: c.model.pretrained is None,
        ["model.pretrained"],
        ["model.whisper"],
        "without model.pretrained",
    ),
    Rule(
        lambda c: not c.model.adapt.prompts.length,
        ["model.adapt.prompts.length"],
        _below("model.adapt.prompts", "encoder deep languages rank own_length bottleneck"),
        "without model.adapt.prompts.length",
    ),
    Rule(
        lambda c: not c.model.adapt.lora.rank,
        ["model.adapt.lora.rank"],
        _below("model.adapt.lora", "alpha dropout modules per_language fused"),
        "without model.adapt.lora.rank",
    ),
    Rule(
        lambda c: c.train.distill.teacher is None,
        ["train.distill.teacher"],
        _below("train.distill", "weight temperature"),
        "without train.distill.teacher",
    ),
    # --- parts of a model ---
    Rule(
        lambda c: c.model.encoder.type != "mamba",
        ["model.encoder.type"],
        _below("model.encoder", MAMBA),
        "in an encoder that is not model.encoder.type=mamba",
    ),
    Rule(
        lambda c: not c.model.encoder.language_adapters.layers,
        ["model.encoder.language_adapters.layers"],
        _below("model.encoder.language_adapters", ADAPTERS),
        "without model.encoder.language_adapters.layers",
    ),
    Rule(
        lambda c: not c.model.ctc.weight,
        ["model.ctc.weight"],
        _below("model.ctc", "per_language intermediate_layers intermediate_weight"),
        "without model.ctc.weight",
    ),
    Rule(
        lambda c: not c.model.ctc.intermediate_layers,
        ["model.ctc.intermediate_layers"],
        ["model.ctc.intermediate_weight"],
        "without model.ctc.intermediate_layers",
    ),
    Rule(
        lambda c: not c.model.attention_decoder.weight,
        ["model.attention_decoder.weight"],
        _below("model.attention_decoder", f"{DECODER} smoothed bias"),
        "without model.attention_decoder.weight",
    ),
    Rule(
        lambda c: c.vocab.output != "softmax",
        ["vocab.output"],
        ["model.attention_decoder.bias"],
        "with a tree (vocab.output), whose decisions have no bias",
    ),
    Rule(
        lambda c: not c.model.translation.weight,
        ["model.translation.weight"],
        _below("model.translation", f"{DECODER} per_language encoder_layers"),
        "without model.translation.weight",
    ),
    Rule(
        lambda c: not c.model.spec_augment.frequency_masks,
        ["model.spec_augment.frequency_masks"],
        ["model.spec_augment.frequency_width"],
        "without model.spec_augment.frequency_masks",
    ),
    Rule(
        lambda c: not c.model.spec_augment.time_masks,
        ["model.spec_augment.time_masks"],
        ["model.spec_augment.time_fraction"],
        "without model.spec_augment.time_masks",
    ),
    # --- vocabularies ---
    Rule(
        lambda c: c.vocab.kind == "char",
        ["vocab.kind"],
        ["vocab.size"],
        "with vocab.kind=char, which takes all characters",
    ),
    Rule(
        lambda c: c.vocab.output != "clustered",
        ["vocab.output"],
        _below("vocab.tree", "embeddings folder pooled dimensions lexicon linkage"),
        "without vocab.output=clustered",
    ),
    Rule(
        lambda c: c.vocab.output != "balanced",
        ["vocab.output"],
        ["vocab.tree.seed"],
        "without vocab.output=balanced",
    ),
    Rule(
        lambda c: c.vocab.tree.embeddings != "mono-map",
        ["vocab.tree.embeddings"],
        _below("vocab.tree", "dimensions lexicon"),
        "without vocab.tree.embeddings=mono-map",
    ),
    Rule(
        lambda c: c.vocab.tree.embeddings != "text-model",
        ["vocab.tree.embeddings"],
        ["vocab.tree.pooled"],
        "without vocab.tree.embeddings=text-model",
    ),
    Rule(
        lambda c: c.vocab.translation.into is None,
        ["vocab.translation.into"],
        _below("vocab.translation", "kind size"),
        "without vocab.translation.into",
    ),
    # --- augmentation ---
    Rule(
        lambda c: not c.data.augment.active,
        _below("data.augment", " ".join(f"{part}.probability" for part in AUGMENTATIONS)),
        ["data.augment.start_epoch"],
        "where every data.augment.*.probability is 0",
    ),
    *(_part_of_augment(part) for part in AUGMENTATIONS if part != "silence"),
    Rule(
        lambda c: not c.data.augment.silence.probability,
        ["data.augment.silence.probability"],
        ["data.augment.silence.seconds"],
        "without data.augment.silence.probability",
    ),
    Rule(
        lambda c: not (c.data.augment.silence.probability or c.data.augment.concatenate.probability),
        ["data.augment.silence.probability", "data.augment.concatenate.probability"],
        _below("data.augment.silence", "zeros noise_decibels"),
        "without data.augment.silence.probability or data.augment.concatenate.probability",
    ),
    Rule(
        lambda c: c.data.augment.silence.zeros == 1,
        ["data.augment.silence.zeros"],
        ["data.augment.silence.noise_decibels"],
        "where all silence is zeros (data.augment.silence.zeros)",
    ),
    Rule(
        lambda c: c.data.augment.reverberation.path is not None,
        ["data.augment.reverberation.path"],
        _below("data.augment.reverberation", "rt60 direct_decibels"),
        "with impulse responses of data.augment.reverberation.path",
    ),
    Rule(
        lambda c: c.data.augment.noise.path is not None,
        ["data.augment.noise.path"],
        _below("data.augment.noise", "kinds voices"),
        "with the noise of data.augment.noise.path",
    ),
    Rule(
        lambda c: "babble" not in c.data.augment.noise.kinds,
        ["data.augment.noise.kinds"],
        ["data.augment.noise.voices"],
        "without babble in data.augment.noise.kinds",
    ),
    Rule(
        lambda c: "equalizer" not in c.data.augment.channel.kinds,
        ["data.augment.channel.kinds"],
        ["data.augment.channel.equalizer_decibels"],
        "without equalizer in data.augment.channel.kinds",
    ),
    # --- decoding ---
    Rule(
        lambda c: "whisper" not in c.decode.methods,
        ["decode.methods"],
        ["decode.whisper"],
        "without whisper among decode.methods",
    ),
    # --- training ---
    Rule(
        lambda c: not c.train.soup.levels,
        ["train.soup.levels"],
        _below("train.soup", SOUP),
        "without train.soup.levels",
    ),
    Rule(
        lambda c: not c.train.soup.detect_epochs,
        ["train.soup.detect_epochs"],
        _below("train.soup", "detect_every conflict"),
        "without train.soup.detect_epochs",
    ),
    Rule(
        lambda c: c.data.every_language,
        ["data.every_language"],
        ["data.language_temperature"],
        "with data.every_language, which draws languages equally often",
    ),
    Rule(
        lambda c: c.data.prompts.all + c.data.prompts.one >= 1,
        _below("data.prompts", "all one"),
        ["data.prompts.wrong"],
        "where data.prompts.all and data.prompts.one are all utterances",
    ),
]


def options_without_effect(config: Config, sources: Sequence[tuple[str, Any]]) -> list[str]:
    """A line for each option that differs from its default, does nothing, and was written by someone.

    ``sources`` are (file name, tree) as `masr.config_files` read them, the last one wins. What a later file has
    switched off is not meant any more: a config may extend one with an encoder and then set model.pretrained; nor what
    an override undoes of those before it. Nor is what masr wrote itself: saved models load whatever they hold.
    """
    written: dict[str, int] = {}
    decided: dict[str, int] = {}
    for number, (_, tree) in enumerate(sources):
        names = list(_leaves(tree, Config))
        decided |= dict.fromkeys(names, number)
        if ALWAYS_SAVED - tree.keys():
            written |= dict.fromkeys(names, number)
    idle: dict[str, str] = {}
    for rule in RULES:
        if not rule.idle(config):
            continue
        since = max(decided.get(switch, 0) for switch in rule.switches)
        for name in _covered(rule.options, written):
            if written[name] >= since and _value(config, name) != _default(name):
                source = sources[written[name]][0]
                idle.setdefault(name, f"{source}: {name}={_value(config, name)} has no effect {rule.why}: leave it out")
    return list(idle.values())


def _leaves(tree: Mapping[str, Any], section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of the options that a tree sets."""
    for name, value in tree.items():
        group = section.model_fields[name].annotation if name in section.model_fields else None
        if isinstance(group, type) and issubclass(group, BaseModel) and isinstance(value, Mapping):
            yield from _leaves(value, group, f"{prefix}{name}.")
        else:
            yield prefix + name


def _covered(options: Sequence[str], names: Iterable[str]) -> list[str]:
    """Those of ``names`` that are among the options, or in a group that is."""
    return [name for name in names if name in options or name.startswith(tuple(f"{option}." for option in options))]


def _value(section: Any, name: str) -> Any:
    for part in name.split("."):
        section = getattr(section, part)
    return section


@cache
def _default(name: str) -> Any:
    return _value(Config(name="default"), name)
