"""Language models by language: what they say of transcripts, and their way through a folder."""

import pytest

from masr.config import LanguageModel, Vocab
from masr.decode.language_model import estimate
from masr.decode.language_models import LanguageModels, estimate_models
from masr.text.tokenizer import train_tokenizer

TEXTS = {"es": ["una vaca y un gato", "un gato", "una vaca"], "ro": ["o pisică și un câine", "un câine"]}


@pytest.fixture(params=["char", "bpe"])
def tokenizer(request):
    return train_tokenizer(TEXTS, Vocab(kind=request.param, size=40, language_token=request.param == "bpe"))


def pieces(tokenizer, text: str, code: str) -> list[str]:
    return [tokenizer.pieces[i] for i in tokenizer.spoken(tokenizer.encode(text, code))]


def test_the_language_that_suits_best_speaks(tokenizer):
    models = estimate_models(TEXTS, tokenizer, LanguageModel(token_order=3, word_order=2))
    tokens = tokenizer.encode("un gato", "es")
    each = {
        code: estimate([pieces(tokenizer, line, code) for line in lines], 3).score(pieces(tokenizer, "un gato", "es"))
        for code, lines in TEXTS.items()
    }
    assert each["es"] > each["ro"]
    assert models.token_log_prob(tokens, ["es", "ro"]) == pytest.approx(each["es"])
    assert models.token_log_prob(tokens, ["ro"]) == pytest.approx(each["ro"])
    words = estimate([line.split() for line in TEXTS["ro"]], 2)
    assert models.word_log_prob(tokens, ["ro"]) == pytest.approx(words.score(["un", "gato"]))
    assert models.vocabulary == {"es": ["gato", "un", "una", "vaca", "y"], "ro": ["câine", "o", "pisică", "un", "și"]}


def test_one_model_of_all_languages(tokenizer):
    models = estimate_models(TEXTS, tokenizer, LanguageModel(token_order=3, word_order=2, pooled=True))
    expected = estimate([line.split() for lines in TEXTS.values() for line in lines], 2)
    tokens = tokenizer.encode("un gato", "es")
    for languages in (["es"], ["ro"], ["es", "ro"]):
        assert models.word_log_prob(tokens, languages) == pytest.approx(expected.score(["un", "gato"]))
    assert set(models.vocabulary) == {"es", "ro"}


def test_they_survive_a_round_trip_through_a_folder(tokenizer, tmp_path):
    models = estimate_models(TEXTS, tokenizer, LanguageModel())
    models.save(tmp_path / "lm")
    again = LanguageModels.load(tmp_path / "lm", tokenizer)
    for text, code in (("una vaca", "es"), ("un lup", "ro"), ("", "es")):
        tokens = tokenizer.encode(text, code)
        for languages in (["es"], ["es", "ro"]):
            assert again.token_log_prob(tokens, languages) == pytest.approx(
                models.token_log_prob(tokens, languages), abs=1e-4
            )
            assert again.word_log_prob(tokens, languages) == pytest.approx(
                models.word_log_prob(tokens, languages), abs=1e-4
            )
    assert again.vocabulary == models.vocabulary


def test_models_of_another_vocabulary_are_refused(tokenizer, tmp_path):
    estimate_models(TEXTS, tokenizer, LanguageModel()).save(tmp_path / "lm")
    other = train_tokenizer({"es": ["otra"]}, Vocab())
    with pytest.raises(ValueError, match="of another vocabulary; make them again: `masr lm`"):
        LanguageModels.load(tmp_path / "lm", other)
    with pytest.raises(FileNotFoundError, match="holds no language models: make them with `masr lm`"):
        LanguageModels.load(tmp_path / "nowhere", tokenizer)
