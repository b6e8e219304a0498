"""Tokenizers: text comes back as it went in, ids are stable, and files that do not belong together are refused."""

import json
from collections import defaultdict
from pathlib import Path

import pytest

from masr.config import Vocab
from masr.text.normalize import VERSION, normalize
from masr.text.tokenizer import BLANK, SPECIAL, START_END, UNKNOWN, Tokenizer, least_size, train_tokenizer

MANIFEST = Path(__file__).parents[2] / "egs/freevoices/corpus/manifest.jsonl"
LANGUAGES = ("ca", "el", "ru")  # three scripts, apostrophes and middle dots
SENTENCES = 120  # of each language
KINDS = [
    Vocab(kind=kind, size=200, per_language=per_language, language_token=language_token)
    for kind in ("char", "bpe", "unigram")
    for per_language in (False, True)
    for language_token in (False, True)
]


def describe(options: Vocab) -> str:
    parts = [options.kind, "each" if options.per_language else "shared", "token" if options.language_token else "plain"]
    return "-".join(parts)


@pytest.fixture(scope="module")
def texts() -> dict[str, list[str]]:
    """Real normalised sentences by language."""
    sentences = defaultdict(list)
    for line in MANIFEST.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["language"] in LANGUAGES and len(sentences[row["language"]]) < SENTENCES:
            sentences[row["language"]].append(normalize(row["text"], row["language"]))
    return dict(sentences)


@pytest.fixture(scope="module", params=KINDS, ids=describe)
def options(request) -> Vocab:
    return request.param


@pytest.fixture(scope="module")
def tokenizer(options, texts) -> Tokenizer:
    return train_tokenizer(texts, options)


def test_text_comes_back(tokenizer, texts):
    for language, sentences in texts.items():
        for sentence in sentences:
            assert tokenizer.decode(tokenizer.encode(sentence, language)) == sentence


def test_ids_are_contiguous_and_begin_with_the_special_ones(tokenizer, options):
    assert [tokenizer.pieces[i] for i in (BLANK, UNKNOWN, START_END)] == ["<blank>", "<unk>", "<sos/eos>"]
    names = tokenizer.pieces[3:6] == ["<ca>", "<el>", "<ru>"]
    assert names == options.language_token
    models = tokenizer.models.values()
    expected = len(SPECIAL) + 3 * options.language_token + sum(model.get_piece_size() - 1 for model in models)
    assert len(tokenizer) == len(tokenizer.pieces) == expected


def test_every_piece_can_be_reached_and_no_special_one_is(tokenizer, texts, options):
    used = {i for code, sentences in texts.items() for text in sentences for i in tokenizer.encode(text, code)}
    assert max(used) < len(tokenizer)
    assert used.isdisjoint({BLANK, UNKNOWN, START_END})
    if options.kind == "char":
        assert used == set(range(len(SPECIAL), len(tokenizer)))


def test_unseen_characters_become_unknown_and_only_they(tokenizer):
    ids = tokenizer.encode("α漢α", "el")
    assert ids.count(UNKNOWN) == 1
    assert tokenizer.decode(ids) == "αα"


def test_a_language_has_its_token_only_when_asked_for(tokenizer, options, texts):
    for language, sentences in texts.items():
        ids = tokenizer.encode(sentences[0], language)
        assert tokenizer.language_of(ids) == (language if options.language_token else None)
        assert tokenizer.language_of(ids[1:]) is None
        assert tokenizer.language_of([]) is None


def test_a_language_that_it_does_not_know_has_no_token(texts):
    tokenizer = train_tokenizer(texts, Vocab(language_token=True))
    with pytest.raises(ValueError, match="language 'xx' is not one of the model's: ca, el, ru"):
        tokenizer.encode("a", "xx")


def test_empty_text_has_no_tokens_of_text(tokenizer, options):
    assert len(tokenizer.encode("", "el")) == options.language_token
    assert tokenizer.decode([]) == tokenizer.decode([BLANK, UNKNOWN, START_END]) == ""


