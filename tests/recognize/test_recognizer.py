"""The inference API, on a tiny model with random weights: what goes in, what comes out, and what is refused."""

import json
import shutil
import sys
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny_model import DECODE, MODEL

import masr
from masr import cli
from masr.config import Config, Segments, Vocab
from masr.data.features import UnusableAudio
from masr.models.folder import save_model
from masr.models.recognizer import Recognizer
from masr.recognize import Segment, Transcript
from masr.recognize import recognizer as recognize
from masr.recognize.recognizer import join
from masr.recognize.speech import segments_of
from masr.text.tokenizer import train_tokenizer

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "egs/freevoices/corpus"
RATE = 16000


@pytest.fixture
def wav(speech, tmp_path) -> Path:
    soundfile.write(tmp_path / "a.wav", speech, RATE, subtype="FLOAT")
    return tmp_path / "a.wav"


def assert_same(one: Transcript, other: Transcript) -> None:
    assert one.text == other.text
    assert one.language == other.language
    assert one.words == other.words
    if other.log_probability is None:  # less than a window of audio
        assert one.log_probability is None
    else:
        assert one.log_probability == pytest.approx(other.log_probability, rel=1e-3)


def test_it_says_something_with_words_in_order(recognizer, speech):
    transcript = recognizer.transcribe(speech)
    assert " ".join(transcript.text.split()) == " ".join(word.text for word in transcript.words)
    assert len(transcript.words) > 2
    assert transcript.log_probability < 0 and 0 <= transcript.confidence <= 1
    assert all(0 <= word.confidence <= 1 for word in transcript.words)
    assert_words_fit(transcript, 2.0)


