"""CTC prefix beam search: the most probable transcripts, each summed over all of its alignments.

Shapes: B batch, T frames, V vocabulary, K beam.
Source: Graves 2012 (Supervised Sequence Labelling with Recurrent Neural Networks, section 7.5); Hannun et al. 2014
(arXiv 1408.2873, algorithm 1) without a language model.

Probabilities are kept as plain numbers, scaled so that the best token of every frame counts 1, with the logarithm of
that scale beside them (as in the forward pass of an HMM). Their sums are the log-sum-exp of the papers to double
precision at a fraction of its cost; a transcript 200 decades less probable than the best may count as impossible.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from masr.decode.biasing import BEGINNING, Biasing
from masr.decode.hypothesis import Hypothesis

RESCALE_BELOW, RESCALE_ABOVE = 1e-100, 1e6  # words to expect make masses grow


@dataclass(frozen=True)
class Pruning:
    """What the search leaves out: in each frame, the tokens that count as having probability 0 there.

    At most ``top_tokens`` tokens other than blank stay, and of these only the frame's best and those with at least
    ``min_log_prob`` nats (-5 is 0.7 %, as pyctcdecode's ``token_min_logp``). Blank always stays. A frame in which
    nothing else stays costs no time.
    """

    top_tokens: int = 20
    min_log_prob: float = -5.0


DEFAULT_PRUNING = Pruning()


def ctc_prefix_beam(
    log_probs: Tensor,
    lengths: Tensor,
    beam: int = 10,
    n_best: int = 1,
    blank: int = 0,
    prune: Pruning | None = DEFAULT_PRUNING,
    biasing: Biasing | None = None,
) -> list[list[Hypothesis]]:
    """Up to ``n_best`` transcripts of each utterance, best first.

    ``log_probs`` (B, T, V) in nats, ``lengths`` (B,) in frames. The score of a transcript is the log of the summed
    probability of those of its alignments that the beam and ``prune`` kept; ``prune=None`` keeps every token. With
    ``biasing`` it also has what the transcript earns there (part ``bias``), beside ``ctc``. No
    frames give one empty transcript with score 0. ValueError when ``beam`` or ``n_best`` is below 1, or when some
    frame's largest log-probability is not finite.
    """
    if beam < 1 or n_best < 1:
        raise ValueError(f"beam and n_best must be at least 1, found beam={beam}, n_best={n_best}")
    dtype = torch.promote_types(log_probs.dtype, torch.float32)
    batch = log_probs.detach().to("cpu", dtype).numpy()
    results = []
    for index, length in enumerate(lengths.tolist()):
        _check(batch[index, :length], index)
        results.append(_search(batch[index, :length], beam, n_best, blank, prune, biasing))
    return results


def _check(log_probs: np.ndarray, utterance: int) -> None:
    finite = np.isfinite(log_probs.max(axis=1))
    if not finite.all():
        frame = int(finite.argmin())
        raise ValueError(
            f"utterance {utterance} of the batch, frame {frame}: expected log-probabilities with a finite maximum, "
            f"found {log_probs[frame].max()}; the model's output is broken"
        )


def _search(
    log_probs: np.ndarray, beam: int, n_best: int, blank: int, prune: Pruning | None, biasing: Biasing | None
) -> list[Hypothesis]:
    best = log_probs.max(axis=1)
    beams = _Beams(beam, log_probs.shape[1], biasing)
    previous = -1
    for frame, blank_probability, tokens in _frames(log_probs, best, blank, prune):
        if frame > previous + 1:
            beams.blanks()
        beams.advance(blank_probability, tokens)
        previous = frame
    return beams.hypotheses(n_best, float(best.sum(dtype=np.float64)))


def _frames(
    log_probs: np.ndarray, best: np.ndarray, blank: int, prune: Pruning | None
) -> Iterator[tuple[int, float, dict[int, float]]]:
    """``(frame, blank probability, {token: probability})`` of the frames where more than blank stays.

    Probabilities are relative to the frame's best. In the frames left out blank is the best: its factor is 1.
    """
    keep = _kept_tokens(log_probs, blank, prune)
    frames, tokens = keep.nonzero()
    probabilities = np.exp(log_probs[frames, tokens] - best[frames]).tolist()
    blank_probabilities = np.exp(log_probs[:, blank] - best).tolist()
    starts = np.flatnonzero(np.diff(frames, prepend=-1))
    ends = np.append(starts, len(frames))[1:]
    token_list = tokens.tolist()
    for frame, start, end in zip(frames[starts].tolist(), starts.tolist(), ends.tolist(), strict=True):
        kept = dict(zip(token_list[start:end], probabilities[start:end], strict=True))
        yield frame, blank_probabilities[frame], kept


def _kept_tokens(log_probs: np.ndarray, blank: int, prune: Pruning | None) -> np.ndarray:
    """(T, V): which tokens other than blank the search looks at."""
    if prune is None:
        keep = np.ones(log_probs.shape, dtype=bool)
    else:
        keep = log_probs >= prune.min_log_prob
        keep[np.arange(len(log_probs)), log_probs.argmax(axis=1)] = True
    keep[:, blank] = False
    if prune is not None:
        crowded = np.flatnonzero(keep.sum(axis=1) > prune.top_tokens)
        kept = np.where(keep[crowded], log_probs[crowded], -np.inf)
        dropped = np.argpartition(kept, -prune.top_tokens, axis=1)[:, : -prune.top_tokens]
        keep[crowded[:, None], dropped] = False
    return keep


class _Beams:
    """The K best prefixes, each with the mass of its alignments that end in blank and of those that end in a token.

    A prefix is a node of a tree. Its key, ``parent * V + token``, names it before it exists. Node 0 is the empty
    prefix: its key -1 reads as a last token V - 1, which is harmless, as all of its mass ends in blank.
    """

    def __init__(self, beam: int, vocabulary_size: int, biasing: Biasing | None) -> None:
        self.beam = beam
        self.biasing = biasing
        self.bias_states = [BEGINNING]  # by node, and what its own token earns as a factor
        self.bias_factors = [1.0]
        self.vocabulary_size = vocabulary_size
        self.nodes = {-1: 0}  # by key
        self.keys = [-1]
        self.prefixes = [0]
        self.blank = [1.0]
        self.label = [0.0]
        self.log_scale = 0.0

    def blanks(self) -> None:
        """One or more frames in which only blank stays."""
        self.blank = [blank + label for blank, label in zip(self.blank, self.label, strict=True)]
        self.label = [0.0] * len(self.blank)

    def advance(self, blank_probability: float, tokens: dict[int, float]) -> None:
        """One frame with the probabilities of blank and of the other tokens that stay."""
        totals = [blank + label for blank, label in zip(self.blank, self.label, strict=True)]
        new_blank = [total * blank_probability for total in totals]
        new_label = self._stay(totals, tokens)
        masses = [blank + label for blank, label in zip(new_blank, new_label, strict=True)]
        # What is below K prefixes that exist already cannot be among the K best.
        floor = min(masses) if len(masses) == self.beam else 0.0
        # The prefixes that exist carry negative numbers, so that they sort beside the keys of the new ones.
        entries = [(mass, ~index) for index, mass in enumerate(masses) if mass > 0.0]
        entries += self._extensions(totals, tokens, floor)
        entries.sort(reverse=True)
        self._keep(entries[: self.beam], new_blank, new_label)

    def _stay(self, totals: list[float], tokens: dict[int, float]) -> list[float]:
        """New label mass of each prefix: its last token goes on, or its parent in the beam is extended by it."""
        positions = {prefix: index for index, prefix in enumerate(self.prefixes)}
        label = []
        for index, prefix in enumerate(self.prefixes):
            parent, last = divmod(self.keys[prefix], self.vocabulary_size)
            probability = tokens.get(last, 0.0)
            mass = self.label[index]
            if probability and parent in positions:
                origin = positions[parent]
                repeated = self.keys[parent] % self.vocabulary_size == last
                mass += (self.blank[origin] if repeated else totals[origin]) * self.bias_factors[prefix]
            label.append(mass * probability)
        return label

    def _extensions(self, totals: list[float], tokens: dict[int, float], floor: float) -> list[tuple[float, int]]:
        """``(mass, key)`` above ``floor`` of the prefixes that are not in the beam yet."""
        present = {self.keys[prefix] for prefix in self.prefixes}
        largest = max(tokens.values())
        found = []
        for prefix, total, blank in zip(self.prefixes, totals, self.blank, strict=True):
            following = tokens
            if self.biasing is not None:
                following = self._biased(prefix, tokens)
                largest = max(following.values())
            if total * largest <= floor:
                continue
            last = self.keys[prefix] % self.vocabulary_size
            base = prefix * self.vocabulary_size
            for token, probability in following.items():
                mass = (blank if token == last else total) * probability
                if mass > floor and base + token not in present:
                    found.append((mass, base + token))
        return found

    def _biased(self, prefix: int, tokens: dict[int, float]) -> dict[int, float]:
        """The tokens' probabilities times what they earn after a prefix."""
        assert self.biasing is not None
        state = self.bias_states[prefix]
        return {token: p * math.exp(self.biasing.step(state, token)[1]) for token, p in tokens.items()}

    def _keep(self, entries: list[tuple[float, int]], blank: list[float], label: list[float]) -> None:
        old = self.prefixes
        self.prefixes = [old[~key] if key < 0 else self._node(key) for _, key in entries]
        self.blank = [blank[~key] if key < 0 else 0.0 for _, key in entries]
        self.label = [label[~key] if key < 0 else mass for mass, key in entries]
        best = entries[0][0]
        if not RESCALE_BELOW <= best <= RESCALE_ABOVE:
            self.blank = [mass / best for mass in self.blank]
            self.label = [mass / best for mass in self.label]
            self.log_scale += math.log(best)

    def _node(self, key: int) -> int:
        node = self.nodes.setdefault(key, len(self.keys))
        if node == len(self.keys):
            self.keys.append(key)
            state, earned = BEGINNING, 0.0
            if self.biasing is not None:
                parent, token = divmod(key, self.vocabulary_size)
                state, earned = self.biasing.step(self.bias_states[parent], token)
            self.bias_states.append(state)
            self.bias_factors.append(math.exp(earned))
        return node

    def hypotheses(self, n_best: int, log_scale: float) -> list[Hypothesis]:
        """The best prefixes, best first; ``log_scale`` (nats) is what the frames' probabilities were divided by."""
        found = []
        for prefix, blank, label in zip(self.prefixes, self.blank, self.label, strict=True):
            score = math.log(blank + label) + self.log_scale + log_scale
            found.append(self._hypothesis(self._tokens(prefix), score))
        if self.biasing is not None:  # unfinished phrases have given back what they had earned
            found.sort(key=lambda hypothesis: -hypothesis.score)
        return found[:n_best]

    def _hypothesis(self, tokens: list[int], score: float) -> Hypothesis:
        """``score`` holds what the tokens have earned so far."""
        if self.biasing is None:
            return Hypothesis(tokens, score, {"ctc": score})
        bias, ctc = self.biasing.score(tokens), score - self.biasing.score(tokens, ended=False)
        return Hypothesis(tokens, ctc + bias, {"ctc": ctc, "bias": bias})

    def _tokens(self, prefix: int) -> list[int]:
        tokens = []
        while prefix:
            prefix, token = divmod(self.keys[prefix], self.vocabulary_size)
            tokens.append(token)
        return tokens[::-1]
