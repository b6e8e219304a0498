"""Language adapters: mixing, prompts, summary vectors. B batch, T frames, F mel bins, D width, K languages."""

import pytest
import torch
from torch.nn import functional as F

from masr.config import Encoder as Options
from masr.nn.conformer import ConformerBlock
from masr.nn.depthwise import Memory
from masr.nn.encoder import PIECE, Encoder
from masr.nn.summary_adapters import MixedAdapters

MELS, WIDTH = 12, 16
LANGUAGES = ["be", "cs", "nl", "ru"]
SIZES = {"layers": 3, "width": WIDTH, "heads": 2, "feedforward": 24, "kernel": 5, "subsampling_channels": 16}
LEARNT = [("conformer", "summary"), ("conformer", "mean"), ("conformer", "frame"), ("mamba", "summary")]
KINDS = [*LEARNT, ("conformer", "sum"), ("conformer", "average"), ("mamba", "frame")]
LENGTHS = torch.tensor([40, 17, 25])


def encoder(kind: str = "conformer", weights: str = "summary", random: bool = True, **changes) -> Encoder:
    torch.manual_seed(0)
    mine = {"layers": [1, 3], "bottleneck": 4, "weights": weights} | changes
    model = Encoder(MELS, Options(type=kind, **SIZES, language_adapters=mine), (2,), LANGUAGES)
    if random:
        torch.manual_seed(1)
        for parameter in model.language_adapters.parameters():
            parameter.data.normal_(std=0.5)
    return model.eval()


def plain(kind: str) -> Encoder:
    torch.manual_seed(0)
    return Encoder(MELS, Options(type=kind, **SIZES), (2,)).eval()


def speech() -> torch.Tensor:
    return torch.randn(3, 40, MELS, generator=torch.Generator().manual_seed(2))


def prompt(*rows: str) -> torch.Tensor:
    """One row of languages for each utterance, e.g. ``"be cs"``."""
    return torch.tensor([[code in row.split() for code in LANGUAGES] for row in rows])


def test_a_mixture_is_the_weighted_sum_of_the_adapters():
    torch.manual_seed(0)
    adapters = MixedAdapters(6, 3, 4).double()
    for parameter in adapters.parameters():
        parameter.data.normal_()
    hidden, weights = torch.randn(2, 5, 6).double(), torch.rand(2, 1, 4).double()
    expected = torch.zeros_like(hidden)
    for k in range(4):
        inner = torch.relu(F.layer_norm(hidden, (6,)) @ adapters.down[k].T + adapters.down_bias[k])
        expected += weights[..., k : k + 1] * (inner @ adapters.up[k] + adapters.up_bias[k])
    assert torch.allclose(adapters(hidden, weights), expected)
    assert torch.allclose(adapters.eval()(hidden, weights), expected)


def test_adapters_without_weight_do_not_run():
    adapters = MixedAdapters(6, 3, 4).eval()
    for parameter in adapters.parameters():
        parameter.data.normal_()
        parameter.data[[0, 3]] = torch.nan
    assert adapters(torch.randn(2, 5, 6), torch.tensor([[[0.0, 1, 0, 0]], [[0, 0.5, 0.5, 0]]])).isfinite().all()


@pytest.mark.parametrize(("kind", "weights"), LEARNT)
def test_weights_sum_to_one_over_the_prompt_and_are_zero_elsewhere(kind, weights):
    allowed = prompt("be cs nl ru", "cs ru", "nl")
    output = encoder(kind, weights)(speech(), LENGTHS, allowed)
    assert torch.allclose(output.language_weights.sum(1), torch.ones(3))
    assert (output.language_weights[~allowed] == 0).all() and (output.language_weights[allowed] > 0).all()
    assert output.language_weights[2].tolist() == [0, 0, 1, 0]


def test_weights_that_follow_from_the_prompt_alone():
    allowed = prompt("be cs nl ru", "cs ru", "nl")
    assert torch.equal(encoder(weights="sum")(speech(), LENGTHS, allowed).language_weights, allowed.float())
    average = encoder(weights="average")(speech(), LENGTHS, allowed)
    assert torch.allclose(average.language_weights[1], torch.tensor([0, 0.5, 0, 0.5]))
    assert average.language_logits is None


