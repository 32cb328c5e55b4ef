"""Audio files of any kind to PCM, chunk by chunk, in constant memory. Blocks: call from a thread.

The kind of a file is detected from its bytes: neither its name nor its declared type counts.
Nothing else is opened, whatever the bytes refer to: FFmpeg, under PyAV, gets bytes and no file
name; it may use the demuxers and decoders listed here, none of which follows a reference, and no
protocol.
"""

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import msgspec
import numpy as np

from vivavoce.audio.formats import RATE, Decoder, Format
from vivavoce.audio.resample import Resampler
from vivavoce.errors import AudioError
from vivavoce.media.joined import MAX_PARTS, FilePart, PartReader, parts

if TYPE_CHECKING:
    from av import AudioFrame, AudioResampler
    from av.audio.stream import AudioStream
    from av.container import InputContainer

_CONTAINERS = "aac,ac3,aiff,amr,asf,au,caf,flac,flv,matroska,mov,mp3,mpeg,ogg,w64,wav,webm"
_CODECS = (
    "aac,ac3,adpcm_ima_qt,adpcm_ima_wav,adpcm_ms,adpcm_swf,alac,amrnb,amrwb,eac3,flac,"
    "gsm,gsm_ms,mp1,mp1float,mp2,mp2float,mp3,mp3float,nellymoser,opus,"
    "pcm_alaw,pcm_f32be,pcm_f32le,pcm_f64be,pcm_f64le,pcm_mulaw,pcm_s16be,pcm_s16le,"
    "pcm_s24be,pcm_s24le,pcm_s32be,pcm_s32le,pcm_s8,pcm_u8,"
    "speex,vorbis,wmalossless,wmapro,wmav1,wmav2,wmavoice"
)
"""For audio only: the frames of a video are skipped, not decoded."""

# Files that people send by mistake, or as a test. FFmpeg finds audio even in some of these.
_NO_SOUND = (
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a rar archive"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"GIF8", "an image"),
)

