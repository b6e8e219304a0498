"""Streaming: whatever the parts in which audio comes, it is recognised as the whole; on a tiny model."""

import io
import json
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

import masr
from masr import cli
from masr.config import Config, Vocab
from masr.data.features import KaldiLogMel, LogMelPieces
from masr.models.folder import save_model
from masr.models.recognizer import Recognizer
from masr.nn.encoder import PIECE
from masr.recognize import stream
from masr.recognize.recognizer import SpeechRecognizer
from masr.recognize.segments import Request
from masr.recognize.speech import Speech
from masr.text.tokenizer import train_tokenizer

CORPUS = Path(__file__).parents[2] / "egs/freevoices/corpus"
RATE = 16000
ENCODER = {
    "type": "mamba", "directions": "forward", "look_ahead": 3, "layers": 2, "width": 16, "feedforward": 16,
    "kernel": 3, "subsampling_channels": 4, "state_size": 4, "head_size": 8,
}  # fmt: skip


DECODE = {"methods": ["ctc-prefix-beam"], "beam": 3, "segments": {"voice_activity": False, "longest": 60}}
"""Random weights need not hear speech, and a stream is to hear what they do."""


def save(path: Path, **changes) -> Path:
    """A model folder with large random weights, so that what it says changes from frame to frame."""
    model = {"encoder": ENCODER, "normalization": "corpus", "language_classifier": {"weight": 0.1}} | changes
    config = Config(name="tiny", model=model, decode=DECODE)
    tokenizer = train_tokenizer({"el": ["μια γάτα"] * 9, "es": ["una vaca y un gato"] * 9}, Vocab())
    torch.manual_seed(3)
    recognizer = Recognizer(config, tokenizer)
    recognizer.set_statistics(torch.full((80,), -8.0), torch.full((80,), 3.0))
    for parameter in recognizer.parameters():
        parameter.data *= 2
    save_model(path, recognizer)
    return path


@pytest.fixture(scope="module", params=["mamba1", "mamba2"])
def folder(request, tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("model"), encoder=ENCODER | {"state_space": request.param})


@pytest.fixture(scope="module")
def recognizer(folder) -> SpeechRecognizer:
    return masr.load(str(folder))


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """(S,) five seconds of Czech."""
    return soundfile.read(CORPUS / "fillets_cs.opus", frames=5 * RATE + 123, dtype="float32")[0]


def in_parts(samples: np.ndarray, size: int) -> list[np.ndarray]:
    return [samples[start : start + size] for start in range(0, len(samples), size)]


@pytest.mark.parametrize("seconds", [0.01, 0.3, 0.64, 0.6475, 1.3, 5.0])
@pytest.mark.parametrize("size", [7, 1600, 10**6])
def test_pieces_of_features_do_not_depend_on_the_parts_of_the_audio(speech, seconds, size):
    samples = speech[: round(seconds * RATE)]
    pieces = LogMelPieces(KaldiLogMel(80), 64)
    found = [piece for part in in_parts(samples, size) for piece in pieces.push(part)]
    assert {len(piece) for piece in found} <= {64}
    rest = pieces.finish()
    assert rest and all(len(piece) for piece in rest)
    at_once = LogMelPieces(KaldiLogMel(80), 64)
    expected = [*at_once.push(samples), *at_once.finish()]
    assert all(np.array_equal(one, other) for one, other in zip([*found, *rest], expected, strict=True))
    whole = KaldiLogMel(80)(np.pad(samples, (0, max(0, 400 - len(samples)))))
    np.testing.assert_allclose(np.concatenate([*found, *rest]), whole, atol=2e-4)


@pytest.mark.parametrize("frames", [1, 4 * PIECE - 1, 4 * PIECE, 4 * PIECE + 1, 500])
def test_the_encoder_gives_a_stream_the_very_numbers_of_the_whole(recognizer, frames):
    encoder, features = recognizer.model.encoder, torch.randn(1, frames, 80)
    with torch.no_grad():
        whole = encoder(features, torch.tensor([frames])).frames
        memory, found = {}, []
        pieces = features.split(4 * PIECE, 1)
        for number, piece in enumerate(pieces, 1):
            size = torch.tensor([piece.shape[1]])
            found.append(encoder.step(piece, size, memory, last=number == len(pieces)).frames)
    assert torch.equal(torch.cat(found, 1), whole)


