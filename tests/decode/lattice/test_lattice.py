"""Graphs and lattices on miniature vocabularies, against brute force over every sentence.

V tokens: blank, <unk>, <sos/eos>, the space's own piece, a, b, c.
"""

import itertools
import math
import sys

import pytest
import torch
from torch import Tensor

from masr.config import Lattice
from masr.decode.greedy import ctc_greedy
from masr.decode.language_model import NGram, estimate
from masr.decode.lattice import k2_problem, load_backend
from masr.decode.lattice.graph import (
    Graph,
    Lexicon,
    TokenModel,
    arcs_of,
    arcs_without_empty_labels,
    bonus_grammar,
    compose_graph,
    token_grammar,
    union,
    without_empty_labels,
    word_grammar,
)

PIECES = ["<blank>", "<unk>", "<sos/eos>", "▁", "a", "b", "c"]
V = len(PIECES)
WIDE = Lattice(beam=60.0, max_active=100_000)
WORDS = ["a", "ab", "cab", "bb"]
SYMBOLS = {piece: [PIECES.index(piece)] for piece in PIECES[3:]}
TEXT = [["a", "ab"], ["cab"], ["bb", "a"], ["a", "ab", "cab"], ["ab"]]
LM = estimate([[letter for word in line for letter in f"▁{word}"] for line in TEXT], 3)
SENTENCES = [list(words) for count in range(4) for words in itertools.product(WORDS, repeat=count)]


def spell(words: list[str]) -> list[int]:
    return [PIECES.index(piece) for word in words for piece in ("▁", *word)]


def text_of(tokens: list[int]) -> str:
    return "".join(PIECES[token] for token in tokens).replace("▁", " ").strip()


@pytest.fixture
def log_probs() -> Tensor:
    """(10, 14, V): noise, with the special tokens out of the way."""
    torch.manual_seed(0)
    logits = torch.randn(10, 14, V) * 1.5
    logits[:, :, 1:3] = -50
    return logits.log_softmax(-1)


LENGTHS = torch.full((10,), 14)
FOLLOWING = {word: spell([word]) for word in WORDS}
LEXICON = Lexicon(FOLLOWING, FOLLOWING)


@pytest.fixture(params=["kaldi", "k2"])
def backend(request):
    if request.param == "k2" and (problem := k2_problem()):
        pytest.skip(problem)
    return load_backend(request.param)


def graph_h(tokens: int = V, compact: bool = False, bonus: float = 0.0) -> Graph:
    return compose_graph(tokens, None, compact, bonus)


def graph_hl(lexicon: Lexicon = LEXICON, lm: NGram | None = None, scale: float = 1.0, compact: bool = False) -> Graph:
    return compose_graph(V, word_grammar(V, lexicon, lm, scale), compact)


def graph_hg(lm: NGram, bonus: float = 0.0) -> Graph:
    return compose_graph(V, token_grammar([TokenModel(lm, SYMBOLS)]), bonus=bonus)


def best_alignment(frames: Tensor, tokens: list[int]) -> float:
    """Log-probability (T, V) of the best alignment of ``tokens``, by the definition of CTC (Graves et al. 2006)."""
    states = [0]
    for token in tokens:
        states += [token, 0]
    scores = [frames[0, s].item() if i < 2 else -math.inf for i, s in enumerate(states)]
    for frame in frames[1:].tolist():
        new = []
        for i, state in enumerate(states):
            skips = i > 1 and state != 0 and state != states[i - 2]
            before = [scores[i], scores[i - 1] if i else -math.inf, scores[i - 2] if skips else -math.inf]
            new.append(max(before) + frame[state])
        scores = new
    return max(scores[-2:])


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_h_alone_is_the_greedy_collapse_also_on_tokens_of_several_frames(backend, compact, seed):
    torch.manual_seed(seed)
    logits = torch.randn(40, 8, 5).repeat_interleave(2, dim=1) + 0.3 * torch.randn(40, 16, 5)
    log_probs, lengths = logits.mul(2).log_softmax(-1), torch.randint(0, 17, (40,))
    found = backend.best_paths(log_probs, lengths, graph_h(5, compact), WIDE)
    greedy = [best[0].tokens for best in ctc_greedy(log_probs, lengths)]
    assert [hypothesis.tokens for hypothesis in found] == greedy
    for hypothesis, frames, length in zip(found, log_probs, lengths.tolist(), strict=True):
        expected = frames[:length].max(-1).values.sum().item()
        assert hypothesis.score == pytest.approx(expected, abs=0.01 if compact else 1e-3)


