"""An update of a soup: what all objectives share follows their weighted sum, each head its own loss.

B utterances, M objectives.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn

from masr.data.batches import Batch, Counts, Update
from masr.models.recognizer import Recognizer, by_language
from masr.nn.contrastive import SELF_SUPERVISED
from masr.nn.encoder import EncoderOutput
from masr.soup.conflict import Conflicts
from masr.soup.gradients import Cotangents, directional_change
from masr.soup.levels import Level, Soup
from masr.train.checkpoint import random_state, set_random_state
from masr.train.exchange import sum_gradients, sum_over_processes
from masr.train.log import Meter, counted

TASKS = {
    "ctc": "asr", "intermediate-ctc": "asr", "attention": "asr", "distillation": "asr", "st": "st", "lid": "lid",
    "cpc": "cpc", "best-rq": "best-rq",
}  # fmt: skip
"""What a soup weighs: recognition, whatever its losses, translation, naming the language, hearing without text."""


def soup_objectives(model: Recognizer) -> list[str]:
    """``<task>/<language>`` of all losses of a model; speech without text is one objective, whatever its language."""
    tasks = dict.fromkeys(TASKS[name] for name in model.objective_weights())
    languages = dict.fromkeys(tasks, model.tokenizer.languages)
    if model.translator is not None:
        languages["st"] = model.translator.languages
    each = [[task] if task in SELF_SUPERVISED else [f"{task}/{code}" for code in languages[task]] for task in tasks]
    return [name for names in each for name in names]


@dataclass
class Findings:
    """What is asked of the gradients of an update, and what is found."""

    epoch: float
    coefficients: dict[str, float]
    """What each objective counts in the encoder's gradient."""
    factors: list[float]
    """Of the levels."""
    modo: list[int]
    """Numbers of the levels whose weights take a step of MoDo."""
    solved: list[Level]
    """Levels whose weights all inner products decide."""
    detecting: bool
    """Whether conflicts are measured."""
    parameters: list[nn.Parameter]
    """Of the layers that decide on weights."""
    gradients: list[dict[str, list[Tensor]]]
    """By objective, where each is wanted by itself: of all layers. By sample where conflicts are measured, else one."""
    products: dict[int, Tensor]
    """By number of a MoDo level (M,): of its objectives in one sample with its direction in the other."""
    directions: dict[int, list[Tensor]] = field(default_factory=dict)
    """By number of a level the weighted gradient in the sample that comes first."""
    derived: int | None = None
    """The level whose direction is what the encoder's gradient holds beside those of the others, if any."""


