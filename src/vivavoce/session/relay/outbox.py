"""Queues what is to be sent to the upstream server, in order, until a connection is open."""

from typing import Any

import msgspec

from vivavoce.protocol import json
from vivavoce.protocol.client import ClientEvent, InputAudioAppend
from vivavoce.session.effects import EffectBuffer, RecordDroppedAudio, SendUpstream
from vivavoce.session.relay.items import without_nulls

MAX_QUEUED_BYTES = 4 * 1024 * 1024  # of frames, while the connection is being opened
MAX_QUEUED_EVENTS = 256  # of events that are no audio, likewise
MAX_QUEUED_AUDIO_BYTES = 640 * 1024  # 10 s of PCM, as base64
_APPEND = InputAudioAppend.__struct_config__.tag
_json = msgspec.json.Encoder()


class Outbox:
    """Sends events at once, or queues them until the connection is open.

    The last 10 s of audio are kept. Other events are never dropped: `overflowed` is set instead.
    """

    def __init__(self, effects: EffectBuffer) -> None:
        self._effects = effects
        self._prefix = effects.ids.next("relay")  # in the ids of this server's own events
        self._sent = 0
        self.is_open = False
        """Whether events are sent at once."""
        self._queued: list[tuple[bytes, bool]] = []  # each with whether it is audio
        self._audio_bytes = 0  # of audio in _queued
        self._other_bytes = 0  # of other events, since reset_bound()
        self._events = 0  # number of other events
        self.overflowed = False
        """More is to be sent than can be queued."""

    def reset_bound(self) -> None:
        """Do not count what is queued already, because a history may be long."""
        self._events = self._other_bytes = 0
        self.overflowed = False

    def open(self) -> None:
        """Send what was queued."""
        self.is_open = True
        for data, _ in self._queued:
            self._effects.add(SendUpstream(data))
        self._queued.clear()
        self._audio_bytes = 0

    def shut(self) -> None:
        """The connection is being replaced: queue what follows for the next one."""
        self.is_open = False

    def queue(self, event: ClientEvent) -> None:
        """Send an event of this server, with an id by which its errors are recognised."""
        self.send_own(_fields(event), is_audio=isinstance(event, InputAudioAppend))

    def send_own(self, fields: dict[str, Any], *, is_audio: bool = False) -> None:
        self.send(self.own(fields), is_audio=is_audio)

    def own(self, fields: dict[str, Any]) -> bytes:
        """An event of this server, ready to be sent."""
        self._sent += 1
        return _json.encode({**fields, "event_id": f"{self._prefix}.{self._sent}"})

    def is_own(self, event_id: Any) -> bool:
        """Whether an event of this server has that id."""
        return isinstance(event_id, str) and event_id.startswith(f"{self._prefix}.")

    def send(self, data: bytes, *, is_audio: bool = False) -> None:
        """Send a client event, JSON, unchanged."""
        if self.is_open:
            self._effects.add(SendUpstream(data))
            return
        self._queued.append((data, is_audio))
        if is_audio:
            self._audio_bytes += len(data)
            if self._audio_bytes > MAX_QUEUED_AUDIO_BYTES:
                self._drop_oldest_audio()
        else:
            self._events += 1
            self._other_bytes += len(data)
            if self._events > MAX_QUEUED_EVENTS or self._other_bytes > MAX_QUEUED_BYTES:
                self.overflowed = True

    def _drop_oldest_audio(self) -> None:
        """Drop a tenth of the queued audio at once, to do it seldom. The last piece is kept."""
        kept: list[tuple[bytes, bool]] = []
        last = len(self._queued) - 1
        for n, (data, is_audio) in enumerate(self._queued):
            if is_audio and n < last and self._audio_bytes > MAX_QUEUED_AUDIO_BYTES * 9 // 10:
                self._audio_bytes -= len(data)
            else:
                kept.append((data, is_audio))
        if dropped := len(self._queued) - len(kept):
            self._effects.add(RecordDroppedAudio(dropped))
        self._queued = kept


def encoded(event: ClientEvent) -> bytes:
    """The frame of an event that came in another protocol."""
    return _json.encode(_fields(event))


def _fields(event: ClientEvent) -> dict[str, Any]:
    if isinstance(event, InputAudioAppend):
        given = {} if event.event_id is None else {"event_id": event.event_id}
        return {"type": _APPEND, **given, "audio": json.base64_text(event.audio)}
    fields: dict[str, Any] = without_nulls(msgspec.to_builtins(event))
    return fields
