"""Models that write text as published, from stage 2 to a transcript; vocabularies that spell rare letters in bytes."""

import json

import pytest
from tiny_whisper import CONF, write_tiny_whisper

import masr
from masr.config_files import load_config
from masr.models.folder import load_model
from masr.stages import decode, features, prepare, score, train, vocab
from masr.stages.vocab import load_tokenizer
from masr.text.tokenizer import Tokenizer
from masr.text.whisper_tokenizer import WhisperTokenizer

FAST = [
    "language_model.neural_width=8", "language_model.neural_epochs=1", "decode.lattice.lattice_beam=1",
    "decode.lattice.lm_scales=[0.3]", "decode.lattice.length_bonuses=[0.0]", "decode.rescoring.candidates=3",
]  # fmt: skip
METHODS = (
    "decode.methods=[ctc-greedy,attention-beam,lattice-hl,lattice-hlg,lattice-lm-rescoring,nbest-lm-rescoring,"
    "nbest-oracle]"
)


def published(small, split: str) -> list[str]:
    return [row["text"] for row in small.rows if row["split"] == split]


def lines_of(folder, method: str) -> list[dict]:
    path = folder / f"decode/{method}/test.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    "kind", [["vocab.kind=char"], ["vocab.kind=bpe", "vocab.size=60"], ["vocab.output=huffman", "vocab.kind=unigram"]]
)
def test_a_vocabulary_of_published_text_goes_through_all_stages(ready, monkeypatch, kind):
    config = ready.config("vocab.text=published", *kind, *FAST, METHODS)
    learnt: set[str] = set()
    encode = Tokenizer.encode

    def spied(self, text, language):
        learnt.add(text)
        return encode(self, text, language)

    vocab.run(config)
    monkeypatch.setattr(Tokenizer, "encode", spied)
    train.run(config)
    [sentence, *_] = published(ready, "train")
    assert sentence in learnt and sentence.lower() != sentence
    assert not {text.lower() for text in published(ready, "train")} & learnt, "nothing of it is normalised"
    for stage in (decode, score):
        stage.run(config)
    folder = ready.folder / "exp/small"
    for method in config.decode.methods:
        [line] = lines_of(folder, method)
        assert line["published_reference"] == published(ready, "test")[0]
        assert line["reference"] != line["published_reference"]
        metrics = json.loads((folder / f"score/{method}/test/metrics.json").read_text())
        assert {"wer", "cer", "published_wer", "published_cer"} <= metrics["macro"].keys()
        assert "With case and punctuation" in (folder / f"score/{method}/test/report.html").read_text()
    words = (folder / "lm/ngrams/es.txt").read_text(encoding="utf-8").split()
    assert set(words) == {word for text in published(ready, "train") for word in text.split()}
    assert load_model(folder).tokenizer.text == "published"


def test_a_model_of_before_the_option_decodes_as_it_did(trained):
    description = trained.folder / "exp/small/vocab/languages.json"
    old = json.loads(description.read_text())
    del old["text"]
    description.write_text(json.dumps(old))
    decode.run(trained.config("decode.methods=[ctc-greedy]"))
    [line] = lines_of(trained.folder / "exp/small", "ctc-greedy")
    assert "published_reference" not in line and line["reference"] == line["reference"].lower()


def test_phrases_to_expect_are_spelled_as_they_come_where_text_is_published(ready):
    config = ready.config("vocab.text=published")
    vocab.run(config)
    from masr.decode.biasing import read_biasing

    word = published(ready, "train")[0].split()[0]
    assert word != word.lower()
    (ready.folder / "words.txt").write_text(word + "\n", encoding="utf-8")
    biasing = read_biasing(ready.folder / "words.txt", load_tokenizer(config), 1.0)
    assert biasing.score(load_tokenizer(config).encode(word, "es")) > 0


