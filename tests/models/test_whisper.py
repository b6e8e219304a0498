"""A tiny random Whisper beside transformers, and on the way from data to a transcript. B, T, U, K as elsewhere."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from tiny_whisper import LANGUAGES, UTTERANCES, batch_of, build, config_of, heard, search, write_tiny_whisper
from transformers import WhisperFeatureExtractor
from transformers.generation.utils import GenerateEncoderDecoderOutput

from masr.config import Config, Features
from masr.data.batches import Batch
from masr.data.features import UnusableAudio, log_mel_of
from masr.decode.alignment import timed_words
from masr.decode.cross_attention import attention_align
from masr.decode.hypothesis import Hypothesis
from masr.models.folder import WEIGHTS, load_model, save_model
from masr.models.whisper import WhisperRecognizer, pretrained_whisper
from masr.text.whisper_tokenizer import WhisperTokenizer


@pytest.fixture
def model(tiny_whisper) -> WhisperRecognizer:
    return build(tiny_whisper)


# --- beside transformers ---------------------------------------------------------------------------------------------


def test_with_the_full_context_features_and_frames_are_those_of_transformers(tiny_whisper, speech):
    model = build(tiny_whisper, whisper={"context": "full"})
    batch = batch_of(model, speech, [0, 1, 2, 3])
    expected = WhisperFeatureExtractor()(speech, sampling_rate=16000, return_tensors="pt")["input_features"]
    features, lengths = model.encoder.with_silence(batch.features, batch.feature_lengths)
    assert torch.allclose(features.transpose(1, 2), expected, atol=1e-6) and lengths.tolist() == [3000] * 4
    with torch.no_grad():
        frames = pretrained_whisper(str(tiny_whisper)).eval().model.encoder(expected).last_hidden_state
        assert torch.allclose(model.encode(batch.features, batch.feature_lengths).frames, frames, atol=1e-4)


@pytest.mark.parametrize("beam", [1, 2, 5])
@torch.no_grad()
def test_a_search_in_several_languages_at_once_finds_what_generate_finds(tiny_whisper, speech, beam):
    """Or, as texts that are cut off are ranked with their end here and without it there, what is better with it."""
    model, base = build(tiny_whisper, whisper={"context": "full"}), pretrained_whisper(str(tiny_whisper)).eval()
    batch = batch_of(model, speech, [0, 1, 3])
    features, _ = model.encoder.with_silence(batch.features, batch.feature_lengths)
    sums = {"num_beams": beam, "length_penalty": 0.0} if beam > 1 else {}  # of log-probabilities, as in ours
    generated = base.generate(
        features.transpose(1, 2), language=batch.languages, task="transcribe", do_sample=False,
        max_new_tokens=model.attention_decoder.longest, **sums,  # ours leaves room for the end
    )  # fmt: skip
    ours, theirs = search(model, batch, beam), [model.tokenizer.spoken(row) for row in generated.tolist()]
    assert beam > 1 or ours == theirs
    assert sum(len(a) == len(b) and a[:20] == b[:20] for a, b in zip(ours, theirs, strict=True)) >= 2
    known, counted = heard(model, batch), torch.full((3,), model.attention_decoder.longest)
    given = known.frames, known.lengths
    losses = [
        model.attention_decoder.loss(*given, torch.tensor(t), counted, known.language_weights) for t in (ours, theirs)
    ]
    assert (losses[0] <= losses[1] + 1e-4).all()


def test_losses_are_those_of_transformers(tiny_whisper, speech):
    model, base = build(tiny_whisper, whisper={"context": "full"}), pretrained_whisper(str(tiny_whisper)).eval()
    batch = batch_of(model, speech, [0, 3])
    features, _ = model.encoder.with_silence(batch.features, batch.feature_lengths)
    losses = model.objectives(batch)
    for row, code in enumerate(batch.languages):
        tokens = model.tokenizer
        text = batch.targets["transcript"].ids[row, : batch.targets["transcript"].lengths[row]].tolist()
        language = tokens.special(code)
        given = torch.tensor([[tokens.start, language, *tokens.task, *text]])
        logits = base(input_features=features[row : row + 1].transpose(1, 2), decoder_input_ids=given).logits[0]
        after = torch.tensor([*text, tokens.end])
        expected = torch.nn.functional.cross_entropy(logits[3:], after, reduction="sum")
        assert losses[f"attention/{code}"].item() == pytest.approx(expected.item(), rel=1e-4)
        named = logits[0, tokens.language_tokens]
        expected = torch.nn.functional.cross_entropy(named, torch.tensor(LANGUAGES.index(code)))
        assert losses[f"lid/{code}"].item() == pytest.approx(expected.item(), rel=1e-4)


# --- on the length of a clip -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", ["clip", "full"])
def test_padding_changes_nothing(tiny_whisper, speech, context):
    model = build(tiny_whisper, whisper={"context": context})
    together = batch_of(model, speech, [0, 1, 2, 3])
    encoded = model.encode(together.features, together.feature_lengths, together.allowed_languages)
    losses = model.losses([encoded], together)
    for row in range(4):
        alone = batch_of(model, speech, [row])
        single = model.encode(alone.features, alone.feature_lengths, alone.allowed_languages)
        length = int(single.lengths)
        assert length == int(encoded.lengths[row])
        assert torch.allclose(encoded.frames[row, :length], single.frames[0, :length], atol=1e-5)
        for name, values in model.losses([single], alone).items():
            assert values.item() == pytest.approx(losses[name][row].item(), abs=1e-4)
    assert search(model, together, 2) == [search(model, batch_of(model, speech, [row]), 2)[0] for row in range(4)]


def test_a_clip_is_heard_with_its_margin(model, speech):
    batch = batch_of(model, speech, [1])
    assert (
        int(model.encode(batch.features, batch.feature_lengths).lengths) == (int(batch.feature_lengths) + 50 + 1) // 2
    )


def test_cached_steps_give_what_all_tokens_at_once_give(model, speech):
    batch = batch_of(model, speech, [0, 3])
    encoded = model.encode(batch.features, batch.feature_lengths, batch.allowed_languages)
    given = encoded.frames, encoded.lengths
    decoder, (ids, lengths) = model.attention_decoder, batch.targets["transcript"]
    at_once = decoder.log_probs(*given, ids, lengths, encoded.language_weights)
    state = decoder.start(*given, 1, encoded.language_weights)
    step = decoder.step(torch.full((2,), decoder.sos_eos), state)
    for position in range(int(lengths.min())):
        allowed = ~step.isneginf()
        assert torch.allclose(step[allowed], at_once[:, position][allowed], atol=1e-5)
        step = decoder.step(ids[:, position], state)


# --- times of words --------------------------------------------------------------------------------------------------

ADAPTED = {
    "plain": {}, "prompts": {"prompts": {"length": 2, "languages": "own"}},
    "experts": {"lora": {"rank": 2, "alpha": 2, "per_language": True}},
}  # fmt: skip


@torch.no_grad()
def test_times_are_those_of_transformers(tiny_whisper, speech):
    model, base = build(tiny_whisper, whisper={"context": "full"}), pretrained_whisper(str(tiny_whisper)).eval()
    base.set_attn_implementation("eager")
    batch = batch_of(model, [np.resize(audio, 30 * 16000) for audio in (speech[2], speech[2][5000:])], [0, 1])
    features = batch.features.transpose(1, 2)
    generated = base.generate(features, language=batch.languages, do_sample=False, return_token_timestamps=True)
    ids, utterances = generated["sequences"][:, :-1], heard(model, batch)
    given = utterances.frames, utterances.lengths, ids, torch.full((2,), ids.shape[1]), utterances.language_weights
    scores = model.attention_decoder.attention_scores(*given, model.alignment_heads)
    best = [Hypothesis(row, 0.0) for row in ids.tolist()]
    utterances.recorded = utterances.lengths  # they do not drop the last frames, which can go on behind a recording
    model.add_times(best, utterances)
    all_tokens = torch.cat((model.attention_decoder.beginning(utterances.language_weights), ids), 1)
    attentions = base(features, decoder_input_ids=all_tokens, output_attentions=True).cross_attentions
    outputs = GenerateEncoderDecoderOutput(sequences=all_tokens, cross_attentions=(attentions,))
    theirs = base._extract_token_timestamps(outputs, model.alignment_heads, num_input_ids=2)[:, 3:-2]
    for row in range(2):
        # Of what they generate they align each token by what the decoder attends to when it has read it, ...
        starts = [0.02 * start for start, _ in attention_align(scores[row, :, 2:], 7)]
        assert starts == pytest.approx(generated["token_timestamps"][row, :-1].tolist())
        # ... which we do by what it attends to before it writes it.
        starts = [start for start, _ in best[row].timestamps]
        assert starts == pytest.approx(theirs[row].tolist())


def timed(model: WhisperRecognizer, batch: Batch) -> list[Hypothesis]:
    best = [Hypothesis(tokens, 0.0, text=model.tokenizer.decode(tokens)) for tokens in search(model, batch, 2)]
    model.add_times(best, heard(model, batch))
    return best


@pytest.mark.parametrize("context", ["clip", "full"])
@pytest.mark.parametrize("adapted", ADAPTED)
def test_words_are_spoken_one_after_another_within_the_recording(tiny_whisper, speech, context, adapted):
    model = build(tiny_whisper, whisper={"context": context}, adapt=ADAPTED[adapted])
    for parameter in [parameter for part in model.adapted for parameter in part.parameters()]:
        parameter.data += 0.3 * torch.randn_like(parameter)
    batch = batch_of(model, speech, [0, 1, 2, 3])
    for row, best in enumerate(timed(model, batch)):
        assert len(best.timestamps) == len(best.tokens) > 0
        words = timed_words(best, model)
        for times in (best.timestamps, [(start, end) for _, start, end in words]):
            assert all(0 <= start < end <= UTTERANCES[row][2] for start, end in times)
            assert all(a <= b and c <= d for (a, c), (b, d) in pairwise(times))
        assert best.timestamps == timed(model, batch_of(model, speech, [row]))[0].timestamps


def test_what_is_not_known_has_no_times(tiny_whisper, model, speech):
    batch = batch_of(model, speech, [0, 1])
    utterances = heard(model, batch)
    best = [Hypothesis([], 0.0), Hypothesis([70, 71], 0.0)]
    model.add_times(best, utterances)
    assert not best[0].timestamps and len(best[1].timestamps) == 2
    model.add_times(best[:1], utterances)
    model.alignment_heads, best[1].timestamps = [], []
    model.add_times(best, utterances)
    assert not best[1].timestamps


# --- languages -------------------------------------------------------------------------------------------------------


def test_the_decoder_names_a_language_that_the_prompt_allows(model, speech):
    batch = batch_of(model, speech, [0, 1])
    everything = torch.ones(2, 3, dtype=torch.bool)
    encoded = model.encode(batch.features, batch.feature_lengths, everything)
    assert torch.allclose(encoded.language_weights.sum(1), torch.ones(2))
    best = int(encoded.language_weights[0].argmax())
    others = everything.clone()
    others[:, best] = False
    encoded = model.encode(batch.features, batch.feature_lengths, others)
    assert encoded.language_weights[0, best] == 0
    [named, _] = model.predict_languages(encoded, [], others)
    assert named in LANGUAGES and named != LANGUAGES[best]


def test_in_training_every_utterance_is_in_its_own_language(model, speech):
    """Whatever prompt it got."""
    batch = batch_of(model.train(), speech, [0, 1, 3])
    batch.allowed_languages[:] = True
    [encoded], _ = model.encode_views(batch)
    assert [LANGUAGES[i] for i in encoded.language_weights.argmax(1)] == batch.languages
    assert sum(model.objectives(batch).values()).isfinite()


# --- folders ---------------------------------------------------------------------------------------------------------


def test_a_model_that_learnt_all_of_it_loads_without_the_pretrained_one(tmp_path, tiny_whisper, speech):
    model = build(write_tiny_whisper(tmp_path / "base"))
    save_model(tmp_path / "saved", model)
    for file in (tmp_path / "base").iterdir():
        file.unlink()
    batch = batch_of(model, speech, [0, 1])
    loaded = load_model(tmp_path / "saved")
    assert search(loaded, batch, 2) == search(model, batch, 2)
    assert loaded.attention_decoder.never.equal(model.attention_decoder.never)


def test_of_a_frozen_one_nothing_is_kept_but_its_hash(tmp_path, tiny_whisper, speech):
    model = build(tiny_whisper).requires_grad_(False)
    saved = tmp_path / "saved"
    save_model(saved, model)
    assert (saved / WEIGHTS).stat().st_size < 5000
    batch = batch_of(model, speech, [0, 1])
    assert search(load_model(saved), batch, 2) == search(model, batch, 2)
    config = saved / "config.yaml"
    other = write_tiny_whisper(tmp_path / "other", seed=1)
    config.write_text(config.read_text().replace(str(tiny_whisper), str(other)))
    with pytest.raises(ValueError, match="was trained on the Whisper with hash .*other has .*another model"):
        load_model(saved)


def test_bad_input(tiny_whisper, model, speech):
    with pytest.raises(UnusableAudio, match="31.00 s of audio, but Whisper hears 30 s at most"):
        log_mel_of(Features(kind="whisper"))(np.zeros(31 * 16000, np.float32))
    with pytest.raises(FileNotFoundError, match="there is no folder ./nowhere"):
        pretrained_whisper("./nowhere")
    with pytest.raises(FileNotFoundError, match="there is no folder exp/gone"):
        WhisperTokenizer.of_pretrained("exp/gone", ["es"], {})
    with pytest.raises(ValueError, match="features.kind=kaldi must be whisper, model.ctc.weight=1.0 must be 0"):
        config_of(tiny_whisper, features={}, model={"ctc": {"weight": 1.0}})
    for adapt, message in (
        ({"classifier": True}, "nothing belongs to one language"),
        ({"routing": "soft", "prompts": {"length": 2}}, "nothing belongs to one language"),
        ({"lora": {"rank": 2, "fused": True}}, "there is one expert"),
        ({"lora": {"rank": 2, "fused": True, "per_language": True}, "routing": "arrow"}, "that are not fused"),
    ):
        with pytest.raises(ValueError, match=message):
            config_of(tiny_whisper, model={"adapt": adapt})
    with pytest.raises(ValueError, match="there is nothing to adapt; set model.pretrained"):
        Config.model_validate({"name": "x", "model": {"adapt": {"language_codes": True}}})
    with pytest.raises(ValueError, match="features.mel_bins=128, but this Whisper has 80"):
        config = config_of(tiny_whisper, features={"kind": "whisper", "mel_bins": 128})
        WhisperRecognizer(config, model.tokenizer, None, pretrained_whisper(str(tiny_whisper)))
    with pytest.raises(ValueError, match="no language token for ast; .*language_codes={ast: ...}"):
        WhisperTokenizer.of_pretrained(str(tiny_whisper), ["ast", "es"], {})
    assert WhisperTokenizer.of_pretrained(str(tiny_whisper), ["ast", "es"], {"ast": "es"}).language_tokens[0]
