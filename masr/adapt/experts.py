"""LoRA experts of languages: low-rank changes of a model's linear layers, one for each language, or one for all.

Of LoRA language experts (Li et al. 2025, arXiv 2506.21555) only the abstract could be read. RECONSTRUCTED: everything
here, from LoRA-Whisper (Song et al. 2024, arXiv 2406.06619) and the choices that peft offers. Layers and merging are
peft's; its way with mixed batches, which takes them apart and puts them together again, is the slower one.

B utterances, S frames or tokens, D inputs, E outputs, R rank, K experts, N blocks.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, LoraModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from masr.config import Lora

SHARED = "all"
"""Name of the expert of all languages."""
NEAREST = 3
"""Experts that share an input, as in peft's Arrow."""


@dataclass(frozen=True)
class Choice:
    """Which experts act on a batch."""

    rows: list[str] | None = None
    """Expert of each utterance; empty: of none; None: all have shares in all."""
    weights: Tensor | None = None
    """(B, K) shares, where all have them."""


NONE = Choice([])
_CHOICE: ContextVar[Choice] = ContextVar("experts", default=NONE)
"""The choice of the call that is running: every thread has its own, and nothing of it stays on the model."""


class Experts:
    """Experts in the linear layers of a module. `use` says which act on a batch.

    Not a module itself: its parameters are those of the layers, e.g. ``blocks.0.fc1.lora_A.be.weight``.
    """

    def __init__(self, module: Any, options: Lora, languages: Sequence[str], arrow: bool = False):
        self.names = list(languages) if options.per_language else [SHARED]
        scale = options.alpha / options.rank
        config = LoraConfig(
            r=options.rank, lora_alpha=options.alpha, lora_dropout=options.dropout,
            target_modules=options.modules,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is more than one adapter
            self.tuner = _lora(module, self.names[0], config)
            for name in self.names[1:]:
                self.add(name, config)
        self.scale, self.module, self.arrow = scale, module, arrow
        self.places: dict[Any, int] = {}
        self.directions: dict[Any, Tensor] = {}
        """By layer the directions (D, K) of inputs that suit the experts, as long as these do not learn."""
        for block, part in enumerate(module.blocks):
            layers = [layer for layer in part.modules() if isinstance(layer, LoraLayer)]
            self.places |= dict.fromkeys(layers, block)
        each = torch.eye(len(self.names)).repeat(len(module.blocks), 1, 1)
        module.register_parameter("fusion", nn.Parameter(each) if options.fused else None)
        for layer in self.places:
            layer.register_forward_hook(self._after)
        self._leave_peft_out()

    def add(self, name: str, config: LoraConfig) -> None:
        """One more expert."""
        self.tuner.peft_config[name] = config
        self.tuner.inject_adapter(self.tuner.model, name)

    def _leave_peft_out(self) -> None:
        """Makes peft's layers plain: which experts they add would be a state that all calls share."""
        for layer in self.places:
            layer._active_adapter = []

    @contextmanager
    def use(self, weights: Tensor | None) -> Iterator[None]:
        """For what runs inside: weights (B, K) of the languages of its utterances; None: no expert.

        Those with one language each are computed with its expert alone, others with all experts.
        """
        if self.module.training:
            self.directions.clear()
        token = _CHOICE.set(self._choice(weights))
        try:
            yield
        finally:
            _CHOICE.reset(token)

    def _choice(self, weights: Tensor | None) -> Choice:
        if weights is None:
            return NONE
        if len(self.names) == 1:
            return Choice(self.names * len(weights))
        if self.module.fusion is None and bool((weights.amax(1) == weights.sum(1)).all()):
            return Choice([self.names[number] for number in weights.argmax(1).tolist()])
        return Choice(None, weights)

    def _is_routed(self, layer: Any) -> bool:
        """Whether inputs choose their experts: not while each of these learns its own language."""
        return self.arrow and not layer.training

    def _after(self, layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Adds to a layer's output (B, S, E) what the experts say of its input (B, S, D)."""
        choice, [given] = _CHOICE.get(), inputs
        if choice.rows == []:
            return output
        if self._is_routed(layer):
            return output + self._of_all(layer, given, self._suiting(layer, given))
        if choice.rows is None:
            return output + self._of_all(layer, given, self._shares(layer, choice))
        names = sorted(set(choice.rows))
        if len(names) == 1:
            return output + self._of_one(layer, given, names[0])
        return output + self._of_each(layer, given, names, choice.rows)

    def _of_one(self, layer: Any, inputs: Tensor, name: str) -> Tensor:
        """(B, S, E): what one expert adds for all utterances, as peft computes it."""
        return layer.lora_B[name](layer.lora_A[name](layer.lora_dropout[name](inputs))) * self.scale

    def _of_each(self, layer: Any, inputs: Tensor, names: list[str], rows: list[str]) -> Tensor:
        """(B, S, E): what each utterance's own expert adds."""
        numbers = [names.index(name) for name in rows]
        down, up = self._matrices(layer, names)
        return self.scale * (inputs @ down[numbers].mT @ up[numbers].mT)

    def _of_all(self, layer: Any, inputs: Tensor, shares: Tensor) -> Tensor:
        """(B, S, E): what all experts add, by their shares (B, 1 or S, K)."""
        down, up = self._matrices(layer, self.names)
        inner = (inputs @ down.flatten(0, 1).T).unflatten(-1, down.shape[:2]) * shares[..., None]
        return self.scale * (inner.flatten(-2) @ up.mT.flatten(0, 1))

    def _matrices(self, layer: Any, names: list[str]) -> tuple[Tensor, Tensor]:
        """(K, R, D) and (K, E, R) of some experts."""
        down = torch.stack([layer.lora_A[name].weight for name in names])
        up = torch.stack([layer.lora_B[name].weight for name in names])
        return down, up

    def _shares(self, layer: Any, choice: Choice) -> Tensor:
        """(B, 1, K) of the experts."""
        assert choice.weights is not None
        fusion = self.module.fusion
        shares = choice.weights if fusion is None else choice.weights @ fusion[self.places[layer]]
        return shares[:, None]

    @torch.no_grad()
    def _suiting(self, layer: Any, inputs: Tensor) -> Tensor:
        """Shares (B, S, K) of the experts in every input (B, S, D): those whose first right singular vector is nearest
        to it share it as a softmax says (arXiv 2405.11157, eq. 4-5)."""
        if layer not in self.directions:
            self.directions[layer] = torch.stack([_first_direction(layer, name) for name in self.names], 1)
        found = (inputs @ self.directions[layer]).abs()
        kept = found >= found.topk(min(NEAREST, len(self.names)), -1).values[..., -1:]
        return found.masked_fill(~kept, -torch.inf).softmax(-1)

    def parameters(self) -> Iterable[nn.Parameter]:
        """Those of all experts, and how they are fused."""
        yield from (p for layer in self.places for name, p in layer.named_parameters() if "lora_" in name)
        if self.module.fusion is not None:
            yield self.module.fusion

    def parameters_of(self, code: str) -> list[nn.Parameter]:
        """Those of the expert of one language."""
        named = [(name.split("."), p) for layer in self.places for name, p in layer.named_parameters()]
        return [p for parts, p in named if "lora_A" in parts or "lora_B" in parts if code in parts]

    def copy_language(self, source: str, target: str) -> None:
        """Makes the expert of a new language that of a near one (LoRA warm start, arXiv 2406.06619)."""
        for theirs, ours in zip(self.parameters_of(source), self.parameters_of(target), strict=True):
            ours.data.copy_(theirs.data)

    def merge(self, kind: Any, rank: int | None, density: float | None) -> int:
        """Makes one expert of all of them, of which every one counts alike, and has it act for all; its rank."""
        name = f"merged-{kind}"
        weight = 1.0 if "ties" in kind else 1 / len(self.names)  # TIES takes the mean itself, of those that agree
        weights = [weight] * len(self.names)
        self.tuner.add_weighted_adapter(self.names, weights, name, kind, svd_rank=rank, density=density)
        layer = next(iter(self.places))
        self.names, self.scale = [name], layer.scaling[name]
        self._leave_peft_out()
        return len(layer.lora_A[name].weight)

    def take(self, other: "Experts") -> None:
        """Makes the only expert here that of another model."""
        for ours, theirs in zip(self.places, other.places, strict=True):
            for mine, its in ((ours.lora_A, theirs.lora_A), (ours.lora_B, theirs.lora_B)):
                mine[self.names[0]].weight.data.copy_(its[other.names[0]].weight.data)

    def merge_into_weights(self, language: str | None) -> None:
        """Adds the expert of a language (the only one, if there is one) to the weights for good; the module is plain
        then."""
        name = self.names[0] if language is None or len(self.names) == 1 else language
        self.tuner.merge_and_unload(adapter_names=[name])
        for layer in self.places:
            layer._forward_hooks.clear()
        self.module.experts = None


def _lora(module: Any, name: str, config: LoraConfig) -> LoraModel:
    """peft's changes of a module; ValueError when it has no such layers."""
    try:
        return LoraModel(module, {name: config}, name)
    except ValueError as error:
        raise ValueError(f"model.adapt.lora.modules: {error}") from error


def _first_direction(layer: Any, name: str) -> Tensor:
    """(D,): of what an expert adds, the first right singular vector, by QR of its two matrices."""
    down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
    basis, inner = torch.linalg.qr(down.T)
    _, _, right = torch.linalg.svd(torch.linalg.qr(up)[1] @ inner.T)
    return basis @ right[0]
