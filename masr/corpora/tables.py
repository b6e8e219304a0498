"""Published tables and manifests, read as they come: a row that cannot be used is a ``BadRow`` and stops nothing.

LF ends a row, and nothing else does (but CR in a file without LF): CR before it goes, and so do byte order marks (BOM)
and empty lines; a CR alone, U+2028 or U+0085 belong to the text in which they stand. Only a file that is no such table
stops the reader.
"""

import codecs
import csv
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

BOM = "\ufeff"
BOM_ENCODED_TWICE = BOM.encode("utf-8").decode("latin-1")
OTHER_BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
LONGEST_QUOTED_FIELD = 50
"""Lines that a field in quotation marks may go over."""
SHOWN = 200
"""Characters of a bad row that its reason repeats."""

Made = TypeVar("Made")


class BadRow(NamedTuple):
    """A row that cannot be used; stage 0 counts and lists it."""

    where: str
    """``<file>:<line>``"""
    reason: str
    name: str = ""
    """Id of its utterance, where the row still says it."""
    split: str = ""
    """Where the row says it."""


class Line(NamedTuple):
    """A line without its end."""

    where: str
    text: str
    problem: str = ""
    """Why it cannot be used; then U+FFFD stands in ``text`` for bytes that are no UTF-8."""


def read_lines(file: Path) -> Iterator[Line]:
    """All lines but empty ones; ValueError if the file is UTF-16 or UTF-32."""
    for number, raw in enumerate(_raw_lines(file), 1):
        if number == 1 and raw.startswith(OTHER_BOMS):
            raise ValueError(
                f"{file}:1: not UTF-8 text: it begins with the byte order mark (BOM) of UTF-16 or UTF-32; convert it "
                "with iconv -t UTF-8"
            )
        line = _line(f"{file}:{number}", raw)
        if line.text.strip(" \r"):
            yield line


def _raw_lines(file: Path) -> Iterator[bytes]:
    with file.open("rb") as lines:
        first = next(lines, b"")
        if first.endswith(b"\n"):
            yield first
            yield from lines
        else:  # all of the file: where there is no LF, CR ends the rows, as it did on a Macintosh
            yield from first.split(b"\r")


def _line(where: str, raw: bytes) -> Line:
    raw = raw.removesuffix(b"\n").removesuffix(b"\r")
    problem = ""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        text = raw.decode("utf-8", errors="replace")
        problem = f"not UTF-8 text (byte {raw[error.start]:#04x} at {error.start}): {text[:SHOWN]!r}"
    if "\0" in text:
        problem = f"a NUL character in {text[:SHOWN]!r}"
    return Line(where, text.lstrip(BOM), problem)


def read_table(file: Path, columns: Sequence[str], escaped: bool = False) -> Iterator[list[str] | BadRow]:
    """``columns``, found by their names in the first line, of every row of a table with TABs.

    Quotation marks are text, but where a row fits only if they hold a TAB or LF together, they do that. ``escaped``: a
    backslash makes text of the TAB, LF or backslash behind it. ValueError if the first line lacks a column.
    """
    lines = read_lines(file)
    header = next(lines, Line(f"{file}:1", ""))
    names = header.text.split("\t")
    if missing := [name for name in columns if name not in names]:
        raise ValueError(
            f"{header.where}: expected columns {', '.join(columns)}, found no {', '.join(missing)}{_why(header.text)}"
        )
    places = [names.index(name) for name in columns]
    rows = _escaped_rows(lines, len(names)) if escaped else _rows(lines, len(names))
    for row in rows:
        yield row if isinstance(row, BadRow) else [row[place] for place in places]


def read_rows(file: Path, count: int) -> Iterator[list[str] | BadRow]:
    """The fields of every row of a table with TABs, ``count`` columns and no header."""
    return _rows(read_lines(file), count)


def _why(header: str) -> str:
    """What may have spoilt the first line of a table."""
    if header.startswith(BOM_ENCODED_TWICE):
        return ": it begins with a byte order mark (BOM) that was encoded twice; save the file as UTF-8 again"
    return ""


class _Lookahead:
    """Lines that may be looked at before they are taken."""

    def __init__(self, lines: Iterable[Line]):
        self.lines = iter(lines)
        self.waiting: deque[Line] = deque()

    def take(self) -> Line | None:
        return self.waiting.popleft() if self.waiting else next(self.lines, None)

    def peek(self, place: int) -> Line | None:
        while len(self.waiting) <= place:
            line = next(self.lines, None)
            if line is None:
                return None
            self.waiting.append(line)
        return self.waiting[place]


