"""The raw protocol in Pipecat's protobuf frames: /ws?format=protobuf.

Audio, text, final transcripts and interruptions are frames of their own kind (pipecat/frames/
frames.proto); every other message of the raw protocol is JSON in a message frame.
"""

from collections.abc import Callable, Iterable, Iterator

import msgspec
import numpy as np

from vivavoce.errors import InvalidRequest, VoiceError
from vivavoce.protocol import pipecat_frames as frames
from vivavoce.protocol.raw import RawProtocol
from vivavoce.protocol.server import AnyServerEvent
from vivavoce.protocol.wire import ConnectRequest, Decoded, Frame, Opening, Refusal, Reply

OUTPUT_RATE = "24000"
"""The sample rate if the client names none: what Pipecat's clients play."""


class _RawMessage(msgspec.Struct, frozen=True):
    """A message of the raw protocol, with the fields for which there is a frame type."""

    type: str
    text: str = ""
    user_id: str = ""
    final: bool = False


_decoder = msgspec.json.Decoder(_RawMessage)


class RawFramesProtocol:
    """One connection. `clock` gives seconds."""

    subprotocols = ()
    is_ga = False

    def __init__(self, clock: Callable[[], float]) -> None:
        self._raw = RawProtocol(clock)
        self._number = 0  # of the last frame

    @property
    def server_plays(self) -> bool:
        return self._raw.server_plays

    def opening(self, request: ConnectRequest) -> Opening | None:
        """Raises InvalidRequest, as the raw protocol does."""
        query = {"output_rate": OUTPUT_RATE, **request.query}
        del query["format"]
        return self._raw.opening(msgspec.structs.replace(request, query=query))

    def refuse(self, error: VoiceError) -> Refusal:
        refusal = self._raw.refuse(error)
        return refusal._replace(frames=tuple(self._framed(refusal.frames)))

    def decode(self, frame: Frame) -> Iterator[Decoded]:
        for one in self._decoded(frame):
            yield (
                msgspec.structs.replace(one, frames=tuple(self._framed(one.frames)))
                if isinstance(one, Reply)
                else one
            )

    def encode(self, event: AnyServerEvent) -> Iterator[Frame]:
        return self._framed(self._raw.encode(event))

    def encode_audio(self, audio: bytes) -> Iterator[Frame]:
        return self._framed(self._raw.encode_audio(audio))

    def generated_text(self, response_id: str, text: str) -> Iterator[Frame]:
        return self._framed(self._raw.generated_text(response_id, text))

    def silence_note(self) -> Reply | None:
        note = self._raw.silence_note()
        return note and msgspec.structs.replace(note, frames=tuple(self._framed(note.frames)))

    def _decoded(self, frame: Frame) -> Iterator[Decoded]:
        """A text message, and a message frame, hold one message of the raw protocol."""
        if frame.kind == "text":
            yield from self._raw.decode(frame)
            return
        try:
            found = frames.read_frame(frame.data)
        except frames.FrameError as exc:
            raise InvalidRequest(
                f"The binary message is not a pipecat.Frame: {exc}.", code="invalid_event"
            ) from exc
        match found:
            case frames.AudioFrame(audio, rate, channels):
                yield from self._raw.sound_at(_mono(audio, channels), rate)
            case frames.MessageFrame(data):
                yield from self._raw.decode(Frame("text", data))
            case frames.TextFrame(text) | frames.TranscriptionFrame(text):
                yield from self._raw.decode(_message("text", text))
            case _:  # an interruption
                yield from self._raw.decode(_message("interrupt"))

    def _framed(self, raw: Iterable[Frame]) -> Iterator[Frame]:
        for frame in raw:
            self._number += 1
            yield Frame("binary", self._written(frame))

    def _written(self, frame: Frame) -> bytes:
        if frame.kind == "binary":
            return frames.write_audio(self._number, frame.data, self._raw.output_rate)
        message = _decoder.decode(frame.data)
        match message.type:
            case "TextFrame":
                return frames.write_text(self._number, message.text)
            case "TranscriptionFrame" if message.final:
                return frames.write_transcription(self._number, message.text, message.user_id)
            case "InterruptionFrame":
                return frames.write_interruption(self._number)
        return frames.write_message(frame.data)


def _message(kind: str, text: str = "") -> Frame:
    return Frame("text", msgspec.json.encode({"type": kind, "text": text}))


def _mono(audio: bytes, channels: int) -> bytes:
    """The channels, averaged. Raises InvalidRequest if there is half a sample."""
    if channels in (0, 1):
        return audio
    if not 0 < channels <= 8 or len(audio) % (2 * channels):
        raise InvalidRequest(
            f"The audio frame has {len(audio)} bytes for {channels} channels of 16-bit PCM.",
            param="num_channels",
        )
    samples = np.frombuffer(audio, "<i2").reshape(-1, channels)
    mono: bytes = samples.mean(axis=1).astype("<i2").tobytes()
    return mono
