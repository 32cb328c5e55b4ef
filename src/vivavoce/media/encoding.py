"""PCM to audio files of six formats, as it is fed, into memory alone.

Playback can begin as early as the frames of a format allow: pages, padding and write buffers, which
FFmpeg makes large for files on disk, are as small as possible. The header of a stream cannot be
changed later, so it lacks the length, unless write_length() is called with the whole file before it
is sent.
"""

import struct
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec
import numpy as np

from vivavoce.audio.formats import RATE
from vivavoce.audio.resample import Resampler
from vivavoce.errors import AudioError
from vivavoce.media.files import streaming_header

if TYPE_CHECKING:
    from av import AudioFifo, AudioResampler
    from av.audio.stream import AudioStream
    from av.container import OutputContainer

FileFormat: TypeAlias = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]

# Opus comes in Ogg, whose own type would be audio/ogg; clients were taught this one.
CONTENT_TYPES: dict[FileFormat, str] = {
    "mp3": "audio/mpeg",
    "opus": "audio/opus",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}

MIN_RATE, MAX_RATE = 8_000, 48_000
SILENCE_MS = 100
"""The length of a file without audio: an MP3 or AAC file without a frame would have no bytes."""
_WAV_HEADER_BYTES = 44
# FLAC, RFC 9639, 8.2: after "fLaC" and 4 bytes of block header and 10 bytes of block and frame
# sizes come 8 bytes, of which the last 36 bits count the samples
_FLAC_SAMPLES_AT = 18


class _Kind(msgspec.Struct, frozen=True):
    container: str
    codec: str
    bits_per_second: int | None
    """None: lossless."""
    options: dict[str, str]


_KINDS: dict[FileFormat, _Kind] = {
    # Without a Xing frame, which would need the length, and without tags.
    "mp3": _Kind("mp3", "libmp3lame", 64_000, {"write_xing": "0", "id3v2_version": "0"}),
    # Ogg pages of 20 ms (by default a page waits for a second of audio) cost 15 % more bytes.
    "opus": _Kind("ogg", "libopus", 48_000, {"page_duration": "40000"}),
    "aac": _Kind("adts", "aac", 64_000, {}),
    # The padding is room for tags: 8 KiB by default.
    "flac": _Kind("flac", "flac", None, {"metadata_header_padding": "0"}),
}


class FileEncoder:
    """One stream of 16-bit mono PCM at 24 kHz into one file of `sample_rate` hertz.

    The output does not depend on how the audio is split. Feeding is CPU work, for MP3 up to 1.5 %
    of the duration of the audio: from an event loop, feed 300 ms at most. An encoder that is
    dropped before its end leaves nothing behind. Raises AudioError if the format does not support
    the rate.
    """

    def __init__(self, format: FileFormat, sample_rate: int = RATE) -> None:  # noqa: A002
        if not MIN_RATE <= sample_rate <= MAX_RATE:
            raise AudioError(
                f"{format} of {sample_rate} Hz cannot be made: {MIN_RATE} to {MAX_RATE} Hz can"
            )
        self._format = format
        self._resampler = Resampler(RATE, sample_rate)
        self._samples = 0  # of the file
        self._file: _File | _Plain = (
            _File(format, sample_rate)
            if format in _KINDS
            else _Plain(streaming_header(sample_rate) if format == "wav" else b"")
        )

    def feed(self, pcm24: bytes) -> bytes:
        """Encode all complete frames; keep the rest. Whole samples only."""
        return self._add(self._resampler.feed(pcm24))

    def finish(self) -> bytes:
        """The end of the file. Feed nothing more. If nothing was fed, the file is silent."""
        made = self._add(self._resampler.flush())
        if not self._samples:
            made += self.feed(bytes(2 * (SILENCE_MS * RATE // 1000)))
            made += self._add(self._resampler.flush())
        return made + self._file.end()

    def write_length(self, file: bytearray) -> None:
        """Write the length of the finished file into its header.

        WAV and FLAC have a field for it; files of other formats are unchanged.
        """
        if self._format == "wav":
            struct.pack_into("<I", file, 4, len(file) - 8)
            struct.pack_into("<I", file, 40, len(file) - _WAV_HEADER_BYTES)
        elif self._format == "flac":
            (fields,) = struct.unpack_from(">Q", file, _FLAC_SAMPLES_AT)
            struct.pack_into(">Q", file, _FLAC_SAMPLES_AT, fields | self._samples)

    def _add(self, pcm: bytes) -> bytes:
        self._samples += len(pcm) // 2
        return self._file.add(pcm)


class _Plain:
    """PCM as it is, after a header or without one."""

    def __init__(self, head: bytes) -> None:
        self._head = head

    def add(self, pcm: bytes) -> bytes:
        made, self._head = self._head + pcm, b""
        return made

    def end(self) -> bytes:
        return self.add(b"")


class _Sink:
    """The file to which FFmpeg writes. It cannot seek in it, and gets no name."""

    def __init__(self) -> None:
        self.made = bytearray()

    def write(self, data: bytes) -> int:
        self.made += data
        return len(data)


class _File:
    """A container with one audio stream, in frames of the size that the codec needs."""

    def __init__(self, format: FileFormat, rate: int) -> None:  # noqa: A002
        # Imported here because it takes 50 ms and 18 MB, and many servers never encode a file.
        import av

        kind = _KINDS[format]
        rates = av.Codec(kind.codec, "w").audio_rates
        if rates is not None and rate not in rates:
            can = ", ".join(str(each) for each in sorted(rates) if MIN_RATE <= each <= MAX_RATE)
            raise AudioError(f"{format} of {rate} Hz cannot be made: it can have {can} Hz")
        self._sink = _Sink()
        self._container: OutputContainer = av.open(
            self._sink,
            mode="w",
            format=kind.container,
            options={"flush_packets": "1", "fflags": "+bitexact", **kind.options},
        )
        stream = self._container.add_stream(kind.codec, rate=rate, layout="mono")
        assert isinstance(stream, av.AudioStream)
        self._stream: AudioStream = stream
        if kind.bits_per_second is not None:
            self._stream.bit_rate = kind.bits_per_second
        self._stream.codec_context.open()
        self._container.start_encoding()  # so that a file without any audio has its header, too
        self._converter: AudioResampler = av.AudioResampler(
            format=self._stream.format, layout="mono", rate=rate
        )
        self._held: AudioFifo = av.AudioFifo()
        self._frame = self._stream.codec_context.frame_size
        self._fed = 0

    def add(self, pcm: bytes) -> bytes:
        import av  # here for the reason given above

        if pcm:
            samples = np.frombuffer(pcm, "<i2").reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.pts = self._stream.rate, self._fed
            self._fed += samples.shape[1]
            for converted in self._converter.resample(frame):
                self._held.write(converted)
        while (whole := self._held.read(self._frame)) is not None:
            self._container.mux(self._stream.encode(whole))
        return self._taken()

    def end(self) -> bytes:
        if (rest := self._held.read()) is not None:
            self._container.mux(self._stream.encode(rest))
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._taken()

    def _taken(self) -> bytes:
        made = bytes(self._sink.made)
        self._sink.made.clear()
        return made
