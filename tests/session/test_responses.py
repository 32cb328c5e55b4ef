"""What ends a response: calls nobody may run, and limits of length."""

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import msgspec
import pytest

from tests.session.stage import (
    a_session,
    answered,
    ask,
    done,
    failure,
    hear,
    of,
    problem,
    receive,
    say,
    spoke,
    tell,
    the,
    types,
    update,
    write,
)
from vivavoce.protocol import server as says
from vivavoce.protocol.client import (
    InputAudioAppend,
    InputAudioClear,
    ItemCreate,
    ItemDelete,
    ResponseCancel,
    ResponseCreate,
)
from vivavoce.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    FunctionTool,
    InputText,
    Message,
)
from vivavoce.protocol.responses import ResponseParams
from vivavoce.protocol.session import RealtimePatch
from vivavoce.session.conversation import Conversation, Entry
from vivavoce.session.effects import (
    AddEchoReference,
    CancelGeneration,
    CleanAudio,
    ClearEchoReference,
    ConfigureCleaning,
    Effect,
    Generate,
    RecordUsage,
    RunVad,
)
from vivavoce.session.facts import (
    AudioCleaned,
    Fact,
    GenerationFinished,
    OutputFinished,
    TextGenerated,
    ToolCallArguments,
    ToolCallStarted,
)
from vivavoce.session.limits import MAX_CALLS_PER_RESPONSE, SessionLimits
from vivavoce.session.shell import Session

# calls that nobody may run


def called(response_id: str, arguments: str, *, index: int = 0, name: str = "wave") -> list[Fact]:
    """The model calls a function."""
    return [
        ToolCallStarted(response_id, index, f"call_{index}", name),
        ToolCallArguments(response_id, index, arguments),
    ]


def ended(response_id: str, reason: Any = "stop") -> list[Fact]:
    """The model ends."""
    return [GenerationFinished(response_id, reason), OutputFinished(response_id)]


def test_audio_of_an_answer_in_text_is_ignored() -> None:
    session = a_session(output_modalities=("text",))
    response_id = the(Generate, write(session, "Hello.")).response_id
    assert types(tell(session, TextGenerated(response_id, "Hi."))) != []
    assert tell(session, spoke(response_id, "Hi.")) == []


def test_call_of_an_undeclared_function_is_not_announced_and_fails_the_response() -> None:
    session = a_session()
    response_id = answered(write(session, "hello"))
    effects = tell(session, *called(response_id, "{}", name="rm"))
    assert the(CancelGeneration, effects) == CancelGeneration(response_id)
    assert types(effects) == ["response.done", "rate_limits.updated"]
    assert failure(effects) == (
        "invalid_tool_call",
        "The model called a function that was not declared: 'rm'.",
    )
    assert tell(session, *ended(response_id)) == []


def test_call_of_a_function_that_only_the_response_declares_is_announced() -> None:
    session = a_session()
    write(session, "hello")
    receive(session, ResponseCancel())
    params = ResponseParams(tools=(FunctionTool("rm"),))
    response_id = answered(receive(session, ResponseCreate(response=params)))
    effects = tell(session, *called(response_id, "{}", name="rm"), *ended(response_id))
    assert done(effects).status == "completed"


def test_call_of_a_function_that_only_the_session_declares_fails_the_response() -> None:
    session = a_session()
    response_id = answered(ask(session, tools=()))
    effects = tell(session, *called(response_id, "{}"))
    assert failure(effects)[0] == "invalid_tool_call"


def test_name_of_an_undeclared_function_is_cut_in_the_error() -> None:
    session = a_session()
    response_id = answered(write(session, "hello"))
    _, message = failure(tell(session, *called(response_id, "{}", name="x" * 5000)))
    assert len(message) < 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ('{"n"', "are not valid JSON"),
        ("[1]", "are not a JSON object"),
        ("null", "are not a JSON object"),
        ("[" * 5000, "are not valid JSON"),
    ],
)
def test_call_without_a_json_object_is_incomplete_and_fails_the_response(
    arguments: str, message: str
) -> None:
    session = a_session()
    response_id = answered(write(session, "hello"))
    effects = tell(session, *called(response_id, arguments), *ended(response_id))
    code, reason = failure(effects)
    assert code == "invalid_tool_call"
    assert message in reason
    assert of(says.FunctionArgumentsDone, effects) == []
    (call,) = done(effects).output
    assert call.status == "incomplete"
    assert the(says.OutputItemDone, effects).item == call
    read = the(Generate, ask(session)).prompt.items
    assert [type(item) for item in read] == [Message]


def test_call_without_arguments_is_complete() -> None:
    session = a_session()
    response_id = answered(write(session, "hello"))
    start = ToolCallStarted(response_id, 0, "call_0", "wave")
    effects = tell(session, start, *ended(response_id))
    assert done(effects).status == "completed"


def test_call_cut_off_by_the_token_limit_ends_the_response_incomplete() -> None:
    session = a_session()
    response_id = answered(write(session, "hello"))
    effects = tell(session, *called(response_id, '{"n"'), *ended(response_id, "length"))
    assert done(effects).status == "incomplete"
    assert done(effects).output[0].status == "incomplete"


