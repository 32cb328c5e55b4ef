"""PCM to sound files of six formats, as it is fed, into memory alone.

Each format begins to sound as early as its frames allow: of pages, paddings and write buffers,
which FFmpeg makes large for files on disk, only what is needed is kept. Nothing can be written back
into the head of a stream, so none has its length there, unless write_length() is called with the
whole file before it is sent.
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
"""The file of no sound at all: an MP3 or AAC file without a frame would be empty, and no file."""
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
    # A page waits for the next one: a whole second by default. Of 20 ms they cost 15 % more bytes.
    "opus": _Kind("ogg", "libopus", 48_000, {"page_duration": "40000"}),
    "aac": _Kind("adts", "aac", 64_000, {}),
    # The padding is room for tags: 8 KiB by default.
    "flac": _Kind("flac", "flac", None, {"metadata_header_padding": "0"}),
}


class FileEncoder:
    """One stream of 16-bit mono PCM at 24 kHz into one file of `sample_rate` hertz.

    What comes out in all does not depend on how the sound is cut. Feeding is CPU work, for MP3 up
    to 1.5 % of the sound's own length: from an event loop, feed 300 ms at most. An encoder that is
    dropped before its end leaves nothing behind. Raises AudioError where the format has no such
    rate.
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
        """Encode what fills a frame; keep the rest. Whole samples only."""
        return self._add(self._resampler.feed(pcm24))

    def finish(self) -> bytes:
        """The end of the file. Feed nothing more. Where nothing was fed, the file is silent."""
        made = self._add(self._resampler.flush())
        if not self._samples:
            made += self.feed(bytes(2 * (SILENCE_MS * RATE // 1000)))
            made += self._add(self._resampler.flush())
        return made + self._file.end()

    def write_length(self, file: bytearray) -> None:
        """Write into the head of the whole finished file how long it is.

        WAV and FLAC have a place for that; files of the other formats stay as they are.
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
    """PCM as it is, after a head or none."""

    def __init__(self, head: bytes) -> None:
        self._head = head

    def add(self, pcm: bytes) -> bytes:
        made, self._head = self._head + pcm, b""
        return made

    def end(self) -> bytes:
        return self.add(b"")


class _Sink:
    """Where FFmpeg writes. It cannot seek in it, nor learn a name."""

    def __init__(self) -> None:
        self.made = bytearray()

    def write(self, data: bytes) -> int:
        self.made += data
        return len(data)


class _File:
    """A container with one stream of sound, in frames of the size that the codec wants."""

    def __init__(self, format: FileFormat, rate: int) -> None:  # noqa: A002
        # Imported here because it takes 50 ms and 18 MB, and many a server never makes a file.
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
        self._container.start_encoding()  # so that a file without any sound has its head, too
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
