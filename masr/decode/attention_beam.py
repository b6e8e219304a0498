"""Beam search with an attention decoder, alone or together with CTC, over all utterances of a batch at once.

Shapes: B batch, A utterances still searched, T frames, U tokens, V vocabulary, D width, K beam, N = A * K hypotheses.
Source: Watanabe et al. 2017 (IEEE JSTSP 11(8), "Hybrid CTC/Attention Architecture for End-to-End Speech Recognition",
section III-B, one-pass decoding); scores of a hypothesis h are
(1 - ctc_weight) * log p_attention(h) + ctc_weight * log p_ctc(h ...) + length_bonus * |h|. Finished hypotheses may be
ranked by their score for each token instead (Wu et al. 2016, arXiv 1609.08144, equation 14 with alpha = 1).
"""

import math
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from masr.decode.ctc_prefix_score import CTCPrefixScorer
from masr.decode.hypothesis import Hypothesis

# Nats. Hypotheses that are this far behind a finished one are given up (exp(-10) is D_end of Watanabe et al. 2017).
END_MARGIN = 10.0


class SearchState(Protocol):
    """What a decoder remembers of N hypotheses; K successive ones belong to one utterance."""

    def select(self, indices: Tensor) -> None:
        """Replace hypothesis n by hypothesis ``indices[n]`` (N',); N' < N drops whole utterances."""


State = TypeVar("State", bound=SearchState)


class Decoder(Protocol[State]):
    """What the search needs of an attention decoder."""

    def start(self, frames: Tensor, lengths: Tensor, beam: int, language_weights: Tensor | None) -> State:
        """State of ``beam`` empty hypotheses for each utterance of ``frames`` (B, T, D), ``lengths`` (B,)."""

    def step(self, tokens: Tensor, state: State) -> Tensor:
        """Append ``tokens`` (N,) to the hypotheses; log-probabilities (N, V) of the next token."""


@dataclass(frozen=True)
class _Options:
    beam: int
    n_best: int
    sos_eos: int
    blank: int
    ctc_weight: float
    length_bonus: float
    per_token: bool


@torch.inference_mode()
def attention_beam(
    decoder: Decoder[State],
    frames: Tensor,
    lengths: Tensor,
    *,
    beam: int = 10,
    n_best: int = 1,
    sos_eos: int,
    max_length_ratio: float = 1.0,
    longest: int | None = None,
    spoken: Tensor | None = None,
    ctc_log_probs: Tensor | None = None,
    ctc_lengths: Tensor | None = None,
    ctc_weight: float = 0.0,
    length_bonus: float = 0.0,
    per_token: bool = False,
    blank: int = 0,
    allowed: Tensor | None = None,
    language_weights: Tensor | None = None,
) -> list[list[Hypothesis]]:
    """Up to ``n_best`` transcripts of each utterance, best first.

    ``frames`` (B, T, D), ``lengths`` (B,) in frames; ``ctc_log_probs`` (B, S, V) in nats and ``ctc_lengths`` (B,),
    needed when ``ctc_weight`` (0 to 1) is above 0; without ``ctc_lengths`` they are over the same frames. A transcript
    has at most ``max_length_ratio`` tokens per frame and ``longest`` in all, but one token is always allowed, and only
    tokens of ``allowed`` (B, V) bool (None: all); ``spoken`` (B,) counts those frames, where not all of ``lengths`` are
    of the recording. ``length_bonus`` is in nats per token; with ``per_token`` the score
    of a transcript is divided by the number of its tokens and its end, and an utterance is done when it has ``beam``
    transcripts. ``language_weights`` (B, L) are for a decoder that asks for them. ``parts`` are the log-probabilities
    ``attention`` and, with CTC, ``ctc``, before weighting. An utterance without frames has one empty transcript with
    score 0; one for which no transcript is possible has one empty transcript with score -inf.

    ValueError when an option is out of range, ``ctc_log_probs`` is missing, or a score is NaN.
    """
    _check(beam, n_best, ctc_weight, ctc_log_probs)
    options = _Options(beam, n_best, sos_eos, blank, ctc_weight, length_bonus, per_token)
    results: list[list[Hypothesis]] = [[Hypothesis([], 0.0, {"attention": 0.0})] for _ in range(len(lengths))]
    rows = lengths.nonzero().squeeze(1)
    if len(rows):
        scorer = None
        if ctc_weight > 0 and ctc_log_probs is not None:
            scorer = CTCPrefixScorer(
                ctc_log_probs[rows], (lengths if ctc_lengths is None else ctc_lengths)[rows], beam, blank, sos_eos
            )
        counted = lengths if spoken is None else spoken
        limits = (counted[rows] * max_length_ratio).long().clamp(min=1, max=longest)
        weights = None if language_weights is None else language_weights[rows]
        state = decoder.start(frames[rows], lengths[rows], beam, weights)
        search = _Search(decoder, state, scorer, limits, options, None if allowed is None else allowed[rows])
        for row, found in zip(rows.tolist(), search.run(), strict=True):
            results[row] = found
    return results


