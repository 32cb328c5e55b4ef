"""Checks of the fields of events, by tables: which are required, and of which type."""

from typing import Any, Final

from vivavoce.check.recording import CheckFailed, CheckList, CheckRecording, NotApplicable, at

EVENTS: Final = "protocol.md: What the server sends"
_PLACE: Final = {"response_id": "str", "item_id": "str", "output_index": "int"}
_PART: Final = {**_PLACE, "content_index": "int"}
_ITEM_EVENT: Final = {"item.id": "str", "item.type": "item_type", "previous_item_id": "str?"}
_RESPONSE: Final = {
    "response.id": "str",
    "response.object": "=realtime.response",
    "response.status": "str",
    "response.status_details": "object?",
    "response.output": "list",
    "response.conversation_id": "str?",
    "response.output_modalities": "list",
    "response.max_output_tokens": "limit",
    "response.metadata": "object?",
}
_SESSION: Final = {
    "session.id": "str",
    "session.type": "str",
    "session.object": "str",
    "session.expires_at": "int",
    "session.audio.input.format": "object",
    "session.audio.input.turn_detection": "object?",
    "session.audio.input.transcription": "object?",
    "session.audio.input.noise_reduction": "object?",
}
_TRANSCRIPTION: Final = "conversation.item.input_audio_transcription"
SHAPES: Final[dict[str, dict[str, str]]] = {
    "session.created": _SESSION,
    "session.updated": _SESSION,
    "error": {
        "error.type": "str",
        "error.message": "str",
        "error.code": "str?",
        "error.param": "str?",
        "error.event_id": "str?",
    },
    "conversation.item.added": _ITEM_EVENT,
    "conversation.item.done": _ITEM_EVENT,
    "conversation.item.retrieved": {"item.id": "str", "item.type": "item_type"},
    "conversation.item.truncated": {
        "item_id": "str",
        "content_index": "int",
        "audio_end_ms": "int",
    },
    "conversation.item.deleted": {"item_id": "str"},
    f"{_TRANSCRIPTION}.delta": {"item_id": "str", "content_index": "int", "delta": "str"},
    f"{_TRANSCRIPTION}.completed": {
        "item_id": "str",
        "content_index": "int",
        "transcript": "str",
        "usage.type": "str",
    },
    "input_audio_buffer.committed": {"item_id": "str", "previous_item_id": "str?"},
    "input_audio_buffer.speech_started": {"item_id": "str", "audio_start_ms": "int"},
    "input_audio_buffer.speech_stopped": {"item_id": "str", "audio_end_ms": "int"},
    "response.created": _RESPONSE,
    "response.done": {
        **_RESPONSE,
        "response.usage": "object",
        "response.usage.input_token_details": "object",
        "response.usage.output_token_details": "object",
    },
    "response.output_item.added": {
        "response_id": "str",
        "output_index": "int",
        "item.id": "str",
        "item.type": "item_type",
        "item.status": "=in_progress",
    },
    "response.output_item.done": {
        "response_id": "str",
        "output_index": "int",
        "item.id": "str",
        "item.type": "item_type",
        "item.status": "str",
    },
    "response.content_part.added": {**_PART, "part.type": "part"},
    "response.content_part.done": {**_PART, "part.type": "part"},
    "response.output_text.delta": {**_PART, "delta": "str"},
    "response.output_text.done": {**_PART, "text": "str"},
    "response.output_audio_transcript.delta": {**_PART, "delta": "str"},
    "response.output_audio_transcript.done": {**_PART, "transcript": "str"},
    "response.output_audio.delta": {**_PART, "delta": "base64"},
    "response.output_audio.done": _PART,
    "response.function_call_arguments.delta": {**_PLACE, "call_id": "str", "delta": "str"},
    "response.function_call_arguments.done": {
        **_PLACE,
        "call_id": "str",
        "name": "str",
        "arguments": "str",
    },
    "rate_limits.updated": {"rate_limits": "list"},
}
"""For each event: a path, and the kind of its value. `?`: or null, but the key is present."""
KNOWN: Final = {
    *SHAPES,
    *(f"output_audio_buffer.{verb}" for verb in ("started", "stopped", "cleared")),
    *(
        f"input_audio_buffer.{verb}"
        for verb in ("cleared", "timeout_triggered", "dtmf_event_received")
    ),
    f"{_TRANSCRIPTION}.failed",
    f"{_TRANSCRIPTION}.segment",
    "conversation.created",
    "conversation.item.created",
    *(f"mcp_list_tools.{verb}" for verb in ("in_progress", "completed", "failed")),
    *(f"response.mcp_call.{verb}" for verb in ("in_progress", "completed", "failed")),
    *(f"response.mcp_call_arguments.{verb}" for verb in ("delta", "done")),
}
_ITEM_TYPES: Final = (
    "message",
    "function_call",
    "function_call_output",
    "mcp_call",
    "mcp_list_tools",
    "mcp_approval_request",
    "mcp_approval_response",
)
_PARTS: Final = {
    "user": ("input_text", "input_audio", "input_image"),
    "system": ("input_text",),
    "assistant": ("output_text", "output_audio"),
}
_BASE64: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")
checks = CheckList()


