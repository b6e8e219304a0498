"""Stage 2: the vocabulary of the training text, when it is redone, and what it says of unseen characters."""

import json
import re
import shutil

import miniatures
import pytest
from lhotse import CutSet

from masr.data.sampling import text_of
from masr.stages import prepare, vocab
from masr.stages.vocab import load_tokenizer, load_tree, vocab_folder
from masr.text.tokenizer import Tokenizer


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
    counted = (
        r"vocab: {}: Spanish: {} of \d+ characters are not in the vocabulary and cannot be written: {}; e\.g\. {}\n"
    )
    assert re.search(counted.format("dev", 5, "z 2, g 1, ŵ 1, 漢 1", r"\w+ -> \w+"), printed)
    assert re.search(counted.format("test", 2, "5 1, ж 1", r"(ж|5) -> nothing"), printed)
    assert "vocab: train" not in printed
    assert load_tokenizer(first.config()).encode("漢", "es") == [1]


def test_what_is_left_of_a_word_is_shown(first, capsys):
    first.publish(first.bad_row(id="a", split="test", text="Über über"))
    prepare.run(first.config())
    vocab.run(first.config())
    printed = capsys.readouterr().out
    assert "cannot be written: b 2, ü 2; e.g. über -> er\n" in printed or "ü 2; e.g. über -> ber\n" in printed


@pytest.mark.parametrize("kind", ["char", "bpe", "unigram"])
def test_rare_characters_are_left_out_counted_and_spelled_in_bytes_if_asked_for(first, capsys, kind):
    first.publish(*(first.bad_row(id=f"a{i}", text="una vaca " * 9) for i in range(9)), first.bad_row(text="漢 vaca"))
    prepare.run(first.config())
    sizes = [] if kind == "char" else ["vocab.size=600"]
    given = [f"vocab.kind={kind}", *sizes, "vocab.character_coverage=0.995"]
    for more, ending in ([], "-coverage0.995"), (["vocab.byte_fallback=true"], "-coverage0.995-bytes"):
        config = first.config(*given, *more)
        vocab.run(config)
        assert vocab_folder(config).name.endswith(ending)
        tokenizer = load_tokenizer(config)
        printed = capsys.readouterr().out
        lost = re.search(r"vocab: train: Spanish: \d+ of \d+ characters .* 漢 1.*; e\.g\. ", printed)
        assert bool(lost) == (not more)
        assert tokenizer.decode(tokenizer.encode("漢 vaca", "es")) == ("漢 vaca" if more else "vaca")
        assert set(tokenizer.bytes) <= set(tokenizer.usable(["es"])), "all bytes may be written"
        assert len(tokenizer.bytes) == (256 if more else 0)


def test_bytes_that_nothing_teaches_are_told(first, capsys):
    vocab.run(first.config("vocab.byte_fallback=true"))
    assert (
        "training text has no character to learn bytes from: lower vocab.character_coverage" in capsys.readouterr().out
    )


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_another_size_than_was_asked_for_is_told(first, capsys, kind):
    vocab.run(first.config(f"vocab.kind={kind}", "vocab.size=10"))
    size = load_tokenizer(first.config(f"vocab.kind={kind}", "vocab.size=10")).models["shared"].get_piece_size()
    told = f"vocab: vocab.size=10 is too small for the characters of the training text: {size} pieces instead\n"
    assert told in capsys.readouterr().out and size > 10
    vocab.run(first.config(f"vocab.kind={kind}", "vocab.size=5000"))
    assert "vocab: vocab.size=5000: the training text is enough for " in capsys.readouterr().out


def test_published_text_has_a_vocabulary_of_its_own(first):
    config = first.config("vocab.text=published")
    vocab.run(first.config())
    vocab.run(config)
    assert (vocab_folder(first.config()).name, vocab_folder(config).name) == ("char", "char-published")
    tokenizer, before = load_tokenizer(config), load_tokenizer(first.config())
    assert (tokenizer.text, before.text) == ("published", "normalized")
    letters = {c for row in first.rows if row["split"] == "train" for c in row["text"] if c != " "}
    assert set(tokenizer.pieces[3:]) == letters | {"▁"}
    assert any(c.isupper() for c in letters) and any(not c.isalnum() for c in letters)


def test_manifests_without_published_text_name_the_way_out(first):
    path = first.folder / "data/manifests/train.jsonl.gz"
    cuts = list(CutSet.from_file(path))
    for cut in cuts:
        cut.supervisions[0].custom = None
    with pytest.raises(ValueError, match=r"vocab\.text=published: .* has no published_text; .*`masr prepare --force`"):
        text_of(cuts[0], first.config("vocab.text=published").vocab)
    assert text_of(cuts[0], first.config().vocab) == cuts[0].supervisions[0].text


def test_a_vocabulary_of_before_these_options_is_still_complete(first, capsys):
    """Its seal and its description name none of them."""
    config = first.config()
    vocab.run(config)
    assert not {"text", "byte_fallback", "character_coverage"} & set(vocab.options(config)["vocab"])
    description = vocab_folder(config) / "languages.json"
    old = json.loads(description.read_text())
    del old["text"]
    description.write_text(json.dumps(old))
    assert Tokenizer.load(vocab_folder(config)).text == "normalized"


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
