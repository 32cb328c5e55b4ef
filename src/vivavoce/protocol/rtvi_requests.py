"""The HTTP bodies that begin a session of RTVI: those of /start, /connect and of WebRTC offers.

As in Pipecat's small-webrtc-transport 1.10 and runner 1.14, and in Voxray's API.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

OPTIONS = ("model", "voice", "language")
"""What a query, or the data that an application adds to an offer, may choose."""


class StartRequest(msgspec.Struct, frozen=True, rename="camel"):
    """What clients send. The application's own data is in `body`."""

    transport: str | None = None
    create_daily_room: bool = False
    body: Any = None


class StartResponse(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Where to connect: the WebSocket and its key, or the id and the ICE servers of WebRTC."""

    ws_url: str | None = None
    token: str | None = None
    session_id: str | None = None
    ice_config: dict[str, list[dict[str, str]]] | None = None


class StartedData(msgspec.Struct, frozen=True):
    """In the envelope of Voxray's API."""

    data: StartResponse


class ConnectResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """The same for clients before RTVI 1: one address."""

    ws_url: str | None = None
    webrtc_url: str | None = None


class Description(msgspec.Struct, frozen=True):
    """A session description of WebRTC, as browsers write it in JSON."""

    sdp: str = ""
    type: Literal["offer", "answer"] = "offer"


class OfferRequest(msgspec.Struct, frozen=True):
    """An offer, and the call that it belongs to, if it is not the first."""

    sdp: str = ""
    type: Literal["offer"] = "offer"
    pc_id: str | None = None
    restart_pc: bool | None = None
    request_data: Any = None
    camel_request_data: Any = msgspec.field(name="requestData", default=None)


class OfferAnswer(msgspec.Struct, frozen=True):
    sdp: str
    pc_id: str
    type: Literal["answer"] = "answer"


class VoxrayAnswer(msgspec.Struct, frozen=True):
    """The answer to an offer of a session, in Voxray's envelope."""

    answer: str
    pc_id: str
    type: Literal["answer"] = "answer"


class VoxrayAnswerData(msgspec.Struct, frozen=True):
    data: VoxrayAnswer


class VoxrayOffer(msgspec.Struct, frozen=True):
    """An offer as the JSON text of a Description."""

    offer: str = ""


class VoxrayCall(msgspec.Struct, frozen=True):
    """The answer to a VoxrayOffer, as the JSON text of a Description."""

    answer: str


class VoxrayCallData(msgspec.Struct, frozen=True):
    data: VoxrayCall


class CandidateText(msgspec.Struct, frozen=True):
    """An ICE candidate as in SDP; empty: there are no more. It belongs to a section of the
    offer."""

    candidate: str = ""
    sdp_mid: str | None = None
    sdp_mline_index: int | None = None


class CandidatesRequest(msgspec.Struct, frozen=True):
    """ICE candidates that were found after the offer."""

    pc_id: str = ""
    candidates: tuple[CandidateText, ...] = ()


class PatchStatus(msgspec.Struct, frozen=True):
    """The ICE candidates were accepted."""

    status: str = "success"


def options_of(data: object) -> dict[str, str]:
    """Those OPTIONS of a mapping that are text. Empty for anything but a mapping."""
    if not isinstance(data, Mapping):
        return {}
    return {name: data[name] for name in OPTIONS if isinstance(data.get(name), str)}
