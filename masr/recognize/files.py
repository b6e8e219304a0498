"""Many recordings of a command line -> a line each, or files. One that is unusable stops no other."""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from masr.data.audio_checks import UnusableAudio
from masr.files import text_lines, write_whole
from masr.progress import clock, json_line, printable
from masr.recognize.audio import open_audio
from masr.recognize.recognizer import SpeechRecognizer
from masr.recognize.segments import Request
from masr.recognize.transcript import Transcript
from masr.recognize.writers import find_writer, render


@dataclass(frozen=True)
class Output:
    """Where transcripts go."""

    formats: Sequence[str] = ("txt",)
    folder: Path | None = None
    """None: onto the terminal."""
    resume: bool = False
    """Leave out recordings whose files are there."""
    separate: bool = False
    """A transcript of each channel."""


RECORD = ".transcripts.jsonl"
"""In the folder of transcripts: of which recording each of them is."""


@dataclass(frozen=True)
class Item:
    """A recording, or a channel of it, and the files of its transcript."""

    path: Path
    channel: int | None
    targets: tuple[Path, ...]
    """One for each format; none where transcripts go onto the terminal."""

    @property
    def name(self) -> str:
        return str(self.path) if self.channel is None else f"{self.path}#{self.channel}"

    @property
    def source(self) -> str:
        """The name from any folder."""
        return os.path.abspath(self.name)


def transcribe_files(recognizer: SpeechRecognizer, files: Sequence[Path], request: Request, output: Output) -> int:
    """Transcribes all files; the number of those that could not be read, each of which is named on standard error.

    A transcript is printed or written as soon as it is known.
    """
    check(output, files, request)
    began, seconds, bad = time.monotonic(), 0.0, 0
    todo, unreadable, done_before = _items(files, output)
    if done_before:
        _note(f"transcribe: {done_before} transcripts are there already (--resume)")
    for name, error in unreadable:
        bad += _complain(name, error)
    for item, result in _recognized(recognizer, todo, request):
        if isinstance(result, UnusableAudio):
            bad += _complain(item.name, result)
            continue
        seconds += result.end
        for warning in result.warnings:
            _note(f"{printable(item.name)}: warning: {printable(warning)}")
        if item.targets:
            _write(item, result, output)
            _note(f"{printable(item.name)}: {clock(result.end)}; all so far {clock(seconds)} {_rate(seconds, began)}")
        else:
            _print(item, result, request, output.formats[0], len(files) > 1 or output.separate)
    if len(todo) > 1 or bad:
        done = len(todo) + len(unreadable) - bad
        _note(f"transcribe: {done} recordings, {clock(seconds)} {_rate(seconds, began)}; {bad} failed")
    return bad


def check(output: Output, files: Sequence[Path], request: Request | None = None) -> None:
    """ValueError for formats that are unknown, cannot share the terminal or do not hold what is asked for."""
    for name in output.formats:
        find_writer(name)
    others = [name for name in output.formats if name != "json"]
    if output.folder is not None and others and request is not None and (request.translate or request.languages_only):
        what = "translations" if request.translate else "languages"
        raise ValueError(f"--format {others[0]}: {what} are written as json alone; take --format json, or no --output")
    if output.folder is not None:
        return
    if output.resume:
        raise ValueError("--resume: only files can be there already; name a folder for them with --output")
    if len(output.formats) > 1:
        raise ValueError(f"--format {','.join(output.formats)}: several formats need a folder; name one with --output")
    if len(files) > 1 and output.formats[0] not in ("txt", "json"):
        raise ValueError(f"--format {output.formats[0]}: {len(files)} recordings need a folder; name one with --output")


def _recognized(
    recognizer: SpeechRecognizer, items: Sequence[Item], request: Request
) -> Iterator[tuple[Item, Transcript | UnusableAudio]]:
    """Every item with its result. All channels with the same number are recognised together, in batches."""
    numbers = dict.fromkeys(item.channel for item in items)
    for number in numbers:
        same = [item for item in items if item.channel == number]
        results = recognizer.transcribe_requested([item.path for item in same], request, channel=number)
        for item, (_, result) in zip(same, results, strict=True):
            yield item, result


