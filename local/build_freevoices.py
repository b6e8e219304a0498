"""Rebuild the freevoices pack (egs/freevoices/corpus) from the public Debian packages it was made of.

The shipped manifest is the list of what belongs to the pack: ids, audio file names and splits come from it. All
else (audio, times, texts, translations, speakers, topics) is read again from the packages.

    python local/build_freevoices.py                  download the packages, rebuild into build/freevoices/pack
    python local/build_freevoices.py --packages DIR   the same from .deb files in a folder, without network
    python local/build_freevoices.py --check          compare the rebuilt pack with the shipped one
    python local/build_freevoices.py --check-splits   no sentence of the shipped pack stands in two splits

Needs `dpkg-deb`, and `apt-get` of a Debian 12 system unless --packages is given. Nothing is installed.
"""

import argparse
import json
import math
import re
import subprocess
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.signal import resample_poly

# Debian 12. Another version may have other recordings or corrected texts, which --check then reports.
PACKAGES = {
    "fillets-ng-data": "1.0.1-1.1",
    "fillets-ng-data-cs": "1.0.1-1.1",
    "fillets-ng-data-nl": "1.0.1-1.1",
    "tuxpaint-stamps-default": "2022.06.04-1",
}
FIELDS = ["id", "audio", "language", "start", "duration", "split", "speaker", "text", "translation"]
TRANSLATIONS = ("en", "de", "fr", "es", "cs", "nl", "ru")
SAMPLE_RATE = 16000
GAP = SAMPLE_RATE // 10
# libsndfile maps the level 0..1 linearly to 256..6 kbit/s for mono Opus: this is 16 kbit/s.
OPUS_LEVEL = 0.96
# Seconds. --check listens to every 25th recording.
TIME_TOLERANCE = 0.001
SAMPLE_EVERY = 25
# Two encoders at 16 kbit/s: a true rebuild has median 0.93 (0.77 in Danish alone), 0.24 in its noisiest recording.
# A pack shifted by 5 ms has median 0; of pairs of different recordings 99 in 100 are below 0.15.
MEDIAN_CORRELATION, LEAST_CORRELATION = 0.7, 0.2
REPOSITORY = Path(__file__).resolve().parent.parent

Audio = NDArray[np.float32]
Entry = dict[str, Any]


class PackError(ValueError):
    """Something the user can mend: a missing package, file or recording."""


@dataclass(frozen=True)
class Recording:
    """What an id names: `<source>/<language>/<item>`, where the item is a folder and a file's stem."""

    source: str
    language: str
    item: str

    @classmethod
    def from_id(cls, identifier: str) -> "Recording":
        parts = identifier.split("/", 2)
        if len(parts) != 3 or parts[0] not in ("fillets", "tuxpaint") or "/" not in parts[2]:
            raise PackError(f"id {identifier!r}: expected fillets|tuxpaint/<language>/<folder>/<name>")
        return cls(*parts)

    @property
    def audio_path(self) -> Path:
        """Path of the original recording inside the unpacked packages."""
        folder, name = self.item.split("/", 1)
        if self.source == "fillets":
            return Path(f"usr/share/games/fillets-ng/sound/{folder}/{self.language}/{name}.ogg")
        return Path(f"usr/share/tuxpaint/stamps/{self.item}_desc_{self.language}.ogg")

    @property
    def package(self) -> str:
        """The Debian package that holds the original recording."""
        return f"fillets-ng-data-{self.language}" if self.source == "fillets" else "tuxpaint-stamps-default"


def read_manifest(path: Path) -> list[Entry]:
    """Read a pack's manifest.jsonl; a broken line is an error that names it."""
    if not path.is_file():
        raise PackError(f"{path}: no such manifest (a rebuilt pack gets it when it is complete)")
    entries = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
            except json.JSONDecodeError as error:
                raise PackError(f"{path}:{number}: expected one JSON object, found {line[:60]!r}") from error
            if absent := [field for field in FIELDS if field not in entry]:
                raise PackError(f"{path}:{number}: lacks {', '.join(absent)}")
            entries.append(entry)
    return entries


def run(command: list[str], folder: Path) -> None:
    """Run a program in a folder; its failure is shown with its own words."""
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise PackError(f"{command[0]} is not on this system: it comes with Debian and its derivatives") from error
    except subprocess.CalledProcessError as error:
        raise PackError(f"{' '.join(command)} failed:\n{error.stderr.strip()}") from error


