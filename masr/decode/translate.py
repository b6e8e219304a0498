"""Translations of a batch by beam search."""

import torch

from masr.config import Decode
from masr.decode.attention_beam import attention_beam
from masr.decode.hypothesis import Hypothesis
from masr.decode.rescore import NBest
from masr.decode.utterances import Utterances
from masr.nn.translation import SHARED, Translator
from masr.text.tokenizer import START_END

TOKENS_PER_FRAME = 4.0
"""More than any translation has, letter by letter and with a frame every 80 ms."""


@torch.inference_mode()
def translate(translator: Translator, utterances: Utterances, options: Decode) -> NBest:
    """The n best translations of every utterance, ranked by score for each token: otherwise short ones win.

    A translator with a decoder for each language has to know which one is spoken: ValueError where a prompt allows
    several.
    """
    results: NBest = [[Hypothesis([], 0.0)] for _ in utterances.languages]  # as those of languages without a decoder
    for part, rows in translator.rows(_spoken(translator, utterances), utterances.frames.device):
        if len(rows):
            lengths = utterances.lengths[rows]
            found = attention_beam(
                part.decoder, part.memory(utterances.frames[rows], lengths), lengths, beam=options.beam,
                n_best=options.n_best, sos_eos=START_END, length_bonus=options.length_bonus, per_token=True,
                max_length_ratio=TOKENS_PER_FRAME,
            )  # fmt: skip
            for row, nbest in zip(rows.tolist(), found, strict=True):
                results[row] = nbest
    return results


def _spoken(translator: Translator, utterances: Utterances) -> list[str]:
    if SHARED not in translator.parts and any(len(codes) > 1 for codes in utterances.languages):
        raise ValueError(
            "translation-beam: this model has a decoder for each spoken language (model.translation.per_language), so "
            "it must be told which one is spoken: decode.prompts=[oracle], or transcribe --languages"
        )
    return [codes[0] for codes in utterances.languages]
