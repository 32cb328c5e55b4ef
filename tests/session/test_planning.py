"""What a response.create asks for, on top of the session."""

import msgspec
import pytest
from msgspec import UNSET

from tests.session.stage import settings, shared
from vivavoce.errors import InvalidRequest
from vivavoce.protocol.items import (
    FunctionTool,
    InputAudio,
    InputText,
    Item,
    ItemReference,
    Message,
    OutputText,
    ToolName,
)
from vivavoce.protocol.responses import AudioOutputParams, AudioParams, ResponseParams
from vivavoce.protocol.session import PCM, PCMU, CustomVoice, PCMPatch, SessionObject, Transcription
from vivavoce.session.cascade.planning import given, plan_of
from vivavoce.session.cascade.response import ResponsePlan
from vivavoce.session.conversation import Conversation, Entry
from vivavoce.session.effects import Prompt

WEATHER = FunctionTool("get_weather")
NEWS = FunctionTool("get_news")
KNOWN: Item = Message(id="known", role="user", content=(InputText(text="hello"),))
IN_FORCE = settings(
    instructions="Be brief.",
    tools=(WEATHER,),
    tool_choice="required",
    parallel_tool_calls=False,
    max_output_tokens=100,
    transcription=Transcription(model="whisper-1", language="it"),
    output_format=PCMU(),
)


def plan(
    params: ResponseParams,
    session: SessionObject = IN_FORCE,
    conversation: Conversation | None = None,
) -> ResponsePlan:
    whole = shared(session)
    return plan_of(
        params, msgspec.structs.replace(whole, conversation=conversation or a_conversation())
    )


def a_conversation() -> Conversation:
    conversation = Conversation(kept_bytes=1000)
    conversation.add(Entry(KNOWN))
    return conversation


def audio(output: AudioOutputParams) -> ResponseParams:
    return ResponseParams(audio=AudioParams(output=output))


def refused(params: ResponseParams) -> tuple[str | None, str]:
    """Param and message of the refusal."""
    with pytest.raises(InvalidRequest) as caught:
        plan(params)
    return caught.value.param, caught.value.message


def with_input(*items: Item | ItemReference) -> ResponseParams:
    return ResponseParams(input=items)


def test_response_without_parameters_has_those_of_the_session() -> None:
    assert plan(ResponseParams()) == ResponsePlan(
        prompt=Prompt(
            model="gpt-realtime",
            asked_model="gpt-realtime",
            instructions="Be brief.",
            items=(),
            tools=(WEATHER,),
            tool_choice="required",
            parallel_tool_calls=False,
            max_output_tokens=100,
            language="it",
            spoken=True,
            voice="marin",
            speed=1.0,
            conversation_id="conv_1",
        ),
        listed=None,
        inline=(),
        modalities=("audio",),
        max_output_tokens=100,
        format=PCMU(),
        voice="marin",
        metadata=None,
        conversation_id="conv_1",
    )


def test_parameters_of_a_response_overrule_the_session() -> None:
    wished = plan(
        ResponseParams(
            output_modalities=("text",),
            instructions="Be long.",
            audio=AudioParams(output=AudioOutputParams(format=PCMPatch(), voice="ash")),
            tools=(NEWS,),
            tool_choice=ToolName("get_news"),
            parallel_tool_calls=True,
            max_output_tokens=7,
            metadata={"topic": "news"},
            conversation="none",
            input=(),
        )
    )
    assert wished == ResponsePlan(
        prompt=Prompt(
            model="gpt-realtime",
            asked_model="gpt-realtime",
            instructions="Be long.",
            items=(),
            tools=(NEWS,),
            tool_choice=ToolName("get_news"),
            parallel_tool_calls=True,
            max_output_tokens=7,
            language="it",
            spoken=False,
            voice="ash",
            speed=1.0,
            conversation_id="conv_1",
        ),
        listed=(),
        inline=(),
        modalities=("text",),
        max_output_tokens=7,
        format=PCM(),
        voice="ash",
        metadata={"topic": "news"},
        conversation_id=None,
    )