# Containers with the length in the header; for the others FFmpeg guesses it from the size.
_COMPRESSED = {"flac", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2"}
_UNCOMPRESSED = {"aiff", "au", "caf", "w64"}
"""Lengths that writers into a pipe use as a placeholder: they do not mean that audio is missing."""
MIN_RATE, MAX_RATE = 4_000, 192_000
_SILENT = 3
"""16-bit samples up to this value are silence: a lossy codec turns zeros into no more."""
_MAY_LACK_S, _MAY_LACK_SHARE = 0.5, 0.02  # for encoder padding at both ends, and rounding
_RAW_BYTES = 1 << 14


@dataclass(frozen=True, slots=True)
class Raw:
    """Mono audio without a container, as its sender describes it. Raises AudioError."""

    format: Format = "audio/pcm"
    rate: int = RATE
    """In Hz, for PCM only."""

    def __post_init__(self) -> None:
        if not MIN_RATE <= self.rate <= MAX_RATE:
            raise AudioError(
                f"raw audio of {self.rate} Hz cannot be read: {MIN_RATE} to {MAX_RATE} Hz can"
            )


class Bounds(msgspec.Struct, frozen=True):
    """The limits of an audio file."""

    max_seconds: float = 3600.0
    """A few compressed bytes can be days of silence."""
    min_seconds: float = 0.0
    silence: bool = True
    """Whether a file that is silent throughout is accepted."""


class SoundFile:
    """One file, read once from start to end.

    `source` must be seekable; it is not closed here. `name`: the file in error messages. `raw`: the
    format of bytes without a container. All audio is converted to 16-bit mono PCM of `rate` hertz;
    recordings joined in one file follow one another, whatever their rates and channels.
    """

    def __init__(
        self,
        source: IO[bytes],
        name: str = "the audio",
        *,
        raw: Raw | None = None,
        rate: int = RATE,
        bounds: Bounds | None = None,
    ) -> None:
        self._source = source
        self._name = name
        self._raw = raw
        self._rate = rate
        self._bounds = bounds or Bounds()
        self._samples = 0
        self._peak = 0

    @property
    def seconds(self) -> float:
        """How much was decoded so far; after the last chunk, the duration of the audio."""
        return self._samples / self._rate

    def pieces(self, seconds_per_piece: float = 1.0) -> Generator[bytes]:
        """All audio, in chunks of that length; the last one is shorter.

        Call it once. Each next() does the work of one chunk; close it, or read it to its end, to
        release its resources. Raises AudioError, in one sentence: the bytes are not audio that can
        be read, or are compressed audio that ends before the length in the header (both usually
        with the first chunk, at times only after the last), or exceed the bounds.
        """
        size = 2 * max(1, round(seconds_per_piece * self._rate))
        held = bytearray()
        with closing(self._decoded()) as decoded:
            for pcm in decoded:
                self._count(pcm)
                held += pcm
                while len(held) >= size:
                    yield bytes(held[:size])
                    del held[:size]
        self._check_whole()
        if held:
            yield bytes(held)

    def _decoded(self) -> Generator[bytes]:
        start = self._begin()
        if not start:
            raise AudioError(f"{self._name} is empty")
        if self._raw is not None:
            return self._from_raw(self._raw)
        for magic, what in _NO_SOUND:
            if start.startswith(magic):
                raise self._unreadable(f"it is {what}")
        found = parts(self._source)
        if len(found) > MAX_PARTS:
            raise AudioError(f"{self._name} consists of more than {MAX_PARTS} recordings")
        return self._from_parts(found)

    def _begin(self) -> bytes:
        """The first bytes; leaves the source at its beginning."""
        self._source.seek(0)
        start = self._source.read(16)
        self._source.seek(0)
        return start

    def _from_raw(self, raw: Raw) -> Generator[bytes]:
        decoder = Decoder(raw.format)
        resampler = Resampler(raw.rate if raw.format == "audio/pcm" else RATE, self._rate)
        while data := self._source.read(_RAW_BYTES):
            yield resampler.feed(decoder.feed(data))
        yield resampler.flush()

    def _from_parts(self, found: list[FilePart]) -> Generator[bytes]:
        for part in found:
            yield from self._from_container(part)

    def _from_container(self, part: FilePart) -> Generator[bytes]:
        # Imported here because it takes 50 ms and 18 MB, and many servers never decode a file.
        import av

        options = {
            "format_whitelist": _CONTAINERS,
            "codec_whitelist": _CODECS,
            "protocol_whitelist": "",
        }
        try:
            with av.open(
                PartReader(self._source, part), mode="r", options=options, metadata_errors="replace"
            ) as container:
                yield from self._from_stream(container, self._stream(container))
        except av.FFmpegError as exc:
            raise self._unreadable(exc.strerror or "unknown error") from exc

    def _stream(self, container: "InputContainer") -> "AudioStream":
        if not container.streams.audio:
            raise AudioError(f"{self._name} has no audio stream")
        stream = container.streams.audio[0]
        if stream.codec_context is None:  # FFmpeg knows no codec of that number, or of 0 bits
            raise self._unreadable("its codec is unknown")
        codec = stream.codec_context.name
        if codec not in _CODECS.split(","):
            raise self._unreadable(f"it is {codec}")
        if stream.codec_context.sample_rate:
            self._check_rate(stream.codec_context.sample_rate)
        return stream

    def _from_stream(self, container: "InputContainer", stream: "AudioStream") -> Iterator[bytes]:
        promised = _promised_seconds(container, stream)
        if self.seconds + promised > self._bounds.max_seconds + 1:
            raise self._too_long()
        reached = yield from self._resampled(container, stream)
        lacking = promised - reached
        if container.format.name in _COMPRESSED and lacking > max(
            _MAY_LACK_S, _MAY_LACK_SHARE * promised
        ):
            raise AudioError(f"{self._name} is cut off: its last {lacking:.1f} s are missing")

    def _resampled(
        self, container: "InputContainer", stream: "AudioStream"
    ) -> Generator[bytes, None, float]:
        """PCM; returns the seconds that were decoded, or skipped because the bytes are damaged.

        If the rate or the channels change within the file, a new resampler continues.
        """
        import av  # here for the reason given above

        resampler: AudioResampler | None = None
        form: tuple[str, str, int] | None = None
        good = damaged = 0
        reached = decoded = 0.0
        for packet in container.demux(stream):
            if packet.pts is not None:
                reached = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            try:
                frames = packet.decode()
            except av.FFmpegError:  # players skip it as well
                damaged += 1
                continue
            good += 1
            for frame in frames:
                if form != (form := (frame.format.name, frame.layout.name, frame.sample_rate)):
                    yield _pcm(resampler, None)
                    self._check_rate(frame.sample_rate)
                    resampler = av.AudioResampler(format="s16", layout="mono", rate=self._rate)
                decoded += frame.samples / frame.sample_rate
                yield _pcm(resampler, frame)
        yield _pcm(resampler, None)
        if damaged > good:
            raise AudioError(f"{self._name} is damaged: most of it cannot be decoded")
        return max(reached, decoded)

    def _check_rate(self, rate: int) -> None:
        if not MIN_RATE <= rate <= MAX_RATE:
            raise self._unreadable(f"its rate is {rate} Hz, not {MIN_RATE} to {MAX_RATE} Hz")

    def _count(self, pcm: bytes) -> None:
        self._samples += len(pcm) // 2
        if self.seconds > self._bounds.max_seconds:
            raise self._too_long()
        if pcm and self._peak <= _SILENT:
            heard = np.frombuffer(pcm, "<i2")
            self._peak = max(self._peak, int(heard.max()), -int(heard.min()))

    def _check_whole(self) -> None:
        """Raise AudioError at the end if there was no audio, or if it exceeds the bounds."""
        if not self._samples:
            raise AudioError(f"{self._name} has no audio in it")
        if self.seconds < self._bounds.min_seconds:
            raise AudioError(f"{self._name} is shorter than {self._bounds.min_seconds:g} s")
        if not self._bounds.silence and self._peak <= _SILENT:
            raise AudioError(f"{self._name} is silent from its start to its end")

    def _unreadable(self, reason: str) -> AudioError:
        return AudioError(f"{self._name} is not an audio file that can be read: {reason}")

    def _too_long(self) -> AudioError:
        return AudioError(f"{self._name} lasts longer than {self._bounds.max_seconds:.0f} s")


def _pcm(resampler: "AudioResampler | None", frame: "AudioFrame | None") -> bytes:
    """The output of the resampler for a frame; for None: what it still holds."""
    if resampler is None:
        return b""
    # a plane is padded
    return b"".join(
        bytes(piece.planes[0])[: 2 * piece.samples] for piece in resampler.resample(frame)
    )


def _promised_seconds(container: "InputContainer", stream: "AudioStream") -> float:
    """The duration in the header, in seconds; 0.0 without one."""
    if container.format.name not in _COMPRESSED | _UNCOMPRESSED:
        return 0.0
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is not None and len(container.streams) == 1:
        return container.duration / 1_000_000  # FFmpeg's AV_TIME_BASE
    return 0.0
