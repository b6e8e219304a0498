"""Character error rate, and BLEU, on dev while training: greedy search, every process its share, one exchange at the
end."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from kaldialign import edit_distance
from lhotse.cut import Cut
from sacrebleu.metrics import BLEU

from masr.config import Decode
from masr.data.batches import CutFeatures, collate, load_usable
from masr.data.prompts import Prompter
from masr.data.sampling import as_written, language_of, split_by_duration, text_of, translation_of
from masr.decode.greedy import ctc_greedy
from masr.decode.search import attention_search
from masr.decode.translate import translate
from masr.decode.utterances import Utterances, utterances_of
from masr.models.recognizer import Recognizer
from masr.text.characters import characters

Texts = list[tuple[str, str, str]]
"""(spoken language, reference, hypothesis)."""


@dataclass
class Evaluation:
    """CER by language, their mean, and some texts; BLEU (0 to 100) by spoken language where it was asked for."""

    cer: dict[str, float]
    examples: Texts
    bleu: dict[str, float] = field(default_factory=dict)

    @property
    def macro_cer(self) -> float:
        return sum(self.cer.values()) / max(len(self.cer), 1)

    @property
    def macro_bleu(self) -> float:
        return sum(self.bleu.values()) / max(len(self.bleu), 1)

    def values(self) -> dict[str, float]:
        """What the log has of it."""
        values = {"macro_cer": self.macro_cer, **{f"cer/{code}": cer for code, cer in self.cer.items()}}
        if self.bleu:
            values |= {"macro_bleu": self.macro_bleu, **{f"bleu/{code}": bleu for code, bleu in self.bleu.items()}}
        return values

    def badness(self, by: str) -> float:
        """What is lowest for the best weights, as ``train.keep_by`` says."""
        untranslated = 1 - self.macro_bleu / 100
        return {"cer": self.macro_cer, "bleu": untranslated, "sum": self.macro_cer + untranslated}[by]


def note_score(progress: dict[str, Any], result: Evaluation, by: str) -> bool:
    """Notes in the record of a run whether ``result`` is the best so far, as ``train.keep_by`` says; whether it is."""
    score = result.badness(by)
    better = score < progress["best_score"]
    if better:
        progress |= {"best_score": score, "best_cer": result.macro_cer, "best_update": progress["update"]}
        progress |= {"best_bleu": result.macro_bleu} if result.bleu else {}
    progress["stale"] = 0 if better else progress["stale"] + 1
    progress["evaluated"] = progress["update"]
    return better


@torch.no_grad()
def evaluate(
    model: Recognizer,
    cuts: list[Cut],
    batch_seconds: float,
    prompt: Prompter,
    accelerator: Accelerator,
    translated: bool = False,
) -> Evaluation:
    """Greedy CER of ``cuts`` with a model in eval mode: of CTC or, if it has no weight, of the attention decoder.

    A prompt allows languages, and so tokens, as in decoding. Of a model that writes text as published (vocab.text),
    wrong case and punctuation are errors, too. ``translated`` asks for the BLEU of greedy translations, too; ValueError
    where no recording has a translation.
    """
    codes = model.tokenizer.languages
    counts = torch.zeros(len(codes), 2, dtype=torch.float64)
    examples: Texts = []
    translations: Texts | None = [] if translated else None
    rejected: dict[str, str] = {}
    for part in split_by_duration(cuts[accelerator.process_index :: accelerator.num_processes], batch_seconds):
        for cut, hypothesis in _recognize(model, part, prompt, accelerator.device, rejected, translations):
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
    bleu = {} if translations is None else _bleu(gather_object(translations), model)
    first_of_each = {code: (code, reference, hypothesis) for code, reference, hypothesis in examples}
    return Evaluation(cer, list(first_of_each.values()), bleu)


def _recognize(
    model: Recognizer,
    cuts: list[Cut],
    prompt: Prompter,
    device: torch.device,
    rejected: dict[str, str],
    translations: Texts | None,
) -> list[tuple[Cut, str]]:
    """Usable cuts and what was recognised; adds to ``translations``, if they are wanted."""
    features, usable = load_usable(cuts, CutFeatures(model.config.features), rejected)
    if not usable:
        return []
    batch = collate(features, usable, model.tokenizer, prompt).to(device)
    encoded = model.encode(batch.features, batch.feature_lengths, batch.allowed_languages)
    utterances = utterances_of(model, encoded, batch.allowed_languages)
    if translations is not None:
        translations += _translate(model, utterances, usable)
    if model.config.model.ctc.weight:
        found = ctc_greedy(utterances.log_probs, utterances.ctc_lengths)
    else:
        found = attention_search(model, utterances, Decode(beam=1))
    texts = [model.tokenizer.decode(best[0].tokens) for best in found]
    return [(cut, as_written(text, language_of(cut), model.tokenizer)) for cut, text in zip(usable, texts, strict=True)]


def _translate(model: Recognizer, utterances: Utterances, cuts: Sequence[Cut]) -> Texts:
    """Greedy translations of the cuts that have one, by the decoder of what is spoken, which dev knows."""
    assert model.translator is not None and model.tokenizer.translation is not None
    tokenizer = model.tokenizer.translation
    spoken = replace(utterances, languages=[(language_of(cut),) for cut in cuts])
    found = translate(model.translator, spoken, Decode(beam=1))
    texts = []
    for cut, best in zip(cuts, found, strict=True):
        reference = translation_of(cut, tokenizer.languages[0])
        if reference is not None:
            texts.append((language_of(cut), reference, tokenizer.decode(best[0].tokens)))
    return texts


def _bleu(texts: Texts, model: Recognizer) -> dict[str, float]:
    """BLEU of each spoken language; ValueError where there is nothing to compare with."""
    assert model.tokenizer.translation is not None
    into = model.tokenizer.translation.languages[0]
    if not texts:
        raise ValueError(f"train.keep_by: no dev recording has a translation into {into}: use train.keep_by=cer")
    metric, scores = BLEU(trg_lang=into), {}
    for code in sorted({code for code, _, _ in texts}):
        references = [reference for other, reference, _ in texts if other == code]
        hypotheses = [hypothesis for other, _, hypothesis in texts if other == code]
        scores[code] = float(metric.corpus_score(hypotheses, [references]).score)
    return scores
