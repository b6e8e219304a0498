"""The graphs of a model: one for each set of languages, kept on disk under a hash of what made them."""

import pytest
import torch

from masr.config import LanguageModel, Lattice, Vocab
from masr.decode.language_models import estimate_models
from masr.decode.lattice import kaldi
from masr.decode.lattice.graph import arcs_of
from masr.decode.lattice.graphs import Graphs
from masr.text.tokenizer import train_tokenizer

TEXTS = {"es": ["una vaca", "un gato"], "ro": ["o vacă", "un câine"]}


@pytest.fixture
def tokenizer():
    return train_tokenizer(TEXTS, Vocab())


@pytest.fixture
def models(tokenizer):
    return estimate_models(TEXTS, tokenizer, LanguageModel(token_order=2, word_order=2))


@pytest.mark.parametrize("kind", ["hl", "hg", "hlg"])
def test_a_graph_is_compiled_once_and_read_afterwards(tokenizer, models, tmp_path, kind, monkeypatch):
    first = Graphs(tokenizer, models, Lattice(), tmp_path).get(kind, ["es", "ro"], 0.5, 1.0)
    [path] = tmp_path.iterdir()
    assert path.name.startswith(f"{kind}-")
    monkeypatch.setattr(Graphs, "_compile", lambda *arguments: pytest.fail("it was compiled again"))
    again = Graphs(tokenizer, models, Lattice(), tmp_path).get(kind, ["es", "ro"], 0.5, 1.0)
    assert again.fst.num_states == first.fst.num_states


def test_whatever_makes_a_graph_another_one_gives_it_another_name(tokenizer, models, tmp_path):
    other_models = estimate_models({"es": ["otra vaca"], "ro": ["alt câine"]}, tokenizer, LanguageModel())
    variants = [
        (Graphs(tokenizer, models, Lattice(), tmp_path), ("hlg", ["es", "ro"], 0.5, 1.0)),
        (Graphs(tokenizer, models, Lattice(), tmp_path), ("hlg", ["es"], 0.5, 1.0)),
        (Graphs(tokenizer, models, Lattice(), tmp_path), ("hlg", ["es", "ro"], 0.6, 1.0)),
        (Graphs(tokenizer, models, Lattice(), tmp_path), ("hlg", ["es", "ro"], 0.5, 0.0)),
        (Graphs(tokenizer, models, Lattice(), tmp_path), ("hg", ["es", "ro"], 0.5, 1.0)),
        (Graphs(tokenizer, models, Lattice(topology="compact"), tmp_path), ("hlg", ["es", "ro"], 0.5, 1.0)),
        (Graphs(tokenizer, models, Lattice(unknown_cost=9.0), tmp_path), ("hlg", ["es", "ro"], 0.5, 1.0)),
        (Graphs(tokenizer, other_models, Lattice(), tmp_path), ("hlg", ["es", "ro"], 0.5, 1.0)),
    ]
    for graphs, arguments in variants:
        graphs.get(*arguments)
    assert len(list(tmp_path.iterdir())) == len(variants)


def test_graphs_of_a_sweep_stay_in_memory_until_one_is_chosen(tokenizer, models, tmp_path):
    graphs = Graphs(tokenizer, models, Lattice(), tmp_path)
    swept = graphs.get("hg", ["es"], 0.5, keep=False)
    assert not list(tmp_path.iterdir())
    assert graphs.get("hg", ["es"], 0.5) is swept
    assert len(list(tmp_path.iterdir())) == 1


def test_without_language_models_the_way_out_is_named(tokenizer):
    with pytest.raises(ValueError, match="needs the language models of the training text: run `masr lm`"):
        Graphs(tokenizer, None, Lattice()).get("hlg", ["es"])


def test_words_at_scale_zero_are_words_without_a_model_also_unknown_ones(tokenizer, models):
    graphs = Graphs(tokenizer, models, Lattice())
    torch.manual_seed(0)
    log_probs = (3 * torch.randn(20, 16, len(tokenizer))).log_softmax(-1)
    lengths = torch.full((20,), 16)
    without, zero = (
        kaldi.best_paths(log_probs, lengths, graphs.get(kind, ["es", "ro"], 0.0), Lattice(beam=40.0, max_active=10**5))
        for kind in ("hl", "hlg")
    )
    assert [h.tokens for h in without] == [h.tokens for h in zero]
    assert [h.score for h in without] == pytest.approx([h.score for h in zero], abs=1e-3)
    words = {word for code in TEXTS for word in models.vocabulary[code]}
    assert any(not set(tokenizer.decode(h.tokens).split()) <= words for h in zero), "some words are unknown"


@pytest.mark.parametrize("size", [0, 100, -1])
def test_a_graph_that_was_half_written_is_made_again(tokenizer, models, tmp_path, size):
    first = Graphs(tokenizer, models, Lattice(), tmp_path).get("hg", ["es"])
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:size])
    again = Graphs(tokenizer, models, Lattice(), tmp_path).get("hg", ["es"])
    assert again.fst.num_states == first.fst.num_states


def test_a_folder_that_cannot_be_written_to_costs_the_next_time_only(tokenizer, models, tmp_path):
    (tmp_path / "graphs").write_text("a file where the folder should be")
    assert Graphs(tokenizer, models, Lattice(), tmp_path / "graphs").get("hg", ["es"]).fst.num_states


def test_languages_with_pieces_of_their_own_and_one_model_of_all_keep_their_tokens(tmp_path):
    tokenizer = train_tokenizer(TEXTS, Vocab(kind="char", per_language=True))
    models = estimate_models(TEXTS, tokenizer, LanguageModel(token_order=2, word_order=2, pooled=True))
    used = set(tokenizer.spoken(tokenizer.usable(["es", "ro"])))
    _, _, read, _, _ = arcs_of(Graphs(tokenizer, models, Lattice()).grammar(["es", "ro"], 0.5))
    assert {label - 1 for label in read if label} == used
