"""Tokens of Whisper: text comes back, words are found among bytes, files are what they were."""

import json
from types import SimpleNamespace

import pytest
from tiny_whisper import write_tiny_whisper

from masr.decode.alignment import timed_words
from masr.decode.hypothesis import Hypothesis
from masr.text.tokenizer import Tokenizer
from masr.text.whisper_tokenizer import WhisperTokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> WhisperTokenizer:
    folder = write_tiny_whisper(tmp_path_factory.mktemp("whisper"))
    return WhisperTokenizer.of_pretrained(str(folder), ["el", "es"], {})


@pytest.mark.parametrize(("text", "language"), [("ένα δύο", "el"), ("¿qué? ", "es"), ("", "es")])
def test_text_comes_back(tokenizer, text, language):
    ids = tokenizer.encode(text, language)
    assert tokenizer.decode([*ids, tokenizer.end]) == text.strip()
    assert tokenizer.spoken([tokenizer.start, *ids, tokenizer.end]) == ids


def test_pieces_make_words_of_bytes(tokenizer):
    ids = tokenizer.encode("ένα δύο", "el")
    pieces = tokenizer.word_pieces(ids)
    assert len(pieces) == len(ids) and "".join(pieces) == "▁ένα▁δύο"
    assert pieces[:3] == ["▁", "", "έ"]


def test_a_word_begins_with_the_first_byte_of_it(tokenizer):
    ids = tokenizer.encode("ένα δύο", "el")
    spoken = Hypothesis(ids, 0.0, timestamps=[(float(at), float(at + 1)) for at in range(len(ids))])
    assert timed_words(spoken, SimpleNamespace(tokenizer=tokenizer)) == [("ένα", 1.0, 7.0), ("δύο", 8.0, 14.0)]


def test_files_come_back(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert isinstance(loaded, WhisperTokenizer) and loaded.hash() == tokenizer.hash()
    assert (loaded.languages, loaded.language_tokens) == (tokenizer.languages, tokenizer.language_tokens)
    written = (tmp_path / "languages.json").read_text()
    (tmp_path / "languages.json").write_text(written.replace('"languages": ["el"', '"languages": ["ro"'))
    with pytest.raises(ValueError, match="damaged vocabulary: its hash is"):
        Tokenizer.load(tmp_path)
    (tmp_path / "languages.json").write_text(written.replace('"normalization": "2"', '"normalization": "0"'))
    with pytest.raises(ValueError, match="made with text normalisation version 0"):
        Tokenizer.load(tmp_path)
    (tmp_path / "languages.json").write_text(written.replace('"normalization": "2"', '"normalization": "1"'))
    older = Tokenizer.load(tmp_path)
    assert older.normalization == "1" and older.hash() == tokenizer.hash()
    (tmp_path / "languages.json").write_text(written)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="damaged vocabulary"):
        Tokenizer.load(tmp_path)


def test_unknown_languages_are_named(tokenizer):
    with pytest.raises(ValueError, match="language 'xx' is not one of the model's: el, es"):
        tokenizer.encode("a", "xx")


def test_languages_of_one_token_are_named(tmp_path):
    folder = write_tiny_whisper(tmp_path)
    shared = WhisperTokenizer.of_pretrained(str(folder), ["ast", "el", "es", "ro"], {"ast": "es"})
    assert shared.sharing() == {"es": ["ast", "es"]} and len(set(shared.language_tokens)) == 3
    assert shared.owners == [2, 1, 2, 3], "Spanish has its own token"
    assert WhisperTokenizer.of_pretrained(str(folder), ["ast", "gl"], {"ast": "es", "gl": "es"}).owners == [0, 0]


@pytest.mark.parametrize("pairs", [True, False])
def test_a_first_merge_that_is_missing_is_added(tmp_path, pairs):
    """Files of before 2024 lack it, so that " to" is not one token."""
    folder = write_tiny_whisper(tmp_path)
    file = folder / "tokenizer.json"
    described = json.loads(file.read_text())
    numbers = described["model"]["vocab"]
    numbers |= {token: 2000 + number for number, token in enumerate(("\u0120t", "\u0120to"))}
    described["model"]["merges"] = [["\u0120t", "o"]] if pairs else ["\u0120t o"]
    file.write_text(json.dumps(described))
    assert WhisperTokenizer.of_pretrained(str(folder), ["es"], {}).encode("to", "es") == [2001]
    described["model"]["merges"].insert(0, ["\u0120", "t"] if pairs else "\u0120 t")
    file.write_text(json.dumps(described))
    assert WhisperTokenizer.of_pretrained(str(folder), ["es"], {}).encode("to", "es") == [2001]
