"""The training loop: updates, running average, evaluation, checkpoints, exact resume.

Without dropout, an update is the same whatever the number of processes and micro-batches: its recordings are fixed by
`masr.data.sampling.EpochPlan`, each process takes its share, losses are divided by the tokens of the whole update, and
what SpecAugment masks belongs to the utterance. Dropout draws from each process's own stream of random numbers.
"""

import copy
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from lhotse.cut import Cut
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from masr.config import Config
from masr.data.augment.waveform import WaveformAugmentation
from masr.data.batches import Counts, TrainingUpdates, Update
from masr.data.prompts import prompts_of
from masr.data.rejected import Rejected
from masr.data.sampling import EpochPlan
from masr.files import writing
from masr.models.folder import WEIGHTS, save_model
from masr.models.recognizer import Recognizer
from masr.nn.contrastive import SELF_SUPERVISED
from masr.processes import end_with_parent
from masr.progress import clock, in_markdown, say, track
from masr.soup.levels import Soup
from masr.tensor_files import is_intact
from masr.train import checkpoint as checkpoints
from masr.train.evaluate import Evaluation, evaluate, note_score
from masr.train.exchange import sum_gradients
from masr.train.log import Meter, RunLog, counted
from masr.train.optim import ENDLESS, build_optimizer, build_schedule, learning_rate_factor
from masr.train.soup_step import SoupStep, soup_objectives


class TrainingFailed(RuntimeError):
    """Training cannot go on; the message says why and what to try."""


