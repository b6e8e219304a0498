"""Audio that strangers send: what amplifies is bounded before it is allocated, and every channel is heard."""

import io
import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import MonoCut, Recording

from masr.corpora import Utterance, cut_of, recording_of, unreadable
from masr.data import audio_checks
from masr.data.audio import read_audio
from masr.data.audio_checks import UnusableAudio, mix, resample
from masr.data.features import load_audio

RATE = 16000
NOISE = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)


def wav(rate: int) -> bytes:
    """A tenth of a second of 16-bit noise that claims any rate."""
    data = (NOISE[:1600] * 2**15).astype("<i2").tobytes()
    form = struct.pack("<IHHIIHH", 16, 1, 1, rate, (2 * rate) % 2**32, 2, 16)
    return b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt " + form + b"data" + struct.pack("<I", 3200) + data


def encoded(kind: str, samples: np.ndarray = NOISE) -> bytearray:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format=kind)
    return bytearray(file.getvalue())


def flac(claimed: int) -> bytes:
    """A second of FLAC whose header claims so many samples; 0 claims not to know."""
    data = encoded("FLAC")
    data[21] = data[21] & 0xF0 | claimed >> 32
    data[22:26] = struct.pack(">I", claimed % 2**32)
    return bytes(data)


def mp3(claimed_frames: int) -> bytes:
    """A second of MP3 whose Xing header claims so many frames of 576 samples."""
    data = encoded("MP3")
    place = data.find(b"Xing")
    data[place + 8 : place + 12] = struct.pack(">I", claimed_frames)
    return bytes(data)


BOMBS = {
    "1 Hz": (wav(1), "a.wav", "a sampling rate of 1 Hz; expected 4000 to 384000 Hz"),
    "2^31 - 1 Hz": (wav(2**31 - 1), "a.wav", "a sampling rate of 2.14748e.09 Hz; expected 4000 to 384000 Hz"),
    "FLAC of 2^36 samples": (flac(2**36 - 1), "a.flac", "claims 68719476735 samples of 1 channels, more than its"),
    "FLAC of 100 million": (flac(10**8), "a.flac", "claims 100000000 samples of 1 channels, more than its"),
    "FLAC of any length": (flac(0), "a.flac", "claims 9223372036854775807 samples of 1 channels, more than its"),
    "MP3 of a day": (mp3(10**7), "a.mp3", "samples of 1 channels, more than its 4896 bytes can hold"),
}


@contextmanager
def little_memory(mebibytes: int = 32) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < mebibytes * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("data", "name", "problem"), BOMBS.values(), ids=BOMBS)
def test_files_that_amplify_are_refused_by_every_reader_before_anything_is_allocated(data, name, problem, tmp_path):
    path = tmp_path / name
    path.write_bytes(data)
    with little_memory():
        recording = recording_of(path)
        assert recording.num_samples == 0, "so that stage 0 rejects it"
        assert unreadable(recording).startswith(f"{path}: ")
        with pytest.raises(UnusableAudio, match=f"{path}: .*{problem}"):
            read_audio(path)
        prepared = Recording.from_file(path)
        with pytest.raises(UnusableAudio, match=problem):
            load_audio(MonoCut("x", 0, prepared.duration, 0, recording=prepared))


def test_a_file_that_became_a_bomb_after_stage_0_is_refused_too(tmp_path):
    path = tmp_path / "a.flac"
    path.write_bytes(bytes(encoded("FLAC")))
    cut = cut_of(Utterance("x", path, "", "es", "ana"))
    load_audio(cut)
    path.write_bytes(flac(2**36 - 1))
    with little_memory(), pytest.raises(UnusableAudio, match="claims 68719476735 samples"):
        load_audio(cut)


def test_a_rate_that_has_no_short_period_with_16_khz_takes_no_gigabytes(tmp_path):
    """The kernel of torchaudio's resampling from 44101 Hz would have 7 * 10^8 numbers."""
    tone = np.sin(np.arange(44101) / 44101 * 2 * np.pi * 440).astype(np.float32) / 2
    path = tmp_path / "a.wav"
    soundfile.write(path, tone, 44101, subtype="FLOAT")
    expected = np.sin(np.arange(RATE) / RATE * 2 * np.pi * 440) / 2
    with little_memory(200):
        for audio in (read_audio(path), load_audio(cut_of(Utterance("x", path, "", "es", "ana")))):
            assert audio.dtype == np.float32 and abs(len(audio) - RATE) <= 1
            np.testing.assert_allclose(audio[1000:15000], expected[1000:15000], atol=0.01)


