"""Checks that are rows of tables: settings and their echo, invalid events and their errors."""

from typing import Any, Final, NamedTuple

from vivavoce.check.recording import (
    CheckList,
    CheckRecording,
    EventFields,
    NotApplicable,
    at,
    require,
)

SETTINGS_SECTION: Final = "protocol.md: Session settings"
ERRORS_SECTION: Final = "protocol.md: Errors"
TOOL: Final[EventFields] = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}


class SettingRow(NamedTuple):
    """A partial update, and what the session shows afterwards at a path."""

    id: str
    patch: EventFields
    path: tuple[str | int, ...]
    shown: Any
    optional: bool = False
    """Whether a server that refuses it counts as not supporting it."""


class InvalidRow(NamedTuple):
    """An event that has to be refused, and the code and the parameter of the error."""

    id: str
    event: EventFields
    codes: tuple[str, ...]
    param: str | None = None


def _input(**fields: Any) -> EventFields:
    return {"audio": {"input": fields}}


def _output(**fields: Any) -> EventFields:
    return {"audio": {"output": fields}}


_DETECTION = ("audio", "input", "turn_detection")
_VAD = {
    "type": "server_vad",
    "threshold": 0.6,
    "prefix_padding_ms": 200,
    "silence_duration_ms": 400,
}
SETTINGS: Final = (
    SettingRow("instructions", {"instructions": "Be brief."}, ("instructions",), "Be brief."),
    SettingRow("instructions_cleared", {"instructions": ""}, ("instructions",), ""),
    SettingRow("tools", {"tools": [TOOL]}, ("tools", 0, "name"), "get_weather"),
    SettingRow("tool_choice_required", {"tool_choice": "required"}, ("tool_choice",), "required"),
    SettingRow(
        "tool_choice_function",
        {"tool_choice": {"type": "function", "name": "get_weather"}},
        ("tool_choice", "name"),
        "get_weather",
    ),
    SettingRow("tools_cleared", {"tool_choice": "auto", "tools": []}, ("tools",), []),
    SettingRow(
        "modalities_text", {"output_modalities": ["text"]}, ("output_modalities",), ["text"]
    ),
    SettingRow(
        "modalities_audio", {"output_modalities": ["audio"]}, ("output_modalities",), ["audio"]
    ),
    SettingRow("max_output_tokens", {"max_output_tokens": 200}, ("max_output_tokens",), 200),
    SettingRow(
        "max_output_tokens_inf", {"max_output_tokens": "inf"}, ("max_output_tokens",), "inf"
    ),
    SettingRow("threshold", _input(turn_detection=_VAD), (*_DETECTION, "threshold"), 0.6),
    SettingRow(
        "prefix_padding", _input(turn_detection=_VAD), (*_DETECTION, "prefix_padding_ms"), 200
    ),
    SettingRow(
        "silence_duration", _input(turn_detection=_VAD), (*_DETECTION, "silence_duration_ms"), 400
    ),
    SettingRow(
        "create_response_off",
        _input(turn_detection={"type": "server_vad", "create_response": False}),
        (*_DETECTION, "create_response"),
        False,
    ),
    SettingRow(
        "interrupt_response_off",
        _input(turn_detection={"type": "server_vad", "interrupt_response": False}),
        (*_DETECTION, "interrupt_response"),
        False,
    ),
    SettingRow(
        "idle_timeout",
        _input(turn_detection={"type": "server_vad", "idle_timeout_ms": 20000}),
        (*_DETECTION, "idle_timeout_ms"),
        20000,
        optional=True,
    ),
    SettingRow(
        "semantic_vad",
        _input(turn_detection={"type": "semantic_vad"}),
        (*_DETECTION, "eagerness"),
        "auto",
        optional=True,
    ),
    SettingRow(
        "semantic_vad_eagerness",
        _input(turn_detection={"type": "semantic_vad", "eagerness": "high"}),
        (*_DETECTION, "eagerness"),
        "high",
        optional=True,
    ),
    SettingRow("turn_detection_off", _input(turn_detection=None), _DETECTION, None),
    SettingRow(
        "transcription",
        _input(transcription={"model": "gpt-4o-mini-transcribe", "language": "en"}),
        ("audio", "input", "transcription", "language"),
        "en",
    ),
    SettingRow(
        "transcription_off", _input(transcription=None), ("audio", "input", "transcription"), None
    ),
    SettingRow(
        "noise_reduction",
        _input(noise_reduction={"type": "near_field"}),
        ("audio", "input", "noise_reduction", "type"),
        "near_field",
        optional=True,
    ),
    SettingRow(
        "input_pcmu",
        _input(format={"type": "audio/pcmu"}),
        ("audio", "input", "format", "type"),
        "audio/pcmu",
    ),
    SettingRow(
        "input_pcm",
        _input(format={"type": "audio/pcm", "rate": 24000}),
        ("audio", "input", "format", "rate"),
        24000,
    ),
    SettingRow(
        "output_pcma",
        _output(format={"type": "audio/pcma"}),
        ("audio", "output", "format", "type"),
        "audio/pcma",
    ),
    SettingRow("speed", _output(speed=1.25), ("audio", "output", "speed"), 1.25),
    SettingRow("voice", _output(voice="cedar"), ("audio", "output", "voice"), "cedar"),
    SettingRow("tracing", {"tracing": "auto"}, ("tracing",), "auto", optional=True),
    SettingRow("null_prompt", {"prompt": None}, ("prompt",), None),
)