def _check(beam: int, n_best: int, ctc_weight: float, ctc_log_probs: Tensor | None) -> None:
    if beam < 1 or n_best < 1:
        raise ValueError(f"beam and n_best must be at least 1, found beam={beam}, n_best={n_best}")
    if not 0 <= ctc_weight <= 1:
        raise ValueError(f"ctc_weight must be between 0 and 1, found {ctc_weight}")
    if ctc_weight > 0 and ctc_log_probs is None:
        raise ValueError(f"ctc_weight is {ctc_weight}, so ctc_log_probs is needed; give them or set ctc_weight to 0")


@dataclass
class _Candidates:
    """Scores (A, K, V) of every hypothesis followed by every token; column ``sos_eos`` is the finished hypothesis."""

    score: Tensor
    attention: Tensor
    ctc: Tensor | None


class _Search(Generic[State]):
    """The search itself. ``tokens`` (A, K, U), ``score`` and ``attention`` (A, K) describe the unfinished hypotheses.

    A hypothesis whose score is -inf only fills its place in the tensors.
    """

    def __init__(
        self, decoder: Decoder[State], state: State, scorer: CTCPrefixScorer | None, limits: Tensor, options: _Options,
        allowed: Tensor | None,
    ) -> None:  # fmt: skip
        self.decoder = decoder
        self.state = state
        self.scorer = scorer
        self.limits = limits
        self.options = options
        self.allowed = allowed
        self.searched = list(range(len(limits)))
        self.finished: list[list[Hypothesis]] = [[] for _ in self.searched]
        self.tokens = limits.new_zeros(len(limits), options.beam, 0)
        self.attention = torch.zeros(len(limits), options.beam, dtype=torch.float64, device=limits.device)
        # All hypotheses begin empty and thus equal: one of them is enough.
        self.score = self.attention.clone()
        self.score[:, 1:] = -torch.inf

    def run(self) -> list[list[Hypothesis]]:
        """The finished hypotheses of each utterance, best first; an empty one with score -inf where there are none."""
        while self.searched:
            self._step()
        return [found[: self.options.n_best] or [Hypothesis([], -math.inf, {})] for found in self.finished]

    def _step(self) -> None:
        candidates = self._candidates()
        beam, vocabulary_size = self.options.beam, candidates.score.size(2)
        # Each hypothesis ends in one way only, so that among the 2 K best there are K that go on.
        best, index = candidates.score.flatten(1).topk(2 * beam)
        if best[:, 0].isnan().any():
            raise ValueError("a score is NaN: the decoder or ctc_log_probs gave log-probabilities that are not numbers")
        ends = index % vocabulary_size == self.options.sos_eos
        self._finish(candidates, best[:, :beam], index[:, :beam], ends[:, :beam])
        unfinished = ends.int().argsort(dim=1, stable=True)[:, :beam]
        index = index.gather(1, unfinished)
        self.score = best.gather(1, unfinished)
        self.attention = candidates.attention.flatten(1).gather(1, index)
        self._continue(index, vocabulary_size)

    def _candidates(self) -> _Candidates:
        options, shape = self.options, (*self.score.shape, -1)
        attention = self.attention[..., None] + self.decoder.step(self._last(), self.state).view(shape)
        ctc = None if self.scorer is None else self.scorer.scores().view(shape)
        is_end = torch.arange(attention.size(2), device=attention.device) == options.sos_eos
        score = options.length_bonus * (self.tokens.size(2) + (~is_end).double())
        # A weight of 0 is no vote at all, even against what has probability 0.
        if options.ctc_weight < 1:
            score = torch.add(score, attention, alpha=1 - options.ctc_weight)
        if ctc is not None:
            score = score + options.ctc_weight * ctc
        return _Candidates(score.masked_fill_(self._impossible(is_end), -torch.inf), attention, ctc)

    def _last(self) -> Tensor:
        if self.tokens.size(2) == 0:
            return self.tokens.new_full((self.score.numel(),), self.options.sos_eos)
        return self.tokens[..., -1].flatten()

    def _impossible(self, is_end: Tensor) -> Tensor:
        """(A, K, V): continuations of what only fills its place, beyond the length limit, or with other tokens."""
        too_long = ~is_end & (self.tokens.size(2) >= self.limits)[:, None, None]
        is_blank = torch.arange(len(is_end), device=is_end.device) == self.options.blank
        impossible = self.score.isneginf()[..., None] | too_long | (is_blank & ~is_end)
        return impossible if self.allowed is None else impossible | ~(self.allowed | is_end)[:, None]

    def _finish(self, candidates: _Candidates, best: Tensor, index: Tensor, ends: Tensor) -> None:
        """Note those of the K best candidates, ``best`` and ``index`` (A, K), that end."""
        rows, columns = (ends & ~best.isneginf()).nonzero(as_tuple=True)
        flat = index[rows, columns]
        parts = {"attention": candidates.attention.flatten(1)[rows, flat].tolist()}
        if candidates.ctc is not None:
            parts["ctc"] = candidates.ctc.flatten(1)[rows, flat].tolist()
        tokens = self.tokens[rows, flat // candidates.score.size(2)].tolist()
        for number, (row, score) in enumerate(zip(rows.tolist(), best[rows, columns].tolist(), strict=True)):
            named = {name: values[number] for name, values in parts.items()}
            found = self.finished[self.searched[row]]
            size = len(tokens[number]) + 1 if self.options.per_token else 1
            found.append(Hypothesis(tokens[number], score / size, named))
            found.sort(key=lambda hypothesis: -hypothesis.score)
            del found[max(self.options.n_best, self.options.beam) :]

    def _continue(self, index: Tensor, vocabulary_size: int) -> None:
        """Extend the hypotheses by candidates ``index`` (A, K), and leave out the utterances that are done."""
        leaders = self.score[:, 0].tolist()
        going_on = [row for row, leader in enumerate(leaders) if not self._done(self.searched[row], leader)]
        self.searched = [self.searched[row] for row in going_on]
        if not going_on:
            return
        rows = torch.tensor(going_on, device=index.device)
        parents, added = index[rows] // vocabulary_size, index[rows] % vocabulary_size
        self.tokens = torch.cat((self.tokens[rows[:, None], parents], added[..., None]), dim=2)
        self.score, self.attention, self.limits = self.score[rows], self.attention[rows], self.limits[rows]
        self.allowed = None if self.allowed is None else self.allowed[rows]
        flat_parents = (rows[:, None] * self.options.beam + parents).flatten()
        self.state.select(flat_parents)
        if self.scorer is not None:
            self.scorer.advance(flat_parents, added.flatten())

    def _done(self, utterance: int, leader: float) -> bool:
        """Whether nothing that begins with an unfinished hypothesis, the best of which scores ``leader``, is wanted."""
        found, options = self.finished[utterance], self.options
        if leader == -math.inf:
            return True
        if options.per_token:
            return len(found) >= options.beam
        if len(found) >= options.n_best and options.length_bonus <= 0 and leader <= found[options.n_best - 1].score:
            return True
        return bool(found) and leader < found[0].score - END_MARGIN
