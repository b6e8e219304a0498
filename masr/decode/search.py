"""Every search method by its name in ``decode.methods``: utterances -> n-best hypotheses.

Some methods have scales (of a language model, of the attention decoder, for length). They take a list of settings of
these scales and return a result for each, so that what the settings share is computed once: stage 4 hands them all
that there are on dev, and the best one on the test splits.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from torch import Tensor

from masr.config import Decode
from masr.decode import rescore
from masr.decode.attention_beam import attention_beam
from masr.decode.biasing import Biasing, read_biasing
from masr.decode.greedy import ctc_greedy
from masr.decode.language_models import LanguageModels
from masr.decode.prefix_beam import ctc_prefix_beam
from masr.decode.rescore import NBest, Setting
from masr.decode.translate import translate
from masr.decode.utterances import SearchableModel, Utterances
from masr.decode.whisper import whisper_search


class NeuralModel(Protocol):
    """A neural language model."""

    def log_probs(self, sentences: Sequence[Sequence[int]]) -> list[float]: ...


class Searcher:
    """All methods on one model, with what they know of its languages."""

    def __init__(
        self, model: SearchableModel, options: Decode, language_models: LanguageModels | None = None,
        neural: NeuralModel | None = None, graph_folder: Path | None = None,
    ):  # fmt: skip
        self.model, self.options = model, options
        self.language_models, self.neural, self.graph_folder = language_models, neural, graph_folder
        self._bias_acceptor: Any = None

    def __call__(self, method: str, utterances: Utterances, settings: Sequence[Setting] = ({},)) -> list[NBest]:
        """For every setting the n-best hypotheses of every utterance, best first, with their texts."""
        results = METHODS[method].search(self, utterances, settings)
        tokenizer = self.model.tokenizer.translation if METHODS[method].translates else self.model.tokenizer
        for hypothesis in itertools.chain.from_iterable(itertools.chain.from_iterable(results)):
            hypothesis.text = tokenizer.decode(hypothesis.tokens)
        return results

    @cached_property
    def backend(self) -> ModuleType:
        """The lattice backend."""
        from masr.decode.lattice import load_backend

        return load_backend(self.options.lattice.backend)

    @cached_property
    def biasing(self) -> Biasing | None:
        """The words to expect."""
        if self.options.bias_file is None:
            return None
        return read_biasing(Path(self.options.bias_file), self.model.tokenizer, self.options.bias_boost)

    def biased(self, lattices: Any) -> Any:
        """Lattices in which the words to expect earn their boost."""
        if self.biasing is None:
            return lattices
        if self._bias_acceptor is None:
            self._bias_acceptor = self.biasing.acceptor(range(1, len(self.model.tokenizer)))
        return lattices.rescore(self._bias_acceptor)

    @cached_property
    def graphs(self) -> Any:
        """The decoding graphs."""
        from masr.decode.lattice.graphs import Graphs

        return Graphs(self.model.tokenizer, self.language_models, self.options.lattice, self.graph_folder)


# --- one pass --------------------------------------------------------------------------------------------------------


def _greedy(searcher: Searcher, utterances: Utterances, settings: Sequence[Setting]) -> list[NBest]:
    return [ctc_greedy(utterances.log_probs, utterances.ctc_lengths)]


def _prefix_beam(searcher: Searcher, utterances: Utterances, settings: Sequence[Setting]) -> list[NBest]:
    options = searcher.options
    given = utterances.log_probs, utterances.ctc_lengths, options.beam, options.n_best
    return [ctc_prefix_beam(*given, biasing=searcher.biasing)]


def _attention(searcher: Searcher, utterances: Utterances, settings: Sequence[Setting]) -> list[NBest]:
    return [attention_search(searcher.model, utterances, searcher.options)]


def _joint(searcher: Searcher, utterances: Utterances, settings: Sequence[Setting]) -> list[NBest]:
    return [attention_search(searcher.model, utterances, searcher.options, searcher.options.ctc_weight)]


def _whisper(searcher: Searcher, utterances: Utterances, settings: Sequence[Setting]) -> list[NBest]:
    return [whisper_search(searcher.model, utterances, searcher.options)]


def _translation(searcher: Searcher, utterances: Utterances, settings: Sequence[Setting]) -> list[NBest]:
    return [translate(searcher.model.translator, utterances, searcher.options)]


def attention_search(model: SearchableModel, utterances: Utterances, options: Decode, ctc_weight: float = 0.0) -> NBest:
    """`attention_beam` with what a model knows of itself."""
    decoder = model.attention_decoder
    if options.tree_search != "all" and utterances.allowed.all():  # what is found may not be what is allowed
        decoder = decoder.with_tree_search(options.tree_search)
    return attention_beam(
        decoder, utterances.frames, utterances.lengths, beam=options.beam, n_best=options.n_best,
        sos_eos=model.attention_decoder.sos_eos, blank=model.attention_decoder.blank, ctc_weight=ctc_weight,
        length_bonus=options.length_bonus,
        ctc_log_probs=utterances.log_probs if ctc_weight else None, ctc_lengths=utterances.ctc_lengths,
        max_length_ratio=model.tokens_per_frame, longest=model.attention_decoder.longest, allowed=utterances.allowed,
        language_weights=utterances.language_weights,
    )  # fmt: skip


# --- graphs and lattices ---------------------------------------------------------------------------------------------


def _graph_search(kind: str) -> "Search":
    def search(searcher: Searcher, utterances: Utterances, settings: Sequence[Setting]) -> list[NBest]:
        only = len(settings) == 1  # the graphs of a sweep are not worth their room on the disk
        found = [_through_graph(searcher, utterances, kind, setting, keep=only) for setting in settings]
        return _in_languages(found, searcher, utterances) if kind != "h" else found

    return search


def _through_graph(searcher: Searcher, utterances: Utterances, kind: str, setting: Setting, keep: bool) -> NBest:
    options, found = searcher.options, _Collected(len(utterances.languages))
    for languages, rows in utterances.by_languages():
        graph = searcher.graphs.get(kind, languages, setting.get("lm", 1.0), setting.get("length", 0.0), keep)
        given = utterances.log_probs[rows], utterances.ctc_lengths[rows], graph, options.lattice
        if options.n_best == 1 and searcher.biasing is None:
            found.put(rows, [[best] for best in searcher.backend.best_paths(*given)])
        else:
            lattices = searcher.biased(searcher.backend.intersect(*given))
            found.put(rows, lattices.best_paths(options.n_best))
    return found.results


def _lattice_rescoring(searcher: Searcher, utterances: Utterances, settings: Sequence[Setting]) -> list[NBest]:
    """Every path of the lattices of H with the score of the models of tokens added."""
    options = searcher.options
    found = [_Collected(len(utterances.languages)) for _ in settings]
    for languages, rows in utterances.by_languages():
        lattices = searcher.backend.intersect(
            utterances.log_probs[rows], utterances.ctc_lengths[rows], searcher.graphs.get("h", languages),
            options.lattice,
        ).transcripts()  # fmt: skip
        for collected, setting in zip(found, settings, strict=True):
            grammar = searcher.graphs.grammar(languages, setting["lm"], setting["length"])
            collected.put(rows, searcher.biased(lattices.rescore(grammar)).best_paths(options.n_best))
    return _in_languages([collected.results for collected in found], searcher, utterances)


def _in_languages(found: list[NBest], searcher: Searcher, utterances: Utterances) -> list[NBest]:
    """Names the language of every best hypothesis, but not in a sweep, which asks for texts alone."""
    assert searcher.language_models is not None
    if len(found) == 1:
        for nbest, languages in zip(found[0], utterances.languages, strict=True):
            [score] = searcher.language_models.score([nbest[0].tokens], languages)
            nbest[0].language = score.language
    return found


class _Collected:
    """Results of some rows of a batch, put back in the order of the batch."""

    def __init__(self, size: int):
        self.results: NBest = [[] for _ in range(size)]

    def put(self, rows: Tensor, results: NBest) -> None:
        for row, result in zip(rows.tolist(), results, strict=True):
            self.results[row] = result


# --- two passes ------------------------------------------------------------------------------------------------------


def _candidates(searcher: Searcher, utterances: Utterances) -> NBest:
    number = searcher.options.rescoring.candidates
    return ctc_prefix_beam(utterances.log_probs, utterances.ctc_lengths, number, number, biasing=searcher.biasing)


def _oracle(searcher: Searcher, utterances: Utterances, settings: Sequence[Setting]) -> list[NBest]:
    return [_candidates(searcher, utterances)]


def _rescoring(added: str) -> "Search":
    def search(searcher: Searcher, utterances: Utterances, settings: Sequence[Setting]) -> list[NBest]:
        candidates = _candidates(searcher, utterances)
        _ADDED[added](searcher, utterances, candidates)
        for hypothesis in itertools.chain.from_iterable(candidates):
            hypothesis.parts["length"] = float(len(hypothesis.tokens))
        return [rescore.rerank(candidates, setting, searcher.options.n_best) for setting in settings]

    return search


def _add_ngrams(searcher: Searcher, utterances: Utterances, candidates: NBest) -> None:
    assert searcher.language_models is not None
    for languages, hypotheses in zip(utterances.languages, candidates, strict=True):
        scores = searcher.language_models.score([h.tokens for h in hypotheses], languages)
        for hypothesis, score in zip(hypotheses, scores, strict=True):
            hypothesis.parts |= {"token-lm": score.token, "word-lm": score.word}
            hypothesis.language = score.language


def _add_neural_lm(searcher: Searcher, utterances: Utterances, candidates: NBest) -> None:
    assert searcher.neural is not None
    flat = [hypothesis for hypotheses in candidates for hypothesis in hypotheses]
    log_probs = searcher.neural.log_probs([hypothesis.tokens for hypothesis in flat])
    for hypothesis, log_prob in zip(flat, log_probs, strict=True):
        hypothesis.parts["neural-lm"] = log_prob


def _add_attention(searcher: Searcher, utterances: Utterances, candidates: NBest) -> None:
    decoder = searcher.model.attention_decoder
    for row, hypotheses in enumerate(candidates):
        frames, lengths = utterances.frames[row : row + 1], utterances.lengths[row : row + 1]
        weights = None if utterances.language_weights is None else utterances.language_weights[row : row + 1]
        scores = rescore.attention_log_probs(decoder, frames, lengths, [h.tokens for h in hypotheses], weights)
        for hypothesis, score in zip(hypotheses, scores, strict=True):
            hypothesis.parts["attention"] = score


_ADDED = {"ngrams": _add_ngrams, "neural-lm": _add_neural_lm, "attention": _add_attention}


# --- the methods -----------------------------------------------------------------------------------------------------

Search = Callable[[Searcher, Utterances, Sequence[Setting]], list[NBest]]


def _no_scales(options: Decode) -> list[Setting]:
    return [{}]


def _graph_scales(options: Decode) -> list[Setting]:
    return _grid(lm=options.lattice.lm_scales, length=options.lattice.length_bonuses)


def _lattice_scales(options: Decode) -> list[Setting]:
    return _with_zero(_graph_scales(options))


def _nbest_scales(*parts: str) -> Callable[[Decode], list[Setting]]:
    def scales(options: Decode) -> list[Setting]:
        rescoring = options.rescoring
        each = {part: rescoring.attention_scales if part == "attention" else rescoring.lm_scales for part in parts}
        return _with_zero(_grid(**each, length=rescoring.length_bonuses))

    return scales


def _grid(**scales: Sequence[float]) -> list[Setting]:
    return [dict(zip(scales, values, strict=True)) for values in itertools.product(*scales.values())]


def _with_zero(settings: list[Setting]) -> list[Setting]:
    """With the setting first that leaves the first pass as it is: dev never chooses anything worse."""
    zero = dict.fromkeys(settings[0], 0.0)
    return [zero, *(setting for setting in settings if setting != zero)]


@dataclass(frozen=True)
class Method:
    """A search, the scales among which dev chooses, and what it needs."""

    search: Search
    scales: Callable[[Decode], list[Setting]] = _no_scales
    ctc: bool = True
    decoder: bool = False
    ngrams: bool = False
    neural: bool = False
    oracle: bool = False
    """Whether its best hypothesis is found by looking at the reference, as stage 4 can."""
    biased: bool = True
    """Whether it heeds words to expect."""
    translates: bool = False
    """Whether it gives translations, not transcripts."""
    whisper: bool = False
    """Whether it follows rules that only a Whisper knows."""

    def has_scales(self, options: Decode) -> bool:
        return len(self.scales(options)) > 1


METHODS = {
    "ctc-greedy": Method(_greedy, biased=False),
    "ctc-prefix-beam": Method(_prefix_beam),
    "attention-beam": Method(_attention, ctc=False, decoder=True, biased=False),
    "whisper": Method(_whisper, ctc=False, decoder=True, biased=False, whisper=True),
    "joint-beam": Method(_joint, decoder=True, biased=False),
    "lattice-h": Method(_graph_search("h")),
    "lattice-hl": Method(_graph_search("hl"), ngrams=True),
    "lattice-hg": Method(_graph_search("hg"), _graph_scales, ngrams=True),
    "lattice-hlg": Method(_graph_search("hlg"), _graph_scales, ngrams=True),
    "lattice-lm-rescoring": Method(_lattice_rescoring, _lattice_scales, ngrams=True),
    "nbest-oracle": Method(_oracle, oracle=True),
    "nbest-lm-rescoring": Method(_rescoring("ngrams"), _nbest_scales("token-lm", "word-lm"), ngrams=True),
    "neural-lm-rescoring": Method(_rescoring("neural-lm"), _nbest_scales("neural-lm"), neural=True),
    "attention-rescoring": Method(_rescoring("attention"), _nbest_scales("attention"), decoder=True),
    "translation-beam": Method(_translation, ctc=False, biased=False, translates=True),
}


def result_name(method: str, prompt: str) -> str:
    """What the results of a method for a kind of prompt are called: ``ctc-greedy``, ``ctc-greedy@oracle+2``."""
    return method if prompt == "all" else f"{method}@{prompt}"


def result_names(options: Decode) -> dict[str, tuple[str, str]]:
    """(method, prompt) by the name of their results; the first is the headline."""
    return {result_name(method, prompt): (method, prompt) for prompt in options.prompts for method in options.methods}


def check_methods(options: Decode, model: SearchableModel) -> None:
    """ValueError for a method that the model cannot do, or words to expect that no method heeds."""
    if options.bias_file is not None and not any(METHODS[name].biased for name in options.methods):
        raise ValueError(
            f"decode.bias_file: {', '.join(options.methods)} knows no words to expect; use ctc-prefix-beam, a lattice "
            "method, or one that rescores"
        )
    if options.tree_search != "all" and getattr(model, "tree", None) is None:
        raise ValueError(f"decode.tree_search={options.tree_search}: this model has no tree (vocab.output=softmax)")
    for name in options.methods:
        if METHODS[name].ctc and model.ctc is None:
            raise ValueError(f"decode.methods: {name} needs CTC, which this model has not; use attention-beam")
        if METHODS[name].decoder and model.attention_decoder is None:
            raise ValueError(
                f"decode.methods: {name} needs an attention decoder, and this model was trained without one "
                "(model.attention_decoder.weight=0); use ctc-greedy or ctc-prefix-beam"
            )
        if METHODS[name].whisper and not hasattr(model.attention_decoder, "first_timestamp"):
            raise ValueError(f"decode.methods: {name} is how a Whisper decodes, and this model is none; use joint-beam")
        if METHODS[name].translates and getattr(model, "translator", None) is None:
            raise ValueError(
                f"decode.methods: {name} needs a model that translates; train one with vocab.translation.into and "
                "model.translation.weight"
            )
