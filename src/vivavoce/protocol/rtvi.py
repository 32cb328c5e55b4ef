"""RTVI, the protocol of Pipecat's clients: messages in JSON, and audio.

Over a WebSocket every message is a protobuf frame (vivavoce.protocol.pipecat_frames) or, from
clients of the older kind, JSON in text: the first message decides, and nothing is sent before it.
On a data channel it is JSON, and the audio has a track of its own.
"""

import secrets
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import msgspec
import numpy as np

from vivavoce.audio.formats import RATE
from vivavoce.audio.resample import Resampler
from vivavoce.errors import InvalidRequest, LimitReached, Unauthorized, VoiceError
from vivavoce.protocol import rtvi_messages as messages
from vivavoce.protocol.client import (
    AnyClientEvent,
    InputAudioAppend,
    ItemCreate,
    OutputAudioClear,
    ResponseCancel,
    ResponseCreate,
)
from vivavoce.protocol.codec import GA
from vivavoce.protocol.items import FunctionCallOutput, InputImage, InputText, Message, OutputText
from vivavoce.protocol.pipecat_frames import (
    AudioFrame,
    FrameError,
    InterruptionFrame,
    MessageFrame,
    TranscriptionFrame,
    read_frame,
    write_audio,
    write_interruption,
    write_message,
)
from vivavoce.protocol.responses import ResponseParams
from vivavoce.protocol.rtvi_messages import MAX_QUOTED, MAX_TEXT_BYTES, ClientMessage, write
from vivavoce.protocol.rtvi_output import RtviOutput
from vivavoce.protocol.server import AnyServerEvent
from vivavoce.protocol.session import (
    AudioInputPatch,
    AudioOutputPatch,
    AudioPatch,
    RealtimePatch,
    TranscriptionPatch,
)
from vivavoce.protocol.wire import (
    CloseRequest,
    ConnectRequest,
    Decoded,
    Frame,
    Opening,
    Refusal,
    Reply,
)

TRANSCRIPTION_MODEL = "whisper-1"  # every name is served by the configured recogniser
RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
MAX_CHANNELS = 2
MAX_REPORTED = 20  # for invalid frames and errors; later ones are dropped silently
MAX_LOGGED = 200  # of the text of a client's error
WAV_HEADER_BYTES = 44  # of PCM: Pipecat's Python client puts one before each piece
JS_LIBRARY = "@pipecat-ai/client-js"  # logs an error for an interruption frame
PEER_LEFT = b'{"type":"signalling","message":{"type":"peerLeft"}}'
# of RTVI 0.x: the options of services, of which there are none
_EMPTY_ANSWERS: dict[str, tuple[str, dict[str, list[Any]]]] = {
    "describe-config": ("config-available", {"config": []}),
    "describe-actions": ("actions-available", {"actions": []}),
    "get-config": ("config", {"config": []}),
}
_LARGE = frozenset({"raw-audio", "raw-audio-batch", "send-file"})
_IGNORED = ("ui-event", "ui-snapshot", "ui-cancel-job-group")  # pages get no commands

Handler: TypeAlias = Callable[[ClientMessage], Iterator[Decoded]]


class PcmInput:
    """16-bit PCM of any of RATES, with one or two channels, to mono at 24 kHz."""

    def __init__(self) -> None:
        self._format = (RATE, 1)
        self._resampler = Resampler(RATE, RATE)
        self._rest = b""

    def feed(self, audio: bytes, rate: int, channels: int) -> bytes:
        """Raises InvalidRequest for an unsupported format."""
        if (rate, channels) != self._format:
            if rate not in RATES or not 1 <= channels <= MAX_CHANNELS:
                raise InvalidRequest(
                    f"Invalid audio: {rate} Hz in {channels} channels. Send one channel or two at "
                    f"{', '.join(map(str, RATES))} Hz."
                )
            self._format, self._rest = (rate, channels), b""
            self._resampler = Resampler(rate, RATE)
        if audio[:4] == b"RIFF" and audio[8:12] == b"WAVE":
            audio = audio[WAV_HEADER_BYTES:]
        audio = self._rest + audio
        whole = len(audio) // (2 * channels) * 2 * channels
        self._rest, audio = audio[whole:], audio[:whole]
        if channels > 1:
            mixed = np.frombuffer(audio, "<i2").reshape(-1, channels).mean(axis=1)
            audio = np.rint(mixed).astype("<i2").tobytes()
        return self._resampler.feed(audio)