@pytest.mark.parametrize(("kind", "weights"), KINDS)
def test_other_languages_do_not_matter_in_a_prompt_of_one(kind, weights):
    model, allowed = encoder(kind, weights), prompt("cs", "cs", "cs")
    expected = model(speech(), LENGTHS, allowed).frames
    for parameter in model.language_adapters.adapters.parameters():
        parameter.data[[0, 2, 3]] = torch.randn_like(parameter[[0, 2, 3]])
    assert torch.equal(model(speech(), LENGTHS, allowed).frames, expected)
    model.language_adapters.adapters["3"].up.data[1] += 1
    assert not torch.allclose(model(speech(), LENGTHS, allowed).frames, expected)


@pytest.mark.parametrize(("kind", "weights"), KINDS)
def test_padding_changes_nothing(kind, weights):
    model, allowed = encoder(kind, weights), prompt("be cs nl ru", "cs ru", "nl be")
    together = model(speech(), LENGTHS, allowed)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = model(speech()[row : row + 1, :length], LENGTHS[row : row + 1], allowed[row : row + 1])
        real = alone.frames.shape[1]
        assert torch.allclose(alone.frames[0], together.frames[row, :real], atol=1e-5)
        assert torch.allclose(alone.language_weights[0], together.language_weights[row], atol=1e-5)
        assert torch.allclose(alone.intermediate[0][0], together.intermediate[0][row, :real], atol=1e-5)
        for one, other in zip(alone.layer_language_logits, together.layer_language_logits, strict=True):
            assert torch.allclose(one[0], other[row], atol=1e-5)


@pytest.mark.parametrize(("kind", "weights"), KINDS)
def test_new_adapters_change_nothing(kind, weights):
    model = encoder(kind, weights, random=False, prompt_vectors=True)
    model.load_state_dict(plain(kind).state_dict(), strict=False)
    with_adapters, without = model(speech(), LENGTHS), plain(kind)(speech(), LENGTHS)
    # Products of matrices with one row more may be rounded otherwise.
    assert torch.allclose(with_adapters.frames, without.frames, atol=1e-6)
    assert torch.allclose(with_adapters.intermediate[0], without.intermediate[0], atol=1e-6)
    if model.language_adapters.prefix == 0:
        assert torch.equal(with_adapters.frames, without.frames)


def test_a_summary_that_is_heard_changes_frames_through_attention_alone():
    model = encoder(summary_heard=True)
    before = model(speech(), LENGTHS).frames
    model.language_adapters.summary.data += 1
    assert not torch.allclose(model(speech(), LENGTHS).frames, before)
    seen = []
    for block in model.blocks:
        block.convolution.register_forward_pre_hook(lambda module, given: seen.append(given[0].shape[1]))
        block.attention.project.weight.data.zero_()
    model(speech(), LENGTHS)
    assert seen == [10, 10, 10]
    before = model.blocks[0](torch.cat((torch.zeros(3, 1, WIDTH), torch.ones(3, 9, WIDTH)), 1), None, None, 1)
    after = model.blocks[0](torch.ones(3, 10, WIDTH), None, None, 1)
    assert torch.equal(before[:, 1:], after[:, 1:]) and not torch.allclose(before[:, 0], after[:, 0])


def test_the_convolution_does_not_change_a_summary():
    torch.manual_seed(0)
    block = ConformerBlock(Options(**SIZES)).eval()
    hidden = torch.randn(2, 9, WIDTH)
    for parameter in block.feedforward2.parameters():
        parameter.data.zero_()
    before = block(hidden, None, None, 1)
    for parameter in block.convolution.parameters():
        parameter.data.normal_()
    after = block(hidden, None, None, 1)
    assert torch.equal(before[:, :1], after[:, :1]) and not torch.allclose(before[:, 1:], after[:, 1:])


@pytest.mark.parametrize("start", ["learned", "zeros", "mean"])
def test_summaries_start(start):
    model = encoder(summary_start=start, summary_adapted=True)
    assert ("language_adapters.summary" in model.state_dict()) == (start == "learned")
    logits = model(speech(), LENGTHS).layer_language_logits
    assert [each.shape for each in logits] == [(3, 4), (3, 4)]
    assert not torch.allclose(logits[0][0], logits[0][1])


def test_logits_do_not_depend_on_the_prompt_at_the_first_adapters():
    model = encoder()
    [first, _], [other, _] = (
        model(speech(), LENGTHS, p).layer_language_logits for p in (None, prompt("be", "be cs", "ru"))
    )
    assert torch.equal(first, other)


def test_the_language_loss_is_blind_to_the_prompt():
    model, right = encoder(), torch.tensor([0, 1, 2])
    output = model(speech(), LENGTHS, prompt("be", "cs", "nl"))
    losses = model.language_adapters.loss(output.layer_language_logits, right)
    expected = torch.stack([F.cross_entropy(each, right, reduction="none") for each in output.layer_language_logits])
    assert torch.allclose(losses, expected.mean(0)) and (losses > 0.01).all()
    model.language_adapters.options.language_loss = "last"
    assert torch.allclose(model.language_adapters.loss(output.layer_language_logits, right), expected[1])


