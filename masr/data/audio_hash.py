"""Which audio a file holds, told from its size and a part of its bytes."""

import hashlib
from pathlib import Path

BLOCK = 64 * 1024


def audio_hash(path: Path) -> str:
    """SHA-256 of a file's size and of its first, middle and last 64 KiB; short files are hashed whole."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= 3 * BLOCK:
            digest.update(file.read())
            return digest.hexdigest()
        for begin in (0, (size - BLOCK) // 2, size - BLOCK):
            file.seek(begin)
            digest.update(file.read(BLOCK))
    return digest.hexdigest()
