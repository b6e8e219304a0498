"""Whisper's own rules: which tokens may come next, what is decoded again, and what is taken for silence."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_whisper import batch_of, build, heard, write_tiny_whisper
from transformers import GenerationConfig
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

from masr.config import Decode
from masr.data.batches import Batch
from masr.decode import whisper
from masr.decode.hypothesis import Judgement, Phrase
from masr.decode.search import check_methods
from masr.decode.whisper import phrases, whisper_search
from masr.decode.whisper_rules import RuledDecoder, forbidden_beside_timestamps
from masr.models.whisper import WhisperRecognizer

ROWS = [0, 1, 3]
END, FIRST, SIZE = 10, 12, 20
"""Of a small vocabulary for rules: ten words, the end, one special token, eight times."""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> WhisperRecognizer:
    """With a token for no speech, and for the times up to 3 s."""
    folder = write_tiny_whisper(tmp_path_factory.mktemp("rules"), positions=24, no_speech=True, times=151)
    return build(folder, whisper={"context": "full"})


def decoded(model: WhisperRecognizer, batch: Batch, beam: int = 1, **rules) -> list:
    options = Decode.model_validate({"methods": ["whisper"], "beam": beam, "whisper": rules})
    return [nbest[0] for nbest in whisper_search(model, heard(model, batch), options)]


# --- which tokens may come next --------------------------------------------------------------------------------------


@pytest.mark.parametrize("likely", [False, True])
def test_timestamps_obey_the_rules_of_transformers(likely):
    torch.manual_seed(0)
    generation = GenerationConfig(
        no_timestamps_token_id=FIRST - 1, eos_token_id=END, bos_token_id=END, max_initial_timestamp_index=2
    )
    theirs = WhisperTimeStampLogitsProcessor(generation, begin_index=1)
    known = {"first_timestamp": FIRST, "sos_eos": END, "latest_first": 2, "never": torch.zeros(SIZE, dtype=torch.bool)}
    ours = RuledDecoder(SimpleNamespace(**known), timestamps=True)
    for text in ([], [12], [13, 4], [12, 4, 14], [12, 4, 14, 14], [12, 4, 14, 15, 7], [12, 4, 14, 15, 7, 3, 19]):
        logits = torch.randn(3, SIZE) + 4 * likely * (torch.arange(SIZE) >= FIRST)
        logits[:, FIRST - 1] = -torch.inf
        given = torch.tensor([[0, *text]] * 3)
        expected = theirs(given, logits.clone())
        assert torch.equal(ours._with_timestamps(logits.clone(), given[:, 1:]), expected), text


def test_no_time_goes_back():
    forbidden = forbidden_beside_timestamps(torch.tensor([[12, 4, 15, 16, 7]]), SIZE, FIRST, END)
    assert forbidden[0].nonzero()[:, 0].tolist() == [12, 13, 14, 15, 16]


def test_a_text_with_timestamps_is_in_phrases_within_the_recording(model, speech):
    batch = batch_of(model, speech, ROWS)
    found = decoded(model, batch, timestamps=True, temperatures=[0.0])
    for hypothesis, seconds in zip(found, (1.3, 0.6, 0.9), strict=True):
        assert hypothesis.phrases and all(token < model.tokenizer.end for token in hypothesis.tokens)
        assert all(0 <= phrase.start <= phrase.end <= seconds for phrase in hypothesis.phrases)
        text = "".join(phrase.text for phrase in hypothesis.phrases).replace(" ", "")
        assert text == model.tokenizer.decode(hypothesis.tokens).replace(" ", "")


def test_phrases_stand_between_times(model):
    first, a, b = model.tokenizer.first_timestamp, *model.tokenizer.encode("ab", "es")[-2:]
    tokens = [first + 10, a, first + 20, first + 30, b, b]
    assert phrases(tokens, model, 3.0) == [Phrase(0.2, 0.4, "a"), Phrase(0.6, 3.0, "bb")]


# --- fallback --------------------------------------------------------------------------------------------------------


def test_what_was_good_enough_is_as_the_search_found_it(model, speech):
    batch = batch_of(model, speech, ROWS)
    for hypothesis in decoded(model, batch, log_probability=None, compression_ratio=None, no_speech=None):
        assert hypothesis.judgement.temperature == 0.0 and hypothesis.judgement.log_probability < 0
        assert hypothesis.judgement.log_probability == hypothesis.score  # per token, as hypotheses are ranked


def test_every_batch_gives_an_utterance_the_same_text(model, speech):
    """Also where the text was drawn, and others of the batch were not drawn for again."""
    rules = {"log_probability": -1.0, "compression_ratio": 1.2, "no_speech": None, "temperatures": [0.0, 0.5, 1.0]}
    together = decoded(model, batch_of(model, speech, ROWS), **rules)
    for row, hypothesis in zip(ROWS, together, strict=True):
        [alone] = decoded(model, batch_of(model, speech, [row]), **rules)
        assert alone.tokens == hypothesis.tokens
        assert alone.judgement.log_probability == pytest.approx(hypothesis.judgement.log_probability, abs=1e-4)
        assert alone.judgement.temperature == hypothesis.judgement.temperature
    other = decoded(model, batch_of(model, speech, ROWS), **rules, seed=2)
    assert [h.tokens for h in other] != [h.tokens for h in together]


def test_only_failed_rows_are_decoded_again(model, speech, monkeypatch):
    """The second utterance fails at 0, and all fail at 0.5; the most probable text that does not repeat itself wins."""
    asked = []
    judgements = iter([(-0.1, 1.0), (-1.5, 1.0), (-0.2, 1.0), (-1.2, 3.0), (-3.0, 1.0)])
    decode = whisper._decode

    def counted(model, utterances, options, step):
        asked.append(len(utterances.lengths))
        return decode(model, utterances, options, step)

    def judged(best, model, temperature, no_speech):
        log_probability, ratio = next(judgements)
        return Judgement(log_probability, no_speech, {}, ratio, temperature)

    monkeypatch.setattr(whisper, "_decode", counted)
    monkeypatch.setattr(whisper, "_judge", judged)
    found = decoded(model, batch_of(model, speech, ROWS), temperatures=[0.0, 0.5, 1.0], no_speech=None)
    assert asked == [3, 1, 1]
    assert [hypothesis.judgement.temperature for hypothesis in found] == [0.0, 0.0, 0.0]
    assert found[1].judgement.log_probability == -1.5


def test_draws_follow_the_probabilities(model, speech):
    """At a temperature near 0 they are what a greedy search finds."""
    batch = batch_of(model, speech, ROWS)
    free = {"log_probability": None, "compression_ratio": None, "no_speech": None}
    greedy = decoded(model, batch, **free, temperatures=[0.0])
    cold, hot = (decoded(model, batch, **free, temperatures=[value]) for value in (1e-4, 5.0))
    assert [h.tokens for h in cold] == [h.tokens for h in greedy] != [h.tokens for h in hot]
    for one, other in zip(cold, greedy, strict=True):
        assert len(one.tokens) == model.attention_decoder.longest or one.judgement.log_probability == pytest.approx(
            other.judgement.log_probability, abs=1e-4
        )


# --- silence, languages ----------------------------------------------------------------------------------------------


def test_no_speech_is_the_probability_of_its_token_after_the_start(model, speech):
    batch = batch_of(model, speech, ROWS)
    known = heard(model, batch)
    state = model.attention_decoder.start(known.frames, known.lengths, 1, known.language_weights)
    with torch.no_grad():
        _, logits = model.attention_decoder.first_logits(state)
    expected = logits.softmax(-1)[:, model.tokenizer.special("nospeech")].tolist()
    found = decoded(model, batch, beam=2, temperatures=[0.0], no_speech=None)
    assert [h.judgement.no_speech_probability for h in found] == pytest.approx(expected, rel=1e-4)


def test_what_is_probably_no_speech_has_no_text(model, speech):
    batch = batch_of(model, speech, ROWS)
    text = decoded(model, batch, no_speech=None, temperatures=[0.0])[0]
    surely = {"no_speech": 0.0, "log_probability": -1e-6}
    for hypothesis in decoded(model, batch, **surely):
        assert hypothesis.judgement.silent and not hypothesis.tokens
        assert hypothesis.judgement.temperature == 0.0, "nothing is drawn for silence"
    spoken = decoded(model, batch, no_speech=0.0, log_probability=-90.0, compression_ratio=None)[0]
    assert spoken.tokens == text.tokens and not spoken.judgement.silent


def test_languages_have_probabilities_among_those_that_are_allowed(model, speech):
    batch = batch_of(model, speech, ROWS)
    batch.allowed_languages = torch.tensor([[True, False, True]] * 3)
    for hypothesis in decoded(model, batch):
        shares = hypothesis.judgement.language_probabilities
        assert shares.keys() == {"el", "ro"} and sum(shares.values()) == pytest.approx(1)
        assert hypothesis.language == max(shares, key=shares.get)


def test_the_language_of_experts_has_a_probability_too(tiny_whisper, speech):
    """Although what belongs to the chosen one counts alone."""
    model = build(tiny_whisper, adapt={"lora": {"rank": 2, "alpha": 4, "per_language": True}})
    batch = batch_of(model, speech, ROWS)
    batch.allowed_languages[:] = True
    plain = build(tiny_whisper)
    expected = [hypothesis.judgement for hypothesis in decoded(plain, batch, temperatures=[0.0])]
    for judgement, hypothesis in zip(expected, decoded(model, batch, temperatures=[0.0]), strict=True):
        assert 0 < max(hypothesis.judgement.language_probabilities.values()) < 1
        assert hypothesis.judgement.language_probabilities == pytest.approx(judgement.language_probabilities, abs=1e-4)


def test_a_whisper_without_a_token_for_it_takes_nothing_for_silence(tiny_whisper, speech):
    model = build(tiny_whisper)
    [hypothesis] = decoded(model, batch_of(model, speech, [1]), no_speech=0.0, temperatures=[0.0])
    assert hypothesis.judgement.no_speech_probability is None and hypothesis.tokens


def test_a_text_stops_where_nobody_could_have_said_more(model, speech):
    """However long the silence behind it is: at most 50 tokens for each second."""
    batch = batch_of(model, [speech[1][: int(0.2 * 16000)]], [0])
    [hypothesis] = decoded(model, batch, temperatures=[0.0], log_probability=None, no_speech=None)
    assert len(hypothesis.tokens) <= 10 < model.attention_decoder.longest


def test_only_a_whisper_has_this_method():
    other = SimpleNamespace(ctc=None, attention_decoder=object(), tree=None)
    with pytest.raises(ValueError, match="whisper is how a Whisper decodes, and this model is none"):
        check_methods(Decode(methods=["whisper"]), other)


def test_a_repeated_text_compresses_well(model):
    ids = model.tokenizer.encode("no no no no no no no no no no no no no no no no", "es")
    best = SimpleNamespace(tokens=ids, parts={"attention": -1.0})
    assert whisper._judge(best, model, 0.0, None).compression_ratio > 2.4
    assert np.isfinite(whisper._judge(SimpleNamespace(tokens=[], parts={}), model, 0.0, None).log_probability)
