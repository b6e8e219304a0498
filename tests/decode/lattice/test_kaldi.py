"""Graphs and lattices on miniature vocabularies, against brute force over every sentence.

V tokens: blank, <unk>, <sos/eos>, the space's own piece, a, b, c.
"""

import itertools
import math

import pytest
import torch
from torch import Tensor

from masr.decode.greedy import ctc_greedy
from masr.decode.language_model import NGram, estimate
from masr.decode.lattice import kaldi
from masr.decode.lattice.graph import Lexicon, compile_graph, token_grammar

PIECES = ["<blank>", "<unk>", "<sos/eos>", "▁", "a", "b", "c"]
V = len(PIECES)
WIDE = kaldi.Pruning(beam=60.0, max_active=100_000)
WORDS = ["a", "ab", "cab", "bb"]
TEXT = [["a", "ab"], ["cab"], ["bb", "a"], ["a", "ab", "cab"], ["ab"]]
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
LEXICON = Lexicon({word: spell([word]) for word in WORDS})


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
def test_h_alone_is_the_greedy_collapse_also_on_tokens_of_several_frames(compact, seed):
    torch.manual_seed(seed)
    logits = torch.randn(40, 8, 5).repeat_interleave(2, dim=1) + 0.3 * torch.randn(40, 16, 5)
    log_probs, lengths = logits.mul(2).log_softmax(-1), torch.randint(0, 17, (40,))
    found = kaldi.best_paths(log_probs, lengths, compile_graph(5, compact=compact), WIDE)
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
def test_words_of_a_lexicon_are_found_as_by_brute_force(log_probs, lm: NGram | None, scale):
    graph = compile_graph(V, LEXICON, lm, lm_scale=scale)
    for hypothesis, frames in zip(kaldi.best_paths(log_probs, LENGTHS, graph, WIDE), log_probs, strict=True):
        scores = {
            " ".join(words): best_alignment(frames, spell(words)) + (scale * lm.score(words) if lm else 0.0)
            for words in SENTENCES
        }
        assert text_of(hypothesis.tokens) == max(scores, key=scores.__getitem__)
        # Backing off costs what it costs, but a path may back off where the n-gram is known: never dearer.
        assert hypothesis.score == pytest.approx(max(scores.values()), abs=1e-2)


def test_a_language_model_of_scale_zero_is_none(log_probs):
    plain = kaldi.best_paths(log_probs, LENGTHS, compile_graph(V, LEXICON), WIDE)
    zero = kaldi.best_paths(log_probs, LENGTHS, compile_graph(V, LEXICON, estimate(TEXT, 1), lm_scale=0.0), WIDE)
    assert [h.tokens for h in plain] == [h.tokens for h in zero]
    assert [h.score for h in plain] == pytest.approx([h.score for h in zero], abs=1e-4)


def test_unknown_words_are_spelled_at_their_price(log_probs):
    open_lexicon = Lexicon(LEXICON.words, word_starts=[3], inside=[4, 5, 6], unknown_cost=0.0)
    dear = Lexicon(LEXICON.words, word_starts=[3], inside=[4, 5, 6], unknown_cost=100.0)
    spelled = kaldi.best_paths(log_probs, LENGTHS, compile_graph(V, open_lexicon), WIDE)
    known = kaldi.best_paths(log_probs, LENGTHS, compile_graph(V, dear), WIDE)
    closed = kaldi.best_paths(log_probs, LENGTHS, compile_graph(V, LEXICON), WIDE)
    assert [h.tokens for h in known] == [h.tokens for h in closed]
    assert any(not set(text_of(h.tokens).split()) <= set(WORDS) for h in spelled)
    assert all(a.score >= b.score - 1e-4 for a, b in zip(spelled, closed, strict=True))


def test_the_paths_of_a_lattice_are_different_transcripts_with_their_best_alignments(log_probs):
    lattices = kaldi.intersect(
        log_probs, LENGTHS, compile_graph(V, LEXICON), kaldi.Pruning(beam=30.0, lattice_beam=6.0)
    )
    best = kaldi.best_paths(log_probs, LENGTHS, compile_graph(V, LEXICON), WIDE)
    for paths, first, frames in zip(lattices.best_paths(5), best, log_probs, strict=True):
        assert paths[0].tokens == first.tokens
        assert len({tuple(path.tokens) for path in paths}) == len(paths)
        assert [path.score for path in paths] == sorted((path.score for path in paths), reverse=True)
        for path in paths:
            assert path.score == pytest.approx(best_alignment(frames, path.tokens), abs=1e-3)


def test_no_frames_and_no_path():
    graph = compile_graph(V, LEXICON)
    nothing = torch.zeros(1, 0, V)
    assert kaldi.best_paths(nothing, torch.tensor([0]), graph, WIDE)[0].tokens == []
    assert kaldi.intersect(nothing, torch.tensor([0]), graph, WIDE).best_paths(3)[0][0].tokens == []
    # Two frames hold the beginning of "cab", and what goes on after it cannot end here.
    frames = torch.full((1, 2, V), -50.0)
    frames[0, 0, 3] = frames[0, 1, 6] = 0.0
    narrow = compile_graph(V, Lexicon({"cab": spell(["cab"])}))
    frames[:, :, 0] = -math.inf  # else the empty transcript is always a path
    [found] = kaldi.best_paths(frames, torch.tensor([2]), narrow, kaldi.Pruning(beam=1.0))
    [[path]] = kaldi.intersect(frames, torch.tensor([2]), narrow, kaldi.Pruning(beam=1.0)).best_paths(1)
    for lost in (found, path):
        assert lost.tokens == [] and lost.score == -math.inf


def test_a_graph_of_other_tokens_is_refused():
    with pytest.raises(ValueError, match="the graph has 7 tokens, the model 9: compile it again"):
        kaldi.best_paths(torch.zeros(1, 2, 9), torch.tensor([2]), compile_graph(V), WIDE)


def test_a_rescored_lattice_has_the_best_path_of_the_graph_that_holds_the_model():
    torch.manual_seed(0)
    logits = torch.randn(10, 14, V) * 2.5
    logits[:, :, 1:3] = -50
    log_probs, lm = logits.log_softmax(-1), estimate([[c for word in line for c in f"▁{word}"] for line in TEXT], 3)
    direct = kaldi.best_paths(log_probs, LENGTHS, compile_graph(V, lm=lm, pieces=PIECES), WIDE)
    lattices = kaldi.intersect(log_probs, LENGTHS, compile_graph(V), kaldi.Pruning(beam=20.0, lattice_beam=8.0))
    rescored = [paths[0] for paths in lattices.rescore(token_grammar(lm, PIECES)).best_paths(1)]
    assert [h.tokens for h in rescored] == [h.tokens for h in direct]
    assert [h.score for h in rescored] == pytest.approx([h.score for h in direct], abs=1e-3)
    assert [h.tokens for h in rescored] != [paths[0].tokens for paths in lattices.best_paths(1)]
