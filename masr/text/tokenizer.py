"""Text <-> token ids, for all languages of a model.

Id layout: 0 blank, 1 unknown, 2 start/end of sentence, then a token per language (if asked for), then the pieces of
the SentencePiece model, or of one model after the other when every language has its own.
"""

import hashlib
import io
import json
from codecs import getincrementaldecoder
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from masr.config import Vocab
from masr.files import DAMAGE, write_whole, writing
from masr.text.languages import check_codes
from masr.text.normalize import READABLE, VERSION

BLANK, UNKNOWN, START_END = 0, 1, 2
SPECIAL = ("<blank>", "<unk>", "<sos/eos>")
WORD_START = "▁"
BYTES = 256
"""Pieces that spell what is no piece (byte_fallback)."""
SHARED = "shared"
TRANSLATION = "translation"


@dataclass
class Tokenizer:
    """SentencePiece models (one for all languages under the key ``shared``, or one a language) with one id space."""

    languages: list[str]
    language_token: bool
    models: dict[str, SentencePieceProcessor]
    used: dict[str, list[int]] = field(default_factory=dict)
    """Ids that the training text of each language is made of; what a search for this language may write."""
    translation: "Tokenizer | None" = None
    """Tokens of the one language into which speech is translated."""
    text: str = "normalized"
    """Form of the text that is encoded and decoded (vocab.text): normalized or published."""
    normalization: str = VERSION
    """Version of the text normalisation of its training text."""
    pieces: list[str] = field(init=False)
    names: list[str] = field(init=False)
    """The pieces, told apart where several languages have their own of the same letters, e.g. ``cs/a``."""

    def __post_init__(self) -> None:
        self.pieces = [*SPECIAL, *(f"<{code}>" for code in self.languages if self.language_token)]
        self.names = list(self.pieces)
        self._first: dict[str, int] = {}
        for name, model in self.models.items():
            self._first[name] = len(self.pieces)
            pieces = [model.id_to_piece(i) for i in range(1, model.get_piece_size())]  # its 0 is its <unk>
            self.pieces += pieces
            self.names += pieces if name == SHARED else [f"{name}/{piece}" for piece in pieces]
        self.bytes = self._bytes()
        self._unknown: dict[tuple[str, str], bool] = {}

    def _bytes(self) -> dict[int, int]:
        """The byte that each piece of the byte fallback stands for, by id."""
        found: dict[int, int] = {}
        for name, model in self.models.items():
            first = self._first[name] - 1
            for i in range(1, model.get_piece_size()):
                if model.is_byte(i):
                    found[first + i] = int(model.id_to_piece(i)[1:-1], 16)  # e.g. <0xE4>
        return found

    def __len__(self) -> int:
        return len(self.pieces)

    def encode(self, text: str, language: str) -> list[int]:
        """Ids of a text; characters that are no piece become ``<unk>``, or their bytes (byte_fallback)."""
        name = language if language in self.models else SHARED
        if name not in self.models:
            raise ValueError(f"language {language!r} is not one of the model's: {', '.join(self.languages)}")
        first = self._first[name] - 1
        ids = [first + i if i else UNKNOWN for i in self.models[name].encode(text)]
        return [self.language_id(language), *ids] if self.language_token else ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, without special and language tokens, and without bytes that form no character."""
        spoken = self.spoken(ids)
        pieces = self.word_pieces(spoken) if self.bytes else [self.pieces[i] for i in spoken]
        return "".join(pieces).replace(WORD_START, " ").strip()

    def spoken(self, ids: Sequence[int]) -> list[int]:
        """``ids`` without special and language tokens."""
        first_piece = min(self._first.values())
        return [i for i in ids if i >= first_piece]

    def word_pieces(self, ids: Sequence[int]) -> list[str]:
        """What each token adds to the text, with "▁" where a word begins; nothing for special and language tokens.

        A character of several bytes comes with the last of them.
        """
        spoken = set(self.spoken(ids))
        characters = getincrementaldecoder("utf-8")(errors="ignore")
        texts: list[str] = []
        for i in ids:
            if i in self.bytes:
                texts.append(characters.decode(bytes([self.bytes[i]])))
                continue
            characters.reset()  # bytes that were not followed by the rest of their character
            texts.append(self.pieces[i] if i in spoken else "")
        return texts

    def unknown_characters(self, text: str, language: str) -> list[str]:
        """The characters of a text that are neither pieces nor spelled in bytes, each as often as it occurs."""
        return [c for c in text if not c.isspace() and self._is_unknown(c, language)]

    def _is_unknown(self, character: str, language: str) -> bool:
        if (language, character) not in self._unknown:
            self._unknown[language, character] = UNKNOWN in self.encode(character, language)
        return self._unknown[language, character]

    def language_of(self, ids: Sequence[int]) -> str | None:
        """The language that a token sequence names, if any."""
        if not self.language_token:
            return None
        spoken = [i - len(SPECIAL) for i in ids if len(SPECIAL) <= i < len(SPECIAL) + len(self.languages)]
        return self.languages[spoken[0]] if spoken else None

    def language_id(self, language: str) -> int:
        """Id of the token of a language."""
        if language not in self.languages:
            raise ValueError(f"language {language!r} is not one of the model's: {', '.join(self.languages)}")
        return len(SPECIAL) + self.languages.index(language)

    def bytes_of(self, language: str) -> set[int]:
        """Ids of the bytes that may spell characters of a language: all of them, for a byte means nothing alone."""
        name = language if language in self.models else SHARED
        first, size = self._first[name], self.models[name].get_piece_size() - 1
        return {i for i in self.bytes if first <= i < first + size}

    def usable(self, languages: Iterable[str]) -> list[int]:
        """Ids that a transcript in one of these languages may hold, blank among them; ascending."""
        ids = {BLANK, START_END}
        for code in languages:
            ids |= {*self.used[code], *([self.language_id(code)] if self.language_token else [])}
        return sorted(ids)

    def same_tokens(self, other: "Tokenizer") -> bool:
        """Whether the ids of both mean the same, those of translations too where both have some."""
        ours, theirs = self.translation, other.translation
        translated = ours is None or theirs is None or ours.pieces == theirs.pieces
        return (self.pieces, self.languages) == (other.pieces, other.languages) and translated

    def save(self, folder: Path) -> None:
        """Writes ``tokens.model`` (or ``tokens-<language>.model``), ``languages.json`` and, to read, ``tokens.txt``."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, model in self.models.items():
            with writing(folder / _model_file(name)):
                (folder / _model_file(name)).write_bytes(model.serialized_model_proto())
        description = {
            "languages": self.languages, "language_token": self.language_token, "normalization": self.normalization,
            "used": self.used, "hash": self.hash(), "text": self.text,
        }  # fmt: skip
        write_whole(folder / "languages.json", json.dumps(description))
        write_whole(folder / "tokens.txt", "".join(f"{piece} {i}\n" for i, piece in enumerate(self.pieces)))
        if self.translation is not None:
            self.translation.save(folder / TRANSLATION)

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Reads what `save` wrote; ValueError when the files are damaged or do not belong together."""
        tokenizer = cls._load_whisper(folder) if (folder / "tokenizer.json").is_file() else cls._load(folder)
        if (folder / TRANSLATION).is_dir():
            tokenizer.translation = cls.load(folder / TRANSLATION)
        return tokenizer

    @staticmethod
    def _load_whisper(folder: Path) -> "Tokenizer":
        from masr.text.whisper_tokenizer import WhisperTokenizer

        return WhisperTokenizer.load(folder)

    @classmethod
    def _load(cls, folder: Path) -> "Tokenizer":
        try:
            description = json.loads((folder / "languages.json").read_text())
            check_codes(description["languages"])
            names = [SHARED] if (folder / _model_file(SHARED)).exists() else description["languages"]
            check_normalization(description["normalization"])
            models = {n: SentencePieceProcessor(model_proto=(folder / _model_file(n)).read_bytes()) for n in names}
            tokenizer = cls(description["languages"], description["language_token"], models, description["used"])
            tokenizer.text = description.get("text", "normalized")  # as all vocabularies were before there was a choice
            tokenizer.normalization = description["normalization"]
            if tokenizer.hash() != description["hash"]:
                raise ValueError("the token models are not those that languages.json describes")
        except (OSError, *DAMAGE) as error:
            raise ValueError(
                f"{folder}: damaged vocabulary; `masr vocab --force` makes a recipe's again: {error}"
            ) from error
        return tokenizer

    def hash(self) -> str:
        """Stands for the whole mapping between text and ids."""
        return hashlib.sha256("\n".join(self.pieces).encode()).hexdigest()[:16]


def check_normalization(version: str) -> None:
    """ValueError for a version of text normalisation that this masr does not know."""
    if version not in READABLE:
        raise ValueError(
            f"made with text normalisation version {version}, this masr has {VERSION} and reads "
            f"{', '.join(READABLE)}; use the masr that made it, or a newer one"
        )


def train_tokenizer(texts: dict[str, list[str]], options: Vocab) -> Tokenizer:
    """Tokenizer of training text by language (``{language: sentences}``), in the form that ``options.text`` names."""
    groups = texts if options.per_language else {SHARED: [line for lines in texts.values() for line in lines]}
    models = {name: _train_model(lines, options, name) for name, lines in sorted(groups.items())}
    tokenizer = Tokenizer(sorted(texts), options.language_token, models, text=options.text)
    for code, lines in texts.items():
        used = {token for line in lines for token in tokenizer.encode(line, code)}
        tokenizer.used[code] = sorted(used | tokenizer.bytes_of(code))
    return tokenizer


def _train_model(lines: list[str], options: Vocab, name: str) -> SentencePieceProcessor:
    least = least_size(lines, options)
    size = least if options.kind == "char" else max(options.size, least)
    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=model, model_type=options.kind, vocab_size=size,
            hard_vocab_limit=False, character_coverage=options.character_coverage, byte_fallback=options.byte_fallback,
            normalization_rule_name="identity", unk_id=0, bos_id=-1, eos_id=-1, pad_id=-1,
            add_dummy_prefix=options.kind != "char", minloglevel=2, num_threads=1, max_sentence_length=100_000,
        )  # fmt: skip
    except RuntimeError as error:
        raise ValueError(
            f"vocab: SentencePiece cannot train a {options.kind} model of {size} pieces for {name}: {error}"
        ) from error
    return SentencePieceProcessor(model_proto=model.getvalue())


def least_size(lines: Sequence[str], options: Vocab) -> int:
    """Pieces that a SentencePiece model is given at least: the characters that are to be pieces, "▁", ``<unk>``, bytes
    if there are any, and where there are spaces one to spare."""
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(line)
    has_spaces = " " in counts
    counts[WORD_START] += counts.pop(" ", 0)
    if options.kind != "char":
        counts[WORD_START] += len(lines)  # before the first word
    letters = set(_covered(counts, options.character_coverage)) - {WORD_START}
    size = len(letters) + len((WORD_START, "<unk>")) + int(has_spaces)
    return size + BYTES if options.byte_fallback else size


def _covered(counts: Counter[str], coverage: float) -> list[str]:
    """The most frequent characters that make up so much of a text, as SentencePiece counts them (in float32)."""
    total, taken, chosen = counts.total(), 0, list[str]()
    for character, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if total and np.float32(taken / total) >= np.float32(coverage):
            break
        chosen.append(character)
        taken += count
    return chosen


def _model_file(name: str) -> str:
    return "tokens.model" if name == SHARED else f"tokens-{name}.model"