@pytest.mark.parametrize(
    ("lm", "scale"),
    [(None, 1.0), (estimate(TEXT, 1), 1.0), (estimate(TEXT, 2), 1.0), (estimate(TEXT, 3), 0.5)],
    ids=["HL", "unigram", "bigram", "half a trigram"],
)
def test_words_of_a_lexicon_are_found_as_by_brute_force(backend, log_probs, lm: NGram | None, scale):
    graph = graph_hl(LEXICON, lm, scale)
    for hypothesis, frames in zip(backend.best_paths(log_probs, LENGTHS, graph, WIDE), log_probs, strict=True):
        scores = {
            " ".join(words): best_alignment(frames, spell(words)) + (scale * lm.score(words) if lm else 0.0)
            for words in SENTENCES
        }
        assert text_of(hypothesis.tokens) == max(scores, key=scores.__getitem__)
        # Backing off costs what it costs, but a path may back off where the n-gram is known: never dearer.
        assert hypothesis.score == pytest.approx(max(scores.values()), abs=1e-2)


def test_a_language_model_of_scale_zero_is_none(backend, log_probs):
    plain = backend.best_paths(log_probs, LENGTHS, graph_hl(), WIDE)
    zero = backend.best_paths(log_probs, LENGTHS, graph_hl(LEXICON, estimate(TEXT, 1), 0.0), WIDE)
    assert [h.tokens for h in plain] == [h.tokens for h in zero]
    assert [h.score for h in plain] == pytest.approx([h.score for h in zero], abs=1e-4)


def test_unknown_words_are_spelled_at_their_price(backend, log_probs):
    open_lexicon = Lexicon(FOLLOWING, FOLLOWING, [3], [3], [4, 5, 6], unknown_cost=0.0)
    dear = Lexicon(FOLLOWING, FOLLOWING, [3], [3], [4, 5, 6], unknown_cost=100.0)
    spelled = backend.best_paths(log_probs, LENGTHS, graph_hl(open_lexicon), WIDE)
    known = backend.best_paths(log_probs, LENGTHS, graph_hl(dear), WIDE)
    closed = backend.best_paths(log_probs, LENGTHS, graph_hl(), WIDE)
    assert [h.tokens for h in known] == [h.tokens for h in closed]
    assert any(not set(text_of(h.tokens).split()) <= set(WORDS) for h in spelled)
    assert all(a.score >= b.score - 1e-4 for a, b in zip(spelled, closed, strict=True))


def test_the_paths_of_a_lattice_are_different_transcripts_with_their_best_alignments(backend, log_probs):
    lattices = backend.intersect(log_probs, LENGTHS, graph_hl(), Lattice(beam=30.0, lattice_beam=6.0))
    best = backend.best_paths(log_probs, LENGTHS, graph_hl(), WIDE)
    for paths, first, frames in zip(lattices.best_paths(5), best, log_probs, strict=True):
        assert paths[0].tokens == first.tokens
        assert len({tuple(path.tokens) for path in paths}) == len(paths)
        assert [path.score for path in paths] == sorted((path.score for path in paths), reverse=True)
        for path in paths:
            assert path.score == pytest.approx(best_alignment(frames, path.tokens), abs=1e-3)


def test_no_frames_and_no_path(backend):
    graph = graph_hl()
    nothing = torch.zeros(1, 0, V)
    assert backend.best_paths(nothing, torch.tensor([0]), graph, WIDE)[0].tokens == []
    assert backend.intersect(nothing, torch.tensor([0]), graph, WIDE).best_paths(3)[0][0].tokens == []
    # A graph that wants two tokens, and one frame.
    two = compose_graph(V, union([(union([(bonus_grammar([4], 0.0), [5])]), [6])]))
    frame, length = torch.randn(1, 1, V).log_softmax(-1), torch.tensor([1])
    [found] = backend.best_paths(frame, length, two, WIDE)
    [[path]] = backend.intersect(frame, length, two, WIDE).best_paths(1)
    for lost in (found, path):
        assert lost.tokens == [] and lost.score == -math.inf


@pytest.mark.parametrize("n", [1, 3])
def test_silence_is_an_empty_transcript_with_its_score(backend, n):
    silence = torch.full((1, 4, V), -9.0)
    silence[:, :, 0] = -0.001
    for frames in (0, 4):
        found = backend.intersect(silence, torch.tensor([frames]), graph_h(), Lattice()).best_paths(n)[0][0]
        assert found.tokens == [] and found.score == pytest.approx(-0.001 * frames, abs=1e-5)


