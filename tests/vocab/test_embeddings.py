"""Token embeddings: what corresponds in two languages comes to lie together."""

import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from masr.config import Config, Vocab
from masr.models.folder import save_model
from masr.models.recognizer import Recognizer
from masr.text.tokenizer import Tokenizer, train_tokenizer
from masr.vocab import embeddings
from masr.vocab.embeddings import (
    foreign_neighbours,
    mono_map,
    monolingual,
    read_lexicon,
    recogniser_embeddings,
    text_model_embeddings,
    token_embeddings,
)
from masr.vocab.tree import clustered

TEXTS = {"el": ["μια γάτα", "και μια αγελάδα"], "es": ["una vaca", "y un gato"], "ro": ["o vacă", "un câine"]}
MODEL = {
    "encoder": {"layers": 1, "width": 16, "heads": 2, "feedforward": 16, "kernel": 3, "subsampling_channels": 4},
    "ctc": {"upsampling": 2},
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, Vocab())


def cipher(sentences: int = 400, tokens: int = 12, shared: int = 4) -> dict[str, list[list[int]]]:
    """Two languages with the same grammar; token t of the first is token t + 12 of the second, but for the shared ones.

    After token t comes mostly one of three others, so that each is known by its neighbours.
    """
    random = np.random.default_rng(0)
    follows = random.dirichlet(np.full(tokens, 0.3), size=tokens)

    def write() -> list[int]:
        line = [int(random.integers(tokens))]
        while len(line) < 12:
            line.append(int(random.choice(tokens, p=follows[line[-1]])))
        return line

    other = {token: token if token < shared else token + tokens for token in range(tokens)}
    return {"a": [write() for _ in range(sentences)], "b": [[other[t] for t in write()] for _ in range(sentences)]}


def test_corresponding_tokens_of_two_languages_lie_together():
    vectors = mono_map(cipher(), 24, 12)
    assert np.isnan(vectors[12:16]).all() and not np.isnan(vectors[16:]).any(), "b does not have tokens 12 to 15"
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for token in range(4, 12):
        nearest = max(range(16, 24), key=lambda other: units[token] @ units[other])
        assert nearest == token + 12


def test_without_shared_tokens_a_lexicon_leads_the_way():
    texts = cipher(shared=0)
    with pytest.raises(ValueError, match=r"shares no token with the others; name pairs in vocab\.tree\.lexicon"):
        mono_map(texts, 24, 12)
    vectors = mono_map(texts, 24, 12, [(token, token + 12) for token in range(4)])
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = [max(range(12, 24), key=lambda other: units[token] @ units[other]) for token in range(12)]
    assert found == list(range(12, 24))


def test_the_order_of_the_languages_decides_nothing():
    texts = cipher()
    assert np.array_equal(mono_map(texts, 24, 12), mono_map(dict(reversed(texts.items())), 24, 12), equal_nan=True)


def test_more_dimensions_than_tokens_are_zero():
    vectors = monolingual([[0, 1, 2], [2, 1]], 5, 30)
    assert vectors.shape == (5, 30) and not vectors[3:].any() and not vectors[:, 5:].any()
    assert np.allclose(np.linalg.norm(vectors[:3], axis=1), 1)


def dense(sentences: Sequence[Sequence[int]], tokens: int, dimensions: int) -> np.ndarray:
    """What `monolingual` gives but for signs, in tables of every token beside every other one, and all vectors."""
    counts = np.zeros((tokens, 4, tokens + 1))
    for line in sentences:
        padded = [tokens, tokens, *line, tokens, tokens]
        for place, token in enumerate(line, 2):
            for distance, offset in enumerate((-2, -1, 1, 2)):
                counts[token, distance, padded[place + offset]] += 1
    counts = counts.reshape(tokens, -1)
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
    ratio = np.divide(counts, expected, out=np.ones_like(counts), where=expected > 0)
    left, strength, _ = np.linalg.svd(np.log(np.maximum(ratio, 1)), full_matrices=False)
    vectors = left[:, :dimensions] * np.sqrt(strength[:dimensions])
    there = counts.any(1)
    units = vectors[there] / np.linalg.norm(vectors[there], axis=1, keepdims=True)
    units -= units.mean(0)
    vectors[:] = 0
    vectors[there] = units / np.linalg.norm(units, axis=1, keepdims=True)
    return vectors


