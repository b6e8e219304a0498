"""Heads on encoder frames: CTC and language classification. B batch, T frames, U tokens, V vocabulary, K languages.

Every loss is a sum over each utterance (B,): who trains decides how utterances are weighted and normalised.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from masr.nn.hierarchical_softmax import TreePaths
from masr.nn.subsampling import length_mask, masked_mean
from masr.vocab.tree import Tree


class CTCHead(nn.Module):
    """Connectionist temporal classification (Graves et al. 2006).

    Every encoder frame becomes S CTC frames, for fast speech: CTC wants a frame for each token and one more between
    two equal ones, and 25 frames a second do not hold the letters of a fast sentence.

    With a ``tree``, a frame's token is the outcome of decisions (`masr.nn.hierarchical_softmax`), of which the first is
    whether it is blank (RECONSTRUCTED).
    """

    def __init__(self, width: int, vocabulary_size: int, upsampling: int = 1, blank: int = 0, tree: Tree | None = None):
        super().__init__()
        self.blank, self.upsampling = blank, upsampling
        self.paths = None if tree is None else TreePaths(tree.hoisted(blank))
        self.output = nn.Linear(width, upsampling * (vocabulary_size - (tree is not None)))

    def log_probs(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D), (B,) -> (B, S T, V), natural log, float32, and (B,); padded frames hold whatever they hold."""
        logits = self.output(frames).unflatten(-1, (self.upsampling, -1)).flatten(1, 2)
        log_probs = F.log_softmax(logits.float(), dim=-1) if self.paths is None else self.paths(logits)
        return log_probs, lengths * self.upsampling

    def loss(self, frames: Tensor, lengths: Tensor, ids: Tensor, id_lengths: Tensor) -> Tensor:
        """(B,) negative log-likelihoods of token ids (B, U); infinite where T is too short for the tokens."""
        log_probs, lengths = self.log_probs(frames, lengths)
        return F.ctc_loss(log_probs.transpose(0, 1), ids, lengths, id_lengths, blank=self.blank, reduction="none")


class LanguageCTCHeads(nn.Module):
    """A CTC head for each language, over the tokens of that language alone (Objective Soups, arXiv 2508.09228).

    A head learns from its own language only. Where an utterance may be in several languages, a frame's distribution is
    the mixture of those of their heads, weighted by the probability of each language (RECONSTRUCTED: the paper names
    the language).
    """

    token_places: Tensor
    """(K, V) number of each token among those of a language; 0, which is blank, for tokens that it lacks."""

    def __init__(self, width: int, tokens: Mapping[str, Sequence[int]], vocabulary_size: int, upsampling: int = 1):
        """``tokens``: ids that a transcript in each language may hold, ascending, the first of them blank."""
        super().__init__()
        self.blank, self.upsampling, self.vocabulary_size = 0, upsampling, vocabulary_size
        self.tokens = {code: torch.tensor(ids) for code, ids in tokens.items()}
        self.heads = nn.ModuleDict({code: CTCHead(width, len(ids), upsampling) for code, ids in tokens.items()})
        places = torch.zeros(len(tokens), vocabulary_size, dtype=torch.long)
        for row, ids in enumerate(self.tokens.values()):
            places[row, ids] = torch.arange(len(ids))
        self.register_buffer("token_places", places, persistent=False)

    def log_probs(self, frames: Tensor, lengths: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D), (B,), probabilities of the languages (B, K) -> (B, S T, V), natural log, float32, and (B,).

        -inf for a token that no language with a share has.
        """
        size = (len(frames), frames.shape[1] * self.upsampling, self.vocabulary_size)
        mixture = torch.full(size, -torch.inf, device=frames.device)
        for number, code in enumerate(self.heads):
            [rows] = torch.where(shares[:, number] > 0)
            own, _ = self._head(code).log_probs(frames[rows], lengths[rows])
            weighted = own + shares[rows, number].log()[:, None, None]
            full = torch.full((len(rows), *size[1:]), -torch.inf, device=frames.device)
            full[..., self.tokens[code].to(frames.device)] = weighted
            mixture = mixture.index_put((rows,), torch.logaddexp(mixture[rows], full))
        return mixture, lengths * self.upsampling

    def loss(self, frames: Tensor, lengths: Tensor, ids: Tensor, id_lengths: Tensor, languages: Tensor) -> Tensor:
        """(B,) negative log-likelihoods of token ids (B, U), each by the head of its language number (B,)."""
        losses = torch.zeros(len(frames), device=frames.device)
        for number, code in enumerate(self.heads):
            head = self._head(code)
            [rows] = torch.where(languages == number)
            if len(rows):
                own_ids = self.token_places[number][ids[rows]]
                own = head.loss(frames[rows], lengths[rows], own_ids, id_lengths[rows])
                losses = losses.index_put((rows,), own)
            else:  # distributed wrappers wait for the gradient of every parameter
                losses = losses + 0.0 * head.output.bias.sum() + 0.0 * head.output.weight.sum()
        return losses

    def _head(self, code: str) -> CTCHead:
        return cast(CTCHead, self.heads[code])


class LanguageClassifier(nn.Module):
    """The language of an utterance from the mean of its frames."""

    def __init__(self, width: int, languages: int):
        super().__init__()
        self.output = nn.Linear(width, languages)

    def log_probs(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, D) -> (B, K)."""
        mean = masked_mean(frames, length_mask(lengths, frames.shape[1]))[:, 0]
        return F.log_softmax(self.output(mean).float(), dim=-1)

    def loss(self, frames: Tensor, lengths: Tensor, languages: Tensor) -> Tensor:
        """(B,) cross-entropies of language numbers (B,)."""
        return F.nll_loss(self.log_probs(frames, lengths), languages, reduction="none")
