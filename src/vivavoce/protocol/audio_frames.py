"""Recognises the audio frames of a GA stream by their bytes, without parsing JSON.

One frame of a stream is parsed and remembered. A later frame is recognised if it differs from that
one in its `event_id` and its audio only: every parser would read the same from it. Other frames are
parsed.
"""

import re
from typing import Literal, TypeAlias

from pybase64 import b64decode

from vivavoce.protocol.client import InputAudioAppend

AudioEvent: TypeAlias = Literal["input_audio_buffer.append", "response.output_audio.delta"]
AudioForm: TypeAlias = tuple[bytes, bytes, bytes]
"""What frames have in common: up to the event_id, from there to the audio, and behind it. The
second is empty where there is no event_id."""
PassedAudio: TypeAlias = tuple[AudioForm, bytes, int]
"""A frame that was recognised: its form, its event_id, and how many bytes of audio it has."""

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
_is_id = re.compile(rb"%s{1,%d}" % (_TEXT, MAX_ID_BYTES)).fullmatch


class AudioFrames:
    """Recognises the frames of one type of event, in one stream."""

    __slots__ = ("_key", "_type", "form")

    def __init__(self, event: AudioEvent) -> None:
        self._type = event.encode()
        self._key = _KEYS[event]
        self.form: AudioForm | None = None
        """What all frames like the remembered one have in common; None: no frame is remembered."""

    def learn(self, frame: bytes) -> None:
        """Recognise frames like this one only."""
        self.form = None
        head = _HEAD.match(frame)
        tail = head and _TAIL.fullmatch(frame, frame.find(b'"', head.end()))
        if not (head and tail) or self._type != (head["type"] or tail["type"]):
            return
        names = _KEY.findall(frame, 0, head.end()) + _KEY.findall(frame, tail.start())
        if len(names) > len(set(names)) or self._key != head["audio"]:
            return
        if head["id"] is None:
            self.form = (frame[: head.end()], b"", tail[0])
        else:
            after = frame[head.end("id") : head.end()]
            self.form = (frame[: head.start("id")], after, tail[0])

    def forget(self) -> None:
        """Forget the remembered frame."""
        self.form = None

    def append(self, frame: bytes) -> InputAudioAppend | None:
        """The append event in a frame of such a stream; None: the frame is not recognised."""
        if (found := self.read(frame)) is None:
            return None
        (_, after, _), event_id, audio = found
        if not after:
            return InputAudioAppend(audio=audio)
        return InputAudioAppend(event_id=event_id.decode(), audio=audio)

    def read(self, frame: bytes) -> tuple[AudioForm, bytes, bytes] | None:
        """The form of a frame, its event_id, b"" where there is none, and its decoded audio.

        None: the frame is not recognised. Slices are compared, because startswith() and endswith()
        take longer.
        """
        if (form := self.form) is None:
            return None
        before, after, tail = form
        at, size = len(before), len(frame)
        if frame[:at] != before or size > MAX_BYTES:
            return None
        event_id = b""
        if after:
            end = frame.find(b'"', at)
            event_id = frame[at:end]
            at = end + len(after)
            if frame[end:at] != after or not _is_id(event_id):
                return None
        end = size - len(tail)
        if frame[end:] != tail:
            return None
        try:
            # a fifth of msgspec's instructions, and as strict: RFC 4648, section 4, with padding
            audio: bytes = b64decode(frame[at:end], validate=True)
        except ValueError:
            return None
        return (form, event_id, audio) if audio else None
