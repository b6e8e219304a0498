"""What a user names (files, folders, patterns, lists of files) -> the files to recognise."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path

AUDIO = """
aac ac3 aif aifc aiff amr ape au caf dts eac3 flac gsm m4a m4b mka mp2 mp3 mpc oga ogg opus ra rf64 snd spx sph tta
voc w64 wav wave wma wv
"""
VIDEO = "3g2 3gp asf avi flv m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogv rm ts vob webm wmv"
SUFFIXES = frozenset(f".{suffix}" for suffix in f"{AUDIO} {VIDEO}".split())
"""Of the files that a folder is searched for; a file that is named itself may have any."""
RECURSIVE = "add -r to take the recordings in it"
SHOWN = 5
"""Missing files that an error names."""


def list_sources(arguments: Iterable[str | bytes | os.PathLike], recursive: bool = False) -> list[Path]:
    """The files that arguments of a command mean, in their order, each once.

    An argument is a file; with ``recursive`` a folder, of which all audio and video files are taken, sorted by name,
    those in its folders too (hidden ones are not, links to folders are not followed); a pattern such as ``*.mp3`` or
    ``**/*.wav`` that the shell left as it is; or ``@list.txt``, a file with one of these a line, relative to the
    folder of the list, in which lines that start with # are comments. What exists under a name is meant by it, even if
    it looks like a pattern or a list.

    FileNotFoundError names what is missing, and says if nothing was found; IsADirectoryError names a folder without
    ``recursive``.
    """
    found: dict[str, Path] = {}
    missing: list[str] = []
    for argument in arguments:
        name = os.fsdecode(argument)
        for path in _listed(name, recursive, missing):
            found.setdefault(os.path.abspath(path), path)
    if missing:
        names = ", ".join(missing[:SHOWN])
        others = f" and {len(missing) - SHOWN} others" if len(missing) > SHOWN else ""
        raise FileNotFoundError(f"no such file: {names}{others}")
    if not found:
        raise FileNotFoundError("no recordings: name audio or video files, or a folder that has some and -r")
    return list(found.values())


def _listed(name: str, recursive: bool, missing: list[str]) -> list[Path]:
    """Files of one argument, which may be a list of others."""
    if not name.startswith("@") or os.path.exists(name):
        return _files(name, recursive, missing, "")
    path = Path(name[1:])
    if not path.is_file():
        missing.append(f"{path} (a list of files)")
        return []
    files: list[Path] = []
    text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    for number, line in enumerate(text.split("\n"), start=1):
        entry = line.strip()
        if entry and not entry.startswith("#"):
            files += _files(str(path.parent / entry), recursive, missing, f"{path}:{number}: ")
    return files


def _files(name: str, recursive: bool, missing: list[str], place: str) -> list[Path]:
    """Files of a name, which may be a folder or a pattern; ``place`` is where it stands."""
    if os.path.isdir(name):
        if not recursive:
            raise IsADirectoryError(f"{place}{name} is a folder: {RECURSIVE}")
        return _in_folder(name)
    if os.path.exists(name):
        return [Path(name)]
    matches = sorted(glob.glob(name, recursive=True))
    if not matches:
        missing.append(f"{place}{name}")
    files: list[Path] = []
    for match in matches:
        if not os.path.isdir(match):
            files.append(Path(match))
        elif recursive:
            files += _in_folder(match)
    return files


def _in_folder(folder: str) -> list[Path]:
    """Audio and video files in a folder and its folders, by name."""
    files = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                files.append(Path(parent, name))
    return sorted(files)
