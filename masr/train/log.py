"""What a run leaves to look at: ``log.jsonl`` and TensorBoard, losses averaged over languages and processes."""

import json
import shutil
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.tensorboard import SummaryWriter

from masr.data.batches import Batch, Counts
from masr.files import write_whole, writing


def counted(objective: str, counts: Counts) -> int:
    """What an objective's loss sum is divided by: tokens, with the end of each sentence where that is predicted too."""
    tokens, utterances, translation_tokens, translations = counts
    special = {
        "lid": utterances, "cpc": utterances, "best-rq": utterances, "attention": tokens + utterances,
        "distillation": tokens + utterances, "st": translation_tokens + translations,
    }  # fmt: skip
    return special.get(objective, tokens)


class Meter:
    """Loss sums and counts by ``<objective>/<language>`` since the last log line, over all processes."""

    def __init__(self, objectives: list[str], languages: list[str]):
        self.names = [f"{objective}/{code}" for objective in objectives for code in languages]
        self.sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def add(self, losses: dict[str, torch.Tensor], batch: Batch) -> None:
        """Adds the loss sums of a batch."""
        counts = batch.counts() if batch.targets else {c: Counts(0, n) for c, n in Counter(batch.languages).items()}
        for name, value in zip(losses, torch.stack(list(losses.values())).tolist(), strict=True):
            objective, code = name.split("/")
            self.sums[name][0] += value
            self.sums[name][1] += counted(objective, counts[code])

    def reduce(self, accelerator: Accelerator) -> dict[str, float]:
        """Means by name over all processes; also the mean of every objective over all languages. Starts anew."""
        table = torch.tensor([self.sums[name] for name in self.names], dtype=torch.float64, device="cpu")
        table = accelerator.reduce(table.to(accelerator.device), "sum").cpu()
        self.sums.clear()
        means = {n: (s / c).item() for n, (s, c) in zip(self.names, table, strict=True) if c > 0}
        for objective in dict.fromkeys(name.split("/")[0] for name in self.names):
            rows = table[[i for i, name in enumerate(self.names) if name.startswith(f"{objective}/")]].sum(0)
            means[objective] = (rows[0] / rows[1]).item() if rows[1] else float("nan")
        return means

    def state_dict(self) -> dict[str, list[float]]:
        return dict(self.sums)

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        self.sums.update(state)


class RunLog:
    """Writes ``log.jsonl`` and ``tensorboard/``; on resume, lines after the checkpoint are dropped."""

    def __init__(self, folder: Path, resumed_from: int):
        self.path = folder / "log.jsonl"
        if self.path.exists():
            with self.path.open(encoding="utf-8", errors="replace") as lines:
                kept = [line for line in lines if _update_of(line) <= resumed_from]
            write_whole(self.path, "".join(kept))
        if not resumed_from:
            shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_from + 1 if resumed_from else None)

    def write(self, kind: str, update: int, values: dict[str, Any]) -> None:
        """One line, and every number of it as a TensorBoard scalar ``<kind>/<name>``."""
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "update": update, **values}) + "\n")
        with writing(Path(self.board.log_dir)):
            for name, value in values.items():
                if isinstance(value, int | float):
                    self.board.add_scalar(f"{kind}/{name}", value, update)

    def text(self, name: str, update: int, markdown: str) -> None:
        """A text for TensorBoard, such as decoded examples."""
        with writing(Path(self.board.log_dir)):
            self.board.add_text(name, markdown, update)
            self.board.flush()


def _update_of(line: str) -> int:
    try:
        return int(json.loads(line)["update"])
    except (ValueError, LookupError, TypeError):
        return 1 << 62  # a line that was cut off when the process was killed
