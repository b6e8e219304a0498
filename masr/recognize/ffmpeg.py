"""Files that ffmpeg decodes: by the program, or by its libraries, which PyAV brings along. S samples, C channels."""

import re
import struct
import subprocess
import tempfile
from typing import Any, BinaryIO

import numpy as np

from masr.data.audio_checks import UnusableAudio
from masr.recognize.decoder import CHUNK, ESTIMATED, Decoder

FORMATS = (
    "aac,ac3,ac4,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,dtshd,dv,eac3,flac,flv,gsm,gxf,ilbc,latm,loas,"
    "matroska,mlp,mmf,mov,mp3,mpc,mpc8,mpeg,mpegts,mxf,nistsphere,nut,ogg,oma,qcp,rm,shn,sox,tak,truehd,tta,voc,vqf,"
    "w64,wav,wsd,wtv,wv,xwma"
)
"""ffmpeg's names of the containers to read. Not among them: playlists, which open the files and addresses that they
name; texts and pictures; formats without a mark, for which ffmpeg takes noise."""


class Ffmpeg(Decoder):
    """What ffmpeg can decode, the first audio stream of it, by the program of that name.

    It writes Sun AU, whose header of six numbers is the shortest that says rate and channels.
    """

    def __init__(self, path: bytes):
        super().__init__()
        self.notes = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close)
        talk = ["-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+info"]
        # With "file:" a name with a colon is no address.
        source: list[str | bytes] = ["-format_whitelist", FORMATS, "-i", b"file:" + path]
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
    lines = [line for line in notes.split("\n") if "[error]" in line or "[fatal]" in line]
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
            self.container = av.open(file, options={"format_whitelist": FORMATS}, metadata_errors="replace")
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


def _message(error: Exception) -> str:
    """What libav says, without the number and the name."""
    return str(getattr(error, "strerror", None) or error)
