"""A tiny model with random weights, and two seconds of speech."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny_model import DECODE, MODEL

import masr
from masr.config import Config, Vocab
from masr.models.folder import save_model
from masr.models.recognizer import Recognizer
from masr.recognize import SpeechRecognizer
from masr.text.tokenizer import train_tokenizer

CORPUS = Path(__file__).parents[2] / "egs/freevoices/corpus"
RATE = 16000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder; its weights are large, so that what it says changes from frame to frame."""
    config = Config(name="tiny", model=MODEL, decode=DECODE)
    texts = {"el": ["μια γάτα και μια αγελάδα"] * 9, "es": ["una vaca y un gato"] * 9}
    tokenizer = train_tokenizer(texts, Vocab(kind="bpe", size=40, language_token=True))
    torch.manual_seed(5)
    model = Recognizer(config, tokenizer)
    model.set_statistics(torch.full((80,), -8.0), torch.full((80,), 3.0))
    for module, factor in ((model.encoder, 2), (model.ctc, 8)):
        for parameter in module.parameters():
            parameter.data *= factor
    path = tmp_path_factory.mktemp("model")
    save_model(path, model)
    return path


@pytest.fixture(scope="module")
def recognizer(folder: Path) -> SpeechRecognizer:
    return masr.load(str(folder), methods=["ctc-greedy"])


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """(S,) two seconds of Czech."""
    return soundfile.read(CORPUS / "fillets_cs.opus", frames=2 * RATE, dtype="float32")[0]
