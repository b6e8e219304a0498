"""A recurrent language model of tokens. B sentences, U tokens, V vocabulary, D width.

Source: Merity et al. 2018 (arXiv 1708.02182) for the tied weights and the same mask of dropout at every step.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence


class LSTMLanguageModel(nn.Module):
    """LSTM whose input and output embeddings are one; ``start_end`` is the id that begins and ends a sentence."""

    def __init__(self, vocabulary_size: int, width: int, layers: int, dropout: float, start_end: int):
        super().__init__()
        self.start_end, self.dropout = start_end, dropout
        self.embedding = nn.Embedding(vocabulary_size, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.lstm = nn.LSTM(width, width, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.bias = nn.Parameter(torch.zeros(vocabulary_size))

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, U), (B,) -> log-probabilities (B,) of whole sentences in nats, the end of each included."""
        positions = torch.arange(ids.shape[1] + 1, device=ids.device)
        ended = positions >= lengths[:, None]
        targets = F.pad(ids, (0, 1)).masked_fill(ended, self.start_end)
        inputs = F.pad(targets[:, :-1], (1, 0), value=self.start_end)
        hidden, _ = self.lstm(self._drop(self.embedding(inputs) * self.embedding.embedding_dim**0.5))
        logits = F.linear(self._drop(hidden), self.embedding.weight, self.bias)
        losses = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
        return -losses.masked_fill(positions > lengths[:, None], 0.0).sum(1)

    @torch.no_grad()
    def log_probs(self, sentences: Sequence[Sequence[int]], batch: int = 256) -> list[float]:
        """Of sentences of token ids."""
        order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
        found = [0.0] * len(sentences)
        for start in range(0, len(order), batch):
            part = order[start : start + batch]
            for index, value in zip(part, self(*self.pad([sentences[i] for i in part])).tolist(), strict=True):
                found[index] = value
        return found

    def pad(self, sentences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Ids (B, U) and lengths (B,) of sentences."""
        device = self.embedding.weight.device
        ids = pad_sequence([torch.tensor(sentence, dtype=torch.long) for sentence in sentences], batch_first=True)
        return ids.to(device), torch.tensor([len(sentence) for sentence in sentences], device=device)

    def _drop(self, hidden: Tensor) -> Tensor:
        """(B, U, D) with the same features left out at every step."""
        kept = F.dropout(torch.ones_like(hidden[:, :1]), self.dropout, self.training)
        return hidden * kept
