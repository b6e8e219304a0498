"""What several rooms need of files."""

import gzip
import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError

DAMAGE = (
    EOFError, zlib.error, gzip.BadGzipFile, SafetensorError, UnpicklingError,  # cut off, or other bytes
    ValueError, RuntimeError, OverflowError,  # not JSON, not UTF-8, not numbers; RuntimeError of torch, SentencePiece
    LookupError, TypeError, AttributeError,  # JSON that holds something else
)  # fmt: skip
"""What is raised where a file does not hold what belongs there, beside OSError."""


HUB_NAME = r"(?!exp/)[\w-][\w.-]*/[\w.-]+"
"""Pattern of names such as openai/whisper-base."""


class DamagedFile(ValueError):
    """A file that does not hold what belongs there; the message names it and the way out."""


@contextmanager
def reading(path: Path, way_out: str = "") -> Iterator[None]:
    """Whatever goes wrong while ``path`` is read and understood becomes a DamagedFile, which is one line for the user.

    For as few lines as read a file: what is a bug elsewhere must not be taken for damage. What the system refuses
    (no such file, no permission) stays an OSError, and an error that names the file already stays as it is.
    """
    try:
        yield
    except DAMAGE as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        found = f"{type(error).__name__} {error}" if isinstance(error, LookupError | TypeError) else str(error)
        problem = " ".join(found.split())[:300]
        raise DamagedFile(f"{path} is damaged ({problem})" + (f"; {way_out}" if way_out else "")) from error
    except OSError as error:
        _name(error, path)
        raise


def _name(error: OSError, path: Path) -> None:
    """Says of an error of the system, which has a number, which file it is about; those of masr say it themselves."""
    if error.errno is not None and error.filename is None:
        error.filename = str(path)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """An error while ``path`` is written names it: Python's own, when a disk is full, does not."""
    try:
        yield
    except OSError as error:
        _name(error, path)
        raise
    except (SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "inline_container" not in str(error):  # torch's own writer
            raise
        raise OSError(f"cannot write {path}: {' '.join(str(error).split())[:300]}") from error


def read_json(path: Path, way_out: str = "") -> dict[str, Any]:
    """The object that a JSON file holds; DamagedFile, with the ``way_out``, when there is none."""
    with reading(path, way_out):
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise TypeError(f"expected a JSON object, found {found!r}")
    return found


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes; of a .gz file those inside, for its header says when it was written."""
    digest = hashlib.sha256()
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A path to write to; it takes the place of ``path`` when all went well, and else leaves it as it was."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        os.umask(umask := os.umask(0))
        partial.chmod(0o666 & ~umask)  # safetensors lets nobody else read what it writes
        flush(partial)  # else a power failure after the renaming may leave an empty file
        os.replace(partial, path)
        flush(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Writes a text file completely, or leaves it as it was."""
    with writing(path), written_beside(path) as partial:
        partial.write_text(text, encoding="utf-8")


def text_lines(path: Path) -> list[str]:
    """Lines of a UTF-8 file, without a byte order mark; ValueError names a file that is not UTF-8.

    Only LF ends a line: ``splitlines()`` splits at U+2028 and U+0085 too, which may stand in a text.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines if lines[-1] else lines[:-1]


def flush(path: Path) -> None:
    """Has the system write a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some network drives cannot, for folders
        pass
    finally:
        os.close(descriptor)


def is_hub_name(name: str) -> bool:
    """Whether this can be the name of a model on the hub of Hugging Face, and is not that of a file or folder here."""
    return re.fullmatch(HUB_NAME, name) is not None and not Path(name).parent.is_dir()


def from_hugging_face(kind: Any, name: str, **options: Any) -> Any:
    """What ``kind``, a class of transformers, reads from a folder, or from the hub by a name such as
    openai/whisper-base; FileNotFoundError or ValueError when it cannot."""
    if not Path(name).is_dir() and not is_hub_name(name):
        raise FileNotFoundError(
            f"model.pretrained: there is no folder {name}; name one that transformers has saved, or a model of the hub "
            "(openai/whisper-base)"
        )
    from transformers.utils import logging

    if Path(name).is_dir():  # what is read in a second needs no progress bar, what is downloaded does
        logging.disable_progress_bar()
    try:
        return kind.from_pretrained(name, **options)
    except (OSError, ValueError, KeyError) as error:
        where = "" if Path(name).is_dir() else " from the hub, as there is no such folder here"
        raise ValueError(f"model.pretrained: {name} cannot be loaded{where}: {error}"[:600]) from error
