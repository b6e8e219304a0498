"""Shapes: B batch, T frames, U tokens, V vocabulary."""

import itertools
import math

import pytest
import torch
from brute_force import labellings
from torch import Tensor

from masr.decode.attention_beam import attention_beam
from masr.nn.attention_decoder import AttentionDecoder

V, SOS_EOS, FRAMES = 5, 4, 4


def make_decoder(seed: int, sharpness: float = 3.0) -> AttentionDecoder:
    torch.manual_seed(seed)
    decoder = AttentionDecoder(V, 6, 8, layers=1, heads=2, feedforward=16, dropout=0.0, sos_eos=SOS_EOS).eval()
    decoder.output.weight.data *= sharpness
    return decoder.double()


def make_input(seed: int, batch: int = 1, frames: int = FRAMES) -> tuple[Tensor, Tensor]:
    """Frames (B, T, D) and CTC log-probabilities (B, T, V)."""
    torch.manual_seed(100 + seed)
    return torch.randn(batch, frames, 6).double(), (2 * torch.randn(batch, frames, V).double()).log_softmax(-1)


@torch.no_grad()
def exhaustive(
    decoder: AttentionDecoder, frames: Tensor, ctc: Tensor, weight: float, bonus: float
) -> dict[tuple[int, ...], float]:
    """Score of every transcript of at most T tokens of one utterance."""
    ctc_scores = labellings(ctc[0])
    scores = {}
    for length in range(FRAMES + 1):
        for tokens in itertools.product((1, 2, 3), repeat=length):
            ids = torch.tensor([tokens], dtype=torch.long)
            log_probs = decoder.log_probs(frames, torch.tensor([FRAMES]), ids, torch.tensor([length]))[0]
            attention = sum(float(log_probs[u, token]) for u, token in enumerate((*tokens, SOS_EOS)))
            ctc_score = ctc_scores.get(tokens, -math.inf) if weight else 0.0
            scores[tokens] = (1 - weight) * attention + weight * ctc_score + bonus * length
    return scores


@pytest.mark.parametrize("seed", range(3))
def test_ranked_by_the_score_of_a_token(seed):
    decoder, (frames, ctc) = make_decoder(seed), make_input(seed)
    scores = {tokens: score / (len(tokens) + 1) for tokens, score in exhaustive(decoder, frames, ctc, 0.0, 0.0).items()}
    ranked = sorted(scores, key=scores.__getitem__, reverse=True)
    (found,) = attention_beam(
        decoder, frames, torch.tensor([FRAMES]), beam=400, n_best=5, sos_eos=SOS_EOS, per_token=True
    )
    assert [tuple(hypothesis.tokens) for hypothesis in found] == ranked[:5]
    assert [hypothesis.score for hypothesis in found] == pytest.approx([scores[t] for t in ranked[:5]], abs=1e-6)
    (narrow,) = attention_beam(
        decoder, frames, torch.tensor([FRAMES]), beam=2, n_best=5, sos_eos=SOS_EOS, per_token=True
    )
    assert 2 <= len(narrow) <= 3 and all(h.score == pytest.approx(scores[tuple(h.tokens)], abs=1e-6) for h in narrow)


@pytest.mark.parametrize("weight,bonus", [(0.0, 0.0), (0.3, 0.0), (0.5, -0.2), (0.3, 0.5), (1.0, 0.0)])
@pytest.mark.parametrize("seed", range(3))
def test_a_huge_beam_is_an_exhaustive_search(seed, weight, bonus):
    decoder, (frames, ctc) = make_decoder(seed), make_input(seed)
    expected = exhaustive(decoder, frames, ctc, weight, bonus)
    ranked = sorted(expected, key=expected.__getitem__, reverse=True)
    lengths = torch.tensor([FRAMES])
    (found,) = attention_beam(
        decoder, frames, lengths, beam=400, n_best=5, sos_eos=SOS_EOS,
        ctc_log_probs=ctc, ctc_weight=weight, length_bonus=bonus,
    )  # fmt: skip
    assert [tuple(hypothesis.tokens) for hypothesis in found] == ranked[:5]
    assert [hypothesis.score for hypothesis in found] == pytest.approx([expected[t] for t in ranked[:5]], abs=1e-6)


def test_parts_add_up_to_the_score():
    decoder, (frames, ctc) = make_decoder(0), make_input(0)
    options = {"sos_eos": SOS_EOS, "ctc_log_probs": ctc, "ctc_weight": 0.3, "length_bonus": 0.1}
    (found,) = attention_beam(decoder, frames, torch.tensor([FRAMES]), n_best=4, **options)
    for hypothesis in found:
        parts = hypothesis.parts
        total = 0.7 * parts["attention"] + 0.3 * parts["ctc"] + 0.1 * len(hypothesis.tokens)
        assert hypothesis.score == pytest.approx(total)