def assert_words_fit(transcript: Transcript, seconds: float) -> None:
    """Words follow each other and lie inside the recording."""
    times = [time for word in transcript.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert all(word.start < word.end for word in transcript.words)
    assert times[0] >= 0 and times[-1] <= seconds


def test_a_lower_precision_says_about_the_same(folder, recognizer, speech):
    rough = masr.load(str(folder), methods=["ctc-greedy"], precision="bf16").transcribe(speech)
    assert rough.text
    assert rough.log_probability == pytest.approx(recognizer.transcribe(speech).log_probability, abs=0.3)


def test_a_path_an_array_and_a_tensor_are_the_same(recognizer, speech, wav):
    expected = recognizer.transcribe(speech)
    for audio in (wav, str(wav), torch.from_numpy(speech), torch.from_numpy(speech).requires_grad_()):
        assert_same(recognizer.transcribe(audio), expected)


def test_doubles_and_integers_are_samples_too(recognizer, speech):
    expected = recognizer.transcribe(np.round(speech * 32768).clip(-32768, 32767) / 32768)
    integers = np.round(speech * 32768).clip(-32768, 32767).astype(np.int16)
    assert_same(recognizer.transcribe(integers), expected)
    assert_same(recognizer.transcribe(speech.astype(np.float64)), recognizer.transcribe(speech))


def test_channels_are_averaged_in_arrays_and_files(recognizer, speech, tmp_path):
    expected = recognizer.transcribe(speech / 2)
    stereo = np.stack([speech, 0 * speech])
    assert_same(recognizer.transcribe(stereo), expected)
    soundfile.write(tmp_path / "stereo.wav", stereo.T, RATE, subtype="FLOAT")
    assert_same(recognizer.transcribe(tmp_path / "stereo.wav"), expected)


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_any_sample_rate_is_taken_from_files_and_arguments(recognizer, speech, tmp_path, rate):
    at = np.arange(2 * rate) * RATE / rate
    other = np.interp(at, np.arange(len(speech)), speech).astype(np.float32)
    soundfile.write(tmp_path / "other.wav", other, rate, subtype="FLOAT")
    transcript = recognizer.transcribe(other, sample_rate=rate)
    assert_same(recognizer.transcribe(tmp_path / "other.wav"), transcript)
    assert_words_fit(transcript, 2.0)


@pytest.mark.parametrize("kind", ["flac", "ogg", "mp3"])
def test_files_of_every_kind_of_libsndfile_are_read(recognizer, speech, tmp_path, kind):
    soundfile.write(tmp_path / f"a.{kind}", speech, RATE)
    assert recognizer.transcribe(tmp_path / f"a.{kind}").words


@pytest.mark.parametrize("method", ["ctc-greedy", "ctc-prefix-beam", "attention-beam", "joint-beam"])
def test_a_list_is_the_same_as_one_by_one(folder, speech, wav, method):
    recognizer = masr.load(str(folder), methods=[method], beam=2, batch_seconds=8.0)
    recordings = [speech, speech[5000:], wav, speech[: RATE // 2], np.tile(speech, 3), speech[:100]]
    together = recognizer.transcribe(recordings)
    assert len(together) == len(recordings)
    for audio, transcript in zip(recordings, together, strict=True):
        assert_same(recognizer.transcribe(audio), transcript)


def test_no_recordings_have_no_transcripts(recognizer):
    assert recognizer.transcribe([]) == []


@pytest.mark.parametrize("samples", [1, 79, 400, 800])
def test_the_shortest_recordings_are_taken(recognizer, speech, samples):
    assert isinstance(recognizer.transcribe(speech[:samples]), Transcript)


def test_ten_minutes_are_cut_into_pieces_that_fit_in_memory(folder, speech):
    recognizer = masr.load(str(folder), methods=["ctc-greedy"], batch_seconds=60.0)
    shapes = []
    encode = recognizer.model.encode
    recognizer.model.encode = lambda features, *rest: shapes.append(features.shape) or encode(features, *rest)
    transcript = recognizer.transcribe(np.tile(speech, 300))
    assert len(transcript.words) > 300
    assert_words_fit(transcript, 600.0)
    assert transcript.words[-1].end > 590
    assert max(frames for _, frames, _ in shapes) <= 100 * recognizer.options.segments.longest
    assert max(batch * frames for batch, frames, _ in shapes) <= 100 * 60


def test_long_audio_is_cut_where_it_is_quietest_and_nothing_is_lost():
    noise = np.random.default_rng(0).normal(0, 0.1, 50 * RATE).astype(np.float32)
    for second in (13, 31):
        noise[second * RATE : second * RATE + RATE // 2] *= 0.01
    pieces = list(segments_of(np.split(noise, 25), Segments(voice_activity=False)))
    np.testing.assert_array_equal(np.concatenate([piece.samples for piece in pieces]), noise)
    assert max(piece.seconds for piece in pieces) <= 20
    assert [piece.start for piece in pieces][1:3] == pytest.approx([13.25, 31.25], abs=0.26)


def test_the_text_of_long_audio_is_that_of_its_pieces(recognizer, speech):
    long = np.tile(speech, 12)
    pieces = [piece.samples for piece in segments_of([long], recognizer.options.segments)]
    assert len(pieces) > 1
    texts = [transcript.text for transcript in recognizer.transcribe(pieces)]
    assert recognizer.transcribe(long).text == " ".join(texts)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([("今日は", "ja"), ("晴れ", "ja")], "今日は晴れ"),
        ([("วันนี้", "th"), ("", "th"), ("อากาศดี", "th")], "วันนี้อากาศดี"),
        ([("μια", "el"), ("γάτα", "el")], "μια γάτα"),
    ],
)
def test_segments_are_joined_as_their_language_is_written(parts, text):
    assert join([Segment(said, code) for said, code in parts], 9.0).text == text


@pytest.mark.parametrize(("language", "sentence"), [("ja", "今日は晴れです"), ("th", "วันนี้อากาศดี")])
def test_words_of_languages_without_spaces_are_their_characters(speech, tmp_path, language, sentence):
    """As the pieces of the model are: a mark belongs to its letter."""
    torch.manual_seed(5)
    tokenizer = train_tokenizer({language: [sentence] * 9}, Vocab())
    model = Recognizer(Config(name="tiny", model=MODEL, decode=DECODE | {"methods": ["ctc-greedy"]}), tokenizer)
    model.set_statistics(torch.full((80,), -8.0), torch.full((80,), 3.0))
    for module, factor in ((model.encoder, 3), (model.ctc, 8)):
        for parameter in module.parameters():
            parameter.data *= factor
    save_model(tmp_path, model)
    found = masr.load(tmp_path).transcribe(np.tile(speech, 12))
    assert " " not in found.text and len(found.words) > 9
    assert "".join(word.text for word in found.words) == found.text
    letters = [word.text[0] for word in found.words]
    assert all(len(word.text) == 1 for word in found.words if language == "ja")
    assert all(c not in "\u0e31\u0e35\u0e49" for c in letters[1:]), "vowel signs and tones stay with their letter"
    assert all(one.end <= next_one.start + 1e-6 for one, next_one in pairwise(found.words))


def test_the_language_is_a_known_one_or_unsaid(recognizer, speech):
    assert recognizer.transcribe(speech).language in (None, "el", "es")


@pytest.mark.parametrize(("languages", "found"), [(["el", "xx", "cs"], "unknown: xx, cs"), ([], "none given")])
def test_languages_that_the_model_does_not_know_are_refused(recognizer, speech, languages, found):
    with pytest.raises(ValueError, match=f"languages: {found}; this model knows el, es"):
        recognizer.transcribe(speech, languages=languages)


def test_unusable_files_are_named_with_what_was_found(recognizer, wav, tmp_path):
    (tmp_path / "garbage.wav").write_bytes(b"garbage" * 99)
    (tmp_path / "empty.wav").touch()
    (tmp_path / "headerless.raw").write_bytes(bytes(3200))
    soundfile.write(tmp_path / "silent.wav", np.zeros(0), RATE)
    nan = np.zeros(RATE, dtype=np.float32)
    nan[[3, 5]] = np.nan
    soundfile.write(tmp_path / "nan.wav", nan, RATE, subtype="FLOAT")
    for name, found in {
        "missing.wav": "no such file", "garbage.wav": "cannot be decoded", "empty.wav": "is empty (0 bytes)",
        "headerless.raw": "cannot be decoded", "silent.wav": "no samples", "nan.wav": "2 samples are NaN or infinite",
        ".": "cannot be opened (Is a directory)",
    }.items():  # fmt: skip
        with pytest.raises(UnusableAudio) as caught:
            recognizer.transcribe([wav, tmp_path / name])
        assert str(caught.value).startswith(f"{tmp_path / name}: {found}")


@pytest.mark.parametrize(
    ("audio", "found"),
    [
        (np.zeros(0, dtype=np.float32), "no samples"),
        (np.full(RATE, np.inf, dtype=np.float32), "16000 samples are NaN or infinite"),
        (
            np.zeros((1, 1, RATE), dtype=np.float32),
            r"expected samples \(S,\) or \(channels, S\), floats or integers, found float32",
        ),
        ([0.0, 0.1], "expected a file's name, its content, an open file, an array or a tensor, found float"),
        (np.array(["a"]), r"expected samples \(S,\)"),
    ],
)
def test_unusable_arrays_are_refused(recognizer, audio, found):
    with pytest.raises(ValueError, match=f"^audio: {found}"):
        recognizer.transcribe(audio)


@pytest.mark.parametrize("rate", [0, -16000])
def test_an_impossible_sample_rate_is_refused(recognizer, speech, rate):
    with pytest.raises(ValueError, match=f"a sampling rate of {rate} Hz; expected 4000 to 384000 Hz"):
        recognizer.transcribe(speech, sample_rate=rate)


def test_a_path_that_is_no_model_names_the_shipped_ones(tmp_path):
    shipped = sorted(path.parents[1].name for path in (ROOT / "egs").glob("*/model/config.yaml"))
    known = ", ".join(shipped) or "none here"
    with pytest.raises(FileNotFoundError) as caught:
        masr.load("exp/nothing")
    expected = f"exp/nothing is neither a folder nor a shipped model ({known}) nor one of the hub (owner/name)"
    assert str(caught.value) == expected
    with pytest.raises(FileNotFoundError, match="holds no trained model .*train it with `masr train`"):
        masr.load(str(tmp_path))


def test_a_shipped_model_is_found_by_the_name_of_its_recipe(folder, tmp_path, monkeypatch):
    (tmp_path / "egs/somewhere").mkdir(parents=True)
    (tmp_path / "egs/somewhere/model").symlink_to(folder)
    monkeypatch.setattr(recognize, "__file__", str(tmp_path / "masr/recognize/recognizer.py"))
    assert masr.load("somewhere").model.tokenizer.languages == ["el", "es"]
    with pytest.raises(FileNotFoundError, match=r"elsewhere is neither a folder nor a shipped model \(somewhere\)"):
        masr.load("elsewhere")


@pytest.mark.parametrize("damage", ["truncated", "garbage", "other config", "no config", "no vocab"])
def test_a_damaged_model_folder_is_named(folder, tmp_path, damage):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    weights, config = copy / "averaged.safetensors", copy / "config.yaml"
    match damage:
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:-9])
        case "garbage":
            weights.write_bytes(b"garbage" * 9)
        case "other config":
            config.write_text("name: other\n")
        case "no config":
            config.unlink()
        case "no vocab":
            shutil.rmtree(copy / "vocab")
    with pytest.raises(ValueError, match=str(copy)):
        masr.load(str(copy))