def test_a_graph_of_other_tokens_is_refused(backend):
    with pytest.raises(ValueError, match="the graph has 7 tokens, the model 9: compile it again"):
        backend.best_paths(torch.zeros(1, 2, 9), torch.tensor([2]), graph_h(), WIDE)


def test_a_rescored_lattice_has_the_best_path_of_the_graph_that_holds_the_model(backend):
    torch.manual_seed(0)
    logits = torch.randn(10, 14, V) * 2.5
    logits[:, :, 1:3] = -50
    log_probs = logits.log_softmax(-1)
    direct = backend.best_paths(log_probs, LENGTHS, graph_hg(LM), WIDE)
    lattices = backend.intersect(log_probs, LENGTHS, graph_h(), Lattice(beam=20.0, lattice_beam=8.0))
    rescored = [paths[0] for paths in lattices.rescore(token_grammar([TokenModel(LM, SYMBOLS)])).best_paths(1)]
    assert [h.tokens for h in rescored] == [h.tokens for h in direct]
    assert [h.score for h in rescored] == pytest.approx([h.score for h in direct], abs=1e-3)
    assert [h.tokens for h in rescored] != [paths[0].tokens for paths in lattices.best_paths(1)]


def test_a_union_of_languages_finds_the_language_that_suits(backend, log_probs):
    one = word_grammar(
        V, Lexicon({"a": spell(["a"]), "ab": spell(["ab"])}, {"a": spell(["a"]), "ab": spell(["ab"])}), None
    )
    other = word_grammar(V, Lexicon({"cab": spell(["cab"]), "bb": spell(["bb"])}, {}), None)
    best = [backend.best_paths(log_probs, LENGTHS, compose_graph(V, g), WIDE) for g in (one, other)]
    together = backend.best_paths(log_probs, LENGTHS, compose_graph(V, union([(one, [None]), (other, [None])])), WIDE)
    expected = [max(pair, key=lambda hypothesis: hypothesis.score) for pair in zip(*best, strict=True)]
    assert [h.tokens for h in together] == [h.tokens for h in expected]
    # A language token, here <unk>, is what such a transcript begins with.
    named = compose_graph(V, union([(one, [1]), (other, [2])]))
    assert {h.tokens[0] for h in backend.best_paths(log_probs, LENGTHS, named, WIDE)} <= {1, 2}


def test_words_after_the_first_may_be_spelled_in_another_way(backend, log_probs):
    lexicon = Lexicon({w: spell([w])[1:] for w in WORDS}, FOLLOWING)
    log_probs, lengths = log_probs[:, :12], torch.full((10,), 12)  # no room for a fourth word
    found = backend.best_paths(log_probs, lengths, graph_hl(lexicon), WIDE)
    for hypothesis, frames in zip(found, log_probs, strict=True):
        scores = {" ".join(words): best_alignment(frames, spell(words)[1:]) for words in SENTENCES}
        assert text_of(hypothesis.tokens) == max(scores, key=scores.__getitem__)
        assert hypothesis.score == pytest.approx(max(scores.values()), abs=1e-3)


def test_a_bonus_is_given_for_each_token(backend, log_probs):
    lm = estimate([[PIECES[i] for i in spell(words)] for words in TEXT], 2)
    plain = backend.best_paths(log_probs, LENGTHS, graph_hg(lm), WIDE)
    longer = backend.best_paths(log_probs, LENGTHS, graph_hg(lm, bonus=2.0), WIDE)
    assert sum(len(h.tokens) for h in longer) > sum(len(h.tokens) for h in plain)
    for before, after in zip(plain, longer, strict=True):
        assert after.score >= before.score + 2.0 * len(before.tokens) - 1e-3


def test_a_graph_survives_a_round_trip_through_a_file(backend, log_probs, tmp_path):
    graph = graph_hl(LEXICON, estimate(TEXT, 2))
    graph.save(tmp_path / "graphs" / "hlg.fst")
    again = Graph.load(tmp_path / "graphs" / "hlg.fst", V)
    first, second = (backend.best_paths(log_probs, LENGTHS, g, WIDE) for g in (graph, again))
    assert [h.tokens for h in first] == [h.tokens for h in second]


def test_a_lexicon_that_spells_with_nothing_is_refused():
    with pytest.raises(ValueError, match="the lexicon spells 'a' with no tokens"):
        graph_hl(Lexicon({"a": []}, {}))