def babble(tokens: int, lines: int = 1500, first: int = 0) -> list[list[int]]:
    """Sentences in which after each token comes mostly one of a few."""
    random = np.random.default_rng(tokens)
    follows = random.integers(tokens, size=(tokens, 3))
    found = []
    for _ in range(lines):
        line = [int(random.integers(tokens))]
        while len(line) < 10:
            often = random.random() < 0.9
            line.append(int(follows[line[-1], random.integers(3)] if often else random.integers(tokens)))
        found.append([first + token for token in line])
    return found


@pytest.mark.parametrize("tokens", [40, 400])
def test_sparse_counts_and_few_vectors_give_what_dense_ones_gave(tokens):
    """But for the signs of dimensions; of 40 tokens all singular vectors are computed, of 400 those that are wanted."""
    sentences = babble(tokens)
    ours, expected = monolingual(sentences, tokens + 5, 12), dense(sentences, tokens + 5, 12)
    assert np.allclose(np.abs((ours * expected).sum(0)), (expected**2).sum(0), atol=1e-6)
    assert np.allclose(ours @ ours.T, expected @ expected.T, atol=1e-6)


def test_a_small_vocabulary_has_the_tree_that_dense_counts_gave(monkeypatch):
    names, counts = [f"t{token:02}" for token in range(24)], np.ones(24, dtype=int)
    ours = clustered(mono_map(cipher(), 24, 8), counts, names)
    monkeypatch.setattr(embeddings, "monolingual", dense)
    monkeypatch.setattr(embeddings, "CHUNK", 10**9)
    assert np.array_equal(ours.children, clustered(mono_map(cipher(), 24, 8), counts, names).children)


def test_vectors_are_the_same_every_time():
    sentences = babble(400)
    first, again = monolingual(sentences, 400, 12), monolingual(sentences, 400, 12)
    assert np.array_equal(first, again)


def test_neighbours_found_a_few_rows_at_a_time_are_the_same(monkeypatch):
    random = np.random.default_rng(0)
    ours, theirs = random.normal(size=(50, 4)), random.normal(size=(30, 4))
    theirs[7] = theirs[3]  # of equal ones the first is taken
    whole = embeddings._mutual_neighbours(ours, theirs)
    monkeypatch.setattr(embeddings, "CHUNK", 100)
    assert whole and embeddings._mutual_neighbours(ours, theirs) == whole


def test_a_language_without_text_or_with_one_token_has_vectors_of_zeros_at_most():
    assert not monolingual([], 5, 3).any()
    assert monolingual([[2]], 5, 3).shape == (5, 3)


def test_no_table_of_every_token_beside_every_other_one_is_made():
    """Two languages of 1,500 tokens each: such a table has 72 MB."""
    texts = {"a": babble(1500, 3000), "b": babble(1500, 3000, first=1500)}
    pairs = [(token, token + 1500) for token in range(200)]
    tracemalloc.start()
    try:
        vectors = mono_map(texts, 3000, 24, pairs)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert vectors.shape == (3000, 24)
    assert peak < 3000 * 3000 * 8


def test_a_lexicon(tmp_path: Path, tokenizer):
    path = tmp_path / "letters.txt"
    path.write_text("# letters\nγ g\n\nα a  # the first\nщ q\n", "utf-8")
    ids = {piece: i for i, piece in enumerate(tokenizer.pieces)}
    assert read_lexicon(path, tokenizer) == [(ids["γ"], ids["g"]), (ids["α"], ids["a"])]
    path.write_text("щ q\n", "utf-8")
    with pytest.raises(ValueError, match=r"letters\.txt has no pair of which both are tokens"):
        read_lexicon(path, tokenizer)
    path.write_text("γ g\nα\n", "utf-8")
    with pytest.raises(ValueError, match=r"letters\.txt:2: expected two tokens, found 'α'"):
        read_lexicon(path, tokenizer)


def test_special_tokens_have_no_vector(tokenizer):
    ids = {code: [tokenizer.encode(line, code) for line in lines] for code, lines in TEXTS.items()}
    vectors = token_embeddings(tokenizer, ids, Vocab.model_validate({"output": "clustered"}))
    assert np.isnan(vectors[:3]).all() and not np.isnan(vectors[3:]).any()


