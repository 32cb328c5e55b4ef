"""Server events of a call: what the server plays by itself, and the keys of a telephone.

Only where the server owns the playout; never on a WebSocket.
"""

import msgspec

from vivavoce.protocol.server_event import ServerEvent


class DtmfReceived(
    msgspec.Struct, frozen=True, tag_field="type", tag="input_audio_buffer.dtmf_event_received"
):
    """A key of a telephone. The one event without an event_id."""

    event: str
    received_at: int  # unix seconds


class OutputAudioStarted(ServerEvent, frozen=True, kw_only=True, tag="output_audio_buffer.started"):
    """The first sound of a response is on its way to the ear."""

    response_id: str


class OutputAudioStopped(ServerEvent, frozen=True, kw_only=True, tag="output_audio_buffer.stopped"):
    """All of it was played; comes after response.done."""

    response_id: str


class OutputAudioCleared(ServerEvent, frozen=True, kw_only=True, tag="output_audio_buffer.cleared"):
    """What was not played yet was dropped."""

    response_id: str
