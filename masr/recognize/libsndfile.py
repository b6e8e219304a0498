"""Files that libsndfile decodes, those whose header is wrong about their length too. S samples, C channels."""

import io
import re
from typing import Any, BinaryIO, cast

import numpy as np
import soundfile

from masr.data.audio_checks import UnusableAudio
from masr.recognize.decoder import CHUNK, ESTIMATED, Decoder

NEAR_DAMAGE = 2**10
"""Samples that libsndfile decodes at once where it cannot decode a chunk: as many are lost, at most."""
UNKNOWN_LENGTH = 0x7FFF0000
"""Bytes from which on the size in a WAV header stands for "not known yet": what recorders and pipes write there."""
HEADER = 2**16
"""Bytes in which the header of a WAV file ends."""
SIZES = re.compile(r"^\s*(?:data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
"""What libsndfile notes where a header's size of the samples is not what the file has."""


class Libsndfile(Decoder):
    """WAV, FLAC, Ogg, MP3, AIFF, CAF … ; UnusableAudio says what else it is."""

    def __init__(self, file: BinaryIO):
        super().__init__()
        try:
            self.source = file
            self.file = _open_with_libsndfile(file)
            patched = None if self.file.frames else _with_unknown_size(file, self.file.extra_info)
            if patched is not None:
                self.warnings.append("its header says that it is empty: read to its end")
                self.file.close()
                self.source = patched
                self.file = _open_with_libsndfile(patched)
        except (soundfile.LibsndfileError, TypeError) as error:
            raise UnusableAudio(str(error).rpartition(": ")[2].rstrip(".")) from error
        self.rate, self.channels = self.file.samplerate, self.file.channels
        self.tolerance = ESTIMATED if self.file.format == "MP3" else 0.0
        self._read_length()
        self.chunk, self.position = CHUNK, 0
        self.ahead = self._decode()

    def _read_length(self) -> None:
        """What the header promises, and what of it the file can hold."""
        frames = self.file.frames
        if frames < 2**62:  # libsndfile's way to say that it does not know: the largest number
            self.claimed = frames
        sizes = SIZES.search(self.file.extra_info)
        if sizes and int(sizes[1]) >= UNKNOWN_LENGTH:
            if not self.warnings:
                self.warnings.append("its header does not say how long it is: read to its end")
        elif sizes and int(sizes[1]) > int(sizes[2]) > 0:
            self.claimed = round(frames * int(sizes[1]) / int(sizes[2]))
        if self.claimed is not None and frames < 2**62:
            self.seconds = frames / self.rate

    def _decode(self) -> np.ndarray:
        try:
            samples = self.file.read(self.chunk, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            if self.chunk > NEAR_DAMAGE:
                return self._decode_near_damage()
            self.warnings.append(f"decoding stopped before the end of the file ({error.error_string.rstrip('.')})")
            return np.zeros((0, self.channels), np.float32)
        self.position += len(samples)
        return samples

    def _decode_near_damage(self) -> np.ndarray:
        """What can be decoded of a chunk that cannot be decoded as a whole, and of what follows it."""
        self.chunk = NEAR_DAMAGE
        self.file.close()
        self.file = _open_with_libsndfile(self.source)
        self.file.seek(self.position)
        return self._decode()

    def _close(self) -> None:
        self.file.close()


def _open_with_libsndfile(file: BinaryIO) -> soundfile.SoundFile:
    file.seek(0)
    if isinstance(file, io.FileIO):  # much faster than calls of Python for each read
        return soundfile.SoundFile(file.fileno(), closefd=False)
    return soundfile.SoundFile(file)


def _with_unknown_size(file: BinaryIO, notes: str) -> BinaryIO | None:
    """The WAV file with "unknown" for the size 0 of its samples; None where nothing but chunks of text follows."""
    if not re.search(r"^data : 0$", notes, re.MULTILINE):
        return None
    file.seek(0)
    place = file.read(HEADER).find(b"data\0\0\0\0")
    if place < 0:
        return None
    file.seek(place + 8)
    start = file.read(8)
    left = file.seek(0, io.SEEK_END) - place - 8
    is_chunk = len(start) == 8 and start[:4].isascii() and int.from_bytes(start[4:], "little") + 8 <= left
    if left == 0 or is_chunk:
        return None
    return cast(BinaryIO, Patched(file, place + 4, b"\xff\xff\xff\xff"))


class Patched(io.RawIOBase):
    """A file with other bytes at one place; the file itself stays as it is."""

    def __init__(self, file: BinaryIO, place: int, content: bytes):
        self.file, self.place, self.content = file, place, content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def readinto(self, buffer: Any) -> int:
        begin = self.file.tell()
        found = self.file.read(len(buffer))
        buffer[: len(found)] = found
        for number, byte in enumerate(self.content):
            at = self.place + number - begin
            if 0 <= at < len(found):
                buffer[at : at + 1] = bytes([byte])
        return len(found)