def test_gates_of_their_own():
    output = encoder(gate="sigmoid")(speech(), LENGTHS, prompt("be cs nl ru", "cs ru", "nl"))
    expected = output.language_logits.sigmoid() * prompt("be cs nl ru", "cs ru", "nl")
    assert torch.allclose(output.language_weights, expected)
    losses = encoder(gate="sigmoid").language_adapters.loss(output.layer_language_logits, torch.tensor([0, 1, 2]))
    assert losses.shape == (3,) and losses.isfinite().all()


def test_a_perfect_classifier_of_frames_has_no_loss():
    for gate in ("softmax", "sigmoid"):
        model = encoder(weights="frame", gate=gate)
        for classifier in model.language_adapters.classifiers.values():
            classifier.weight.data.zero_()
            classifier.bias.data.copy_(torch.tensor([50.0, -50, -50, -50]))
        logits = model(speech(), LENGTHS).layer_language_logits
        assert model.language_adapters.loss(logits, torch.tensor([0, 0, 0])).max() < 1e-3


def test_weights_of_the_adapters_before():
    model = encoder(previous=True)
    output = model(speech(), LENGTHS)
    assert torch.allclose(output.language_weights, output.layer_language_logits[0].softmax(-1))
    with pytest.raises(ValueError, match="previous"):
        encoder(previous=True, layers=[2])


def test_one_classifier_for_all_layers():
    assert list(encoder(shared_classifier=True).language_adapters.classifiers) == ["all"]
    assert len(encoder().language_adapters.classifiers) == 2


@pytest.mark.parametrize("detached", [True, False])
def test_what_teaches_the_weights(detached):
    model = encoder(detached=detached)
    model(speech(), LENGTHS).frames.square().sum().backward()
    weight = model.language_adapters.classifiers["3"].weight.grad
    assert (weight is None or not weight.any()) == detached


@pytest.mark.parametrize("weights", ["sum", "average"])
def test_a_forward_encoder_still_streams(weights):
    torch.manual_seed(0)
    mine = {"layers": [1, 2], "bottleneck": 4, "weights": weights}
    options = Options(type="mamba", directions="forward", **SIZES, language_adapters=mine)
    model, allowed = Encoder(MELS, options, (), LANGUAGES).eval(), prompt("cs nl")
    for parameter in model.language_adapters.parameters():
        parameter.data.normal_()
    features = torch.randn(1, 150, MELS)
    whole, memory, parts = model(features, torch.tensor([150]), allowed), Memory(), []
    for start in range(0, 150, 4 * PIECE):
        piece = features[:, start : start + 4 * PIECE]
        last = start + 4 * PIECE >= 150
        parts.append(model.step(piece, torch.tensor([piece.shape[1]]), memory, last, allowed).frames)
    assert torch.equal(torch.cat(parts, 1), whole.frames)
    assert not torch.allclose(whole.frames, model(features, torch.tensor([150])).frames)


def test_errors_name_the_way_out():
    with pytest.raises(ValueError, match="none of the model's languages: be, cs, nl, ru"):
        encoder()(speech(), LENGTHS, prompt("be", "", "ru"))
    with pytest.raises(ValueError, match=r"\[4\] is above model.encoder.layers=3"):
        encoder(layers=[1, 4])
    with pytest.raises(ValueError, match="must rise"):
        encoder(layers=[2, 1])
    with pytest.raises(ValueError, match="unknown: da; the vocabulary has be, cs, nl, ru"):
        encoder(languages=["be", "da"])
    for options, message in [
        ({"weights": "sum", "gate": "sigmoid"}, "gate: without effect with weights=sum"),
        ({"weights": "mean", "summary_start": "mean"}, "summary_start: without effect"),
        ({"weights": "frame", "previous": True}, "previous: without effect"),
        ({"detached": True, "language_loss": "last"}, "nothing teaches"),
    ]:
        with pytest.raises(ValueError, match=message):
            encoder(**options)
    with pytest.raises(ValueError, match="summary_heard: without effect with weights=summary, type=mamba"):
        encoder("mamba", summary_heard=True)
    with pytest.raises(ValueError, match="needs the whole recording"):
        mine = {"layers": [1], "weights": "mean"}
        Encoder(MELS, Options(type="mamba", directions="forward", **SIZES, language_adapters=mine), (), LANGUAGES)
