"""Recognises the audio frames of a GA stream by their bytes, without parsing JSON.

One frame of a stream is parsed and remembered. A later frame is recognised if it differs from that
one in its `event_id` and its audio only: every parser would read the same from it. Other frames are
parsed.
"""

import re
from collections.abc import Callable
from operator import itemgetter
from typing import Literal, TypeAlias

from pybase64 import b64decode, b64encode

from vivavoce.protocol.client import InputAudioAppend

AudioEvent: TypeAlias = Literal["input_audio_buffer.append", "response.output_audio.delta"]
AudioForm: TypeAlias = tuple[bytes, bytes, bytes]
"""What frames have in common: up to the event_id, from there to the audio, and behind it. The
second is empty where there is no event_id."""
PassedAudio: TypeAlias = tuple[AudioForm, bytes, bytes]
"""A frame that was recognised: its form, its event_id, b"" where there is none, and its audio."""

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
_Parts: TypeAlias = Callable[[bytes], tuple[bytes, ...]]
_NO_PARTS: _Parts = itemgetter(*[slice(0)] * 5)
_is_id = re.compile(rb"%s{1,%d}" % (_TEXT, MAX_ID_BYTES)).fullmatch


def is_exact(audio: bytes) -> bool:
    """Whether framed() makes the same bytes: there is one base64 of audio that needs no padding."""
    return not len(audio) % 3


def framed(passed: PassedAudio) -> bytes:
    """A frame that says the same as the one that was recognised."""
    (before, after, tail), event_id, audio = passed
    return b"".join((before, event_id, after, b64encode(audio), tail))


class AudioFrames:
    """Recognises the frames of one type of event, in one stream."""

    __slots__ = ("_form", "_key", "_parts", "_size", "_type")

    def __init__(self, event: AudioEvent) -> None:
        self._type = event.encode()
        self._key = _KEYS[event]
        self._form: AudioForm | None = None
        self._size = 0  # of the last frame that was recognised
        self._parts = _NO_PARTS  # of such a frame: the three of the form, its event_id, its audio

    @property
    def form(self) -> AudioForm | None:
        """What all frames like the remembered one have in common; None: no frame is remembered."""
        return self._form

    def learn(self, frame: bytes) -> None:
        """Recognise frames like this one only."""
        self.forget()
        head = _HEAD.match(frame)
        tail = head and _TAIL.fullmatch(frame, frame.find(b'"', head.end()))
        if not (head and tail) or self._type != (head["type"] or tail["type"]):
            return
        names = _KEY.findall(frame, 0, head.end()) + _KEY.findall(frame, tail.start())
        if len(names) > len(set(names)) or self._key != head["audio"]:
            return
        if head["id"] is None:
            self._form = (frame[: head.end()], b"", tail[0])
        else:
            after = frame[head.end("id") : head.end()]
            self._form = (frame[: head.start("id")], after, tail[0])

    def forget(self) -> None:
        """Forget the remembered frame."""
        self._form, self._size = None, 0

    def append(self, frame: bytes) -> InputAudioAppend | None:
        """The append event in a frame of such a stream; None: the frame is not recognised."""
        if (found := self.read(frame)) is None:
            return None
        (_, after, _), event_id, audio = found
        if not after:
            return InputAudioAppend(audio=audio)
        return InputAudioAppend(event_id=event_id.decode(), audio=audio)

    def read(self, frame: bytes) -> PassedAudio | None:
        """The parts of a frame, its audio decoded.

        None: the frame is not recognised. Most frames are as long as the one before: its parts are
        looked for once, and those of the others are in the same places.
        """
        cut, form = self._parts, self._form
        if len(frame) != self._size or (parts := cut(frame))[:3] != form:
            if not self._measure(frame):
                return None
            cut = self._parts
            parts = cut(frame)
        _, after, _, event_id, audio = parts
        if after and not (event_id.replace(b"_", b"").isalnum() or _is_id(event_id)):
            return None
        try:
            # a fifth of msgspec's instructions, and as strict: RFC 4648, section 4, with padding
            pcm: bytes = b64decode(audio, None, True)  # validates; a keyword takes longer
        except ValueError:
            return None
        return (form, event_id, pcm) if form and pcm else None

    def _measure(self, frame: bytes) -> bool:
        """Note where the parts of a frame are. False: it is not like the remembered one."""
        form, size = self._form, len(frame)
        if form is None or size > MAX_BYTES:
            return False
        before, after, tail = form
        begin = len(before)
        end = frame.find(b'"', begin) if after else begin
        audio, last = end + len(after), size - len(tail)
        if after and not 0 < end - begin <= MAX_ID_BYTES:
            return False
        if audio > last or (frame[:begin], frame[end:audio], frame[last:]) != form:
            return False
        self._size = size
        self._parts = itemgetter(
            slice(begin),
            slice(end, audio),
            slice(last, size),
            slice(begin, end),
            slice(audio, last),
        )
        return True
