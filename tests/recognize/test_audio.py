"""Audio as strangers send it is read in blocks to the samples of the plain recording, or refused in one line."""

import io
import os
import shutil
import struct
import sys
import threading
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr
import torch

from masr.data.audio_checks import UnusableAudio
from masr.recognize.audio import AudioStream, open_audio
from masr.recognize.libsndfile import Libsndfile

CORPUS = Path(__file__).parents[2] / "egs/freevoices/corpus"
RATE = 16000
CODECS = {
    "m4a": ("aac", "ipod"),
    "aac": ("aac", "adts"),
    "mp4": ("aac", "mp4"),
    "webm": ("libopus", "webm"),
    "mkv": ("flac", "matroska"),
    "wma": ("wmav2", "asf"),
    "amr": ("libopencore_amrnb", "amr"),
}


@pytest.fixture(scope="module")
def wave() -> np.ndarray:
    """(S,) four seconds of real speech."""
    with soundfile.SoundFile(CORPUS / "fillets_cs.opus") as file:
        return file.read(4 * RATE, dtype="float32")


def read(stream: AudioStream) -> np.ndarray:
    return np.concatenate(list(stream.blocks()))


def wav(samples: np.ndarray, rate: int = RATE, **options) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", **options)
    return file.getvalue()


def encode(path: Path, samples: np.ndarray, codec: str, container: str, video: bool = False, **options: str) -> Path:
    """Writes (S,) samples at 16 kHz, with a few pictures if ``video``."""
    rate = {"libopus": 48000, "libopencore_amrnb": 8000}.get(codec, RATE)
    with av.open(str(path), "w", format=container, options=options) as file:
        stream = file.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = {"libopencore_amrnb": 12200}.get(codec, 64000)
        pictures = file.add_stream("mpeg4", rate=5) if video else None
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = RATE, 0
        resampler = av.AudioResampler(stream.format, stream.layout, rate)
        if pictures:
            pictures.width, pictures.height, pictures.pix_fmt = 32, 32, "yuv420p"
            for number in range(5):
                picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
                picture.pts = number
                file.mux(pictures.encode(picture))
            file.mux(pictures.encode())
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(part))
        file.mux(stream.encode())
    return path


def likeness(found: np.ndarray, expected: np.ndarray) -> float:
    """Correlation at the best of a few shifts: codecs delay audio by up to a frame or two."""
    spectrum = np.fft.rfft(found, 2**18) * np.conj(np.fft.rfft(expected, 2**18))
    products = np.fft.irfft(spectrum)
    best = max(products[:3000].max(), products[-3000:].max())
    return float(best / np.linalg.norm(found) / np.linalg.norm(expected))


@pytest.mark.parametrize("suffix", CODECS)
def test_containers_are_recognised_by_content(suffix, wave, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    path = encode(tmp_path / f"a.{suffix}", wave, *CODECS[suffix], video=suffix == "mp4")
    renamed = path.rename(tmp_path / "a.wav")
    stream = open_audio(renamed)
    samples = read(stream)
    assert stream.warnings == []
    assert stream.seconds == pytest.approx(4, abs=0.3)
    assert abs(len(samples) - len(wave)) < 0.2 * RATE
    assert likeness(samples, wave) > (0.85 if suffix == "amr" else 0.99)  # amr: 8 kHz at 12.2 kbit/s
    np.testing.assert_array_equal(read(open_audio(renamed.read_bytes())), samples)


@pytest.mark.parametrize(("kind", "suffix"), [("WAV", "raw"), ("FLAC", "wav"), ("MP3", "dat"), ("OGG", "mp4")])
def test_libsndfile_needs_no_right_name_either(kind, suffix, wave, tmp_path):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, wave, RATE, format=kind)
    stream = open_audio(path)
    assert isinstance(stream.decoder, Libsndfile)
    assert likeness(read(stream), wave) > 0.99


