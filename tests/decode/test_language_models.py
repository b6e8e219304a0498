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
    tokens = tokenizer.encode("un", "es")
    spanish, romanian = (
        estimate([pieces(tokenizer, line, code) for line in TEXTS[code]], 3).score(pieces(tokenizer, "un", "es"))
        for code in ("es", "ro")
    )
    assert spanish > romanian
    words = {code: estimate([line.split() for line in TEXTS[code]], 2).score(["un"]) for code in TEXTS}
    assert models.score([tokens], ["es", "ro"]) == [("es", pytest.approx(spanish), pytest.approx(words["es"]))]
    assert models.score([tokens], ["ro"]) == [("ro", pytest.approx(romanian), pytest.approx(words["ro"]))]
    assert models.vocabulary == {"es": ["gato", "un", "una", "vaca", "y"], "ro": ["câine", "o", "pisică", "un", "și"]}


def test_a_language_speaks_only_for_tokens_that_it_uses(tokenizer):
    models = estimate_models(TEXTS, tokenizer, LanguageModel())
    tokens = tokenizer.encode("un câine", "ro")
    assert not set(tokens) <= set(tokenizer.usable(["es"]))
    assert models.score([tokens], ["es", "ro"])[0].language == "ro"
    [foreign] = models.score([tokens], ["es"])  # nobody uses all of them: all speak
    assert foreign.language == "es" and foreign.token > -1000


def test_many_transcripts_are_scored_as_one_by_one(tokenizer):
    models = estimate_models(TEXTS, tokenizer, LanguageModel(token_order=3))
    transcripts = [tokenizer.encode(text, "es") for text in ("un gato", "un", "", "una vaca", "un gato y", "un gato")]
    together = models.score(transcripts, ["es", "ro"])
    assert together == [models.score([tokens], ["es", "ro"])[0] for tokens in transcripts]


def test_one_model_of_all_languages(tokenizer):
    models = estimate_models(TEXTS, tokenizer, LanguageModel(token_order=3, word_order=2, pooled=True))
    expected = estimate([line.split() for lines in TEXTS.values() for line in lines], 2).score(["un", "gato"])
    tokens = tokenizer.encode("un gato", "es")
    for languages in (["es"], ["ro"], ["es", "ro"]):
        [score] = models.score([tokens], languages)
        assert score.language is None
        assert score.word == pytest.approx(expected)
    assert set(models.vocabulary) == {"es", "ro"}


def test_they_survive_a_round_trip_through_a_folder(tokenizer, tmp_path):
    models = estimate_models(TEXTS, tokenizer, LanguageModel())
    models.save(tmp_path / "lm")
    again = LanguageModels.load(tmp_path / "lm", tokenizer)
    transcripts = [tokenizer.encode(text, code) for text, code in (("una vaca", "es"), ("un lup", "ro"), ("", "es"))]
    for languages in (["es"], ["es", "ro"]):
        for before, after in zip(
            models.score(transcripts, languages), again.score(transcripts, languages), strict=True
        ):
            assert after == (
                before.language,
                pytest.approx(before.token, abs=1e-4),
                pytest.approx(before.word, abs=1e-4),
            )
    assert again.vocabulary == models.vocabulary


def test_models_of_another_vocabulary_are_refused(tokenizer, tmp_path):
    estimate_models(TEXTS, tokenizer, LanguageModel()).save(tmp_path / "lm")
    other = train_tokenizer({"es": ["otra"]}, Vocab())
    with pytest.raises(ValueError, match="of another vocabulary; make them again: `masr lm`"):
        LanguageModels.load(tmp_path / "lm", other)
    with pytest.raises(FileNotFoundError, match="holds no language models: make them with `masr lm`"):
        LanguageModels.load(tmp_path / "nowhere", tokenizer)
