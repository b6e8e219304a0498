"""``masr conflicts``: which objectives of a trained model disagree, in which layers, and how sure that is."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lhotse.cut import Cut
from torch import Tensor

from masr.config import Config
from masr.config_files import ConfigError, load_config
from masr.data.batches import Batch, Counts, CutFeatures, collate, load_usable
from masr.data.rejected import Rejected
from masr.data.sampling import recording_name
from masr.files import write_whole
from masr.models.folder import load_model
from masr.models.recognizer import Recognizer
from masr.progress import say, track
from masr.soup.agreement import UNKNOWN, Agreement, Design, Estimate, Source, kinds_of_pairs
from masr.soup.plots import draw_agreement
from masr.stages.features import load_cuts
from masr.stages.train import commit, reason_to_leave_out
from masr.train.checkpoint import is_whole, load_weights, step_folder
from masr.train.recording_gradients import (
    GradientStore,
    RecordingGradients,
    collate_group,
    draw_groups,
    draw_recordings,
)
from masr.train.soup_step import soup_objectives

ALL_LAYERS = "all layers"
DRAWS = 1000
"""Of the bootstrap."""
OVERRIDES = ("data_dir", "corpus.path", "data.min_seconds", "data.max_seconds", "data.max_bad_fraction")
"""Options that may be others than in training."""
SHOWN = 10
"""Pairs of objectives that the report shows, those with the lowest cosines."""

Kinds = dict[str, Estimate]
"""Mean cosines by kind of pair."""


@dataclass
class Findings:
    """What is reported."""

    objectives: list[str]
    gradients: dict[str, int]
    """How many were measured, by objective."""
    left_out: dict[str, str]
    """Objectives that could not be measured, and why."""
    layers: dict[str, Kinds]
    """By layer, and of all layers together."""
    signal: dict[str, Estimate]
    """By objective: share of the expected gradient in the square of single ones, all layers together."""
    pairs: dict[str, Estimate]
    """Cosines of pairs of objectives, all layers together."""
    cosines: dict[str, list[list[float]]]
    """By layer, (M, M)."""


def run(
    folder: Path,
    overrides: Sequence[str] = (),
    recordings: int = 64,
    split: str | None = None,
    checkpoint: int | None = None,
    seed: int = 1,
) -> str:
    """Writes ``<folder>/conflicts/<split>[-<checkpoint>][-seed<N>]`` .md, .json, -layers.svg; returns the layers.

    Up to ``recordings`` of each language are drawn from the split by ``seed``, and as many groups of them for speech
    without text. ``overrides`` say where the data is and how long recordings may be; ConfigError for any others.
    """
    _check_overrides(overrides)
    model = load_model(folder, "cuda" if torch.cuda.is_available() else "cpu")
    if checkpoint is not None:
        _load_checkpoint(folder, checkpoint, model)
    config = load_config(folder / "config.yaml", list(overrides))
    split = split or config.corpus.train
    name = split if checkpoint is None else f"{split}-{checkpoint}"
    name += "" if seed == 1 else f"-seed{seed}"
    output = folder / "conflicts"
    output.mkdir(exist_ok=True)

    sources, gramians, layers = _gradients(model, split, recordings, config, output / f"{name}.rejected.tsv", seed)
    findings = _findings(sources, gramians, layers, soup_objectives(model), seed)

    record = {
        "command": " ".join(["masr", *sys.argv[1:]]),
        "commit": commit(),
        "model": str(folder),
        "checkpoint": checkpoint,
        "split": split,
        "recordings": recordings,
        "seed": seed,
        "draws": DRAWS,
    }
    write_whole(output / f"{name}.json", json.dumps(record | asdict(findings), indent=1))
    table = _table(findings.layers)
    write_whole(output / f"{name}.md", _report(record, findings, table))
    draw_agreement(output / f"{name}-layers.svg", findings.layers)
    say(f"conflicts: report in {output / name}.md")
    return table


def _check_overrides(overrides: Sequence[str]) -> None:
    """A trained model is what its own config says."""
    for override in overrides:
        if override.partition("=")[0] not in OVERRIDES:
            raise ConfigError(
                f"conflicts: {override} changes nothing in a model that is trained: give {', '.join(OVERRIDES)} alone"
            )


def _load_checkpoint(folder: Path, update: int, model: Recognizer) -> None:
    """Gives the model the averaged weights of an update; FileNotFoundError names the updates that there are."""
    path = step_folder(folder / "checkpoints", update)
    if not path.is_dir():
        found = sorted((folder / "checkpoints").glob("step-????????"))
        known = ", ".join(str(int(each.name.removeprefix("step-"))) for each in found) or "none"
        raise FileNotFoundError(
            f"conflicts: {path} is missing; there are checkpoints of these updates: {known}. "
            "Training keeps the newest ones, as many as train.keep_checkpoints"
        )
    if not is_whole(path):
        raise ValueError(f"conflicts: checkpoint {path} is damaged or incomplete: choose another --checkpoint")
    model.load_learned(load_weights(path, "averaged"))


def _gradients(
    model: Recognizer, split: str, recordings: int, config: Config, rejected_file: Path, seed: int
) -> tuple[list[Source], Tensor, list[str]]:
    """What each gradient was measured on, their inner products (L, T, T), and names of the layers."""
    cuts = [cut for cut in load_cuts(config, split) if cut.supervisions[0].language in model.languages]
    usable = [cut for cut in cuts if reason_to_leave_out(cut, model, config) is None]
    drawn = draw_recordings(usable, recordings, seed)
    groups = _groups(cuts, model, recordings, config, seed)
    say(f"conflicts: {split}: {sum(map(len, drawn.values()))} recordings, {len(groups)} groups without text")

    counts = {code: _counts(of_language, model) for code, of_language in drawn.items()}
    measure = RecordingGradients(model, counts)
    tasks = {name.partition("/")[0] for name in soup_objectives(model)}
    capacity = len(tasks) * sum(map(len, drawn.values())) + len(groups)
    store = GradientStore(measure.sizes, capacity)
    parts = [(code, [cut]) for code, of_language in drawn.items() for cut in of_language]
    parts += [("", group) for group in groups]

    sources: list[Source] = []
    rejected = Rejected(rejected_file)
    load = CutFeatures(model.config.features)
    for code, part in track(parts, f"conflicts: {split}", len(parts)):
        features, good = load_usable(part, load, rejected.reasons)
        if len(good) < len(part):  # a group of another size has another loss
            continue
        batch = _batch(features, good, code, model, seed)
        names = frozenset(recording_name(cut) for cut in good)
        for objective, gradient in measure(batch):
            if store.add(gradient):
                sources.append(Source(objective, names, code))
            else:
                rejected.add(good[0].id, f"{objective}: the gradient is not finite")
    rejected.finish("conflicts", len(parts), config.data.max_bad_fraction)
    return sources, store.gramians(model.feature_mean.device), store.layers


def _groups(cuts: Sequence[Cut], model: Recognizer, number: int, config: Config, seed: int) -> list[list[Cut]]:
    """Groups of recordings for the objective on speech without text, if the model has one."""
    options = model.config.model.self_supervised
    if not options.weight:
        return []
    least = max(config.data.min_seconds, options.least_seconds)
    within = [cut for cut in cuts if least <= cut.duration <= config.data.max_seconds]
    return draw_groups(within, number, options.compared, seed)


def _batch(features: list[Tensor], cuts: list[Cut], code: str, model: Recognizer, seed: int) -> Batch:
    """A recording with its text, or a group of them without any (no ``code`` of a language)."""
    if code:
        batch = collate(features, cuts, model.tokenizer)
    else:
        batch = collate_group(features, cuts, model.tokenizer.languages, seed)
    return batch.to(model.feature_mean.device)


def _counts(cuts: Sequence[Cut], model: Recognizer) -> Counts:
    """What the losses of recordings of one language are divided by."""
    nothing = [torch.zeros(1, model.config.features.mel_bins)] * len(cuts)
    [counts] = collate(nothing, cuts, model.tokenizer).counts().values()
    return counts


def _findings(
    sources: Sequence[Source], gramians: Tensor, layers: Sequence[str], objectives: Sequence[str], seed: int
) -> Findings:
    """Cosines and intervals of the objectives that have gradients enough."""
    left_out = _left_out(sources, objectives)
    kept = torch.tensor([source.objective not in left_out for source in sources], dtype=torch.bool)
    used = [source for source in sources if source.objective not in left_out]
    for objective, reason in left_out.items():
        say(f"conflicts: {objective} is left out: {reason}")
    if len(objectives) - len(left_out) < 2:
        raise ValueError(
            f"conflicts: there are not two objectives to compare ({', '.join(objectives)}): choose another --split"
        )
    design = Design(used, DRAWS, seed)
    gramians = gramians[:, kept][:, :, kept]
    together = [*gramians, gramians.sum(0)]
    kinds = kinds_of_pairs(design.objectives)
    numbers = range(len(design.objectives))
    names = design.objectives
    by_layer: dict[str, Kinds] = {}
    cosines: dict[str, list[list[float]]] = {}
    for layer, gramian in zip([*layers, ALL_LAYERS], together, strict=True):
        agreement = Agreement(gramian, design)
        by_layer[layer] = {kind: agreement.mean_cosine(pairs) for kind, pairs in kinds.items()}
        cosines[layer] = agreement.cosines().tolist()
    signal = {names[number]: agreement.signal(number) for number in numbers}  # of all layers, the last
    pairs: dict[str, Estimate] = {}
    for first in numbers:
        for second in numbers[first + 1 :]:
            pairs[f"{names[first]} {names[second]}"] = agreement.cosine(first, second)
    gradients = {name: sum(source.objective == name for source in used) for name in names}
    return Findings(names, gradients, left_out, by_layer, signal, pairs, cosines)


def _left_out(sources: Sequence[Source], objectives: Sequence[str]) -> dict[str, str]:
    """Objectives without two gradients of different recordings, and why."""
    found: dict[str, set[frozenset[str]]] = {name: set() for name in objectives}
    for source in sources:
        found[source.objective].add(source.recordings)
    return {
        name: f"{len(units)} usable recordings or groups of them, 2 are needed"
        for name, units in found.items()
        if len(units) < 2
    }


def _table(layers: dict[str, Kinds]) -> str:
    """Markdown: a row for each layer, a column for each kind of pair."""
    kinds = list(next(iter(layers.values())))
    lines = [f"| layer | {' | '.join(kinds)} |", f"|---|{'---|' * len(kinds)}"]
    for layer, estimates in layers.items():
        cells = [_shown(estimate) for estimate in estimates.values()]
        lines.append(f"| {layer} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _shown(estimate: Estimate) -> str:
    if estimate == UNKNOWN:
        return "–"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def _report(record: dict[str, Any], findings: Findings, table: str) -> str:
    """Markdown."""
    lowest = sorted(findings.pairs.items(), key=lambda pair: pair[1].value)[:SHOWN]
    pairs = [f"| {name.replace(' ', ' | ')} | {_shown(estimate)} |" for name, estimate in lowest]
    objectives = [
        f"| {name} | {findings.gradients[name]} | {_shown(estimate)} |" for name, estimate in findings.signal.items()
    ]
    left_out = [f"- {name} is left out: {reason}" for name, reason in findings.left_out.items()]
    weights = "its result" if record["checkpoint"] is None else f"update {record['checkpoint']}"
    lines = [
        f"# Gradient conflicts of {record['model']}, {weights}, on {record['split']}",
        "",
        f"`{record['command']}`, commit {record['commit']}",
        "",
        "Mean cosines of the objectives' expected gradients, by layer and kind of pair, with 95 % intervals over",
        f"recordings ({record['draws']} bootstrap draws); pairs are weighted by the norms of their gradients.",
        "",
        table,
        "",
        f"The {len(lowest)} pairs with the lowest cosines, all layers together (– where a norm may be noise alone):",
        "",
        "| | | cosine |",
        "|---|---|---|",
        *pairs,
        "",
        "Gradients, and the share of the expected gradient in the square of a single one:",
        "",
        "| objective | gradients | signal |",
        "|---|---|---|",
        *objectives,
        *left_out,
    ]
    return "\n".join(lines) + "\n"
