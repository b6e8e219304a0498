"""A table of results: rows (a config and what is changed in it) x columns, over seeds; runs what is missing.

A table file (``egs/<dataset>/tables/*.yaml``) belongs to the recipe whose ``run.sh`` makes its experiments, and names
the figures of the paper beside which ours are printed. It may extend another one. Experiments are
``exp/<table>/<row>-<seed>``.

To run a table is to run programs: the ``run.sh`` of its recipe and, where a file of ``needs`` is missing, the command
that stands there, whatever it is. Each is shown before it runs. So read the table of a stranger first, with ``--show``,
which runs nothing.
"""

import json
import re
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from omegaconf import OmegaConf
from pydantic import Field, ValidationError

from masr.config import Positive, Section
from masr.config_files import ConfigError, load_config, read_chain
from masr.files import read_json, write_whole
from masr.progress import printable, say
from masr.stages.output import SEAL

DECIDES_NOTHING: dict[str, Any] = {
    "data_dir": True, "corpus": {"path"}, "features": {"jobs"}, "data": {"workers", "device_seconds"},
    "train": {"threads", "log_every", "keep_checkpoints"},
}  # fmt: skip
COLUMNS = {
    "cer": "CER", "wer": "WER", "parameters": "M parameters", "training": "training, min", "audio": "audio, h",
    "rtf": "real-time factor", "bleu": "BLEU", "chrf": "chrF", "lid": "language right",
    "one": "M parameters, one language", "learnt": "M learnt",
}  # fmt: skip
"""Macro averages in %, and what a run costs. ``cer/cs`` is the rate of a language, ``cer/*`` those of all, and
``cer@oracle`` that for another kind of prompt, ``cer:test-other`` that of another split; ``one`` are the parameters
that run for a prompt of one language, ``learnt`` those that training moved."""
COLUMN = re.compile(
    r"(cer|wer|lid)(@(oracle|wrong)(\+[1-9]\d*)?)?|(cer|wer|bleu|chrf)/([\w-]+|\*)|(cer|wer)(/[\w-]+)?:[\w.-]+"
)
FIGURES = ("config.yaml", "environment.json", "training.json", "log.jsonl", f"score/{SEAL}", "score/*/*/metrics.json")
"""What is kept of an experiment beside a recipe's README."""
TRANSLATION = "translation-beam"
"""Method whose scores are shown as BLEU and chrF."""


class Row(Section):
    label: str | None = None
    """What the table calls it; default: its key."""
    config: str | None = None
    """Config file; default: that of the table."""
    overrides: list[str] = Field(default=[])
    """Options that are other than in the config. {seed} and {table} in them are those of the run, which is
    ``exp/{table}/<row>-{seed}``."""
    scales: dict[str, list[str]] = Field(default={})
    """What is other in this row at a scale of the table, e.g. its languages: the last overrides."""
    seeds: list[Positive] | None = Field(default=None, min_length=1)
    """Seeds of this row; default: those of the table. One is enough where nothing is random."""
    needs: dict[str, str] = Field(default={})
    """Files that it starts from, and the commands that make them: where one is missing, its command is shown and run,
    in the recipe's folder. It is split as a shell splits words, but no shell reads it."""
    paper: dict[str, float] = Field(default={})
    """The paper's own figures, by column."""
    against: str | None = None
    """Row that this one is compared with, seed by seed."""


class Table(Section):
    title: str
    """First line above the table."""
    notes: str = ""
    """What a reader has to know: source of the paper's figures, what is reconstructed."""
    config: str
    """Config file of the rows that name none."""
    overrides: list[str] = Field(default=[])
    """What all rows change in their configs, as each row's own overrides, which come after these."""
    needs: dict[str, str] = Field(default={})
    """As ``needs`` of a row, of all rows, which come after these."""
    rows: Annotated[dict[str, Row], Field(min_length=1)]
    """The experiments."""
    columns: list[str] = Field(default=["cer", "wer", "parameters", "training", "rtf"])
    """What is shown of each."""
    compared: list[str] = Field(default=["cer"])
    """Columns of which a row that is ``against`` another one shows the difference."""
    seeds: list[Positive] = Field(default=[1], min_length=1)
    """Every row is trained once with each, if it does not say otherwise."""
    split: str = "test"
    """Scored split of columns that name none."""
    method: str
    """Search method whose errors are shown."""
    scales: dict[str, list[str]] = Field(default={})
    """Overrides of all rows by which the table becomes another, smaller or larger, one: ``--scale``."""

    def seeds_of(self, row: str) -> list[int]:
        """The seeds that a row is trained with."""
        return self.rows[row].seeds or self.seeds


