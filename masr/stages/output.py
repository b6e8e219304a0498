"""Knows when the output of a stage is complete, so that a stage runs once and a half-written output is redone.

The last thing that a stage writes, by rename, is ``complete.json``: what went in and the hash of every file.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from masr.files import DAMAGE, file_hash, reading, writing, written_beside
from masr.progress import say

SEAL = "complete.json"


class StageOutput:
    """The folder that a stage writes, with everything (config, hashes of inputs) that decides its content."""

    def __init__(self, stage: str, folder: Path, inputs: dict[str, Any]):
        self.stage, self.folder = stage, folder
        self.inputs = json.loads(json.dumps(inputs))

    def is_complete(self) -> bool:
        """Whether the folder was finished from these same inputs and every file is still as it was written."""
        try:
            seal = json.loads((self.folder / SEAL).read_text())
            return seal["inputs"] == self.inputs and all(
                file_hash(self.folder / name) == digest for name, digest in seal["files"].items()
            )
        except (OSError, *DAMAGE):
            return False

    def begin(self, force: bool = False, clear: bool = True) -> bool:
        """True when there is work to do; the folder then exists, unsealed, and empty if ``clear``."""
        if not force and self.is_complete():
            say(f"{self.stage}: complete in {self.folder} (--force redoes it)")
            return False
        (self.folder / SEAL).unlink(missing_ok=True)
        if clear and self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        return True

    def seal(self, pattern: str = "**/*") -> None:
        """Marks the folder complete."""
        files = sorted(path for path in self.folder.glob(pattern) if path.is_file())
        hashes = {str(path.relative_to(self.folder)): file_hash(path) for path in files}
        with writing(self.folder / SEAL), written_beside(self.folder / SEAL) as partial:
            partial.write_text(json.dumps({"inputs": self.inputs, "files": hashes}, indent=1))


def seal_of(folder: Path, stage: str, options: dict[str, Any] | None = None) -> str:
    """Hash that stands for a complete folder; the input of the next stage.

    ValueError when the folder was made with other values of ``options``, a tree of those that matter to the caller.
    """
    if not (folder / SEAL).is_file():
        raise FileNotFoundError(f"{folder} is not complete: run `masr {stage}` (or ./run.sh from that stage) first")
    with reading(folder / SEAL, f"`masr {stage} --force` makes it again"):
        before = dict(json.loads((folder / SEAL).read_text())["inputs"])
    now = json.loads(json.dumps(options or {}))
    if changed := sorted(differences(before, now)):
        raise ValueError(
            f"{folder} was made with other options; changed: {', '.join(changed)}. Run `masr {stage}` (or ./run.sh "
            "from that stage) with these options, or give them their own data_dir=..."
        )
    return file_hash(folder / SEAL)


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
