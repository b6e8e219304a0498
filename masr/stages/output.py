"""Knows when the output of a stage is complete, so that a stage runs once and a half-written output is redone.

A folder of masr's holds ``unfinished.json`` while a stage writes it and, as the last thing that is written,
``complete.json``, its seal: the options and inputs that it was made from and how every file was. Only a folder with one
of the two is ever cleared.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from masr.config_files import ConfigError
from masr.files import DAMAGE, file_hash, write_whole
from masr.locks import locked
from masr.progress import say

SEAL = "complete.json"
UNFINISHED = "unfinished.json"
FOR_READERS = (".md", ".svg", ".tsv", ".html")
"""Files that nothing later depends on."""


class StageOutput:
    """The folder that a stage writes, with everything that decides its content.

    ``options`` are what the user chose: output made with others is not touched without ``--force``. ``inputs`` are what
    the stage read: output made from others is out of date, and made again.
    """

    def __init__(
        self, stage: str, folder: Path, options: dict[str, Any] | None = None, inputs: dict[str, Any] | None = None
    ):
        self.stage, self.folder = stage, folder
        self.options, self.inputs = plain(options or {}), plain(inputs or {})
        self.content: dict[str, Any] | None = None
        """What stands for the content where that is not the hash of the files; set it before the folder is sealed."""
        self.outdated = ""
        """What else is not as it was, if anything."""
        self.files = "**/*"
        """Pattern of the files that are sealed."""

    def is_complete(self, verify: bool = False) -> bool:
        """Whether the folder was finished from these options and inputs and every file is still as it was written.

        A file of the same size and time of writing counts as the same; with ``verify`` its bytes are read.
        """
        seal = read_seal(self.folder)
        if seal is None or self._changes(seal):
            return False
        if not all(is_unchanged(self.folder / name, record, verify) for name, record in seal["files"].items()):
            return False
        self._note_times(seal)
        return True

    def _note_times(self, seal: dict[str, Any]) -> None:
        """A copied folder has files of another time: their bytes were read now, and need not be the next time."""
        times = {name: (self.folder / name).stat().st_mtime_ns for name in seal["files"]}
        if times == {name: record["time"] for name, record in seal["files"].items()}:
            return
        for name, record in seal["files"].items():
            record["time"] = times[name]
        with suppress(OSError):  # a folder that is only to be read stays as it is
            write_whole(self.folder / SEAL, json.dumps(seal, indent=1))

    @contextmanager
    def writing(self, force: bool = False, clear: bool = True, verify: bool = False) -> Iterator[bool]:
        """False when there is nothing to do. Else the folder is there, locked and (if ``clear``) empty, and it is
        sealed when the block ends well.

        ConfigError when other options made it; ValueError when it holds what masr did not make; FolderBusy when another
        run writes it.
        """
        if not force and self.is_complete(verify):
            say(f"{self.stage}: complete in {self.folder} (--force redoes it)")
            yield False
            return
        with locked(self.folder):
            if not force and self.is_complete(verify):  # another run has finished it since
                yield False
                return
            if not force:
                self._refuse_other_options()
            self._begin(clear)
            yield True
            self.seal()

    def _changes(self, seal: dict[str, Any]) -> list[str]:
        """Names of the options and inputs that are not those of a seal."""
        names = {self.outdated} if self.outdated else set()
        for before, now in ((seal["options"], self.options), (seal["inputs"], self.inputs)):
            both_ways = [*differences(before, now), *differences(now, before)]
            names |= {change.split(" ")[0] for change in both_ways}
        return sorted(names)

    def _reason(self) -> str:
        seal = read_seal(self.folder)
        if seal is None:
            return "an older masr made it, or it is damaged"
        changed = self._changes(seal)
        return f"changed: {', '.join(changed)}" if changed else "as asked, or as its files are not what they were"

    def _refuse_other_options(self) -> None:
        seal = read_seal(self.folder)
        if seal is None:
            return
        if changed := sorted(differences(seal["options"], self.options)):
            raise ConfigError(
                f"{self.folder} was made with other options; changed: {', '.join(changed)}. Give these options a place "
                f"of their own (data_dir=... or name=...), or throw that output away with `masr {self.stage} --force`"
            )

    def _begin(self, clear: bool) -> None:
        """Leaves the folder unsealed, marked and, if ``clear``, without anything else."""
        if clear:
            refuse_foreign(self.folder)
        if clear and (self.folder / SEAL).exists():
            say(f"{self.stage}: makes {self.folder} again ({self._reason()})")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / UNFINISHED, json.dumps({"stage": self.stage}))
        (self.folder / SEAL).unlink(missing_ok=True)
        if clear:
            _clear(self.folder)

    def seal(self) -> None:
        """Marks the folder complete."""
        sealed = [path for path in sorted(self.folder.glob(self.files)) if path.is_file() and path.name != UNFINISHED]
        files = {str(path.relative_to(self.folder)): record_of(path) for path in sealed}
        content = self.content
        if content is None:
            content = {name: record["hash"] for name, record in files.items() if not name.endswith(FOR_READERS)}
        seal = {
            "stage": self.stage,
            "options": self.options,
            "inputs": self.inputs,
            "content": content,
            "files": files,
        }
        write_whole(self.folder / SEAL, json.dumps(seal, indent=1))
        (self.folder / UNFINISHED).unlink(missing_ok=True)


def read_seal(folder: Path) -> dict[str, Any] | None:
    """The seal of a complete folder; None when there is none that can be read."""
    try:
        seal = json.loads((folder / SEAL).read_text(encoding="utf-8"))
    except (OSError, *DAMAGE):
        return None
    parts = ("options", "inputs", "content", "files")
    is_ours = isinstance(seal, dict) and all(isinstance(seal.get(part), dict) for part in parts)
    return seal if is_ours else None


def seal_of(folder: Path, stage: str, options: dict[str, Any] | None = None) -> str:
    """Hash that stands for the content of a complete folder; the input of the next stage.

    FileNotFoundError when it is not complete; ValueError when it was made with other values of ``options``, a tree of
    those that matter to the caller.
    """
    return digest(content_of(folder, stage, options))


def content_of(folder: Path, stage: str, options: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a stage said of the content of a complete folder; errors as of `seal_of`."""
    seal = read_seal(folder)
    if seal is None:
        raise FileNotFoundError(f"{folder} is not complete: run `masr {stage}` (or ./run.sh from that stage) first")
    if changed := sorted(differences(seal["options"], plain(options or {}))):
        raise ValueError(
            f"{folder} was made with other options; changed: {', '.join(changed)}. Run `masr {stage}` (or ./run.sh "
            "from that stage) with these options, or give them their own data_dir=..."
        )
    return seal["content"]


