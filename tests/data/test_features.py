"""Features: those of Kaldi, of any readable audio at 16 kHz; statistics as by hand."""

import json
from pathlib import Path

import kaldi_native_fbank
import numpy as np
import pytest
import soundfile
from lhotse import MonoCut, Recording

from masr.data.features import KaldiLogMel, Statistics, UnusableAudio, change_speed, load_audio

CORPUS = Path(__file__).parents[2] / "egs/freevoices/corpus"


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """(S,) samples at 16 kHz of a real recording."""
    return soundfile.read(CORPUS / "fillets_cs.opus", frames=31579, dtype="float32")[0]


def kaldi_features(audio: np.ndarray, mel_bins: int) -> np.ndarray:
    """(T, F) of kaldi-native-fbank, with the options of Kaldi's recipes."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0.0
    options.frame_opts.snip_edges = False
    options.frame_opts.samp_freq = 16000
    options.mel_opts.num_bins = mel_bins
    options.mel_opts.low_freq, options.mel_opts.high_freq = 20.0, -400.0
    fbank = kaldi_native_fbank.OnlineFbank(options)
    fbank.accept_waveform(16000, audio.tolist())
    fbank.input_finished()
    return np.stack([fbank.get_frame(i) for i in range(fbank.num_frames_ready)])


@pytest.mark.parametrize("mel_bins", [80, 40])
def test_they_are_those_of_kaldi(speech, mel_bins):
    ours, theirs = KaldiLogMel(mel_bins)(speech), kaldi_features(speech, mel_bins)
    assert ours.shape == theirs.shape == (round(len(speech) / 160), mel_bins)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=1e-2)


@pytest.mark.parametrize("samples", [400, 559, 800])
def test_very_short_audio_still_has_finite_features(speech, samples):
    features = KaldiLogMel(80)(speech[8000 : 8000 + samples])
    assert features.ndim == 2 and features.shape[1] == 80
    assert np.isfinite(features).all()


def test_silence_has_finite_features():
    assert np.isfinite(KaldiLogMel(80)(np.zeros(16000, dtype=np.float32))).all()


def test_too_few_samples_and_samples_that_are_no_numbers_are_refused(speech):
    with pytest.raises(UnusableAudio, match="no samples are less than one window"):
        KaldiLogMel(80)(speech[:0])
    with pytest.raises(UnusableAudio, match="399 samples are less than one window"):
        KaldiLogMel(80)(speech[:399])
    spoilt = speech.copy()
    spoilt[[5, 9]] = np.nan, np.inf
    with pytest.raises(UnusableAudio, match="2 samples are NaN or infinite"):
        KaldiLogMel(80)(spoilt)


def cut_of(path: Path) -> MonoCut:
    recording = Recording.from_file(path)
    return MonoCut(path.stem, start=0, duration=recording.duration, channel=0, recording=recording)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_audio_of_any_sampling_rate_becomes_16_khz(rate, tmp_path):
    def tone(rate: int) -> np.ndarray:
        return 0.5 * np.sin(np.arange(rate) / rate * 2 * np.pi * 440)

    soundfile.write(tmp_path / "a.wav", tone(rate), rate, subtype="FLOAT")
    audio = load_audio(cut_of(tmp_path / "a.wav"))
    assert audio.shape == (16000,)
    np.testing.assert_allclose(audio[1000:-1000], tone(16000)[1000:-1000], atol=0.01)


def test_channels_of_a_multi_channel_cut_are_averaged(speech, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.stack([speech, 0 * speech], axis=1), 16000, subtype="FLOAT")
    audio = load_audio(Recording.from_file(tmp_path / "a.wav").to_cut())
    np.testing.assert_allclose(audio, speech / 2, atol=1e-6)


@pytest.mark.parametrize("damage", ["garbage", "truncated", "gone"])
def test_audio_that_cannot_be_read_says_so(speech, damage, tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, speech, 16000)
    cut = cut_of(path)
    match damage:
        case "garbage":
            path.write_bytes(b"garbage" * 100)
        case "truncated":
            path.write_bytes(path.read_bytes()[:2000])
        case "gone":
            path.unlink()
    with pytest.raises(UnusableAudio, match="cannot be read: ") as caught:
        load_audio(cut)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("speed", [0.9, 1.0, 1.1, 1.25])
def test_a_speed_changes_the_length_by_as_much(speech, speed):
    assert len(change_speed(speech, speed)) == pytest.approx(len(speech) / speed, abs=1)


def test_a_speed_changes_the_pitch():
    tone = np.sin(np.arange(16000) / 16000 * 2 * np.pi * 400).astype(np.float32)
    spectrum = np.abs(np.fft.rfft(change_speed(tone, 1.25)[:12800]))
    assert np.argmax(spectrum) * 16000 / 12800 == pytest.approx(500, abs=2)


def test_statistics_by_hand():
    statistics = Statistics.empty(2)
    statistics.add(np.array([[1.0, -2.0], [3.0, -2.0]], dtype=np.float32))
    statistics.add(np.array([[8.0, -2.0]], dtype=np.float32))
    assert statistics.frames == 3
    np.testing.assert_allclose(statistics.mean, [4.0, -2.0])
    np.testing.assert_allclose(statistics.deviation, [np.sqrt((9 + 1 + 16) / 3), np.sqrt(1e-5)])
    mean, deviation = statistics.tensors()
    assert mean.tolist() == [4.0, -2.0]
    assert deviation[0].item() == pytest.approx(np.sqrt(26 / 3))


def test_statistics_of_parts_add_up_to_those_of_the_whole(speech):
    features = KaldiLogMel(80)(speech)
    first, second, whole = (Statistics.empty(80) for _ in range(3))
    first.add(features[:50])
    second.add(features[50:])
    whole.add(features)
    both = first + second
    np.testing.assert_allclose(both.mean, features.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(both.deviation, features.std(axis=0), rtol=1e-4)
    np.testing.assert_allclose(both.deviation, whole.deviation)


def test_statistics_survive_json():
    statistics = Statistics.empty(3)
    statistics.add(np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32))
    back = Statistics.from_dict(json.loads(json.dumps(statistics.to_dict())))
    assert back.frames == 7
    np.testing.assert_array_equal(back.mean, statistics.mean)
    np.testing.assert_array_equal(back.deviation, statistics.deviation)
