"""The language models of the training text: which are made, when they are redone, and what a trained folder gets."""

import pytest

from masr.config import Vocab
from masr.decode.language_models import LanguageModels
from masr.models.searcher import load_neural
from masr.stages import lm
from masr.stages.vocab import load_tokenizer
from masr.text.tokenizer import train_tokenizer

NGRAMS = ["decode.methods=[nbest-lm-rescoring]", "language_model.token_order=3"]
NEURAL = ["decode.methods=[neural-lm-rescoring]", "language_model.neural_width=8", "language_model.neural_epochs=2"]


def test_only_what_the_methods_need_is_made(ready, capsys):
    lm.run(ready.config())
    assert not (ready.folder / "data/lm").exists()
    lm.run(ready.config(*NGRAMS))
    assert {path.name for path in (ready.folder / "data/lm/char").iterdir()} == {"ngrams"}
    printed = capsys.readouterr().out
    assert "lm: es: dev perplexity " in printed and "of its words are unknown" in printed
    lm.run(ready.config(*NGRAMS))
    assert "lm: complete in data/lm/char/ngrams" in capsys.readouterr().out
    lm.run(ready.config(*NGRAMS, "language_model.word_order=2"))
    assert "lm: es: dev perplexity" in capsys.readouterr().out
    lm.run(ready.config(*NEURAL))
    assert "lm: neural model: dev perplexity " in capsys.readouterr().out


def test_the_neural_model_is_the_same_from_its_file(ready):
    config = ready.config(*NEURAL)
    lm.run(config)
    tokenizer = load_tokenizer(config)
    path = lm.lm_folder(config, "neural") / "neural.safetensors"
    model = load_neural(path, tokenizer)
    sentences = [tokenizer.encode("un pato", "es"), [], tokenizer.encode("pato", "es")]
    together = model.log_probs(sentences)
    assert together == pytest.approx([model.log_probs([sentence])[0] for sentence in sentences], abs=1e-4)
    assert all(log_prob < 0 for log_prob in together)
    with pytest.raises(ValueError, match="is a model of another vocabulary; run `masr lm` again"):
        load_neural(path, train_tokenizer({"es": ["pato"]}, Vocab()))
    with pytest.raises(FileNotFoundError, match="make it with `masr lm`"):
        load_neural(path.with_name("missing"), tokenizer)


def test_a_trained_folder_gets_the_models_of_its_methods(trained):
    config = trained.config(*NGRAMS)
    lm.run(config)
    lm.copy_to(trained.folder / "exp/small", config)
    names = {path.name for path in (trained.folder / "exp/small/lm/ngrams").iterdir()}
    assert names == {"es.tokens.arpa.gz", "es.words.arpa.gz", "es.txt", "lm.json"}


@pytest.mark.parametrize("name", ["es.tokens.arpa.gz", "es.words.arpa.gz", "lm.json"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe garbage", "half"])
def test_a_damaged_file_is_named_with_the_way_out(ready, name, content):
    config = ready.config(*NGRAMS)
    lm.run(config)
    path = lm.lm_folder(config, "ngrams") / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(ValueError, match=rf"{name}.*(damaged|cut off|make it again)"):
        LanguageModels.load(path.parent, load_tokenizer(config))
