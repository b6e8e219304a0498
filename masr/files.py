"""What several rooms need of files."""

import gzip
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


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
    with written_beside(path) as partial:
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


def from_hugging_face(kind: Any, name: str, **options: Any) -> Any:
    """What ``kind``, a class of transformers, reads from a folder, or from the hub by a name such as
    openai/whisper-base; FileNotFoundError or ValueError when it cannot."""
    is_hub_name = re.fullmatch(r"(?!exp/)[\w-][\w.-]*/[\w.-]+", name) and not Path(name).parent.is_dir()
    if not Path(name).is_dir() and not is_hub_name:
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
