"""The tokens of Whisper (Radford et al. 2022, arXiv 2212.04356, 2.2-2.3): bytes of text, languages, tasks."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from masr.files import from_hugging_face, write_whole
from masr.progress import say
from masr.text.languages import check_codes, written_without_spaces
from masr.text.normalize import VERSION
from masr.text.tokenizer import TRANSLATION, WORD_START, Tokenizer, check_normalization

FILE = "tokenizer.json"
FIRST = "Ġt"
"""The token of the first merge: a space, as bytes are written, and t."""
OTHER_CODES = {"fil": "tl", "jv": "jw", "nb": "no"}
"""Languages that Whisper calls otherwise than BCP-47."""
OWN_CODES = {theirs: ours for ours, theirs in OTHER_CODES.items()}


class WhisperTokenizer(Tokenizer):
    """Whisper's byte-level BPE. ``codes`` are Whisper's own codes of the languages, ``backend`` reads tokenizer.json.

    A Whisper that is not ``multilingual`` is told neither language nor task. ValueError when Whisper has no token for a
    language.
    """

    def __init__(
        self, languages: list[str], codes: dict[str, str], backend: tokenizers.Tokenizer, multilingual: bool = True
    ):  # fmt: skip
        self.languages, self.codes, self.backend, self.multilingual = languages, codes, backend, multilingual
        self.language_token, self.translation = False, None
        self.text, self.normalization = "normalized", VERSION
        self.end, self.start = self.special("endoftext"), self.special("startoftranscript")
        self.task = [self.special("transcribe")] if multilingual else []
        self.task.append(self.special("notimestamps"))
        self.first_timestamp = self.task[-1] + 1
        """Those of 0.00 s, 0.02 s, … come last."""
        self.previous = self.special("startofprev")
        own = {code: self.code_of(code) for code in languages}
        unknown = [code for code in languages if not self.knows(code)] if multilingual else []
        if unknown:
            raise ValueError(
                f"Whisper has no language token for {', '.join(unknown)}; name a language of its own whose token it "
                f"shall take: model.whisper.language_codes={{{unknown[0]}: ...}}"
            )
        self.language_tokens = [self.special(own[code]) if multilingual else self.start for code in languages]

    @property
    def no_speech(self) -> int | None:
        """Id of the token that says that there is no speech; files of before 2023 call it otherwise."""
        found = [self.backend.token_to_id(f"<|{name}|>") for name in ("nospeech", "nocaptions")]
        return next((number for number in found if number is not None), None)

    def knows(self, language: str) -> bool:
        """Whether Whisper has a token for a language."""
        return self.backend.token_to_id(f"<|{self.code_of(language)}|>") is not None

    def code_of(self, language: str) -> str:
        """Whisper's code of a language."""
        return self.codes.get(language) or OTHER_CODES.get(language, language.split("-")[0])

    @property
    def owners(self) -> list[int]:
        """For each language the number of the one whose token it has: its own, or the first of those that share it."""
        named = [self.code_of(language) for language in self.languages]
        numbers = {code: number for number, code in reversed(list(enumerate(named)))}
        own = {self.code_of(code): n for n, code in enumerate(self.languages) if code not in self.codes}
        return [(numbers | own)[code] for code in named]

    def sharing(self) -> dict[str, list[str]]:
        """Languages that have one token and so cannot be told apart, by Whisper's code of it."""
        users: dict[str, list[str]] = {}
        for language in self.languages:
            users.setdefault(self.code_of(language), []).append(language)
        return {code: languages for code, languages in users.items() if len(languages) > 1}

    def special(self, name: str) -> int:
        """Id of ``<|name|>``; ValueError if there is none."""
        number = self.backend.token_to_id(f"<|{name}|>")
        if number is None:
            raise ValueError(f"<|{name}|> is not one of the tokens: these are not those of a multilingual Whisper")
        return number

    def __len__(self) -> int:
        return self.backend.get_vocab_size()

    def encode(self, text: str, language: str) -> list[int]:
        """Ids of a text, without those of language and task. As in Whisper's training it begins with a space."""
        if language not in self.languages:
            raise ValueError(f"language {language!r} is not one of the model's: {', '.join(self.languages)}")
        apart = not written_without_spaces(language)
        return self.backend.encode(" " + text if apart and text else text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, without special and language tokens."""
        return self.backend.decode(list(ids), skip_special_tokens=True).strip()

    def spoken(self, ids: Sequence[int]) -> list[int]:
        """``ids`` without special tokens, all of which come after the end of text."""
        return [i for i in ids if i < self.end]

    def word_pieces(self, ids: Sequence[int]) -> list[str]:
        """What each token adds to the text; a character of several tokens comes with the last of them."""
        texts, unfinished = [], []
        for token in ids:
            unfinished.append(token)
            text = self.backend.decode(unfinished, skip_special_tokens=True)
            complete = not text.endswith("\ufffd")
            texts.append(text.replace(" ", WORD_START) if complete else "")
            unfinished = [] if complete else unfinished
        return texts

    def unknown_characters(self, text: str, language: str) -> list[str]:
        """None: bytes spell every character."""
        return []

    def language_of(self, ids: Sequence[int]) -> str | None:
        """None: the decoder is told the language before the text begins."""
        return None

    def usable(self, languages: Iterable[str]) -> list[int]:
        """All ids: bytes write any language."""
        return list(range(len(self)))

    def same_tokens(self, other: Tokenizer) -> bool:
        """Whether the ids of both mean the same, whatever their languages."""
        return isinstance(other, WhisperTokenizer) and self.backend.to_str() == other.backend.to_str()

    def save(self, folder: Path) -> None:
        """Writes ``tokenizer.json`` and ``languages.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / FILE, self.backend.to_str(pretty=True))
        description: dict[str, Any] = {
            "languages": self.languages,
            "codes": self.codes,
            "normalization": self.normalization,
            "hash": self.hash(),
            "text": self.text,
        }
        if not self.multilingual:
            description["multilingual"] = False
        write_whole(folder / "languages.json", json.dumps(description))
        if self.translation is not None:
            self.translation.save(folder / TRANSLATION)

    @classmethod
    def load(cls, folder: Path) -> "WhisperTokenizer":
        """Reads what `save` wrote; ValueError when it is damaged."""
        try:
            description = json.loads((folder / "languages.json").read_text())
            check_codes([*description["languages"], *description["codes"].values()])
            backend = tokenizers.Tokenizer.from_file(str(folder / FILE))
            multilingual = description.get("multilingual", True)
            found = cls(description["languages"], description["codes"], backend, multilingual)
            found.text = description.get("text", "normalized")  # as all were before there was a choice
            found.normalization = description["normalization"]
            check_normalization(found.normalization)
        except Exception as error:  # tokenizers raises nothing more special
            raise ValueError(f"{folder}: damaged vocabulary: {error}") from error
        if found.hash() != (expected := description.get("hash")):
            raise ValueError(f"{folder}: damaged vocabulary: its hash is {found.hash()}, not {expected}")
        return found

    @classmethod
    def of_pretrained(cls, name: str, languages: list[str], codes: dict[str, str]) -> "WhisperTokenizer":
        """The tokenizer of a Whisper in a folder, or on the hub."""
        found = _pretrained_backend(name)
        mended = _mended(found)
        if mended is not found:
            say(
                f"vocab: the {FILE} of this Whisper lacks the merge of a space and t: added, as OpenAI's own tokenizer "
                "has it"
            )
        return cls(languages, codes, mended)

    @classmethod
    def of_all_languages(cls, name: str, multilingual: bool) -> "WhisperTokenizer":
        """The same for all languages of which it has tokens, by their BCP-47 codes and in that order."""
        backend = _mended(_pretrained_backend(name))
        codes = whisper_codes(backend) if multilingual else ["en"]
        return cls(sorted(OWN_CODES.get(code, code) for code in codes), {}, backend, multilingual)

    def hash(self) -> str:
        """Stands for the whole mapping between text and ids."""
        return hashlib.sha256(json.dumps([self.backend.to_str(), self.languages]).encode()).hexdigest()[:16]