def test_languages_share_pieces_only_when_they_share_a_model(tokenizer, options, texts):
    """But for the space: Catalan, Greek and Russian have no letters in common."""
    used = [{i for text in texts[code] for i in tokenizer.encode(text, code)} for code in LANGUAGES]
    shared = {tokenizer.pieces[i] for i in used[0] & used[1] | used[0] & used[2] | used[1] & used[2]}
    assert bool(shared) == (not options.per_language)
    if options.per_language:
        with pytest.raises(ValueError, match="language 'xx' is not one of the model's: ca, el, ru"):
            tokenizer.encode("a", "xx")


def test_an_older_text_normalisation_is_read_and_keeps_its_name(tokenizer, texts, tmp_path):
    tokenizer.save(tmp_path)
    _set_normalization(tmp_path, "1")
    loaded = Tokenizer.load(tmp_path)
    for language, sentences in texts.items():
        assert [loaded.encode(s, language) for s in sentences] == [tokenizer.encode(s, language) for s in sentences]
    loaded.save(tmp_path / "again")
    described = json.loads((tmp_path / "again/languages.json").read_text())
    assert described["normalization"] == "1", "its letters are still those of its training text"


@pytest.mark.parametrize("version", ["0", "3", 2])
def test_an_unknown_text_normalisation_is_refused(tokenizer, tmp_path, version):
    tokenizer.save(tmp_path)
    assert json.loads((tmp_path / "languages.json").read_text())["normalization"] == VERSION
    _set_normalization(tmp_path, version)
    with pytest.raises(
        ValueError, match=f"text normalisation version {version}, this masr has {VERSION} and reads 1, 2"
    ):
        Tokenizer.load(tmp_path)


def _set_normalization(folder: Path, version: str | int) -> None:
    described = json.loads((folder / "languages.json").read_text())
    (folder / "languages.json").write_text(json.dumps(described | {"normalization": version}))


def test_saved_is_loaded_as_it_was(tokenizer, texts, tmp_path):
    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.pieces == tokenizer.pieces
    assert (loaded.languages, loaded.language_token) == (tokenizer.languages, tokenizer.language_token)
    for language, sentences in texts.items():
        assert [loaded.encode(s, language) for s in sentences] == [tokenizer.encode(s, language) for s in sentences]
    assert (tmp_path / "tokens.txt").read_text("utf-8").splitlines()[2] == "<sos/eos> 2"


def test_training_twice_gives_the_same_tokenizer(tokenizer, texts, options):
    assert train_tokenizer(texts, options).hash() == tokenizer.hash()


def test_a_tampered_description_is_refused(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    description = json.loads((tmp_path / "languages.json").read_text())
    changed = description | {"hash": "0" * 16}
    (tmp_path / "languages.json").write_text(json.dumps(changed))
    with pytest.raises(ValueError, match=rf"{tmp_path}: .*languages\.json"):
        Tokenizer.load(tmp_path)


def test_another_model_in_the_folder_is_refused(tokenizer, texts, options, tmp_path):
    tokenizer.save(tmp_path)
    others = {code: [sentence[::-1] + "ъ" for sentence in sentences] for code, sentences in texts.items()}
    train_tokenizer(others, options).save(tmp_path / "other")
    for file in (tmp_path / "other").glob("tokens*.model"):
        file.replace(tmp_path / file.name)
    with pytest.raises(ValueError, match=str(tmp_path)):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "missing", "no description", "broken description"])
def test_damaged_files_name_the_folder(texts, damage, tmp_path):
    train_tokenizer(texts, Vocab()).save(tmp_path)
    model, description = tmp_path / "tokens.model", tmp_path / "languages.json"
    match damage:
        case "truncated":
            model.write_bytes(model.read_bytes()[:-100])
        case "garbage":
            model.write_bytes(b"garbage" * 9)
        case "missing":
            model.unlink()
        case "no description":
            description.unlink()
        case "broken description":
            description.write_text('{"languages": [')
    with pytest.raises(ValueError, match=f"{tmp_path}: ") as caught:
        Tokenizer.load(tmp_path)
    assert "vocab" in str(caught.value), "the way out"


