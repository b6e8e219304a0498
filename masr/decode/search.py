"""Every search method by its name in ``decode.methods``: (EncoderOutput, model) -> n-best hypotheses per utterance."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from masr.config import Decode
from masr.decode.alignment import ctc_align, token_times, word_times
from masr.decode.attention_beam import attention_beam
from masr.decode.greedy import ctc_greedy
from masr.decode.hypothesis import Hypothesis
from masr.decode.prefix_beam import ctc_prefix_beam

Searcher = Callable[["Encoded", "SearchableModel", Decode], list[list[Hypothesis]]]


class Encoded(Protocol):
    """What a search needs of an encoder's output: frames (B, T, D) and their lengths (B,)."""

    frames: Tensor
    lengths: Tensor


class SearchableModel(Protocol):
    """What a search needs of a model."""

    ctc: Any
    attention_decoder: Any
    tokenizer: Any

    @property
    def frame_seconds(self) -> float: ...


def _greedy(encoded: Encoded, model: SearchableModel, options: Decode) -> list[list[Hypothesis]]:
    return ctc_greedy(*model.ctc.log_probs(encoded.frames, encoded.lengths))


def _prefix_beam(encoded: Encoded, model: SearchableModel, options: Decode) -> list[list[Hypothesis]]:
    log_probs, lengths = model.ctc.log_probs(encoded.frames, encoded.lengths)
    return ctc_prefix_beam(log_probs, lengths, options.beam, options.n_best)


def _attention(encoded: Encoded, model: SearchableModel, options: Decode) -> list[list[Hypothesis]]:
    return _attention_search(encoded, model, options, ctc_weight=0.0)


def _joint(encoded: Encoded, model: SearchableModel, options: Decode) -> list[list[Hypothesis]]:
    return _attention_search(encoded, model, options, options.ctc_weight)


def _attention_search(
    encoded: Encoded, model: SearchableModel, options: Decode, ctc_weight: float
) -> list[list[Hypothesis]]:
    log_probs, ctc_lengths = model.ctc.log_probs(encoded.frames, encoded.lengths) if ctc_weight else (None, None)
    return attention_beam(
        model.attention_decoder, encoded.frames, encoded.lengths, beam=options.beam, n_best=options.n_best,
        sos_eos=model.attention_decoder.sos_eos, ctc_weight=ctc_weight, length_bonus=options.length_bonus,
        ctc_log_probs=log_probs, ctc_lengths=ctc_lengths, max_length_ratio=model.ctc.upsampling,
    )  # fmt: skip


@dataclass(frozen=True)
class Method:
    """A search and whether it needs an attention decoder."""

    search: Searcher
    needs_decoder: bool


METHODS = {
    "ctc-greedy": Method(_greedy, False),
    "ctc-prefix-beam": Method(_prefix_beam, False),
    "attention-beam": Method(_attention, True),
    "joint-beam": Method(_joint, True),
}


def check_methods(methods: Sequence[str], model: SearchableModel) -> None:
    """ValueError for a method that the model cannot do."""
    for name in methods:
        if METHODS[name].needs_decoder and model.attention_decoder is None:
            raise ValueError(
                f"decode.methods: {name} needs an attention decoder, and this model was trained without one "
                "(model.attention_decoder.weight=0); use ctc-greedy or ctc-prefix-beam"
            )


def search(method: str, encoded: Encoded, model: SearchableModel, options: Decode) -> list[list[Hypothesis]]:
    """N-best hypotheses (B lists, best first) with their texts; times are added by `add_times`."""
    found = METHODS[method].search(encoded, model, options)
    for hypotheses in found:
        for hypothesis in hypotheses:
            hypothesis.text = model.tokenizer.decode(hypothesis.tokens)
    return found


def add_times(best: Hypothesis, log_probs: Tensor, model: SearchableModel) -> None:
    """Start and end of every token (seconds) by the best CTC alignment (T, V); none if it does not fit in T frames."""
    try:
        frames = ctc_align(log_probs, best.tokens)
    except ValueError:  # an attention decoder may write more tokens than there are frames
        return
    best.timestamps = token_times(frames, model.frame_seconds)


def timed_words(best: Hypothesis, model: SearchableModel) -> list[tuple[str, float, float]]:
    """``(word, start, end)`` in seconds of a hypothesis with times; none without."""
    if not best.timestamps:
        return []
    pieces = [model.tokenizer.pieces[i] for i in best.tokens]
    spoken = [(p, t) for p, t in zip(pieces, best.timestamps, strict=True) if not p.startswith("<")]
    return word_times([p for p, _ in spoken], [t for _, t in spoken])