def _items(files: Sequence[Path], output: Output) -> tuple[list[Item], list[tuple[str, UnusableAudio]], int]:
    """What is to be transcribed, files that cannot be asked for their channels, and how many are done already."""
    done_before = 0
    unreadable: list[tuple[str, UnusableAudio]] = []
    found: list[Item] = []
    stems = _stems(files)
    recorded = _recorded(output.folder)
    for path in files:
        channels: list[int | None] = [None]
        if output.separate:
            try:
                with open_audio(path) as audio:
                    channels = [*range(audio.channels)]
            except UnusableAudio as error:
                unreadable.append((str(path), error))
                continue
        for channel in channels:
            item = Item(path, channel, _targets(stems[path], channel, output))
            _refuse_other_recording(item, recorded)
            known = all(recorded.get(str(target)) == item.source for target in item.targets)
            if output.resume and known and all(target.exists() for target in item.targets):
                done_before += 1
                continue
            found.append(item)
    return found, unreadable, done_before


def _stems(files: Sequence[Path]) -> dict[Path, str]:
    """Where each file's transcripts go below the output folder, without suffix: as the files lie below what is common
    to them; with the suffix of the recording where two would be one, or one would be the name of another."""
    absolute = {path: Path(os.path.abspath(path)) for path in files}
    common = Path(os.path.commonpath([path.parent for path in absolute.values()])) if files else Path()
    whole = {path: str(place.relative_to(common)) for path, place in absolute.items()}
    plain = {path: str(place.relative_to(common).with_suffix("")) for path, place in absolute.items()}
    taken = Counter(plain.values())
    names = set(whole.values())
    stems = {}
    for path, stem in plain.items():
        # a.wav, a.mp3 and a.wav.flac: the stem of the last one is the whole name of the first one.
        unique = taken[stem] == 1 and (stem not in names or stem == whole[path])
        stems[path] = stem if unique else whole[path]
    return stems


def _targets(stem: str, channel: int | None, output: Output) -> tuple[Path, ...]:
    if output.folder is None:
        return ()
    number = "" if channel is None else f".{channel}"
    return tuple(output.folder / f"{stem}{number}{find_writer(name).suffix}" for name in output.formats)


def _write(item: Item, transcript: Transcript, output: Output) -> None:
    assert output.folder is not None
    for name, target in zip(output.formats, item.targets, strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, render(transcript, item.name, name))
        with (output.folder / RECORD).open("a", encoding="utf-8") as record:
            record.write(json_line({"transcript": str(target.relative_to(output.folder)), "recording": item.source}))
            record.write("\n")


def _recorded(folder: Path | None) -> dict[str, str]:
    """The recording of each transcript that a run before has written into a folder."""
    if folder is None or not (folder / RECORD).is_file():
        return {}
    found: dict[str, str] = {}
    for line in text_lines(folder / RECORD):
        try:
            row = json.loads(line)
            found[str(folder / row["transcript"])] = row["recording"]
        except (ValueError, KeyError, TypeError):  # a line that a kill has cut off
            continue
    return found


def _refuse_other_recording(item: Item, recorded: dict[str, str]) -> None:
    """ValueError where a transcript of another recording would be written over."""
    for target in item.targets:
        other = recorded.get(str(target))
        if other is not None and other != item.source and target.exists():
            raise ValueError(f"{target} is the transcript of {other}; give {item.name} another folder with --output")


def _print(item: Item, transcript: Transcript, request: Request, format: str, named: bool) -> None:
    """Onto the terminal: the text alone, or behind the name of the recording."""
    if format != "txt":
        print(render(transcript, item.name, format), end="", flush=True)
        return
    line = printable((transcript.translation if request.translate else transcript.text) or "")
    if request.languages_only:
        line = _languages(transcript)
    print(f"{printable(item.name)}\t{line}" if named else line, flush=True)


def _languages(transcript: Transcript) -> str:
    """The most probable language, then all with their probabilities."""
    ranked = sorted(transcript.languages.items(), key=lambda pair: -pair[1])
    shares = " ".join(f"{code}:{share:.3f}" for code, share in ranked if share >= 0.001)
    return f"{transcript.language or '-'}\t{shares}"


def _complain(name: str, error: UnusableAudio) -> int:
    """One line that names the file; counts as one."""
    message = str(error)
    _note(f"masr: {printable(message if name in message else f'{name}: {message}')}")
    return 1


def _rate(seconds: float, began: float) -> str:
    spent = time.monotonic() - began
    return f"in {clock(spent)} (real-time factor {spent / max(seconds, 1e-9):.3f})" if seconds else f"in {clock(spent)}"


def _note(line: str) -> None:
    """On standard error, as standard output is for transcripts."""
    print(line, file=sys.stderr, flush=True)
