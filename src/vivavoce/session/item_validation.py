"""Checks items that a client sends and converts them to ours, and converts ours for sending."""

import re

import msgspec
from msgspec import UNSET

from vivavoce.audio.formats import BYTES_PER_SAMPLE, Format, decode, encode
from vivavoce.errors import InvalidRequest
from vivavoce.protocol.items import (
    FunctionCall,
    InputAudio,
    InputImage,
    InputText,
    Item,
    Message,
    OutputAudio,
    OutputText,
    Part,
)
from vivavoce.session.conversation import ROOT, Entry
from vivavoce.session.effects import Ids

MAX_ID_CHARS = 64  # OpenAI allows 32; some clients send more
_CALL_ID = re.compile(r"^[a-zA-Z0-9_-]+$")
_PICTURES = ("data:image/", "https://", "http://")  # an engine must never be made to read a file
_ALLOWED: dict[str, dict[str, type[Part]]] = {
    "system": {"input_text": InputText},
    "user": {"input_text": InputText, "input_audio": InputAudio, "input_image": InputImage},
    "assistant": {"output_text": OutputText},
}


def entry_of(item: Item, format_: Format, ids: Ids, path: str) -> Entry:
    """The item with an id, and its audio separately as PCM.

    Raises InvalidRequest with a param in `path`.
    """
    if len(item.id) > MAX_ID_CHARS:
        raise InvalidRequest(
            f"Invalid '{path}.id': string too long. Expected a string with maximum length "
            f"{MAX_ID_CHARS}, but got a string with length {len(item.id)} instead.",
            code="string_above_max_length",
            param=f"{path}.id",
        )
    if item.id == ROOT:
        raise InvalidRequest(
            f"Invalid '{path}.id': '{ROOT}' stands for the beginning of the conversation.",
            param=f"{path}.id",
        )
    item = msgspec.structs.replace(item, id=item.id or ids.next("item"), status="completed")
    if isinstance(item, Message):
        return _message(item, format_, path)
    if isinstance(item, FunctionCall) and not item.call_id:
        item = msgspec.structs.replace(item, call_id=ids.next("call"))
    if not _CALL_ID.fullmatch(item.call_id):
        raise InvalidRequest(
            f"Invalid '{path}.call_id': string does not match pattern. Expected a string that "
            f"matches the pattern '{_CALL_ID.pattern}'.",
            param=f"{path}.call_id",
        )
    return Entry(item)


def _message(item: Message, format_: Format, path: str) -> Entry:
    entry = Entry(item)
    content: list[Part] = []
    for n, part in enumerate(item.content):
        place = f"{path}.content[{n}]"
        if type(part) not in _ALLOWED[item.role].values():
            raise _misplaced(item.role, part, place)
        if isinstance(part, InputAudio):
            part = _take_sound(entry, n, part, format_, place)
        if isinstance(part, InputImage) and not part.image_url.startswith(_PICTURES):
            raise InvalidRequest(
                f"Invalid '{place}.image_url'. Expected a data URI (data:image/...) or an address "
                f"that begins with https:// or http://.",
                param=f"{place}.image_url",
            )
        content.append(part)
    entry.item = msgspec.structs.replace(item, content=tuple(content))
    return entry


def _take_sound(entry: Entry, n: int, part: InputAudio, format_: Format, place: str) -> InputAudio:
    """Move the audio of a part into the entry."""
    if part.audio is UNSET:
        if part.transcript is None:
            raise InvalidRequest(
                f"Missing required parameter: '{place}.audio'.",
                code="missing_required_parameter",
                param=f"{place}.audio",
            )
        entry.words[n] = part.transcript
        return part
    if format_ == "audio/pcm" and len(part.audio) % BYTES_PER_SAMPLE:
        raise InvalidRequest(
            f"Invalid '{place}.audio': an odd number of bytes. 16-bit PCM has two bytes a sample.",
            param=f"{place}.audio",
        )
    pcm = decode(part.audio, format_)
    entry.recordings[n] = pcm
    entry.samples += len(pcm) // BYTES_PER_SAMPLE
    if part.transcript is not None:
        entry.words[n] = part.transcript
    return InputAudio(transcript=part.transcript)


def _misplaced(role: str, part: Part, place: str) -> InvalidRequest:
    names = " and ".join(f"'{name}'" for name in _ALLOWED[role])
    return InvalidRequest(
        f"Invalid value: '{part.__struct_config__.tag}'. "
        f"Supported values for a message of the {role} are: {names}.",
        param=f"{place}.type",
    )


def in_format(item: Item, format_: Format) -> Item:
    """The item with its audio, PCM, in the format that the client uses."""
    if not isinstance(item, Message):
        return item
    content = tuple(
        msgspec.structs.replace(part, audio=encode(part.audio, format_))
        if isinstance(part, InputAudio | OutputAudio) and isinstance(part.audio, bytes)
        else part
        for part in item.content
    )
    return msgspec.structs.replace(item, content=content)
