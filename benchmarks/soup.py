"""Objective soups beside plain training of the same model, and beside torchjd's full Jacobian.

    .venv/bin/python benchmarks/soup.py [--seconds 60] [--threads 1]

The model of egs/freevoices/conf/conformer.yaml with a translation decoder: recognition and translation of eleven
languages, 22 objectives. A step is forward and backward of one update without the optimiser's step; soups split it
into the two samples that MoDo needs, so that all hear the same audio. Weights move in every second update, which is
the default. Memory is the peak of a process of its own, from the making of the model to the end of its first step.
Ratios: plain / soup, so above 1 the soup took less.
"""

import argparse
import itertools
import subprocess
import sys
from collections.abc import Callable

import torch
from accelerate import Accelerator
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

from masr.config import Vocab
from masr.config_files import load_config
from masr.data.batches import Batch, Counts, Tokens, Update
from masr.models.recognizer import Recognizer
from masr.soup.levels import Soup
from masr.text.tokenizer import train_tokenizer
from masr.train.log import counted
from masr.train.soup_step import SoupStep, soup_objectives

LANGUAGES = ["be", "bg", "ca", "cs", "da", "el", "es", "fr", "nl", "ro", "ru"]
TOP = "{objectives: ['st/*'], weights: modo}"
MIDDLE = "{objectives: ['asr/*'], weights: modo, penalty: {start: 0.5}}"
LEVELS = {
    "VS or VC": "[{objectives: ['*'], weights: modo}]",
    "VM": f"[{TOP}, {MIDDLE}]",
    "VM, 2 of 7 layers": f"[{TOP}, {MIDDLE}]",
    "VM, 2 of 7 layers, weights move every update": f"[{TOP}, {MIDDLE}]",
    "VM, an update that measures conflicts": f"[{TOP}, {MIDDLE}]",
    "MGDA": "[{objectives: ['*'], weights: mgda}]",
}
SELECTED = ["block 1", "block 2"]
TRANSLATION = "model.translation={weight: 0.3, layers: 2, width: 144, heads: 4, feedforward: 576}"


def build(levels: str = "[]") -> Recognizer:
    options = [TRANSLATION, "model.encoder.dropout=0.0", f"train.soup.levels={levels}"]
    config = load_config(ROOT / "egs/freevoices/conf/conformer.yaml", options)
    letters = ["".join(map(chr, range(97, 97 + 26))), "ab cd"]
    tokenizer = train_tokenizer({code: letters for code in LANGUAGES}, Vocab())
    tokenizer.translation = train_tokenizer({"en": letters}, Vocab())
    tokenizer.translation.used = {code: [] for code in LANGUAGES}
    torch.manual_seed(0)
    return Recognizer(config, tokenizer).train()


def batch_of(rows: range, seconds: float = 2.0) -> Batch:
    """Utterances of two seconds, language after language."""
    frames, generator = round(100 * seconds), torch.Generator().manual_seed(rows.start)
    ids = torch.randint(4, 26, (len(rows), 12), generator=generator)
    tokens = Tokens(ids, torch.full((len(rows),), 12))
    return Batch(
        ids=[str(row) for row in rows], languages=[LANGUAGES[row % len(LANGUAGES)] for row in rows],
        features=torch.randn(len(rows), frames, 80, generator=generator),
        feature_lengths=torch.full((len(rows),), frames),
        allowed_languages=torch.ones(len(rows), len(LANGUAGES), dtype=torch.bool),
        targets={"transcript": tokens, "translation": tokens},
    )  # fmt: skip


