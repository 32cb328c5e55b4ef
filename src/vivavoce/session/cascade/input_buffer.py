"""The input audio buffer. Positions count samples at 24 kHz since the session began."""

from bisect import bisect_left, bisect_right

import msgspec

from vivavoce.audio.formats import BYTES_PER_SAMPLE, RATE, Decoder, Format, to_ms
from vivavoce.errors import InvalidRequest
from vivavoce.protocol.client import InputAudioAppend
from vivavoce.protocol.server import TurnDecision
from vivavoce.session.facts import TranscriptionKey

HALF_SAMPLE_SECONDS = 1.0
LAG_SECONDS = 0.25
LEAD_SECONDS = 0.25
MIN_PIECE_BYTES = 1000  # shorter appends are kept together


class InputBuffer:
    """Audio that was received and is not part of an item yet: positions [start, end)."""

    def __init__(self, start: int = 0) -> None:
        self.start = start
        self.end = start
        """All audio received in this session, in samples."""
        # the appends as they came: one array would be copied, to new memory, whenever it grows
        self._pieces: list[bytes] = []
        self._ends: list[int] = []  # the position behind each of them

    def __len__(self) -> int:
        return self.end - self.start

    def append(self, pcm: bytes) -> None:
        """Whole samples."""
        self.end += len(pcm) // BYTES_PER_SAMPLE
        pieces = self._pieces
        if pieces and len(pieces[-1]) + len(pcm) <= MIN_PIECE_BYTES:
            pieces[-1] += pcm
            self._ends[-1] = self.end
        else:
            pieces.append(pcm)
            self._ends.append(self.end)

    def read(self, begin: int, end: int) -> bytes:
        """The audio in [begin, end), as far as it is still in the buffer."""
        begin, end = max(begin, self.start), min(end, self.end)
        if begin >= end:
            return b""
        ends = self._ends
        first, last = bisect_right(ends, begin), bisect_left(ends, end)
        found = self._pieces[first : last + 1]
        skipped = len(found[0]) - (ends[first] - begin) * BYTES_PER_SAMPLE
        found[-1] = found[-1][: len(found[-1]) - (ends[last] - end) * BYTES_PER_SAMPLE]
        found[0] = found[0][skipped:]
        return b"".join(found)

    def drop(self, before: int) -> None:
        """Drop the audio before that position."""
        before = min(before, self.end)
        if before > self.start:
            self.start = before
            count = bisect_right(self._ends, before)
            del self._pieces[:count], self._ends[:count]

    def cut(self, end: int) -> bytes:
        """Take out all audio before that position."""
        taken = self.read(self.start, end)
        self.drop(end)
        return taken


class EndedTurn(msgspec.Struct, frozen=True):
    """A turn that has ended and that the client was not told about. Positions are samples."""

    key: TranscriptionKey
    start: int
    end: int
    pcm: bytes
    decision: TurnDecision


class HalfSample(msgspec.Struct, frozen=True):
    """An odd byte, half a 16-bit sample: the event that sent it, and until when its other half may
    come."""

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
    """Tells audio that arrives in real time from a recording, which arrives faster.

    A token bucket that audio fills and time empties. The bucket may fall a little below zero, so
    that live audio which a slow network delivers late and all at once is not taken for a recording.
    """

    def __init__(self) -> None:
        self.at = float("-inf")
        """When audio was last received."""
        self._lead = 0.0  # seconds of audio ahead of the clock

    def take(self, samples: int, now: float) -> None:
        """Count received audio."""
        lead = self._lead - (now - self.at)
        self._lead = (lead if lead > -LAG_SECONDS else -LAG_SECONDS) + samples / RATE
        self.at = now

    @property
    def live(self) -> bool:
        return self._lead <= LEAD_SECONDS


class Intake:
    """Decodes the client's audio from the format of the wire into the buffer."""

    def __init__(self, *, max_samples: int, position: int = 0) -> None:
        self.buffer = InputBuffer(position)
        self.half: HalfSample | None = None
        self.max_samples = max_samples
        self.pace = ArrivalPace()
        self._format: Format = "audio/pcm"
        self._decoder = Decoder("audio/pcm")

    def set_format(self, format_: Format) -> HalfSample | None:
        """Decode this format from now on.

        Returns the half sample that nothing will complete, if there is one.
        """
        if format_ == self._format:
            return None
        self._format = format_
        self._decoder = Decoder(format_)
        half, self.half = self.half, None
        return half

    def decode(self, event: InputAudioAppend, now: float, *, begin: int = 0) -> bytes:
        """Decode the audio of an append to whole samples of PCM.

        Raises InvalidRequest where the buffer is full. begin: audio before that position does not
        count as buffered.
        """
        if (held := self._held(begin)) > self.max_samples:
            raise InvalidRequest(
                f"The input audio buffer is full: it holds {to_ms(held)}ms of the "
                f"{to_ms(self.max_samples)}ms it may. Commit or clear it.",
                code="input_audio_buffer_full",
                param="audio",
            )
        pcm = self._decoder.feed(event.audio)
        self.half = None
        if self._decoder.carrying:
            self.half = HalfSample(event.event_id, now + HALF_SAMPLE_SECONDS)
        return pcm

    def decode_whole(self, event: InputAudioAppend, *, begin: int = 0) -> bytes | None:
        """The same, where it raises nothing and involves no half sample. None: nothing was done."""
        if self.half or self._held(begin) > self.max_samples:
            return None
        if self._format != "audio/pcm":
            return self._decoder.feed(event.audio)
        return None if len(event.audio) % BYTES_PER_SAMPLE else event.audio

    def _held(self, begin: int) -> int:
        return self.buffer.end - max(begin, self.buffer.start)

    def add(self, pcm: bytes, now: float) -> None:
        """Append PCM to the buffer."""
        self.buffer.append(pcm)
        self.pace.take(len(pcm) // BYTES_PER_SAMPLE, now)

    def drop_half(self) -> HalfSample | None:
        """Drop half a sample; return it if there was one."""
        half, self.half = self.half, None
        self._decoder.drop_half()
        return half
