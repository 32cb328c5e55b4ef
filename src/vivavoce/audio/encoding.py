"""PCM to the files that people ask for, byte for byte as it is fed, and into memory alone.

Each kind begins to sound as early as its frames allow: of pages, paddings and write buffers, which
FFmpeg makes large for the sake of files on disk, only what is needed is kept. Nothing can be
written back into the head of a stream, so none of these tells its length there.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from vivavoce.audio.formats import RATE
from vivavoce.audio.resample import Resampler
from vivavoce.audio.riff import streaming_header
from vivavoce.errors import AudioError

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


@dataclass(frozen=True, slots=True)
class _Kind:
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
        self._resampler = Resampler(RATE, sample_rate)
        self._file: _File | _Plain = (
            _File(format, sample_rate)
            if format in _KINDS
            else _Plain(streaming_header(sample_rate) if format == "wav" else b"")
        )

    def feed(self, pcm24: bytes) -> bytes:
        """Encode what fills a frame; keep the rest. Whole samples only."""
        return self._file.add(self._resampler.feed(pcm24))

    def finish(self) -> bytes:
        """The end of the file. Feed nothing more."""
        return self._file.add(self._resampler.flush()) + self._file.end()


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
