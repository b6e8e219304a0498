"""Character error rate on dev while training: greedy search, every process its share, one reduction at the end."""

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from kaldialign import edit_distance
from lhotse.cut import Cut

from masr.config import Decode
from masr.data.batches import CutFeatures, collate, load_usable
from masr.data.prompts import Prompter
from masr.data.sampling import as_written, language_of, split_by_duration, text_of
from masr.decode.greedy import ctc_greedy
from masr.decode.search import attention_search
from masr.decode.utterances import utterances_of
from masr.models.recognizer import Recognizer
from masr.text.characters import characters


@dataclass
class Evaluation:
    """CER by language, their mean, and some (language, reference, hypothesis)."""

    cer: dict[str, float]
    examples: list[tuple[str, str, str]]

    @property
    def macro_cer(self) -> float:
        return sum(self.cer.values()) / max(len(self.cer), 1)


@torch.no_grad()
def evaluate(
    model: Recognizer, cuts: list[Cut], batch_seconds: float, prompt: Prompter, accelerator: Accelerator
) -> Evaluation:
    """Greedy CER of ``cuts`` with a model in eval mode: of CTC or, if it has no weight, of the attention decoder.

    A prompt allows languages, and so tokens, as in decoding. Of a model that writes text as published (vocab.text),
    wrong case and punctuation are errors, too.
    """
    codes = model.tokenizer.languages
    counts = torch.zeros(len(codes), 2, dtype=torch.float64)
    examples: list[tuple[str, str, str]] = []
    rejected: dict[str, str] = {}
    for part in split_by_duration(cuts[accelerator.process_index :: accelerator.num_processes], batch_seconds):
        for cut, hypothesis in _recognize(model, part, prompt, accelerator.device, rejected):
            code, reference = language_of(cut), text_of(cut, model.tokenizer)
            spoken = characters(reference, code)
            edits = edit_distance(spoken, characters(hypothesis, code))["total"]
            counts[codes.index(code)] += torch.tensor([edits, len(spoken)])
            examples.append((code, reference, hypothesis))
    counts = accelerator.reduce(counts.to(accelerator.device), "sum").cpu()
    cer = {code: (edits / length).item() for code, (edits, length) in zip(codes, counts, strict=True) if length}
    if not cer:
        reason = next(iter(rejected.values()), "there are none")
        raise ValueError(f"no dev recording can be used (first reason: {reason}): look at corpus.dev and its features")
    first_of_each = {code: (code, reference, hypothesis) for code, reference, hypothesis in examples}
    return Evaluation(cer, list(first_of_each.values()))


def _recognize(
    model: Recognizer, cuts: list[Cut], prompt: Prompter, device: torch.device, rejected: dict[str, str]
) -> list[tuple[Cut, str]]:
    features, usable = load_usable(cuts, CutFeatures(model.config.features), rejected)
    if not usable:
        return []
    batch = collate(features, usable, model.tokenizer, prompt).to(device)
    encoded = model.encode(batch.features, batch.feature_lengths, batch.allowed_languages)
    utterances = utterances_of(model, encoded, batch.allowed_languages)
    if model.config.model.ctc.weight:
        found = ctc_greedy(utterances.log_probs, utterances.ctc_lengths)
    else:
        found = attention_search(model, utterances, Decode(beam=1))
    texts = [model.tokenizer.decode(best[0].tokens) for best in found]
    return [(cut, as_written(text, language_of(cut), model.tokenizer)) for cut, text in zip(usable, texts, strict=True)]
