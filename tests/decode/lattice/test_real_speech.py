"""Graphs and lattices of the shipped model on its corpus: the posteriors, words and n-grams that users decode with."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import soundfile
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from masr.config import Lattice
from masr.data.features import log_mel_of
from masr.decode.greedy import ctc_greedy
from masr.decode.language_models import LanguageModels
from masr.decode.lattice import k2_problem, load_backend
from masr.decode.lattice.graphs import Graphs
from masr.models.folder import load_model

RECIPE = Path(__file__).parents[3] / "egs/freevoices"
LANGUAGES = ["da", "el"]
OPTIONS = Lattice(beam=14.0, lattice_beam=8.0, max_active=7000)


@dataclass
class Heard:
    log_probs: Tensor
    lengths: Tensor
    graphs: Graphs


@pytest.fixture(scope="module")
def heard() -> Heard:
    """Posteriors (B, S, V) of six test recordings in two languages, and the graphs of these languages."""
    model = load_model(RECIPE / "model", "cpu")
    log_mel = log_mel_of(model.config.features)
    features = [torch.from_numpy(log_mel(_samples(row))) for code in LANGUAGES for row in _test_rows(code)]
    lengths = torch.tensor([len(frames) for frames in features])
    with torch.no_grad():
        encoded = model.encode(pad_sequence(features, batch_first=True), lengths)
        log_probs, ctc_lengths = model.ctc.log_probs(encoded.frames, encoded.lengths)
    models = LanguageModels.load(RECIPE / "model/lm/ngrams", model.tokenizer)
    return Heard(log_probs, ctc_lengths, Graphs(model.tokenizer, models, OPTIONS))


def _test_rows(code: str) -> list[dict]:
    """The shortest, the middle and the longest."""
    rows = [json.loads(line) for line in (RECIPE / "corpus/manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["language"] == code and row["split"] == "test"]
    rows.sort(key=lambda row: row["duration"])
    return [rows[0], rows[len(rows) // 2], rows[-1]]


def _samples(row: dict):
    start, stop = (round(seconds * 16000) for seconds in (row["start"], row["start"] + row["duration"]))
    return soundfile.read(RECIPE / "corpus" / row["audio"], start=start, stop=stop, dtype="float32")[0]


@pytest.fixture(params=["kaldi", "k2"])
def backend(request):
    if request.param == "k2" and (problem := k2_problem()):
        pytest.skip(problem)
    return load_backend(request.param)


@pytest.mark.parametrize("compact", [False, True])
def test_h_alone_is_the_greedy_collapse(backend, heard, compact):
    topology = "compact" if compact else "standard"
    graph = Graphs(heard.graphs.tokenizer, None, Lattice(topology=topology)).get("h", LANGUAGES)
    found = backend.best_paths(heard.log_probs, heard.lengths, graph, OPTIONS)
    greedy = [best[0].tokens for best in ctc_greedy(heard.log_probs, heard.lengths)]
    assert [hypothesis.tokens for hypothesis in found] == greedy


@pytest.mark.parametrize("kind", ["hl", "hlg", "hg"])
def test_the_best_path_of_the_lattice_is_that_of_the_search(backend, heard, kind):
    graph = heard.graphs.get(kind, LANGUAGES, 0.5)
    best = backend.best_paths(heard.log_probs, heard.lengths, graph, OPTIONS)
    lattices = backend.intersect(heard.log_probs, heard.lengths, graph, OPTIONS)
    for one, paths in zip(best, lattices.best_paths(10), strict=True):
        assert one.tokens == paths[0].tokens
        assert one.score == pytest.approx(paths[0].score, abs=0.01)
        assert len({tuple(path.tokens) for path in paths}) == len(paths)


def test_words_of_hl_are_words_of_the_lexicon_unless_they_are_dear(backend, heard):
    dear = Graphs(heard.graphs.tokenizer, heard.graphs.models, Lattice(unknown_cost=1e4))
    known = {word for code in LANGUAGES for word in dear.models.vocabulary[code]}
    for hypothesis in backend.best_paths(heard.log_probs, heard.lengths, dear.get("hl", LANGUAGES), OPTIONS):
        assert hypothesis.tokens
        assert set(dear.tokenizer.decode(hypothesis.tokens).split()) <= known


@pytest.mark.skipif(k2_problem() is not None, reason="k2 is not usable here")
@pytest.mark.parametrize("kind", ["h", "hl", "hlg", "hg"])
def test_both_backends_find_the_same_paths_at_the_same_costs(heard, kind):
    graph = heard.graphs.get(kind, LANGUAGES, 0.5)
    given = heard.log_probs, heard.lengths, graph, OPTIONS
    kaldi, k2 = (load_backend(name).best_paths(*given) for name in ("kaldi", "k2"))
    assert [h.tokens for h in kaldi] == [h.tokens for h in k2]
    assert [h.score for h in kaldi] == pytest.approx([h.score for h in k2], abs=1e-3)
    lattices = [load_backend(name).intersect(*given).best_paths(10) for name in ("kaldi", "k2")]
    for ours, theirs in zip(*lattices, strict=True):
        assert [h.score for h in ours] == pytest.approx([h.score for h in theirs], abs=1e-3)
