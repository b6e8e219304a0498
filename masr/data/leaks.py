"""What two splits share that only one of them may hold: a model that is tested on what it was trained on looks better
than it is.

Ids and audio are compared between all splits, texts and speakers on request between those that are trained on and the
others. Audio is the same where its file is (by hash, wherever it lies) and the two intervals overlap; segments of one
long file may be in different splits.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

from lhotse.cut import Cut

TOLERANCE = 0.05
"""Seconds by which segments of one file may overlap."""
NAMED = 3
"""How many an error names."""

Splits = Mapping[str, Sequence[Cut]]


class Leak(NamedTuple):
    """A recording, and one of another split that is the same in some respect."""

    name: str
    split: str
    other: str
    other_split: str

    def __str__(self) -> str:
        if self.name == self.other:
            return f"{self.name} in {self.other_split} and {self.split}"
        return f"{self.other} in {self.other_split} is {self.name} in {self.split}"


def refuse_leaks(splits: Splits, training: Collection[str], disjoint: Collection[str] = ()) -> None:
    """ValueError counts and names what splits share.

    ``splits`` are all that a config uses, by name. Those of ``training``, labelled or not, may hold the same
    recordings, as both are trained on. ``disjoint`` may hold ``text`` (normalised, of one language) and ``speaker``:
    no split that is trained on shares any with the others, which may share them with each other.
    """
    found = {"have an id": list(_shared_ids(splits, training)), "have audio": list(_shared_audio(splits, training))}
    if "text" in disjoint:
        found["have a text"] = list(_shared_values(splits, training, _text))
    if "speaker" in disjoint:
        _refuse_unknown_speakers(splits)
        found["have a speaker"] = list(_shared_values(splits, training, _speaker))
    sentences = [_sentence(what, leaks) for what, leaks in found.items() if leaks]
    if not sentences:
        return
    all_leaks = [leak for leaks in found.values() for leak in leaks]
    raise ValueError(f"corpus: {'; '.join(sentences)}. {_way_out(all_leaks, disjoint)}")


def _sentence(what: str, leaks: list[Leak]) -> str:
    """How many recordings leak in one respect, and the first of them."""
    subject = "1 recording has" if len(leaks) == 1 else f"{len(leaks)} recordings have"
    first = ", ".join(str(leak) for leak in leaks[:NAMED])
    return f"{subject} {what.removeprefix('have ')} that another split has, too (first: {first})"


def _way_out(leaks: list[Leak], disjoint: Collection[str]) -> str:
    pairs = sorted({f"{leak.other_split} and {leak.split}" for leak in leaks})
    advice = f"{', '.join(pairs)} overlap: choose others with corpus.train, corpus.dev and corpus.test"
    if disjoint:
        return f"{advice}, take these recordings out of one of them, or ask for less with corpus.disjoint"
    return f"{advice}, or take these recordings out of one of them"


def _shared_ids(splits: Splits, training: Collection[str]) -> Iterator[Leak]:
    first: dict[str, str] = {}
    for split in _training_first(splits, training):
        for cut in splits[split]:
            other = first.setdefault(cut.id, split)
            if _must_differ(split, other, training):
                yield Leak(cut.id, split, cut.id, other)


def _shared_values(splits: Splits, training: Collection[str], value_of: Callable[[Cut], object]) -> Iterator[Leak]:
    """Recordings of the other splits with a value that some recording which is trained on has."""
    trained: dict[object, tuple[str, str]] = {}
    for split in _training_first(splits, training):
        for cut in splits[split]:
            value = value_of(cut)
            if value is None:
                continue
            if split in training:
                trained.setdefault(value, (cut.id, split))
            elif value in trained:
                yield Leak(cut.id, split, *trained[value])


def _shared_audio(splits: Splits, training: Collection[str]) -> Iterator[Leak]:
    """Recordings that overlap with one of another split in the same channel of the same file; each is found once."""
    parts: dict[tuple[str, int], list[tuple[float, float, str, str]]] = defaultdict(list)
    for split in _training_first(splits, training):
        for cut in splits[split]:
            for channel in _channels(cut):
                parts[channel].append((cut.start, cut.end, split, cut.id))
    found: set[tuple[str, str]] = set()
    for intervals in parts.values():
        for leak in _overlaps(sorted(intervals, key=itemgetter(0)), training):
            if (leak.split, leak.name) not in found:
                found.add((leak.split, leak.name))
                yield leak


def _overlaps(intervals: Iterable[tuple[float, float, str, str]], training: Collection[str]) -> Iterator[Leak]:
    """Of intervals of one file in the order of their starts: those that begin before one of another split has ended."""
    last: dict[str, tuple[float, float, str]] = {}
    for start, end, split, name in intervals:
        for other_split, (other_end, other_length, other) in last.items():
            shared = min(end, other_end) - start
            shortest = min(end - start, other_length)
            if _must_differ(split, other_split, training) and shared > min(TOLERANCE, shortest / 2):
                yield Leak(name, split, other, other_split)
        if split not in last or end > last[split][0]:
            last[split] = (end, end - start, name)


def _channels(cut: Cut) -> Iterator[tuple[str, int]]:
    """Hash of the file and place in it of every channel that a cut hears; a recording may have several files."""
    hashes = (cut.custom or {}).get("audio_hash", "").split("+")
    heard = cut.channel if isinstance(cut.channel, list) else [cut.channel]
    files = [source for source in cut.recording.sources if source.type == "file"]
    for source, name in zip(files, hashes, strict=False):
        for place, channel in enumerate(source.channels):
            if name and channel in heard:
                yield name, place


def _training_first(splits: Splits, training: Collection[str]) -> list[str]:
    return sorted(splits, key=lambda split: split not in training)


def _must_differ(split: str, other: str, training: Collection[str]) -> bool:
    return split != other and not (split in training and other in training)


def _text(cut: Cut) -> tuple[str, str] | None:
    supervision = cut.supervisions[0]
    return (supervision.language, supervision.text) if supervision.text else None


def _speaker(cut: Cut) -> str | None:
    return cut.supervisions[0].speaker or None


def _refuse_unknown_speakers(splits: Splits) -> None:
    """ValueError when it cannot be known whether speakers are shared."""
    for split, cuts in splits.items():
        unknown = [cut.id for cut in cuts if _speaker(cut) is None]
        if unknown:
            raise ValueError(
                f"corpus.disjoint: {len(unknown)} of {len(cuts)} recordings of {split} have no speaker (first: "
                f"{unknown[0]}), so that speakers cannot be compared; take speaker out of corpus.disjoint"
            )
