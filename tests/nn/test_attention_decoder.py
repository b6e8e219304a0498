"""Shapes: B batch, T frames, U tokens, V vocabulary, K beam, N = B * K."""

import pytest
import torch
from torch import Tensor

from masr.nn.attention_decoder import AttentionDecoder

V, SOS_EOS = 11, 10
LENGTHS = torch.tensor([7, 4, 0])
ID_LENGTHS = torch.tensor([3, 5, 0])


@pytest.fixture
def decoder() -> AttentionDecoder:
    torch.manual_seed(0)
    return AttentionDecoder(V, 6, 8, layers=2, heads=2, feedforward=16, dropout=0.1, sos_eos=SOS_EOS).eval()


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Frames, lengths, ids, id lengths; the padding holds what must not matter."""
    torch.manual_seed(1)
    frames, ids = torch.randn(3, 7, 6), torch.randint(1, V - 1, (3, 5))
    for row in range(3):
        frames[row, LENGTHS[row] :] = torch.nan
        ids[row, ID_LENGTHS[row] :] = -1
    return frames, LENGTHS, ids, ID_LENGTHS


def test_padding_changes_nothing(decoder, batch):
    frames, lengths, ids, id_lengths = batch
    losses, log_probs = decoder.loss(*batch), decoder.log_probs(*batch)
    for row, (length, id_length) in enumerate(zip(lengths.tolist(), id_lengths.tolist(), strict=True)):
        one = slice(row, row + 1)
        alone = (frames[one, :length], lengths[one], ids[one, :id_length], id_lengths[one])
        assert torch.allclose(decoder.loss(*alone), losses[one], atol=1e-5)
        assert torch.allclose(decoder.log_probs(*alone), log_probs[one, : id_length + 1], atol=1e-5)


def test_loss_without_smoothing_is_the_sum_of_the_log_probs(decoder, batch):
    _, _, ids, id_lengths = batch
    decoder.label_smoothing = 0.0
    log_probs, losses = decoder.log_probs(*batch), decoder.loss(*batch)
    for row, id_length in enumerate(id_lengths.tolist()):
        targets = [*ids[row, :id_length].tolist(), SOS_EOS]
        expected = -sum(log_probs[row, position, target] for position, target in enumerate(targets))
        assert torch.allclose(losses[row], expected, atol=1e-5)


def test_smoothing_is_that_of_cross_entropy(decoder):
    hidden, targets = torch.randn(4, 8), torch.tensor([1, 2, 3, 0])
    expected = torch.nn.functional.cross_entropy(decoder.output(hidden), targets, label_smoothing=0.1, reduction="none")
    assert torch.allclose(decoder.output.loss(hidden, targets, 0.1), expected, atol=1e-6)


def test_a_flat_softmax_may_have_no_bias_as_a_tree_has_none(batch):
    options = {"layers": 1, "heads": 2, "feedforward": 16, "dropout": 0.1, "sos_eos": SOS_EOS}
    with_bias = AttentionDecoder(V, 6, 8, **options).eval()
    without = AttentionDecoder(V, 6, 8, **options, bias=False).eval()
    assert with_bias.state_dict().keys() - without.state_dict().keys() == {"output.bias"}
    torch.nn.init.zeros_(with_bias.output.bias)
    without.load_state_dict(with_bias.state_dict(), strict=False)
    assert torch.equal(without.loss(*batch), with_bias.loss(*batch))


def test_gradients_are_finite_with_empty_texts_and_empty_audio(decoder, batch):
    frames, lengths, ids, _ = batch
    decoder.train().loss(frames, lengths, ids, torch.zeros(3, dtype=torch.long)).sum().backward()
    decoder.loss(frames[:, :0], torch.zeros_like(lengths), ids[:, :0], torch.zeros_like(lengths)).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in decoder.parameters())


def test_steps_equal_log_probs(decoder, batch):
    frames, lengths, ids, id_lengths = batch
    beam = 2
    expected = decoder.log_probs(*batch)
    state = decoder.start(frames, lengths, beam)
    inputs = torch.cat((torch.full((3, 1), SOS_EOS), ids.clamp(min=1)), dim=1)
    for position in range(ids.size(1) + 1):
        log_probs = decoder.step(inputs[:, position].repeat_interleave(beam), state).view(3, beam, V)
        for row in range(3):
            if position <= id_lengths[row]:
                assert torch.allclose(log_probs[row], expected[row, position].expand(beam, V), atol=1e-5)


def test_select_reorders_hypotheses_and_drops_utterances(decoder, batch):
    frames, lengths, _, _ = batch
    histories = torch.randint(1, V - 1, (6, 3))
    state = decoder.start(frames, lengths, 2)
    decoder.step(torch.full((6,), SOS_EOS), state)
    decoder.step(histories[:, 0], state)
    swapped = torch.tensor([1, 0, 3, 3, 4, 5])
    state.select(swapped)
    decoder.step(histories[:, 1], state)
    kept = torch.tensor([3, 2, 4, 4])  # utterances 1 and 2
    state.select(kept)
    found = decoder.step(histories[kept, 2], state)
    for number, index in enumerate(kept.tolist()):
        row = index // 2
        ids = torch.stack((histories[swapped[index], 0], histories[index, 1], histories[index, 2]))[None]
        expected = decoder.log_probs(frames[row : row + 1], lengths[row : row + 1], ids, torch.tensor([3]))[0, -1]
        assert torch.allclose(found[number], expected, atol=1e-5)


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="multiple of the number of heads"):
        AttentionDecoder(V, 6, 8, 1, heads=3, feedforward=16, dropout=0.0, sos_eos=1)
    with pytest.raises(ValueError, match="outside the vocabulary"):
        AttentionDecoder(V, 6, 8, 1, heads=2, feedforward=16, dropout=0.0, sos_eos=V)


@pytest.fixture
def adapted():
    torch.manual_seed(3)
    decoder = AttentionDecoder(V, 6, 8, 3, 2, 16, 0.0, SOS_EOS, adapters=(4, 2)).eval()
    for block in (decoder.blocks[0], decoder.blocks[2]):
        for parameter in block.adapters.parameters():
            parameter.data.normal_()
    return decoder


def test_adapters_stand_behind_the_first_and_the_last_block(adapted, batch):
    assert [block.adapters is not None for block in adapted.blocks] == [True, False, True]
    one, other = (adapted.log_probs(*batch, torch.tensor([weights] * 3)) for weights in ([1.0, 0.0], [0.0, 1.0]))
    assert not torch.allclose(one, other, atol=0.01)
    for block in (adapted.blocks[0], adapted.blocks[2]):
        for parameter in block.adapters.parameters():
            parameter.data[1] += 1
    assert torch.equal(adapted.log_probs(*batch, torch.tensor([[1.0, 0.0]] * 3)), one)


def test_steps_with_adapters_equal_log_probs(adapted, batch):
    frames, lengths, ids, id_lengths = batch
    weights = torch.tensor([[1.0, 0.0], [0.3, 0.7], [0.5, 0.5]])
    expected = adapted.log_probs(*batch, weights)
    state = adapted.start(frames, lengths, 2, weights)
    inputs = torch.cat((torch.full((3, 1), SOS_EOS), ids.clamp(min=1)), dim=1)
    for position in range(ids.size(1) + 1):
        found = adapted.step(inputs[:, position].repeat_interleave(2), state).view(3, 2, V)
        for row in range(3):
            if position <= id_lengths[row]:
                assert torch.allclose(found[row], expected[row, position].expand(2, V), atol=1e-5)
    state.select(torch.tensor([2, 3]))
    assert torch.equal(state.language_weights, weights[1:2])