def find_package(name: str, folder: Path) -> Path:
    """The .deb file of a package in a folder; another version than the pack's is taken with a warning."""
    found = sorted(folder.glob(f"{name}_*.deb"), key=lambda path: f"_{PACKAGES[name]}_" in path.name)
    if not found:
        raise PackError(f"package {name}: no {name}_*.deb in {folder} (expected version {PACKAGES[name]})")
    if f"_{PACKAGES[name]}_" not in found[-1].name:
        print(f"warning: {found[-1].name}: the pack was made from version {PACKAGES[name]}", file=sys.stderr)
    return found[-1]


def unpack_packages(work: Path, packages: Path | None) -> Path:
    """Unpack the four packages below `work`, downloading them unless a folder of .deb files is given."""
    root = work / "unpacked"
    for name, version in PACKAGES.items():
        if (done := root / f"{name}.done").exists():
            continue
        root.mkdir(parents=True, exist_ok=True)
        if packages is None:
            print(f"downloading {name} {version}", flush=True)
            run(["apt-get", "download", f"{name}={version}"], work)
        archive = find_package(name, (packages or work).resolve())
        run(["dpkg-deb", "-x", str(archive), "."], root)
        done.touch()
    return root


@dataclass
class Dialog:
    """One line of Fish Fillets: who says it (a font), in English, and in the language of its file."""

    font: str
    english: str
    text: str = ""


_STRING = r'"((?:[^"\\]|\\.)*)"'
_DIALOG = re.compile(
    rf"dialogId\(\s*{_STRING}\s*,\s*{_STRING}\s*,\s*{_STRING}\s*\)|dialogStr\(\s*{_STRING}\s*\)", re.DOTALL
)


def parse_dialogs(lua: str) -> dict[str, Dialog]:
    """Read `dialogId("id", "font", "English")` and the `dialogStr("translation")` that follows it."""
    dialogs: dict[str, Dialog] = {}
    current: Dialog | None = None
    for match in _DIALOG.finditer(lua):
        name, font, english, text = (re.sub(r"\\(.)", r"\1", group or "") for group in match.groups())
        if match[1] is not None:
            current = dialogs[name] = Dialog(font, english)
        elif current is not None:
            current.text = text
    return dialogs


def parse_stamp(text: str) -> dict[str, str]:
    """Read a Tux Paint description: English in the first line, then `<language>.utf8=<text>` lines."""
    lines = text.split("\n")
    found = {"en": lines[0].strip()}
    for line in lines[1:]:
        language, separator, words = line.partition(".utf8=")
        if separator:
            found[language] = words.strip()
    return found