@pytest.mark.parametrize("size", [160, 1600, 12345])
def test_a_stream_hears_what_the_whole_recording_says(recognizer, speech, size):
    heard = recognizer.stream()
    transcripts = [t for part in in_parts(speech, size) for t in heard.push(part)] + heard.finish()
    whole = recognizer.transcribe(speech)
    assert " ".join(t.text for t in transcripts) == whole.text
    assert [word for t in transcripts for word in t.words] == whole.words
    assert len(whole.text) > 5 and whole.language in ("el", "es")
    assert whole.words[-1].end <= whole.end == pytest.approx(len(speech) / RATE, abs=1e-3)
    assert [t.log_probability for t in transcripts if t.text] == [s.log_probability for s in whole.segments]


@pytest.mark.parametrize(
    ("encoder", "model"),
    [
        ({"subsampling": 6, "look_ahead": 20}, {"ctc": {"upsampling": 2}}),
        ({"subsampling": 8, "subsampling_type": "plain", "kernel": 1}, {}),
        ({"look_ahead": 0}, {"attention_decoder": {"weight": 0.3, "layers": 1, "width": 16, "feedforward": 16}}),
    ],
)
def test_a_stream_hears_what_a_batch_says(tmp_path, speech, encoder, model):
    recognizer = masr.load(str(save(tmp_path / "model", encoder=ENCODER | encoder, **model)))
    request = Request(torch.ones(2, dtype=torch.bool))
    [batch] = recognizer.segments._recognize([Speech(0.0, speech)], request)
    whole = recognizer.transcribe(speech)
    assert (whole.text, whole.language, whole.words) == (batch.text, batch.language, batch.words)
    assert whole.log_probability == pytest.approx(batch.log_probability, rel=1e-3) and len(whole.text) > 2


def test_integers_and_channels_are_samples_too(recognizer, speech):
    integers = (speech * 2**15).clip(-(2**15), 2**15 - 1).astype(np.int16)
    heard = recognizer.stream()
    transcripts = [*heard.push(np.stack((integers, integers))), *heard.finish()]
    assert " ".join(t.text for t in transcripts) == recognizer.transcribe(integers).text


def test_a_stream_without_audio_says_nothing_and_a_finished_one_takes_no_more(recognizer, speech):
    heard = recognizer.stream()
    assert heard.finish() == []
    heard = recognizer.stream()
    heard.push(speech)
    assert heard.finish() and heard.finish() == []
    with pytest.raises(ValueError, match="this stream is finished"):
        heard.push(speech)


def test_what_is_heard_so_far_grows(recognizer, speech):
    heard, partial = recognizer.stream(), []
    for part in in_parts(speech[: 4 * RATE], 1600):
        heard.push(part)
        partial.append(heard.partial)
    assert partial[0] == "" and len(set(partial)) > 3


def test_a_pause_ends_a_transcript_and_silence_says_nothing(recognizer, speech, monkeypatch):
    blank = recognizer.model.ctc.blank
    bias = recognizer.model.ctc.output.bias
    monkeypatch.setattr(bias, "data", bias.data.clone())
    bias.data[blank] += 1e4
    heard = recognizer.stream()
    assert [t for part in in_parts(speech, 1600) for t in heard.push(part)] + heard.finish() == []
    assert heard.start > 0, "silence is not kept"


def test_transcripts_without_a_pause_end_after_a_while(recognizer, speech, monkeypatch):
    monkeypatch.setattr(stream, "LONGEST", 1.5)
    heard = recognizer.stream()
    transcripts = [t for part in in_parts(speech, 1600) for t in heard.push(part)] + heard.finish()
    assert len(transcripts) >= 3
    starts = [word.start for t in transcripts for word in t.words]
    assert starts == sorted(starts) and starts[-1] > 3


def test_a_long_transcript_is_cut_in_the_longest_silence_of_its_second_half():
    silent = torch.tensor([1, 1, 1, 1, 0, 0, 1, 0, 1, 1, 1, 0], dtype=torch.bool)
    assert stream._middle_of_the_longest_run(silent) == 9
    assert stream._middle_of_the_longest_run(~torch.ones(7, dtype=torch.bool)) == 7


def test_languages_to_expect(recognizer, speech):
    heard = recognizer.stream(["es"])
    text = " ".join(t.text for t in [*heard.push(speech), *heard.finish()])
    assert text and set(text) <= set("una vaca y un gato")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": ENCODER | {"directions": "inner", "look_ahead": 0}}, "directions=forward"),
        ({"normalization": "utterance"}, "model.normalization=corpus"),
        ({"normalization": "speech"}, "model.normalization=corpus"),
    ],
)
def test_models_that_need_the_whole_recording_say_so(tmp_path, speech, changes, message):
    recognizer = masr.load(str(save(tmp_path / "model", **changes)))
    with pytest.raises(ValueError, match=message):
        recognizer.stream()
    assert recognizer.transcribe(speech).text