def test_a_video_without_sound_and_what_is_no_audio_are_refused(wave, tmp_path):
    silent = tmp_path / "silent.mp4"
    with av.open(str(silent), "w") as file:
        pictures = file.add_stream("mpeg4", rate=5)
        pictures.width, pictures.height, pictures.pix_fmt = 32, 32, "yuv420p"
        file.mux(pictures.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")))
        file.mux(pictures.encode())
    text, empty = tmp_path / "a.wav", tmp_path / "b.wav"
    text.write_text("hello\n" * 99)
    empty.touch()
    (tmp_path / "garbage.wav").write_bytes(np.random.default_rng(0).bytes(50000))
    cut = encode(tmp_path / "cut.m4a", wave, "aac", "ipod")
    cut.write_bytes(cut.read_bytes()[:9999])
    for path, found in {
        silent: "holds no audio stream",
        text: "cannot be decoded",
        tmp_path / "garbage.wav": "cannot be decoded",
        empty: "is empty (0 bytes)",
        cut: "cannot be decoded (",
        tmp_path: "cannot be opened (Is a directory)",
        tmp_path / "missing.wav": "no such file",
    }.items():
        with pytest.raises(UnusableAudio) as caught:
            open_audio(path)
        assert str(caught.value).startswith(f"{path}: {found}")
        assert "\n" not in str(caught.value)


def test_without_ffmpeg_and_pyav_the_way_out_is_named(wave, tmp_path, monkeypatch):
    path = encode(tmp_path / "a.m4a", wave, "aac", "ipod")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UnusableAudio, match=r"a.m4a: .* install ffmpeg, or pip install 'masr\[audio\]'"):
        open_audio(path)
    with pytest.raises(UnusableAudio, match=r"audio: no samples"):
        open_audio(wav(wave[:0]))


def test_a_playlist_opens_no_other_file(wave, tmp_path, monkeypatch):
    encode(tmp_path / "secret.aac", wave, "aac", "adts")
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nfile://{tmp_path}/secret.aac\n#EXT-X-ENDLIST\n"
    for text in (playlist, "ffconcat version 1.0\nfile secret.aac\n"):
        path = tmp_path / "a.m3u8"
        path.write_text(text)
        with pytest.raises(UnusableAudio):
            open_audio(path)


def test_the_program_ffmpeg_is_preferred(wave, tmp_path, monkeypatch):
    """A program that writes what ffmpeg does for a stereo file at 8 kHz, or for one that it cannot decode."""
    path = encode(tmp_path / "a.m4a", wave, "aac", "ipod")
    stereo = np.stack([wave[::2], 0 * wave[::2]], 1).astype(">f4")
    (tmp_path / "answer.au").write_bytes(struct.pack(">4s5I", b".snd", 28, 2**32 - 1, 6, 8000, 2) + bytes(4))
    with (tmp_path / "answer.au").open("ab") as answer:
        answer.write(stereo.tobytes())
    program = tmp_path / "ffmpeg"
    program.write_text(
        f"#!{sys.executable}\nimport sys\n"
        "name = sys.argv[sys.argv.index('-i') + 1]\n"
        "if not name.startswith('file:') or 'broken' in name:\n"
        "    sys.exit('[in#0 @ 0x1] [error] moov atom not found')\n"
        "print('[info] Input #0, mov,mp4, from x:\\n[info]   Duration: 00:00:09.00, start', file=sys.stderr)\n"
        f"sys.stdout.buffer.write(open({str(tmp_path / 'answer.au')!r}, 'rb').read())\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for source in (path, path.read_bytes()):
        stream = open_audio(source, channel=0)
        assert (stream.channels, stream.seconds) == (2, 9)
        assert len(stream_samples := read(stream)) == pytest.approx(len(wave), abs=2)
        assert likeness(stream_samples, wave) > 0.9
        assert "shorter than its header says: 4.0 s of 9.0 s" in stream.warnings[0]
    shutil.copy(path, tmp_path / "broken.m4a")
    with pytest.raises(UnusableAudio, match=r"broken.m4a: cannot be decoded \(moov atom not found\): the index"):
        open_audio(tmp_path / "broken.m4a")


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000])
def test_blocks_are_the_whole_recording_resampled_without_seams(rate, tmp_path):
    with soundfile.SoundFile(CORPUS / "fillets_cs.opus") as file:
        speech = soxr.resample(file.read(25 * RATE, dtype="float32"), RATE, rate)
    path = tmp_path / "a.wav"
    soundfile.write(path, speech, rate, subtype="FLOAT")
    blocks = list(open_audio(path).blocks())
    assert len(blocks) >= 3
    assert max(len(block) for block in blocks) < 13 * RATE
    assert all(block.dtype == np.float32 and block.ndim == 1 for block in blocks)
    whole = soxr.resample(speech, rate, RATE)
    np.testing.assert_allclose(np.concatenate(blocks), whole, atol=1e-4)


