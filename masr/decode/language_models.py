"""What the searches know of the texts of each language: n-gram models of tokens and of words, and a lexicon."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from masr.config import LanguageModel
from masr.decode.language_model import AGAIN, NGram, estimate
from masr.files import reading, write_whole
from masr.text.languages import check_codes
from masr.text.tokenizer import Tokenizer

POOLED = "pooled"
DESCRIPTION = "lm.json"


class Score(NamedTuple):
    """What the models say of a transcript: its language (None: they are of all), log-probabilities in nats."""

    language: str | None
    token: float
    word: float


@dataclass
class LanguageModels:
    """Models by language, or one of all under the key ``pooled``; the words of the training text by language."""

    tokenizer: Tokenizer
    tokens: dict[str, NGram]
    words: dict[str, NGram]
    vocabulary: dict[str, list[str]]

    def of(self, models: Mapping[str, NGram], languages: Sequence[str]) -> list[NGram]:
        """Those of ``models`` that speak for ``languages``."""
        return [models[name] for name in self._names(languages)]

    def score(self, transcripts: Sequence[Sequence[int]], languages: Sequence[str]) -> list["Score"]:
        """Log-probabilities of whole transcripts, each by the language that suits its tokens best.

        A language token counts nothing. A language speaks for a transcript if it uses all of its tokens, or if none
        does.
        """
        spoken = [self.tokenizer.spoken(tokens) for tokens in transcripts]
        pieces = [[self.tokenizer.pieces[i] for i in ids] for ids in spoken]
        words = [self.tokenizer.decode(ids).split() for ids in spoken]
        best = [Score(None, -math.inf, -math.inf) for _ in spoken]
        used = {name: self._used(name) for name in self._names(languages)}
        foreign = [i for i, ids in enumerate(spoken) if not any(u.issuperset(ids) for u in used.values())]
        for name in used:
            able = [i for i, ids in enumerate(spoken) if used[name].issuperset(ids)] + foreign
            by_token = self.tokens[name].scores([pieces[i] for i in able])
            by_word = self.words[name].scores([words[i] for i in able])
            for i, token, word in zip(able, by_token, by_word, strict=True):
                if token > best[i].token:
                    best[i] = Score(None if name == POOLED else name, token, word)
        return best

    def _names(self, languages: Sequence[str]) -> list[str]:
        return [POOLED] if POOLED in self.tokens else list(languages)

    def _used(self, name: str) -> set[int]:
        return set(self.tokenizer.usable(self.vocabulary if name == POOLED else [name]))

    @cached_property
    def hash(self) -> str:
        """Stands for the models and the words."""
        content = hashlib.sha256()
        for name in self.tokens:
            for model in (self.tokens[name], self.words[name]):
                content.update(repr(sorted(model.log_probs.items())).encode())
        content.update(json.dumps(self.vocabulary).encode())
        return content.hexdigest()[:16]

    def save(self, folder: Path) -> None:
        """Writes ``<language>.tokens.arpa.gz``, ``<language>.words.arpa.gz``, ``<language>.txt`` (its words)."""
        check_codes([*self.tokens, *self.vocabulary])
        folder.mkdir(parents=True, exist_ok=True)
        for name in self.tokens:
            self.tokens[name].save(folder / f"{name}.tokens.arpa.gz")
            self.words[name].save(folder / f"{name}.words.arpa.gz")
        for code, words in self.vocabulary.items():
            write_whole(folder / f"{code}.txt", "".join(f"{word}\n" for word in words))
        description = {"models": list(self.tokens), "languages": list(self.vocabulary), "tokens": self.tokenizer.hash()}
        write_whole(folder / DESCRIPTION, json.dumps(description, indent=1))

    @classmethod
    def load(cls, folder: Path, tokenizer: Tokenizer) -> "LanguageModels":
        """Reads what `save` wrote; ValueError when it belongs to another vocabulary."""
        if not (folder / DESCRIPTION).is_file():
            raise FileNotFoundError(f"{folder} holds no language models: make them with `masr lm`")
        with reading(folder / DESCRIPTION, AGAIN):
            description = json.loads((folder / DESCRIPTION).read_text())
            names, codes = list(description["models"]), list(description["languages"])
            tokens = str(description["tokens"])
            check_codes([*names, *codes])
        if tokens != tokenizer.hash():
            raise ValueError(f"{folder}: the language models are of another vocabulary; make them again: `masr lm`")
        return cls(
            tokenizer,
            {name: NGram.load(folder / f"{name}.tokens.arpa.gz") for name in names},
            {name: NGram.load(folder / f"{name}.words.arpa.gz") for name in names},
            {code: _read_words(folder / f"{code}.txt") for code in codes},
        )


def _read_words(path: Path) -> list[str]:
    with reading(path, AGAIN):
        return path.read_text(encoding="utf-8").split()


def estimate_models(texts: Mapping[str, Sequence[str]], tokenizer: Tokenizer, options: LanguageModel) -> LanguageModels:
    """Models of training text by language (``{language: sentences}``), in the form that the tokenizer is for."""
    tokens = {code: [spelling(line, code, tokenizer) for line in lines] for code, lines in texts.items()}
    words = {code: [line.split() for line in lines] for code, lines in texts.items()}
    vocabulary = {code: sorted({word for line in lines for word in line}) for code, lines in words.items()}
    if options.pooled:
        tokens = {POOLED: [line for lines in tokens.values() for line in lines]}
        words = {POOLED: [line for lines in words.values() for line in lines]}
    return LanguageModels(
        tokenizer, _estimate_each(tokens, options.token_order), _estimate_each(words, options.word_order), vocabulary
    )


def _estimate_each(sentences: Mapping[str, Iterable[Sequence[str]]], order: int) -> dict[str, NGram]:
    return {name: estimate(lines, order) for name, lines in sentences.items()}


def spelling(line: str, language: str, tokenizer: Tokenizer) -> list[str]:
    """The pieces of a sentence, as the models of tokens count them: without unknown ones, as in what is recognised."""
    return [tokenizer.pieces[i] for i in tokenizer.spoken(tokenizer.encode(line, language))]
