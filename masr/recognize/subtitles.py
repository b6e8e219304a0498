"""Subtitles that people can read: cues of at most two lines and seven seconds, broken where a speaker pauses."""

import html
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from masr.recognize.transcript import Segment, Transcript, Word
from masr.recognize.words import milliseconds, segments_of, words_of
from masr.text.characters import joined

LINE = 42
"""Columns of a line; Han, kana and Hangul take two each."""
LONGEST = 7000
"""Milliseconds of a cue."""
BRIEFEST = 700
"""Milliseconds for which a cue is shown if the next one leaves so much time."""
PAUSE = 1.0
"""Seconds of silence that always end a cue."""
AFTER_A_SIGN = 10
"""Columns by which one line may be longer than the other for the sake of a break behind a sign."""
SENTENCE_END = re.compile(r"[.!?…。．！？؟।॥။។][\"'»”’)\]）」』]*$")
CLAUSE_END = re.compile(r"[,;:，、；：،؛–—][\"'»”’)\]）」』]*$")


@dataclass
class Cue:
    """Lines shown from ``start`` to ``end``, in milliseconds."""

    start: int
    end: int
    lines: list[str]


@dataclass
class _Item:
    """A word, or a part of one that is longer than a line."""

    text: str
    start: float
    end: float
    space: bool
    """Whether a space parts it from the item before."""

    @property
    def width(self) -> int:
        return columns(self.text) + self.space


def to_srt(transcript: Transcript, name: str) -> str:
    """SubRip."""
    blocks = []
    for number, cue in enumerate(cues(transcript), start=1):
        lines = [line.replace("-->", "→") for line in cue.lines]
        times = f"{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}"
        blocks.append("\n".join([str(number), times, *lines]) + "\n")
    return "\n".join(blocks)


def to_vtt(transcript: Transcript, name: str) -> str:
    """WebVTT (W3C)."""
    blocks = ["WEBVTT\n"]
    for cue in cues(transcript):
        lines = [html.escape(line, quote=False) for line in cue.lines]
        times = f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}"
        blocks.append("\n".join([times, *lines]) + "\n")
    return "\n".join(blocks)


def _clock(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{rest:03}"


def cues(transcript: Transcript) -> list[Cue]:
    """The cues of a transcript: none begins before the one before it has ended."""
    found = []
    for segment in segments_of(transcript):
        for phrase in _phrases(_items(segment)):
            for items in _split(phrase):
                start, end = milliseconds(items[0].start), milliseconds(items[-1].end)
                found.append(Cue(start, end, _lines(items) or [_text(items)]))
    _part(found)
    return found


def _items(segment: Segment) -> list[_Item]:
    items: list[_Item] = []
    for word in words_of(segment):
        language = segment.language
        alone = not items or joined([(items[-1].text, language), (word.text, language)]) == items[-1].text + word.text
        items += _parts(word, not alone)
    return items


def _parts(word: Word, space: bool) -> Iterator[_Item]:
    """The word, or if it is longer than a line, parts that fit, each with its share of the time."""
    parts = [""]
    for character in word.text:
        is_mark = unicodedata.category(character)[0] == "M"
        if columns(parts[-1] + character) > LINE and not is_mark:
            parts.append("")
        parts[-1] += character
    seconds = word.end - word.start
    done = 0
    for number, part in enumerate(parts):
        start = word.start + seconds * done / len(word.text)
        done += len(part)
        end = word.start + seconds * done / len(word.text)
        yield _Item(part, start, end, space and number == 0)


def columns(text: str) -> int:
    """Width of a text in columns: two of a wide character, none of a mark."""
    total = 0
    for character in text:
        if unicodedata.east_asian_width(character) in "WF":
            total += 2
        elif unicodedata.category(character) not in ("Mn", "Me", "Cf"):
            total += 1
    return total


def _phrases(items: list[_Item]) -> list[list[_Item]]:
    """What is said between two pauses."""
    phrases: list[list[_Item]] = [[]]
    for item in items:
        if phrases[-1] and item.start - phrases[-1][-1].end >= PAUSE:
            phrases.append([])
        phrases[-1].append(item)
    return [phrase for phrase in phrases if phrase]


def _split(items: list[_Item]) -> list[list[_Item]]:
    """Parts that fit into a cue, each break in the best place of the middle half of what does not fit."""
    if len(items) == 1 or _fits(items):
        return [items]
    first, last = max(1, len(items) // 4), min(len(items) - 1, len(items) - len(items) // 4)
    at = max(range(first, last + 1), key=lambda place: _quality(items, place))
    return [*_split(items[:at]), *_split(items[at:])]


def _fits(items: list[_Item]) -> bool:
    seconds = items[-1].end - items[0].start
    return milliseconds(seconds) <= LONGEST and bool(_lines(items))


def _quality(items: list[_Item], place: int) -> float:
    """How good it is to end a cue before an item: the pause there in seconds, a sign, and parts of the same length."""
    before, after = items[place - 1], items[place]
    quality = after.start - before.end - abs(place / len(items) - 0.5)
    if SENTENCE_END.search(before.text):
        quality += 1.0
    elif CLAUSE_END.search(before.text):
        quality += 0.5
    return quality


def _lines(items: list[_Item]) -> list[str]:
    """One line, or two of about the same length; none if they do not fit."""
    total = sum(item.width for item in items) - items[0].space
    if total <= LINE:
        return [_text(items)]
    if total > 2 * LINE + 1:
        return []
    found: list[str] = []
    least = float("inf")
    upper = 0
    for at, (item, following) in enumerate(pairwise(items), start=1):
        upper += item.width
        first, second = upper - items[0].space, total - upper + items[0].space - following.space
        difference = abs(first - second)
        if CLAUSE_END.search(item.text) or SENTENCE_END.search(item.text):
            difference -= AFTER_A_SIGN
        if max(first, second) <= LINE and difference < least:
            found, least = [_text(items[:at]), _text(items[at:])], difference
    return found


def _text(items: list[_Item]) -> str:
    return "".join(" " * item.space + item.text for item in items).strip()


def _part(found: list[Cue]) -> None:
    """Moves the times of cues so that each is shown long enough, and that no two are shown at once."""
    before = 0
    for number, cue in enumerate(found):
        duration = min(max(cue.end - cue.start, BRIEFEST), LONGEST)
        cue.start = max(cue.start, before)
        cue.end = cue.start + duration
        following = found[number + 1].start if number + 1 < len(found) else cue.end
        if following > cue.start:
            cue.end = min(cue.end, following)
        before = cue.end
