"""One module per dataset: the published layout in, lhotse CutSets out.

A corpus module has
- ``SOURCES``: file patterns under the corpus folder whose change means that the corpus changed;
- ``read(path, languages) -> {split: iterable of cuts}``: every cut has one supervision with ``text`` as published,
  ``language`` (BCP-47), ``speaker`` and, where known, ``custom["translation"][language]``. A row that cannot be read is
  a ``BadRow`` in place of a cut.
"""

import importlib
import pkgutil
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from lhotse import AudioSource, LilcomChunkyWriter, MonoCut, MultiCut, Recording, SupervisionSegment
from lhotse.cut import Cut

from masr.corpora.tables import BadRow
from masr.data.audio_checks import UnusableAudio, check_file, check_recording
from masr.progress import printable, track
from masr.text.languages import is_code

NO_CORPORA = ("others", "tables")
"""Modules of this room that serve the readers."""


class Utterance(NamedTuple):
    """A recording of its own and what is said in it; the recording is not opened yet."""

    id: str
    audio: Path
    text: str
    language: str
    speaker: str
    translation: dict[str, str] | None = None
    """By language."""
    channel: int | None = None
    """Where the speaker is heard, of a recording of several channels; None is all of them, mixed."""


@dataclass
class Split:
    """Cuts of a split, one an utterance: transcripts are read when asked for, recordings opened one by one.

    A row of a table that cannot be read stands among them as it is.
    """

    name: str
    read: Callable[[], list[Utterance | BadRow]]

    @cached_property
    def utterances(self) -> list[Utterance | BadRow]:
        """In the order of the cuts."""
        return self.read()

    def __len__(self) -> int:
        return len(self.utterances)

    def __iter__(self) -> Iterator[MonoCut | MultiCut | BadRow]:
        for utterance in track(self.utterances, f"prepare: {self.name}", len(self), unit="recordings"):
            yield utterance if isinstance(utterance, BadRow) else cut_of(utterance)


def join(name: str, splits: list[Split]) -> Split:
    """One split after the other; each is still read only when it is asked for."""
    return Split(name, lambda: [utterance for split in splits for utterance in split.utterances])


def cut_of(utterance: Utterance) -> MonoCut | MultiCut:
    """The whole recording with its text."""
    name, audio, text, language, speaker, translation, channel = utterance
    return whole_cut(recording_of(audio), name, text, language, speaker, translation, channel)


def whole_cut(
    recording: Recording,
    name: str,
    text: str,
    language: str,
    speaker: str,
    translation: dict[str, str] | None = None,
    channel: int | None = None,
) -> MonoCut | MultiCut:
    """All of a recording, and what is said in it (in one ``channel``, or in all)."""
    supervision = SupervisionSegment(
        id=name,
        recording_id=recording.id,
        start=0.0,
        duration=recording.duration,
        text=text,
        language=language,
        speaker=speaker,
        custom={"translation": translation} if translation else None,
    )
    return cut_with(recording, 0.0, recording.duration, supervision, channel)


def cut_with(
    recording: Recording, start: float, duration: float, supervision: SupervisionSegment, channel: int | None = None
) -> MonoCut | MultiCut:
    """Part of a recording, named as its supervision: a cut of one channel, or of all, which `load_audio` mixes."""
    supervision.channel = heard = _channels_of(recording, channel)
    kind = MultiCut if isinstance(heard, list) else MonoCut
    return kind(
        id=supervision.id,
        start=start,
        duration=duration,
        channel=heard,
        recording=recording,
        supervisions=[supervision],
    )


def _channels_of(recording: Recording, channel: int | None) -> int | list[int]:
    """As lhotse has it: a number for one channel, a list for several."""
    if channel is not None:
        return channel
    channels = list(recording.channel_ids)
    return channels if len(channels) > 1 else channels[0]


def there(folder: Path) -> str:
    """What a folder holds, for an error about what it lacks."""
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    return ", ".join(names[:20]) or "nothing"


def corpus_module(name: str) -> ModuleType:
    """The module that reads corpus ``name``; ValueError lists the known ones."""
    known = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in NO_CORPORA)
    if name not in known:
        raise ValueError(f"corpus.name: no module masr/corpora/{name}.py; known corpora: {', '.join(known)}")
    return importlib.import_module(f"masr.corpora.{name}")


def check_cut(cut: Cut) -> None:
    """ValueError for a cut that no manifest may hold, wherever it comes from: `problem_of`."""
    if problem := problem_of(cut):
        raise ValueError(f"cut {printable(cut.id)}: {problem}")


def problem_of(cut: Cut) -> str | None:
    """Why a cut must not be used: lhotse would run a command or open an address for its audio, or the code of its
    language would lead to another folder."""
    recording = getattr(cut, "recording", None)
    if recording is None:
        return "it has no recording of its own"
    for source in recording.sources:
        if source.type not in ("file", "memory"):
            return f"its audio is a {printable(source.type)}, but only files are read"
        if source.type == "file" and not is_plain_file(source.source):
            return f"lhotse would take the name of its audio, {source.source!r}, for a command: rename it"
    if any(type(number) not in (int, float) for number in (cut.start, cut.duration)):
        return f"expected seconds, found start {cut.start!r} and duration {cut.duration!r}"
    for code in {supervision.language for supervision in cut.supervisions}:
        if not is_code(code):
            return f"language {code!r}: expected a code of letters and digits, e.g. cs or sv-SE"
    if cut.has_features and cut.features.storage_type != LilcomChunkyWriter.name:
        return f"its features are stored as {printable(cut.features.storage_type)}, not as masr stores them"
    return None


def is_plain_file(name: str | Path) -> bool:
    """Whether lhotse reads a file of this name itself: it puts those that end in .sph into a line for a shell."""
    return Path(name).suffix.lower() != ".sph" or shlex.quote(str(name)) == str(name)


def recording_of(path: Path) -> Recording:
    """What an audio file holds; one that cannot be read, or claims what cannot be, has no samples, so that stage 0
    rejects its cuts (and says why: `unreadable`)."""
    try:
        if not is_plain_file(path):
            raise ValueError(f"{path} would be read as a command")
        recording = Recording.from_file(path)
        check_recording(recording)
        return recording
    except Exception:  # lhotse's backends raise many kinds; all mean that the file is not readable
        source = AudioSource("file", [0], str(path))
        return Recording(path.stem, [source], sampling_rate=16000, num_samples=0, duration=0)


def unreadable(recording: Recording) -> str:
    """Why a recording of `recording_of` has no samples."""
    path = str(recording.sources[0].source)
    try:
        check_file(path)
    except UnusableAudio as error:
        return f"{path}: {error}"
    return f"{path} cannot be read, or is empty"
