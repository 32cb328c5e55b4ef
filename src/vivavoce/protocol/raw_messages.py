"""The JSON messages of a raw client, and the client events that they stand for.

A message is {"type": …, "data": {…}}, or flat, with the fields beside `type`. Types are the frame
names of Voxray and Pipecat, or a short word; case does not matter.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from vivavoce.errors import InvalidRequest
from vivavoce.protocol import bounds, json
from vivavoce.protocol.client import (
    AnyClientEvent,
    InputAudioClear,
    InputAudioCommit,
    ItemCreate,
    OutputAudioClear,
    ResponseCancel,
    ResponseCreate,
    SessionUpdate,
)
from vivavoce.protocol.items import (
    MAX_TOOLS,
    FunctionCallOutput,
    InputText,
    Message,
    OutputText,
    Part,
)
from vivavoce.protocol.raw_config import StopSeconds, choice_of, tools_of
from vivavoce.protocol.responses import ResponseParams
from vivavoce.protocol.session import AudioInputPatch, AudioPatch, RealtimePatch, ServerVadPatch
from vivavoce.protocol.validation import MAX_QUOTED, refusal

T = TypeVar("T")

INTERRUPT_ID = "raw_interrupt"
"""The event_id of events for which an error means that there was nothing to interrupt."""
MAX_MESSAGES = 500
EXAMPLE = '{"type": "text", "text": "Hello"}'
TEXT_TYPES = {"text", "textframe", "user_text", "transcriptionframe"}
INTERRUPT_TYPES = {"interrupt", "interruptionframe", "botinterruptionframe", "cancelframe"}
END_TYPES = {"end", "endframe", "stopframe", "close"}
AUDIO_TYPES = {"audio", "audio_raw", "audiorawframe", "inputaudiorawframe"}
CONFIG_TYPES = {"config", "configure", "configuration", "startframe", "start", ""}
COMMIT_TYPES = {"commit", "userstoppedspeakingframe", "vaduserstoppedspeakingframe"}
IGNORED_TYPES = {
    *("userstartedspeakingframe", "vaduserstartedspeakingframe", "userspeakingframe"),
    *("botstartedspeakingframe", "botstoppedspeakingframe", "heartbeatframe", "metricsframe"),
}
_SUPPORTED = (
    "text, audio, config, interrupt, commit, clear, end, ping, LLMRunFrame, TTSSpeakFrame, "
    "LLMMessagesAppendFrame, LLMSetToolsFrame, LLMSetToolChoiceFrame, "
    "FunctionCallResultFrame and VADParamsUpdateFrame"
)


class _Words(msgspec.Struct, frozen=True):
    text: Annotated[str, Meta(min_length=1)]


class _ChatMessage(msgspec.Struct, frozen=True):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[dict[str, Any]]


class _ChatMessages(msgspec.Struct, frozen=True):
    messages: Annotated[list[_ChatMessage], Meta(max_length=MAX_MESSAGES)]
    run_llm: bool = False


class _Tools(msgspec.Struct, frozen=True):
    tools: Annotated[list[dict[str, Any]], Meta(max_length=MAX_TOOLS)]


class _ToolResult(msgspec.Struct, frozen=True):
    tool_call_id: str
    result: Any
    run_llm: bool = True


class _VadParams(msgspec.Struct, frozen=True):
    stop_secs: StopSeconds | UnsetType = UNSET


class RawAudio(msgspec.Struct, frozen=True):
    """Audio inside JSON, in base64: 16-bit PCM."""

    audio: bytes
    sample_rate: int | None = None
    num_channels: Literal[1] = 1


Fields: TypeAlias = Mapping[str, Any]


def read_message(raw: bytes) -> tuple[str, dict[str, Any]]:
    """The type in lower case, "" where there is none, and the fields. Raises InvalidRequest."""
    bounds.check_size(raw, "message")
    try:
        tree: Any = json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as exc:
        raise InvalidRequest(
            f"The text message is not JSON ({exc}): send audio as binary messages, and text as "
            f"{EXAMPLE}.",
            code="invalid_json",
        ) from exc
    if not isinstance(tree, dict):
        raise InvalidRequest(
            f"The text message is not a JSON object: send text as {EXAMPLE}.", code="invalid_event"
        )
    if bounds.is_too_deep(raw):
        raise InvalidRequest(
            f"The message is nested too deeply. At most {bounds.MAX_DEPTH} levels are accepted."
        )
    kind, inner = tree.pop("type", ""), tree.pop("data", None)
    if not isinstance(kind, str):
        raise InvalidRequest(
            f"Invalid 'type': expected a string, as in {EXAMPLE}.",
            code="invalid_event",
            param="type",
        )
    if isinstance(inner, dict):
        tree |= inner
    elif isinstance(inner, str):
        tree.setdefault("audio" if kind.lower() in AUDIO_TYPES else "text", inner)
    if not kind:
        kind = next((name for name in ("text", "audio") if name in tree), "")
    return kind.lower(), tree


def config_fields(raw: bytes) -> dict[str, Any] | None:
    """The fields of a configuration; None: another message. Raises InvalidRequest."""
    kind, fields = read_message(raw)
    return fields if kind in CONFIG_TYPES else None


def audio_of(fields: Fields) -> RawAudio:
    """Raises InvalidRequest."""
    return _read(fields, RawAudio)


def events_of(kind: str, fields: Fields, *, server_plays: bool) -> Iterator[AnyClientEvent]:
    """The events of a message that is neither audio nor configuration. Raises InvalidRequest.

    `server_plays`: whether there is playback that can be cleared.
    """
    interrupt = tuple(_interrupt(server_plays=server_plays))
    if kind in TEXT_TYPES:
        text = _read(fields, _Words).text
        yield from interrupt
        yield ItemCreate(item=Message(role="user", content=(InputText(text),)))
        yield ResponseCreate()
    elif kind in INTERRUPT_TYPES:
        yield from interrupt
    elif kind in COMMIT_TYPES:
        yield InputAudioCommit()
        yield ResponseCreate()
    elif kind == "clear":
        yield InputAudioClear()
    elif kind == "llmrunframe":
        yield from interrupt
        yield ResponseCreate()
    elif kind in ("ttsspeakframe", "speak"):
        yield from interrupt
        yield ResponseCreate(response=spoken_words(_read(fields, _Words).text))
    elif kind == "llmmessagesappendframe":
        yield from _appended(_read(fields, _ChatMessages), interrupt)
    elif kind not in IGNORED_TYPES:
        yield from _of_tools(kind, fields, interrupt)


def _of_tools(
    kind: str, fields: Fields, interrupt: tuple[AnyClientEvent, ...]
) -> Iterator[AnyClientEvent]:
    """Messages about tools and turn detection. The last lookup: an unknown type is an error."""
    if kind == "llmsettoolsframe":
        tools = tools_of(_read(fields, _Tools).tools)
        yield SessionUpdate(session=RealtimePatch(tools=tools))
    elif kind == "llmsettoolchoiceframe":
        choice = choice_of(fields.get("tool_choice"))
        yield SessionUpdate(session=RealtimePatch(tool_choice=choice))
    elif kind in ("functioncallresultframe", "tool_result"):
        result = _read(fields, _ToolResult)
        yield ItemCreate(
            item=FunctionCallOutput(call_id=result.tool_call_id, output=_as_text(result.result))
        )
        if result.run_llm:
            yield from interrupt
            yield ResponseCreate()
    elif kind == "vadparamsupdateframe":
        # Pipecat nests them under `params`
        params = fields.get("params")
        stop = _read(params if isinstance(params, dict) else fields, _VadParams).stop_secs
        if stop is not UNSET:
            vad = ServerVadPatch(silence_duration_ms=round(stop * 1000))
            audio = AudioPatch(input=AudioInputPatch(turn_detection=vad))
            yield SessionUpdate(session=RealtimePatch(audio=audio))
    else:
        raise _unknown(kind)


def _unknown(kind: str) -> InvalidRequest:
    realtime = kind.startswith(("session.", "input_audio_buffer.", "conversation.", "response."))
    if realtime:
        where = "That is an event of the Realtime API: connect to /v1/realtime for it."
    else:
        where = f"Supported types are: {_SUPPORTED}."
    return InvalidRequest(f"Unknown type {kind[:MAX_QUOTED]!r}. {where}", param="type")


def _interrupt(*, server_plays: bool) -> Iterator[AnyClientEvent]:
    if server_plays:
        yield OutputAudioClear(event_id=INTERRUPT_ID)
    yield ResponseCancel(event_id=INTERRUPT_ID)


def _appended(
    appended: _ChatMessages, interrupt: tuple[AnyClientEvent, ...]
) -> Iterator[AnyClientEvent]:
    for message in appended.messages:
        yield ItemCreate(item=_item_of(message))
    if appended.run_llm:
        yield from interrupt
        yield ResponseCreate()


def _item_of(message: _ChatMessage) -> Message:
    content = message.content
    if isinstance(content, list):
        content = "\n".join(str(part.get("text", "")) for part in content)
    if message.role == "assistant":
        part: Part = OutputText(content)
        return Message(role="assistant", content=(part,))
    role: Literal["system", "user"] = "user" if message.role == "user" else "system"
    return Message(role=role, content=(InputText(content),))


def spoken_words(text: str) -> ResponseParams:
    """A response with given words, as exactly as an LLM repeats them."""
    ask = Message(role="user", content=(InputText(f"Say exactly this: {text}"),))
    return ResponseParams(
        instructions="Say the given words and nothing else.", input=(ask,), tool_choice="none"
    )


def _as_text(result: Any) -> str:
    return result if isinstance(result, str) else msgspec.json.encode(result).decode()


def _read(fields: Fields, kind: type[T]) -> T:
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as exc:
        raise refusal(str(exc), kind, what="message") from exc
