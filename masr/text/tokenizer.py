"""Text <-> token ids, for all languages of a model.

Id layout: 0 blank, 1 unknown, 2 start/end of sentence, then a token per language (if asked for), then the pieces of
the SentencePiece model, or of one model after the other when every language has its own.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from masr.config import Vocab
from masr.files import DAMAGE, write_whole, writing
from masr.text.languages import check_codes
from masr.text.normalize import VERSION

BLANK, UNKNOWN, START_END = 0, 1, 2
SPECIAL = ("<blank>", "<unk>", "<sos/eos>")
WORD_START = "▁"
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

    def __len__(self) -> int:
        return len(self.pieces)

    def encode(self, text: str, language: str) -> list[int]:
        """Ids of normalised text; what the model has never seen becomes ``<unk>``."""
        name = language if language in self.models else SHARED
        if name not in self.models:
            raise ValueError(f"language {language!r} is not one of the model's: {', '.join(self.languages)}")
        first = self._first[name] - 1
        ids = [first + i if i else UNKNOWN for i in self.models[name].encode(text)]
        return [self.language_id(language), *ids] if self.language_token else ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, without special and language tokens."""
        return "".join(self.pieces[i] for i in self.spoken(ids)).replace(WORD_START, " ").strip()

    def spoken(self, ids: Sequence[int]) -> list[int]:
        """``ids`` without special and language tokens."""
        first_piece = min(self._first.values())
        return [i for i in ids if i >= first_piece]

    def word_pieces(self, ids: Sequence[int]) -> list[str]:
        """What each token adds to the text, with "▁" where a word begins; nothing for special and language tokens."""
        spoken = set(self.spoken(ids))
        return [self.pieces[i] if i in spoken else "" for i in ids]

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
            "languages": self.languages, "language_token": self.language_token, "normalization": VERSION,
            "used": self.used, "hash": self.hash(),
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
            if description["normalization"] != VERSION:
                raise ValueError(f"its text normalisation is {description['normalization']}, this masr has {VERSION}")
            models = {n: SentencePieceProcessor(model_proto=(folder / _model_file(n)).read_bytes()) for n in names}
            tokenizer = cls(description["languages"], description["language_token"], models, description["used"])
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


def train_tokenizer(texts: dict[str, list[str]], options: Vocab) -> Tokenizer:
    """Tokenizer of normalised training text by language (``{language: sentences}``)."""
    groups = texts if options.per_language else {SHARED: [line for lines in texts.values() for line in lines]}
    models = {name: _train_model(lines, options, name) for name, lines in sorted(groups.items())}
    tokenizer = Tokenizer(sorted(texts), options.language_token, models)
    for code, lines in texts.items():
        tokenizer.used[code] = sorted({token for line in lines for token in tokenizer.encode(line, code)})
    return tokenizer


def _train_model(lines: list[str], options: Vocab, name: str) -> SentencePieceProcessor:
    characters = len({c for line in lines for c in line}) + 2  # the space's own piece, and <unk>
    size = characters if options.kind == "char" else max(options.size, characters)
    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=model, model_type=options.kind, vocab_size=size,
            hard_vocab_limit=False, character_coverage=1.0, normalization_rule_name="identity", unk_id=0, bos_id=-1,
            eos_id=-1, pad_id=-1, add_dummy_prefix=options.kind != "char", minloglevel=2, num_threads=1,
            max_sentence_length=100_000,
        )  # fmt: skip
    except RuntimeError as error:
        raise ValueError(
            f"vocab: SentencePiece cannot train a {options.kind} model of {size} pieces for {name}: {error}"
        ) from error
    return SentencePieceProcessor(model_proto=model.getvalue())


def _model_file(name: str) -> str:
    return "tokens.model" if name == SHARED else f"tokens-{name}.model"
