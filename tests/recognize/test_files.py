"""`masr transcribe` with many recordings: what is written where, what goes on, what is said of bad ones."""

import json
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

import masr
from masr import cli
from masr.data.audio_checks import UnusableAudio
from masr.recognize import SpeechRecognizer, files

RATE = 16000


@pytest.fixture
def recordings(speech, tmp_path) -> Path:
    """A folder with three recordings, two of one name, and a file that is none."""
    (tmp_path / "in/calls").mkdir(parents=True)
    soundfile.write(tmp_path / "in/a.wav", speech, RATE)
    soundfile.write(tmp_path / "in/calls/a.wav", speech[:20000], RATE)
    soundfile.write(tmp_path / "in/calls/a.flac", np.stack((speech, 0.1 * speech[::-1]), 1), RATE)
    (tmp_path / "in/bad.wav").write_bytes(b"no audio at all, of any kind")
    return tmp_path / "in"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> object:
    monkeypatch.setattr(sys, "argv", ["masr", "transcribe", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code


def test_a_folder_becomes_a_folder_and_a_bad_recording_stops_no_other(folder, recordings, monkeypatch, capsys):
    output = recordings.parent / "out"
    given = ["--model", folder, "-r", recordings, "--output", output, "--format", "srt,json"]
    assert run(monkeypatch, *given) == 1
    written = sorted(str(path.relative_to(output)) for path in output.rglob("[!.]*.*"))
    assert written == [
        "a.json",
        "a.srt",
        "calls/a.flac.json",
        "calls/a.flac.srt",
        "calls/a.wav.json",
        "calls/a.wav.srt",
    ]
    notes = capsys.readouterr().err
    assert f"masr: {recordings}/bad.wav: " in notes and "3 recordings" in notes and "1 failed" in notes
    expected = masr.load(str(folder)).transcribe(recordings / "a.wav")
    found = json.loads((output / "a.json").read_text())
    assert (found["file"], found["text"]) == (str(recordings / "a.wav"), expected.text)
    assert found["segments"][0]["words"][0]["confidence"] is not None


def test_an_interrupted_run_goes_on(folder, recordings, monkeypatch, capsys):
    output = recordings.parent / "out"
    (recordings / "bad.wav").unlink()
    assert run(monkeypatch, folder, "-r", recordings, "--output", output) == 0
    (output / "calls/a.wav.txt").unlink()
    (output / "a.txt").write_text("mine")
    assert run(monkeypatch, folder, "-r", recordings, "--output", output, "--resume") == 0
    assert (output / "a.txt").read_text() == "mine" and (output / "calls/a.wav.txt").exists()


def test_a_recording_of_another_folder_is_not_taken_for_done(folder, recordings, monkeypatch, capsys):
    """Nor is its transcript written over."""
    output = recordings.parent / "out"
    assert run(monkeypatch, folder, recordings / "a.wav", "--output", output) == 0
    before = (output / "a.txt").read_text()
    for options in (["--resume"], []):
        message = str(run(monkeypatch, folder, recordings / "calls/a.wav", "--output", output, *options))
        assert f"a.txt is the transcript of {recordings}/a.wav; give" in message
    assert (output / "a.txt").read_text() == before
    assert run(monkeypatch, folder, recordings / "a.wav", "--output", output) == 0, "the same one again"


def test_channels_can_be_transcribed_apart(folder, recordings, monkeypatch, capsys):
    stereo = recordings / "calls/a.flac"
    assert run(monkeypatch, folder, stereo, "--channels", "separate") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == [f"{stereo}#0", f"{stereo}#1"]
    alone = masr.load(str(folder)).transcribe(soundfile.read(stereo)[0].T[0].astype(np.float32))
    assert lines[0].split("\t")[1] == alone.text != lines[1].split("\t")[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "srt,json"], "several formats need a folder"),
        (["--format", "docx"], "format: unknown: docx; expected one of txt, json"),
        (["--resume"], "--resume: only files can be there already"),
        (["--json", "--format", "srt"], "--json and --format srt: one of the two"),
        (["--language-only", "--output", "o"], "--format txt: languages are written as json alone"),
        (["--channels", "left"], "--channels: expected mix or separate, found left"),
        (["--precision", "int3"], "precision: expected fp32, bf16, fp16; found int3"),
        (["--device", "cuda"], "device: cuda cannot be used here"),
        (["--stream", "--translate"], "--stream prints what it hears as text or --json"),
    ],
)
def test_options_that_cannot_be(folder, recordings, monkeypatch, options, message):
    assert message in str(run(monkeypatch, folder, recordings / "a.wav", *options))


