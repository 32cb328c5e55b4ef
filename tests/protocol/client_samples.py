"""One of every client event, as JSON, in both dialects."""

from typing import Any

USER_ITEM = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
ITEMS: list[dict[str, Any]] = [
    {
        "type": "message",
        "role": "user",
        "status": "completed",
        "object": "realtime.item",
        "content": [
            {"type": "input_text", "text": "Look:"},
            {"type": "input_audio", "audio": "AAAA", "transcript": "Hello"},
        ],
    },
    {"type": "function_call", "call_id": "call_1", "name": "dial", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "call_1", "output": "rings"},
]
TOOLS = [{"type": "function", "name": "dial", "parameters": {"$schema": "x", "type": "object"}}]

COMMON_CLIENT_EVENTS: list[dict[str, Any]] = [
    {"type": "input_audio_buffer.append", "audio": "AAAA"},
    {"type": "input_audio_buffer.commit"},
    {"type": "input_audio_buffer.clear"},
    {"type": "output_audio_buffer.clear"},
    *({"type": "conversation.item.create", "item": item} for item in ITEMS),
    {"type": "conversation.item.create", "item": USER_ITEM, "previous_item_id": "root"},
    {"type": "conversation.item.retrieve", "item_id": "item_1"},
    {
        "type": "conversation.item.truncate",
        "item_id": "item_1",
        "content_index": 0,
        "audio_end_ms": 1,
    },
    {"type": "conversation.item.delete", "item_id": "item_1", "event_id": "mine"},
    {"type": "response.create"},
    {"type": "response.cancel", "response_id": "resp_1"},
]
GA_CLIENT_EVENTS: list[dict[str, Any]] = [
    *COMMON_CLIENT_EVENTS,
    {
        "type": "session.update",
        "event_id": "mine",
        "session": {
            "type": "realtime",
            "model": "gpt-realtime",
            "output_modalities": ["audio"],
            "instructions": "Be brief.",
            "tools": TOOLS,
            "tool_choice": {"type": "function", "name": "dial"},
            "parallel_tool_calls": True,
            "reasoning": {"effort": "low"},
            "max_output_tokens": "inf",
            "truncation": {"type": "retention_ratio", "retention_ratio": 0.8},
            "tracing": {"workflow_name": "w", "metadata": {"a": 1}},
            "prompt": {"id": "pmpt_1"},
            "include": ["item.input_audio_transcription.logprobs"],
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24000},
                    "transcription": {"model": "whisper-1", "language": "it"},
                    "noise_reduction": {"type": "far_field"},
                    "turn_detection": {"type": "server_vad", "threshold": 0.4},
                },
                "output": {"format": {"type": "audio/pcmu"}, "voice": {"id": "v"}, "speed": 1},
            },
        },
    },
    {
        "type": "session.update",
        "session": {
            "type": "transcription",
            "audio": {"input": {"transcription": {"model": "x"}, "turn_detection": None}},
        },
    },
    {
        "type": "response.create",
        "response": {
            "conversation": "none",
            "output_modalities": ["text"],
            "instructions": None,
            "audio": {"output": {"format": {"type": "audio/pcma"}, "voice": "ash"}},
            "tools": TOOLS,
            "tool_choice": "required",
            "max_output_tokens": 10,
            "metadata": {"client_event_id": "e1"},
            "input": [*ITEMS, {"type": "item_reference", "id": "item_1"}],
        },
    },
]
BETA_CLIENT_EVENTS: list[dict[str, Any]] = [
    *COMMON_CLIENT_EVENTS,
    {
        "type": "session.update",
        "event_id": "mine",
        "session": {
            "model": "gpt-4o-realtime-preview",
            "modalities": ["audio", "text"],
            "instructions": "Be brief.",
            "voice": "ash",
            "input_audio_format": "g711_ulaw",
            "output_audio_format": "g711_alaw",
            "input_audio_transcription": {"model": "whisper-1"},
            "input_audio_noise_reduction": {"type": "far_field"},
            "turn_detection": {"type": "semantic_vad", "eagerness": "high"},
            "tools": TOOLS,
            "tool_choice": "dial",
            "temperature": 0.7,
            "max_response_output_tokens": 10,
            "speed": 1.1,
            "tracing": "auto",
        },
    },
    {
        "type": "transcription_session.update",
        "session": {
            "modalities": ["text"],
            "input_audio_format": "pcm16",
            "input_audio_transcription": {"model": "whisper-1"},
            "turn_detection": None,
            "include": ["item.input_audio_transcription.logprobs"],
            "client_secret": {"expires_at": {"anchor": "created_at"}},
        },
    },
    {
        "type": "response.create",
        "response": {
            "conversation": "none",
            "modalities": ["text"],
            "voice": "ash",
            "output_audio_format": "pcm16",
            "tools": TOOLS,
            "tool_choice": "required",
            "temperature": 0.7,
            "max_response_output_tokens": 10,
            "metadata": {"client_event_id": "e1"},
            "input": [*ITEMS, {"type": "item_reference", "id": "item_1"}],
        },
    },
]
