"""The words of a transcript as files of any format can hold them: on one line, in order, with times for all."""

import re
from collections.abc import Iterator

from masr.recognize.transcript import Segment, Transcript, Word
from masr.text.characters import unspaced_words

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
"""What ends a line or a column, or is no text."""
NOT_UTF8 = re.compile("[\ud800-\udfff]")
CHARACTER_SECONDS = 0.06
"""Time of a character where a segment has no times: about 17 a second, as fast as subtitles are to be read."""
SHORTEST = 1
"""Milliseconds of a word, where the model gives it no time at all."""


def one_line(text: str) -> str:
    """Text without line ends, tabs and other control characters, and with U+FFFD for what UTF-8 cannot hold."""
    return NOT_UTF8.sub("\ufffd", CONTROL.sub(" ", text)).strip()


def segments_of(transcript: Transcript) -> list[Segment]:
    """Its segments; the transcript itself if it is not divided. Those without text are left out."""
    return [segment for segment in transcript.segments or [transcript] if segment.text.strip() or segment.words]


def words_of(segment: Segment) -> list[Word]:
    """The words of a segment, each on one line; of one without words those of its text, spread over its time."""
    found = []
    for word in segment.words or _estimated(segment):
        text = one_line(word.text)
        if text:
            found.append(Word(text, word.start, word.end, word.confidence))
    return found


def _estimated(segment: Segment) -> list[Word]:
    """The words of the text, each as long as it has characters."""
    texts = [word for part in segment.text.split() for word in unspaced_words(part)]
    total = sum(len(text) for text in texts)
    seconds = segment.end - segment.start
    if seconds <= 0:
        seconds = total * CHARACTER_SECONDS
    words = []
    done = 0
    for text in texts:
        start = segment.start + seconds * done / total
        done += len(text)
        words.append(Word(text, start, segment.start + seconds * done / total))
    return words


def timed_words(transcript: Transcript) -> Iterator[tuple[int, int, Word]]:
    """``(start, end, word)`` in milliseconds of all words, none before 0, none before the end of the one before."""
    before = 0
    for segment in segments_of(transcript):
        for word in words_of(segment):
            start = max(milliseconds(word.start), before)
            end = max(milliseconds(word.end), start + SHORTEST)
            yield start, end, word
            before = end


def milliseconds(seconds: float) -> int:
    """Whole milliseconds."""
    return round(1000 * seconds)
