"""Conversation items and their content parts, as GA Realtime has them. Data only."""

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

MAX_PARTS = 128  # content parts of an item
MAX_TOOLS = 128
MAX_INPUT_ITEMS = 256  # of `response.input`

Status: TypeAlias = Literal["completed", "incomplete", "in_progress"]


class InputText(msgspec.Struct, frozen=True, tag_field="type", tag="input_text"):
    """Text of a user or of the system."""

    text: str


class InputAudio(msgspec.Struct, frozen=True, tag_field="type", tag="input_audio"):
    """Speech of a user. `audio` crosses the wire only on create and on retrieve."""

    audio: bytes | UnsetType = UNSET  # base64 on the wire
    transcript: str | None = None


class InputImage(msgspec.Struct, frozen=True, tag_field="type", tag="input_image"):
    """An image that the user shows, as a data URI."""

    image_url: str
    detail: Literal["auto", "low", "high"] | UnsetType = UNSET


class OutputText(msgspec.Struct, frozen=True, tag_field="type", tag="output_text"):
    """Text of the assistant."""

    text: str


class OutputAudio(msgspec.Struct, frozen=True, tag_field="type", tag="output_audio"):
    """Speech of the assistant. `audio` crosses the wire only on retrieve."""

    transcript: str = ""
    audio: bytes | UnsetType = UNSET


Part: TypeAlias = InputText | InputAudio | InputImage | OutputText | OutputAudio
Parts: TypeAlias = Annotated[tuple[Part, ...], Meta(max_length=MAX_PARTS)]


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="message"):
    """A message of the user, the assistant or the system."""

    id: str = ""
    object: Literal["realtime.item"] = "realtime.item"
    status: Status = "completed"
    role: Literal["system", "user", "assistant"]
    content: Parts


class FunctionCall(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="function_call"
):
    """The assistant asks the client to run a function. `arguments` is JSON text, "" at first."""

    id: str = ""
    object: Literal["realtime.item"] = "realtime.item"
    status: Status = "completed"
    call_id: str = ""
    name: str
    arguments: str = ""


class FunctionCallOutput(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="function_call_output"
):
    """The result of a function call."""

    id: str = ""
    object: Literal["realtime.item"] = "realtime.item"
    status: Status = "completed"
    call_id: str
    output: str


class ItemReference(msgspec.Struct, frozen=True, tag_field="type", tag="item_reference"):
    """Refers to an item of the conversation. Only inside `response.input`."""

    id: str


Item: TypeAlias = Message | FunctionCall | FunctionCallOutput


class FunctionTool(msgspec.Struct, frozen=True, tag_field="type", tag="function"):
    """A function that the model may ask the client to run. `parameters` is a JSON schema."""

    name: str
    description: str | UnsetType = UNSET
    parameters: dict[str, Any] | UnsetType = UNSET


Tools: TypeAlias = Annotated[tuple[FunctionTool, ...], Meta(max_length=MAX_TOOLS)]


class ToolName(msgspec.Struct, frozen=True, tag_field="type", tag="function"):
    """The one function that the model must call."""

    name: str


ToolChoice: TypeAlias = Literal["none", "auto", "required"] | ToolName