class Trainer:
    """Trains a recogniser in ``folder`` (exp/<name>) and leaves the best running average of its weights there."""

    def __init__(
        self, model: Recognizer, plan: EpochPlan, dev: list[Cut], config: Config, folder: Path,
        accelerator: Accelerator, unlabelled: EpochPlan | None = None, changes: Sequence[str] = (),
    ):  # fmt: skip
        self.config, self.options, self.folder, self.accelerator = config, config.train, folder, accelerator
        self.recognizer, self.plan, self.dev = model.to(accelerator.device), plan, dev
        self.unlabelled, self.changes = unlabelled, changes
        self.augmentation = WaveformAugmentation(config.data.augment, plan.cuts, config.seed)
        self.dev_prompt = prompts_of(config.data.dev_prompt, model.tokenizer.languages)
        shared: dict[int, Any] = {id(p): p for p in self.recognizer.parameters() if not p.requires_grad}  # what stays
        shared[id(self.recognizer.teacher)] = self.recognizer.teacher
        self.averaged = copy.deepcopy(self.recognizer, shared).eval().requires_grad_(False)
        optimizer = build_optimizer(model, self.options)
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.schedule = build_schedule(optimizer, self.options)
        self.peaks = list(self.schedule.base_lrs)
        self.weights = model.objective_weights()
        levels = self.options.soup.levels
        self.partial = config.model.adapt.lora.per_language or config.model.self_supervised.weight > 0
        """Whether a batch may use only some of the parameters, which processes then have to agree on."""
        soup = Soup(self.options.soup, soup_objectives(model)) if levels else None
        self.soup = SoupStep(model, soup, accelerator) if soup else None
        self.meter = Meter(list(self.weights), model.tokenizer.languages)
        self.progress: dict[str, Any] = {
            "update": 0, "epoch": 0, "position": 0, "best_cer": math.inf, "best_update": 0, "stale": 0, "bad_steps": 0,
            "evaluated": 0, "best_score": math.inf,
            "audio_seconds": 0.0, "train_seconds": 0.0, "logged_audio": 0.0, "logged_seconds": 0.0,
        }  # fmt: skip
        self.updates_of_epoch = 1
        self.rejected: dict[str, str] = {}

    @property
    def is_main(self) -> bool:
        return self.accelerator.is_main_process

    def run(self) -> dict[str, Any]:
        """Trains to the last update or until dev stops improving; returns the progress record."""
        self._resume()
        if self.is_main:
            self.log = RunLog(self.folder, self.progress["update"])
            self._log_changes()
            self._mend_weights()
        if self._is_last() and not self.progress["evaluated"]:
            self._evaluate_and_save()
        elif self.progress["update"] == 0:
            self._check_memory()
        steps, remaining = self._steps(), self.options.updates - self.progress["update"]
        for _ in track(steps, "train", remaining, unit="updates") if self.is_main else steps:
            if self.progress["update"] % self.options.log_every == 0:
                self._log()
            if self.progress["update"] % self.options.validate_every == 0 or self._is_last():
                self._evaluate_and_save()
        return self.progress

    # --- updates -----------------------------------------------------------------------------------------------------

    def _steps(self) -> Iterator[None]:
        """Runs one update a step, epoch after epoch, from where the progress record stands."""
        began = time.monotonic()
        while not self._is_last():
            for update in self._loader():
                self._train(update)
                self.progress["train_seconds"] += time.monotonic() - began
                self.progress["audio_seconds"] += update.seconds
                self.progress["update"] += 1
                self.progress["position"] += 1
                yield
                if self._is_last():
                    return
                began = time.monotonic()  # what happened since (evaluation, checkpoints) is not training
            self.progress["epoch"] += 1
            self.progress["position"] = 0

    def _is_last(self) -> bool:
        stale = self.options.patience and self.progress["stale"] >= self.options.patience
        return bool(stale) or self.progress["update"] >= self.options.updates

    def _loader(self) -> DataLoader:
        """The rest of the current epoch as this process sees it."""
        data, epoch = self.config.data, self.progress["epoch"]
        updates = self.plan.updates(epoch)
        self.updates_of_epoch = len(updates)
        masks = self.config.model.spec_augment
        dataset = TrainingUpdates(
            updates, self.recognizer.tokenizer, self.config.features,
            masks if epoch >= masks.start_epoch else None, (self.config.seed, epoch), data.device_seconds,
            self.accelerator.process_index, self.accelerator.num_processes, data.prompts,
            self.soup.samples if self.soup else 1, self.unlabelled.updates(epoch) if self.unlabelled else None,
            self.config.model.self_supervised.compared, self.augmentation.audio_of(epoch),
        )  # fmt: skip
        return DataLoader(
            dataset, batch_size=None, sampler=range(self.progress["position"], len(updates)), num_workers=data.workers,
            prefetch_factor=4 if data.workers else None, generator=torch.Generator(), worker_init_fn=_start_loader,
        )  # fmt: skip

    def _epochs(self) -> float:
        """The time in epochs."""
        return self.progress["epoch"] + self.progress["position"] / self.updates_of_epoch

    def _train(self, update: Update) -> None:
        self.rejected |= update.rejected
        self.model.train()
        finite = self._backward(update)
        norm = self._clip()
        self.progress["gradient_norm"] = norm
        if math.isfinite(norm) or self.accelerator.scaler is not None:  # a scaler skips the step itself
            self.optimizer.step()
        if math.isfinite(norm):
            self._update_average()
        else:
            self._count_bad_step(update, finite)
        self.progress["bad_steps"] *= not math.isfinite(norm)
        self.optimizer.zero_grad()
        self.schedule.step()

    def _clip(self) -> float:
        """Limits the gradient; in a soup that of each part, as heads do not heed the weights. The norm of all of it."""
        if self.soup is None:
            return float(self.accelerator.clip_grad_norm_(self.model.parameters(), self.options.clip))
        self.accelerator.unscale_gradients()
        parts = [[p for p in part.parameters() if p.grad is not None] for part in self.recognizer.children()]
        norms = [torch.nn.utils.clip_grad_norm_(part, self.options.clip) for part in parts if part]
        return float(torch.stack(norms).norm()) if norms else 0.0

    def _backward(self, update: Update, measure: bool = True) -> bool:
        """Accumulates the gradients of this process's micro-batches; False if a loss was not finite."""
        if self.soup is not None:
            number, meter = (self.progress["update"], self.meter) if measure else (None, None)
            return self.soup.backward(update, self._epochs(), number, meter)
        finite = True
        for number, batch in enumerate(update.micro_batches, 1):
            if self.partial and not batch.ids:  # silence, for the exchange that there is not
                continue
            batch = batch.to(self.accelerator.device)
            exchange = number == len(update.micro_batches) and not self.partial
            with nullcontext() if exchange else self.accelerator.no_sync(self.model):
                losses = self.model(batch)
                loss = self._total(losses, update)
                self.accelerator.backward(loss * (1 if self.partial else self.accelerator.num_processes))  # averaged
            finite = finite and bool(torch.isfinite(loss))
            if measure and batch.languages:
                self.meter.add(losses, batch)
        if self.partial:
            sum_gradients(self.model.parameters())
        return finite

    def _total(self, losses: dict[str, Tensor], update: Update) -> Tensor:
        """The weighted sum of objectives, each divided by what it counts in the whole update."""
        total = torch.zeros((), device=self.accelerator.device)
        counts, heard = sum(update.counts.values(), Counts()), Counts(0, update.unlabelled_utterances)
        for name, value in losses.items():
            objective = name.split("/")[0]
            number = counted(objective, heard if objective in SELF_SUPERVISED else counts)
            total = total + self.weights.get(objective, 0.0) * value / max(number, 1)
        return total

    def _update_average(self) -> None:
        """Running average of the weights; its decay grows from 0 so that the first updates are soon forgotten."""
        number = self.progress["update"]
        decay = min(self.options.average_decay, (1 + number) / (10 + number))
        average = get_ema_multi_avg_fn(decay)
        pairs = zip(self.averaged.parameters(), self.recognizer.parameters(), strict=True)
        learning = [(mean, current) for mean, current in pairs if current.requires_grad]
        average([mean for mean, _ in learning], [current for _, current in learning], number)

    def _count_bad_step(self, update: Update, finite: bool) -> None:
        self.progress["bad_steps"] += 1
        if not finite:
            name = f"update-{self.progress['update'] + 1}-{self.accelerator.process_index}.pt"
            path = self.folder / "bad_batches" / name
            path.parent.mkdir(exist_ok=True)
            with writing(path):
                torch.save([batch.plain() for batch in update.micro_batches], path)
            say(f"train: update {self.progress['update'] + 1}: the loss is not finite; skipped, batch kept in {path}")
        if self.progress["bad_steps"] > self.options.max_bad_steps:
            raise TrainingFailed(
                f"{self.progress['bad_steps']} updates in a row had non-finite gradients; look at "
                f"{self.folder}/bad_batches; then run the same command with a lower train.learning_rate, or with "
                "train.precision=fp32: it goes on from the last checkpoint"
            )

    def _check_memory(self) -> None:
        """Runs the largest updates of the first epoch once, changing nothing, so that memory runs out now or never."""
        dataset = self._loader().dataset
        assert isinstance(dataset, TrainingUpdates)
        cost = [max(cut.duration for cut in cuts) * len(cuts) for cuts in dataset.updates]
        longest = [max(cut.duration for cut in cuts) for cuts in dataset.updates]
        before, soup = checkpoints.random_state(), copy.deepcopy(self.soup.state_dict()) if self.soup else None
        try:
            for index in {max(range(len(cost)), key=values.__getitem__) for values in (cost, longest)}:
                self.model.train()
                self._backward(dataset[index], measure=False)
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error):  # as torch raises it on a CPU
                raise
            raise TrainingFailed(
                f"out of memory on the largest batch ({max(cost):.0f} s of padded audio, longest {max(longest):.1f} s):"
                f" run the same command with a lower data.device_seconds (now {self.config.data.device_seconds:g}), "
                "which changes nothing else, or with a lower data.max_seconds"
            ) from error
        self.optimizer.zero_grad()
        checkpoints.set_random_state(before)
        if self.soup is not None and soup is not None:
            self.soup.load_state_dict(soup)

    # --- evaluation, log, checkpoints --------------------------------------------------------------------------------

    def _log(self) -> None:
        means = self.meter.reduce(self.accelerator)
        if not self.is_main:
            return
        p = self.progress
        seconds, audio = p["train_seconds"] - p["logged_seconds"], p["audio_seconds"] - p["logged_audio"]
        p["logged_seconds"], p["logged_audio"] = p["train_seconds"], p["audio_seconds"]
        total = sum(weight * means[name] for name, weight in self.weights.items())
        rate = audio / max(seconds, 1e-9)
        values = {
            "loss": total, **means, "learning_rate": self.schedule.get_last_lr()[0],
            "gradient_norm": p["gradient_norm"], "epoch": p["epoch"], "audio_seconds_per_second": rate,
        }  # fmt: skip
        self.log.write("train", p["update"], values | (self.soup.describe(self._epochs()) if self.soup else {}))
        left = clock(p["train_seconds"] / p["update"] * (self.options.updates - p["update"]))
        parts = "  ".join(f"{name} {means[name]:.3f}" for name in self.weights)
        say(f"update {p['update']}/{self.options.updates}  epoch {p['epoch']}  {parts}  {rate:.0f} s/s  {left} left")

    def _evaluate_and_save(self) -> None:
        self._check_recordings()
        by, seconds = self.options.keep_by, self.config.decode.batch_seconds
        result = evaluate(self.averaged, self.dev, seconds, self.dev_prompt, self.accelerator, by != "cer")
        better = note_score(self.progress, result, by)
        if self.is_main:
            self._report(result)
            if self.soup is not None:
                from masr.soup.plots import draw_soup  # matplotlib takes half a second, which a start need not wait for

                draw_soup(self.folder / "soup", self.folder / "log.jsonl", self.soup.conflicts)
            if better or self.options.keep == "last" or not (self.folder / WEIGHTS).exists():
                save_model(self.folder, self.recognizer, self.recognizer.learned(self.averaged.state_dict()))
        self._save_checkpoint()

    def _check_recordings(self) -> None:
        """Counts what no process could read so far; too much of it stops all of them."""
        rejected = Rejected(self.folder / "unreadable.tsv")
        for reasons in gather_object([self.rejected]):
            rejected.reasons |= reasons
        plans = [self.plan] if self.unlabelled is None else [self.plan, self.unlabelled]
        recordings = sum(len(group) for plan in plans for group in plan.recordings.values())
        if self.is_main:
            rejected.finish("train", recordings, self.config.data.max_bad_fraction)
        elif len(rejected.reasons) > self.config.data.max_bad_fraction * recordings:
            raise TrainingFailed(f"too many recordings cannot be read; reasons in {rejected.path}")

    def _report(self, result: Evaluation) -> None:
        update = self.progress["update"]
        self.log.write("dev", update, result.values())
        lines = [f"| {' | '.join(map(in_markdown, example))} |" for example in result.examples]
        self.log.text("dev/examples", update, "\n".join(["| | reference | hypothesis |", "|-|-|-|", *lines]))
        each = "  ".join(f"{code} {value:.1%}" for code, value in result.cer.items())
        bleu = f"BLEU {result.macro_bleu:.2f}  " if result.bleu else ""
        say(f"update {update}: dev CER {result.macro_cer:.2%} (best {self.progress['best_cer']:.2%})  {bleu}{each}")

    def _save_checkpoint(self) -> None:
        random_states = gather_object([checkpoints.random_state()])
        meters = gather_object([self.meter.state_dict()])
        if self.is_main:
            scaler = self.accelerator.scaler
            state = {
                "progress": self.progress, "optimizer": self.optimizer.state_dict(), "meters": meters,
                "schedule": {k: v for k, v in self.schedule.state_dict().items() if k != "lr_lambdas"},
                "scaler": scaler.state_dict() if scaler is not None else None,
                "soup": self.soup.state_dict() if self.soup is not None else None,
            }  # fmt: skip
            learned, current = self.recognizer.learned, self.recognizer.state_dict()
            weights = {"model": learned(current), "averaged": learned(self.averaged.state_dict())}
            folder, keep = self.folder / "checkpoints", self.options.keep_checkpoints
            best = self.progress["best_update"]
            checkpoints.save_checkpoint(folder, self.progress["update"], weights, state, random_states, keep, best)
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        folder = self.folder / "checkpoints"
        path = checkpoints.find_checkpoint(folder)
        if path is None and any(folder.glob("step-????????")):
            raise TrainingFailed(f"{folder}: no checkpoint is whole: take one from a copy, or --force to train again")
        if path is None:
            return
        rank = self.accelerator.process_index
        state, random_state = checkpoints.load_state(path, rank)
        self.recognizer.load_learned(checkpoints.load_weights(path, "model"))
        self.averaged.load_learned(checkpoints.load_weights(path, "averaged"))
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"] | {"lr_lambdas": [None] * len(self.optimizer.param_groups)})
        if state["scaler"] is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.soup is not None:
            self.soup.load_state_dict(state["soup"])
        self.progress |= {"best_score": state["progress"]["best_cer"]} | state["progress"]  # once CER alone decided
        if rank < len(state["meters"]):
            self.meter.load_state_dict(state["meters"][rank])
        if random_state is not None:
            checkpoints.set_random_state(random_state)
        if self.changes:
            self._follow_new_schedule()
        if self.is_main:
            say(f"train: going on from update {self.progress['update']} ({path})")

    def _follow_new_schedule(self) -> None:
        """Learning rates as they are when the options of now had held from the first update on."""
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["initial_lr"] = peak
            group["lr"] = peak * learning_rate_factor(self.progress["update"], self.options)
        self.schedule.base_lrs = list(self.peaks)
        self.schedule._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _log_changes(self) -> None:
        """Says which options are others from now on, and how the learning rate goes on."""
        if not self.changes:
            return
        update = self.progress["update"]
        rate = self.schedule.get_last_lr()[0]
        self.log.write("changed", update, {"options": list(self.changes), "learning_rate": rate})
        say(f"train: from update {update} on: {', '.join(self.changes)}")
        end = "" if self.options.schedule in ENDLESS else f", to its end at update {self.options.updates}"
        say(f"train: the {self.options.schedule} schedule goes on with a learning rate of {rate:.2g}{end}")

    def _mend_weights(self) -> None:
        """Makes the result again from its checkpoint, where it is missing or damaged.

        TrainingFailed if the checkpoint is gone, too.
        """
        best = self.progress["best_update"] if self.options.keep == "best" else self.progress["evaluated"]
        path = self.folder / WEIGHTS
        if not best or is_intact(path):
            return
        source = checkpoints.step_folder(self.folder / "checkpoints", best)
        if not checkpoints.is_whole(source):
            raise TrainingFailed(
                f"{path} is missing or damaged, and so is the checkpoint of update {best}, whose weights it held: take "
                "it from a copy, or --force to train again"
            )
        say(f"train: {path} is missing or damaged: made again from {source}")
        save_model(self.folder, self.recognizer, checkpoints.load_weights(source, "averaged"))


def _start_loader(worker: int) -> None:
    end_with_parent()
    torch.set_num_threads(1)