def _pretrained_backend(name: str) -> tokenizers.Tokenizer:
    """What reads the tokens of a Whisper in a folder, or on the hub."""
    from transformers import AutoTokenizer

    return from_hugging_face(AutoTokenizer, name).backend_tokenizer


def whisper_codes(backend: tokenizers.Tokenizer) -> list[str]:
    """Whisper's codes of all languages; their tokens are those between the start and the tasks."""
    first, end = (backend.token_to_id(f"<|{name}|>") for name in ("startoftranscript", "translate"))
    if first is None or end is None:
        raise ValueError("<|startoftranscript|> and <|translate|> are not among the tokens: no multilingual Whisper")
    return [str(backend.id_to_token(number)).strip("<|>") for number in range(first + 1, end)]


def _mended(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """With the merge that files of before 2024 lack, the first one, so that they take every word with t apart."""
    described = json.loads(backend.to_str())
    vocabulary, merges = described["model"]["vocab"], described["model"]["merges"]
    made = {"".join(pair).replace(" ", "") for pair in merges}  # pairs, or both with a space between
    if FIRST not in vocabulary or FIRST in made:
        return backend
    merges.insert(0, " ".join(FIRST) if merges and isinstance(merges[0], str) else [*FIRST])
    return tokenizers.Tokenizer.from_str(json.dumps(described))
