"""Miniature corpora: real freevoices recordings, laid out exactly as a dataset is published.

One function a dataset, ``<dataset>(folder, ...)``. Tests are not a package, so a ``conftest.py`` puts this folder on
``sys.path``; then ``import miniatures``.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

from masr.corpora.fleurs import LANGUAGES as FLEURS_LANGUAGES
from masr.corpora.mls import LANGUAGES as MLS_LANGUAGES
from masr.text.normalize import normalize

REPOSITORY = Path(__file__).resolve().parents[2]
CORPUS = REPOSITORY / "egs/freevoices/corpus"
PHONEPROMPTS = REPOSITORY / "egs/phoneprompts/corpus"
SAMPLING_RATE = 16000
GAP = 0.1  # seconds of silence after each recording of a freevoices file
COUNTS = {"train": 6, "dev": 2, "test": 3}
SHORTEST, LONGEST = 0.6, 1.8  # seconds
FASTEST = 12.0  # characters a second
MLS_COUNTS = {"train": 8, "dev": 2, "test": 3}
MLS_METAINFO = """\
 SPEAKER   |   GENDER   | PARTITION  |  MINUTES   |  BOOK ID   |             TITLE              |            CHAPTER
  10065    |     M      |   train    |   9.002    |    101     |             Title              |          Chapter 09
"""
COMMONVOICE_COUNTS = {"train": 8, "dev": 2, "test": 3}
COMMONVOICE_COLUMNS = [
    "client_id", "path", "sentence_id", "sentence", "sentence_domain", "up_votes", "down_votes", "age", "gender",
    "accents", "variant", "locale", "segment",
]  # fmt: skip
COMMONVOICE_OTHER_TABLES = {
    "reported": ["sentence", "sentence_id", "locale", "reason"],
    "unvalidated_sentences": ["sentence_id", "sentence", "sentence_domain", "source"],
    "validated_sentences": ["sentence_id", "sentence", "sentence_domain", "source", "is_used", "clips_count"],
}
COVOST_COUNTS = {"train": 6, "dev": 1, "test": 2}
COVOST_FASTEST = 17.0  # characters a second: Catalan is spoken fast
COVOST_COLUMNS = ["path", "sentence", "translation", "client_id"]
COMMONVOICE_4_COLUMNS = ["client_id", "path", "sentence", "up_votes", "down_votes", "age", "gender", "accent"]
LIBRISPEECH_COUNTS = {"train-clean-100": 8, "train-clean-360": 3, "train-other-500": 3, "dev-clean": 2, "test-clean": 2,
                      "test-other": 2}  # fmt: skip
LIBRISPEECH_SPEAKERS = """\
; Some pipe(|) separated metadata about all LibriVox readers
;ID  |SEX| SUBSET           |MINUTES| NAME
"""
AISHELL_COUNTS = {"train": 8, "dev": 2, "test": 3}
AISHELL_WORDS = ("而", "对", "楼市", "成交", "抑制", "作用", "最", "大", "的", "限", "购", "ｋｔｖ")

FLEURS_COUNTS = {"train": 4, "dev": 1, "test": 2}


@cache
def published_rows(corpus: Path = CORPUS) -> list[dict]:
    """Lines of the manifest of a shipped corpus."""
    return [json.loads(line) for line in (corpus / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]


def choose(
    languages: Sequence[str],
    counts: Mapping[str, int],
    longest: float = LONGEST,
    fastest: float = FASTEST,
    corpus: Path = CORPUS,
) -> list[dict]:
    """The first ``counts[split]`` recordings of moderate length of every split and language."""
    chosen: dict[tuple[str, str], list[dict]] = defaultdict(list)
    for row in published_rows(corpus):
        group = chosen[row["language"], row["split"]]
        fits = SHORTEST < row["duration"] < longest and len(row["text"]) < fastest * row["duration"]
        if row["language"] in languages and fits and len(group) < counts.get(row["split"], 0):
            group.append(row)
    return [row for group in chosen.values() for row in group]


def samples_of(row: dict, corpus: Path = CORPUS) -> np.ndarray:
    """(S,) float32 samples of a recording of a shipped corpus."""
    start, frames = (round(row[name] * SAMPLING_RATE) for name in ("start", "duration"))
    return soundfile.read(corpus / row["audio"], start=start, frames=frames, dtype="float32")[0]


def freevoices(
    folder: Path, languages: Sequence[str] = ("ro", "es", "fr"), counts: Mapping[str, int] = COUNTS
) -> list[dict]:
    """freevoices as in egs/freevoices/corpus: one Opus file a source and language, and ``manifest.jsonl``.

    Returns the lines of the manifest.
    """
    return write_pack(folder, choose(languages, counts), CORPUS)


def phoneprompts(
    folder: Path, languages: Sequence[str] = ("en", "es", "fr"), counts: Mapping[str, int] = COUNTS
) -> list[dict]:
    """phoneprompts as in egs/phoneprompts/corpus, which is laid out as freevoices is.

    Returns the lines of the manifest.
    """
    return write_pack(folder, choose(languages, counts, corpus=PHONEPROMPTS), PHONEPROMPTS)


def write_pack(folder: Path, chosen: Sequence[dict], corpus: Path) -> list[dict]:
    """Some recordings of a shipped corpus, laid out like it; the lines of their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    audio: dict[str, list[np.ndarray]] = defaultdict(list)
    rows = []
    for row in chosen:
        before, samples = audio[row["audio"]], samples_of(row, corpus)
        rows.append(row | {"start": sum(map(len, before)) / SAMPLING_RATE, "duration": len(samples) / SAMPLING_RATE})
        before += [samples, np.zeros(int(GAP * SAMPLING_RATE), dtype=np.float32)]
    for name, parts in audio.items():
        soundfile.write(folder / name, np.concatenate(parts), SAMPLING_RATE, format="OGG", subtype="OPUS")
    write_manifest(folder, rows)
    return rows


