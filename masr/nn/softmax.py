"""A flat softmax over the vocabulary. D width, V vocabulary."""

import torch
from torch import Tensor, nn


class Softmax(nn.Linear):
    """One vector for every token."""

    def log_probs(self, hidden: Tensor) -> Tensor:
        """Log-probabilities (..., V), at least float32, of hidden vectors (..., D)."""
        logits = self(hidden)
        return logits.log_softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))

    def loss(self, hidden: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        """Negative log-likelihood (...) of ``targets`` (...) given ``hidden`` (..., D).

        A share ``smoothing`` of the target's mass is spread evenly over all V tokens (Szegedy et al. 2016, arXiv
        1512.00567, section 7).
        """
        log_probs = self.log_probs(hidden)
        likelihood = log_probs.gather(-1, targets[..., None]).squeeze(-1)
        return -torch.lerp(likelihood, log_probs.mean(dim=-1), smoothing)
