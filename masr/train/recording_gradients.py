"""Gradients of the encoder for single recordings, by objective and layer; and the inner products of all of them.

T gradients, L layers, P parameters of a layer. A gradient is what a recording adds to that of its language in plain
training: nothing is masked or dropped out, all languages are allowed.
"""

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from lhotse.cut import Cut
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from masr.data.batches import RANDOM, Batch, Counts
from masr.data.random import Purpose, generator
from masr.data.sampling import language_of, recording_name
from masr.models.recognizer import Recognizer
from masr.nn.contrastive import SELF_SUPERVISED
from masr.train.log import counted
from masr.train.soup_step import TASKS, layers_of

FEWEST_GROUPS = 4
"""Groups of recordings that CPC needs, if only to tell signal from noise: two in each half of them."""
COLUMNS = 1 << 14
"""Parameters whose inner products are found at once."""


class RecordingGradients:
    """Computes the gradients of a batch of one recording, or of one group of recordings without text."""

    def __init__(self, model: Recognizer, counts: Mapping[str, Counts]):
        """``counts``, by language, are those of all recordings measured: what losses are divided by."""
        self.model, self.counts = model.eval(), counts
        self.layers = layers_of(model.encoder)
        self.parameters = [parameter for layer in self.layers.values() for parameter in layer]
        self.weights = model.objective_weights()

    @property
    def sizes(self) -> dict[str, int]:
        """Parameters by layer."""
        return {name: sum(parameter.numel() for parameter in layer) for name, layer in self.layers.items()}

    def __call__(self, batch: Batch) -> Iterator[tuple[str, list[Tensor]]]:
        """Objective and gradient, (P,) for each layer, of all objectives that the batch has something for."""
        outputs, target = self.model.encode_views(batch)
        losses = self._by_objective(self.model.losses(outputs, batch, target), batch)
        for objective, loss in losses.items():
            given = torch.autograd.grad(loss, self.parameters, retain_graph=True, allow_unused=True)
            yield objective, self._by_layer(given)

    def _by_objective(self, losses: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Sums by ``<task>/<language>``, or by task for speech without text, of what the losses are in training."""
        sums: dict[str, Tensor] = {}
        [code] = set(batch.languages) if batch.targets else [""]
        here = batch.counts()[code] if batch.targets else Counts(0, len(batch))
        everywhere = self.counts[code] if batch.targets else here
        for name, values in losses.items():
            if not counted(name, here) or not values.requires_grad:
                continue
            task = TASKS[name]
            objective = task if task in SELF_SUPERVISED else f"{task}/{code}"
            loss = self.weights[name] * values.sum() / counted(name, everywhere)
            sums[objective] = sums.get(objective, 0.0) + loss
        return sums

    def _by_layer(self, gradients: Sequence[Tensor | None]) -> list[Tensor]:
        """Flat gradients of each layer; 0 of parameters that a loss does not depend on."""
        each = iter(gradients)
        found = []
        for layer in self.layers.values():
            parts = []
            for parameter in layer:
                gradient = next(each)
                parts.append(torch.zeros_like(parameter) if gradient is None else gradient)
            found.append(torch.cat([part.flatten() for part in parts]))
        return found


class GradientStore:
    """Keeps gradients in float16, every layer divided by its root mean square, to find their inner products.

    Rounding moves an inner product by about 2e-4 of both norms over the root of the number of parameters.
    """

    def __init__(self, sizes: Mapping[str, int], capacity: int):
        """Room for ``capacity`` gradients; ValueError when the machine's memory cannot hold them."""
        needed = 2 * capacity * sum(sizes.values())
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > 0.9 * memory:
            raise ValueError(
                f"conflicts: {capacity} gradients of {sum(sizes.values()) / 1e6:.1f} M parameters need "
                f"{needed / 1e9:.1f} GB, and this machine has {memory / 1e9:.1f} GB: choose fewer --recordings"
            )
        self.layers = list(sizes)
        self.values = [torch.empty(capacity, size, dtype=torch.float16) for size in sizes.values()]
        self.scales: list[list[float]] = []
        """Root mean squares (L,) of each gradient."""

    def add(self, gradient: Sequence[Tensor]) -> bool:
        """Keeps a gradient, (P,) for each layer; False, and nothing is kept, where it is not finite."""
        scales = [float(layer.double().square().mean().sqrt()) for layer in gradient]
        if not np.isfinite(scales).all():
            return False
        for values, layer, scale in zip(self.values, gradient, scales, strict=True):
            values[len(self.scales)] = layer / (scale or 1.0)
        self.scales.append(scales)
        return True

    def gramians(self, device: torch.device | str = "cpu") -> Tensor:
        """(L, T, T) inner products, float64; computed on a device in float32."""
        number = len(self.scales)
        scales = torch.tensor(self.scales, dtype=torch.float64).view(number, len(self.layers)).T
        found = torch.zeros(len(self.layers), number, number, dtype=torch.float64)
        for gramian, values in zip(found, self.values, strict=True):
            for part in values[:number].split(COLUMNS, dim=1):
                block = part.to(device, torch.float32)
                gramian += (block @ block.T).double().cpu()
        return found * scales[:, :, None] * scales[:, None, :]


def draw_recordings(cuts: Sequence[Cut], number: int, seed: int) -> dict[str, list[Cut]]:
    """Up to ``number`` recordings of each language at random, by language; each as it was published, if it is there."""
    drawn: dict[str, list[Cut]] = {}
    for cut in sorted(_once(cuts), key=lambda cut: _place(cut, Purpose.DRAW, seed)):
        of_language = drawn.setdefault(language_of(cut), [])
        if len(of_language) < number:
            of_language.append(cut)
    return dict(sorted(drawn.items()))


def draw_groups(cuts: Sequence[Cut], number: int, compared: int, seed: int) -> list[list[Cut]]:
    """Up to ``number`` groups of ``compared`` recordings of any language, none of them in two groups.

    Smaller groups where there would be less than `FEWEST_GROUPS`; none where even pairs are too few.
    """
    shuffled = sorted(_once(cuts), key=lambda cut: _place(cut, Purpose.GROUPS, seed))
    groups, size = min(number, len(shuffled) // compared), compared
    if groups < FEWEST_GROUPS:
        groups, size = FEWEST_GROUPS, len(shuffled) // FEWEST_GROUPS
    if size < min(compared, 2):
        return []
    return [shuffled[group * size : (group + 1) * size] for group in range(groups)]


def collate_group(features: Sequence[Tensor], cuts: Sequence[Cut], languages: Sequence[str], seed: int) -> Batch:
    """A batch of one group of recordings without text; ``languages`` are those of the model."""
    random = [generator(Purpose.MASKS, seed, zlib.crc32(cut.id.encode())).random(RANDOM) for cut in cuts]
    return Batch(
        ids=[cut.id for cut in cuts],
        languages=[language_of(cut) for cut in cuts],
        features=pad_sequence(list(features), batch_first=True),
        feature_lengths=torch.tensor([len(frames) for frames in features]),
        allowed_languages=torch.ones(len(cuts), len(languages), dtype=torch.bool),
        targets={},
        random=torch.tensor(np.array(random), dtype=torch.float32),
        groups=torch.zeros(len(cuts), dtype=torch.long),
    )


def _once(cuts: Sequence[Cut]) -> list[Cut]:
    """One cut of each recording: at its own speed, else the first."""
    found: dict[str, Cut] = {}
    for cut in cuts:
        name = recording_name(cut)
        if name not in found or cut.id == name:
            found[name] = cut
    return list(found.values())


def _place(cut: Cut, purpose: Purpose, seed: int) -> tuple[float, str]:
    """Where a recording stands in a random order, whatever others there are."""
    return generator(purpose, seed, zlib.crc32(cut.id.encode())).random(), cut.id