def test_more_calls_than_the_limit_fail_the_response() -> None:
    session = a_session()
    response_id = answered(write(session, "hello"))
    for n in range(MAX_CALLS_PER_RESPONSE):
        assert "response.done" not in types(tell(session, *called(response_id, "{}", index=n)))
    effects = tell(session, *called(response_id, "{}", index=MAX_CALLS_PER_RESPONSE))
    assert failure(effects)[0] == "invalid_tool_call"
    assert len(done(effects).output) == MAX_CALLS_PER_RESPONSE
    assert of(CancelGeneration, effects)


# limits of length


def test_text_beyond_the_token_limit_ends_the_response_incomplete() -> None:
    session = a_session(limits=SessionLimits(max_response_tokens=10), output_modalities=("text",))
    response_id = answered(write(session, "hello"))
    assert "response.done" not in types(tell(session, TextGenerated(response_id, "x" * 43)))
    effects = tell(session, TextGenerated(response_id, "y"))
    assert the(CancelGeneration, effects) == CancelGeneration(response_id)
    response = done(effects)
    assert response.status == "incomplete"
    assert response.status_details is not None
    assert response.status_details.reason == "max_output_tokens"
    assert the(says.OutputTextDone, effects).text == "x" * 43 + "y"


def test_arguments_count_as_text_of_a_response() -> None:
    session = a_session(limits=SessionLimits(max_response_tokens=10))
    response_id = answered(write(session, "hello"))
    effects = tell(session, *called(response_id, "[" * 44))
    assert done(effects).status == "incomplete"


def test_text_within_the_limit_that_the_client_set_is_the_engines_business() -> None:
    session = a_session(limits=SessionLimits(max_response_tokens=10), max_output_tokens=4000)
    order = the(Generate, write(session, "hello"))
    assert order.prompt.max_output_tokens == 4000
    effects = tell(session, TextGenerated(order.response_id, "x" * 1000))
    assert "response.done" not in types(effects)


def test_audio_beyond_the_limit_ends_the_response_incomplete() -> None:
    session = a_session(limits=SessionLimits(max_response_seconds=0.25))
    response_id = answered(write(session, "hello"))
    assert "response.done" not in types(tell(session, spoke(response_id, "one two", ms=100)))
    effects = tell(session, spoke(response_id, "three", ms=100))
    assert of(CancelGeneration, effects)
    assert done(effects).status == "incomplete"
    assert the(says.OutputTranscriptDone, effects).transcript == "one two three "


def test_failed_response_is_recorded_without_tokens() -> None:
    session = a_session()
    response_id = answered(write(session, "hello"))
    effects = session.handle(ToolCallStarted(response_id, 0, "c", "rm"), 0.0)
    record = the(RecordUsage, effects)
    assert (record.model, record.usage.total_tokens) == (  # type: ignore[union-attr]
        "gpt-realtime",
        0,
    )
    assert session.usage.responses == 1


# items


def text_item(item_id: str = "", text: str = "hello") -> Message:
    return Message(id=item_id, role="user", content=(InputText(text),))


def test_item_beyond_the_limit_of_the_conversation_is_refused_until_one_is_deleted() -> None:
    session = a_session(limits=SessionLimits(max_items=2))
    for item_id in ("a", "b"):
        receive(session, ItemCreate(item=text_item(item_id)))
    code, message = problem(receive(session, ItemCreate(item=text_item("c"))))
    assert code == "conversation_too_long"
    assert "2 items" in message
    receive(session, ItemDelete(item_id="a"))
    effects = receive(session, ItemCreate(item=text_item("c")))
    assert types(effects) == ["conversation.item.added", "conversation.item.done"]


def test_items_of_the_session_itself_are_added_beyond_the_limit() -> None:
    session = a_session(limits=SessionLimits(max_items=1))
    receive(session, ItemCreate(item=text_item("a")))
    response_id = answered(say(session, "hello"))
    effects = tell(session, spoke(response_id, "hi"), OutputFinished(response_id))
    assert done(effects).status == "completed"


def test_item_id_of_the_open_turn_is_refused_and_free_when_it_was_dropped() -> None:
    session = a_session()
    announced = the(says.SpeechStarted, hear(session, "####")).item_id
    code, _ = problem(receive(session, ItemCreate(item=text_item(announced))))
    assert code == "item_create_duplicate_item_id"
    receive(session, InputAudioClear())
    assert the(says.ItemAdded, receive(session, ItemCreate(item=text_item(announced))))


def test_item_id_of_a_deleted_item_may_be_used_again() -> None:
    session = a_session()
    receive(session, ItemCreate(item=text_item("a")))
    receive(session, ItemDelete(item_id="a"))
    assert the(says.ItemAdded, receive(session, ItemCreate(item=text_item("a"))))