@pytest.mark.parametrize("size", [0, 2**32 - 1, 10**6], ids=["0", "0xFFFFFFFF", "larger than the file"])
def test_a_header_that_lies_about_the_length(size, wave, tmp_path):
    expected, plain = read(open_audio(wav(wave))), wav(wave)
    content = plain[:40] + struct.pack("<I", size) + plain[44:]
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    for source in (path, content):
        stream = open_audio(source)
        assert stream.seconds == 4
        np.testing.assert_array_equal(read(stream), expected)
        [warning] = stream.warnings
        assert warning.startswith("the file is shorter than" if size == 10**6 else "its header ")


def test_an_empty_wav_file_with_notes_behind_is_empty(wave):
    with pytest.raises(UnusableAudio, match="audio: no samples"):
        open_audio(wav(wave[:0]) + b"LIST" + struct.pack("<I", 4) + b"INFO")


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "MP3", "AIFF", "webm", "m4a"])
def test_of_a_file_cut_in_half_half_is_read(kind, wave, tmp_path):
    path = tmp_path / "a"
    if kind in CODECS:
        encode(path, wave, *CODECS[kind], **({"movflags": "faststart"} if kind == "m4a" else {}))
    else:
        soundfile.write(path, wave, RATE, format=kind)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    stream = open_audio(path)
    samples = read(stream)
    assert 1.2 * RATE < len(samples) < 2.8 * RATE
    assert likeness(samples, wave[: len(samples)]) > 0.97
    assert "shorter than its header says" in stream.warnings[-1]
    assert "of 4.0 s" in stream.warnings[-1]


def test_one_silent_channel_does_not_make_the_other_silent(wave):
    right = np.stack([0 * wave, wave], 1)
    stream = open_audio(wav(right, subtype="FLOAT"))
    np.testing.assert_allclose(read(stream), wave / 2, atol=1e-6)
    assert stream.warnings == []


def test_opposite_phase_is_noticed_in_each_file(wave):
    long = np.concatenate([np.zeros(15 * RATE, np.float32), wave, wave])
    for _ in range(2):
        stream = open_audio(wav(np.stack([0.5 * long, -0.51 * long], 1), subtype="FLOAT"))
        np.testing.assert_allclose(read(stream), -0.51 * long, atol=1e-6)
        [warning] = stream.warnings
        assert "opposite phase" in warning and "channel 1" in warning


def test_faint_hum_in_opposite_phase_does_not_cost_the_other_speaker(wave):
    """The hum of a pause cancels; the two channels of the conversation around it do not."""
    hum = np.tile(1e-4 * np.sin(np.arange(10 * RATE) / RATE * 314).astype(np.float32), (2, 1)) * [[1], [-1]]
    silence = np.zeros_like(wave)
    speakers = np.concatenate([np.stack([wave, silence]), np.stack([silence, wave])], axis=1)
    stream = open_audio(np.concatenate([hum, speakers], axis=1))
    samples = read(stream)
    np.testing.assert_allclose(samples[10 * RATE :], np.concatenate([wave, wave]) / 2, atol=1e-6)
    assert stream.warnings == []


