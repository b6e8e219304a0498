"""Rebuild the phoneprompts pack (egs/phoneprompts/corpus) from the public Debian packages it was made of.

The shipped manifest is the list of what belongs to the pack: ids, audio file names and splits come from it. All
else (audio, times, texts, translations, speakers) is read again from the packages.

    python local/build_phoneprompts.py                  download the packages, rebuild into build/phoneprompts/pack
    python local/build_phoneprompts.py --packages DIR   the same from .deb files in a folder, without network
    python local/build_phoneprompts.py --check          compare the rebuilt pack with the shipped one
    python local/build_phoneprompts.py --check-splits   no prompt of the shipped pack stands in two splits

Not run on the packages yet: the paths in them, the form of their text files and the version are what is known of them
from outside, and the tests run it on folders that are laid out so. What --check reports after a first run is to be
looked at, not trusted.

Needs `dpkg-deb`, `apt-get` of a Debian 12 system unless --packages is given, and PyAV (`pip install av`), which decodes
G.722. Nothing is installed.
"""

import gzip
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).parent))  # also where this file is loaded by its path
from packs import (
    Audio,
    Entry,
    PackError,
    check,
    parse_options,
    read_manifest,
    rebuild,
    report,
    shared_sentences,
    unpack_packages,
)

# The languages, and the folders of their voices.
VOICES = {
    "en": "en_US_f_Allison",
    "es": "es_MX_f_Allison",
    "fr": "fr_CA_f_June",
    "it": "it_IT_m_Carlo",
    "ru": "ru_RU_f_IvrvoiceRU",
}
# Debian 12. Another version may have other recordings or corrected texts, which --check then reports.
VERSION = "1.6.1-1"
TEXTS = {language: f"asterisk-core-sounds-{language}" for language in VOICES}
RECORDINGS = {language: f"{package}-g722" for language, package in TEXTS.items()}
PACKAGES = dict.fromkeys([*TEXTS.values(), *RECORDINGS.values()], VERSION)


@dataclass(frozen=True)
class Prompt:
    """What an id names: `asterisk/<language>/<name>`, where the name may have a folder: `digits/7`."""

    language: str
    name: str

    @classmethod
    def from_id(cls, identifier: str) -> "Prompt":
        parts = identifier.split("/", 2)
        if len(parts) != 3 or parts[0] != "asterisk" or parts[1] not in VOICES:
            raise PackError(f"id {identifier!r}: expected asterisk/{'|'.join(VOICES)}/<name>")
        return cls(parts[1], parts[2])

    @property
    def audio_path(self) -> Path:
        """Path of the original recording inside the unpacked packages."""
        return Path(f"usr/share/asterisk/sounds/{VOICES[self.language]}/{self.name}.g722")


_LINE = re.compile(r"([\w./-]+)\s*:\s+(.+)")


def parse_prompts(text: str) -> dict[str, str]:
    """Read `name: text` lines; lines that begin with a semicolon are comments."""
    prompts: dict[str, str] = {}
    for line in text.splitlines():
        found = _LINE.fullmatch(line.strip())
        if found and not line.startswith(";"):
            name, words = found.groups()
            prompts[name] = " ".join(words.split())
    return prompts


def decode_g722(path: Path) -> Audio:
    """Raw G.722 of 64 kbit/s as 16 kHz mono, shape (S,): two samples a byte."""
    try:
        import av
    except ImportError as error:
        raise PackError("G.722 is decoded by PyAV: pip install av") from error
    try:
        with av.open(str(path), format="g722") as container:
            frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
    except av.FFmpegError as error:
        raise PackError(f"{path}: no G.722: {error}") from error
    samples = np.concatenate(frames, axis=1)[0]
    return samples.astype(np.float32) / 2**15


class Originals:
    """The unpacked packages: describes and decodes recordings by their ids."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.prompts = cache(self._read_prompts)

    def _read_prompts(self, language: str) -> dict[str, str]:
        """All texts of a language."""
        path = self.root / f"usr/share/doc/{TEXTS[language]}/core-sounds-{language}.txt.gz"
        if not path.is_file():
            raise PackError(f"{TEXTS[language]}: no texts {path.relative_to(self.root)}")
        try:
            return parse_prompts(gzip.decompress(path.read_bytes()).decode("utf-8"))
        except (UnicodeDecodeError, gzip.BadGzipFile) as error:
            raise PackError(f"{path}: expected UTF-8 text, compressed by gzip: {error}") from error

    def describe(self, identifier: str) -> Entry:
        """The manifest's fields that come from the packages: language, speaker, text, translation."""
        prompt = Prompt.from_id(identifier)
        text = self.prompts(prompt.language).get(prompt.name)
        if text is None:
            raise PackError(f"{identifier}: {TEXTS[prompt.language]} has no text for {prompt.name!r}")
        entry = {"language": prompt.language, "speaker": f"asterisk-{VOICES[prompt.language]}", "text": text}
        english = self.prompts("en").get(prompt.name)
        if prompt.language != "en" and english is not None:
            entry["translation"] = {"en": english}
        return entry

    def missing(self, identifiers: list[str]) -> list[str]:
        """One line for each id whose recording is not in the packages."""
        lines = []
        for identifier in identifiers:
            prompt = Prompt.from_id(identifier)
            if not (self.root / prompt.audio_path).is_file():
                lines.append(f"{identifier}: package {RECORDINGS[prompt.language]} has no {prompt.audio_path}")
        return lines

    def decode(self, identifier: str) -> Audio:
        """The recording as 16 kHz mono, shape (S,)."""
        return decode_g722(self.root / Prompt.from_id(identifier).audio_path)


def check_splits(entries: list[Entry]) -> list[str]:
    """Prompts in more than one split: the same name, or the same text or translation in any language."""
    return shared_sentences((Prompt.from_id(entry["id"]).name, entry) for entry in entries)


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line asks; returns the exit status."""
    options = parse_options(__doc__, "phoneprompts", "about 100 MB", arguments)
    try:
        shipped = read_manifest(options.corpus / "manifest.jsonl")
        if options.check_splits:
            return report(check_splits(shipped))
        if options.check:
            return report(check(options.output, options.corpus))
        originals = Originals(unpack_packages(PACKAGES, options.work, options.packages))
        rebuild(shipped, originals, options.output)
    except (PackError, soundfile.SoundFileError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