class Originals:
    """The unpacked packages: describes and decodes recordings by their ids."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.dialogs = cache(self._read_dialogs)

    def _read_dialogs(self, level: str, language: str) -> dict[str, Dialog]:
        """All dialogs of a level: `dialogs_cs.lua` and its like (`demo_dialogs_cs.lua`)."""
        folder = self.root / "usr/share/games/fillets-ng/script" / level
        dialogs: dict[str, Dialog] = {}
        for path in sorted(folder.glob(f"*dialogs_{language}.lua")):
            dialogs |= parse_dialogs(path.read_text(encoding="utf-8"))
        return dialogs

    def _fillets_texts(self, recording: Recording) -> tuple[str, dict[str, str]]:
        level, name = recording.item.split("/", 1)
        own = self.dialogs(level, recording.language).get(name)
        if own is None:
            raise PackError(f"fillets-ng-data: script/{level}/*dialogs_{recording.language}.lua lacks dialog {name!r}")
        texts = {"en": own.english, recording.language: own.text}
        for language in TRANSLATIONS:
            if language not in texts and (dialog := self.dialogs(level, language).get(name)):
                texts[language] = dialog.text
        return f"fillets-{recording.language}-{own.font}", texts

    def _tuxpaint_texts(self, recording: Recording) -> tuple[str, dict[str, str]]:
        path = self.root / "usr/share/tuxpaint/stamps" / f"{recording.item}.txt"
        if not path.is_file():
            raise PackError(f"tuxpaint-stamps-default: no description {path.relative_to(self.root)}")
        return f"tuxpaint-{recording.language}", parse_stamp(path.read_text(encoding="utf-8"))

    def describe(self, identifier: str) -> Entry:
        """The manifest's fields that come from the packages: language, speaker, text, translation, topic."""
        recording = Recording.from_id(identifier)
        read = self._fillets_texts if recording.source == "fillets" else self._tuxpaint_texts
        speaker, texts = read(recording)
        if not texts.get(recording.language):
            raise PackError(f"{identifier}: its text file has no text in {recording.language!r}")
        others = {key: texts[key] for key in TRANSLATIONS if key != recording.language and texts.get(key)}
        entry = {"language": recording.language, "speaker": speaker, "text": texts[recording.language]}
        topic = {"topic": recording.item.split("/")[0]} if recording.source == "tuxpaint" else {}
        return entry | {"translation": others} | topic

    def missing(self, identifiers: list[str]) -> list[str]:
        """One line for each id whose recording is not in the packages."""
        recordings = {identifier: Recording.from_id(identifier) for identifier in identifiers}
        return [
            f"{identifier}: package {recording.package} has no {recording.audio_path}"
            for identifier, recording in recordings.items()
            if not (self.root / recording.audio_path).is_file()
        ]

    def decode(self, identifier: str) -> Audio:
        """The recording as 16 kHz mono, shape (S,)."""
        path = self.root / Recording.from_id(identifier).audio_path
        channels, rate = soundfile.read(path, dtype="float32", always_2d=True)
        divisor = math.gcd(SAMPLE_RATE, rate)
        audio: Audio = resample_poly(channels.mean(axis=1), SAMPLE_RATE // divisor, rate // divisor)
        # resample_poly rounds the length up; the pack's lengths are rounded to the nearest sample.
        return audio[: round(len(channels) * SAMPLE_RATE / rate)]


def build_track(path: Path, entries: list[Entry], originals: Originals) -> Iterator[Entry]:
    """Write one Opus file, each recording followed by 0.1 s of silence; yields the new manifest entries."""
    silence = np.zeros(GAP, dtype=np.float32)
    start = 0
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, "OPUS", format="OGG", compression_level=OPUS_LEVEL) as track:
        for entry in entries:
            audio = originals.decode(entry["id"])
            track.write(audio)
            track.write(silence)
            place = {"start": round(start / SAMPLE_RATE, 4), "duration": round(len(audio) / SAMPLE_RATE, 4)}
            shipped = {key: entry[key] for key in ("id", "audio", "split")}
            yield shipped | place | originals.describe(entry["id"])
            start += len(audio) + GAP


def rebuild(shipped: list[Entry], originals: Originals, output: Path) -> None:
    """Write a whole pack: the Opus files, and last the manifest, so that a pack with a manifest is complete."""
    if missing := originals.missing([entry["id"] for entry in shipped]):
        raise PackError(f"{len(missing)} of {len(shipped)} recordings are missing:\n" + "\n".join(missing[:10]))
    output.mkdir(parents=True, exist_ok=True)
    manifest, draft = output / "manifest.jsonl", output / "manifest.jsonl.partial"
    manifest.unlink(missing_ok=True)
    with draft.open("w", encoding="utf-8") as lines:
        for audio, entries in groupby(shipped, key=lambda entry: entry["audio"]):
            for entry in build_track(output / audio, list(entries), originals):
                ordered = {key: entry[key] for key in [*FIELDS, "topic"] if key in entry}
                lines.write(json.dumps(ordered, ensure_ascii=False) + "\n")
            print(f"wrote {output / audio}", flush=True)
    draft.replace(manifest)


def differ(old: object, new: object) -> bool:
    """Whether a field changed; times may change by the tolerance."""
    if isinstance(old, float) and isinstance(new, float):
        return abs(old - new) > TIME_TOLERANCE
    return old != new


def compare_entries(rebuilt: Entry, shipped: Entry) -> list[str]:
    """The fields in which two entries of one id differ."""
    return [
        f"{shipped['id']}: {field} shipped {shipped.get(field)!r}, rebuilt {rebuilt.get(field)!r}"
        for field in sorted(rebuilt.keys() | shipped.keys())
        if differ(shipped.get(field), rebuilt.get(field))
    ]


def read_segment(pack: Path, entry: Entry) -> Audio:
    """One recording of a pack, shape (S,)."""
    start, frames = round(entry["start"] * SAMPLE_RATE), round(entry["duration"] * SAMPLE_RATE)
    audio: Audio = soundfile.read(pack / entry["audio"], start=start, frames=frames, dtype="float32")[0]
    return audio


