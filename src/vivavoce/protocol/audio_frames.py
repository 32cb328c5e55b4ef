"""Recognises the audio frames of a GA stream by their bytes, without parsing JSON.

One frame of a stream is parsed and remembered. A later frame is recognised if it differs from that
one in its `event_id` and its audio only: every parser would read the same from it. Other frames are
parsed.
"""

import re
from typing import Literal, TypeAlias

import msgspec

from vivavoce.protocol.client import InputAudioAppend

AudioEvent: TypeAlias = Literal["input_audio_buffer.append", "response.output_audio.delta"]

MAX_ID_BYTES = 512
MAX_BYTES = 128 * 1024
"""Longer frames are parsed: their size has to be checked, and other tasks may run in between."""
_KEYS: dict[AudioEvent, bytes] = {
    "input_audio_buffer.append": b"audio",
    "response.output_audio.delta": b"delta",
}
_TEXT = rb"[\x20\x21\x23-\x5b\x5d-\x7e]"  # ASCII that needs no escape in a JSON string
_FIELD = (
    rb'"type"\s*:\s*"(?P<type>%(text)s*)"|"(?:response_id|item_id)"\s*:\s*"%(text)s*"|'
    rb'"(?:output_index|content_index)"\s*:\s*[0-9]+'
) % {b"text": _TEXT}
_HEAD = re.compile(
    rb'\s*\{(?:\s*(?:%s|"event_id"\s*:\s*"(?P<id>%s+)")\s*,)*'
    rb'\s*"(?P<audio>audio|delta)"\s*:\s*"' % (_FIELD, _TEXT)
)
_TAIL = re.compile(rb'"(?:\s*,\s*(?:%s))*\s*\}\s*' % _FIELD)
_KEY = re.compile(rb'"(\w+)"\s*:')
_decode = msgspec.json.Decoder(bytes).decode
_is_id = re.compile(rb"%s{1,%d}" % (_TEXT, MAX_ID_BYTES)).fullmatch


class AudioFrames:
    """Recognises the frames of one type of event, in one stream."""

    __slots__ = ("_after", "_before", "_key", "_tail", "_type")

    def __init__(self, event: AudioEvent) -> None:
        self._type = event.encode()
        self._key = _KEYS[event]
        self._before = b""  # before the event_id, or before the audio without one
        self._after = b""  # between the event_id and the audio; "": there is no event_id
        self._tail = b""  # after the audio; "": no frame is remembered

    def learn(self, frame: bytes) -> None:
        """Recognise frames like this one only."""
        self._tail = b""
        head = _HEAD.match(frame)
        tail = head and _TAIL.fullmatch(frame, frame.find(b'"', head.end()))
        if not (head and tail) or self._type != (head["type"] or tail["type"]):
            return
        names = _KEY.findall(frame, 0, head.end()) + _KEY.findall(frame, tail.start())
        if len(names) > len(set(names)) or self._key != head["audio"]:
            return
        if head["id"] is None:
            self._before, self._after = frame[: head.end()], b""
        else:
            self._before = frame[: head.start("id")]
            self._after = frame[head.end("id") : head.end()]
        self._tail = tail[0]

    def append(self, frame: bytes) -> InputAudioAppend | None:
        """The append event in a frame of such a stream; None: the frame is not recognised."""
        if not (audio := self.audio(frame)):
            return None
        if not self._after:
            return InputAudioAppend(audio=audio)
        at = len(self._before)
        return InputAudioAppend(event_id=frame[at : frame.find(b'"', at)].decode(), audio=audio)

    def forget(self) -> None:
        """Forget the remembered frame."""
        self._tail = b""

    @property
    def learnt(self) -> tuple[bytes, bytes, bytes] | None:
        """What all frames like the remembered one have in common: the bytes before the event_id,
        those between it and the audio, and those after the audio. The second is empty without an
        event_id. None: no frame is remembered."""
        return (self._before, self._after, self._tail) if self._tail else None

    def audio(self, frame: bytes) -> bytes:
        """The decoded audio of a frame; b"": the frame is not recognised."""
        if not self._tail or not frame.startswith(self._before) or len(frame) > MAX_BYTES:
            return b""
        at = len(self._before)
        if self._after:
            end = frame.find(b'"', at, at + MAX_ID_BYTES + 1)
            if not frame.startswith(self._after, end) or not _is_id(frame, at, end):
                return b""
            at = end + len(self._after)
        if not frame.endswith(self._tail):
            return b""
        try:  # with its quotes; binascii would take five times as long
            return _decode(frame[at - 1 : len(frame) - len(self._tail) + 1])
        except msgspec.DecodeError:
            return b""

    def described(self, frame: bytes) -> tuple[bytes, int] | None:
        """The event_id and the bytes of the audio of a frame that audio() recognises elsewhere.

        None: it is not like the frame that was learnt here. b"": it has no event_id.
        """
        if not self._tail or not frame.startswith(self._before):
            return None
        begin = at = len(self._before)
        if self._after:
            at = frame.find(b'"', begin)
            if not frame.startswith(self._after, at):
                return None
        event_id, end = frame[begin:at], len(frame) - len(self._tail)
        if not frame.endswith(self._tail):
            return None
        size = (end - at - len(self._after)) * 3 // 4 - frame.count(b"=", end - 2, end)
        return event_id, size
