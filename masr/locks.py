"""One run at a time writes into a folder: the second one ends with a line that names the first."""

import errno
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from masr.files import writing

NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
"""What a file system without locks answers, such as some network drives."""


_held: set[IO[str]] = set()


def _forget_in_child() -> None:
    """A forked worker must not keep a lock that its parent was killed with; the parent keeps its own."""
    for file in _held:
        file.close()
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_child)


class FolderBusy(RuntimeError):
    """Another run is writing there; the message names its process."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other runs of masr from writing into ``folder``; FolderBusy when one is at it.

    The lock is a file beside the folder, so that the folder itself may be cleared; it goes with the process that holds
    it, however that ends.
    """
    path = folder.parent / f".{folder.name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _lock(path, folder)
    _held.add(file)
    try:
        with writing(path):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()} ({' '.join(['masr', *sys.argv[1:]])})")
            file.flush()
        yield
    finally:
        path.unlink(missing_ok=True)  # before the lock is given up, so that nobody's later lock is removed
        _held.discard(file)
        file.close()


def _lock(path: Path, folder: Path) -> IO[str]:
    """The open lock file, which is then ours."""
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in NO_LOCKS_HERE:
                return file
            file.seek(0)
            holder = file.read() or "another process"
            file.close()
            raise FolderBusy(f"{folder} is being written by {holder}: wait for it, or end it") from None
        if _is_still_there(path, file):
            return file
        file.close()  # its last holder removed it between our opening and locking it


def _is_still_there(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