def test_a_graph_larger_than_memory_is_given_up_with_a_clear_error(monkeypatch):
    monkeypatch.setattr("masr.decode.lattice.graph.MAX_STATES", 3)
    with pytest.raises(
        MemoryError, match="the decoding graph of 5 words grows beyond 3 states; use a smaller lexicon or LM"
    ):
        graph_hl(LEXICON, estimate(TEXT, 3))


@pytest.mark.parametrize("graph", [graph_h(compact=True), graph_hg(LM), graph_hl(LEXICON, estimate(TEXT, 3))])
def test_the_arcs_of_a_graph_without_empty_labels_are_counted_beforehand(graph):
    after = without_empty_labels(graph.fst)
    arcs = len(arcs_of(after)[0])
    assert arcs <= arcs_without_empty_labels(graph.fst) <= 2 * arcs


@pytest.mark.skipif(k2_problem() is not None, reason="k2 is not usable here")
def test_a_graph_too_large_for_k2_is_refused(monkeypatch, log_probs):
    k2 = load_backend("k2")
    monkeypatch.setattr(k2, "MAX_ARCS", 10)
    with pytest.raises(MemoryError, match="it knows no empty labels; use lattice-lm-rescoring, a smaller"):
        k2.best_paths(log_probs, LENGTHS, graph_hg(LM), WIDE)


@pytest.mark.skipif(k2_problem() is not None, reason="k2 is not usable here")
@pytest.mark.parametrize("seed", range(5))
def test_both_backends_find_the_same_paths_at_the_same_costs(seed):
    torch.manual_seed(seed)
    log_probs, lengths = (2 * torch.randn(20, 30, V)).log_softmax(-1), torch.randint(0, 31, (20,))
    for graph in (graph_h(), graph_h(compact=True), graph_hl(), graph_hl(LEXICON, estimate(TEXT, 3)), graph_hg(LM)):
        kaldi, k2 = (load_backend(name).best_paths(log_probs, lengths, graph, WIDE) for name in ("kaldi", "k2"))
        assert [h.tokens for h in kaldi] == [h.tokens for h in k2]
        assert [h.score for h in kaldi] == pytest.approx([h.score for h in k2], abs=1e-3)


def test_k2_that_is_missing_is_one_sentence_with_the_way_out(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert load_backend("auto").__name__.endswith("kaldi")
    with pytest.raises(ValueError, match=r"backend=k2: k2 is not installed; tools/install_k2.sh"):
        load_backend("k2")


@pytest.mark.parametrize(("gpu", "expected"), [(True, "k2"), (False, "kaldi")])
def test_auto_takes_k2_only_on_a_gpu(monkeypatch, gpu, expected):
    monkeypatch.setattr("masr.decode.lattice.k2_problem", lambda: None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    monkeypatch.setattr("importlib.import_module", lambda name: name)
    assert load_backend("auto") == f"masr.decode.lattice.{expected}"


def test_k2_that_does_not_work_is_one_sentence_with_the_reason(monkeypatch, tmp_path):
    (tmp_path / "k2.py").write_text("raise ImportError('k2 was built using PyTorch 1.13.1\\nBut you are using 2.13')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "k2", raising=False)
    problem = k2_problem()
    assert "k2 was built using PyTorch 1.13.1 But you are using 2.13" in problem and "tools/install_k2.sh" in problem


def test_a_lattice_that_a_grammar_refuses_altogether_stays_as_it_is(backend, log_probs):
    lattices = backend.intersect(log_probs, LENGTHS, graph_h(), Lattice())
    refused = lattices.rescore(union([(bonus_grammar([1], 0.0), [2])]))
    for before, after in zip(lattices.best_paths(1), refused.best_paths(1), strict=True):
        assert (before[0].tokens, before[0].score) == (after[0].tokens, after[0].score)


def test_the_lattice_of_noise_stays_small():
    torch.manual_seed(0)
    noise = torch.randn(1, 40, 25).log_softmax(-1)
    lattices = load_backend("kaldi").intersect(noise, torch.tensor([40]), graph_h(25), Lattice())
    assert len(arcs_of(lattices.lattices[0])[0]) <= 200 * 40
    assert len(lattices.best_paths(20)[0]) == 20


def test_a_topology_larger_than_memory_names_the_compact_one():
    with pytest.raises(MemoryError, match="of 5000 tokens has 25 million arcs; decode.lattice.topology=compact has"):
        graph_h(5000)
    assert graph_h(5000, compact=True).fst.num_states == 5000
