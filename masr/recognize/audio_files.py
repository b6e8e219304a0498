"""A file's name, its content or an open file -> the decoder that can read it, by what the content is."""

import io
import os
import shutil
import tempfile
from typing import Any, BinaryIO, cast

from masr.data.audio_checks import UnusableAudio
from masr.recognize.decoder import Decoder
from masr.recognize.ffmpeg import Ffmpeg, Pyav
from masr.recognize.libsndfile import Libsndfile

PLAIN = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU")
"""Formats of which no other decoder finds more samples than libsndfile, only others than those of the recording."""
INSTALL = "install ffmpeg, or pip install 'masr[audio]'"


def open_file(audio: Any) -> Decoder:
    """A decoder of a path, of bytes or of a file open for reading bytes; what it closes is what was opened here.

    UnusableAudio says why there is none.
    """
    file, path = _open_file(audio)
    try:
        if not file.seek(0, io.SEEK_END):
            raise UnusableAudio("is empty (0 bytes)")
        decoder = _open_decoder(file, path)
    except BaseException:
        if file is not audio:
            file.close()
        raise
    if file is not audio:
        decoder.files.append(file)
    return decoder


def _open_file(audio: Any) -> tuple[BinaryIO, bytes | None]:
    """A file that can be read from its beginning and again, and its path if it has one."""
    if isinstance(audio, bytes | bytearray | memoryview):
        return io.BytesIO(audio), None
    if isinstance(audio, str | os.PathLike):
        return _open_path(os.fsencode(audio))
    if not hasattr(audio, "read"):
        raise UnusableAudio(
            f"expected a file's name, its content, an open file, an array or a tensor, found {type(audio).__name__}"
        )
    if not isinstance(audio.read(0), bytes):
        raise UnusableAudio('expected a file of bytes, found one of text: open it with mode "rb"')
    return (audio if audio.seekable() else _copied(audio)), None


def _open_path(path: bytes) -> tuple[BinaryIO, bytes | None]:
    """Without a buffer, since decoders have their own; bytes, since names need not be UTF-8."""
    try:
        file = cast(BinaryIO, io.FileIO(path))
    except FileNotFoundError as error:
        raise UnusableAudio("no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise UnusableAudio(f"cannot be opened ({getattr(error, 'strerror', None) or error})") from error
    if file.seekable():
        return file, path
    with file:
        return _copied(file), None


def _copied(file: BinaryIO) -> BinaryIO:
    """A temporary file with what comes out of a pipe, in which decoders can go back."""
    copy = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (whoever decodes it closes it)
    shutil.copyfileobj(file, copy)
    return cast(BinaryIO, copy)


def _open_decoder(file: BinaryIO, path: bytes | None) -> Decoder:
    """The first decoder that finds samples in a file, of which ``path`` is the name if it has one.

    UnusableAudio says why there is none, or what to install.
    """
    problem = "no samples"
    try:
        decoder = Libsndfile(file)
    except UnusableAudio as error:
        problem = str(error)
    else:
        if not decoder.empty or decoder.file.format in PLAIN:
            return _not_empty(decoder)
        decoder.close()
    try:
        return _open_with_ffmpeg(file, path)
    except ModuleNotFoundError as error:
        if problem == "no samples":
            raise UnusableAudio(problem) from error
        raise UnusableAudio(
            f"cannot be decoded by libsndfile ({problem}); for other formats (m4a, mp4, webm, wma, amr …) {INSTALL}"
        ) from error
    except UnusableAudio as error:
        if problem == "no samples" or "no audio stream" in str(error):
            raise
        if _is_mp4(file):
            raise UnusableAudio(
                f"cannot be decoded ({error}): the index at the end of an MP4 file is missing, as in one that was cut "
                "short; copy it again, or ask its recorder to repair it"
            ) from error
        raise UnusableAudio(f"cannot be decoded: {error} (libsndfile: {problem})") from error


def _is_mp4(file: BinaryIO) -> bool:
    file.seek(4)
    return file.read(4) == b"ftyp"


def _open_with_ffmpeg(file: BinaryIO, path: bytes | None) -> Decoder:
    """By the program where it is installed, else by PyAV; ModuleNotFoundError where there is neither."""
    if shutil.which("ffmpeg") is None:
        return Pyav(file)
    if path is not None:
        return _not_empty(Ffmpeg(path))
    with tempfile.NamedTemporaryFile() as copy:
        file.seek(0)
        shutil.copyfileobj(file, copy)
        copy.flush()
        return _not_empty(Ffmpeg(os.fsencode(copy.name)))  # it has opened the file by then


def _not_empty(decoder: Decoder) -> Decoder:
    """The decoder; UnusableAudio if it finds no samples."""
    if decoder.empty:
        decoder.close()
        raise UnusableAudio("no samples")
    return decoder
