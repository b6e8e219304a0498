"""How probable CTC finds it that a transcript begins with a prefix, for every next token of all hypotheses at once.

Shapes: B batch, T frames, V vocabulary, K beam, N = B * K hypotheses.
Source: Watanabe et al. 2017 (IEEE JSTSP 11(8), "Hybrid CTC/Attention Architecture for End-to-End Speech Recognition",
algorithm 2); batched over utterances and hypotheses as in Seki et al. 2019 (Interspeech, "Vectorized Beam Search for
CTC-Attention-Based Speech Recognition").

Two rewritings replace the papers' loop over frames. Let phi(t) be the mass of prefix g at frame t that token c may
follow. The prefix probability, psi(g c) = sum_t phi(t - 1) p_t(c), of all V tokens is one matrix product. The recursion
r(t) = (r(t - 1) + phi(t - 1)) p_t(c) is r(t) = P(t) sum_{s <= t} phi(s - 1) / P(s - 1) with P the running product of p:
a cumulative log-sum-exp. Both are float64, in whose range P stays for any recording once probabilities are above 0.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

# Nats. Stands for log 0 in the running products, where infinities would cancel to NaN; its exponential is exactly 0.
LOG_ZERO = -1e4


class CTCPrefixScorer:
    """CTC prefix scores of N growing hypotheses; hypothesis n belongs to utterance n // K.

    ``log_probs`` (B, T, V) in nats, ``lengths`` (B,) in frames, at least 1 each; all hypotheses start empty.
    ``forward`` (N, 2, T + 1): log-mass of a hypothesis's alignments to the first t frames, those that end in its last
    token and those that end in blank. ``last`` (N,): its last token; blank when it is empty.
    """

    def __init__(self, log_probs: Tensor, lengths: Tensor, beam: int, blank: int, sos_eos: int) -> None:
        self.beam = beam
        self.blank = blank
        self.sos_eos = sos_eos
        self.lengths = lengths
        padding = torch.arange(log_probs.size(1), device=log_probs.device) >= lengths[:, None]
        self.log_probs = log_probs.double().masked_fill(padding[..., None], LOG_ZERO).clamp(min=LOG_ZERO)
        self.probs = self.log_probs.exp()
        in_blank = F.pad(self.log_probs[..., blank].cumsum(dim=1), (1, 0))
        in_token = torch.full_like(in_blank, -torch.inf)
        self.forward = torch.stack((in_token, in_blank), dim=1).repeat_interleave(beam, dim=0)
        self.last = torch.full((len(self.forward),), blank, device=log_probs.device)

    def scores(self) -> Tensor:
        """(N, V) float64 log-probability that the transcript begins with hypothesis n followed by token v.

        In column ``sos_eos``: that it is hypothesis n and nothing more. In column ``blank``, if that is another: -inf.
        """
        total = self.forward.logsumexp(dim=1)
        weights, scale = _weights(total[:, :-1])
        scores = (weights.unflatten(0, (-1, self.beam)) @ self.probs).flatten(0, 1).log() + scale
        # A token after itself needs a blank between: only the mass that ends in blank may go on.
        utterance = self._utterances()
        weights, scale = _weights(self.forward[:, 1, :-1])
        repeated = (weights * self.probs[utterance, :, self.last]).sum(dim=1, keepdim=True).log() + scale
        scores.scatter_(1, self.last[:, None], repeated)
        scores[:, self.blank] = -torch.inf
        scores[:, self.sos_eos] = total.gather(1, self.lengths[utterance, None]).squeeze(1)
        return scores

    def advance(self, parents: Tensor, tokens: Tensor) -> None:
        """Replace hypothesis n by hypothesis ``parents[n]`` followed by ``tokens[n]``, both (N',).

        N' < N drops utterances: the K hypotheses of an utterance stay together, as in ``DecoderState.select``.
        """
        if len(parents) != len(self.last):
            kept = parents[:: self.beam] // self.beam
            self.log_probs, self.probs, self.lengths = self.log_probs[kept], self.probs[kept], self.lengths[kept]
        forward = self.forward[parents]
        repeats = tokens == self.last[parents]
        inflow = torch.where(repeats[:, None], forward[:, 1], forward.logsumexp(dim=1))
        self.last = tokens
        utterance = self._utterances()
        in_token = _accumulate(inflow[:, :-1], self.log_probs[utterance, :, tokens])
        in_blank = _accumulate(in_token[:, :-1], self.log_probs[utterance, :, self.blank])
        self.forward = torch.stack((in_token, in_blank), dim=1)

    def _utterances(self) -> Tensor:
        return torch.arange(len(self.last), device=self.last.device) // self.beam


def _weights(mass: Tensor) -> tuple[Tensor, Tensor]:
    """Log ``mass`` (N, T) as numbers up to 1, and the logarithm (N, 1) of the scale taken out of them."""
    scale = mass.amax(dim=1, keepdim=True).nan_to_num(neginf=0.0)
    return (mass - scale).exp(), scale


def _accumulate(inflow: Tensor, log_probs: Tensor) -> Tensor:
    """r (N, T + 1) with r(0) = 0 and r(t) = (r(t - 1) + inflow(t - 1)) p(t), in logarithms; arguments (N, T)."""
    product = log_probs.cumsum(dim=1)
    before = F.pad(product, (1, 0))[:, :-1]
    return F.pad(product + torch.logcumsumexp(inflow - before, dim=1), (1, 0), value=-torch.inf)