class RtviProtocol:
    """One connection. `clock` gives unix seconds; `channel`: it is a WebRTC data channel.

    library_version: the version of this server, for `bot-ready`.
    """

    subprotocols = ()
    server_plays = True
    is_ga = False

    def __init__(
        self, clock: Callable[[], float], *, channel: bool = False, library_version: str = ""
    ) -> None:
        self._output = RtviOutput(clock)
        self._input = PcmInput()
        self._about = {"library": "vivavoce", "library_version": library_version}
        self._kind: str = "text" if channel else ""  # of the frames that are sent
        self._frames = 0
        self._unreadable = 0
        self._interruption_frames = True
        self._owes_response = False
        self._handlers: dict[str, Handler] = {
            "client-ready": self._client_ready,
            "disconnect-bot": self._disconnect,
            "client-message": self._client_message,
            "send-text": self._send_text,
            "send-file": self._send_file,
            "append-to-context": self._append,
            "llm-function-call-result": self._function_result,
            "dtmf": self._dtmf,
            "raw-audio": self._raw_audio,
            "raw-audio-batch": self._raw_audio,
        }

    # --- the connection

    def opening(self, request: ConnectRequest) -> Opening:
        query = request.query
        return Opening(
            model=query.get("model", ""),
            speech_model=query.get("speech_model", ""),
            segment=query.get("segment", ""),
            patch=_patch(request),
        )

    def refuse(self, error: VoiceError) -> Refusal:
        code = {LimitReached: 1013, Unauthorized: 3000}.get(type(error), 1008)
        self._kind = self._kind or "binary"
        frame = self._frame(write("error", {"error": str(error), "fatal": True}))
        return Refusal((frame,), code, str(error))

    # --- from the client

    def decode(self, frame: Frame) -> Iterator[Decoded]:
        self._kind = self._kind or frame.kind
        if self._owes_response and not self._output.active:
            self._owes_response = False
            yield ResponseCreate()
        try:
            if frame.kind == "text":
                yield from self._message(frame.data)
            else:
                yield from self._pipecat_frame(frame.data)
        except InvalidRequest as exc:
            if exc.event_id:
                yield self._reply("error-response", {"error": exc.message}, exc.event_id)
            elif self._unreadable < MAX_REPORTED:
                self._unreadable += 1
                yield self._reply("error", {"error": exc.message, "fatal": False})

    def _pipecat_frame(self, data: bytes) -> Iterator[Decoded]:
        try:
            frame = read_frame(data)
        except FrameError as exc:
            raise InvalidRequest(f"A binary message is no pipecat.Frame: {exc}.") from exc
        match frame:
            case AudioFrame(audio, rate, channels):
                yield from self._audio(audio, rate, channels)
            case MessageFrame(data):
                yield from self._message(data)
            case TranscriptionFrame(text):
                yield from self._typed(text, secrets.token_hex(4))
            case InterruptionFrame():
                yield from _interrupt()
            case _:
                pass  # RTVI gives a client's TextFrame no meaning

    def _message(self, data: bytes) -> Iterator[Decoded]:
        if data.startswith(b"ping"):  # each second, on a data channel
            return
        message = messages.read_message(data)
        if message is None or message.type in _IGNORED:
            return
        if message.type in messages.ERRORS:
            yield from self._note_error(message)
            return
        if len(data) > MAX_TEXT_BYTES and message.type not in _LARGE:
            text = f"The message has {len(data)} bytes; at most {MAX_TEXT_BYTES} are accepted."
            raise InvalidRequest(text, event_id=message.id)
        if handler := self._handlers.get(message.type):
            yield from handler(message)
        elif answer := _EMPTY_ANSWERS.get(message.type):
            yield self._reply(*answer, message.id)
        else:
            text = f"Unsupported type {message.type[:MAX_QUOTED]}"
            raise InvalidRequest(text, event_id=message.id)

    def _client_ready(self, message: ClientMessage) -> Iterator[Decoded]:
        try:
            ready = messages.data_of(message, messages.ClientReady)
        except InvalidRequest:
            ready = messages.ClientReady()
        chosen = messages.negotiated(ready.version)
        self._output.legacy = chosen.legacy
        if ready.about and ready.about.library == JS_LIBRARY:
            self._interruption_frames = False
        if chosen.problem:
            yield self._reply("error-response", {"error": chosen.problem}, message.id)
        data = {
            "version": chosen.version,
            "about": self._about,
            "capabilities": {
                "audio_in": True,
                "audio_out": True,
                "video_in": False,
                "screen_in": False,
                "video_out": False,
                "metrics": True,
            },
        }
        yield self._reply("bot-ready", data, message.id)

    def _note_error(self, message: ClientMessage) -> Iterator[Decoded]:
        """An error message of the client gets no answer, because the answer might get one in
        turn."""
        if self._unreadable < MAX_REPORTED:
            self._unreadable += 1
            yield Reply((), f"{message.type}: {bytes(message.data)[:MAX_LOGGED]!r}")

    def _disconnect(self, message: ClientMessage) -> Iterator[Decoded]:
        yield CloseRequest(1000, "the client has disconnected the bot")

    def _client_message(self, message: ClientMessage) -> Iterator[Decoded]:
        """`session.update` changes the session, as in Realtime, because RTVI has no message for
        tools."""
        request = messages.data_of(message, messages.RequestMessage)
        if request.t != "session.update":
            text = (
                f"Unknown client message '{request.t[:MAX_QUOTED]}'. "
                f"Supported values are: 'session.update'."
            )
            raise InvalidRequest(text, event_id=message.id)
        session = {"type": "realtime", **request.d} if isinstance(request.d, dict) else request.d
        update = {"type": "session.update", "event_id": message.id, "session": session}
        events = list(GA().decode(Frame("text", msgspec.json.encode(update))))
        self._output.updates.append(message.id)
        yield from events

    def _send_text(self, message: ClientMessage) -> Iterator[Decoded]:
        text = messages.data_of(message, messages.SendText)
        options = text.options or messages.SendTextOptions()
        yield from self._typed(
            text.content, message.id, run=options.run_immediately, speak=options.audio_response
        )

    def _send_file(self, message: ClientMessage) -> Iterator[Decoded]:
        """An image with a text. Realtime conversations cannot hold other files."""
        sent = messages.data_of(message, messages.SendFile)
        if not sent.file.format.startswith("image/"):
            text = f"Unsupported file '{sent.file.format[:MAX_QUOTED]}': send images (image/…)."
            raise InvalidRequest(text, event_id=message.id)
        options = sent.options or messages.SendTextOptions()
        yield from self._typed(
            sent.content,
            message.id,
            InputImage(sent.file.address),
            run=options.run_immediately,
            speak=options.audio_response,
        )

    def _typed(
        self,
        text: str,
        message_id: str,
        *more: InputImage,
        run: bool = True,
        speak: bool = True,
    ) -> Iterator[Decoded]:
        if run:
            yield from _interrupt()
        content: tuple[InputText | InputImage, ...] = (InputText(text), *more) if text else more
        item = Message(id=_item_id(), role="user", content=content)
        self._output.user.typed(item.id, message_id, text)
        yield ItemCreate(event_id=message_id, item=item)
        if run:
            params = None if speak else ResponseParams(output_modalities=("text",))
            yield ResponseCreate(event_id=message_id, response=params)

    def _append(self, message: ClientMessage) -> Iterator[Decoded]:
        added = messages.data_of(message, messages.AppendToContext)
        part = (OutputText if added.role == "assistant" else InputText)(added.content)
        if added.run_immediately:
            yield from _interrupt()
        item = Message(id=_item_id(), role=added.role, content=(part,))
        yield ItemCreate(event_id=message.id, item=item)
        if added.run_immediately:
            yield ResponseCreate(event_id=message.id)

    def _function_result(self, message: ClientMessage) -> Iterator[Decoded]:
        result = messages.data_of(message, messages.FunctionResult)
        call_id = result.tool_call_id
        if (name := self._output.calls.pop(call_id, None)) is None:
            text = f"No function call '{call_id[:MAX_QUOTED]}' waits for a result."
            raise InvalidRequest(text, event_id=message.id)
        output = result.result if isinstance(result.result, str) else _json(result.result)
        item = FunctionCallOutput(id=_item_id(), call_id=call_id, output=output)
        yield ItemCreate(event_id=message.id, item=item)
        stopped = {
            "tool_call_id": call_id,
            "cancelled": False,
            "function_name": name,
            "result": result.result,
        }
        yield self._reply("llm-function-call-stopped", stopped)
        if self._output.active:
            self._owes_response = True
        elif not self._output.calls:
            yield ResponseCreate(event_id=message.id)

    def _dtmf(self, message: ClientMessage) -> Iterator[Decoded]:
        dtmf = messages.data_of(message, messages.Dtmf)
        buttons = dtmf.buttons or ((dtmf.button,) if dtmf.button else ())
        if not buttons:
            text = "Invalid data of 'dtmf': 'buttons' has to have at least one key."
            raise InvalidRequest(text, event_id=message.id)
        yield from self._typed(f"DTMF: {''.join(buttons)}", message.id)

    def _raw_audio(self, message: ClientMessage) -> Iterator[Decoded]:
        raw = messages.data_of(message, messages.RtviAudio)
        audio = b"".join((raw.base64_audio, *raw.base64_audio_batch))
        yield from self._audio(audio, raw.sample_rate, raw.num_channels)

    def _audio(self, audio: bytes, rate: int, channels: int) -> Iterator[AnyClientEvent]:
        if pcm := self._input.feed(audio, rate, channels):
            yield InputAudioAppend(audio=pcm)

    # --- to the client

    def encode(self, event: AnyServerEvent) -> Iterator[Frame]:
        for data in self._output.messages(event):
            if not self._kind:
                continue  # nothing is sent before the first message
            if data is not None:
                yield self._frame(data)
            elif self._kind == "binary" and self._interruption_frames:
                self._frames += 1
                yield Frame("binary", write_interruption(self._frames))

    def encode_audio(self, audio: bytes) -> Iterator[Frame]:
        if not audio:
            return
        self._frames += 1
        if self._kind == "text":
            data = {"audio": audio, "sample_rate": RATE, "num_channels": 1}
            yield self._frame(write("bot-tts-audio", data))
        else:
            yield Frame("binary", write_audio(self._frames, audio, RATE))
        for message in self._output.playing(len(audio) // 2):
            yield self._frame(message)

    def played(self, samples: int) -> Iterator[Frame]:
        """For calls: which sentences are spoken in the audio that goes out on the track."""
        yield from map(self._frame, self._output.playing(samples))

    def ended(self) -> Iterator[Frame]:
        """For calls: small-webrtc clients end when the peer has disconnected."""
        yield Frame("text", PEER_LEFT)

    def _frame(self, message: bytes) -> Frame:
        if self._kind == "text":
            return Frame("text", message)
        return Frame("binary", write_message(message))

    def _reply(self, kind: str, data: Any, id_: str = "") -> Reply:
        return Reply((self._frame(write(kind, data, id_)),))


def _interrupt() -> Iterator[AnyClientEvent]:
    """Stop the answer that is being played, and the one that is being generated."""
    yield OutputAudioClear()
    yield ResponseCancel()


def _item_id() -> str:
    return f"rtvi_{secrets.token_hex(8)}"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _patch(request: ConnectRequest) -> RealtimePatch:
    """The settings that the query requests; RTVI always includes transcripts."""
    query = request.query
    language = query.get("language") or None
    transcription = TranscriptionPatch(
        model=query.get("transcription_model") or TRANSCRIPTION_MODEL, language=language
    )
    output = AudioOutputPatch(voice=query["voice"]) if query.get("voice") else AudioOutputPatch()
    return RealtimePatch(audio=AudioPatch(AudioInputPatch(transcription=transcription), output))