def load_table(path: Path) -> Table:
    """Reads a table file, and the one that it ``extends:``, less the rows and scales that it says are null.

    ConfigError names what is wrong in it.
    """
    tree: Any = OmegaConf.to_container(OmegaConf.merge(*(tree for _, tree in read_chain(path))))
    for name in ("rows", "scales"):
        if isinstance(tree.get(name), dict):
            tree[name] = {key: value for key, value in tree[name].items() if value is not None}
    try:
        table = Table.model_validate(tree)
    except ValidationError as error:
        where = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}, found {e['input']!r}" for e in error.errors())
        raise ConfigError(f"{path}: " + "; ".join(where)) from None
    if missing := [row.against for row in table.rows.values() if row.against and row.against not in table.rows]:
        raise ConfigError(f"{path}: rows: against: no {', '.join(missing)} in the table")
    if unknown := sorted({scale for row in table.rows.values() for scale in row.scales} - table.scales.keys()):
        raise ConfigError(f"{path}: rows: scales: no {', '.join(unknown)} among the scales of the table")
    named = [*table.columns, *table.compared, *(column for row in table.rows.values() for column in row.paper)]
    if unknown := [column for column in named if column not in COLUMNS and not COLUMN.fullmatch(column)]:
        raise ConfigError(
            f"{path}: columns: {', '.join(unknown)}; known: {', '.join(COLUMNS)}, cer/<language>, cer/*, cer@<prompt>, "
            "cer:<split>"
        )
    return table


def run_table(
    path: Path, scale: str | None = None, processes: int = 1, rows: Sequence[str] = (), results: Path | None = None
) -> list[str]:
    """Runs the missing experiments of the table (or of some rows) one after another; names those that failed.

    ``path`` is ``<recipe>/tables/x.yaml``, ``processes`` those of a training. What is in ``results`` is not run again,
    and what has been run is kept there.
    """
    table, recipe, failed = load_table(path), path.absolute().parents[1], []
    for row in _chosen(table, rows):
        for seed in table.seeds_of(row):
            name, options = experiment(path, table, row, seed, scale)
            if finished(path, table, row, seed, scale, results) is None:
                needs = [*table.needs.items(), *table.rows[row].needs.items()]
                ready = all(_make(_filled(file, name, seed), _filled(how, name, seed), recipe) for file, how in needs)
                say(f"table: {name}")
                command = [str(recipe / "run.sh"), "--conf", table.rows[row].config or table.config]
                if not ready or subprocess.run([*command, "--nproc", str(processes), *options], cwd=recipe).returncode:
                    failed.append(name)
            done = finished(path, table, row, seed, scale)
            if results is not None and done is not None:
                keep_figures(done, results / done.name)
    return failed


def _make(file: str, command: str, recipe: Path) -> bool:
    """Runs a command, after it was shown, if the file that it makes is missing; whether it is there then."""
    if not (recipe / file).exists():
        say(f"table: {printable(file)} is missing; this makes it, in {recipe}: {printable(command)}")
        try:
            program, *words = shlex.split(command)
        except ValueError as error:
            raise ConfigError(f"needs: {file}: no command: {command!r} ({error})") from error
        ours = [sys.executable, "-m", "masr.cli"] if program == "masr" else [program]
        subprocess.run([*ours, *words], cwd=recipe)
    return (recipe / file).exists()


def finished(
    path: Path, table: Table, row: str, seed: int, scale: str | None, results: Path | None = None
) -> Path | None:
    """Folder of an experiment, or of its figures in ``results``, if it was scored with the options that the row has."""
    recipe = path.absolute().parents[1]
    name, options = experiment(path, table, row, seed, scale)
    wanted = load_config(recipe / (table.rows[row].config or table.config), options).model_dump(exclude=DECIDES_NOTHING)
    run = recipe / "exp" / name
    for folder in [run, *([results / run.name] if results else [])]:
        if all((folder / file).is_file() for file in (f"score/{SEAL}", "training.json", "config.yaml")):
            there = load_config(folder / "config.yaml").model_dump(exclude=DECIDES_NOTHING)
            if there == wanted:
                return folder
    return None