@pytest.mark.parametrize("weight", [0.0, 0.4])
def test_alone_equals_batched(weight):
    decoder, (frames, ctc) = make_decoder(7, sharpness=6), make_input(7, batch=5, frames=12)
    lengths = torch.tensor([12, 3, 0, 7, 1])
    for row, length in enumerate(lengths.tolist()):
        frames[row, length:] = torch.nan
        ctc[row, length:] = torch.nan
    options = {"beam": 4, "n_best": 3, "sos_eos": SOS_EOS, "ctc_weight": weight}
    batched = attention_beam(decoder, frames, lengths, ctc_log_probs=ctc, **options)
    for row, length in enumerate(lengths.tolist()):
        one = slice(row, row + 1)
        alone = attention_beam(decoder, frames[one, :length], lengths[one], ctc_log_probs=ctc[one, :length], **options)[
            0
        ]
        assert [hypothesis.tokens for hypothesis in alone] == [hypothesis.tokens for hypothesis in batched[row]]
        scores = [hypothesis.score for hypothesis in batched[row]]
        assert [hypothesis.score for hypothesis in alone] == pytest.approx(scores, abs=1e-5)


def test_no_frames_give_an_empty_transcript_without_a_search():
    decoder, (frames, ctc) = make_decoder(0), make_input(0, batch=2)
    found = attention_beam(
        decoder, frames[:, :0], torch.tensor([0, 0]), sos_eos=SOS_EOS, ctc_log_probs=ctc[:, :0], ctc_weight=0.3
    )
    assert [[(hypothesis.tokens, hypothesis.score) for hypothesis in row] for row in found] == [[([], 0.0)]] * 2


class Scripted:
    """A decoder whose next-token log-probabilities depend on the position only; counts its steps."""

    def __init__(self, log_probs: Tensor) -> None:
        self.log_probs = log_probs
        self.steps = 0

    def start(self, frames: Tensor, lengths: Tensor, beam: int, language_weights: Tensor | None) -> "Scripted":
        return self

    def select(self, indices: Tensor) -> None:
        pass

    def step(self, tokens: Tensor, state: "Scripted") -> Tensor:
        self.steps += 1
        return self.log_probs[min(self.steps, len(self.log_probs)) - 1].expand(len(tokens), -1)


def scripted(*best: int) -> Scripted:
    return Scripted(torch.nn.functional.one_hot(torch.tensor(best), V).double().mul(12).log_softmax(-1))


def test_stops_soon_after_the_end():
    for n_best, steps in ((1, 4), (10, 8)):
        decoder = scripted(1, 2, 1, SOS_EOS)
        (found,) = attention_beam(decoder, torch.zeros(1, 500, 1), torch.tensor([500]), sos_eos=SOS_EOS, n_best=n_best)
        assert found[0].tokens == [1, 2, 1]
        assert decoder.steps <= steps


def test_a_decoder_that_never_ends_is_ended_at_the_length_limit():
    decoder = scripted(2)
    (found,) = attention_beam(
        decoder,
        torch.zeros(1, 20, 1),
        torch.tensor([20]),
        sos_eos=SOS_EOS,
        max_length_ratio=0.5,
        n_best=3,
        length_bonus=0.1,
    )
    assert found[0].tokens == [2] * 10
    assert decoder.steps == 11
    assert all(SOS_EOS not in hypothesis.tokens and 0 not in hypothesis.tokens for hypothesis in found)


def test_impossible_audio_gives_an_empty_transcript():
    ctc = torch.full((1, 3, V), -torch.inf)
    ctc[..., 0] = 0.0
    decoder = scripted(1, 1, 1)
    decoder.log_probs = torch.full((1, V), -torch.inf)
    (found,) = attention_beam(
        decoder, torch.zeros(1, 3, 1), torch.tensor([3]), sos_eos=SOS_EOS, ctc_log_probs=ctc, ctc_weight=0.5
    )
    assert (found[0].tokens, found[0].score) == ([], -math.inf)


def test_not_a_number_is_refused():
    decoder = Scripted(torch.full((1, V), torch.nan))
    with pytest.raises(ValueError, match="NaN"):
        attention_beam(decoder, torch.zeros(1, 3, 1), torch.tensor([3]), sos_eos=SOS_EOS)


@pytest.mark.parametrize("options", [{"beam": 0}, {"n_best": 0}, {"ctc_weight": 1.5}, {"ctc_weight": 0.3}])
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match=r"must be|needed"):
        attention_beam(scripted(1), torch.zeros(1, 3, 1), torch.tensor([3]), sos_eos=SOS_EOS, **options)