def test_a_model_that_cannot_be_trained_names_the_language():
    with pytest.raises(ValueError, match="vocab: SentencePiece cannot train a unigram model .* for el"):
        train_tokenizer({"ca": ["a b c"] * 9, "el": []}, Vocab(kind="unigram", per_language=True))


def test_the_size_of_subword_models_is_what_was_asked_for(texts):
    for kind in ("bpe", "unigram"):
        model = train_tokenizer(texts, Vocab(kind=kind, size=200)).models["shared"]
        assert model.get_piece_size() == pytest.approx(200, abs=5)


@pytest.fixture(scope="module", params=["char", "bpe", "unigram"])
def spelled_in_bytes(request, texts) -> Tokenizer:
    return train_tokenizer(texts, Vocab(kind=request.param, size=700, byte_fallback=True, character_coverage=0.99))


def test_characters_that_are_no_pieces_come_back_through_bytes(spelled_in_bytes):
    for text in ("über", "ŵ漢字 x", "a𐍈b", "漢"):
        tokens = spelled_in_bytes.encode(text, "ca")
        assert UNKNOWN not in tokens
        assert spelled_in_bytes.decode(tokens) == text
        pieces = spelled_in_bytes.word_pieces(tokens)
        assert len(pieces) == len(tokens)
        assert "".join(pieces).replace("▁", " ").strip() == text, "each character comes with its last byte"
        assert spelled_in_bytes.unknown_characters(text, "ca") == []


def test_bytes_that_form_no_character_are_left_out(spelled_in_bytes):
    numbers = {byte: token for token, byte in spelled_in_bytes.bytes.items()}
    start, *_, end = (numbers[byte] for byte in "漢".encode())
    a, b = (spelled_in_bytes.encode(letter, "ca")[-1] for letter in "ab")
    for tokens, text in (
        ([a, start, b], "ab"), ([a, end, b], "ab"), ([a, b, start], "ab"), ([start, start], ""),
        ([a, numbers[0xFF], b], "ab"), ([numbers[0xC3], a, numbers[0xA9]], "a"),
    ):  # fmt: skip
        assert spelled_in_bytes.decode(tokens).replace(" ", "") == text
        assert len(spelled_in_bytes.word_pieces(tokens)) == len(tokens)


def test_bytes_and_the_form_of_text_are_the_same_from_the_files(spelled_in_bytes, tmp_path):
    spelled_in_bytes.text = "published"
    spelled_in_bytes.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.bytes, loaded.used, loaded.text) == (spelled_in_bytes.bytes, spelled_in_bytes.used, "published")


def test_each_language_has_bytes_of_its_own_where_it_has_a_model_of_its_own(texts):
    tokenizer = train_tokenizer(texts, Vocab(per_language=True, byte_fallback=True))
    assert len(tokenizer.bytes) == 3 * 256
    for code in texts:
        assert tokenizer.decode(tokenizer.encode("ŵ漢", code)) == "ŵ漢"
        assert len(tokenizer.bytes_of(code)) == 256 == len(tokenizer.bytes.keys() & set(tokenizer.used[code]))


@pytest.mark.parametrize("coverage", [1.0, 0.9995, 0.99])
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_the_least_size_is_what_the_characters_need(texts, kind, coverage):
    options = Vocab(kind=kind, size=1, character_coverage=coverage)
    lines = [line for group in texts.values() for line in group]
    assert train_tokenizer(texts, options).models["shared"].get_piece_size() == least_size(lines, options)
    assert least_size(lines, Vocab(kind=kind, byte_fallback=True)) == least_size(lines, Vocab(kind=kind)) + 256


def test_options_of_bytes_are_refused_for_whisper_which_has_bytes_already():
    for given in ({"byte_fallback": True}, {"character_coverage": 0.999}):
        with pytest.raises(ValueError, match="Whisper's tokens spell every character in bytes"):
            Vocab(kind="whisper", **given)