def keep_figures(experiment: Path, folder: Path) -> None:
    """Copies what a table shows of an experiment, and what says how it came about, but no weights."""
    shutil.rmtree(folder, ignore_errors=True)
    for file in [file for pattern in FIGURES for file in experiment.glob(pattern)]:
        copy = folder / file.relative_to(experiment)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if file.name == "metrics.json":
            metrics = read_json(file)
            metrics.pop("confusions", None)  # half of it, and never in a table
            write_whole(copy, json.dumps(metrics))
        else:
            shutil.copyfile(file, copy)


def experiment(path: Path, table: Table, row: str, seed: int, scale: str | None) -> tuple[str, list[str]]:
    """Name (below ``exp/``) and overrides of one run."""
    if scale is not None and scale not in table.scales:
        raise ConfigError(f"{path}: there is no scale {scale}; known: {', '.join(table.scales) or 'none'}")
    folder = f"{path.stem}{f'-{scale}' if scale else ''}"
    name = f"{folder}/{row}-{seed}"
    options = [*table.overrides, *(table.scales[scale] if scale else [])]
    options += [*table.rows[row].overrides, *table.rows[row].scales.get(scale or "", [])]
    options = [_filled(option, name, seed) for option in options]
    return name, [*options, f"name={name}", f"seed={seed}"]


def _filled(text: str, name: str, seed: int) -> str:
    """With the seed and the table of an experiment in their places."""
    return text.replace("{seed}", str(seed)).replace("{table}", name.partition("/")[0])


def print_table(path: Path, scale: str | None = None, rows: Sequence[str] = (), results: Path | None = None) -> str:
    """Markdown: mean ± standard deviation over the seeds that have been run, and the paper's figures in brackets.

    Where a row names another one, also its difference from that with a 95 % confidence interval (Student's t).
    """
    table = load_table(path)
    by_seed = {row: _runs(path, table, row, scale, results) for row in table.rows}
    found = {row: list(by_seed[row].values()) for row in _chosen(table, rows)}
    columns = _columns(table, found)
    compared = table.compared if any(table.rows[row].against for row in found) else []
    titles = [*(_title(column) for column in columns), *(f"{_title(column)} against" for column in compared), "runs"]
    lines = [f"| {' | '.join(['', *titles])} |", "|---" + "|--:" * len(titles) + "|"]
    for row, runs in found.items():
        cells = [_cell(column, runs, found, table.rows[row].paper.get(column)) for column in columns]
        cells += [_difference(column, by_seed, row, table) for column in compared]
        lines.append(f"| {' | '.join([table.rows[row].label or row, *cells, str(len(runs))])} |")
    return "\n".join([f"### {table.title}", "", *([table.notes.strip(), ""] if table.notes else []), *lines])


def _runs(path: Path, table: Table, row: str, scale: str | None, results: Path | None) -> dict[int, dict[str, float]]:
    """The figures of the runs of a row that are done, by seed."""
    folders = {seed: finished(path, table, row, seed, scale, results) for seed in table.seeds_of(row)}
    return {seed: _values(folder, table) for seed, folder in folders.items() if folder is not None}


def _difference(column: str, by_seed: dict[str, dict[int, dict[str, float]]], row: str, table: Table) -> str:
    """``flat: -0.52 ± 0.31``: mean difference for the same seeds, and half of the 95 % interval."""
    other = table.rows[row].against
    if other is None:
        return ""
    pairs = [(by_seed[row][seed], by_seed[other][seed]) for seed in by_seed[row].keys() & by_seed[other].keys()]
    differences = [ours[column] - theirs[column] for ours, theirs in pairs if column in ours and column in theirs]
    if not differences:
        return "-"
    text = f"{other}: {statistics.mean(differences):+.2f}"
    if len(differences) > 1:
        from scipy.stats import t

        error = statistics.stdev(differences) / len(differences) ** 0.5
        text += f" ± {t.ppf(0.975, len(differences) - 1) * error:.2f}"
    return text


