"""Pictures of a soup, from the log of a run: who disagrees, in which layers, and what the objectives count."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from masr.files import reading, text_lines, writing
from masr.soup.agreement import Estimate
from masr.soup.conflict import Conflicts

Rows = list[dict[str, Any]]


def draw_soup(folder: Path, log: Path, conflicts: Conflicts) -> None:
    """Writes ``weights.svg`` and, where conflicts were measured, ``objectives.svg`` and ``layers.svg``."""
    with reading(log):
        rows = [row for row in map(json.loads, text_lines(log)) if row["kind"] == "train"]
    pictures = {"weights": _weights(rows)}
    if conflicts.measured and any("conflict/" in key for row in rows for key in row):
        pictures |= {"objectives": _objectives(conflicts), "layers": _layers(rows, conflicts.layers)}
    folder.mkdir(exist_ok=True)
    for name, figure in pictures.items():
        _save(figure, folder / f"{name}.svg")


def draw_agreement(path: Path, layers: Mapping[str, Mapping[str, Estimate]]) -> None:
    """Writes a picture of mean cosines with their 95 % intervals: by layer, for every kind of pair."""
    kinds = list(next(iter(layers.values())))
    figure = Figure(figsize=(9, 1.5 + 0.12 * len(layers) * len(kinds)), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(0, color="0.6", linewidth=0.8)
    for number, kind in enumerate(kinds):
        each = [kinds_of_layer[kind] for kinds_of_layer in layers.values()]
        values = np.array([estimate.value for estimate in each])
        below = values - [estimate.low for estimate in each]
        above = [estimate.high for estimate in each] - values
        places = np.arange(len(layers)) + 0.8 * (number / len(kinds) - 0.4)
        errors = np.clip([below, above], 0, None)
        axes.errorbar(values, places, xerr=errors, fmt="o", color=f"C{number}", label=kind, markersize=3)
    axes.set_yticks(range(len(layers)), list(layers))
    axes.invert_yaxis()
    axes.set_xlabel("mean cosine of expected gradients, 95 % interval")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    """The same picture is the same file."""
    with rc_context({"svg.hashsalt": "masr"}), writing(path):
        figure.savefig(path, metadata={"Date": None})


def _weights(rows: Rows) -> Figure:
    """The weight of every objective, but of those alone in their level, and the factor of every level, over updates."""
    figure, updates = Figure(figsize=(8, 6), layout="constrained"), [row["update"] for row in rows]
    names = list(rows[-1]) if rows else []
    weights = [name for name in names if name.startswith("weight/") and any(row.get(name) != 1.0 for row in rows)]
    kinds = {"weight in its level": weights, "factor of the level": [n for n in names if n.startswith("penalty/")]}
    for axes, (label, lines) in zip(figure.subplots(2, sharex=True), kinds.items(), strict=True):
        tasks, codes = (list(dict.fromkeys(name.split("/")[place] for name in lines)) for place in (1, -1))
        for name in lines:
            colour = f"C{codes.index(name.split('/')[-1])}"
            dashes = ("-", "--", ":", "-.")[tasks.index(name.split("/")[1]) % 4]
            values = [row.get(name, np.nan) for row in rows]
            axes.plot(updates, values, dashes, color=colour, label=name.partition("/")[2], linewidth=1)
        axes.set_ylabel(label)
        if lines:
            axes.legend(fontsize=6, ncols=2, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.set_xlabel("update")
    return figure


def _objectives(conflicts: Conflicts) -> Figure:
    """Cosine of every pair of objectives over all layers."""
    names = conflicts.objectives
    size = 2 + 0.3 * len(names)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.add_subplot()
    _map(axes, conflicts.overall().numpy(), names, names)
    axes.tick_params(axis="x", labelrotation=90)
    return figure


def _layers(rows: Rows, layers: list[str]) -> Figure:
    """Mean cosine of all pairs in every layer, over the epochs in which they were measured."""
    measured = [row for row in rows if f"conflict/{layers[0]}" in row]
    by_epoch = {row["epoch"]: [row[f"conflict/{layer}"] for layer in layers] for row in measured}
    figure = Figure(figsize=(2 + 0.4 * max(len(by_epoch), 4), 1.5 + 0.3 * len(layers)), layout="constrained")
    axes = figure.add_subplot()
    _map(axes, np.array(list(by_epoch.values())).T, layers, [str(epoch) for epoch in by_epoch])
    axes.set_xlabel("epoch")
    return figure


def _map(axes: Axes, values: np.ndarray, rows: list[str], columns: list[str]) -> None:
    """Blue agrees, red disagrees."""
    limit = max(float(np.abs(values[np.abs(values) < 0.999]).max(initial=0.0)), 0.05)
    axes.imshow(values, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    axes.set_yticks(range(len(rows)), rows, fontsize=7)
    axes.set_xticks(range(len(columns)), columns, fontsize=7)
    if len(rows) * len(columns) <= 600:
        for (row, column), value in np.ndenumerate(values):
            axes.text(column, row, f"{value:.2f}".replace("0.", "."), ha="center", va="center", fontsize=5)
