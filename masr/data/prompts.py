"""Prompts: which languages an utterance is said to be in. K languages.

In training as RECONSTRUCTED for csvMASR (arXiv 2410.04478) from later work of its authors: the right language, and
wrong ones at random, because users are not sure.
"""

import zlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from lhotse.cut import Cut
from torch import Tensor

from masr.config import Prompts
from masr.data.sampling import language_of

Prompter = Callable[[Cut], Tensor]
"""The languages (K,) bool that a cut may be in."""


def everything(languages: Sequence[str]) -> Prompter:
    """All languages for every cut."""
    return lambda cut: torch.ones(len(languages), dtype=torch.bool)


def training_prompts(options: Prompts, languages: Sequence[str], seed: int) -> Prompter:
    """Prompts as ``data.prompts`` wants them; a cut and a seed always get the same one.

    ValueError when the shares exceed one.
    """
    if options.all + options.one > 1:
        raise ValueError(f"data.prompts: all={options.all:g} and one={options.one:g} are more than all utterances")

    def prompt(cut: Cut) -> Tensor:
        random = np.random.default_rng([seed, zlib.crc32(cut.id.encode()), 1])
        kind, wrong = random.random(), random.random(len(languages)) < options.wrong
        if kind < options.all:
            wrong[:] = True
        elif kind < options.all + options.one:
            wrong[:] = False
        wrong[languages.index(language_of(cut))] = True
        return torch.from_numpy(wrong)

    return prompt


def decoding_prompts(kind: str, languages: Sequence[str]) -> Prompter:
    """Prompts of a kind that ``decode.prompts`` knows; the wrong languages of a cut are drawn at random, but always
    the same ones. ValueError when there are not so many."""
    name, _, more = kind.partition("+")
    if name == "all":
        return everything(languages)
    wrong = int(more or 0) + (name == "wrong")
    if wrong >= len(languages):
        raise ValueError(f"decode.prompts: {kind} needs {wrong} wrong languages; the model knows {len(languages)}")

    def prompt(cut: Cut) -> Tensor:
        others = [code for code in languages if code != language_of(cut)]
        drawn = np.random.default_rng(zlib.crc32(cut.id.encode())).permutation(others)[:wrong]
        chosen = {*drawn, *([language_of(cut)] if name == "oracle" else [])}
        return torch.tensor([code in chosen for code in languages])

    return prompt