def write_manifest(folder: Path, rows: Sequence[dict]) -> None:
    """``manifest.jsonl`` of a freevoices folder."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (folder / "manifest.jsonl").write_text("".join(lines), encoding="utf-8")


def add_recording(folder: Path, row: dict, samples: np.ndarray, rate: int = SAMPLING_RATE) -> dict:
    """Writes (S,) or (S, channels) samples as ``row["audio"]`` (lossless) and returns the row with its true times."""
    soundfile.write(folder / row["audio"], samples, rate, subtype="FLOAT" if row["audio"].endswith("wav") else None)
    return row | {"start": 0.0, "duration": len(samples) / rate}


def mls(folder: Path, opus: Mapping[str, bool], counts: Mapping[str, int] = MLS_COUNTS) -> list[dict]:
    """Multilingual LibriSpeech: FLAC, or Opus for the languages whose ``opus[code]`` is true.

    Returns the chosen lines of freevoices' manifest with the ``id`` and ``text`` that are published here.
    """
    rows = []
    for number, row in enumerate(choose(list(opus), counts)):
        suffix, kind = (".opus", {"format": "OGG", "subtype": "OPUS"}) if opus[row["language"]] else (".flac", {})
        language = folder / f"mls_{MLS_LANGUAGES[row['language']]}{'_opus' if suffix == '.opus' else ''}"
        speaker, book = "10065", str(101 + list(counts).index(row["split"]))
        name = f"{speaker}_{book}_{number:06}"
        audio = language / row["split"] / "audio" / speaker / book
        audio.mkdir(parents=True, exist_ok=True)
        soundfile.write(audio / (name + suffix), samples_of(row), SAMPLING_RATE, **kind)
        text = normalize(row["text"], row["language"])
        rows.append(row | {"id": name, "text": text, "folder": language / row["split"]})
        (language / "metainfo.txt").write_text(MLS_METAINFO)
    for split in {row["folder"] for row in rows}:
        write_mls_split(split, [row for row in rows if row["folder"] == split])
    return rows


def write_mls_split(split: Path, rows: Sequence[dict]) -> None:
    """What MLS has beside the audio of a split; six training recordings are its "1 hour", the others its "9 hours"."""
    segments = [f"{row['id']}\thttp://archive.org/a.mp3\t0.0\t{row['duration']:.2f}\n" for row in rows]
    (split / "segments.txt").write_text("".join(segments))
    transcripts = [f"{row['id']}\t{row['text']}\n" for row in rows]
    (split / "transcripts.txt").write_text("".join(transcripts), encoding="utf-8")
    if split.name == "train":
        names = [row["id"] for row in rows]
        parts = {f"1hr/{i}": names[i : i + 1] for i in range(6)} | {"9hr": names[6:]}
        for part, handles in parts.items():
            (split / "limited_supervision" / part).mkdir(parents=True)
            (split / "limited_supervision" / part / "handles.txt").write_text("".join(f"{h}\n" for h in handles))


def commonvoice(folder: Path, languages: Sequence[str], counts: Mapping[str, int] = COMMONVOICE_COUNTS) -> list[dict]:
    """Common Voice from release 17 on: a folder a language, with tables of its splits and clips in MP3 at 32 kHz.

    Returns the chosen lines of freevoices' manifest with the ``id`` that is published here.
    """
    rows = [
        row | {"id": f"common_voice_{row['language']}_{39500000 + number}"}
        for number, row in enumerate(choose(languages, counts))
    ]
    for language in languages:
        (folder / language / "clips").mkdir(parents=True)
        write_commonvoice_tables(folder / language, [row for row in rows if row["language"] == language])
    for row in rows:
        clip = folder / row["language"] / "clips" / f"{row['id']}.mp3"
        soundfile.write(clip, resample_poly(samples_of(row), 2, 1), 2 * SAMPLING_RATE, format="MP3")
    return rows


def write_commonvoice_tables(folder: Path, rows: Sequence[dict]) -> None:
    """All tables of a language; quotation marks stand in them as they do in the text."""
    splits = {name: [row for row in rows if row["split"] == name] for name in ("train", "dev", "test")}
    for name, group in (splits | {"validated": rows, "invalidated": [], "other": []}).items():
        fields = [
            {"client_id": f"{row['speaker']:x<128}", "path": f"{row['id']}.mp3", "sentence_id": f"{row['id']:x<64}",
             "sentence": row["text"], "up_votes": "2", "down_votes": "0", "locale": folder.name}
            for row in group
        ]  # fmt: skip
        write_tsv(folder / f"{name}.tsv", COMMONVOICE_COLUMNS, fields)
    durations = [{"clip": f"{row['id']}.mp3", "duration[ms]": f"{1000 * row['duration']:.0f}"} for row in rows]
    write_tsv(folder / "clip_durations.tsv", ["clip", "duration[ms]"], durations)
    for name, columns in COMMONVOICE_OTHER_TABLES.items():
        write_tsv(folder / f"{name}.tsv", columns, [])


def covost2(
    folder: Path,
    languages: Sequence[str],
    english: str | None = None,
    beside: Sequence[str] = (),
    counts: Mapping[str, int] = COVOST_COUNTS,
) -> list[dict]:
    """CoVoST 2 over Common Voice 4: a folder a language, as its archive unpacks, with clips in MP3 at 48 kHz.

    Tables of translations, and those that ``get_covost_splits.py`` makes of them, are in the folder of their language
    or, of languages in ``beside``, beside it. freevoices has no English: recordings of the language ``english``, and
    their translations into German, stand in for it. Returns the chosen lines of its manifest with what is published.
    """
    spoken = [*languages, *([english] if english else [])]
    rows = []
    for number, row in enumerate(choose(spoken, counts, fastest=COVOST_FASTEST)):
        code, into = ("en", "de") if row["language"] == english else (row["language"], "en")
        name = f"common_voice_{code}_{17300000 + number}"
        rows.append(row | {"language": code, "id": name, "into": into, "translated": row["translation"][into]})
    for code in sorted({row["language"] for row in rows}):
        clips = folder / code / "clips"
        clips.mkdir(parents=True)
        group = [row for row in rows if row["language"] == code]
        for row in group:
            samples = resample_poly(samples_of(row), 3, 1)
            soundfile.write(clips / f"{row['id']}.mp3", samples, 3 * SAMPLING_RATE, format="MP3")
        write_commonvoice_4_tables(folder / code, group)
        write_covost_tables(folder if code in beside else folder / code, group)
    return rows


def write_commonvoice_4_tables(folder: Path, rows: Sequence[dict]) -> None:
    """Common Voice's own: its train has fewer clips than CoVoST's, here one less."""
    splits = {name: [row for row in rows if row["split"] == name] for name in ("train", "dev", "test")}
    splits["train"] = splits["train"][:-1]
    for name, group in (splits | {"validated": rows, "invalidated": [], "other": []}).items():
        fields = [
            {"client_id": f"{row['speaker']:x<128}", "path": f"{row['id']}.mp3", "sentence": row["text"],
             "up_votes": "2", "down_votes": "0"}
            for row in group
        ]  # fmt: skip
        write_tsv(folder / f"{name}.tsv", COMMONVOICE_4_COLUMNS, fields)


def write_covost_tables(folder: Path, rows: Sequence[dict]) -> None:
    """The published table of a language, and what ``get_covost_splits.py`` makes of it."""
    stem = f"covost_v2.{rows[0]['language']}_{rows[0]['into']}"
    last = [row["id"] for row in rows if row["split"] == "train"][-1]
    fields = [
        {"path": f"{row['id']}.mp3", "sentence": row["text"], "client_id": f"{row['speaker']:x<128}",
         "translation": row["translated"], "split": "train_covost" if row["id"] == last else row["split"]}
        for row in rows
    ]  # fmt: skip
    fields = [{name: text.replace("\\", "\\\\") for name, text in row.items()} for row in fields]
    write_tsv(folder / f"{stem}.tsv", ["path", "translation", "split"], fields)
    for split in ("train", "dev", "test"):
        own = [row for row in fields if row["split"].removesuffix("_covost") == split]
        write_tsv(folder / f"{stem}.{split}.tsv", COVOST_COLUMNS, own)


def write_tsv(file: Path, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    """A header and a line for each of the rows, whose missing columns stay empty."""
    lines = [columns, *([row.get(column, "") for column in columns] for row in rows)]
    file.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")


def librispeech(folder: Path, language: str = "es", counts: Mapping[str, int] = LIBRISPEECH_COUNTS) -> list[dict]:
    """LibriSpeech: ``LibriSpeech/<part>/<speaker>/<chapter>``, with FLAC and one transcript file a chapter.

    freevoices has no English: recordings of another language stand in for it, with their own words in the capital
    letters of LibriSpeech. Returns the chosen lines of freevoices' manifest with the ``id``, ``text`` and ``split``
    (the part) that are published here.
    """
    rows, spoken = [], iter(choose([language], {"train": sum(counts.values())}))
    for number, (part, count) in enumerate(counts.items()):
        reader, book = str(19 + number), 100 + number
        for place, row in zip(range(count), spoken, strict=False):
            chapter = f"{book}{place % 2}"  # two chapters of each
            row = row | {"id": f"{reader}-{chapter}-{place // 2:04}", "split": part, "speaker": reader}
            row["text"] = normalize(row["text"], row["language"]).upper()
            row["folder"] = folder / "LibriSpeech" / part / reader / chapter
            row["folder"].mkdir(parents=True, exist_ok=True)
            soundfile.write(row["folder"] / f"{row['id']}.flac", samples_of(row), SAMPLING_RATE)
            rows.append(row)
    for chapter in {row["folder"] for row in rows}:
        lines = [f"{row['id']} {row['text']}\n" for row in rows if row["folder"] == chapter]
        file = chapter / f"{chapter.parent.name}-{chapter.name}.trans.txt"
        file.write_text("".join(lines), encoding="utf-8")
    (folder / "LibriSpeech/SPEAKERS.TXT").write_text(LIBRISPEECH_SPEAKERS)
    return rows


def aishell(folder: Path, language: str = "fr", counts: Mapping[str, int] = AISHELL_COUNTS) -> list[dict]:
    """AISHELL-1, its archives of speakers unpacked: ``data_aishell/wav/<split>/<speaker>`` and one transcript file.

    freevoices has no Chinese: recordings of another language stand in for it, and their texts are a few Chinese words,
    parted by spaces as the published ones are, that nobody says in them. Returns the chosen lines of freevoices'
    manifest with the ``id`` and ``text`` that are published here.
    """
    rows, corpus = [], folder / "data_aishell"
    for number, row in enumerate(choose([language], counts)):
        speaker = f"S{2 + 2 * list(counts).index(row['split']) + number % 2:04}"  # two of each split
        words = [AISHELL_WORDS[(number + i) % len(AISHELL_WORDS)] for i in range(4)]
        row = row | {"id": f"BAC009{speaker}W{122 + number:04}", "text": " ".join(words), "speaker": speaker}
        row["folder"] = corpus / "wav" / row["split"] / speaker
        row["folder"].mkdir(parents=True, exist_ok=True)
        soundfile.write(row["folder"] / f"{row['id']}.wav", samples_of(row), SAMPLING_RATE, subtype="PCM_16")
        rows.append(row)
    (corpus / "transcript").mkdir()
    lines = [f"{row['id']} {row['text']}\n" for row in sorted(rows, key=lambda row: row["id"])]
    (corpus / "transcript/aishell_transcript_v0.8.txt").write_text("".join(lines), encoding="utf-8")
    return rows


def fleurs(folder: Path, languages: Mapping[str, str], counts: Mapping[str, int] = FLEURS_COUNTS) -> list[dict]:
    """FLEURS, its archives of recordings unpacked: a folder a language, with tables and WAV of floating-point samples.

    ``languages`` says recordings of which language of freevoices stand in for each, with their own words. The first
    sentence of every split is read twice. Returns the chosen lines of freevoices' manifest with the ``id``,
    ``sentence`` and ``language`` that are published here.
    """
    rows: list[dict] = []
    for code, spoken in languages.items():
        for split, count in counts.items():
            first, *others = choose([spoken], {split: count}, fastest=COVOST_FASTEST)
            for number, row in enumerate([first, first, *others]):
                sentence = str(100 * list(counts).index(split) + max(number, 1))
                name = f"{10**19 + len(rows)}"
                rows.append(row | {"id": f"{code}-{sentence}-{name}", "file": f"{name}.wav", "sentence": sentence,
                                   "language": code, "folder": folder / FLEURS_LANGUAGES[code]})  # fmt: skip
    for row in rows:
        audio = row["folder"] / "audio" / row["split"]
        audio.mkdir(parents=True, exist_ok=True)
        soundfile.write(audio / row["file"], samples_of(row), SAMPLING_RATE, subtype="FLOAT")
        with (row["folder"] / f"{row['split']}.tsv").open("a", encoding="utf-8") as table:
            text = normalize(row["text"], row["language"])
            letters = " ".join("|".join(text.split())) + " |"
            samples = round(row["duration"] * SAMPLING_RATE)
            fields = [row["sentence"], row["file"], row["text"], text, letters, str(samples), "FEMALE"]
            table.write("\t".join(fields) + "\n")
    return rows
