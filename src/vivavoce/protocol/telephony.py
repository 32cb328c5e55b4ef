"""Telephone calls: the media streams of Twilio, Telnyx, Plivo and Exotel, one call a connection.

The provider plays the answers: audio is sent as soon as it is generated. When the caller
interrupts, the rest is cleared, and the answer is truncated at the position that was heard.
"""

from collections.abc import Callable, Iterator

import msgspec

from vivavoce.audio.samples import SampleDecoder
from vivavoce.errors import InvalidRequest, LimitReached, Unauthorized, VoiceError
from vivavoce.protocol import server as says
from vivavoce.protocol.client import InputAudioAppend, ItemCreate, ResponseCancel, ResponseCreate
from vivavoce.protocol.items import InputText, Message
from vivavoce.protocol.raw_config import config_of_query, patch_of
from vivavoce.protocol.raw_input import MAX_AUDIO_BYTES
from vivavoce.protocol.raw_messages import spoken_words
from vivavoce.protocol.server import AnyServerEvent
from vivavoce.protocol.session import RealtimeSession, SessionObject
from vivavoce.protocol.telephony_messages import (
    PROVIDERS,
    StreamedCall,
    StreamMedia,
    StreamMessage,
    call_of,
    mark_of,
    read_message,
)
from vivavoce.protocol.telephony_playback import CallPlayback
from vivavoce.protocol.validation import MAX_QUOTED
from vivavoce.protocol.wire import (
    CloseRequest,
    ConnectRequest,
    Decoded,
    Frame,
    Opening,
    Refusal,
    Reply,
)
from vivavoce.secret import Secret

DIGIT_PAUSE_S = 2.0
"""If no further key follows within this time, the keys pressed are a turn; `#` ends it at once."""
MAX_DIGITS = 64
_OPTIONS = ("model", "voice", "language", "stt_model", "allow_interruptions")


class TelephonyProtocol:
    """One call. `clock` gives seconds."""

    subprotocols = ()
    server_plays = False
    is_ga = False
    key_in_frames = True

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._provider = ""
        self._query: dict[str, str] = {}
        self._talk: _Conversation | None = None

    def opening(self, request: ConnectRequest) -> None:
        """The start message requests the session. Raises InvalidRequest for `?provider=`."""
        self._query = dict(request.query)
        self._provider = self._query.pop("provider", "").lower()
        if self._provider not in ("", *PROVIDERS):
            raise InvalidRequest(
                f"Invalid 'provider': {self._provider[:MAX_QUOTED]!r}. Supported values are: "
                f"{', '.join(PROVIDERS)}.",
                param="provider",
            )

    def refuse(self, error: VoiceError) -> Refusal:
        """Providers read no error messages: the reason is in the close frame."""
        code = {LimitReached: 1013, Unauthorized: 3000}.get(type(error), 1008)
        return Refusal((), code, str(error))

    def decode(self, frame: Frame) -> Iterator[Decoded]:
        if frame.kind != "text":
            raise InvalidRequest(
                "Media streams of telephone providers are JSON in text messages, not binary "
                "messages: raw audio is served at /ws.",
                code="invalid_event",
            )
        message = read_message(frame.data)
        if self._talk is not None:
            yield from self._talk.take(message)
        elif message.event != "connected":
            yield from self._begin(call_of(message, self._provider, self._query))

    def encode(self, event: AnyServerEvent) -> Iterator[Frame]:
        if self._talk is not None:
            for message in self._talk.messages(event):
                yield Frame("text", message)

    def encode_audio(self, audio: bytes) -> Iterator[Frame]:
        """Nothing: the provider plays the answers."""
        return iter(())

    def _begin(self, call: StreamedCall) -> Iterator[Decoded]:
        given = {name: call.parameters[name] for name in _OPTIONS if name in call.parameters}
        config = config_of_query(given)
        if instructions := call.parameters.get("instructions"):
            config = msgspec.structs.replace(config, instructions=instructions)
        self._talk = _Conversation(call, self._clock)
        yield Opening(
            model=config.model or "",
            patch=patch_of(config, first=True),
            key=Secret(call.parameters.get("token", "")),
        )
        yield Reply((), log=str(call))
        if greeting := call.parameters.get("greeting"):
            yield ResponseCreate(response=spoken_words(greeting))


class _Conversation:
    """A call that has started."""

    def __init__(self, call: StreamedCall, clock: Callable[[], float]) -> None:
        self._call = call
        self._clock = clock
        self._decoder = SampleDecoder(call.input_format)
        self._playback = CallPlayback(call, clock)
        self._interrupts = True
        self._digits = ""
        self._digit_at = 0.0

    def take(self, message: StreamMessage) -> Iterator[Decoded]:
        """What a message of the provider means."""
        yield from self._playback.take_cuts()
        if self._digits and self._clock() - self._digit_at >= DIGIT_PAUSE_S:
            yield from self._keys_turn()
        match message.event:
            case "media" if message.media is not None:
                yield from self._sound(message.media)
            case "mark" | "playedStream":
                self._playback.mark_returned(mark_of(message))
            case "dtmf" if message.dtmf is not None:
                yield from self._key(message.dtmf.digit[:1])
            case "stop":
                yield CloseRequest()
            case "error" if message.payload is not None:
                words = (str(message.payload.get(name, "")) for name in ("title", "detail"))
                yield Reply((), log=f"the provider reports: {': '.join(words)[:500]}")

    def messages(self, event: AnyServerEvent) -> Iterator[bytes]:
        """The messages to the provider for an event."""
        match event:
            case says.OutputAudioDelta(item_id=item_id, delta=audio):
                yield from self._playback.add(item_id, audio)
            case says.OutputAudioDone(item_id=item_id):
                yield from self._playback.end(item_id)
            case says.SpeechStarted() if self._interrupts:
                yield from self._playback.clear()
            case says.ResponseDone(response=response) if response.status == "cancelled":
                yield from self._playback.clear()
            case says.SessionCreated(session=session) | says.SessionUpdated(session=session):
                self._interrupts = _interrupts(session)

    def _sound(self, media: StreamMedia) -> Iterator[Decoded]:
        size = len(media.payload)
        if size > MAX_AUDIO_BYTES:
            raise InvalidRequest(
                f"The media message is too large: {size} bytes. At most {MAX_AUDIO_BYTES} are "
                f"taken.",
                code="event_too_large",
            )
        if not media.track.startswith("outbound") and (
            pcm := self._decoder.feed(self._call.sound_of(media.payload))
        ):
            yield InputAudioAppend(audio=pcm)

    def _key(self, digit: str) -> Iterator[Decoded]:
        """A key was pressed: the answer stops, and more keys may follow."""
        if not self._digits:
            if clears := tuple(Frame("text", clear) for clear in self._playback.clear()):
                yield Reply(clears)
            yield from self._playback.take_cuts()
            yield ResponseCancel()
        self._digit_at = self._clock()
        if digit != "#":
            self._digits += digit
        if digit == "#" or len(self._digits) >= MAX_DIGITS:
            yield from self._keys_turn()

    def _keys_turn(self) -> Iterator[Decoded]:
        digits, self._digits = self._digits, ""
        if digits:
            text = InputText(f"DTMF: {digits}")
            yield ItemCreate(item=Message(role="user", content=(text,)))
            yield ResponseCreate()


def _interrupts(session: SessionObject) -> bool:
    """Whether speech interrupts an answer."""
    if not isinstance(session, RealtimeSession) or session.audio.input.turn_detection is None:
        return False
    return session.audio.input.turn_detection.interrupt_response is True