def test_each_channel_can_be_read_alone(wave):
    content = wav(np.stack([wave, wave[::-1]], 1), subtype="FLOAT")
    np.testing.assert_array_equal(read(open_audio(content, channel=0)), wave)
    np.testing.assert_array_equal(read(open_audio(content, channel=1)), wave[::-1])
    for channel in (2, -1):
        with pytest.raises(UnusableAudio, match=f"audio: no channel {channel}: it has 2"):
            open_audio(content, channel=channel)


def pcm(samples: np.ndarray, kind: str, bits: int) -> np.ndarray:
    return np.round(samples * 2.0 ** (bits - 1)).clip(-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1).astype(kind)


ARRAYS = {
    "float64": lambda wave: wave.astype(np.float64),
    "float16": lambda wave: wave.astype(np.float16),
    "big-endian": lambda wave: wave.astype(">f4"),
    "int16": lambda wave: pcm(wave, "i2", 16),
    "int32": lambda wave: pcm(wave, "i4", 32),
    "int32 of 16 bits": lambda wave: pcm(wave, "i4", 16),
    "int32 of 24 bits": lambda wave: pcm(wave, "i4", 24),
    "int64 of 16 bits": lambda wave: pcm(wave, "i8", 16),
    "int64 of 32 bits": lambda wave: pcm(wave, "i8", 32),
    "uint16": lambda wave: (pcm(wave, "i4", 16) + 2**15).astype(np.uint16),
    "strided": lambda wave: np.repeat(wave, 2)[::2],
    "(1, S)": lambda wave: wave[np.newaxis],
    "(S, 2)": lambda wave: np.stack([wave, wave], 1),
    "(2, S)": lambda wave: np.stack([wave, wave]),
    "tensor": lambda wave: torch.from_numpy(wave).requires_grad_(),
    "tensor of int16": lambda wave: torch.from_numpy(pcm(wave, "i2", 16)),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_of_any_type(kind, wave):
    stream = open_audio(ARRAYS[kind](wave))
    assert (stream.name, stream.seconds) == ("audio", 4)
    np.testing.assert_allclose(read(stream), wave, atol=1e-3 if kind == "float16" else 1e-4)
    assert stream.warnings == []


@pytest.mark.parametrize("kind", [np.uint8, np.int8, torch.bfloat16])
def test_arrays_of_eight_bits(kind, wave):
    if kind is torch.bfloat16:
        array = torch.from_numpy(wave).to(kind)
    else:
        array = pcm(wave, "i2", 8)
        array = (array + 128 if kind is np.uint8 else array).astype(kind)
    samples = read(open_audio(array))
    np.testing.assert_allclose(samples, wave, atol=1 / 128)


@pytest.mark.parametrize(
    ("audio", "found"),
    [
        (np.zeros(9, bool), "audio: expected samples .* found bool"),
        (torch.zeros(9, dtype=torch.bool), "audio: expected samples .* found bool"),
        (np.zeros(9, complex), "audio: expected samples .* found complex128"),
        (np.zeros((1, 1, 9)), r"audio: expected samples .* found float64 \(1, 1, 9\)"),
        (np.zeros((99, 99)), "audio: expected samples .* no axis is of channels"),
        (np.zeros((2, 0)), "audio: no samples"),
        (np.array([2**40, 0]), "audio: integers reach 1.1e.12"),
        (b"", "audio: is empty"),
        (io.StringIO("RIFF"), "audio: expected a file of bytes"),
        (17, "audio: expected a file's name, .* found int"),
        ("a\0b", "cannot be opened"),
    ],
)
def test_what_is_no_audio_is_refused_in_a_line(audio, found):
    with pytest.raises(UnusableAudio, match=found):
        open_audio(audio)


def test_samples_that_are_no_numbers_are_refused_when_they_come(wave):
    broken = wave.copy()
    broken[5:7] = np.nan
    stream = open_audio(broken)
    with pytest.raises(UnusableAudio, match="audio: 2 samples are NaN or infinite"):
        read(stream)
    for rate in (0, -1, 1e9):
        with pytest.raises(UnusableAudio, match="a sampling rate of"):
            open_audio(wave, sample_rate=rate)


@pytest.mark.parametrize("hold", [bytes, bytearray, memoryview, io.BytesIO])
def test_the_content_of_a_file_is_audio(hold, wave):
    content = wav(wave, subtype="FLOAT")
    source = hold(content)
    if hold is io.BytesIO:
        source.seek(0, io.SEEK_END)  # as after writing
    np.testing.assert_array_equal(read(open_audio(source)), wave)
    if hold is io.BytesIO:
        assert not source.closed


def test_open_files_and_pipes_are_audio(wave, tmp_path):
    path = tmp_path / "a.raw"
    path.write_bytes(wav(wave, subtype="FLOAT"))
    with path.open("rb") as file:
        stream = open_audio(file)
        assert stream.name == str(path)
        np.testing.assert_array_equal(read(stream), wave)
        assert not file.closed
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(path.read_bytes()))
    writer.start()
    np.testing.assert_array_equal(read(open_audio(pipe)), wave)
    writer.join()


