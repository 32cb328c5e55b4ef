"""What a wire protocol is: the translation between a connection's frames and GA Realtime events.

A new protocol implements WireProtocol and gets an entry in a table of the server
(vivavoce.transports.protocols); neither the transports nor the session know which protocol is in
use.
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
    """A line for the server's log about the client."""


class CloseRequest(msgspec.Struct, frozen=True):
    """A message of the protocol requests the end of the session."""

    code: int = 1000
    reason: str = ""


class ConnectRequest(msgspec.Struct, frozen=True):
    """The request that opens a connection, with what protocols may read of it."""

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
    """The name that the client gives; "": the default."""
    transcription_model: str = ""
    speech_model: str = ""
    voice: str = ""
    language: str = ""
    """The language that is spoken; with it or a transcription model, transcripts are sent."""
    segment: str = ""
    """The user's language or region, as the application names it, for the rules for voices."""
    patch: SessionPatch | None = None
    """Settings from a short-lived key. They take precedence over the client's."""
    who: str = ""
    """The name of the key that opened the session; "" if no key is needed."""
    key: Secret = Secret()
    """The key from the first frames, if clients cannot send it in the request."""
    transport: str = ""
    """The transport, shown to operators; the following as well."""
    client: str = ""
    """The client's address."""


Decoded: TypeAlias = AnyClientEvent | Reply | CloseRequest | Opening


class Refusal(NamedTuple):
    """How a connection is refused: frames, then the close."""

    frames: tuple[Frame, ...]
    code: int
    reason: str


class WireProtocol(Protocol):
    """One object for each connection; it may keep state."""

    @property
    def subprotocols(self) -> tuple[str, ...]:
        """The accepted WebSocket subprotocols; the client's first one of them is used."""
        ...

    @property
    def server_plays(self) -> bool:
        """Whether the server sends speech in real time, frame by frame (see encode_audio).

        Otherwise it is sent as soon as it is generated, in response.output_audio.delta events.
        """
        ...

    @property
    def is_ga(self) -> bool:
        """Whether a frame is exactly one GA event in JSON, so that it can be passed on
        unchanged."""
        ...

    def opening(self, request: ConnectRequest) -> Opening | None:
        """The session that the request asks for.

        None: the first frames do. Then decode() returns the Opening before any event.
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
        """Frames and a close code that tell a connected client why no session is opened."""
        ...


@runtime_checkable
class ExpectsSound(Protocol):
    """A wire protocol whose clients usually send audio: a client that sends none gets a note."""

    def silence_note(self) -> Reply | None:
        """The note, some seconds after the connection was made; None: audio has arrived."""
        ...


@runtime_checkable
class CallProtocol(Protocol):
    """A wire protocol that sends more than events on the data channel of a call."""

    def played(self, samples: int) -> Iterable[Frame]:
        """Frames about speech of which so many samples go out on the track now."""
        ...

    def ended(self) -> Iterable[Frame]:
        """Frames that tell the client that the session is over."""
        ...


@runtime_checkable
class CarriesKey(Protocol):
    """A wire protocol whose first frames contain the key, which is checked after them."""

    key_in_frames: bool


@runtime_checkable
class ShowsText(Protocol):
    """A wire protocol that shows the text of an answer as it is generated.

    GA events tie the transcript of a spoken answer to its audio, which comes later.
    """

    def generated_text(self, response_id: str, text: str) -> Iterable[Frame]:
        """Frames for the next clause of an answer, before it is synthesised."""
        ...
