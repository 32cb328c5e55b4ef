"""What a response.create asks for, on top of the settings of the session."""

from typing import TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from vivavoce.errors import InvalidRequest
from vivavoce.protocol.items import Item, ItemReference
from vivavoce.protocol.responses import AudioOutputParams, AudioParams, ResponseParams
from vivavoce.protocol.session import PCM, AudioFormat, CustomVoice, PCMPatch
from vivavoce.session.brain import Shared
from vivavoce.session.cascade.response import ResponsePlan
from vivavoce.session.cascade.transcriptions import language_of
from vivavoce.session.conversation import Entry
from vivavoce.session.effects import Prompt
from vivavoce.session.item_validation import entry_of
from vivavoce.session.options import Options, check_choice, check_modalities, voice_name

T = TypeVar("T")
RESULT_METADATA = {"vivavoce": "background_result"}


def given(value: T | UnsetType | None, default: T) -> T:
    """The value, unless it is absent or null."""
    return default if value is None or isinstance(value, UnsetType) else value


def plan_of(params: ResponseParams, shared: Shared) -> ResponsePlan:
    """Decide what a response is made of.

    Raises InvalidRequest, in which case nothing was changed.
    """
    options, conversation = shared.options, shared.conversation
    session = options.realtime
    modalities = given(params.output_modalities, session.output_modalities)
    check_modalities(modalities, "response.output_modalities")
    tools = given(params.tools, session.tools)
    check_choice(params.tool_choice, tools, "response.tool_choice")
    output = given(given(params.audio, AudioParams()).output, AudioOutputParams())
    asked: str | CustomVoice = session.audio.output.voice
    voice = voice_name(given(output.voice, asked))
    max_output_tokens = given(params.max_output_tokens, session.max_output_tokens)
    listed = None
    if params.input is not UNSET and params.input is not None:
        listed = _listed(params.input, shared)
    reads_conversation = params.conversation != "none" and listed is None
    prompt = Prompt(
        model=options.served_by.model,
        asked_model=session.model,
        speech_model=options.speech_model,
        conversation_id=options.conversation_id,
        instructions=given(params.instructions, session.instructions),
        items=(),
        tools=tools,
        tool_choice=given(params.tool_choice, session.tool_choice),
        parallel_tool_calls=given(params.parallel_tool_calls, session.parallel_tool_calls),
        max_output_tokens=None if max_output_tokens == "inf" else max_output_tokens,
        language=language_of(options),
        spoken=modalities == ("audio",),
        voice=options.voice(voice),
        speed=session.audio.output.speed,
        server_tools=options.rules.tools,
        background_tools=options.rules.background_tools if reads_conversation else frozenset(),
    )
    return ResponsePlan(
        prompt=prompt,
        listed=listed,
        inline=tuple(e for e in listed or () if conversation.find(e.item.id) is not e),
        modalities=modalities,
        max_output_tokens=max_output_tokens,
        format=_format(output, session.audio.output.format),
        voice=voice,
        metadata=given(params.metadata, {}) or None,
        conversation_id=None if params.conversation == "none" else options.conversation_id,
    )


def result_params(options: Options) -> ResponseParams:
    """Settings of a response to the result of a function that ran in the background."""
    choice = options.realtime.tool_choice
    return ResponseParams(
        tool_choice=choice if choice in ("auto", "none") else "auto", metadata=RESULT_METADATA
    )


def _format(output: AudioOutputParams, default: AudioFormat) -> AudioFormat:
    asked = given(output.format, default)
    return PCM() if isinstance(asked, PCMPatch) else asked


def _listed(listed: tuple[Item | ItemReference, ...], shared: Shared) -> tuple[Entry, ...]:
    """A context of its own: items of the conversation, and items that are only here."""
    entries, format_ = [], shared.options.input_format
    for n, item in enumerate(listed):
        if not isinstance(item, ItemReference):
            # with an id of our own, because the conversation may have an item with the client's id
            item = msgspec.structs.replace(item, id="")
            entries.append(entry_of(item, format_, shared.effects.ids, f"response.input[{n}]"))
        elif entry := shared.conversation.find(item.id):
            entries.append(entry)
        else:
            raise InvalidRequest(
                f"Invalid item reference: the item with id '{item.id}' does not exist.",
                param=f"response.input[{n}].id",
            )
    return tuple(entries)