def test_names_need_not_be_utf_8(wave, tmp_path):
    for suffix, content in {
        "wav": wav(wave, subtype="FLOAT"),
        "m4a": encode(tmp_path / "a.m4a", wave, "aac", "ipod").read_bytes(),
    }.items():
        name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9." + suffix.encode())
        Path(name).write_bytes(content)
        for source in (name, Path(name)):
            stream = open_audio(source)
            assert stream.name == name
            assert likeness(read(stream), wave) > 0.99


def test_levels_far_outside_are_scaled(wave):
    speech = wave / np.abs(wave).max()
    for factor, peak in ((30000, 30000 / 2**15), (20, 1.0), (2**30, 0.5)):
        for source in (factor * speech, wav(factor * speech, subtype="FLOAT")):
            stream = open_audio(source)
            np.testing.assert_allclose(read(stream), peak * speech, atol=1e-5)
            [warning] = stream.warnings
            assert warning.startswith(f"samples reach {factor:.4g}, expected -1 to 1")
    stream = open_audio(1.5 * speech)  # as decoders of MP3 overshoot
    np.testing.assert_array_equal(read(stream), 1.5 * speech)
    assert stream.warnings == []


def test_digital_silence_is_a_warning():
    stream = open_audio(np.zeros(25 * RATE, np.int16))
    assert len(read(stream)) == 25 * RATE
    assert stream.warnings == ["all 400000 samples are the same: digital silence"]


def test_blocks_can_be_read_once(wave):
    stream = open_audio(wave)
    assert len(read(stream)) == len(wave)
    with pytest.raises(ValueError, match="audio: closed, or its blocks have been read"):
        read(stream)


def test_memory_does_not_grow_with_the_recording(tmp_path):
    """Two hours: 220 MB in the (sparse) file, 440 MB as float32."""
    path = tmp_path / "a.wav"
    size = 2 * 3600 * RATE * 2
    path.write_bytes(wav(np.zeros(0, np.int16))[:40] + struct.pack("<I", size))
    os.truncate(path, 44 + size)
    tracemalloc.start()
    try:
        stream = open_audio(path)
        length = sum(len(block) for block in stream.blocks())
        assert tracemalloc.get_traced_memory()[1] < 30 * 2**20
    finally:
        tracemalloc.stop()
    assert length == size / 2
    assert stream.seconds == 7200