def test_strongly_compressed_audio_is_not_taken_for_a_bomb(tmp_path):
    silence_and_noise = np.concatenate([np.zeros(60 * RATE, np.float32), NOISE])
    for kind, suffix in (("FLAC", "flac"), ("MP3", "mp3"), ("OGG", "ogg")):
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(bytes(encoded(kind, silence_and_noise)))
        assert len(read_audio(path)) == pytest.approx(61 * RATE, abs=2000)
        assert recording_of(path).num_samples


@pytest.mark.parametrize(
    ("value", "problem"),
    [(1e20, "samples reach 1e.20; expected audio"), (np.nan, "1 samples are NaN"), (np.inf, "1 samples are NaN")],
)
def test_samples_that_no_microphone_records_are_the_fault_of_the_audio(value, problem, tmp_path):
    samples = NOISE.copy()
    samples[100] = value
    path = tmp_path / "a.wav"
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    for read in (lambda: read_audio(path), lambda: read_audio(samples), lambda: load_audio(_cut(path))):
        with pytest.raises(UnusableAudio, match=problem):
            read()


def test_audio_in_the_range_of_integers_is_still_read(tmp_path):
    soundfile.write(tmp_path / "a.wav", NOISE * 2**15, RATE, subtype="FLOAT")
    assert np.abs(load_audio(_cut(tmp_path / "a.wav"))).max() > 1000


@pytest.mark.parametrize("rate", [8000, RATE, 44100])
@pytest.mark.parametrize(("level", "what"), [(0.0, "digital silence"), (0.25, "0.25")])
def test_a_recording_that_is_constant_is_rejected_with_this_reason(level, what, rate, tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.full(rate, level), rate, subtype="FLOAT")
    with pytest.raises(UnusableAudio, match=f"all {rate} samples are the same: {what}"):
        load_audio(_cut(path))


def test_silence_that_is_transcribed_is_no_error():
    assert not read_audio(np.zeros(RATE, np.float32)).any()


@pytest.mark.parametrize("speaks", [0, 1])
def test_speech_on_either_channel_is_heard(speaks, tmp_path):
    path = tmp_path / "a.wav"
    channels = np.zeros((RATE, 2), np.float32)
    channels[:, speaks] = NOISE
    soundfile.write(path, channels, RATE, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(_cut(path)), NOISE / 2, atol=1e-6)


def test_a_corpus_may_name_the_channel(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([NOISE, NOISE[::-1]], axis=1), RATE, subtype="FLOAT")
    for channel, expected in enumerate([NOISE, NOISE[::-1]]):
        cut = cut_of(Utterance("x", path, "", "es", "ana", channel=channel))
        assert cut.supervisions[0].channel == channel
        np.testing.assert_array_equal(load_audio(cut), expected)


def test_of_channels_in_opposite_phase_the_louder_one_is_used_and_that_is_said_once(tmp_path, capsys):
    audio_checks._note_opposite_phase.cache_clear()
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([NOISE, -0.9 * NOISE], axis=1), RATE, subtype="FLOAT")
    for audio in (load_audio(_cut(path)), read_audio(path), read_audio(np.stack([NOISE, -0.9 * NOISE]))):
        np.testing.assert_array_equal(audio, NOISE)
    assert capsys.readouterr().out.count("in opposite phase") == 1


def test_channels_that_are_independent_are_averaged_however_many_they_are():
    channels = np.random.default_rng(1).normal(0, 0.1, (16, RATE)).astype(np.float32)
    np.testing.assert_array_equal(mix(channels), channels.mean(axis=0))
    np.testing.assert_array_equal(mix(np.zeros((2, 9), np.float32)), np.zeros(9))


def test_resampling_keeps_the_shape_of_channels():
    channels = np.stack([NOISE, NOISE])
    for rate in (8000, 16000, 44100, 44101):
        assert resample(channels, rate, RATE).shape[0] == 2
        assert resample(NOISE, rate, RATE).ndim == 1


def _cut(path: Path):
    return cut_of(Utterance("x", path, "", "es", "ana"))
