"""Shapes: B batch, T frames, U tokens, V vocabulary, D width, K languages."""

import itertools
import math

import pytest
import torch

from masr.nn.heads import CTCHead, LanguageClassifier, LanguageCTCHeads

D, V, K = 6, 4, 3
LENGTHS = torch.tensor([5, 3, 4])
IDS = torch.tensor([[1, 2, 2], [3, 0, 0], [0, 0, 0]])
ID_LENGTHS = torch.tensor([3, 1, 0])


@pytest.fixture
def frames() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(3, 5, D)


def ctc_head() -> CTCHead:
    torch.manual_seed(1)
    return CTCHead(D, V)


def negative_log_likelihood(log_probs: torch.Tensor, ids: list[int]) -> float:
    """By its definition: over all alignments (T, V) that collapse to ``ids``."""
    mass = 0.0
    for path in itertools.product(range(V), repeat=len(log_probs)):
        if [token for token, _ in itertools.groupby(path) if token] == ids:
            mass += math.exp(sum(log_probs[t, token].item() for t, token in enumerate(path)))
    return -math.log(mass)


def test_log_probs_are_normalised(frames):
    log_probs, _ = ctc_head().log_probs(frames, LENGTHS)
    assert log_probs.shape == (3, 5, V)
    assert torch.allclose(log_probs.exp().sum(-1), torch.ones(3, 5), atol=1e-6)


def test_ctc_loss_is_that_of_its_definition(frames):
    head = ctc_head()
    losses, log_probs = head.loss(frames, LENGTHS, IDS, ID_LENGTHS), head.log_probs(frames, LENGTHS)[0]
    for row in range(3):
        real, ids = log_probs[row, : LENGTHS[row]], IDS[row, : ID_LENGTHS[row]].tolist()
        assert losses[row].item() == pytest.approx(negative_log_likelihood(real, ids), abs=1e-4)


def test_ctc_gradient_is_that_of_finite_differences(frames):
    head = ctc_head().double()
    head.log_probs = lambda frames, lengths: (
        head.output(frames).log_softmax(-1),
        lengths,
    )  # no cast
    inputs = frames.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: head.loss(x, LENGTHS, IDS, ID_LENGTHS), inputs)


def test_padding_does_not_change_the_ctc_loss(frames):
    head = ctc_head()
    together = head.loss(frames, LENGTHS, IDS, ID_LENGTHS)
    for row, (length, id_length) in enumerate(zip(LENGTHS.tolist(), ID_LENGTHS.tolist(), strict=True)):
        one = slice(row, row + 1)
        alone = head.loss(frames[one, :length], LENGTHS[one], IDS[one, :id_length], ID_LENGTHS[one])
        assert torch.allclose(alone, together[one], atol=1e-5)


def test_ctc_loss_is_infinite_where_the_frames_do_not_suffice(frames):
    losses = ctc_head().loss(frames, torch.tensor([3, 3, 4]), IDS, ID_LENGTHS)  # 1 2 2 takes four frames
    assert losses.isinf().tolist() == [True, False, False]


def test_another_blank(frames):
    head = CTCHead(D, V, blank=V - 1)
    log_probs, _ = head.log_probs(frames, LENGTHS)
    shifted = torch.cat([log_probs[..., -1:], log_probs[..., :-1]], dim=-1)  # the blank first
    found = head.loss(frames, LENGTHS, torch.tensor([[0], [1], [2]]), torch.ones(3, dtype=torch.long))
    for row in range(3):
        expected = negative_log_likelihood(shifted[row, : LENGTHS[row]], [row + 1])
        assert found[row].item() == pytest.approx(expected, abs=1e-4)


def test_language_classifier_takes_the_mean_of_real_frames(frames):
    torch.manual_seed(2)
    classifier, languages = LanguageClassifier(D, K), torch.tensor([2, 0, 1])
    log_probs, losses = classifier.log_probs(frames, LENGTHS), classifier.loss(frames, LENGTHS, languages)
    for row in range(3):
        logits = classifier.output(frames[row, : LENGTHS[row]].mean(0))
        assert torch.allclose(log_probs[row], logits.log_softmax(-1), atol=1e-5)
        assert torch.allclose(losses[row], torch.nn.functional.cross_entropy(logits, languages[row]), atol=1e-5)


