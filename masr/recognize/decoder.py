"""What decoders of files and arrays have in common. S samples, C channels."""

from typing import BinaryIO

import numpy as np

CHUNK = 2**14
"""Samples that are decoded at once."""
ESTIMATED = 0.05
"""Part by which a length that a header does not say exactly may be wrong."""


class Decoder:
    """Decodes a file; it is always one chunk ahead, so that what cannot be decoded is known before anything is used."""

    rate: float
    """Hz."""
    channels: int
    seconds: float | None = None
    """Length as far as it is known before the end."""
    claimed: int | None = None
    """Samples that the header promises; None where it promises none."""
    tolerance = 0.0
    """Part of ``claimed`` that may be missing although the file is whole."""
    peak = 0.0
    """Largest absolute value of the samples, where it is known before the end."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.files: list[BinaryIO] = []
        """Files to close with the decoder."""
        self.ahead = np.zeros((0, 1), np.float32)

    @property
    def empty(self) -> bool:
        """Whether nothing is left."""
        return not len(self.ahead)

    def read(self) -> np.ndarray:
        """The next samples (S, C), float32, a chunk of them or so; (0, C) at the end."""
        chunk = self.ahead
        if len(chunk):
            self.ahead = self._decode()
        return chunk

    def close(self) -> None:
        """Lets go of files and programs."""
        self._close()
        for file in self.files:
            file.close()

    def _close(self) -> None:
        """What a subclass holds."""

    def _decode(self) -> np.ndarray:
        raise NotImplementedError
