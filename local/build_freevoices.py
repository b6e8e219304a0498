"""Rebuild the freevoices pack (egs/freevoices/corpus) from the public Debian packages it was made of.

The shipped manifest is the list of what belongs to the pack: ids, audio file names and splits come from it. All
else (audio, times, texts, translations, speakers, topics) is read again from the packages.

    python local/build_freevoices.py                  download the packages, rebuild into build/freevoices/pack
    python local/build_freevoices.py --packages DIR   the same from .deb files in a folder, without network
    python local/build_freevoices.py --check          compare the rebuilt pack with the shipped one
    python local/build_freevoices.py --check-splits   no sentence of the shipped pack stands in two splits

Needs `dpkg-deb`, and `apt-get` of a Debian 12 system unless --packages is given. Nothing is installed.
"""

import math
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import soundfile
from scipy.signal import resample_poly

sys.path.insert(0, str(Path(__file__).parent))  # also where this file is loaded by its path
import packs
from packs import (
    GAP,
    SAMPLE_RATE,
    Audio,
    Entry,
    PackError,
    check,
    compare_entries,
    parse_options,
    read_manifest,
    rebuild,
    report,
    shared_sentences,
)

__all__ = ["GAP", "SAMPLE_RATE", "PackError", "check", "compare_entries", "read_manifest", "rebuild"]

# Debian 12. Another version may have other recordings or corrected texts, which --check then reports.
PACKAGES = {
    "fillets-ng-data": "1.0.1-1.1",
    "fillets-ng-data-cs": "1.0.1-1.1",
    "fillets-ng-data-nl": "1.0.1-1.1",
    "tuxpaint-stamps-default": "2022.06.04-1",
}
TRANSLATIONS = ("en", "de", "fr", "es", "cs", "nl", "ru")


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


def unpack_packages(work: Path, packages: Path | None) -> Path:
    """Unpack the four packages below `work`, downloading them unless a folder of .deb files is given."""
    return packs.unpack_packages(PACKAGES, work, packages)


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


def check_splits(entries: list[Entry]) -> list[str]:
    """Sentences in more than one split: the same item, or the same text or translation in any language."""
    items = []
    for entry in entries:
        recording = Recording.from_id(entry["id"])
        items.append((f"{recording.source}/{recording.item}", entry))
    return shared_sentences(items)


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line asks; returns the exit status."""
    options = parse_options(__doc__, "freevoices", "about 750 MB", arguments)
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
