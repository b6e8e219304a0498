"""LibriSpeech: 960 hours of English audiobooks of LibriVox (Panayotov et al. 2015, doi 10.1109/ICASSP.2015.7178964).

Published (openslr.org/12) as an archive a part; all of them unpack into ``LibriSpeech/<part>/<speaker>/<chapter>``, and
``corpus.path`` is the folder that holds ``LibriSpeech``. Not read by lhotse's ``prepare_librispeech``: it passes over
recordings without a transcript and transcripts without a recording, and stops at a damaged line, which it does not
name, and at a recording that cannot be read.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from masr.corpora import Split, Utterance, join, there
from masr.corpora.tables import BadRow, made_of, names_of, read_transcripts

FOLDER = "LibriSpeech"
# Folders of chapters instead of 292,000 recordings: their time changes when a recording comes or goes.
SOURCES = (f"{FOLDER}/*/*/*", f"{FOLDER}/*/*/*/*.trans.txt")
TRAIN = ("train-clean-100", "train-clean-360", "train-other-500")
PARTS = (*TRAIN, "dev-clean", "dev-other", "test-clean", "test-other")
LANGUAGE = "en"


def read(path: Path, languages: Sequence[str] = ()) -> dict[str, Split]:
    """Cuts by part, each read when it is asked for, and all training parts as ``train-960``.

    Recordings without a transcript, and transcripts without a recording, become cuts that stage 0 rejects.
    """
    if other := [code for code in languages if code != LANGUAGE]:
        raise ValueError(f"corpus.languages: LibriSpeech has no {', '.join(other)}; it has {LANGUAGE}")
    folder = path / FOLDER
    if not folder.is_dir():
        raise FileNotFoundError(
            f"corpus.path: no folder {FOLDER} in {path}; there is: {there(path)}. Unpack the archives of its parts "
            "there"
        )
    parts = {part: Split(part, partial(_read_part, folder / part)) for part in PARTS}
    return parts | {"train-960": join("train-960", [parts[part] for part in TRAIN])}


def _read_part(part: Path) -> list[Utterance | BadRow]:
    chapters = sorted(chapter for chapter in part.glob("*/*") if chapter.is_dir())
    if not chapters:
        raise FileNotFoundError(
            f"corpus.path: no {part.name}/<speaker>/<chapter> in {part.parent}; there is: {there(part.parent)}. Unpack "
            f"{part.name}.tar.gz in {part.parents[1]}"
        )
    return [utterance for chapter in chapters for utterance in _read_chapter(chapter)]


def _read_chapter(chapter: Path) -> list[Utterance | BadRow]:
    """Utterances of all transcripts in their order, then of recordings that have none."""
    speaker = chapter.parent.name
    name = f"{speaker}-{chapter.name}"
    file = chapter / f"{name}.trans.txt"
    if not file.is_file():
        raise FileNotFoundError(f"corpus.path: {file} is missing: unpack {chapter.parents[1].name}.tar.gz again")
    rows = read_transcripts(file, rf"{name}-\d+")
    heard = {recording.stem for recording in chapter.glob("*.flac")}
    rows += [(other, "") for other in sorted(heard - names_of(rows))]

    def utterance(name: str, text: str) -> Utterance:
        return Utterance(name, chapter / f"{name}.flac", text, LANGUAGE, speaker)

    return made_of(rows, utterance)