def test_each_recording_comes_in_order_with_its_transcript_or_error(recognizer, recordings):
    names = [recordings / name for name in ("a.wav", "bad.wav", "calls/a.flac", "missing.wav", "calls/a.wav")]
    found = list(recognizer.transcribe_each(names))
    assert [source for source, _ in found] == names
    for (source, result), usable in zip(found, (True, False, True, False, True), strict=True):
        if usable:
            assert result.text == recognizer.transcribe(source).text
        else:
            assert isinstance(result, UnusableAudio) and source.name in str(result)


def test_threads_share_a_recogniser(recognizer, speech):
    """What a call needs travels with it."""
    calls = [(speech[start : start + 16000], code) for start in (0, 4000, 9000) for code in ("el", "es")]
    expected = [recognizer.transcribe(audio, languages=code) for audio, code in calls]
    wrong: list[int] = []

    def work(first: int) -> None:
        for number in range(12):
            place = (first + number) % len(calls)
            audio, code = calls[place]
            if recognizer.transcribe(audio, languages=code) != expected[place]:
                wrong.append(place)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_transcripts_are_written_as_soon_as_they_are_known(recognizer: SpeechRecognizer, recordings, monkeypatch):
    """Before the next recording is opened, where batches are full."""
    events: list[str] = []
    monkeypatch.setattr(files, "_write", lambda item, *_: events.append(f"write {item.path.name}"))
    monkeypatch.setattr(recognizer.options, "batch_seconds", 0.1)
    opened = masr.recognize.recognizer.open_audio

    def logged(source: Path, *rest: object) -> object:
        events.append(f"open {source.name}")
        return opened(source, *rest)

    monkeypatch.setattr(masr.recognize.recognizer, "open_audio", logged)
    names = [recordings / "a.wav", recordings / "calls/a.flac"]
    output = files.Output(folder=recordings.parent / "out")
    assert files.transcribe_files(recognizer, names, recognizer.request(), output) == 0
    assert events == ["open a.wav", "write a.wav", "open a.flac", "write a.flac"]


def test_a_long_recording_does_not_keep_the_one_before_it_waiting(recognizer: SpeechRecognizer, speech, monkeypatch):
    """That is known when the first batches are full, and the rest of the long one is still to be recognised."""
    monkeypatch.setattr(recognizer.options, "batch_seconds", 5.0)
    batches = []
    recognize = recognizer._recognize

    def counted(waiting, request) -> None:
        batches.append(len(waiting))
        recognize(waiting, request)

    monkeypatch.setattr(recognizer, "_recognize", counted)
    pause = np.zeros(RATE, np.float32)
    results = recognizer.transcribe_each([speech, np.concatenate([speech, pause] * 20)])
    _, first = next(results)
    assert len(batches) == 1
    _, second = next(results)
    assert len(batches) > 2
    assert (first.end, second.end) == (2.0, 60.0)


def test_no_two_recordings_have_one_transcript(tmp_path):
    """The stem of a.wav.flac is the whole name of a.wav, which needs that because of a.mp3."""
    names = [tmp_path / name for name in ("a.wav", "a.mp3", "a.wav.flac", "b.wav", "c")]
    stems = files._stems(names)
    assert list(stems.values()) == ["a.wav", "a.mp3", "a.wav.flac", "b", "c"]
