"""Heads on encoder frames: CTC and language classification. B batch, T frames, U tokens, V vocabulary, K languages.

Every loss is a sum over each utterance (B,): who trains decides how utterances are weighted and normalised.
"""

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