def update_of(seconds: float, samples: int) -> Update:
    """Utterances of two seconds of all languages; of less where that is too much."""
    number = max(2 * len(LANGUAGES), round(seconds / 2))
    each = min(2.0, seconds / number)
    bounds = [number * part // samples for part in range(samples + 1)]
    batches = [batch_of(range(a, b), each) for a, b in itertools.pairwise(bounds)]
    counts: dict[str, Counts] = {}
    for batch in batches:
        for code, count in batch.counts().items():
            counts[code] = counts.get(code, Counts()) + count
    return Update([[batch] for batch in batches], counts, seconds, {})


def a_step(kind: str, seconds: float) -> Callable[[], None]:
    """Gradients of one update."""
    if kind == "plain":
        return plain_step(build(), update_of(seconds, 1))
    if kind == "torchjd":
        return jacobian_step(build(), update_of(seconds, 1))
    model = build(LEVELS[kind])
    step = SoupStep(model, Soup(model.config.train.soup, soup_objectives(model)), Accelerator(cpu=True))
    if kind.endswith("every update"):
        model.config.train.soup.every = 1
    if "measures" in kind:
        model.config.train.soup.detect_epochs, model.config.train.soup.detect_every = 1.0, 1
    if "2 of 7" in kind:
        step.selected = lambda epoch: SELECTED  # type: ignore[method-assign]
    update, numbers = update_of(seconds, step.samples), itertools.count()

    def run() -> None:
        model.zero_grad()
        step.backward(update, epoch=0, number=next(numbers), meter=None)

    return run


def plain_step(model: Recognizer, update: Update) -> Callable[[], None]:
    counts, weights = sum(update.counts.values(), Counts()), model.objective_weights()

    def run() -> None:
        model.zero_grad()
        losses = model(update.micro_batches[0])
        total = [weights[n.split("/")[0]] * loss / counted(n.split("/")[0], counts) for n, loss in losses.items()]
        torch.stack(total).sum().backward()

    return run


def jacobian_step(model: Recognizer, update: Update) -> Callable[[], None]:
    """torchjd's way: the gradient of every objective with respect to every shared parameter, then an aggregator."""
    from torchjd.aggregation import MGDA
    from torchjd.autojac import jac_to_grad, mtl_backward

    weights, shared = model.objective_weights(), list(model.encoder.parameters())
    heads = [p for name, p in model.named_parameters() if not name.startswith("encoder.") and p.requires_grad]

    def run() -> None:
        model.zero_grad()
        [batch] = update.micro_batches
        encoded = model.encode(batch.features, batch.feature_lengths, batch.allowed_languages)
        losses = model.losses([encoded], batch)
        objectives = {f"{task}/{code}": torch.zeros(()) for task in ("asr", "st") for code in LANGUAGES}
        for name, values in losses.items():
            for code in LANGUAGES:
                rows = torch.tensor([other == code for other in batch.languages])
                task = "st" if name == "st" else "asr"
                own = weights[name] * values[rows].sum() / counted(name, update.counts[code])
                objectives[f"{task}/{code}"] = objectives[f"{task}/{code}"] + own
        features = [encoded.frames, *encoded.intermediate]
        mtl_backward(
            list(objectives.values()), features=features, tasks_params=[heads] * len(objectives), retain_graph=True
        )
        jac_to_grad(shared, MGDA())

    return run


def memory(kind: str, seconds: float, threads: int) -> float:
    """MiB at the peak of a step in a process of its own."""
    command = [sys.executable, __file__, "--memory-of", kind, "--seconds", str(seconds), "--threads", str(threads)]
    return float(subprocess.run(command, env=thread_environment(threads), check=True, capture_output=True).stdout)


def print_memory_of(kind: str, seconds: float) -> None:
    print(peak_memory(lambda: a_step(kind, seconds)()))


def main() -> None:
    parser = common_options(__doc__, repeats=5)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print_memory_of(options.memory_of, options.seconds)
        return
    kinds = ["plain", *LEVELS, "torchjd"]
    if options.shortest:
        kinds, options.repeats, options.seconds = ["plain", "VM"], 1, 8.0
    steps = {kind: a_step(kind, options.seconds) for kind in kinds}
    # Two updates, as weights move in every second one.
    warm_up = 0 if options.shortest else 1
    twice = seconds_in_turn(
        {kind: lambda run=run: (run(), run()) for kind, run in steps.items()}, options.repeats, warm_up
    )
    taken = {kind: seconds / 2 for kind, seconds in twice.items()}
    if options.shortest:  # a process for the memory of each takes longer than all this
        print_head(["a step", "s"])
        for kind in kinds:
            print_row([kind, f"{taken[kind]:.3f}"])
        return
    peaks = {kind: memory(kind, options.seconds, options.threads) for kind in kinds}
    print_head(["a step", "s", "x plain", "MiB", "x plain"])
    for kind in kinds:
        times, more = taken[kind] / taken["plain"], peaks[kind] / peaks["plain"]
        print_row([kind, f"{taken[kind]:.3f}", f"{times:.2f}", f"{peaks[kind]:.0f}", f"{more:.2f}"])
    print()
    for kind in kinds[1:]:
        name = kind.replace(" ", "-").replace(",", "")
        print(ratio_line(f"{name}-seconds", "plain", taken[kind], taken["plain"]))
        print(ratio_line(f"{name}-memory", "plain", peaks[kind], peaks["plain"]))


if __name__ == "__main__":
    main()
