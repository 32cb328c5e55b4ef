"""The raw protocol: audio as binary messages, everything else as JSON in text messages.

Each JSON message of the server is {"type": "TextFrame", "data": {"text": …}, "text": …}: Voxray's
clients read `data`, those of its documentation the flat key.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import UNSET

from vivavoce.audio.samples import RATES, SampleEncoder, SampleFormat
from vivavoce.errors import InvalidRequest, LimitReached, Unauthorized, VoiceError
from vivavoce.protocol import raw_messages as messages
from vivavoce.protocol import server as says
from vivavoce.protocol.client import InputAudioAppend, SessionUpdate
from vivavoce.protocol.raw_config import (
    RAW_RATE,
    RawConfig,
    config_of,
    config_of_query,
    format_of,
    patch_of,
    sound_of,
    switch,
)
from vivavoce.protocol.raw_input import MAX_AUDIO_BYTES, RawInput
from vivavoce.protocol.server import AnyServerEvent
from vivavoce.protocol.session import RealtimeSession, SessionObject
from vivavoce.protocol.wire import (
    CloseRequest,
    ConnectRequest,
    Decoded,
    Frame,
    Opening,
    Refusal,
    Reply,
)

_FATAL = {"internal_error", "vad_failed", "session_expired", "session_idle", "server_shutdown"}


class RawProtocol:
    """One connection. `clock` gives seconds, to measure the rate of the audio that arrives.

    `waits`: the first message requests the session, and the format is recognised from the first
    audio if the message does not name it. Otherwise the query requests the session.
    """

    subprotocols = ()
    is_ga = False

    def __init__(self, clock: Callable[[], float], *, waits: bool = False) -> None:
        self.server_plays = True
        self._waits = waits
        self._query = RawConfig()
        self._interim = True
        self._bot_speaks = False  # as reported to the client, which plays the audio
        self._words: dict[str, str] = {}  # the transcripts in progress, by item
        self._reported = ""  # the failure that was reported last
        self._spoken: set[str] = set()  # the responses in progress that are spoken
        self._shown_early: set[str] = set()  # of these, the ones whose text is shown as generated
        self._input = RawInput(clock, recognises=waits)
        self._output_format = SampleFormat("pcm16", RAW_RATE)
        self._encoder = SampleEncoder(self._output_format)

    # --- the connection

    def opening(self, request: ConnectRequest) -> Opening | None:
        """Raises InvalidRequest if an option of the query has an invalid value."""
        self._query = config_of_query(request.query)
        self.server_plays = switch("pace", request.query.get("pace", "on"))
        self._set_sound(self._query)
        return None if self._waits else self._opening(self._query)

    def refuse(self, error: VoiceError) -> Refusal:
        code = {LimitReached: 1013, Unauthorized: 3000}.get(type(error), 1008)
        name = error.code if isinstance(error, InvalidRequest) else None
        if isinstance(error, Unauthorized):
            name = "invalid_api_key"
        return Refusal((_error(str(error), name, fatal=True),), code, str(error))

    @property
    def output_rate(self) -> int:
        """The sample rate of the audio that is sent, in Hz."""
        return self._output_format.rate

    # --- from the client

    def decode(self, frame: Frame) -> Iterator[Decoded]:
        if self._waits:
            self._waits = False
            yield from self._first(frame)
        elif frame.kind == "binary":
            yield from self._sound(frame.data)
        else:
            yield from self._message(frame.data)

    def silence_note(self) -> Reply | None:
        """A note for a client that has sent no audio some seconds after connecting; None: it
        has."""
        if self._input.came:
            return None
        text = (
            f"No audio has arrived yet: send {self._input.format} in binary messages, or text as "
            f"{messages.EXAMPLE}."
        )
        return Reply((_error(text, "no_audio"),), log="no audio has arrived since it connected")

    def _opening(self, config: RawConfig) -> Opening:
        model = config.model or self._query.model or ""
        return Opening(model=model, patch=patch_of(self._query, first=True))

    def _first(self, frame: Frame) -> Iterator[Decoded]:
        """The session that the first message requests; an invalid message requests the default
        session."""
        config, problem = RawConfig(), None
        rest: list[Decoded] = []
        try:
            if frame.kind == "text" and (fields := messages.config_fields(frame.data)) is not None:
                config = config_of(fields)
                self._set_sound(config)
                rest.append(SessionUpdate(session=patch_of(config, first=False)))
            else:
                rest.extend(self.decode(frame))
        except InvalidRequest as exc:
            problem = exc
        yield self._opening(config)
        yield from rest
        if problem:
            yield Reply((_error(problem.message, problem.code),))

    def _message(self, data: bytes) -> Iterator[Decoded]:
        kind, fields = messages.read_message(data)
        if kind in messages.CONFIG_TYPES:
            config = config_of(fields)
            self._set_sound(config)
            yield SessionUpdate(session=patch_of(config, first=False))
        elif kind in messages.AUDIO_TYPES:
            audio = messages.audio_of(fields)
            yield from self.sound_at(audio.audio, audio.sample_rate or RAW_RATE)
        elif kind == "ping":
            yield Reply((_message("pong"),))
        elif kind in messages.END_TYPES:
            yield CloseRequest()
        else:
            if kind in messages.COMMIT_TYPES and (pcm := self._input.release()):
                yield InputAudioAppend(audio=pcm)
            if kind in messages.INTERRUPT_TYPES and not self.server_plays:
                yield Reply((_message("InterruptionFrame"),))
            yield from messages.events_of(kind, fields, server_plays=self.server_plays)

    def sound_at(self, pcm: bytes, rate: int) -> Iterator[Decoded]:
        """16-bit PCM that arrives with its sample rate. Raises InvalidRequest."""
        if rate not in RATES:
            raise InvalidRequest(
                f"Invalid 'sample_rate': {rate}. Supported values are: "
                f"{', '.join(map(str, RATES))}.",
                param="sample_rate",
            )
        self._input.name("pcm16", rate)
        yield from self._sound(pcm)

    def _sound(self, data: bytes) -> Iterator[Decoded]:
        if len(data) > MAX_AUDIO_BYTES:
            raise InvalidRequest(
                f"The binary message is too large: {len(data)} bytes. At most {MAX_AUDIO_BYTES} "
                f"are accepted; send audio in smaller chunks, such as 20 ms.",
                code="event_too_large",
            )
        pcm = self._input.feed(data)
        if (note := self._input.take_note()) is not None:
            frames = (_error(note.text, note.code),) if note.code else ()
            yield Reply(frames, log=note.text)
        if pcm:
            yield InputAudioAppend(audio=pcm)

    def _set_sound(self, config: RawConfig) -> None:
        """Apply the formats of a configuration. Raises InvalidRequest, and then changes nothing."""
        sound = sound_of(config)
        if config.interim is not UNSET:
            self._interim = config.interim
        self._input.name(sound.input_encoding, sound.input_rate)
        new = format_of(sound.output_encoding, sound.output_rate, self._output_format)
        if new != self._output_format:
            self._output_format, self._encoder = new, SampleEncoder(new)

    # --- to the client

    def encode(self, event: AnyServerEvent) -> Iterator[Frame]:
        match event:
            case says.OutputTranscriptDelta(response_id=response_id, delta=delta):
                early = response_id in self._shown_early
                yield _message("TTSTextFrame" if early else "TextFrame", text=delta)
            case says.OutputTextDelta(delta=delta):
                yield _message("TextFrame", text=delta)
            case says.OutputAudioDelta(delta=audio):
                yield from self._bot_starts()
                yield from self.encode_audio(audio)
            case says.OutputAudioDone() if not self.server_plays:
                yield from self._bot_stops()
            case says.TranscriptionDelta() | says.TranscriptionCompleted():
                yield from self._transcript(event)
            case says.SpeechStarted():
                yield _message("UserStartedSpeakingFrame")
            case says.SpeechStopped():
                yield _message("UserStoppedSpeakingFrame")
            case says.OutputAudioStarted():
                yield from self._bot_starts()
            case says.OutputAudioStopped():
                yield from self._bot_stops()
            case says.OutputAudioCleared():
                self._encoder = SampleEncoder(self._output_format)
                yield _message("InterruptionFrame")
                yield from self._bot_stops()
            case says.SessionCreated(session=session):
                yield _message("StartFrame", session_id=session.id, **self._shown(session))
            case says.SessionUpdated(session=session):
                yield _message("ConfigFrame", **self._shown(session))
            case _:
                yield from self._encode_response(event)

    def generated_text(self, response_id: str, text: str) -> Iterator[Frame]:
        """The text of an answer that will be spoken; its words follow with their audio."""
        if response_id in self._spoken:
            self._shown_early.add(response_id)
            yield _message("TextFrame", text=text)

    def encode_audio(self, audio: bytes) -> Iterator[Frame]:
        if data := self._encoder.feed(audio):
            yield Frame("binary", data)

    def _encode_response(self, event: AnyServerEvent) -> Iterator[Frame]:
        match event:
            case says.ResponseCreated(response=response):
                if "audio" in response.output_modalities:
                    self._spoken.add(response.id)
                yield _message("LLMFullResponseStartFrame")
            case says.ResponseDone(response=response):
                self._spoken.discard(response.id)
                self._shown_early.discard(response.id)
                details = response.status_details
                if details and details.error is not UNSET:
                    self._reported = details.error.message
                    yield _error(details.error.message, details.error.code)
                if response.status == "cancelled" and not self.server_plays:
                    yield _message("InterruptionFrame")
                yield from self._bot_stops() if not self.server_plays else ()
                yield _message("LLMFullResponseEndFrame", status=response.status)
            case says.FunctionArgumentsDone():
                yield _message(
                    "FunctionCallInProgressFrame",
                    function_name=event.name,
                    tool_call_id=event.call_id,
                    arguments=_object_of(event.arguments),
                )
            case says.TranscriptionFailed(error=failed):
                self._words.pop(event.item_id, None)
                self._reported = failed.message
                yield _error(failed.message, failed.code)
            case says.ErrorEvent(error=error) if (
                error.event_id != messages.INTERRUPT_ID and error.message != self._reported
            ):
                yield _error(error.message, error.code, fatal=error.code in _FATAL)

    def _transcript(
        self, event: says.TranscriptionDelta | says.TranscriptionCompleted
    ) -> Iterator[Frame]:
        final = isinstance(event, says.TranscriptionCompleted)
        if isinstance(event, says.TranscriptionCompleted):
            self._words.pop(event.item_id, None)
            text = event.transcript
        else:
            text = self._words.get(event.item_id, "") + event.delta
            self._words[event.item_id] = text
        if text and (final or self._interim):
            yield _message(
                "TranscriptionFrame", text=text, user_id="user", final=final, finalized=final
            )

    def _bot_starts(self) -> Iterator[Frame]:
        if not self._bot_speaks:
            self._bot_speaks = True
            yield _message("BotStartedSpeakingFrame")

    def _bot_stops(self) -> Iterator[Frame]:
        if self._bot_speaks:
            self._bot_speaks = False
            if rest := self._encoder.flush():
                yield Frame("binary", rest)
            yield _message("BotStoppedSpeakingFrame")

    def _shown(self, session: SessionObject) -> dict[str, Any]:
        """The settings in force, as a configuration names them."""
        shown: dict[str, Any] = {
            "audio_in_sample_rate": self._input.format.rate,
            "audio_in_format": self._input.format.encoding,
            "audio_out_sample_rate": self._output_format.rate,
            "audio_out_format": self._output_format.encoding,
        }
        if isinstance(session, RealtimeSession) and session.served_by is not UNSET:
            shown |= {"model": session.served_by.model, "voice": session.served_by.voice}
        return shown


def _message(kind: str, **data: Any) -> Frame:
    return Frame("text", msgspec.json.encode({"type": kind, "data": data, **data}))


def _error(text: str, code: str | None, *, fatal: bool = False) -> Frame:
    return _message("ErrorFrame", error=text, code=code, fatal=fatal)


def _object_of(arguments: str) -> Any:
    """The arguments of a function call as JSON; as text if the LLM wrote invalid JSON."""
    try:
        return msgspec.json.decode(arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        return arguments
