"""Trains the neural language model of tokens on sentences, and keeps the weights that are best on dev."""

import copy
import math
from collections.abc import Sequence

import torch

from masr.config import LanguageModel
from masr.nn.language_model import LSTMLanguageModel
from masr.progress import say, track

Sentences = Sequence[Sequence[int]]
LEARNING_RATE = 2e-3
BATCH_TOKENS = 2000


def train_language_model(
    train: Sentences, dev: Sentences, vocabulary_size: int, start_end: int, options: LanguageModel, seed: int
) -> LSTMLanguageModel:
    """The model of token ids with the smallest dev perplexity after any epoch."""
    if not train:
        raise ValueError("a neural language model needs training text, and there is none")
    torch.manual_seed(seed)
    model = LSTMLanguageModel(
        vocabulary_size, options.neural_width, options.neural_layers, options.neural_dropout, start_end
    ).to("cuda" if torch.cuda.is_available() else "cpu")
    batches = _batches(train)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.neural_epochs * len(batches))
    best, best_epoch, weights = math.inf, 0, copy.deepcopy(model.state_dict())
    for epoch in track(range(1, options.neural_epochs + 1), "lm: neural", options.neural_epochs, unit="epochs"):
        for index in torch.randperm(len(batches)).tolist():
            _step(model, batches[index], optimizer)
            schedule.step()
        found = perplexity(model, dev)
        if found < best:
            best, best_epoch, weights = found, epoch, copy.deepcopy(model.state_dict())
    say(f"lm: neural model: dev perplexity {best:.2f} a token after epoch {best_epoch} of {options.neural_epochs}")
    model.load_state_dict(weights)
    return model.eval()


def perplexity(model: LSTMLanguageModel, sentences: Sentences) -> float:
    """Per token, the end of each sentence included."""
    model.eval()
    tokens = sum(len(sentence) + 1 for sentence in sentences)
    return math.exp(-sum(model.log_probs(sentences)) / max(tokens, 1))


def _step(model: LSTMLanguageModel, sentences: Sentences, optimizer: torch.optim.Optimizer) -> None:
    model.train()
    ids, lengths = model.pad(sentences)
    loss = -model(ids, lengths).sum() / (lengths.sum() + len(lengths))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def _batches(sentences: Sentences) -> list[list[Sequence[int]]]:
    """Sentences of similar length, about BATCH_TOKENS in all."""
    batches: list[list[Sequence[int]]] = [[]]
    for sentence in sorted(sentences, key=len):
        if batches[-1] and (len(batches[-1]) + 1) * (len(sentence) + 1) > BATCH_TOKENS:
            batches.append([])
        batches[-1].append(sentence)
    return batches
