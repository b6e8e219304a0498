"""AISHELL-1: 178 hours of Mandarin, sentences that 400 speakers read (Bu et al. 2017, arXiv 1709.05522).

Published (openslr.org/33) as one archive that holds one archive a speaker, which unpack into
``data_aishell/wav/<train|dev|test>/<speaker>``; ``corpus.path`` is the folder that holds ``data_aishell``. Not read by
lhotse's ``prepare_aishell``: it passes over recordings without a transcript and speakers that are still packed, and
stops at a recording that cannot be read.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from masr.corpora import Split, Utterance, there
from masr.corpora.tables import BadRow, made_of, names_of, read_transcripts

FOLDER = "data_aishell"
TRANSCRIPTS = "transcript/aishell_transcript_v0.8.txt"
# Folders of speakers instead of 142,000 recordings: their time changes when a recording comes or goes.
SOURCES = (f"{FOLDER}/{TRANSCRIPTS}", f"{FOLDER}/wav/*/*")
SPLITS = ("train", "dev", "test")
LANGUAGE = "zh"
NAME = r"BAC009S\d{4}W\d{4}"
"""Of an utterance; S and four digits are its speaker."""

Rows = list[tuple[str, str] | BadRow]


def read(path: Path, languages: Sequence[str] = ()) -> dict[str, Split]:
    """Cuts by split, each read when it is asked for.

    Text is without the spaces that part its words, since Chinese is written so. Recordings without a transcript, as 325
    of the 141,925 published ones are, and transcripts without a recording become cuts that stage 0 rejects.
    """
    if other := [code for code in languages if code != LANGUAGE]:
        raise ValueError(f"corpus.languages: AISHELL-1 has no {', '.join(other)}; it has {LANGUAGE}")
    folder = path / FOLDER
    if not (folder / TRANSCRIPTS).is_file():
        raise FileNotFoundError(
            f"corpus.path: no {FOLDER}/{TRANSCRIPTS} in {path}; there is: {there(path)}. Unpack {FOLDER}.tgz there"
        )
    texts: dict[str, Rows] = defaultdict(list)
    nobodys: list[BadRow] = []
    for row in read_transcripts(folder / TRANSCRIPTS, NAME):
        if not isinstance(row, BadRow):
            name, text = row
            texts[_speaker(name)].append((name, "".join(text.split())))
        elif row.name:
            texts[_speaker(row.name)].append(row)
        else:
            nobodys.append(row)
    speakers = {split: sorted(f for f in (folder / "wav" / split).glob("S*") if f.is_dir()) for split in SPLITS}
    _check(texts, speakers, folder / "wav")
    return {split: Split(split, partial(_read_speakers, speakers[split], texts, nobodys)) for split in SPLITS}


def _speaker(name: str) -> str:
    return name[6:11]


def _check(texts: Mapping[str, object], speakers: Mapping[str, Sequence[Path]], wav: Path) -> None:
    """FileNotFoundError if a speaker has transcripts and no folder: of which split they are is not known then."""
    found = {folder.name for folders in speakers.values() for folder in folders}
    if missing := sorted(texts.keys() - found):
        raise FileNotFoundError(
            f"corpus.path: {len(missing)} of {len(texts)} speakers have no folder in {wav}/<{'|'.join(SPLITS)}> "
            f"(first: {missing[0]}); there is: {there(wav)}. Unpack there the archives of speakers that it holds"
        )


def _read_speakers(
    folders: Sequence[Path], texts: Mapping[str, Rows], nobodys: Sequence[BadRow]
) -> list[Utterance | BadRow]:
    """Of each speaker utterances of all transcripts in their order, then of recordings that have none.

    Before them rows of nobody knows whom, which may be of any split.
    """
    utterances: list[Utterance | BadRow] = [*nobodys]
    for folder in folders:
        rows = list(texts.get(folder.name, []))
        heard = {recording.stem for recording in folder.glob("*.wav")}
        rows += [(name, "") for name in sorted(heard - names_of(rows))]
        utterances += made_of(rows, partial(_utterance, folder))
    return utterances


def _utterance(folder: Path, name: str, text: str) -> Utterance:
    return Utterance(name, folder / f"{name}.wav", text, LANGUAGE, folder.name)
