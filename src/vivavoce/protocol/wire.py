"""What a wire protocol is: the translation between a connection's frames and GA Realtime events.

A new protocol implements WireProtocol and is entered in a table of the server
(vivavoce.transports.protocols); neither the transports nor the session know which one is spoken.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import msgspec

from vivavoce.errors import VoiceError
from vivavoce.protocol.client import AnyClientEvent
from vivavoce.protocol.server import AnyServerEvent
from vivavoce.protocol.session import SessionPatch
from vivavoce.secret import Secret

Kind: TypeAlias = Literal["realtime", "transcription"]


class Frame(NamedTuple):
    """One message of a connection. Text is UTF-8."""

    kind: Literal["text", "binary"]
    data: bytes


class Reply(msgspec.Struct, frozen=True):
    """Frames that answer a client's frame at once, without the session."""

    frames: tuple[Frame, ...]
    log: str = ""
    """What the server's log says about the client."""


class CloseRequest(msgspec.Struct, frozen=True):
    """A message of the protocol requests the end of the session."""

    code: int = 1000
    reason: str = ""


class ConnectRequest(msgspec.Struct, frozen=True):
    """The request that opens a connection, as far as a protocol may look at it."""

    path: str
    query: Mapping[str, str] = msgspec.field(default_factory=dict)
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Names in lower case."""
    subprotocols: tuple[str, ...] = ()
    """As offered, in the client's order."""


class Opening(msgspec.Struct, frozen=True):
    """The requested session, known at connection time."""

    kind: Kind = "realtime"
    model: str = ""
    """As the client names it; "" is the default."""
    transcription_model: str = ""
    speech_model: str = ""
    voice: str = ""
    language: str = ""
    """That is spoken; with it or a transcription model, transcripts are sent."""
    segment: str = ""
    """Of the user, as the application names it: rules for voices look at it."""
    patch: SessionPatch | None = None
    """Settings that a short-lived key carries. They overrule the client's."""
    who: str = ""
    """The name of the key that opened the session; "" where no key is needed."""
    key: Secret = Secret()
    """The key that the first frames hold, where clients cannot send it in the request."""
    transport: str = ""
    """How the client is connected, for operators; so the following."""
    client: str = ""
    """Its address."""


Decoded: TypeAlias = AnyClientEvent | Reply | CloseRequest | Opening


class Refusal(NamedTuple):
    """How a connection is turned away: frames, then the close."""

    frames: tuple[Frame, ...]
    code: int
    reason: str


class WireProtocol(Protocol):
    """One object for each connection; it may keep state."""

    @property
    def subprotocols(self) -> tuple[str, ...]:
        """The WebSocket subprotocols that are accepted; the client's first one of them is used."""
        ...

    @property
    def server_plays(self) -> bool:
        """Whether the server sends speech in real time, frame by frame (see encode_audio).

        Otherwise it is sent as fast as it is made, in response.output_audio.delta events.
        """
        ...

    @property
    def is_ga(self) -> bool:
        """Whether a frame is exactly one GA event in JSON, so that it may be passed on as it is."""
        ...

    def opening(self, request: ConnectRequest) -> Opening | None:
        """The session that the request asks for.

        None: the first frames say it. Then decode() returns the Opening before any event.
        """
        ...

    def decode(self, frame: Frame) -> Iterable[Decoded]:
        """The events of a frame, in order. Raises InvalidRequest; the session continues."""
        ...

    def encode(self, event: AnyServerEvent) -> Iterable[Frame]:
        """The frames of an event; none if the protocol has no message for it."""
        ...

    def encode_audio(self, audio: bytes) -> Iterable[Frame]:
        """Frames of speech to be played now: 16-bit mono PCM at 24 kHz, 20 ms of it or less.

        Called only where the server owns the playout. Empty audio: playback was cleared.
        """
        ...

    def refuse(self, error: VoiceError) -> Refusal:
        """Frames and close code that tell a connected client why no session is opened."""
        ...


@runtime_checkable
class ExpectsSound(Protocol):
    """A wire protocol whose clients usually send sound: one that sends none gets a note."""

    def silence_note(self) -> Reply | None:
        """The note, some seconds after the connection was made; None: sound has come."""
        ...


@runtime_checkable
class CallProtocol(Protocol):
    """A wire protocol that has more to send on the data channel of a call than events."""

    def played(self, samples: int) -> Iterable[Frame]:
        """Frames about speech, so many samples of which go out on the track now."""
        ...

    def ended(self) -> Iterable[Frame]:
        """Frames that tell the client that the session is over."""
        ...


@runtime_checkable
class CarriesKey(Protocol):
    """A wire protocol whose key stands in its first frames: it is checked after them."""

    key_in_frames: bool


@runtime_checkable
class ShowsText(Protocol):
    """A wire protocol that shows the text of an answer as it is generated.

    The events of GA tie the transcript of a spoken answer to its sound, which comes later.
    """

    def generated_text(self, response_id: str, text: str) -> Iterable[Frame]:
        """Frames for the next clause of an answer, before it is synthesised."""
        ...
