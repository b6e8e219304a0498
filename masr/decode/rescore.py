"""A second look at n-best hypotheses: more scores for each, another order, and the scales that are best on dev.

U tokens, V vocabulary, D width.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from kaldialign import edit_distance
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from masr.decode.hypothesis import Hypothesis
from masr.text.characters import characters

NBest = list[list[Hypothesis]]
Setting = dict[str, float]


def rerank(candidates: NBest, setting: Setting, n: int) -> NBest:
    """The ``n`` best of each utterance by score plus the ``parts`` that the setting names, times their scales."""
    return [_best(hypotheses, setting, n) for hypotheses in candidates]


def _best(hypotheses: list[Hypothesis], setting: Setting, n: int) -> list[Hypothesis]:
    parts = np.array([[hypothesis.parts[name] for name in setting] for hypothesis in hypotheses])
    scores = np.array([hypothesis.score for hypothesis in hypotheses]) + parts @ np.array(list(setting.values()))
    order = np.argsort(-scores, kind="stable")[:n]
    return [replace(hypotheses[i], score=float(scores[i])) for i in order]


def attention_log_probs(
    decoder: Any, frames: Tensor, lengths: Tensor, sentences: list[list[int]], language_weights: Tensor | None = None
) -> list[float]:
    """Log-probabilities of transcripts by an attention decoder, given the frames (1, T, D) and length (1,) of one
    utterance, and the weights (1, L) of its language adapters; the end of the sentence counts."""
    device, number = frames.device, len(sentences)
    id_lengths = torch.tensor([len(tokens) for tokens in sentences], device=device)
    ids = pad_sequence([torch.tensor(tokens, dtype=torch.long) for tokens in sentences], batch_first=True).to(device)
    given = frames.expand(number, -1, -1), lengths.expand(number), ids, id_lengths
    weights = None if language_weights is None else language_weights.expand(number, -1)
    log_probs = decoder.log_probs(*given, weights)
    positions = torch.arange(ids.shape[1] + 1, device=device)
    targets = torch.nn.functional.pad(ids, (0, 1)).masked_fill(positions >= id_lengths[:, None], decoder.sos_eos)
    taken = log_probs.gather(-1, targets[..., None]).squeeze(-1)
    return taken.masked_fill(positions > id_lengths[:, None], 0.0).sum(1).tolist()


class ScaleChoice:
    """Adds up the character errors of every setting on dev, and names the best one."""

    def __init__(self, settings: Sequence[Setting]):
        self.settings = settings
        self.errors: defaultdict[str, np.ndarray] = defaultdict(lambda: np.zeros(len(settings)))
        self.characters: defaultdict[str, int] = defaultdict(int)

    def add(self, language: str, reference: str, hypotheses: Sequence[str]) -> None:
        """One utterance: what was said, and what every setting makes of it."""
        spoken = characters(reference, language)
        distance = {text: edit_distance(spoken, characters(text, language))["total"] for text in set(hypotheses)}
        self.errors[language] += [distance[text] for text in hypotheses]
        self.characters[language] += len(spoken)

    @property
    def macro_cer(self) -> np.ndarray:
        """Mean over the languages, for each setting."""
        rates = [self.errors[code] / characters for code, characters in self.characters.items() if characters]
        return np.mean(rates, axis=0)

    def best(self) -> Setting:
        """The first one of the smallest macro CER."""
        return self.settings[int(self.macro_cer.argmin())]
