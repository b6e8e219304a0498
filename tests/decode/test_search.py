"""All methods on one small model: settings, languages that are not allowed, words to expect."""

import pytest
import torch

from masr.config import Config, Decode, LanguageModel, Vocab
from masr.decode.language_models import estimate_models
from masr.decode.search import METHODS, Searcher, check_methods
from masr.decode.utterances import Utterances, utterances_of
from masr.models.recognizer import Recognizer
from masr.nn.language_model import LSTMLanguageModel
from masr.text.tokenizer import START_END, train_tokenizer
from masr.vocab.tree import balanced

TEXTS = {"el": ["μια γάτα", "και μια αγελάδα"], "es": ["una vaca", "y un gato"], "ro": ["o vacă", "un câine"]}
MODEL = {
    "encoder": {"layers": 1, "width": 16, "heads": 2, "feedforward": 16, "kernel": 3, "subsampling_channels": 4},
    "attention_decoder": {"weight": 0.3, "layers": 1, "width": 8, "heads": 2, "feedforward": 8},
}
TRANSCRIBING = [name for name, method in METHODS.items() if not (method.translates or method.whisper)]
FAST = {"beam": 3, "lattice": {"lattice_beam": 2.0, "beam": 6.0}, "rescoring": {"candidates": 5}}


@pytest.fixture(scope="module", params=["", "language token", "tree", "by language"])
def model(request) -> Recognizer:
    torch.manual_seed(0)
    tokenizer = train_tokenizer(TEXTS, Vocab(language_token=request.param == "language token"))
    tree = balanced(tokenizer.pieces, seed=1) if request.param == "tree" else None
    options = MODEL | {"ctc": {"hierarchical": tree is not None, "per_language": request.param == "by language"}}
    config = Config.model_validate({"name": "x", "features": {"mel_bins": 20}, "model": options})
    model = Recognizer(config, tokenizer, tree)
    for parameter in model.ctc.parameters():
        parameter.data *= 4
    return model.eval()


def build(model: Recognizer, **options) -> Searcher:
    ngrams = estimate_models(TEXTS, model.tokenizer, LanguageModel(token_order=3, word_order=2))
    neural = LSTMLanguageModel(len(model.tokenizer), 8, 1, 0.0, START_END).eval()
    return Searcher(model, Decode.model_validate(FAST | options), ngrams, neural)


def hear(model: Recognizer, allowed: list[list[bool]]) -> Utterances:
    features = torch.randn(len(allowed), 60, 20, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        encoded = model.encode(features, torch.tensor([60, 48, 52][: len(allowed)]))
        return utterances_of(model, encoded, torch.tensor(allowed))


@pytest.mark.parametrize("method", TRANSCRIBING)
def test_only_tokens_of_the_allowed_languages_are_written(model, method):
    searcher, settings = build(model), METHODS[method].scales(Decode())[-1:]
    allowed = [[True, False, False], [False, True, True], [True, True, True]]
    [found] = searcher(method, hear(model, allowed), settings)
    for nbest, codes in zip(found, (["el"], ["es", "ro"], ["el", "es", "ro"]), strict=True):
        usable = set(model.tokenizer.usable(codes))
        assert all(set(hypothesis.tokens) <= usable for hypothesis in nbest)
    [alone] = searcher(method, hear(model, allowed[:1]), settings)
    assert [h.tokens for h in alone[0]] == [h.tokens for h in found[0]]


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if len(method.scales(Decode())) > 1])
def test_a_list_of_settings_gives_what_each_gives_alone(model, method):
    searcher, utterances = build(model, n_best=2), hear(model, [[True] * 3] * 2)
    settings = METHODS[method].scales(Decode())[:3]
    together = searcher(method, utterances, settings)
    for setting, result in zip(settings, together, strict=True):
        [alone] = searcher(method, utterances, [setting])
        assert [[(h.tokens, h.text) for h in nbest] for nbest in alone] == [
            [(h.tokens, h.text) for h in nbest] for nbest in result
        ]


@pytest.mark.parametrize("method", ["nbest-lm-rescoring", "neural-lm-rescoring", "attention-rescoring"])
def test_scales_of_zero_leave_the_first_pass_as_it_is(model, method):
    searcher, utterances = build(model, beam=5), hear(model, [[True] * 3] * 2)
    zero = METHODS[method].scales(Decode())[0]
    assert set(zero.values()) == {0.0}
    [rescored], [plain] = searcher(method, utterances, [zero]), searcher("ctc-prefix-beam", utterances)
    assert [nbest[0].tokens for nbest in rescored] == [nbest[0].tokens for nbest in plain]


