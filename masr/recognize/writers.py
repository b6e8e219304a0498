"""Transcripts as files: text, JSON, subtitles, tables of words.

Path("a.srt").write_text(render(recognizer.transcribe("a.wav"), "a.wav", "srt"), encoding="utf-8")
"""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from masr.progress import json_line
from masr.recognize.subtitles import to_srt, to_vtt
from masr.recognize.transcript import Transcript
from masr.recognize.words import milliseconds, one_line, segments_of, timed_words

TEXTGRID = """\
File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = {end}
tiers? <exists>
size = 1
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = {end}
        intervals: size = {size}
"""
INTERVAL = """\
        intervals [{number}]:
            xmin = {start:.3f}
            xmax = {end:.3f}
            text = "{text}"
"""


@dataclass(frozen=True)
class Writer:
    """A format: the suffix of its files, and the function that makes one of a transcript and the recording's path, with
    ``#`` and the number of a channel of it."""

    suffix: str
    write: Callable[[Transcript, str], str]


def render(transcript: Transcript, name: str, format: str) -> str:
    """The transcript of the recording ``name`` (its path) in a format; ValueError lists those of `FORMATS`.

    What was recognised stays as it is, but for control characters, line ends within a word and what would end a cue.
    """
    return find_writer(format).write(transcript, name)


def find_writer(format: str) -> Writer:
    """The writer of a format; ValueError lists those that there are."""
    if format not in FORMATS:
        raise ValueError(f"format: unknown: {format}; expected one of {', '.join(FORMATS)}")
    return FORMATS[format]


def to_txt(transcript: Transcript, name: str) -> str:
    """A line a segment."""
    return "".join(f"{one_line(segment.text)}\n" for segment in segments_of(transcript))


def to_json(transcript: Transcript, name: str) -> str:
    """All that is known, as one object on one line."""
    return json_line({"file": name, **asdict(transcript)}) + "\n"


def to_tsv(transcript: Transcript, name: str) -> str:
    """Start and end in milliseconds, and text of each segment, as Whisper's own program writes them."""
    rows = ["start\tend\ttext\n"]
    before = 0
    for segment in segments_of(transcript):
        start = max(milliseconds(segment.start), before)
        end = max(milliseconds(segment.end), start)
        rows.append(f"{start}\t{end}\t{one_line(segment.text)}\n")
        before = start
    return "".join(rows)


def to_ctm(transcript: Transcript, name: str) -> str:
    """NIST's time-marked conversation: file, channel, start, duration, word and, where known, confidence.

    The file is named without folder and suffix, as NIST's scorers expect. A channel of a recording, ``a.wav#0``, is
    numbered from 1 there. Columns end with white space, so that within a name or a word it becomes ``_``.
    """
    path, channel = _channel_of(name)
    file = _column(Path(path).stem) or "_"
    rows = []
    for start, end, word in timed_words(transcript):
        confidence = "" if word.confidence is None else f" {word.confidence:.4f}"
        rows.append(
            f"{file} {channel} {start / 1000:.3f} {(end - start) / 1000:.3f} {_column(word.text)}{confidence}\n"
        )
    return "".join(rows)


def _channel_of(name: str) -> tuple[str, int]:
    """The recording's path and its channel, from 1."""
    found = re.fullmatch(r"(.*)#(\d+)", name, re.DOTALL)
    return (found[1], int(found[2]) + 1) if found else (name, 1)


def _column(content: str) -> str:
    return re.sub(r"\s+", "_", one_line(content))


def to_textgrid(transcript: Transcript, name: str) -> str:
    """Praat's TextGrid, long format: one tier ``words`` without gaps, where silence is an empty interval."""
    intervals: list[tuple[int, int, str]] = []
    at = 0
    for start, end, word in timed_words(transcript):
        if start > at:
            intervals.append((at, start, ""))
        intervals.append((start, end, word.text))
        at = end
    last = max(milliseconds(transcript.end), at, 1)
    if last > at:
        intervals.append((at, last, ""))
    rows = [TEXTGRID.format(end=f"{last / 1000:.3f}", size=len(intervals))]
    for number, (start, end, content) in enumerate(intervals, start=1):
        quoted = content.replace('"', '""')
        rows.append(INTERVAL.format(number=number, start=start / 1000, end=end / 1000, text=quoted))
    return "".join(rows)


FORMATS: dict[str, Writer] = {
    "txt": Writer(".txt", to_txt),
    "json": Writer(".json", to_json),
    "srt": Writer(".srt", to_srt),
    "vtt": Writer(".vtt", to_vtt),
    "tsv": Writer(".tsv", to_tsv),
    "ctm": Writer(".ctm", to_ctm),
    "textgrid": Writer(".TextGrid", to_textgrid),
}
