"""Stage 2: the vocabulary of the training text, when it is redone, and what it says of unseen characters."""

import shutil

import miniatures
import pytest

from masr.stages import prepare, vocab
from masr.stages.vocab import load_tokenizer, load_tree, vocab_folder


@pytest.fixture
def first(small):
    """`small` after stage 0; vocabularies need no features."""
    prepare.run(small.config())
    return small


def test_the_vocabulary_is_that_of_the_training_text(first, capsys):
    vocab.run(first.config())
    tokenizer = load_tokenizer(first.config())
    letters = {c for row in first.rows if row["split"] == "train" for c in row["text"].lower() if c.isalpha()}
    assert set(tokenizer.pieces[3:]) == letters | {"▁"}
    assert tokenizer.languages == ["es"]
    assert f"vocab: {len(tokenizer)} tokens, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "folder"),
    [
        ([], "char"),
        (["vocab.language_token=true"], "char-language-token"),
        (["vocab.kind=bpe", "vocab.size=30"], "bpe30"),
        (["vocab.kind=unigram", "vocab.size=25", "vocab.per_language=true"], "unigram25-per-language"),
    ],
)
def test_every_kind_has_its_own_folder(first, overrides, folder):
    config = first.config(*overrides)
    vocab.run(config)
    assert vocab_folder(config).name == folder
    tokenizer = load_tokenizer(config)
    assert tokenizer.decode(tokenizer.encode("un pato", "es")) == "un pato"


def test_unseen_characters_of_dev_and_test_are_shown_and_become_unknown(first, capsys):
    first.publish(first.bad_row(id="a", split="dev", text="ŵ漢"), first.bad_row(id="b", split="test", text="Ж 5"))
    prepare.run(first.config())
    vocab.run(first.config())
    printed = capsys.readouterr().out
    assert "vocab: dev has characters that training text has not: g z ŵ 漢\n" in printed
    assert "vocab: test has characters that training text has not: 5 ж\n" in printed
    assert load_tokenizer(first.config()).encode("漢", "es") == [1]


def test_the_second_run_does_nothing(first, snapshot, capsys):
    vocab.run(first.config())
    before = snapshot(first.folder / "data")
    capsys.readouterr()
    vocab.run(first.config("train.updates=9", "features.mel_bins=40"))
    assert capsys.readouterr().out == "vocab: complete in data/vocab/char (--force redoes it)\n"
    assert snapshot(first.folder / "data") == before


@pytest.mark.parametrize("reason", ["force", "manifests", "half-written", "damaged"])
def test_it_is_redone_when_something_changed(first, reason, half_written):
    config = first.config()
    vocab.run(config)
    stray = vocab_folder(config) / "stray"
    stray.touch()
    match reason:
        case "manifests":
            first.publish(first.bad_row(id="one-more", text="ŵ"))
            prepare.run(config)
        case "half-written":
            half_written(vocab_folder(config))
        case "damaged":
            (vocab_folder(config) / "tokens.model").write_bytes(b"")
    vocab.run(config, force=reason == "force")
    assert not stray.exists()
    assert ("ŵ" in load_tokenizer(config).pieces) == (reason == "manifests")


@pytest.mark.parametrize(
    "moment", [("masr.text.tokenizer:Tokenizer.save", 1), ("masr.stages.output:StageOutput.seal", 1)]
)
def test_killed_and_run_again_it_is_as_if_never_killed(first, kill_at, moment):
    kill_at(*moment, lambda: vocab.run(first.config()))
    with pytest.raises(FileNotFoundError, match="run `masr vocab`"):
        load_tokenizer(first.config())
    vocab.run(first.config())
    assert len(load_tokenizer(first.config())) > 10


def test_before_stage_0_it_names_the_way_out(small):
    with pytest.raises(FileNotFoundError, match="run `masr prepare`"):
        vocab.run(small.config())


@pytest.mark.parametrize(
    ("overrides", "folder"),
    [
        (["vocab.output=huffman"], "char-huffman"),
        (["vocab.output=balanced"], "char-balanced1"),
        (["vocab.output=clustered"], "char-clustered-mono-map-ward"),
        (["vocab.output=clustered", "vocab.tree.linkage=bisecting"], "char-clustered-mono-map-bisecting"),
    ],
)
def test_a_tree_lies_beside_the_tokens(first, capsys, overrides, folder):
    config = first.config(*overrides)
    vocab.run(config)
    assert vocab_folder(config).name == folder
    assert len(load_tree(config)) == len(load_tokenizer(config))
    assert f"vocab: {config.vocab.output} tree: depth " in capsys.readouterr().out
    assert "<svg" in (vocab_folder(config) / "tree.svg").read_text()
    assert (vocab_folder(config) / "neighbours.md").exists() == (config.vocab.output == "clustered")


def test_a_flat_softmax_has_no_tree(first):
    vocab.run(first.config())
    assert load_tree(first.config()) is None and not (vocab_folder(first.config()) / "tree.json").exists()


def test_a_huffman_tree_counts_the_ends_of_sentences(first):
    config = first.config("vocab.output=huffman")
    vocab.run(config)
    depths = load_tree(config).depths
    assert depths[0] == depths.max(), "blank is never decided for"
    assert depths[2] < depths[0]


def test_a_tree_is_made_again_when_what_it_was_made_of_has_changed(first, capsys):
    letters = first.folder / "letters.txt"
    letters.write_text("a e\n")
    config = first.config("vocab.output=clustered", "vocab.tree.lexicon=letters.txt")
    vocab.run(config)
    vocab.run(config)
    assert "vocab: complete" in capsys.readouterr().out
    letters.write_text("a o\n")
    vocab.run(config)
    assert "vocab: complete" not in capsys.readouterr().out


def test_languages_with_their_own_tokens_are_clustered_too(small):
    shutil.rmtree(small.corpus)
    miniatures.freevoices(small.corpus, languages=("ru", "es"), counts={"train": 6, "dev": 1, "test": 1})
    config = small.config("vocab.output=clustered", "vocab.per_language=true", "data.max_bad_fraction=1")
    prepare.run(config)
    vocab.run(config)
    tokenizer, tree = load_tokenizer(config), load_tree(config)
    assert len(tree) == len(tokenizer) == len(set(tokenizer.names)) > len(set(tokenizer.pieces))