def _update(**session: Any) -> EventFields:
    return {"type": "session.update", "session": {"type": "realtime", **session}}


def _create(**item: Any) -> EventFields:
    return {"type": "conversation.item.create", "item": item}


_TEXT = [{"type": "input_text", "text": "Hello."}]
_BAD_VALUE = ("invalid_value", "invalid_type")
_TOO_SMALL_OR_LARGE = (
    *_BAD_VALUE,
    "integer_below_min_value",
    "integer_above_max_value",
    "decimal_below_min_value",
    "decimal_above_max_value",
)
INVALID: Final = (
    InvalidRow("unknown_type", {"type": "vivavoce.no.such.event"}, ("invalid_value",), "type"),
    InvalidRow(
        "update_without_type",
        {"type": "session.update", "session": {"instructions": "x"}},
        ("missing_required_parameter",),
        "session.type",
    ),
    InvalidRow(
        "update_unknown_parameter",
        _update(no_such_setting=1),
        ("unknown_parameter",),
        "session.no_such_setting",
    ),
    InvalidRow("update_beta_parameter", _update(modalities=["text"]), ("unknown_parameter",)),
    InvalidRow("update_both_modalities", _update(output_modalities=["text", "audio"]), _BAD_VALUE),
    InvalidRow(
        "update_bad_modality",
        _update(output_modalities=["smell"]),
        _BAD_VALUE,
    ),
    InvalidRow(
        "update_speed",
        _update(**_output(speed=9)),
        _TOO_SMALL_OR_LARGE,
        "session.audio.output.speed",
    ),
    InvalidRow(
        "update_threshold",
        _update(**_input(turn_detection={"type": "server_vad", "threshold": 7})),
        _TOO_SMALL_OR_LARGE,
        "session.audio.input.turn_detection.threshold",
    ),
    InvalidRow(
        "update_turn_detection_type",
        _update(**_input(turn_detection={"type": "psychic"})),
        _BAD_VALUE,
        "session.audio.input.turn_detection.type",
    ),
    InvalidRow(
        "update_idle_timeout",
        _update(**_input(turn_detection={"type": "server_vad", "idle_timeout_ms": 10})),
        _TOO_SMALL_OR_LARGE,
    ),
    InvalidRow(
        "update_mixed_turn_detection",
        _update(**_input(turn_detection={"type": "semantic_vad", "threshold": 0.5})),
        ("unknown_parameter",),
        "session.audio.input.turn_detection.threshold",
    ),
    InvalidRow(
        "update_max_output_tokens",
        _update(max_output_tokens=0),
        _TOO_SMALL_OR_LARGE,
        "session.max_output_tokens",
    ),
    InvalidRow("update_tools_type", _update(tools="none"), _BAD_VALUE, "session.tools"),
    InvalidRow(
        "update_tool_choice", _update(tool_choice="sometimes"), _BAD_VALUE, "session.tool_choice"
    ),
    InvalidRow(
        "update_format",
        _update(**_input(format={"type": "audio/mp3"})),
        _BAD_VALUE,
        "session.audio.input.format.type",
    ),
    InvalidRow(
        "update_instructions_type", _update(instructions=7), _BAD_VALUE, "session.instructions"
    ),
    InvalidRow(
        "append_not_base64",
        {"type": "input_audio_buffer.append", "audio": "*** no base64 ***"},
        ("invalid_value",),
    ),
    InvalidRow(
        "append_empty", {"type": "input_audio_buffer.append", "audio": ""}, ("invalid_value",)
    ),
    InvalidRow(
        "append_without_audio",
        {"type": "input_audio_buffer.append"},
        ("missing_required_parameter",),
    ),
    InvalidRow(
        "commit_empty", {"type": "input_audio_buffer.commit"}, ("input_audio_buffer_commit_empty",)
    ),
    InvalidRow(
        "create_without_item",
        {"type": "conversation.item.create"},
        ("missing_required_parameter",),
        "item",
    ),
    InvalidRow("create_item_type", _create(type="poem"), _BAD_VALUE, "item.type"),
    InvalidRow(
        "create_role", _create(type="message", role="cook", content=_TEXT), _BAD_VALUE, "item.role"
    ),
    InvalidRow(
        "create_content_type",
        _create(type="message", role="user", content=[{"type": "smell"}]),
        _BAD_VALUE,
    ),
    InvalidRow(
        "create_unknown_previous_item",
        {
            **_create(type="message", role="user", content=_TEXT),
            "previous_item_id": "item_does_not_exist",
        },
        ("item_create_invalid_previous_item_id",),
    ),
    InvalidRow(
        "create_output_without_call",
        _create(type="function_call_output", call_id="call_does_not_exist", output="{}"),
        ("invalid_tool_call_id",),
    ),
    InvalidRow(
        "retrieve_unknown_item",
        {"type": "conversation.item.retrieve", "item_id": "item_does_not_exist"},
        ("item_retrieve_invalid_item_id",),
    ),
    InvalidRow(
        "delete_unknown_item",
        {"type": "conversation.item.delete", "item_id": "item_does_not_exist"},
        ("item_delete_invalid_item_id",),
    ),
    InvalidRow(
        "truncate_unknown_item",
        {
            "type": "conversation.item.truncate",
            "item_id": "item_does_not_exist",
            "content_index": 0,
            "audio_end_ms": 0,
        },
        ("item_truncate_invalid_item_id",),
    ),
    InvalidRow(
        "cancel_without_response", {"type": "response.cancel"}, ("response_cancel_not_active",)
    ),
    InvalidRow(
        "response_unknown_parameter",
        {"type": "response.create", "response": {"no_such_setting": 1}},
        ("unknown_parameter",),
        "response.no_such_setting",
    ),
    InvalidRow(
        "response_both_modalities",
        {"type": "response.create", "response": {"output_modalities": ["text", "audio"]}},
        _BAD_VALUE,
    ),
    InvalidRow(
        "response_metadata_type",
        {"type": "response.create", "response": {"metadata": "x"}},
        _BAD_VALUE,
    ),
    InvalidRow("output_audio_clear_on_websocket", {"type": "output_audio_buffer.clear"}, ()),
)