def test_own_item_ids_skip_those_that_the_client_has_taken() -> None:
    session = a_session()
    probe = a_session()
    numbered = the(says.ItemAdded, receive(probe, ItemCreate(item=text_item(text="probe")))).item.id
    prefix, number = numbered[:-5], int(numbered[-5:], 16)
    taken = {f"{prefix}{n:05x}" for n in range(number + 125, number + 185)}
    for item_id in sorted(taken):
        receive(session, ItemCreate(item=text_item(item_id)))
    response_id = answered(say(session, "hello"))
    effects = tell(
        session, spoke(response_id, "hi"), *called(response_id, "{}"), *ended(response_id)
    )
    outputs = [item.id for item in done(effects).output]
    assert len(outputs) == 2
    assert not taken & set(outputs)
    turn = the(says.SpeechStarted, hear(session, "####")).item_id
    assert turn not in taken


def test_output_of_a_function_call_needs_the_call() -> None:
    session = a_session()
    output = FunctionCallOutput(call_id="c1", output="42")
    code, _ = problem(receive(session, ItemCreate(item=output)))
    assert code == "invalid_tool_call_id"
    receive(session, ItemCreate(item=FunctionCall(id="f", call_id="c1", name="wave")))
    assert the(says.ItemAdded, receive(session, ItemCreate(item=output)))
    receive(session, ItemDelete(item_id="f"))
    code, _ = problem(receive(session, ItemCreate(item=output)))
    assert code == "invalid_tool_call_id"


def calls_made(work: Callable[[], object]) -> int:
    """Python and C functions that are called, and times that a generator goes on."""
    calls = 0

    def count(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    gc.disable()  # a collection calls the functions in gc.callbacks
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
        gc.enable()
    return calls


def test_conversation_item_added_costs_the_same_at_any_length() -> None:
    costs = []
    for length in (100, 10_000):
        conversation = Conversation(kept_bytes=1000)
        for n in range(length):
            conversation.add(Entry(text_item(f"i{n}"), recordings={0: bytes(10)}))
        entry = Entry(text_item("new"))
        costs.append(calls_made(lambda c=conversation, e=entry: c.add(e)))  # type: ignore[misc]
    assert costs[0] == costs[1] < 50


@pytest.mark.parametrize("after", ["root", "i50", None])
def test_session_item_created_costs_the_same_at_any_length(after: str | None) -> None:
    costs = []
    for length in (100, 5_000):
        session = a_session(limits=SessionLimits(max_items=10_000))
        for n in range(length):
            receive(session, ItemCreate(item=text_item(f"i{n}")))
        create = ItemCreate(item=text_item("new"), previous_item_id=after)
        costs.append(calls_made(lambda s=session, c=create: receive(s, c)))  # type: ignore[misc]
    assert costs[0] == costs[1]


# noise reduction


def cleaning() -> Session:
    """A session whose client asks for noise reduction."""
    session = a_session()
    configured = _update_noise(session, "near_field")
    assert of(ConfigureCleaning, configured) == [ConfigureCleaning("near_field")]
    return session


def _update_noise(session: Session, kind: str | None) -> list[Effect]:
    reduction = None if kind is None else {"type": kind}
    patch = {"audio": {"input": {"noise_reduction": reduction}}}
    return update(session, msgspec.convert(patch, type=RealtimePatch))


def test_cleaning_configured_again_only_where_the_setting_changes() -> None:
    session = cleaning()
    assert of(ConfigureCleaning, _update_noise(session, "near_field")) == []
    assert of(ConfigureCleaning, _update_noise(session, "far_field")) == [
        ConfigureCleaning("far_field")
    ]
    assert of(ConfigureCleaning, _update_noise(session, None)) == [ConfigureCleaning(None)]


def test_audio_is_cleaned_before_it_is_scored() -> None:
    session = cleaning()
    audio = b"\1\0" * 768
    effects = receive(session, InputAudioAppend(audio=audio))
    assert effects == [CleanAudio(audio)]
    cleaned = b"\2\0" * 768
    assert tell(session, AudioCleaned(cleaned)) == [RunVad(0, cleaned)]


def test_recording_sent_at_once_is_not_cleaned() -> None:
    session = cleaning()
    effects = receive(session, InputAudioAppend(audio=bytes(48_000)))
    assert of(CleanAudio, effects) == []
    assert of(RunVad, effects)


def test_answer_is_the_reference_of_the_echo_until_it_is_interrupted() -> None:
    session = cleaning()
    response_id = answered(write(session, "hello"))
    piece = spoke(response_id, "one")
    assert the(AddEchoReference, tell(session, piece)) == AddEchoReference(piece.audio)
    assert of(ClearEchoReference, receive(session, ResponseCancel()))


def test_session_without_noise_reduction_asks_for_no_cleaning() -> None:
    session = a_session()
    effects = hear(session, "####")
    response_id = answered(write(session, "hello"))
    effects += tell(session, spoke(response_id, "one"))
    effects += receive(session, ResponseCancel())
    for kind in (CleanAudio, AddEchoReference, ClearEchoReference, ConfigureCleaning):
        assert of(kind, effects) == []
