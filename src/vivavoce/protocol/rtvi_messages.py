"""The messages of RTVI, as Pipecat's clients write and read them.

A message is {"label": "rtvi-ai", "type": …, "id": …, "data": …}. Types, fields and version rules
are those of @pipecat-ai/client-js 1.13 and pipecat-ai 1.14, RTVI 2.2.
"""

from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Meta

from vivavoce.errors import InvalidRequest
from vivavoce.protocol import json

LABEL = "rtvi-ai"
VERSION = "2.2.0"
MAX_TEXT_BYTES = 256 * 1024  # of a message that holds no audio
MAX_QUOTED = 100  # of the client's text that an answer quotes
ERRORS = frozenset({"error", "error-response"})
MAX_ID = 128  # of the id of a message

S = TypeVar("S")


class ClientMessage(msgspec.Struct, frozen=True):
    """Any message of a client."""

    label: str = ""
    type: str = ""
    id: str = ""
    data: msgspec.Raw = msgspec.Raw(b"{}")


class About(msgspec.Struct, frozen=True):
    library: str = ""


class ClientReady(msgspec.Struct, frozen=True):
    version: str = ""
    about: About | None = None


class RequestMessage(msgspec.Struct, frozen=True):
    """`client-message`: a request that the application defines."""

    t: str
    d: Any = None


class SendTextOptions(msgspec.Struct, frozen=True):
    run_immediately: bool = True
    audio_response: bool = True


class SendText(msgspec.Struct, frozen=True):
    content: str
    options: SendTextOptions | None = None


class FileSource(msgspec.Struct, frozen=True):
    """A file as base64 or a data URI, or its address."""

    bytes: str = ""
    url: str = ""


class SentFile(msgspec.Struct, frozen=True):
    format: str
    """A media type, such as image/png."""
    source: FileSource

    @property
    def address(self) -> str:
        """The file as a data URI, or where it is."""
        data = self.source.bytes
        if not data or data.startswith("data:"):
            return data or self.source.url
        return f"data:{self.format};base64,{data}"


class SendFile(msgspec.Struct, frozen=True):
    content: str
    file: SentFile
    options: SendTextOptions | None = None


class AppendToContext(msgspec.Struct, frozen=True):
    role: Literal["user", "assistant", "system"]
    content: str
    run_immediately: bool = False


class FunctionResult(msgspec.Struct, frozen=True):
    """`llm-function-call-result`. The result is any JSON."""

    tool_call_id: str
    function_name: str = ""
    arguments: Any = None
    result: Any = None


Button = Annotated[str, Meta(pattern=r"^[0-9*#]$")]


class Dtmf(msgspec.Struct, frozen=True):
    """Telephone keys: a list, or a single key from clients before RTVI 2.1."""

    buttons: Annotated[tuple[Button, ...], Meta(min_length=1, max_length=64)] | None = None
    button: Button | None = None


class RtviAudio(msgspec.Struct, frozen=True, rename="camel"):
    base64_audio: bytes = msgspec.field(name="base64Audio", default=b"")
    base64_audio_batch: tuple[bytes, ...] = msgspec.field(name="base64AudioBatch", default=())
    sample_rate: int = 16_000
    num_channels: int = 1


class Negotiated(NamedTuple):
    """The version for `bot-ready`, and a warning about the client's version; "" if it is
    compatible."""

    version: str
    problem: str = ""

    @property
    def legacy(self) -> bool:
        return self.version.startswith("1.")


_message: msgspec.json.Decoder[ClientMessage] = msgspec.json.Decoder(ClientMessage)


def read_message(data: bytes) -> ClientMessage | None:
    """A message; None: it is not of RTVI. The client's ERRORS may come without an id.

    Raises InvalidRequest if it is not valid.
    """
    try:
        message = json.decode(data, _message)
    except msgspec.ValidationError as exc:
        raise InvalidRequest(f"Invalid RTVI message: {exc}"[:300]) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if message.label != LABEL:
        return None
    if message.type in ERRORS:
        return message
    if not message.id or len(message.id) > MAX_ID:
        raise InvalidRequest(f"Invalid RTVI message: 'id' has to have 1 to {MAX_ID} characters.")
    return message


def data_of(message: ClientMessage, kind: type[S]) -> S:
    """The data of a message. Raises InvalidRequest."""
    try:
        return json.decode(bytes(message.data), msgspec.json.Decoder(kind))
    except (msgspec.DecodeError, RecursionError) as exc:
        text = f"Invalid data of '{message.type[:MAX_QUOTED]}': {exc}"[:300]
        raise InvalidRequest(text, event_id=message.id) from exc


def write(kind: str, data: Any = None, id_: str = "") -> bytes:
    """A message of the server. Without data the client gets none."""
    message: dict[str, Any] = {"label": LABEL, "type": kind}
    if id_:
        message["id"] = id_
    if data is not None:
        message["data"] = data
    return msgspec.json.encode(message)


def negotiated(version: str) -> Negotiated:
    """The protocol version that is used with a client of that version."""
    if not version:
        return Negotiated(VERSION, "Client version unknown. Compatibility issues may occur.")
    parts = version.split(".")
    if not all(part.isascii() and part.isdigit() for part in parts[:2]) or len(parts) < 2:
        quoted = version[:MAX_QUOTED]
        return Negotiated(
            VERSION, f"Invalid client version format ({quoted}). Compatibility issues may occur."
        )
    if parts[0] == "1":
        return Negotiated(version[:MAX_QUOTED])
    if parts[0] == VERSION.partition(".")[0]:
        return Negotiated(VERSION)
    return Negotiated(
        VERSION,
        f"RTVI version {version[:MAX_QUOTED]} is not compatible with server protocol {VERSION}. "
        f"Compatibility issues may occur.",
    )