def refuse_foreign(folder: Path) -> None:
    """ValueError when a folder that is to be cleared holds what masr did not make."""
    if not folder.exists():
        return
    names = sorted(path.name for path in folder.iterdir())
    if not names or SEAL in names or UNFINISHED in names:
        return
    raise ValueError(
        f"{folder} holds files that masr did not write ({', '.join(names[:3])}{' ...' * (len(names) > 3)}): nothing "
        "was touched. Move them away, or choose another folder (data_dir=... or name=...)"
    )


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name == UNFINISHED:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def record_of(path: Path) -> dict[str, Any]:
    """Size, time of writing and hash of a file."""
    found = path.stat()
    return {"size": found.st_size, "time": found.st_mtime_ns, "hash": file_hash(path)}


def is_unchanged(path: Path, record: dict[str, Any], verify: bool = False) -> bool:
    """Whether a file is as it was recorded; its bytes are read if it was written at another time, or to ``verify``."""
    try:
        found = path.stat()
        if found.st_size != record["size"]:
            return False
        if not verify and found.st_mtime_ns == record["time"]:
            return True
        return file_hash(path) == record["hash"]
    except (OSError, *DAMAGE):
        return False


def plain(tree: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives it back."""
    return json.loads(json.dumps(tree))


def digest(tree: Any) -> str:
    """Hash of a tree of plain values."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def differences(before: dict, now: dict, prefix: str = "") -> Iterator[str]:
    """``section.key (old -> new)`` for every value of ``now`` that is not as it was.

    What ``before`` does not know did not exist yet, which is no difference to it being off.
    """
    for key, new in now.items():
        if key not in before and not new:
            continue
        old = before.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from differences(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key} ({old} -> {new})"