def test_heads_by_language_stream_in_one_language(tmp_path, speech):
    recognizer = masr.load(str(save(tmp_path / "model", ctc={"per_language": True})))
    with pytest.raises(ValueError, match="to stream, name one language"):
        recognizer.stream()
    assert recognizer.transcribe(speech) is not None
    stream = recognizer.stream(["es"])
    heard = " ".join(found.text for found in [*stream.push(speech), *stream.finish()])
    assert heard == recognizer.transcribe(speech, languages=["es"]).text


def test_the_command_prints_what_is_heard_so_far(folder, recognizer, speech, tmp_path, monkeypatch, capsys):
    soundfile.write(tmp_path / "a.wav", speech, RATE, subtype="FLOAT")
    monkeypatch.setattr(sys, "argv", ["masr", "transcribe", str(folder), "--stream", str(tmp_path / "a.wav")])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    final = [line for line in lines if not line.startswith("... ")]
    assert " ".join(final) == recognizer.transcribe(speech).text
    assert len(lines) - len(final) > 3


@pytest.mark.parametrize("header", [True, False])
def test_standard_input_is_read(folder, recognizer, speech, header):
    samples = (speech * 2**15).clip(-(2**15), 2**15 - 1).astype("<i2")
    data = samples.tobytes()
    if header:
        file = io.BytesIO()
        with wave.open(file, "wb") as wav:
            wav.setparams((1, 2, RATE, 0, "NONE", ""))
            wav.writeframes(data)
        data = file.getvalue()
    command = [sys.executable, "-m", "masr.cli", "transcribe", str(folder), "--stream", "-", "--json"]
    result = subprocess.run(command, input=data, capture_output=True)
    assert result.returncode == 0, result.stderr.decode()
    rows = [json.loads(line) for line in result.stdout.decode().splitlines()]
    expected = recognizer.transcribe(samples)
    assert " ".join(row["text"] for row in rows if "text" in row) == expected.text
    times = [row["time"] for row in rows if "partial" in row]
    assert times == sorted(times) and len(times) > 3


def as_wav(rate: int, size: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setparams((1, 2, rate, 0, "NONE", ""))
        wav.writeframes(bytes(size))
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (as_wav(1000, 100), "standard input: a sampling rate of 1000 Hz; expected 4000 to 384000 Hz"),
        (as_wav(16000, 100).replace(b"\x01\x00\x01\x00", b"\x03\x00\x01\x00"), "expected WAV with 16-bit integers"),
        (b"fLaC" + bytes(100), "cannot be decoded"),
        (b"\x00\x00\x00\x20ftypM4A " + bytes(100), "cannot be decoded"),
    ],
)
def test_what_is_not_16_bit_audio_is_refused(monkeypatch, data, message):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data))))
    with pytest.raises(ValueError, match=message):
        list(stream.read_parts("-"))


@pytest.mark.parametrize(("rate", "channels"), [(16000, 2), (8000, 1), (44100, 2)])
def test_wav_of_any_rate_is_followed_on_standard_input(monkeypatch, speech, rate, channels):
    samples = soxr.resample(speech, RATE, rate)
    file = io.BytesIO()
    soundfile.write(file, np.stack([samples] * channels, 1), rate, format="WAV", subtype="PCM_16")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(file.getvalue()))))
    found = np.concatenate(list(stream.read_parts("-")))
    expected = soxr.resample(samples, rate, RATE)
    assert abs(len(found) - len(expected)) <= 1
    assert np.corrcoef(found[: len(expected)], expected[: len(found)])[0, 1] > 0.999


@pytest.mark.parametrize("kind", ["FLAC", "OGG"])
def test_other_containers_are_known_by_their_beginning(monkeypatch, speech, kind):
    file = io.BytesIO()
    soundfile.write(file, speech, RATE, format=kind)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(file.getvalue()))))
    found = np.concatenate(list(stream.read_parts("-")))
    assert np.corrcoef(found[: len(speech)], speech[: len(found)])[0, 1] > 0.99


def test_a_header_that_does_not_know_the_length_is_believed_to_go_on(monkeypatch):
    data = as_wav(16000, 0) + bytes(4000)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data))))
    assert sum(map(len, stream.read_parts("-"))) == 2000


def test_an_interrupt_ends_the_audio(recognizer, speech, monkeypatch, capsys):
    def interrupted(_):
        yield speech
        raise KeyboardInterrupt

    monkeypatch.setattr(stream, "read_parts", interrupted)
    stream.print_stream(recognizer.stream(), "-", name="a: ")
    lines = capsys.readouterr().out.splitlines()
    final = [line.removeprefix("a: ") for line in lines if not line.startswith("a: ... ")]
    assert " ".join(final) == recognizer.transcribe(speech).text
