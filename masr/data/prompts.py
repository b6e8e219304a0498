"""Prompts: which languages an utterance is said to be in. K languages.

In training as RECONSTRUCTED for csvMASR (arXiv 2410.04478) from later work of its authors: the right language, and
wrong ones at random, because users are not sure.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from lhotse.cut import Cut
from torch import Tensor

from masr.config import Prompts
from masr.data.random import Purpose, generator
from masr.data.sampling import language_of

Prompter = Callable[[Cut], Tensor]
"""The languages (K,) bool that a cut may be in."""


@dataclass
class Everything:
    """All languages for every cut."""

    languages: Sequence[str]

    def __call__(self, cut: Cut) -> Tensor:
        return torch.ones(len(self.languages), dtype=torch.bool)


@dataclass
class TrainingPrompts:
    """Prompts as ``data.prompts`` wants them; a cut and a seed always get the same one."""

    options: Prompts
    languages: Sequence[str]
    seed: tuple[int, ...]

    def __call__(self, cut: Cut) -> Tensor:
        random = generator(Purpose.PROMPTS, *self.seed, zlib.crc32(cut.id.encode()))
        kind, chosen = random.random(), random.random(len(self.languages)) < self.options.wrong
        if kind < self.options.all:
            chosen[:] = True
        elif kind < self.options.all + self.options.one:
            chosen[:] = False
        chosen[self.languages.index(language_of(cut))] = True
        return torch.from_numpy(chosen)


@dataclass
class DrawnPrompts:
    """The right language or not, and so many wrong ones: drawn at random, but for a cut always the same ones."""

    languages: Sequence[str]
    right: bool
    wrong: int

    def __call__(self, cut: Cut) -> Tensor:
        others = [code for code in self.languages if code != language_of(cut)]
        drawn = np.random.default_rng(zlib.crc32(cut.id.encode())).permutation(others)[: self.wrong]
        chosen = {*drawn, *([language_of(cut)] if self.right else [])}
        return torch.tensor([code in chosen for code in self.languages])


def prompts_of(kind: str, languages: Sequence[str]) -> Prompter:
    """Prompts of a kind that ``decode.prompts`` knows; ValueError when there are not so many languages."""
    name, _, more = kind.partition("+")
    if name == "all":
        return Everything(languages)
    wrong = int(more or 0) + (name == "wrong")
    if wrong >= len(languages):
        raise ValueError(
            f"prompt {kind}: there are not {wrong} wrong languages; the model knows {', '.join(languages)}"
        )
    return DrawnPrompts(languages, name == "oracle", wrong)
