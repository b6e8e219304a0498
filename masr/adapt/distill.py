"""Distillation: a student learns the probabilities that a trained model gives to every token of the right text.

With experts of languages as the teacher, each for its own language, one student learns from all (Li et al. 2025, arXiv
2506.21555, of which only the abstract could be read; RECONSTRUCTED: the loss, Hinton et al. 2015, arXiv 1503.02531).

M positions of a batch, V vocabulary.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from masr.data.batches import Batch


class Teacher:
    """A trained model that is asked, and does not learn. What it shares with the student is in memory once."""

    def __init__(self, model: Any, student: Any, folder: Path):
        """ValueError when its tokens are not the student's."""
        if not student.tokenizer.same_tokens(model.tokenizer):
            raise ValueError(f"train.distill.teacher: {folder} has other tokens than the student")
        writes, wanted_text = model.tokenizer.text, student.tokenizer.text
        if writes != wanted_text:
            raise ValueError(f"train.distill.teacher: {folder} writes {writes} text, the student {wanted_text} text")
        if (hears := model.config.features.mel_bins) != (wanted := student.config.features.mel_bins):
            raise ValueError(f"train.distill.teacher: {folder} hears {hears} mel bins, the student {wanted}")
        if unknown := [code for code in student.languages if code not in model.languages]:
            raise ValueError(f"train.distill.teacher: {folder} does not know {', '.join(unknown)}")
        self.model = model.eval().requires_grad_(False)
        ours = {name.replace(".base_layer", ""): p for name, p in student.named_parameters() if not p.requires_grad}
        for name, parameter in model.named_parameters():
            twin = ours.get(name.replace(".base_layer", ""))
            if twin is not None and torch.equal(twin, parameter):
                parameter.data = twin.data

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Tensor:
        """(M, V) logits at the tokens of all texts and their ends, each text in its own language."""
        known = self.model.tokenizer.languages
        allowed = torch.tensor([[code == spoken for code in known] for spoken in batch.languages])
        encoded = self.model.encode(batch.features, batch.feature_lengths, allowed.to(batch.features.device))
        decoder, texts = self.model.attention_decoder, batch.targets["transcript"]
        hidden = decoder.hidden(encoded.frames, encoded.lengths, *texts, encoded.language_weights)
        return decoder.text_logits(hidden, *texts)[0]


def distillation_losses(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) of two (M, V) logits, both divided by the temperature T: (M,) nats."""
    at_least = torch.promote_types(student.dtype, torch.float32)  # half of it is too little for a sum over V
    wanted, found = ((logits.to(at_least) / temperature).log_softmax(-1) for logits in (teacher, student))
    return temperature**2 * (wanted.exp() * (wanted - found)).sum(-1)
