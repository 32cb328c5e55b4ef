"""The chat completions of the description: what is looked at here, and what comes back.

Requests are read leniently and handed on as they are, so this describes and does not decide.
"""

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType


class ChatInputAudio(msgspec.Struct):
    data: str
    """Base64."""
    format: str | None = None


class ChatContentPart(msgspec.Struct):
    type: str
    text: str | None = None
    input_audio: ChatInputAudio | None = None


class ChatEarlierAudio(msgspec.Struct):
    """What was said in an earlier answer, until it expires."""

    id: str
    transcript: str | None = None


class ChatRequestMessage(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ChatContentPart] | None = None
    audio: ChatEarlierAudio | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class ChatVoice(msgspec.Struct):
    id: str


class ChatSpeechWish(msgspec.Struct):
    voice: str | ChatVoice
    format: Literal["wav", "mp3", "flac", "opus", "aac", "pcm16"] | None = None


class ChatStreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class ChatCompletionRequest(msgspec.Struct):
    """Fields that are not listed here go to the model behind this server unharmed."""

    messages: Annotated[list[ChatRequestMessage], Meta(min_length=1)]
    model: str | None = None
    stream: bool | None = None
    stream_options: ChatStreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    modalities: list[Literal["text", "audio"]] | None = None
    audio: ChatSpeechWish | None = None
    transcription_model: str | None = None
    """Ours: the model that transcribes recordings; that of `model` if it is not given."""
    speech_model: str | None = None
    """Ours: the model that speaks."""


class ChatSpokenAnswer(msgspec.Struct):
    id: str
    expires_at: int
    data: str
    """Base64, in the format that was asked for."""
    transcript: str


class ChatAnswerMessage(msgspec.Struct):
    content: str | None
    role: str = "assistant"
    refusal: str | None = None
    audio: ChatSpokenAnswer | UnsetType | None = UNSET
    tool_calls: list[dict[str, Any]] | UnsetType | None = UNSET


class ChatChoice(msgspec.Struct):
    index: int
    message: ChatAnswerMessage
    finish_reason: str | None
    logprobs: dict[str, Any] | None = None


class ChatCompletion(msgspec.Struct):
    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    object: Literal["chat.completion"] = "chat.completion"
    usage: dict[str, Any] | UnsetType | None = UNSET


ChatProblem: TypeAlias = Annotated[
    dict[str, Any], Meta(description="As the endpoint behind this server tells it.")
]
