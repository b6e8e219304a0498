"""Translation decoders. B utterances, T frames, U tokens, V vocabulary, E encoder width."""

import pytest
import torch

from masr.config import Translation
from masr.nn.translation import Translator

V, E, SOS_EOS = 11, 8, 2
LANGUAGES = ["cs", "nl", "ru"]
OPTIONS = {"weight": 1.0, "layers": 1, "width": 8, "heads": 2, "feedforward": 12, "dropout": 0.0}


@pytest.fixture(params=[False, True], ids=["shared", "per-language"])
def translator(request):
    torch.manual_seed(0)
    options = Translation(per_language=request.param, encoder_layers=1, **OPTIONS)
    return Translator(V, E, options, LANGUAGES, SOS_EOS).eval()


def speech():
    torch.manual_seed(1)
    ids = torch.tensor([[3, 4, 5], [6, 7, 0], [0, 0, 0], [8, 0, 0]])
    return torch.randn(4, 9, E), torch.tensor([9, 5, 7, 3]), ids, torch.tensor([3, 2, 0, 1]), ["nl", "cs", "nl", "cs"]


def test_alone_as_in_a_batch_and_nothing_for_what_has_no_translation(translator):
    frames, lengths, ids, id_lengths, languages = speech()
    losses = translator.loss(frames, lengths, ids, id_lengths, languages)
    assert losses[2] == 0 and (losses[[0, 1, 3]] > 1).all()
    for row in (0, 1, 3):
        alone = translator.loss(
            frames[row : row + 1, : lengths[row]], lengths[row : row + 1], ids[row : row + 1, : id_lengths[row]],
            id_lengths[row : row + 1], languages[row : row + 1],
        )  # fmt: skip
        assert torch.allclose(alone[0], losses[row], atol=1e-5)


def test_every_parameter_gets_a_gradient_whatever_is_spoken(translator):
    translator.loss(*speech()).sum().backward()
    assert all(parameter.grad is not None for parameter in translator.parameters())
    if "ru" in translator.parts:
        assert not any(parameter.grad.any() for parameter in translator.parts["ru"].parameters())
        assert any(parameter.grad.any() for parameter in translator.parts["cs"].parameters())


def test_silence_has_zero_gradients(translator):
    """What a process without a share of an update works on."""
    frames, lengths, ids = torch.zeros(1, 4, E), torch.tensor([4]), torch.zeros(1, 0, dtype=torch.long)
    translator.loss(frames, lengths, ids, torch.tensor([0]), []).sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in translator.parameters())


def test_in_half_of_the_precision(translator):
    expected = translator.loss(*speech())
    with torch.autocast("cpu", torch.bfloat16):
        found = translator.loss(*speech())
        frames, *others = speech()
        assert torch.allclose(translator.loss(frames.bfloat16(), *others), expected, rtol=0.1)
    assert found.dtype == torch.float32 and torch.allclose(found, expected, rtol=0.1)
