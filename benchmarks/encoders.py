"""The Mamba encoders of freevoices beside its Conformer of the same size, on recordings of 5 to 120 seconds.

    .venv/bin/python benchmarks/encoders.py [--threads 1] [--plot docs/encoders.svg]

The encoder alone, from log-mel features to frames, one recording at a time: recognition (forward) and training (forward
and backward, without dropout's random numbers). Sizes are those of conf/conformer.yaml, mamba.yaml and mamba2.yaml.
Memory is what a process of its own needs beyond the weights. The crossing is where a Mamba encoder becomes the one that
takes less, on a straight line between two lengths (both axes logarithmic). Ratios: conformer / mamba.
"""

import argparse
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from measure import (
    ROOT,
    common_options,
    peak_memory,
    print_head,
    print_row,
    ratio_line,
    seconds_in_turn,
    thread_environment,
)

from masr.config_files import load_config
from masr.nn.encoder import Encoder

SECONDS = (5, 10, 20, 40, 60, 80, 120)
CONFIGS = {"conformer": "conformer.yaml", "mamba1": "mamba.yaml", "mamba2": "mamba2.yaml"}
LABELS = {"conformer": "Conformer", "mamba1": "Mamba-1, both directions", "mamba2": "Mamba-2, both directions"}
MODES = ("recognition", "training")
Taken = dict[tuple[str, str, int], float]
"""Seconds or MiB by mode, encoder and seconds of audio."""


def build(kind: str) -> Encoder:
    options = load_config(ROOT / "egs/freevoices/conf" / CONFIGS[kind]).model.encoder
    torch.manual_seed(0)
    return Encoder(80, options.model_copy(update={"dropout": 0.0}))


def a_pass(encoder: Encoder, mode: str, seconds: float) -> Callable[[], None]:
    """Forward, or forward and backward, of one recording."""
    features, lengths = torch.randn(1, round(100 * seconds), 80), torch.tensor([round(100 * seconds)])

    def recognise() -> None:
        with torch.no_grad():
            encoder.eval()(features, lengths)

    def train() -> None:
        encoder.train()(features, lengths).frames.mean().backward()

    return recognise if mode == "recognition" else train


def times(seconds: Sequence[int], repeats: int) -> Taken:
    """Medians; at every length the encoders take turns."""
    encoders = {kind: build(kind) for kind in CONFIGS}
    taken: Taken = {}
    for length in seconds:
        for mode in MODES:
            contenders = {kind: a_pass(encoder, mode, length) for kind, encoder in encoders.items()}
            medians = seconds_in_turn(contenders, repeats)
            taken |= {(mode, kind, length): median for kind, median in medians.items()}
    return taken


def memory(kind: str, mode: str, seconds: int, threads: int) -> float:
    """MiB at the peak of a pass in a process of its own, beyond what it had after a pass of one second."""
    command = [sys.executable, __file__, "--memory-of", kind, mode, str(seconds), "--threads", str(threads)]
    return float(subprocess.run(command, env=thread_environment(threads), check=True, capture_output=True).stdout)


def print_memory_of(kind: str, mode: str, seconds: int) -> None:
    encoder = build(kind)
    a_pass(encoder, mode, 1)()  # loads what is loaded once
    print(peak_memory(a_pass(encoder, mode, seconds)))


def crossing(taken: Taken, mode: str, kind: str, seconds: Sequence[int]) -> str:
    """From which length on ``kind`` takes less than the Conformer."""
    ratios = [math.log(taken[mode, kind, s] / taken[mode, "conformer", s]) for s in seconds]
    if ratios[-1] > 0:
        return f"not up to {seconds[-1]} s"
    worse = [i for i, ratio in enumerate(ratios) if ratio > 0]
    if not worse:
        return f"from {seconds[0]} s or less"
    low, high = worse[-1], worse[-1] + 1
    share = ratios[low] / (ratios[low] - ratios[high])
    return f"from {seconds[low] * (seconds[high] / seconds[low]) ** share:.0f} s"


def plot(path: Path, seconds: Sequence[int], panels: dict[str, tuple[str, Taken, str]]) -> None:
    """One panel for each of time and memory, in both modes."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "masr"  # the same picture for the same figures
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3.4), layout="constrained")
    for axis, (title, (unit, taken, mode)) in zip(axes, panels.items(), strict=True):
        for kind, label in LABELS.items():
            axis.loglog(seconds, [taken[mode, kind, s] for s in seconds], marker="o", markersize=3, label=label)
        axis.set(title=title, xlabel="seconds of audio", ylabel=unit)
        axis.set_xticks(seconds, map(str, seconds))
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})
    print(f"wrote {path}")


def main() -> None:
    parser = common_options(__doc__, repeats=5)
    parser.add_argument("--seconds", type=int, nargs="+", default=SECONDS)
    parser.add_argument("--plot", type=Path, help="SVG file to write")
    parser.add_argument("--memory-of", nargs=3, metavar=("KIND", "MODE", "SECONDS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.memory_of:
        kind, mode, seconds = arguments.memory_of
        print_memory_of(kind, mode, int(seconds))
        return

    seconds = sorted(arguments.seconds)
    if arguments.shortest:
        seconds, arguments.repeats = [1], 1
    taken = times(seconds, arguments.repeats)
    places = [(mode, kind, s) for mode in MODES for kind in CONFIGS for s in seconds]
    if arguments.shortest:  # a process for the memory of each takes longer than all this
        print_head(["pass", "encoder", "ms"])
        for mode, kind, s in places:
            print_row([mode, LABELS[kind], f"{1000 * taken[mode, kind, s]:.0f}"])
        return
    used = {(mode, kind, s): memory(kind, mode, s, arguments.threads) for mode, kind, s in places}
    print_head(["pass", "encoder", "M parameters", *(f"{s} s: ms, MiB" for s in seconds)])
    for mode in MODES:
        for kind, label in LABELS.items():
            size = sum(p.numel() for p in build(kind).parameters()) / 1e6
            cells = [f"{1000 * taken[mode, kind, s]:.0f}, {used[mode, kind, s]:.0f}" for s in seconds]
            print_row([mode, label, f"{size:.2f}", *cells])
    print()
    for mode in MODES:
        for kind in ("mamba1", "mamba2"):
            less_memory = crossing(used, mode, kind, seconds)
            print(f"{mode}: {kind} is faster {crossing(taken, mode, kind, seconds)}, needs less memory {less_memory}")
    if arguments.plot:
        kinds = (("time, ms", {key: 1000 * value for key, value in taken.items()}), ("peak memory, MiB", used))
        panels = {f"{mode}: {unit.split(',')[0]}": (unit, values, mode) for mode in MODES for unit, values in kinds}
        plot(arguments.plot, seconds, panels)
    for mode in MODES:
        for kind in ("mamba1", "mamba2"):
            for s in (seconds[0], seconds[-1]):
                print(ratio_line(f"{mode}-{kind}-{s}s", "conformer", taken[mode, kind, s], taken[mode, "conformer", s]))


if __name__ == "__main__":
    main()