def correlate(output: Path, rebuilt: Entry, corpus: Path, shipped: Entry) -> float:
    """Correlation of the rebuilt with the shipped audio of one recording."""
    new, old = read_segment(output, rebuilt), read_segment(corpus, shipped)
    length = min(len(new), len(old))
    return float(np.corrcoef(new[:length], old[:length])[0, 1])


def check(output: Path, corpus: Path) -> list[str]:
    """Compare a rebuilt pack with the shipped one; prints the figures, returns the problems."""
    rebuilt = {entry["id"]: entry for entry in read_manifest(output / "manifest.jsonl")}
    shipped = {entry["id"]: entry for entry in read_manifest(corpus / "manifest.jsonl")}
    problems = [f"{identifier}: in one pack only" for identifier in sorted(rebuilt.keys() ^ shipped.keys())]
    common = [identifier for identifier in shipped if identifier in rebuilt]
    for identifier in common:
        problems += compare_entries(rebuilt[identifier], shipped[identifier])
    print(f"{len(rebuilt)} rebuilt, {len(shipped)} shipped, {len(common)} in both: {len(problems)} differences")
    found = {i: correlate(output, rebuilt[i], corpus, shipped[i]) for i in common[::SAMPLE_EVERY]}
    # `not >` also catches the NaN of a silent recording
    problems += [f"{i}: correlation {value:.3f}" for i, value in found.items() if not value > LEAST_CORRELATION]
    median, low, least = np.percentile(list(found.values()) or [0.0], (50, 5, 0))
    print(f"audio of {len(found)}: correlation median {median:.4f}, 5th percentile {low:.4f}, least {least:.4f}")
    if not median > MEDIAN_CORRELATION:
        problems.append(f"median correlation {median:.3f}: expected above {MEDIAN_CORRELATION}")
    return problems


def plain(text: str) -> str:
    """Text without case and punctuation, so that "A cow." and "a cow" count as the same sentence."""
    return re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", text).casefold()).strip() or text


def check_splits(entries: list[Entry]) -> list[str]:
    """Sentences in more than one split: the same item, or the same text or translation in any language."""
    splits: dict[tuple[str, str], set[str]] = defaultdict(set)
    for entry in entries:
        recording = Recording.from_id(entry["id"])
        splits["item", f"{recording.source}/{recording.item}"].add(entry["split"])
        for language, text in [(entry["language"], entry["text"]), *entry["translation"].items()]:
            splits[language, plain(text)].add(entry["split"])
    print(f"{len(splits)} different items and sentences in {len(entries)} recordings")
    return [f"{kind} {text!r} is in {sorted(found)}" for (kind, text), found in splits.items() if len(found) > 1]


def report(problems: list[str]) -> int:
    """Print problems, at most 20, and the verdict; returns the exit status."""
    for problem in problems[:20]:
        print(problem, file=sys.stderr)
    print(f"FAILED: {len(problems)} problems" if problems else "OK")
    return 1 if problems else 0


def parse_options(arguments: list[str] | None) -> argparse.Namespace:
    """The command line; OUTPUT must not be the shipped pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--corpus", type=Path, default=REPOSITORY / "egs/freevoices/corpus", help="the shipped pack")
    add("--work", type=Path, default=REPOSITORY / "build/freevoices", help="scratch folder (about 750 MB)")
    add("--output", type=Path, help="the rebuilt pack (default: WORK/pack)")
    add("--packages", type=Path, help="folder with the .deb files; otherwise they are downloaded")
    add("--check", action="store_true", help="compare the pack in OUTPUT with the shipped one")
    add("--check-splits", action="store_true", help="look for sentences of the shipped pack in two splits")
    options = parser.parse_args(arguments)
    options.output = options.output or options.work / "pack"
    if options.output.resolve() == options.corpus.resolve():
        parser.error(f"{options.output} is the shipped pack: choose another --output")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line asks; returns the exit status."""
    options = parse_options(arguments)
    try:
        shipped = read_manifest(options.corpus / "manifest.jsonl")
        if options.check_splits:
            return report(check_splits(shipped))
        if options.check:
            return report(check(options.output, options.corpus))
        rebuild(shipped, Originals(unpack_packages(options.work, options.packages)), options.output)
    except (PackError, soundfile.SoundFileError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
