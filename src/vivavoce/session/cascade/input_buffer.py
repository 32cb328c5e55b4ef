"""The input audio buffer. Positions count samples, at 24 kHz, since the session began."""

from dataclasses import dataclass

from vivavoce.audio.formats import RATE, Decoder, Format
from vivavoce.errors import InvalidRequest
from vivavoce.protocol.client import InputAudioAppend

BYTES_PER_SAMPLE = 2
HALF_SAMPLE_SECONDS = 1.0
LAG_SECONDS = 0.25
LEAD_SECONDS = 0.25


def to_ms(samples: int) -> int:
    """Whole milliseconds of so many samples."""
    return samples * 1000 // RATE


def to_samples(ms: int) -> int:
    """Samples of so many milliseconds."""
    return ms * RATE // 1000


class InputBuffer:
    """Sound that has come and is not part of an item yet: [start, end)."""

    def __init__(self) -> None:
        self.start = 0
        self._pcm = bytearray()

    @property
    def end(self) -> int:
        """All sound that has come in this session, in samples."""
        return self.start + len(self._pcm) // BYTES_PER_SAMPLE

    def __len__(self) -> int:
        return len(self._pcm) // BYTES_PER_SAMPLE

    def append(self, pcm: bytes) -> None:
        self._pcm += pcm

    def read(self, begin: int, end: int) -> bytes:
        """The sound in [begin, end), as far as it is still here."""
        first = max(0, begin - self.start) * BYTES_PER_SAMPLE
        with memoryview(self._pcm) as pcm:  # a slice of the bytearray would be copied twice
            return bytes(pcm[first : max(0, end - self.start) * BYTES_PER_SAMPLE])

    def forget(self, before: int) -> None:
        """Drop what came before that position; what has not come cannot be dropped."""
        before = min(before, self.end)
        if before > self.start:
            del self._pcm[: (before - self.start) * BYTES_PER_SAMPLE]
            self.start = before

    def cut(self, end: int) -> bytes:
        """Take out all up to that position."""
        taken = self.read(self.start, end)
        self.forget(end)
        return taken


@dataclass(frozen=True, slots=True)
class HalfSample:
    """Half a sample waits for its other half: the append that left it, and until when."""

    event_id: str | None
    deadline: float

    @property
    def problem(self) -> InvalidRequest:
        return InvalidRequest(
            "Invalid 'audio': an odd number of bytes, and no more came. 16-bit PCM has two bytes "
            "a sample; the last byte was dropped.",
            param="audio",
            event_id=self.event_id,
        )


class ArrivalPace:
    """Whether sound comes as it is spoken, or faster: then it is a recording that is being sent.

    A bucket that sound fills and time empties. It may run a little into debt, so that what a
    stumbling network brings late and at once is not taken for a recording.
    """

    def __init__(self) -> None:
        self.at = float("-inf")
        """When sound came last."""
        self._lead = 0.0  # seconds of sound ahead of the clock

    def take(self, samples: int, now: float) -> None:
        """So much sound has come."""
        self._lead = max(-LAG_SECONDS, self._lead - (now - self.at)) + samples / RATE
        self.at = now

    @property
    def live(self) -> bool:
        return self._lead <= LEAD_SECONDS


class Intake:
    """What the client sends, from the wire's format into the buffer.

    An odd byte is half a sample. It is carried over to the next append; only when nothing
    completes it within a second, or at a commit, is it an error.
    """

    def __init__(self, *, longest: int, gap_seconds: float = 0.0) -> None:
        self.buffer = InputBuffer()
        self.half: HalfSample | None = None
        self.longest = longest
        self.gap_seconds = gap_seconds
        """Without sound, by the clock, before that is silence; 0: never."""
        self.pace = ArrivalPace()
        self._format: Format = "audio/pcm"
        self._decoder = Decoder("audio/pcm")

    def adopt(self, format_: Format) -> HalfSample | None:
        """From now on the client sends that format. Returns half a sample that can't be whole."""
        if format_ == self._format:
            return None
        self._format = format_
        self._decoder = Decoder(format_)
        half, self.half = self.half, None
        return half

    def append(self, event: InputAudioAppend, now: float, *, begin: int = 0) -> None:
        """Take in sound. Raises InvalidRequest when there is no room for it.

        begin: what came before that position takes no room.
        """
        held = self.buffer.end - max(begin, self.buffer.start)
        if held > self.longest:
            raise InvalidRequest(
                f"The input audio buffer is full: it holds {to_ms(held)}ms of the "
                f"{to_ms(self.longest)}ms it may. Commit or clear it.",
                code="input_audio_buffer_full",
                param="audio",
            )
        pcm = self._decoder.feed(event.audio)
        self.buffer.append(pcm)
        self.pace.take(len(pcm) // BYTES_PER_SAMPLE, now)
        self.half = None
        if self._decoder.carrying:
            self.half = HalfSample(event.event_id, now + HALF_SAMPLE_SECONDS)

    def hear(self, audio: bytes, now: float) -> None:
        """Take in sound of a track: whole samples, as the session has them."""
        self.buffer.append(audio)
        self.pace.take(len(audio) // BYTES_PER_SAMPLE, now)

    def drop_half(self) -> HalfSample | None:
        """Forget half a sample; return it if there was one."""
        half, self.half = self.half, None
        self._decoder.drop_half()
        return half