@pytest.mark.parametrize("kind", ["text-model", "recognizer"])
def test_a_model_needs_its_folder(tokenizer, tmp_path, kind):
    options = {"output": "clustered", "tree": {"embeddings": kind}}
    with pytest.raises(ValueError, match=r"needs vocab\.tree\.folder"):
        token_embeddings(tokenizer, {}, Vocab.model_validate(options))
    options["tree"]["folder"] = str(tmp_path / "none")
    with pytest.raises((FileNotFoundError, ValueError), match="none"):
        token_embeddings(tokenizer, {}, Vocab.model_validate(options))


# --- a recogniser ----------------------------------------------------------------------------------------------------


def save_recogniser(folder: Path, tokenizer: Tokenizer, decoder: bool) -> Recognizer:
    options = MODEL | ({"attention_decoder": {"weight": 0.5, "layers": 1, "width": 8, "heads": 2}} if decoder else {})
    config = Config.model_validate({"name": "x", "features": {"mel_bins": 20}, "model": options})
    model = Recognizer(config, tokenizer)
    save_model(folder, model)
    return model


def test_the_output_vectors_of_a_recogniser(tokenizer, tmp_path):
    decoder = save_recogniser(tmp_path / "a", tokenizer, decoder=True).attention_decoder
    assert np.allclose(recogniser_embeddings(tmp_path / "a", tokenizer), decoder.output.weight.detach())
    ctc = save_recogniser(tmp_path / "b", tokenizer, decoder=False).ctc
    of_token_five = ctc.output.weight.detach()[[5, 5 + len(tokenizer)]].flatten()
    assert np.allclose(recogniser_embeddings(tmp_path / "b", tokenizer)[5], of_token_five)


def test_tokens_of_another_vocabulary_are_found_by_name(tokenizer, tmp_path):
    decoder = save_recogniser(tmp_path, tokenizer, decoder=True).attention_decoder
    other = train_tokenizer({"es": ["un gato ñoño"]}, Vocab())
    vectors = recogniser_embeddings(tmp_path, other)
    for piece, vector in zip(other.pieces, vectors, strict=True):
        if piece == "ñ":
            assert np.isnan(vector).all()
        else:
            assert np.allclose(vector, decoder.output.weight.detach()[tokenizer.pieces.index(piece)])


# --- a text model ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def text_model(tmp_path_factory) -> Path:
    """A small BERT with random weights that knows the letters of two alphabets, saved as Hugging Face saves it."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer as FastTokenizer
    from tokenizers import models, pre_tokenizers

    folder = tmp_path_factory.mktemp("bert")
    letters = {letter: i for i, letter in enumerate(["[UNK]", *"abcdefghijklmnopqrstuvwxyzαγμιάτ"])}
    fast = FastTokenizer(models.WordLevel(letters, unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Split("", "isolated")])
    transformers.PreTrainedTokenizerFast(tokenizer_object=fast, unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(letters), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def test_the_input_embeddings_of_a_text_model(text_model):
    transformers = pytest.importorskip("transformers")
    tokenizer = train_tokenizer(TEXTS, Vocab(kind="bpe", size=40))
    vectors = text_model_embeddings(text_model, tokenizer)
    table = transformers.AutoModel.from_pretrained(text_model).get_input_embeddings().weight.detach()
    theirs = transformers.AutoTokenizer.from_pretrained(text_model)
    assert np.isnan(vectors[tokenizer.pieces.index("▁")]).all(), "BERT has no space"
    assert np.isnan(vectors[tokenizer.pieces.index("ă")]).all(), "nor, this one, this letter"
    for piece in ("un", "γ", "▁un"):
        rows = theirs.convert_tokens_to_ids(list(piece.strip("▁")))
        assert np.allclose(vectors[tokenizer.pieces.index(piece)], table[rows].mean(0))


def test_the_output_of_a_text_model(text_model, tokenizer):
    pooled = text_model_embeddings(text_model, tokenizer, pooled=True)
    assert pooled.shape == (len(tokenizer), 8) and not np.allclose(
        pooled[5:], text_model_embeddings(text_model, tokenizer)[5:], equal_nan=True
    )


# --- to look at ------------------------------------------------------------------------------------------------------


def test_neighbours_are_tokens_of_languages_that_do_not_use_the_token():
    vectors = np.array([[1.0, 0], [0.9, 0.1], [0, 1], [0.5, 0.5], [np.nan, np.nan]])
    texts = {"a": [[0, 1, 4]], "b": [[2, 3, 1]]}
    found = foreign_neighbours(vectors, None, texts, k=2)
    assert found == {0: [1, 3], 2: [1, 0], 3: [1, 0]}, "1 is used by both, 4 has no vector"