def test_a_lattice_rescored_with_nothing_has_the_best_path_of_h(model):
    searcher, utterances = build(model), hear(model, [[True] * 3] * 2)
    zero = METHODS["lattice-lm-rescoring"].scales(Decode())[0]
    [rescored], [plain] = searcher("lattice-lm-rescoring", utterances, [zero]), searcher("lattice-h", utterances)
    assert [nbest[0].tokens for nbest in rescored] == [nbest[0].tokens for nbest in plain]


@pytest.mark.parametrize("method", ["ctc-prefix-beam", "lattice-h", "nbest-lm-rescoring"])
def test_words_to_expect_are_found_more_often(model, method, tmp_path, monkeypatch):
    monkeypatch.setattr("masr.decode.lattice.kaldi.MAX_ARCS_A_FRAME", 10**6)  # this model is sure of nothing
    (tmp_path / "words.txt").write_text("gato\n")
    utterances = hear(model, [[True] * 3] * 3)
    setting = METHODS[method].scales(Decode())[0]
    wide = {"beam": 20, "lattice": {"lattice_beam": 12.0, "beam": 20.0}, "rescoring": {"candidates": 20}}
    [plain] = build(model, **wide)(method, utterances, [setting])
    biased = build(model, bias_file=str(tmp_path / "words.txt"), bias_boost=8.0, **wide)
    [found] = biased(method, utterances, [setting])
    earned = [biased.biasing.score(nbest[0].tokens) for nbest in found]
    before = [biased.biasing.score(nbest[0].tokens) for nbest in plain]
    assert sum(earned) >= sum(before)
    assert [h.tokens for nbest in found for h in nbest] != [h.tokens for nbest in plain for h in nbest]


def test_words_to_expect_that_no_method_heeds_are_refused(model, tmp_path):
    with pytest.raises(ValueError, match="bias_file: ctc-greedy, joint-beam knows no words to expect; use"):
        check_methods(Decode(methods=["ctc-greedy", "joint-beam"], bias_file="words.txt"), model)
    check_methods(Decode(methods=["ctc-greedy", "lattice-h"], bias_file="words.txt"), model)


@pytest.mark.parametrize("method", ["lattice-hl", "lattice-hg", "lattice-hlg", "lattice-lm-rescoring"])
def test_searches_with_language_models_name_the_language(model, method):
    searcher, settings = build(model), METHODS[method].scales(Decode())[-1:]
    [found] = searcher(method, hear(model, [[False, True, False], [True, True, True]]), settings)
    assert found[0][0].language == "es"
    assert found[1][0].language in TEXTS


def test_posteriors_that_are_not_numbers_are_refused(model):
    encoded = model.encode(torch.full((1, 60, 20), torch.nan), torch.tensor([60]))
    with pytest.raises(ValueError, match="posteriors are NaN: its weights or the features are damaged"):
        utterances_of(model, encoded, torch.ones(1, 3, dtype=torch.bool))


@pytest.mark.parametrize("method", ["attention-beam", "joint-beam"])
@pytest.mark.parametrize("allowed", [[True] * 3, [False, True, True]], ids=["all", "a prompt"])
def test_searches_down_a_tree(model, method, allowed):
    """What best-first leaves out, no search without CTC would take; greedy is another search, that finds something.

    This decoder has not learnt to end: every transcript reaches the longest length.
    """
    utterances = hear(model, [allowed] * 3)
    [expected] = build(model)(method, utterances, [{}])
    for kind in ("best-first", "greedy"):
        searcher = build(model, tree_search=kind)
        if model.tree is None:
            with pytest.raises(ValueError, match=f"decode.tree_search={kind}: this model has no tree"):
                check_methods(searcher.options, model)
            continue
        [found] = searcher(method, utterances, [{}])
        if method == "attention-beam" and (kind == "best-first" or not all(allowed)):
            assert [h.tokens for nbest in found for h in nbest] == [h.tokens for nbest in expected for h in nbest]
        assert all(nbest[0].score > -torch.inf for nbest in found)