def _chosen(table: Table, rows: Sequence[str]) -> list[str]:
    if unknown := [row for row in rows if row not in table.rows]:
        raise ConfigError(f"rows: no {', '.join(unknown)} in the table; it has {', '.join(table.rows)}")
    return [row for row in table.rows if not rows or row in rows]


def _values(folder: Path, table: Table) -> dict[str, float]:
    """The figures of an experiment by column."""
    file = folder / "score" / table.method / table.split / "metrics.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: {table.method} or {table.split} is not among what is decoded")
    metrics, training = read_json(file), read_json(folder / "training.json")
    values, method = _rates(metrics, ""), table.method.partition("@")[0]
    for other in folder.glob(f"score/{method}@*/{table.split}/metrics.json"):
        values |= _rates(read_json(other), f"@{other.parts[-3].partition('@')[2]}")
    for other in folder.glob(f"score/{table.method}/*/metrics.json"):
        rates = _rates(read_json(other), "")
        values |= {f"{name}:{other.parent.name}": rate for name, rate in rates.items()}
    translations = table.method.replace(method, TRANSLATION)  # with the same prompt
    if (translated := folder / "score" / translations / table.split / "metrics.json").is_file():
        values |= _translation_scores(read_json(translated))
    one = training.get("parameters_of_one_language", training["parameters"])
    return values | {
        "parameters": training["parameters"] / 1e6, "training": training["train_seconds"] / 60,
        "audio": training["audio_seconds"] / 3600, "rtf": metrics["real_time_factor"], "one": one / 1e6,
        "learnt": training.get("learnt", training["parameters"]) / 1e6,
    }  # fmt: skip


def _rates(metrics: dict[str, Any], prompt: str) -> dict[str, float]:
    """Error rates, and how often the language is right, in % by column."""
    groups = {"": metrics["macro"]} | {f"/{code}": values for code, values in metrics["languages"].items()}
    rates = {
        f"{kind}{prompt}{name}": 100 * group[kind]["rate"] for name, group in groups.items() for kind in ("cer", "wer")
    }
    confusion = metrics.get("language_confusion")
    return rates | ({f"lid{prompt}": 100 * confusion["accuracy"]} if confusion else {})


def _translation_scores(metrics: dict[str, Any]) -> dict[str, float]:
    groups = {"": metrics["macro"]} | {f"/{code}": values for code, values in metrics["languages"].items()}
    return {f"{kind}{name}": group[kind]["score"] for name, group in groups.items() for kind in ("bleu", "chrf")}


def _columns(table: Table, found: dict[str, list[dict[str, float]]]) -> list[str]:
    """The columns, ``cer/*`` spelt out."""
    columns = []
    for column in table.columns:
        kind, _, language = column.partition("/")
        known = sorted({key for runs in found.values() for run in runs for key in run if key.startswith(f"{kind}/")})
        columns += [key for key in known if ":" not in key] if language == "*" else [column]
    return columns


def _title(column: str) -> str:
    column, _, split = column.partition(":")
    kind, _, prompt = column.partition("/")[0].partition("@")
    return " ".join(part for part in (COLUMNS[kind], column.partition("/")[2], prompt, split) if part)


def _cell(
    column: str, runs: list[dict[str, float]], found: dict[str, list[dict[str, float]]], paper: float | None
) -> str:
    """Mean ± standard deviation; bold where the mean error is the lowest of the table, or the accuracy the highest."""
    figures = [run[column] for run in runs if column in run]
    theirs = "" if paper is None else f" ({_figure(column, paper)})"
    if not figures:
        return f"-{theirs}"
    text = _figure(column, statistics.mean(figures))
    if len(figures) > 1 and column not in ("parameters", "one", "learnt"):
        text += f" ± {_figure(column, statistics.stdev(figures))}"
    each = [[run[column] for run in group if column in run] for group in found.values()]
    means = [statistics.mean(values) for values in each if values]
    higher_is_better = column.startswith(("lid", "bleu", "chrf"))
    compared = higher_is_better or column.startswith(("cer", "wer"))
    best = (max if higher_is_better else min)(means)
    is_best = compared and len(means) > 1 and statistics.mean(figures) == best
    return (f"**{text}**" if is_best else text) + theirs


def _figure(column: str, value: float) -> str:
    return f"{value:.4f}" if column == "rtf" else f"{value:.1f}" if column in ("training", "audio") else f"{value:.2f}"
