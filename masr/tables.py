"""A table of results: rows (a config and what is changed in it) x columns, over seeds; runs what is missing.

A table file (``egs/<dataset>/tables/*.yaml``) belongs to the recipe whose ``run.sh`` makes its experiments, and names
the figures of the paper beside which ours are printed. It may extend another one. Experiments are
``exp/<table>/<row>-<seed>``.

To run a table is to run programs: the ``run.sh`` of its recipe and, where a file of ``needs`` is missing, the command
that stands there, whatever it is. Each is shown before it runs. So read the table of a stranger first, with ``--show``,
which runs nothing.
"""

import re
import shlex
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
from masr.progress import printable, say
from masr.score.figures import Run, keep_figures
from masr.score.paired import half_of_t
from masr.score.seeds import Compared, compare, compare_pooled, explained
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


class Pooled(Section):
    """Rows under several conditions that share seeds, e.g. 5, 10 and 20 minutes, compared with others all at once."""

    label: str | None = None
    """What the table calls them; default: their key."""
    rows: Annotated[list[str], Field(min_length=1)]
    """Rows of the table."""
    against: list[str] | None = None
    """The rows that they are compared with, one by one; default: those that each is ``against``."""


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
    pooled: dict[str, Pooled] = Field(default={})
    """Differences over several rows at once. Conditions that are nested or share training data are not independent, so
    there is one difference for a seed, the mean over the rows, and the interval is over seeds."""
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

    def pairs_of(self, group: Pooled) -> list[tuple[str, str]]:
        """Each row of a group and the one that it is compared with; ConfigError for what the table has not."""
        others = group.against or [self.rows[row].against or "" for row in group.rows if row in self.rows]
        if unknown := sorted({*group.rows, *others} - self.rows.keys()):
            raise ConfigError(f"pooled: no row {', '.join(map(repr, unknown))} to compare")
        if len(others) != len(group.rows):
            raise ConfigError(f"pooled: {len(group.rows)} rows against {len(others)}, expected as many")
        return list(zip(group.rows, others, strict=True))


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
    for group in table.pooled.values():
        try:
            table.pairs_of(group)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
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
    """Folder of an experiment, or of its figures in ``results``, if it was scored with the options that the row has.

    A seal says that an experiment was scored to the end; what is kept in ``results`` had been.
    """
    recipe = path.absolute().parents[1]
    name, options = experiment(path, table, row, seed, scale)
    wanted = load_config(recipe / (table.rows[row].config or table.config), options).model_dump(exclude=DECIDES_NOTHING)
    run = recipe / "exp" / name
    candidates = [(run, (f"score/{SEAL}", "training.json", "config.yaml"))]
    if results is not None:
        candidates.append((results / run.name, ("score", "training.json", "config.yaml")))
    for folder, needed in candidates:
        if all((folder / file).exists() for file in needed):
            there = load_config(folder / "config.yaml").model_dump(exclude=DECIDES_NOTHING)
            if there == wanted:
                return folder
    return None


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


def print_table(
    path: Path,
    scale: str | None = None,
    rows: Sequence[str] = (),
    results: Path | None = None,
    method: str | None = None,
) -> str:
    """Markdown: mean ± standard deviation over the seeds that have been run, and the paper's figures in brackets.

    Where a row names another one, also its difference from that with a 95 % confidence interval (Student's t), and
    below the table those of several rows at once. ``method``: search whose errors are shown instead of the table's.
    """
    table = load_table(path)
    if method is not None:
        table = table.model_copy(update={"method": method})
    runs = {row: _runs(path, table, row, scale, results) for row in table.rows}
    found = {row: [run.values for run in runs[row].values()] for row in _chosen(table, rows)}
    columns = _columns(table, found)
    compared = table.compared if any(table.rows[row].against for row in found) else []
    titles = [*(_title(column) for column in columns), *(f"{_title(column)} against" for column in compared), "runs"]
    lines = [f"| {' | '.join(['', *titles])} |", "|---" + "|--:" * len(titles) + "|"]
    differences: list[Compared] = []
    for row, values in found.items():
        cells = [_cell(column, values, found, table.rows[row].paper.get(column)) for column in columns]
        for column in compared:
            cells.append(_difference(column, runs, row, table, differences))
        lines.append(f"| {' | '.join([table.rows[row].label or row, *cells, str(len(values))])} |")
    parts = [f"### {table.title}"]
    if method is not None:
        parts.append(f"Search: {method}.")
    if table.notes:
        parts.append(table.notes.strip())
    parts.append("\n".join(lines))
    if table.pooled and not rows:
        parts.append(_pooled(table, runs))
    return "\n\n".join([*parts, *explained(differences)])


def _runs(path: Path, table: Table, row: str, scale: str | None, results: Path | None) -> dict[int, Run]:
    """The runs of a row that are done, by seed."""
    folders = {seed: finished(path, table, row, seed, scale, results) for seed in table.seeds_of(row)}
    return {seed: Run(folder, table.method, table.split) for seed, folder in folders.items() if folder is not None}


def _difference(
    column: str, runs: dict[str, dict[int, Run]], row: str, table: Table, differences: list[Compared]
) -> str:
    """``flat: -0.52 ± 0.31``; what is said of it below the table goes to ``differences``."""
    other = table.rows[row].against
    if other is None:
        return ""
    found = compare(column, runs[row], runs[other])
    if found is None:
        return "-"
    differences.append(found)
    return f"{other}: {found}"


def _pooled(table: Table, runs: dict[str, dict[int, Run]]) -> str:
    """Markdown: the differences of groups of rows, one a seed."""
    titles = [f"{_title(column)} against" for column in table.compared]
    lines = [f"| by seed | {' | '.join(titles)} | seeds |", "|---" + "|--:" * (len(titles) + 1) + "|"]
    for key, group in table.pooled.items():
        pairs = [(runs[row], runs[other]) for row, other in table.pairs_of(group)]
        cells, seeds = [], 0
        for column in table.compared:
            differences = compare_pooled(column, pairs)
            seeds = max(seeds, len(differences))
            cells.append(_mean_and_half(differences))
        lines.append(f"| {' | '.join([group.label or key, *cells, str(seeds)])} |")
    return "\n".join(lines)


def _mean_and_half(differences: Sequence[float]) -> str:
    """Mean ± half of the 95 % interval, which one seed has not."""
    if not differences:
        return "-"
    half = half_of_t(differences)
    return f"{statistics.mean(differences):+.2f}" + ("" if half is None else f" ± {half:.2f}")


def _chosen(table: Table, rows: Sequence[str]) -> list[str]:
    if unknown := [row for row in rows if row not in table.rows]:
        raise ConfigError(f"rows: no {', '.join(unknown)} in the table; it has {', '.join(table.rows)}")
    return [row for row in table.rows if not rows or row in rows]


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
