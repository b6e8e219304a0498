"""What the programs that rebuild a pack in the box share: Debian packages in, Opus files and a manifest out, a check.

A pack is a folder with ``manifest.jsonl``, one line a recording, and Opus files, in each of which recordings follow one
another. The shipped manifest is the list of what belongs to a pack: ids, audio file names and splits come from it. All
else is read again from the packages.
"""

import argparse
import json
import re
import subprocess
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

FIELDS = ["id", "audio", "language", "start", "duration", "split", "speaker", "text"]
OPTIONAL = ["translation", "topic"]
SAMPLE_RATE = 16000
GAP = SAMPLE_RATE // 10
# libsndfile maps the level 0..1 linearly to 256..6 kbit/s for mono Opus: this is 16 kbit/s.
OPUS_LEVEL = 0.96
# Seconds. The check listens to every 25th recording.
TIME_TOLERANCE = 0.001
SAMPLE_EVERY = 25
# Two encoders at 16 kbit/s: a true rebuild of freevoices has median 0.93 (0.77 in Danish alone), 0.24 in its noisiest
# recording. A pack shifted by 5 ms has median 0; of pairs of different recordings 99 in 100 are below 0.15.
MEDIAN_CORRELATION, LEAST_CORRELATION = 0.7, 0.2
REPOSITORY = Path(__file__).resolve().parent.parent

Audio = NDArray[np.float32]
Entry = dict[str, Any]


class PackError(ValueError):
    """Something the user can mend: a missing package, file or recording."""


class Originals(Protocol):
    """The unpacked packages: describes and decodes recordings by their ids."""

    def describe(self, identifier: str) -> Entry:
        """The manifest's fields that come from the packages: language, speaker, text and what else there is."""

    def missing(self, identifiers: list[str]) -> list[str]:
        """One line for each id whose recording is not in the packages."""

    def decode(self, identifier: str) -> Audio:
        """The recording as 16 kHz mono, shape (S,)."""


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


def find_package(name: str, version: str, folder: Path) -> Path:
    """The .deb file of a package in a folder; another version than the pack's is taken with a warning."""
    found = sorted(folder.glob(f"{name}_*.deb"), key=lambda path: f"_{version}_" in path.name)
    if not found:
        raise PackError(f"package {name}: no {name}_*.deb in {folder} (expected version {version})")
    if f"_{version}_" not in found[-1].name:
        print(f"warning: {found[-1].name}: the pack was made from version {version}", file=sys.stderr)
    return found[-1]


def unpack_packages(packages: Mapping[str, str], work: Path, folder: Path | None) -> Path:
    """Unpack packages (name and version) below `work`, downloading them unless a folder of .deb files is given."""
    root = work / "unpacked"
    for name, version in packages.items():
        if (done := root / f"{name}.done").exists():
            continue
        root.mkdir(parents=True, exist_ok=True)
        if folder is None:
            print(f"downloading {name} {version}", flush=True)
            run(["apt-get", "download", f"{name}={version}"], work)
        archive = find_package(name, version, (folder or work).resolve())
        run(["dpkg-deb", "-x", str(archive), "."], root)
        done.touch()
    return root


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
                ordered = {key: entry[key] for key in [*FIELDS, *OPTIONAL] if key in entry}
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


def shared_sentences(items: Iterable[tuple[str, Entry]]) -> list[str]:
    """Sentences in more than one split: the same item, or the same text or translation in any language.

    ``items`` are entries and what they have in common in all languages, e.g. the name of a prompt.
    """
    splits: dict[tuple[str, str], set[str]] = defaultdict(set)
    recordings = 0
    for item, entry in items:
        recordings += 1
        splits["item", item].add(entry["split"])
        for language, text in [(entry["language"], entry["text"]), *entry.get("translation", {}).items()]:
            splits[language, plain(text)].add(entry["split"])
    print(f"{len(splits)} different items and sentences in {recordings} recordings")
    return [f"{kind} {text!r} is in {sorted(found)}" for (kind, text), found in splits.items() if len(found) > 1]


def report(problems: list[str]) -> int:
    """Print problems, at most 20, and the verdict; returns the exit status."""
    for problem in problems[:20]:
        print(problem, file=sys.stderr)
    print(f"FAILED: {len(problems)} problems" if problems else "OK")
    return 1 if problems else 0


def parse_options(description: str | None, name: str, size: str, arguments: list[str] | None) -> argparse.Namespace:
    """The command line of the program for pack `name`; OUTPUT must not be the shipped pack."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--corpus", type=Path, default=REPOSITORY / f"egs/{name}/corpus", help="the shipped pack")
    add("--work", type=Path, default=REPOSITORY / f"build/{name}", help=f"scratch folder ({size})")
    add("--output", type=Path, help="the rebuilt pack (default: WORK/pack)")
    add("--packages", type=Path, help="folder with the .deb files; otherwise they are downloaded")
    add("--check", action="store_true", help="compare the pack in OUTPUT with the shipped one")
    add("--check-splits", action="store_true", help="look for sentences of the shipped pack in two splits")
    options = parser.parse_args(arguments)
    options.output = options.output or options.work / "pack"
    if options.output.resolve() == options.corpus.resolve():
        parser.error(f"{options.output} is the shipped pack: choose another --output")
    return options