class SoupStep:
    """Computes the gradients of an update, and moves the weights of objectives."""

    def __init__(self, model: Recognizer, soup: Soup, accelerator: Accelerator):
        self.model, self.soup, self.accelerator = model, soup, accelerator
        self.now: Findings
        self.layers = layers_of(model.encoder)
        self.objectives = [name for level in soup.levels for name in level.objectives]
        self.conflicts = Conflicts(list(self.layers), self.objectives)
        self.inner_weights = model.objective_weights()
        moved = [name for level in soup.levels if level.kind == "modo" and level.changes for name in level.objectives]
        compared = self.objectives if soup.options.detect_epochs else moved
        self.heard_at_least = self.samples if any(name in SELF_SUPERVISED for name in compared) else 1
        """Recordings without text that an update needs, for its samples to have one each."""
        if any(level.changes for level in soup.levels) and not self.layers:
            raise ValueError("train.frozen: nothing that objectives share is left to learn, so they need no weights")

    @property
    def samples(self) -> int:
        """Independent samples that an update is made of: gradients of one are multiplied with those of another."""
        moving = any(level.kind == "modo" and level.changes for level in self.soup.levels)
        return 2 if moving or self.soup.options.detect_epochs else 1

    def backward(self, update: Update, epoch: float, number: int | None, meter: Meter | None) -> bool:
        """Adds the gradients of an update, over all processes; False if a loss was not finite.

        In the update ``number`` None everything is due that ever can be.
        """
        self.now = self._asked(update, epoch, number)
        finite = self._pass_through(update, meter)
        found = [gradient for gradients in self._of_all_samples() for gradient in gradients]
        sum_over_processes([*self.now.products.values(), *found])
        sum_gradients(self.model.parameters())
        self._move()
        return finite

    def _asked(self, update: Update, epoch: float, number: int | None) -> Findings:
        """What is due in an update."""
        options, levels = self.soup.options, self.soup.levels
        complete = self._is_complete(update)  # what is not there has no gradient to be compared
        due = complete and (number is None or (number >= options.warmup and number % options.every == 0))
        moving = [n for n, level in enumerate(levels) if due and level.changes]
        modo = [n for n in moving if levels[n].kind == "modo"]
        solved = [levels[n] for n in moving if levels[n].kind != "modo"]
        now = number is None or number % options.detect_every == 0
        detecting = complete and now and epoch < options.detect_epochs
        each = self.objectives if detecting else [name for level in solved for name in level.objectives]
        device = self.accelerator.device
        return Findings(
            epoch, self.soup.coefficients(epoch), self.soup.factors(epoch), modo, solved, detecting,
            parameters=[parameter for name in self.selected(epoch) for parameter in self.layers[name]],
            gradients=[self._zeros_of(each) for _ in range(len(update.samples) if detecting else 1)],
            products={n: torch.zeros(len(levels[n].objectives), device=device) for n in modo},
        )  # fmt: skip

    def _is_complete(self, update: Update) -> bool:
        """Whether all objectives are in an update."""
        heard = Counts(0, update.unlabelled_utterances // self.heard_at_least)
        for name in self.inner_weights:
            task = TASKS[name]
            codes = [objective.partition("/")[2] for objective in self.objectives if objective.split("/")[0] == task]
            if any(not counted(name, update.counts.get(code, Counts()) if code else heard) for code in codes):
                return False
        return True

    def _pass_through(self, update: Update, meter: Meter | None) -> bool:
        """All batches of an update; those of the last sample first, as its gradients are the directions."""
        *others, last = range(len(update.samples))
        heard = update.unlabelled or [[]] * len(update.samples)
        first, then = list(update.samples[last]), list(heard[last])
        if any(name in SELF_SUPERVISED for n in self.now.modo for name in self.soup.levels[n].objectives):
            first, then = [*first, *then], []
        self.now.derived = self._derived()
        levels = {n for n, factor in enumerate(self.now.factors) if factor and self._is_in(n, first)} | {*self.now.modo}
        self.now.directions = (
            {n: _zeros(self.now.parameters) for n in levels - {self.now.derived}} if self.now.modo else {}
        )
        finite = [self._batch(batch, update, meter, last, gives_directions=True) for batch in first]
        self._derive()
        rest = [(last, batch) for batch in then]
        rest += [(sample, batch) for sample in others for batch in [*update.samples[sample], *heard[sample]]]
        finite += [self._batch(batch, update, meter, sample, gives_directions=False) for sample, batch in rest]
        return all(finite)

    def _is_in(self, number: int, batches: Sequence[Batch]) -> bool:
        """Whether these batches have losses of a level."""
        unlabelled = any(not batch.targets for batch in batches)
        return any(unlabelled or name not in SELF_SUPERVISED for name in self.soup.levels[number].objectives)

    def _derived(self) -> int | None:
        """The level whose direction is what the encoder's gradient holds beside those of the others: that is for free.

        Not if the gradient may be that of an update before, or the level counts too little to be seen in it.
        """
        fresh = all(parameter.grad is None for parameter in self.now.parameters)
        return next((n for n in self.now.modo if fresh and self.now.factors[n] > 0.1), None)

    def _derive(self) -> None:
        """Completes the directions, over all processes."""
        if self.now.derived is not None:
            total = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in self.now.parameters]
            for number, direction in self.now.directions.items():
                torch._foreach_add_(total, direction, alpha=-self.now.factors[number])
            torch._foreach_div_(total, self.now.factors[self.now.derived])
            self.now.directions[self.now.derived] = total
        self.now.directions = {number: self.now.directions[number] for number in self.now.modo}
        sum_over_processes(tensor for direction in self.now.directions.values() for tensor in direction)

    def _batch(self, batch: Batch, update: Update, meter: Meter | None, sample: int, gives_directions: bool) -> bool:
        """Adds the gradients of a batch of the sample with a number; False if a loss was not finite."""
        if not batch.ids:  # this process has no share
            return True
        batch, before = batch.to(self.accelerator.device), random_state()
        with self.accelerator.autocast():
            encoded, target = self.model.encode_views(batch)
            cuts = [output.cut() for output in encoded]
            losses = self.model.losses([output for output, _ in cuts], batch, target)
        cotangents = Cotangents(_tensors(encoded), [copy for _, copies in cuts for copy in copies])
        finite = True
        tasks = self._tasks(losses, batch, update)
        for number, (task, loss) in enumerate(tasks.items(), 1):
            finite &= bool(torch.isfinite(loss))
            cotangents.add(task, self._scaled(loss), last=number == len(tasks))
        for name, gradients in self.now.gradients[min(sample, len(self.now.gradients) - 1)].items():
            self._add_gradient(gradients, self._everywhere(), cotangents, batch, {name: 1.0})
        for number, direction in self.now.directions.items() if gives_directions else ():
            weights = self.soup.levels[number].by_name(self.now.epoch)
            self._add_gradient(direction, self.now.parameters, cotangents, batch, weights)
        cotangents.backward(self._rows(cotangents, batch, self.now.coefficients))
        if not gives_directions:
            self._multiply(cotangents, batch, before)
        if meter is not None and batch.languages:
            meter.add(by_language(losses, batch.languages), batch)
        return finite

    def _everywhere(self) -> list[nn.Parameter]:
        return [parameter for layer in self.layers.values() for parameter in layer]

    def _zeros_of(self, objectives: Iterable[str]) -> dict[str, list[Tensor]]:
        return {name: _zeros(self._everywhere()) for name in objectives}

    def _of_all_samples(self) -> list[list[Tensor]]:
        """The gradients of all objectives that are wanted by themselves, those of the first sample first."""
        return [gradient for sample in self.now.gradients for gradient in sample.values()]

    def _whole(self, name: str) -> list[Tensor]:
        """The gradient of an objective in the whole update."""
        samples = [sample[name] for sample in self.now.gradients]
        return [torch.stack(parts).sum(0) for parts in zip(*samples, strict=True)]

    def _add_gradient(
        self, sums: list[Tensor], parameters: Sequence[nn.Parameter], cotangents: Cotangents, batch: Batch,
        weights: dict[str, float],
    ) -> None:  # fmt: skip
        """Adds the gradient of weighted objectives with respect to some parameters."""
        rows = self._rows(cotangents, batch, weights)
        if any(bool(values.any()) for values in rows.values()):
            torch._foreach_add_(sums, cotangents.gradient(rows, parameters))

    def _tasks(self, losses: dict[str, Tensor], batch: Batch, update: Update) -> dict[str, Tensor]:
        """By task, the sum over utterances of losses, each divided by what is counted in its language."""
        sums: dict[str, Tensor] = {}
        for name, values in losses.items():
            heard = Counts(0, update.unlabelled_utterances)
            given = [heard if name in SELF_SUPERVISED else update.counts[code] for code in batch.languages]
            counts = [max(counted(name, each), 1) for each in given]
            shares = torch.tensor(counts or [torch.inf], device=values.device).reciprocal()
            loss = self.inner_weights[name] * (values * shares).sum()
            sums[TASKS[name]] = sums.get(TASKS[name], 0.0) + loss
        return sums

    def _scaled(self, loss: Tensor) -> Tensor:
        """Times what a gradient scaler of half precision wants."""
        scaler = self.accelerator.scaler
        return loss if scaler is None else scaler.scale(loss)

    def _loss_scale(self) -> float:
        scaler = self.accelerator.scaler
        return 1.0 if scaler is None else scaler.get_scale()

    def _rows(self, cotangents: Cotangents, batch: Batch, weights: dict[str, float]) -> dict[str, Tensor]:
        """By task the weights (B,) of the utterances' objectives."""
        languages, device = batch.languages or [""], self.accelerator.device
        return {
            task: torch.tensor([weights.get(f"{task}/{c}", weights.get(task, 0.0)) for c in languages], device=device)
            for task in cotangents.gradients
        }

    def _multiply(self, cotangents: Cotangents, batch: Batch, before: Any) -> None:
        """Adds the products of each objective's gradient in this sample with the directions of the other."""

        def outputs() -> list[Tensor]:
            gpus = [self.accelerator.device] if self.accelerator.device.type == "cuda" else []
            with torch.random.fork_rng(gpus):  # the same dropout
                set_random_state(before)
                return _tensors(self.model.encode_views(batch)[0])

        scale = self._loss_scale()
        for number, direction in self.now.directions.items():
            names = self.soup.levels[number].objectives
            rows = [self._rows(cotangents, batch, {name: 1.0}) for name in names]
            if not any(bool(values.any()) for each in rows for values in each.values()):
                continue
            products = cotangents.products(directional_change(outputs, self.now.parameters, direction))
            for place, each in enumerate(rows):
                found = sum(products[task] @ values.to(products[task].dtype) for task, values in each.items())
                self.now.products[number][place] += found / scale**2

    def selected(self, epoch: float) -> list[str]:
        """Layers whose gradients decide on weights: the conflicting ones, once these are known."""
        options = self.soup.options
        if not options.detect_epochs or epoch < options.detect_epochs or not self.conflicts.measured:
            return list(self.layers)
        return self.conflicts.conflicting(options.conflict)

    def _move(self) -> None:
        """The weights, by what was found."""
        for number, products in self.now.products.items():
            if torch.isfinite(products).all():
                level = self.soup.levels[number]
                # Each sample has half of what losses are divided by.
                self.soup.step(level, products.cpu() * level.scales(self.now.epoch) * self.samples**2)
        for level in self.now.solved:
            self._solve(level)
        if self.now.detecting:
            self._measure_conflicts()
        self.now.directions, self.now.gradients = {}, []

    def _measure_conflicts(self) -> None:
        gramians = self._gramians(self._of_all_samples(), self.layers)
        if torch.isfinite(gramians).all():
            self.conflicts.add(gramians)

    def _solve(self, level: Level) -> None:
        """Finds the weights of a level by the gradients of this update, which then follows them."""
        scales = level.scales(self.now.epoch)
        gradients = {name: self._whole(name) for name in level.objectives}
        layers = self.selected(self.now.epoch)
        gramian = self._gramians(list(gradients.values()), layers).sum(0) * scales * scales[:, None]
        if not torch.isfinite(gramian).all():
            return
        self.soup.solve(level, gramian)
        weights = level.weights.to(self.accelerator.device)
        if dist.is_initialized():
            dist.broadcast(weights, 0)  # some aggregators draw
            level.weights = weights.cpu()
        after = self.soup.coefficients(self.now.epoch)
        for name in level.objectives:
            for parameter, gradient in zip(self._everywhere(), gradients[name], strict=True):
                if parameter.grad is not None:
                    parameter.grad.add_(gradient, alpha=after[name] - self.now.coefficients[name])

    def _gramians(self, gradients: Sequence[Sequence[Tensor]], layers: Iterable[str]) -> Tensor:
        """(L, N, N) inner products of N gradients in some layers."""
        places = {parameter: place for place, parameter in enumerate(self._everywhere())}
        found = []
        for layer in layers:
            numbers = [places[parameter] for parameter in self.layers[layer]]
            each = [torch.cat([gradient[n].flatten() for n in numbers]) for gradient in gradients]
            stacked = torch.stack(each) / self._loss_scale()
            found.append((stacked @ stacked.T).cpu())
        return torch.stack(found)

    def describe(self, epoch: float) -> dict[str, float]:
        """What a log shows: weights of objectives, factors of levels, and while they are measured, conflicts."""
        weights = {f"weight/{name}": w for level in self.soup.levels for name, w in level.by_name(epoch).items()}
        factors = {f"penalty/{number}": factor for number, factor in enumerate(self.soup.factors(epoch), 1)}
        if not self.conflicts.measured or epoch >= self.soup.options.detect_epochs:
            return weights | factors
        layers = {f"conflict/{layer}": score for layer, score in self.conflicts.scores().items()}
        return weights | factors | layers | {f"cosine/{pair}": mean for pair, mean in self.conflicts.by_task().items()}

    def state_dict(self) -> dict[str, Any]:
        return {"soup": self.soup.state_dict(), "conflicts": self.conflicts.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.soup.load_state_dict(state["soup"])
        self.conflicts.load_state_dict(state["conflicts"])


def _tensors(outputs: Iterable[EncoderOutput]) -> list[Tensor]:
    return [tensor for output in outputs for tensor in output.tensors()]


def layers_of(encoder: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Trainable parameters by layer: block 1 ... block n, and what is outside of blocks by its name."""
    layers: dict[str, list[nn.Parameter]] = {}
    for name, parameter in encoder.named_parameters():
        parts = name.split(".")
        layer = f"block {int(parts[1]) + 1}" if parts[0] == "blocks" else parts[0]
        if parameter.requires_grad:
            layers.setdefault(layer, []).append(parameter)
    return layers


def _zeros(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    return [torch.zeros_like(parameter) for parameter in parameters]
