"""Stored features with a checksum of every recording's bytes, so that a damaged archive is noticed where it is read."""

import zlib
from pathlib import Path

import lilcom
import numpy as np
from lhotse import Features
from lhotse.cut import Cut

CHECKSUM = "features_crc32"


def add_checksums(cuts: list[Cut], archive: Path) -> None:
    """Notes in every cut the CRC-32 of its bytes in a complete archive."""
    with archive.open("rb") as file:
        for cut in cuts:
            cut.custom = (cut.custom or {}) | {CHECKSUM: zlib.crc32(b"".join(_chunks(file, cut.features)))}


def read_features(cut: Cut) -> np.ndarray:
    """(T, F) features of a cut; ValueError when their bytes are not those that were written."""
    expected = (cut.custom or {}).get(CHECKSUM)
    if expected is None:  # stored by another program, or by masr before there were checksums
        return cut.load_features()
    with Path(cut.features.storage_path).open("rb") as file:
        chunks = _chunks(file, cut.features)
    if zlib.crc32(b"".join(chunks)) != expected:
        raise ValueError(
            f"{cut.features.storage_path} is damaged: `masr features --verify` extracts what is damaged again"
        )
    return np.concatenate([lilcom.decompress(chunk) for chunk in chunks])


def _chunks(file, features: Features) -> list[bytes]:
    """The compressed pieces of one recording: lhotse's key is where they begin, and the size of each."""
    begin, *sizes = map(int, features.storage_key.split(","))
    file.seek(begin)
    return [file.read(size) for size in sizes]
