"""Voice activity and segments, on real speech with silence, noise and tones around it."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from masr.config import Segments
from masr.recognize.speech import Segmenter, Speech, VoiceActivity, joined, quietest, segments_of

CORPUS = Path(__file__).parents[2] / "egs/freevoices/corpus"
RATE = 16000
NOISE = np.random.default_rng(1)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """(S,) a Spanish sentence of two and a half seconds, without a pause."""
    return soundfile.read(CORPUS / "tuxpaint_es.opus", frames=int(2.5 * RATE), dtype="float32")[0]


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


def faint(seconds: float) -> np.ndarray:
    return NOISE.normal(0, 1e-3, round(seconds * RATE)).astype(np.float32)


def in_blocks(samples: np.ndarray, size: int) -> list[np.ndarray]:
    return [samples[start : start + size] for start in range(0, len(samples), size)]


@pytest.mark.parametrize("size", [100, 512, 7777])
def test_probabilities_do_not_depend_on_the_blocks(speech, size):
    samples = np.concatenate((silence(1.01), speech))
    whole, parts = VoiceActivity(), VoiceActivity()
    expected = np.concatenate((whole.push(samples), whole.finish()))
    found = [parts.push(block) for block in in_blocks(samples, size)]
    np.testing.assert_allclose(np.concatenate((*found, parts.finish())), expected, atol=1e-5)
    assert len(expected) == -(-len(samples) // 512)
    assert expected[:30].max() < 0.2 and expected[40:100].mean() > 0.7


@pytest.mark.parametrize("gap", [silence, faint])
@pytest.mark.parametrize("size", [1600, 160000])
def test_two_sentences_are_two_segments_where_they_are(speech, gap, size):
    samples = np.concatenate((gap(3), speech, gap(14), speech, gap(5)))
    found = list(segments_of(in_blocks(samples, size), Segments()))
    assert len(found) == 2
    for segment, start in zip(found, (3.0, 3 + 2.5 + 14), strict=True):
        assert segment.start == pytest.approx(start, abs=0.35)
        assert 1.5 < segment.seconds < 3.2 and segment.probability > 0.6
        first = round(segment.start * RATE)
        np.testing.assert_array_equal(segment.samples, samples[first : first + len(segment.samples)])


def tone(hertz: float) -> np.ndarray:
    return (0.2 * np.sin(2 * np.pi * hertz * np.arange(5 * RATE) / RATE)).astype(np.float32)


@pytest.mark.parametrize(
    "samples",
    [silence(5), faint(5), NOISE.normal(0, 0.1, 5 * RATE), tone(440), tone(3000), tone(440) + tone(554) + tone(659)],
    ids=["zeros", "faint noise", "loud noise", "tone", "high tone", "chord"],
)
def test_where_nobody_speaks_there_is_no_segment(samples):
    assert list(segments_of([samples], Segments())) == []


def test_speech_without_a_pause_is_cut_and_nothing_is_lost(speech):
    samples = np.tile(speech, 20)
    options = Segments(longest=8.0, pause=2.0, padding=0.0)
    found = list(segments_of(in_blocks(samples, 16000), options))
    assert len(found) > 5 and max(segment.seconds for segment in found) <= 8.0
    for one, following in pairwise(found):
        assert following.start == pytest.approx(one.end, abs=1e-4)


@pytest.mark.parametrize("frames", [62, 63, 64, 65, 70])
def test_the_end_of_speech_that_was_cut_is_no_noise(frames, monkeypatch):
    """Speech of about the longest length (64 frames), whose quietest place may be just before its end."""
    probabilities = np.repeat(np.float32([0, 1, 0]), [20, frames, 60])
    samples = NOISE.normal(0, 1e-3, 512 * len(probabilities)).astype(np.float32)
    samples[20 * 512 : (20 + frames) * 512] *= 100
    segmenter = Segmenter(Segments(longest=64 * 512 / RATE))
    monkeypatch.setattr(segmenter.activity, "push", lambda samples: probabilities)
    found = segmenter.push(samples) + segmenter.finish()
    assert found[0].start == 20 * 512 / RATE - 0.2
    assert found[-1].end == pytest.approx((20 + frames) * 512 / RATE + 0.2)
    for one, following in pairwise(found):
        assert one.end == pytest.approx(following.start)


def test_an_hour_takes_no_more_room_than_a_minute(speech):
    segmenter, longest = Segmenter(Segments()), 0
    block = np.concatenate((speech, silence(2.5)))
    for _ in range(100):
        segmenter.push(block)
        longest = max(longest, len(segmenter.audio))
    assert longest < 10 * RATE


def test_without_detection_all_of_it_is_recognised(speech):
    samples = np.concatenate((silence(15), speech, silence(15)))
    found = list(segments_of(in_blocks(samples, 50000), Segments(voice_activity=False)))
    np.testing.assert_array_equal(np.concatenate([segment.samples for segment in found]), samples)


def test_segments_are_joined_across_pauses_up_to_a_length():
    parts = [Speech(start, np.full(RATE, 0.5, np.float32)) for start in (0.0, 2.0, 4.0, 6.5, 12.0)]
    found = list(joined(parts, 6.0))
    assert [(segment.start, segment.seconds) for segment in found] == [(0.0, 5.0), (6.5, 1.0), (12.0, 1.0)]
    assert found[0].samples[RATE + 1] == 0 and found[0].samples[2 * RATE + 1] == 0.5
    assert [segment.start for segment in joined(parts, 29.0)] == [0.0, 12.0], "a long pause ends a segment"
    assert len(list(joined(parts, 0.0))) == 5


def test_the_quietest_place_is_in_the_second_half():
    samples = np.ones(10 * RATE, np.float32)
    samples[int(0.5 * RATE) : RATE] = samples[7 * RATE : int(7.5 * RATE)] = 0
    assert quietest(samples) / RATE == pytest.approx(7.2, abs=0.2)


def test_torch_keeps_its_threads():
    before = torch.get_num_threads()
    VoiceActivity().push(silence(1))
    assert torch.get_num_threads() == before