def test_language_classifier_ignores_padding(frames):
    classifier, garbage = LanguageClassifier(D, K), frames.clone()
    garbage[1, 3:] = 1e4
    assert torch.allclose(classifier.log_probs(frames, LENGTHS), classifier.log_probs(garbage, LENGTHS), atol=1e-5)


def test_upsampling_makes_room_for_fast_speech():
    """More tokens than encoder frames: impossible at 1, learnable at 3; frames of an utterance stay together."""
    torch.manual_seed(0)
    frames, lengths = torch.randn(1, 2, 4), torch.tensor([2])
    ids, id_lengths = torch.tensor([[1, 2, 3, 4]]), torch.tensor([4])
    assert CTCHead(4, 6).loss(frames, lengths, ids, id_lengths).isinf().all()
    head = CTCHead(4, 6, upsampling=3)
    log_probs, ctc_lengths = head.log_probs(frames, lengths)
    assert log_probs.shape == (1, 6, 6) and ctc_lengths.tolist() == [6]
    assert torch.allclose(log_probs.exp().sum(-1), torch.ones(1, 6))
    assert torch.allclose(head.log_probs(frames[:, :1], lengths - 1)[0], log_probs[:, :3], atol=1e-6)
    assert head.loss(frames, lengths, ids, id_lengths).isfinite().all()


TOKENS = {"cs": [0, 1, 2], "el": [0, 3], "nl": [0, 1, 3]}


def heads_by_language() -> LanguageCTCHeads:
    torch.manual_seed(1)
    return LanguageCTCHeads(D, TOKENS, V)


def test_each_language_has_a_head_over_its_own_tokens(frames):
    heads = heads_by_language()
    for number, (code, tokens) in enumerate(TOKENS.items()):
        shares = torch.eye(3)[[number] * 3]
        log_probs, lengths = heads.log_probs(frames, LENGTHS, shares)
        expected = heads.heads[code].log_probs(frames, LENGTHS)[0]
        assert torch.equal(log_probs[..., tokens], expected) and torch.equal(lengths, LENGTHS)
        assert (log_probs.exp().sum(-1) - 1).abs().max() < 1e-6
        others = [token for token in range(V) if token not in tokens]
        assert (log_probs[..., others] == -torch.inf).all()


def test_several_languages_are_a_mixture_of_their_heads(frames):
    heads, shares = heads_by_language(), torch.tensor([[0.25, 0.0, 0.75], [0.0, 1.0, 0.0], [0.2, 0.3, 0.5]])
    mixture = heads.log_probs(frames, LENGTHS, shares)[0].exp()
    each = [heads.log_probs(frames, LENGTHS, torch.eye(3)[[k] * 3])[0].exp() for k in range(3)]
    expected = sum(shares[:, k, None, None] * each[k] for k in range(3))
    assert torch.allclose(mixture, expected, atol=1e-6)
    alone = heads.log_probs(frames[2:, :4], LENGTHS[2:], shares[2:])[0]
    assert torch.allclose(alone[0], mixture[2, :4].log(), atol=1e-5)


def test_the_loss_of_a_language_is_that_of_its_head_and_moves_no_other(frames):
    heads, languages = heads_by_language(), torch.tensor([2, 1, 2])
    ids = torch.tensor([[1, 3, 3], [3, 0, 0], [0, 0, 0]])
    losses = heads.loss(frames, LENGTHS, ids, ID_LENGTHS, languages)
    for row, number in enumerate(languages.tolist()):
        log_probs = heads.log_probs(frames, LENGTHS, torch.eye(3)[[number] * 3])[0][row, : LENGTHS[row]]
        expected = negative_log_likelihood(log_probs, ids[row, : ID_LENGTHS[row]].tolist())
        assert losses[row].item() == pytest.approx(expected, abs=1e-4)
    losses.sum().backward()
    gradients = {code: head.output.weight.grad.abs().sum() for code, head in heads.heads.items()}
    assert gradients["cs"] == 0 and gradients["el"] > 0 and gradients["nl"] > 0
