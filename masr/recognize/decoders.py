"""Files of any format -> their samples, a chunk at a time: by libsndfile, else by ffmpeg, else by PyAV.

A file's content says what it is, never its name. S samples, C channels.
"""

import io
import os
import re
import shutil
import struct
import subprocess
import tempfile
from typing import Any, BinaryIO, cast

import numpy as np
import soundfile

from masr.data.audio_checks import UnusableAudio

CHUNK = 2**15
"""Samples that are decoded at once."""
NEAR_DAMAGE = 2**10
"""Samples that libsndfile decodes at once where it cannot decode a chunk: as many are lost, at most."""
UNKNOWN_LENGTH = 0x7FFF0000
"""Bytes from which on the size in a WAV header stands for "not known yet": what recorders and pipes write there."""
HEADER = 2**16
"""Bytes in which the header of a WAV file ends."""
SIZES = re.compile(r"^\s*(?:data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
"""What libsndfile notes where a header's size of the samples is not what the file has."""
PLAIN = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU")
"""Formats of which no other decoder finds more samples than libsndfile, only others than those of the recording."""
ESTIMATED = 0.05
"""Part by which a length that a header does not say exactly may be wrong."""
INSTALL = "install ffmpeg, or pip install 'masr[audio]'"


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


class Ffmpeg(Decoder):
    """What ffmpeg can decode, the first audio stream of it, by the program of that name.

    It writes Sun AU, whose header of six numbers is the shortest that says rate and channels.
    """

    def __init__(self, path: bytes):
        super().__init__()
        self.notes = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close)
        talk = ["-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+info"]
        # A playlist must not fetch what it names, and a name with a colon is no address.
        source: list[str | bytes] = ["-protocol_whitelist", "file", "-i", b"file:" + path]
        decode = ["-map", "0:a:0", "-c:a", "pcm_f32be", "-f", "au", "-"]
        self.program = subprocess.Popen(
            ["ffmpeg", *talk, *source, *decode],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.notes,
        )
        assert self.program.stdout is not None
        self.output = self.program.stdout
        try:
            self._read_header()
        except BaseException:
            self.close()
            raise
        self.ahead = self._decode()

    def _read_header(self) -> None:
        header = self.output.read(24)
        if len(header) < 24:
            self.program.wait()
            raise UnusableAudio(self._problem())
        _, start, _, _, self.rate, self.channels = struct.unpack(">4s5I", header)
        self.output.read(start - 24)
        notes = self._notes()
        if length := re.search(r"Duration: (\d+):(\d+):([\d.]+)", notes):
            self.seconds = 3600 * int(length[1]) + 60 * int(length[2]) + float(length[3])
        if self.seconds and _says_its_length(notes):
            self.claimed, self.tolerance = round(self.seconds * self.rate), ESTIMATED

    def _decode(self) -> np.ndarray:
        chunk = self.output.read(CHUNK * self.channels * 4)
        if not chunk:
            self.program.wait()
            if errors := _errors(self._notes()):
                self.warnings.append(f"parts of it cannot be decoded ({errors[0]})")
        whole = len(chunk) // (self.channels * 4) * self.channels * 4
        return np.frombuffer(chunk[:whole], ">f4").astype(np.float32).reshape(-1, self.channels)

    def _problem(self) -> str:
        notes = self._notes()
        if "matches no streams" in notes:
            return "holds no audio stream"
        return (_errors(notes) or ["ffmpeg cannot decode it"])[0]

    def _notes(self) -> str:
        self.notes.seek(0)
        return self.notes.read(2**20).decode(errors="replace")

    def _close(self) -> None:
        if self.program.poll() is None:
            self.program.kill()
        self.output.close()
        self.program.wait()
        self.notes.close()


def _errors(notes: str) -> list[str]:
    """Messages of ffmpeg that are errors, without what precedes them."""
    lines = [line for line in notes.splitlines() if "[error]" in line or "[fatal]" in line]
    return [re.split(r"\[(?:error|fatal)\] ", line)[-1] for line in lines]


def _says_its_length(notes: str) -> bool:
    """Whether ffmpeg's notes are of a container with an index, and of audio that no video outlasts."""
    return bool(re.search(r"Input #0, (mov|matroska|asf)", notes)) and ": Video: " not in notes


class Pyav(Decoder):
    """What ffmpeg can decode, the first audio stream of it, by the libraries that PyAV brings along."""

    def __init__(self, file: BinaryIO):
        super().__init__()
        import av

        self.av = av
        file.seek(0)
        self.container: Any
        try:
            self.container = av.open(file, metadata_errors="replace", io_open=_refuse)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise UnusableAudio(_message(error)) from error
        if not self.container.streams.audio:
            self.close()
            raise UnusableAudio("holds no audio stream")
        self.stream = self.container.streams.audio[0]
        self.packets = self.container.demux(self.stream)
        self.damaged: list[str] = []
        self.converter: Any = None
        self.kind: Any = None
        self.ahead = self._decode()
        if self.empty:
            self.close()
            raise UnusableAudio((self.damaged or ["no samples"])[0])
        self._read_length()

    def _read_length(self) -> None:
        duration = self.container.duration
        self.seconds = duration / self.av.time_base if duration else None
        has_index = re.match("mov|matroska|asf", self.container.format.name)
        if self.seconds and has_index and not self.container.streams.video:
            self.claimed, self.tolerance = round(self.seconds * self.rate), ESTIMATED

    def _decode(self) -> np.ndarray:
        """What the next packets hold; those that are damaged are left out."""
        while (packet := self._packet()) is not None:
            try:
                frames = packet.decode()
            except self.av.FFmpegError as error:
                self.damaged.append(_message(error))
                continue
            pieces = [piece for frame in frames for piece in self._convert(frame)]
            if pieces:
                return np.concatenate(pieces)
        if self.damaged:
            self.warnings.append(f"parts of it cannot be decoded ({self.damaged[0]})")
        return np.zeros((0, 1), np.float32)

    def _packet(self) -> Any:
        try:
            return next(self.packets, None)
        except self.av.FFmpegError as error:
            self.damaged.append(_message(error))
            return None

    def _convert(self, frame: Any) -> list[np.ndarray]:
        """(S, C) pieces in float32 of a frame, whose rate and channels are those of the first one."""
        kind = frame.format.name, frame.layout.name, frame.sample_rate
        if self.converter is None:
            self.rate, self.channels, self.layout = frame.sample_rate, len(frame.layout.channels), frame.layout.name
        converted: list[Any] = []
        if kind != self.kind:
            converted += self.converter.resample(None) if self.converter else []
            self.converter = self.av.AudioResampler("flt", self.layout, int(self.rate))
            self.kind = kind
        converted += self.converter.resample(frame)
        return [part.to_ndarray().reshape(-1, self.channels) for part in converted]

    def _close(self) -> None:
        self.container.close()


def _refuse(url: str, flags: int, options: dict) -> Any:
    raise OSError(f"it refers to another file ({url}), which is not opened")


def _message(error: Exception) -> str:
    """What libav says, without the number and the name."""
    return str(getattr(error, "strerror", None) or error)


def open_decoder(file: BinaryIO, path: bytes | None) -> Decoder:
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