def test_null_means_not_given() -> None:
    nulls = {name: None for name in ResponseParams.__struct_fields__}
    assert plan(ResponseParams(**nulls)) == plan(ResponseParams())
    assert plan(audio(AudioOutputParams(format=None, voice=None))) == plan(ResponseParams())
    assert plan(ResponseParams(audio=AudioParams(output=None))) == plan(ResponseParams())


@pytest.mark.parametrize(("value", "expected"), [(None, 5), (UNSET, 5), (0, 0), (7, 7)])
def test_parameters_that_are_null_or_absent_have_no_value(
    value: int | msgspec.UnsetType | None, expected: int
) -> None:
    assert given(value, 5) == expected


def test_empty_parameters_of_a_response_are_parameters() -> None:
    wished = plan(ResponseParams(instructions="", tools=(), metadata={}))
    assert (wished.prompt.instructions, wished.prompt.tools, wished.metadata) == ("", (), None)


def test_token_limit_inf_is_none_for_the_model() -> None:
    wished = plan(ResponseParams(max_output_tokens="inf"))
    assert (wished.max_output_tokens, wished.prompt.max_output_tokens) == ("inf", None)


def test_unknown_voice_is_shown_and_served_by_the_default() -> None:
    wished = plan(audio(AudioOutputParams(voice="nova")))
    assert (wished.voice, wished.prompt.voice) == ("nova", "ash")
    wished = plan(audio(AudioOutputParams(voice=CustomVoice("voice_1"))))
    assert (wished.voice, wished.prompt.voice) == ("voice_1", "ash")


def test_unknown_model_is_answered_by_the_default() -> None:
    session = msgspec.structs.replace(IN_FORCE, model="gpt-realtime-9")
    assert plan(ResponseParams(), session).prompt.model == "local"


def test_g711_can_be_asked_for() -> None:
    assert plan(audio(AudioOutputParams(format=PCMU())), settings()).format == PCMU()


def test_both_modalities_at_once_are_refused() -> None:
    assert refused(ResponseParams(output_modalities=("audio", "text"))) == (
        "response.output_modalities",
        "Invalid modalities: ['audio', 'text']. "
        "Supported combinations are: ['text'] and ['audio'].",
    )


def test_item_reference_is_the_item_itself() -> None:
    conversation = a_conversation()
    wished = plan(with_input(ItemReference("known")), conversation=conversation)
    assert wished.listed is not None
    assert wished.listed[0] is conversation.find("known")
    assert wished.inline == ()


def test_item_in_the_input_has_a_new_id_and_is_not_in_the_conversation() -> None:
    item = Message(id="known", role="assistant", content=(OutputText(text="hi"),))
    wished = plan(with_input(ItemReference("known"), item))
    assert wished.listed is not None
    assert [entry.item for entry in wished.listed] == [
        KNOWN,
        Message(id="item_t00001", role="assistant", content=(OutputText(text="hi"),)),
    ]
    assert wished.inline == wished.listed[1:]


def test_item_given_twice_is_two_items() -> None:
    item = Message(id="x", role="user", content=(InputAudio(audio=b"\1\0"),))
    wished = plan(with_input(item, item))
    assert [entry.item.id for entry in wished.inline] == ["item_t00001", "item_t00002"]
    assert [entry.recordings for entry in wished.inline] == [{0: b"\1\0"}, {0: b"\1\0"}]


def test_reference_to_an_unknown_item_is_refused() -> None:
    assert refused(with_input(ItemReference("known"), ItemReference("gone"))) == (
        "response.input[1].id",
        "Invalid item reference: the item with id 'gone' does not exist.",
    )


def test_bad_item_in_the_input_is_refused_at_its_place() -> None:
    item = Message(role="user", content=(OutputText(text="hi"),))
    param, _ = refused(with_input(ItemReference("known"), item))
    assert param == "response.input[1].content[0].type"
