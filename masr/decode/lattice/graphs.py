"""The decoding graphs of one model: compiled when they are first asked for, kept in a folder under a hash."""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from kaldifst import StdVectorFst

from masr.config import Lattice
from masr.decode.language_model import NGram
from masr.decode.language_models import POOLED, LanguageModels
from masr.decode.lattice import graph as fsts
from masr.decode.lattice.graph import Graph, TokenModel
from masr.text.tokenizer import Tokenizer

VERSION = 2
"""Of the way in which graphs are made; those of another version are not used."""


class Graphs:
    """Graphs over the tokens of a model for any subset of its languages.

    Each language has a lexicon and a grammar of its own, and a transcript is in one language: a graph of several is
    their union. Nothing is written to disk without a ``folder``.
    """

    def __init__(
        self, tokenizer: Tokenizer, models: LanguageModels | None, options: Lattice, folder: Path | None = None
    ):
        self.tokenizer, self.models, self.options, self.folder = tokenizer, models, options, folder
        self._compiled: dict[str, Graph] = {}
        self._grammars: dict[tuple, StdVectorFst] = {}

    def get(
        self, kind: str, languages: Sequence[str], lm_scale: float = 1.0, bonus: float = 0.0, keep: bool = True
    ) -> Graph:
        """Graph ``h``, ``hl``, ``hg`` or ``hlg``; ``bonus`` (nats) is given for each token. ``keep``: on disk, too."""
        name = self._name(kind, languages, lm_scale, bonus)
        path = self.folder / name if self.folder else None
        if name not in self._compiled:
            saved = Graph.load(path, len(self.tokenizer)) if path is not None else None
            self._compiled[name] = saved or self._compile(kind, languages, lm_scale, bonus)
        if keep and path is not None and kind != "h" and not path.is_file():
            with contextlib.suppress(OSError):  # a folder that cannot be written to: compiled again the next time
                self._compiled[name].save(path)
        return self._compiled[name]

    def grammar(self, languages: Sequence[str], lm_scale: float, bonus: float = 0.0) -> StdVectorFst:
        """The n-gram models of tokens as one acceptor, to rescore lattices with; with scale 0 any tokens will do."""
        if lm_scale == 0:
            return fsts.bonus_grammar(range(1, len(self.tokenizer)), bonus)
        key = ("g", *languages, lm_scale, bonus)
        if key not in self._grammars:
            self._grammars[key] = self._token_grammar(languages, lm_scale, bonus)
        return self._grammars[key]

    def _compile(self, kind: str, languages: Sequence[str], lm_scale: float, bonus: float) -> Graph:
        grammar = None
        if kind == "hg":
            grammar = self.grammar(languages, lm_scale)
        elif kind != "h":
            grammar = self._word_grammar(languages, lm_scale if kind == "hlg" else None)
        return fsts.compose_graph(len(self.tokenizer), grammar, self.options.topology == "compact", bonus)

    def _token_grammar(self, languages: Sequence[str], lm_scale: float, bonus: float) -> StdVectorFst:
        models = self._models().tokens
        groups = {POOLED: languages} if POOLED in models else {code: [code] for code in languages}
        parts = [TokenModel(models[name], self._pieces(codes), self._firsts(codes)) for name, codes in groups.items()]
        return fsts.token_grammar(parts, lm_scale, bonus)

    def _word_grammar(self, languages: Sequence[str], lm_scale: float | None) -> StdVectorFst:
        key = ("lg", *languages, lm_scale)
        if key not in self._grammars:
            parts = [(self._words_of(code, lm_scale), self._firsts([code])) for code in languages]
            self._grammars[key] = fsts.union(parts)
        return self._grammars[key]

    def _words_of(self, code: str, lm_scale: float | None) -> StdVectorFst:
        models = self._models()
        lexicon = fsts.make_lexicon(models.vocabulary[code], self.tokenizer, code, self.options.unknown_cost)
        lm: NGram | None = None
        if lm_scale is not None:
            [lm] = models.of(models.words, [code])
        return fsts.word_grammar(len(self.tokenizer), lexicon, lm, 1.0 if lm_scale is None else lm_scale)

    def _pieces(self, languages: Sequence[str]) -> dict[str, list[int]]:
        """Ids by piece: languages with pieces of their own may write the same one under different ids."""
        pieces: dict[str, list[int]] = {}
        for i in self.tokenizer.spoken(self.tokenizer.usable(languages)):
            pieces.setdefault(self.tokenizer.pieces[i], []).append(i)
        return pieces

    def _firsts(self, languages: Sequence[str]) -> list[int | None]:
        """What a transcript begins with before its words."""
        if not self.tokenizer.language_token:
            return [None]
        return [self.tokenizer.language_id(code) for code in languages]

    def _models(self) -> LanguageModels:
        if self.models is None:
            raise ValueError("this decoding graph needs the language models of the training text: run `masr lm`")
        return self.models

    def _name(self, kind: str, languages: Sequence[str], lm_scale: float, bonus: float) -> str:
        """File name with a hash of the tokens, the words, the models and the options."""
        parts = {
            "tokens": self.tokenizer.hash(), "languages": list(languages), "bonus": bonus, "used": self.tokenizer.used,
            "lm_scale": lm_scale if kind.endswith("g") else None, "topology": self.options.topology,
            "unknown_cost": self.options.unknown_cost, "models": self.models.hash if self.models else None,
            "version": VERSION,
        }  # fmt: skip
        return f"{kind}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]}.fst"