checks = CheckList()


def _setting_check(row: SettingRow) -> None:
    path = ".".join(map(str, row.path))

    def judge(recording: CheckRecording) -> None:
        sent = recording.note(f"setting_{row.id}")
        reply = recording.note(f"reply_{row.id}")
        if reply.get("type") == "error" and row.optional:
            raise NotApplicable(f"refused: {at(reply, 'error', 'message')}")
        require(
            reply.get("type") == "session.updated",
            "the update was not answered by session.updated",
            sent,
            reply,
        )
        shown = at(reply, "session", *row.path)
        require(
            shown == row.shown, f"session.{path} shows {shown!r}, not {row.shown!r}", sent, reply
        )

    judge.__doc__ = f"An update of `{path}` to `{row.shown!r}` is shown in `session.updated`."
    checks.add(f"settings.{row.id}", SETTINGS_SECTION, "settings")(judge)


def _invalid_check(row: InvalidRow) -> None:
    codes = " or ".join(f"`{code}`" for code in row.codes) or "an error"

    def judge(recording: CheckRecording) -> None:
        sent = recording.note(f"invalid_{row.id}")
        error = recording.reply_to(sent["event_id"])
        if error is None:
            require(False, "no error event with this event_id came", sent, *recording.tail())
            return
        code, param = at(error, "error", "code"), at(error, "error", "param")
        require(
            not row.codes or code in row.codes, f"the code is {code!r}, not {codes}", sent, error
        )
        require(
            row.param is None or param == row.param,
            f"param is {param!r}, not {row.param!r}",
            sent,
            error,
        )

    kind = row.event["type"]
    judge.__doc__ = f"An invalid `{kind}` ({row.id.replace('_', ' ')}) is refused with {codes}."
    checks.add(f"errors.{row.id}", ERRORS_SECTION, "errors")(judge)


for _setting in SETTINGS:
    _setting_check(_setting)
for _invalid in INVALID:
    _invalid_check(_invalid)
