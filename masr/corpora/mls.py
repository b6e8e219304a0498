"""Multilingual LibriSpeech (MLS): read audiobooks in eight languages (Pratap et al. 2020, arXiv 2012.03411).

Published (openslr.org/94) as a folder a language, ``mls_german`` in FLAC or ``mls_german_opus``, that holds ``train``,
``dev`` and ``test``. Not read by lhotse's ``prepare_mls``: it takes all languages that it finds, not FLAC and Opus
together, passes over audio without a transcript, and stops at a transcript without audio.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from lhotse import Recording
from lhotse.cut import Cut

from masr.corpora import recording_of, there, whole_cut
from masr.corpora.tables import BadRow, made_of, names_of, read_lines, read_transcripts
from masr.progress import track

# Folders of chapters instead of a million recordings: their time changes when a recording comes or goes.
SOURCES = ("mls_*/*/transcripts.txt", "mls_*/train/limited_supervision/**/handles.txt", "mls_*/*/audio/*/*")
LANGUAGES = {
    "de": "german", "en": "english", "es": "spanish", "fr": "french", "it": "italian", "nl": "dutch", "pl": "polish",
    "pt": "portuguese",
}  # fmt: skip
NAME = r"[^_\s]+_[^_\s]+_[^_\s]+"
"""Of an utterance: ``<speaker>_<book>_<number>``."""
LIMITED = {"train_10hr": "**/handles.txt", "train_9hr": "9hr/handles.txt", "train_1hr": "1hr/*/handles.txt"}
"""Published parts of the training set, as patterns below ``limited_supervision``."""


def read(path: Path, languages: Sequence[str] = ()) -> dict[str, list[Cut | BadRow]]:
    """Cuts by split: train, dev, test and those of ``LIMITED``; ``languages`` empty means all whose folder is there.

    Audio without a transcript, and transcripts and handles without audio, become cuts that stage 0 rejects.
    """
    splits: dict[str, list[Cut | BadRow]] = defaultdict(list)
    for code, folder in _folders(path, languages).items():
        for name in ("train", "dev", "test"):
            splits[name] += (cuts := _read_split(folder / name, code))
            if name == "train":
                for limited, group in _read_limited(folder / name, code, cuts).items():
                    splits[limited] += group
    return dict(splits)


def _folders(path: Path, languages: Sequence[str]) -> dict[str, Path]:
    """Folder of every language, the original FLAC before its copy in Opus; the error says what is there instead."""
    if unknown := [code for code in languages if code not in LANGUAGES]:
        raise ValueError(f"corpus.languages: MLS has no {', '.join(unknown)}; it has {', '.join(LANGUAGES)}")
    kinds = {code: [path / f"mls_{LANGUAGES[code]}", path / f"mls_{LANGUAGES[code]}_opus"] for code in LANGUAGES}
    found = {code: folder for code, both in kinds.items() for folder in both[::-1] if folder.is_dir()}
    wanted = languages or list(found) or list(LANGUAGES)
    if missing := [" or ".join(folder.name for folder in kinds[code]) for code in wanted if code not in found]:
        raise FileNotFoundError(
            f"corpus.path: no folder {', '.join(missing)} in {path}; there is: {there(path)}. Unpack what is missing "
            "there, or choose among what there is with corpus.languages=[...]"
        )
    return {code: found[code] for code in wanted}


def _read_split(folder: Path, language: str) -> list[Cut | BadRow]:
    """Cuts of all transcripts in their order, then of audio that has none."""
    rows = _read_transcripts(folder / "transcripts.txt")
    audio = {file.stem: file for file in (folder / "audio").glob(f"*/*/*{_suffix(folder)}")}
    rows += [(name, "") for name in sorted(audio.keys() - names_of(rows))]

    def cut(name: str, text: str) -> Cut:
        return _cut(name, text, language, recording_of(audio.get(name) or _audio_of(name, folder)))

    what = f"prepare: {folder.parent.name}/{folder.name}"
    return made_of(track(rows, what, len(rows), unit="recordings"), cut)


def _read_limited(train: Path, language: str, cuts: list[Cut | BadRow]) -> dict[str, list[Cut | BadRow]]:
    """The recordings of ``train`` that each part of ``LIMITED`` names; no part whose handles are not there."""
    known: dict[str, Cut] = {}
    unreadable: dict[str, BadRow] = {}
    for cut in cuts:
        if isinstance(cut, BadRow):
            unreadable[cut.name] = cut
        else:
            known[cut.id] = cut
    splits = defaultdict(list)
    for split, pattern in LIMITED.items():
        for file in sorted((train / "limited_supervision").glob(pattern)):
            for name in _read_handles(file):
                if isinstance(name, BadRow) or name in unreadable:
                    splits[split].append(name if isinstance(name, BadRow) else unreadable[name])
                    continue
                splits[split].append(_cut_of_part(name, known.get(name), language, train))
    return splits


def _cut_of_part(name: str, known: Cut | None, language: str, train: Path) -> Cut:
    if known is None:
        return _cut(name, "", language, recording_of(_audio_of(name, train)))
    return _cut(name, known.supervisions[0].text or "", language, known.recording)


def _read_handles(file: Path) -> Iterator[str | BadRow]:
    for line in read_lines(file):
        yield BadRow(line.where, line.problem) if line.problem else line.text.strip()


def _read_transcripts(file: Path) -> list[tuple[str, str] | BadRow]:
    if not file.is_file():
        raise FileNotFoundError(f"corpus.path: {file} is missing: {file.parent} is not a split of MLS")
    return read_transcripts(file, NAME, "\t")


def _suffix(split: Path) -> str:
    return ".opus" if split.parent.name.endswith("_opus") else ".flac"


def _audio_of(name: str, split: Path) -> Path:
    """Where the recording of an id is published: ``audio/<speaker>/<book>/<id>``."""
    return split.joinpath("audio", *name.split("_")[:2], name + _suffix(split))


def _cut(name: str, text: str, language: str, recording: Recording) -> Cut:
    return whole_cut(recording, name, text, language, name.split("_")[0])