def problem_with(value: Any, kind: str) -> str:
    """What is wrong with a value of that kind; "": nothing."""
    if kind.endswith("?"):
        return "" if value is None else problem_with(value, kind[:-1])
    right = False
    match kind:
        case "str":
            right = isinstance(value, str)
        case "int":
            right = type(value) is int
        case "list":
            right = isinstance(value, list)
        case "object":
            right = isinstance(value, dict)
        case "limit":
            right = type(value) is int or value == "inf"
        case "part":
            right = value in ("text", "audio")
        case "item_type":
            right = value in _ITEM_TYPES
        case "base64":
            right = isinstance(value, str) and len(value) % 4 == 0 and _BASE64.issuperset(value)
        case _:
            right = value == kind.removeprefix("=")
    return "" if right else f"is {str(value)[:60]!r}, not {kind.removeprefix('=')}"


def _shape_check(kind: str, shape: dict[str, str]) -> None:
    def judge(recording: CheckRecording) -> None:
        recording.need(kind)
        for event in recording.all(kind):
            for path, wanted in shape.items():
                *parents, key = path.split(".")
                holder = at(event, *parents)
                if not isinstance(holder, dict) or key not in holder:
                    raise CheckFailed(f"{path} is missing", event)
                if problem := problem_with(at(event, *path.split(".")), wanted):
                    raise CheckFailed(f"{path} {problem}", event)

    judge.__doc__ = f"`{kind}` has its fields: {', '.join(f'`{path}`' for path in shape)}."
    checks.add(f"shape.{kind}", EVENTS)(judge)


for _kind, _shape in SHAPES.items():
    _shape_check(_kind, _shape)


@checks.add("shape.known_types", EVENTS)
def _(recording: CheckRecording) -> None:
    """All events are of the published types."""
    if not recording.received:
        raise NotApplicable("no event came")
    for event in recording.received:
        if event.get("type") not in KNOWN:
            raise CheckFailed(f"{event.get('type')} is not a type of GA", event)


@checks.add("shape.no_null_in_items", EVENTS)
def _(recording: CheckRecording) -> None:
    """`name`, `call_id`, `arguments`, `role` and `status` of an item are absent or texts."""
    recording.need("conversation.item.added")
    for event in recording.received:
        item = at(event, "item")
        for key in ("name", "call_id", "arguments", "role", "status"):
            if isinstance(item, dict) and key in item and not isinstance(item[key], str):
                raise CheckFailed(f"item.{key} is {item[key]!r}", event)


@checks.add("shape.content_types", EVENTS)
def _(recording: CheckRecording) -> None:
    """Content parts of items have the types that go with the role."""
    recording.need("conversation.item.added")
    for event in recording.received:
        allowed = _PARTS.get(str(at(event, "item", "role")), ())
        for part in at(event, "item", "content") or ():
            if allowed and at(part, "type") not in allowed:
                raise CheckFailed(f"a part has the type {at(part, 'type')!r}", event)