def test_it_searches_as_its_config_says_but_for_what_is_asked_for(folder):
    own = Config(name="tiny", decode=DECODE).decode
    assert masr.load(str(folder)).options == own
    assert masr.load(str(folder), beam=3).options == own.model_copy(update={"beam": 3})
    assert masr.load(str(folder), methods=["ctc-greedy"]).options.methods == ["ctc-greedy"]
    with pytest.raises(ValueError, match="beem"):
        masr.load(str(folder), beem=3)


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str | int | None:
    monkeypatch.setattr(sys, "argv", ["masr", "transcribe", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code


def test_the_command_prints_the_text_or_a_line_a_file(folder, wav, tmp_path, monkeypatch, capsys):
    expected = masr.load(str(folder)).transcribe(wav).text
    assert run_cli(monkeypatch, folder, wav) == 0
    assert capsys.readouterr().out == f"{expected}\n"
    other = shutil.copy(wav, tmp_path / "b.wav")
    assert run_cli(monkeypatch, "--model", folder, wav, other) == 0
    assert capsys.readouterr().out == f"{wav}\t{expected}\n{other}\t{expected}\n"


def test_the_command_prints_json_that_parses(folder, wav, monkeypatch, capsys):
    other = shutil.copy(wav, wav.parent / "b.wav")
    assert run_cli(monkeypatch, "--json", "--languages", "el,es", folder, wav, other) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["file"] for row in rows] == [str(wav), str(other)]
    assert rows[0].keys() == {"file", *asdict(Transcript(""))}
    assert rows[0]["words"][0].keys() == {"text", "start", "end", "confidence"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{folder}"], "masr: name a model and at least one recording"),
        (["{folder}", "missing.wav"], "masr: no such file: missing.wav"),
        (["--method", "nope", "{folder}", "{wav}"], "masr: methods.0: Input should be 'ctc-greedy', "),
        (["nothing", "{wav}"], "masr: nothing is neither a folder nor a shipped model"),
        (["--languages", "xx", "{folder}", "{wav}"], "masr: languages: unknown: xx; this model knows el, es"),
        (["--languages", "el, xx", "{folder}", "{wav}"], "masr: languages: unknown: xx; this model knows el, es"),
        (["--languages", "", "{folder}", "{wav}"], "masr: languages: none given; this model knows el, es"),
    ],
)
def test_the_command_explains_what_it_cannot_do(folder, wav, monkeypatch, arguments, message):
    given = [argument.format(folder=folder, wav=wav) for argument in arguments]
    assert str(run_cli(monkeypatch, *given)).startswith(message)


def test_nothing_of_a_file_name_or_a_text_acts_on_the_terminal(folder, wav, tmp_path, monkeypatch, capsys):
    name = str(tmp_path / "a\x1b[2J\nb\u202e.wav")
    shutil.copy(wav, name)
    found = recognize.Transcript("x\x1b[31my")
    said = lambda _, files, *rest, **options: [(file, found) for file in files]  # noqa: E731
    monkeypatch.setattr(recognize.SpeechRecognizer, "transcribe_requested", said)
    assert run_cli(monkeypatch, folder, name, wav) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(line.replace("\t", "").isprintable() for line in lines)
    assert lines[0].endswith(r"a\x1b[2J\x0ab\u202e.wav" + "\t" + r"x\x1b[31my")
    assert run_cli(monkeypatch, "--json", folder, name) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert line.isprintable()
    assert json.loads(line)["file"] == name and json.loads(line)["text"] == "x\x1b[31my", "programs get what it is"
    monkeypatch.undo()
    assert str(run_cli(monkeypatch, folder, "no\x1b[31m.wav")).startswith(r"masr: no such file: no\x1b[31m.wav")
