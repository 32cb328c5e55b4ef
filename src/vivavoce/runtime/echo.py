"""The room that the microphone of a session stands in: takes the session's own voice out of it.

The session knows nothing of it: what it is told has been cleaned, where its client wants that.
"""

import logging

import msgspec

from vivavoce.audio.formats import RATE, Decoder
from vivavoce.engines.base import Cleaner, CleanStream
from vivavoce.errors import EngineError
from vivavoce.protocol.client import InputAudioAppend
from vivavoce.protocol.server import (
    AnyServerEvent,
    ItemTruncated,
    OutputAudioDelta,
    ResponseDone,
    SessionCreated,
    SessionUpdated,
    SpeechStarted,
)
from vivavoce.protocol.session import PCM, RealtimeSession, SessionObject
from vivavoce.session.effects import ClearPlayback, Effect, PlayAudio, Send
from vivavoce.session.facts import AudioArrived, Fact, Received
from vivavoce.session.options import format_name

log = logging.getLogger(__name__)

LONGEST_PIECE = RATE  # bytes, 0.5 s: longer is a recording, and would hold up everybody else
LATE_SECONDS = 0.5  # a microphone that is so far behind has been off
MOST_WAITING = 2 * RATE * 600  # bytes that were sent and are not played yet


class EchoCanceller:
    """What is heard and what is played, side by side.

    The microphone is the clock: with so many of its samples go as many of what was sent before
    they came. The echo is then always later than what it is the echo of, by as much as the way
    to the client and back takes, however unevenly the network carries it.
    """

    def __init__(self, cleaner: Cleaner) -> None:
        self._cleaner = cleaner
        self._wanted: str | None = None
        self._stream: CleanStream | None = None
        self._decoder = Decoder("audio/pcm")
        self._takes_appends = False
        self._gives_way = True
        self._playing = bytearray()
        self._until = float("-inf")  # when all that was sent will have been played

    def close(self) -> None:
        """Give the stream back."""
        if self._stream:
            self._stream.close()
            self._stream = None
        self._playing.clear()

    def cleaned(self, fact: Fact, now: float) -> Fact:
        """The fact, to be told to the session; sound of the microphone without its echo."""
        if self._stream is None:
            return fact
        match fact:
            case Received(event=InputAudioAppend(audio=audio) as event) if self._takes_appends:
                if len(audio) % 2:  # from here on nobody can tell where a sample begins
                    self.close()
                    return fact
                return Received(msgspec.structs.replace(event, audio=self._hear(audio, now)))
            case AudioArrived(audio=audio):
                return AudioArrived(self._hear(audio, now))
        return fact

    def notice(self, effect: Effect, now: float) -> None:
        """What the session does that is heard in the room, or changes what it is like."""
        match effect:
            case Send(event=event):
                self._notice_event(event, now)
            case PlayAudio(audio=audio):
                self._play(audio, now)
            case ClearPlayback():
                self._fall_silent()

    def _notice_event(self, event: AnyServerEvent, now: float) -> None:
        match event:
            case OutputAudioDelta(delta=delta):
                if self._stream:
                    self._play(self._decoder.feed(delta), now)
            case SpeechStarted():
                if self._gives_way:
                    self._fall_silent()
            case ItemTruncated():
                self._fall_silent()
            case ResponseDone(response=response):
                if response.status == "cancelled":
                    self._fall_silent()
            case SessionCreated(session=session) | SessionUpdated(session=session):
                self._adopt(session)

    def _adopt(self, session: SessionObject) -> None:
        heard = session.audio.input
        wanted = heard.noise_reduction.type if heard.noise_reduction else None
        self._takes_appends = isinstance(heard.format, PCM)
        detection = heard.turn_detection
        self._gives_way = detection is not None and detection.interrupt_response is not False
        if wanted and isinstance(session, RealtimeSession):
            self._decoder = Decoder(format_name(session.audio.output.format))
        if wanted != self._wanted:
            self.close()
            self._wanted = wanted
            if wanted:
                self._stream = self._cleaner.open("near" if wanted == "near_field" else "far")

    def _play(self, pcm: bytes, now: float) -> None:
        if self._stream and len(self._playing) + len(pcm) <= MOST_WAITING:
            self._playing += pcm
            self._until = max(self._until, now) + len(pcm) / (2 * RATE)

    def _fall_silent(self) -> None:
        self._playing.clear()
        self._until = float("-inf")

    def _hear(self, pcm: bytes, now: float) -> bytes:
        assert self._stream
        self._skip_what_nobody_recorded(now)
        played = bytes(self._playing[: len(pcm)])
        del self._playing[: len(pcm)]
        if len(pcm) > LONGEST_PIECE:
            return pcm
        try:
            self._stream.play(played.ljust(len(pcm), b"\0"))
            return self._stream.process(pcm)
        except EngineError as exc:
            log.warning("the microphone of a session is not cleaned any more: %s", exc)
            self.close()
            return pcm

    def _skip_what_nobody_recorded(self, now: float) -> None:
        """The client has played on while its microphone was off."""
        left = 2 * round(max(0.0, self._until - now + LATE_SECONDS) * RATE)
        del self._playing[: max(0, len(self._playing) - left)]