def _rows(lines: Iterable[Line], count: int) -> Iterator[list[str] | BadRow]:
    ahead = _Lookahead(lines)
    while line := ahead.take():
        row = _fields(line, count, _split)
        if isinstance(row, BadRow) and not line.problem:
            row = _quoted(line, ahead, count) or row
        yield row


def _split(text: str) -> list[str]:
    return text.split("\t")


def _fields(line: Line, count: int, split: Callable[[str], list[str]]) -> list[str] | BadRow:
    if line.problem:
        return BadRow(line.where, line.problem)
    fields = split(line.text)
    if len(fields) != count:
        reason = f"expected {count} columns with TABs between them, found {len(fields)}: {line.text[:SHOWN]!r}"
        return BadRow(line.where, reason)
    return fields


def _quoted(line: Line, ahead: _Lookahead, count: int) -> list[str] | None:
    """The row that begins in this line, if quotation marks around fields make one of it and of lines after it."""
    if '"' not in line.text:
        return None
    text = line.text
    for more in range(LONGEST_QUOTED_FIELD):
        if _unquoted(text, count):
            for _ in range(more):
                ahead.take()
            return _unquoted(text, count)
        following = ahead.peek(more)
        if following is None or following.problem or len(_split(following.text)) == count:
            return None  # the next line is a row of its own
        text += "\n" + following.text
    return None


def _unquoted(text: str, count: int) -> list[str] | None:
    try:
        [fields] = csv.reader([text], delimiter="\t", strict=True)
    except csv.Error:
        return None
    return fields if len(fields) == count else None


def _escaped_rows(lines: Iterator[Line], count: int) -> Iterator[list[str] | BadRow]:
    for line in lines:
        while _ends_in_escape(line.text):
            following = next(lines, None)
            if following is None:
                break
            joined = f"{line.text}\n{following.text}"
            line = Line(line.where, joined, line.problem or following.problem)
        yield _fields(line, count, _split_escaped)


def _ends_in_escape(text: str) -> bool:
    backslashes = len(text) - len(text.rstrip("\\"))
    return backslashes % 2 == 1


def _split_escaped(text: str) -> list[str]:
    if "\\" not in text:
        return _split(text)
    fields = [""]
    characters = iter(text)
    for character in characters:
        if character == "\t":
            fields.append("")
        elif character == "\\":
            fields[-1] += next(characters, "")
        else:
            fields[-1] += character
    return fields


def made_of(rows: Iterable[Sequence[Any] | BadRow], make: Callable[..., Made]) -> list[Made | BadRow]:
    """What ``make`` makes of the fields of each row; bad rows stay as they are."""
    return [row if isinstance(row, BadRow) else make(*row) for row in rows]


def read_transcripts(file: Path, name: str, separator: str = " ") -> list[tuple[str, str] | BadRow]:
    """(id, text) of every line ``<id><separator><text>`` whose id matches the pattern ``name``."""
    begins = re.compile(rf"({name})(?!\w)")
    pattern = re.compile(rf"({name}){re.escape(separator)}(.*)")
    expected = f"expected {name}, a {'TAB' if separator == chr(9) else 'space'} and the text"
    rows: list[tuple[str, str] | BadRow] = []
    for line in read_lines(file):
        found = pattern.fullmatch(line.text)
        if found and not line.problem:
            rows.append((found[1], found[2]))
            continue
        named = begins.match(line.text)
        reason = line.problem or f"{expected}, found {line.text[:SHOWN]!r}"
        rows.append(BadRow(line.where, reason, named[1] if named else ""))
    return rows


def names_of(rows: Iterable[tuple[str, str] | BadRow]) -> set[str]:
    """Ids of the utterances that transcripts are about, readable or not."""
    return {row.name if isinstance(row, BadRow) else row[0] for row in rows}


def read_objects(file: Path) -> Iterator[tuple[str, dict[str, Any]] | BadRow]:
    """Where it stands and what it holds, of every line that is a JSON object."""
    for line in read_lines(file):
        try:
            if line.problem:
                raise ValueError(line.problem)
            found = json.loads(line.text)
            if not isinstance(found, dict):
                raise ValueError(f"expected a JSON object, found {found!r}"[:SHOWN])
            json.dumps(found, ensure_ascii=False).encode()  # "\ud800" is JSON, and no text
        except (ValueError, RecursionError) as error:
            yield BadRow(line.where, str(error))
        else:
            yield line.where, found