def test_whisper_learns_and_writes_published_text(workdir, tiny_corpus, monkeypatch):
    write_tiny_whisper(workdir / "whisper", positions=64)
    (workdir / "tiny.yaml").write_text(CONF.format(corpus=tiny_corpus, on_the_fly="true"))
    config = load_config(workdir / "tiny.yaml", ["vocab.text=published", "decode.prompts=[oracle]", "train.updates=1"])
    learnt: set[str] = set()
    encode = WhisperTokenizer.encode

    def spied(self, text, language):
        learnt.add(text)
        return encode(self, text, language)

    monkeypatch.setattr(WhisperTokenizer, "encode", spied)
    for stage in (prepare, features, vocab, train, decode, score):
        stage.run(config)
    assert vocab.vocab_folder(config).name == "whisper-published"
    rows = [json.loads(line) for line in (tiny_corpus / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = {row["id"]: row["text"] for row in rows}
    assert {row["text"] for row in rows if row["split"] == "train"} <= learnt
    lines = lines_of(workdir / "exp/tiny", "attention-beam@oracle")
    assert all(line["published_reference"] == texts[line["id"]] for line in lines)
    metrics = json.loads((workdir / "exp/tiny/score/attention-beam@oracle/test/metrics.json").read_text())
    assert metrics["macro"]["published_wer"]["rate"] is not None
    assert masr.load(workdir / "exp/tiny").model.tokenizer.text == "published"


def test_what_was_trained_on_other_text_is_another_run(trained):
    from masr.config_files import ConfigError

    vocab.run(trained.config("vocab.text=published"))
    with pytest.raises(ConfigError, match="vocab.text"):
        train.run(trained.config("vocab.text=published"))


@pytest.fixture
def rare(small):
    """`small` with a letter that is too rare to become a piece where the coverage is 0.99; and in test, too."""
    more = [small.bad_row(id=f"more{i}", text="una vaca y un pato " * 9) for i in range(3)]
    small.publish(*more, small.bad_row(id="rare", text="漢 vaca"), small.bad_row(id="b", split="test", text="漢 y 漢"))
    return small


RARE = "vocab.character_coverage=0.99"
KINDS = [
    ["vocab.kind=char"],
    ["vocab.kind=bpe", "vocab.size=300", "vocab.output=huffman"],
    ["vocab.kind=unigram", "vocab.size=300", "vocab.per_language=true", "vocab.language_token=true"],
]


@pytest.mark.parametrize("kind", KINDS, ids=["char", "bpe-tree", "unigram-per-language"])
def test_letters_that_are_spelled_in_bytes_go_through_all_searches(rare, kind):
    config = rare.config("vocab.byte_fallback=true", RARE, *kind, *FAST, METHODS, "decode.prompts=[all,oracle]")
    for stage in (prepare, features, vocab, train, decode, score):
        stage.run(config)
    tokenizer = load_tokenizer(config)
    assert "漢" not in tokenizer.pieces and len(tokenizer.bytes.keys() & set(tokenizer.encode("漢", "es"))) == 3
    for method in config.decode.methods:
        lines = lines_of(rare.folder / "exp/small", method)
        assert {line["id"]: line["reference"] for line in lines}["b"] == "漢 y 漢", "the reference keeps its letters"
        for line in lines:
            assert all(word for word, _, _ in line["words"])
            assert "<0x" not in line["hypothesis"]


def test_lattices_spell_rare_words_in_bytes(rare):
    from masr.decode.lattice.graph import make_lexicon

    config = rare.config("vocab.byte_fallback=true", RARE)
    for stage in (prepare, vocab):
        stage.run(config)
    tokenizer = load_tokenizer(config)
    lexicon = make_lexicon(["漢", "vaca"], tokenizer, "es", 1.0)
    assert {word: tokenizer.decode(tokens) for word, tokens in lexicon.first.items()} == {"漢": "漢", "vaca": "vaca"}


def test_words_that_cannot_be_spelled_are_in_no_lexicon(rare):
    from masr.decode.lattice.graph import make_lexicon

    config = rare.config(RARE, METHODS, *FAST)
    for stage in (prepare, features, vocab, train, decode):
        stage.run(config)
    lexicon = make_lexicon(["漢", "va漢ca", "vaca"], load_tokenizer(config), "es", 1.0)
    assert list(lexicon.first) == list(lexicon.following) == ["vaca"]
