"""Multilingual LibriSpeech (MLS): read audiobooks in eight languages (Pratap et al. 2020, arXiv 2012.03411).

Published (openslr.org/94) as a folder a language, ``mls_german`` in FLAC or ``mls_german_opus``, that holds ``train``,
``dev`` and ``test``. Not read by lhotse's ``prepare_mls``: it takes all languages that it finds, not FLAC and Opus
together, passes over audio without a transcript, and stops at a transcript without audio.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from lhotse import Recording
from lhotse.cut import Cut

from masr.corpora import recording_of, there, whole_cut
from masr.progress import track

# Folders of chapters instead of a million recordings: their time changes when a recording comes or goes.
SOURCES = ("mls_*/*/transcripts.txt", "mls_*/train/limited_supervision/**/handles.txt", "mls_*/*/audio/*/*")
LANGUAGES = {
    "de": "german", "en": "english", "es": "spanish", "fr": "french", "it": "italian", "nl": "dutch", "pl": "polish",
    "pt": "portuguese",
}  # fmt: skip
LIMITED = {"train_10hr": "**/handles.txt", "train_9hr": "9hr/handles.txt", "train_1hr": "1hr/*/handles.txt"}
"""Published parts of the training set, as patterns below ``limited_supervision``."""


def read(path: Path, languages: Sequence[str] = ()) -> dict[str, list[Cut]]:
    """Cuts by split: train, dev, test and those of ``LIMITED``; ``languages`` empty means all whose folder is there.

    Audio without a transcript, and transcripts and handles without audio, become cuts that stage 0 rejects.
    """
    splits: dict[str, list[Cut]] = defaultdict(list)
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


def _read_split(folder: Path, language: str) -> list[Cut]:
    """Cuts of all transcripts in their order, then of audio that has none."""
    texts = _read_transcripts(folder / "transcripts.txt")
    audio = {file.stem: file for file in (folder / "audio").glob(f"*/*/*{_suffix(folder)}")}
    texts += [(name, "") for name in sorted(audio.keys() - {name for name, _ in texts})]
    what = f"prepare: {folder.parent.name}/{folder.name}"
    return [
        _cut(name, text, language, recording_of(audio.get(name) or _audio_of(name, folder)))
        for name, text in track(texts, what, len(texts), unit="recordings")
    ]


def _read_limited(train: Path, language: str, cuts: list[Cut]) -> dict[str, list[Cut]]:
    """The recordings of ``train`` that each part of ``LIMITED`` names; no part whose handles are not there."""
    known = {cut.id: (cut.supervisions[0].text or "", cut.recording) for cut in cuts}
    splits = defaultdict(list)
    for split, pattern in LIMITED.items():
        for file in sorted((train / "limited_supervision").glob(pattern)):
            for name in file.read_text(encoding="utf-8").split():
                text, recording = known.get(name) or ("", recording_of(_audio_of(name, train)))
                splits[split].append(_cut(name, text, language, recording))
    return splits


def _read_transcripts(file: Path) -> list[tuple[str, str]]:
    """(id, text) of every line; ValueError names a line that has not both, or that is not UTF-8."""
    if not file.is_file():
        raise FileNotFoundError(f"corpus.path: {file} is missing: {file.parent} is not a split of MLS")
    rows = []
    try:
        with file.open(encoding="utf-8") as lines:  # not splitlines(), which also splits at rare separators in a text
            for number, line in enumerate(lines, 1):
                name, tab, text = line.rstrip("\n").partition("\t")
                if not tab or name.count("_") != 2:
                    raise ValueError(f"{file}:{number}: expected <speaker>_<book>_<number> TAB text, found {line!r}")
                rows.append((name, text))
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 text: {error}") from error
    return rows


def _suffix(split: Path) -> str:
    return ".opus" if split.parent.name.endswith("_opus") else ".flac"


def _audio_of(name: str, split: Path) -> Path:
    """Where the recording of an id is published: ``audio/<speaker>/<book>/<id>``."""
    return split.joinpath("audio", *name.split("_")[:2], name + _suffix(split))


def _cut(name: str, text: str, language: str, recording: Recording) -> Cut:
    return whole_cut(recording, name, text, language, name.split("_")[0])
