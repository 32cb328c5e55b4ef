"""One response, from response.created to response.done."""

import dataclasses
from typing import Any

import msgspec
import pytest

from tests.session.stage import events, of, the, types
from vivavoce.protocol import server as says
from vivavoce.protocol.items import (
    FunctionCall,
    InputAudio,
    InputText,
    Item,
    Message,
    OutputAudio,
    OutputText,
)
from vivavoce.protocol.responses import (
    CachedTokens,
    InputTokens,
    OutputTokens,
    Response,
    ResponseAudio,
    ResponseAudioOutput,
    StatusDetails,
    Usage,
)
from vivavoce.protocol.session import PCM, PCMU
from vivavoce.session.cascade.outputs import SpokenMessage
from vivavoce.session.cascade.response import ResponsePlan, ResponseState
from vivavoce.session.conversation import Conversation, Entry, shown
from vivavoce.session.effects import EffectBuffer, Generate, Ids, Prompt
from vivavoce.session.facts import GenerationFinished, SpokenWord, TokenCounts

PROMPT = Prompt(
    model="local",
    instructions="Be brief.",
    items=(),
    tools=(),
    tool_choice="auto",
    parallel_tool_calls=True,
    max_output_tokens=None,
    language=None,
    spoken=True,
    voice="ash",
    speed=1.0,
)
PLAN = ResponsePlan(
    prompt=PROMPT,
    listed=None,
    inline=(),
    modalities=("audio",),
    max_output_tokens="inf",
    format=PCM(),
    voice="marin",
    metadata={"topic": "news"},
    conversation_id="conv_1",
)
WRITTEN = msgspec.structs.replace(
    PLAN, prompt=dataclasses.replace(PROMPT, spoken=False), modalities=("text",)
)
QUESTION = Entry(Message(id="q", role="user", content=(InputText(text="how are you?"),)))
TENTH = b"\1\0" * 2400
"""A tenth of a second."""
FINE = (SpokenWord("fine ", 0),)


class Stage:
    """A response and what it has sent so far."""

    def __init__(self, plan: ResponsePlan = PLAN, *, beside: bool = False) -> None:
        self.buffer = EffectBuffer(Ids("t"))
        self.conversation = Conversation(kept_bytes=1_000_000)
        self.conversation.add(QUESTION)
        conversation = None if beside else self.conversation
        self.response = ResponseState("resp_1", plan, self.buffer, conversation)
        self.response.reads = (QUESTION,)

    def speak(self, audio: bytes, words: tuple[SpokenWord, ...]) -> None:
        message = self.response.open_message()
        assert isinstance(message, SpokenMessage)
        message.add(audio, words)

    def told(self) -> list[says.AnyServerEvent]:
        return events(self.buffer.drain())

    def kinds(self) -> list[str]:
        return types(self.buffer.drain())


def reported(plan: ResponsePlan = PLAN, **fields: Any) -> Response:
    return Response(
        id="resp_1",
        conversation_id=plan.conversation_id,
        output_modalities=plan.modalities,
        max_output_tokens=plan.max_output_tokens,
        audio=ResponseAudio(ResponseAudioOutput(plan.format, plan.voice)),
        metadata=plan.metadata,
        **fields,
    )


def test_response_created_is_sent_before_the_generation_is_requested() -> None:
    stage = Stage()
    stage.response.begin()
    assert stage.told() == [
        says.ResponseCreated(event_id="event_t00001", response=reported(status="in_progress"))
    ]
    assert stage.response.stage == "stt"


def test_generation_is_requested_with_the_items_that_it_reads() -> None:
    stage = Stage()
    stage.response.generate()
    order = Generate("resp_1", dataclasses.replace(PROMPT, items=(QUESTION.item,)))
    assert stage.buffer.drain() == [order]
    assert (stage.response.generating, stage.response.stage) == (True, "llm")


def test_spoken_answer_is_sent_in_the_order_of_the_protocol() -> None:
    stage = Stage()
    stage.response.begin()
    stage.response.generate()
    stage.response.add_text("fine")
    stage.speak(TENTH, FINE)
    stage.response.finish_generation(GenerationFinished("resp_1", "stop"))
    stage.response.end("completed", None)
    assert stage.kinds() == [
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_audio_transcript.delta",
        "response.output_audio.delta",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
        "rate_limits.updated",
    ]


def test_message_is_announced_empty_and_behind_the_question() -> None:
    stage = Stage()
    stage.response.add_text("fine")
    added, in_conversation, _ = stage.told()
    item = Message(id="item_t00001", status="in_progress", role="assistant", content=())
    assert added == says.OutputItemAdded(
        event_id="event_t00002", response_id="resp_1", output_index=0, item=item
    )
    assert in_conversation == says.ItemAdded(
        event_id="event_t00003", previous_item_id="q", item=item
    )
    assert stage.response.stage == "tts"


def test_finished_message_is_in_output_item_done_and_in_the_conversation() -> None:
    stage = Stage()
    stage.speak(TENTH, FINE)
    stage.told()
    stage.response.end("completed", None)
    sent = stage.buffer.drain()
    item = Message(id="item_t00001", role="assistant", content=(OutputAudio("fine "),))
    assert the(says.OutputItemDone, sent).item == item
    done = the(says.ItemDone, sent)
    assert (done.item, done.previous_item_id) == (item, "q")
    assert the(says.ResponseDone, sent).response.output == (item,)
    assert shown(stage.conversation) == (QUESTION.item, item)


def test_written_answer_is_sent_in_the_order_of_the_protocol() -> None:
    stage = Stage(WRITTEN)
    stage.response.begin()
    stage.response.generate()
    stage.response.add_text("fi")
    stage.response.add_text("ne")
    stage.response.end("completed", None)
    assert stage.kinds() == [
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
        "rate_limits.updated",
    ]
    assert stage.response.stage == "llm"
    item = Message(id="item_t00002", role="assistant", content=(OutputText("fine"),))
    assert stage.conversation.retrieve("item_t00002") == item


def test_written_answer_has_no_spoken_message() -> None:
    stage = Stage(WRITTEN)
    stage.response.add_text("fine")
    assert stage.response.spoken is None


def test_sound_comes_in_the_format_that_was_settled() -> None:
    stage = Stage(msgspec.structs.replace(PLAN, format=PCMU()))
    stage.speak(TENTH, FINE)
    stage.response.end("completed", None)
    deltas = of(says.OutputAudioDelta, stage.buffer.drain())
    assert sum(len(event.delta) for event in deltas) == 800


def test_out_of_band_response_leaves_the_conversation_alone() -> None:
    plan = msgspec.structs.replace(WRITTEN, conversation_id=None)
    stage = Stage(plan, beside=True)
    stage.response.begin()
    stage.response.add_text("fine")
    stage.response.start_call(0, "call_1", "get_news")
    stage.response.end("completed", None)
    sent = stage.buffer.drain()
    assert not [kind for kind in types(sent) if kind.startswith("conversation.")]
    assert the(says.ResponseCreated, sent).response == reported(plan, status="in_progress")
    assert the(says.ResponseDone, sent).response.conversation_id is None
    assert shown(stage.conversation) == (QUESTION.item,)


def call(status: Any = "completed", n: int = 0, **fields: Any) -> FunctionCall:
    return FunctionCall(call_id=f"call_{n}", name=f"do_{n}", status=status, **fields)


def nameless(items: tuple[Item, ...]) -> list[Item]:
    return [msgspec.structs.replace(item, id="") for item in items]


def test_call_is_sent_in_the_order_of_the_protocol() -> None:
    stage = Stage()
    stage.response.start_call(0, "call_0", "do_0")
    stage.response.add_arguments(0, "{")
    stage.response.add_arguments(0, "}")
    stage.response.finish_generation(GenerationFinished("resp_1", "stop"))
    sent = stage.buffer.drain()
    assert types(sent) == [
        "response.output_item.added",
        "conversation.item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "conversation.item.done",
    ]
    added = the(says.OutputItemAdded, sent).item
    assert nameless((added,)) == [call("in_progress", arguments="")]
    done = the(says.OutputItemDone, sent).item
    assert nameless((done,)) == [call("completed", arguments="{}")]


def test_call_is_complete_when_the_next_begins() -> None:
    stage = Stage()
    stage.response.start_call(0, "call_0", "do_0")
    stage.response.add_arguments(0, "{}")
    stage.told()
    stage.response.start_call(1, "call_1", "do_1")
    sent = stage.buffer.drain()
    assert nameless((the(says.OutputItemDone, sent).item,)) == [call(arguments="{}")]
    added = the(says.OutputItemAdded, sent)
    assert (added.output_index, nameless((added.item,))) == (1, [call("in_progress", 1)])


def test_arguments_of_a_complete_or_unknown_call_are_dropped() -> None:
    stage = Stage()
    stage.response.start_call(0, "call_0", "do_0")
    stage.response.start_call(1, "call_1", "do_1")
    stage.told()
    stage.response.add_arguments(0, "late")
    stage.response.add_arguments(7, "stray")
    assert stage.told() == []


def test_message_goes_on_during_calls() -> None:
    stage = Stage()
    stage.speak(TENTH, FINE)
    stage.response.start_call(0, "call_0", "do_0")
    stage.response.finish_generation(GenerationFinished("resp_1", "stop"))
    stage.speak(TENTH, (SpokenWord("thanks", 2400),))
    stage.response.end("completed", None)
    response = the(says.ResponseDone, stage.buffer.drain()).response
    assert nameless(response.output) == [
        Message(role="assistant", content=(OutputAudio("fine thanks"),)),
        call(),
    ]


def test_last_call_of_a_generation_cut_short_is_incomplete() -> None:
    stage = Stage()
    stage.response.start_call(0, "call_0", "do_0")
    stage.response.add_arguments(0, "{")
    stage.told()
    stage.response.finish_generation(GenerationFinished("resp_1", "length"))
    sent = stage.buffer.drain()
    assert types(sent) == ["response.output_item.done", "conversation.item.done"]
    assert nameless((the(says.ItemDone, sent).item,)) == [call("incomplete", arguments="{")]


@pytest.mark.parametrize("arguments", ["{bad", "[1]", "7", "{} {}", "\ud800"])
def test_call_whose_arguments_are_no_json_object_is_incomplete(arguments: str) -> None:
    stage = Stage()
    stage.response.start_call(0, "call_0", "do_0")
    stage.response.add_arguments(0, arguments)
    stage.told()
    stage.response.finish_generation(GenerationFinished("resp_1", "stop"))
    sent = stage.buffer.drain()
    assert types(sent) == ["response.output_item.done", "conversation.item.done"]
    assert the(says.ItemDone, sent).item.status == "incomplete"
    assert "do_0" in str(stage.response.call_problem)


def test_call_without_arguments_is_complete() -> None:
    stage = Stage()
    stage.response.start_call(0, "call_0", "do_0")
    stage.response.finish_generation(GenerationFinished("resp_1", "stop"))
    assert the(says.ItemDone, stage.buffer.drain()).item.status == "completed"
    assert stage.response.call_problem is None


def test_open_outputs_are_closed_at_the_end() -> None:
    stage = Stage()
    stage.response.start_call(0, "call_0", "do_0")
    stage.speak(TENTH, FINE)
    stage.told()
    details = StatusDetails(type="cancelled", reason="turn_detected")
    stage.response.end("cancelled", details)
    sent = stage.buffer.drain()
    assert types(sent) == [
        "response.output_item.done",
        "conversation.item.done",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
        "rate_limits.updated",
    ]
    done = the(says.ResponseDone, sent).response
    assert (done.status, done.status_details) == ("cancelled", details)
    assert [item.status for item in done.output] == ["incomplete", "incomplete"]
    assert [event.item.status for event in of(says.ItemDone, sent)] == ["incomplete"] * 2


def test_item_deleted_meanwhile_ends_for_the_response_only() -> None:
    stage = Stage()
    stage.speak(TENTH, FINE)
    stage.conversation.delete("item_t00001")
    stage.told()
    stage.response.end("completed", None)
    sent = stage.buffer.drain()
    assert of(says.ItemDone, sent) == []
    assert the(says.OutputItemDone, sent).item.id == "item_t00001"
    assert len(stage.conversation) == 1


def test_answer_truncated_during_its_generation_stays_truncated() -> None:
    stage = Stage()
    stage.speak(TENTH, FINE)
    stage.conversation.truncate("item_t00001", 0, 100)
    stage.speak(TENTH, (SpokenWord("thanks", 2400),))
    stage.response.end("completed", None)
    done = the(says.ItemDone, stage.buffer.drain()).item
    assert isinstance(done, Message)
    assert done.content == (OutputAudio("fine thanks"),)
    assert stage.conversation.retrieve("item_t00001") == Message(
        id="item_t00001", role="assistant", content=(OutputAudio("fine", audio=TENTH),)
    )


def test_token_counts_of_the_model_are_used() -> None:
    stage = Stage()
    heard = Entry(Message(id="u", role="user", content=(InputAudio(),)), samples=4801)
    stage.response.reads = (QUESTION, heard)
    stage.response.generate()
    stage.speak(TENTH, FINE)
    stage.response.finish_generation(
        GenerationFinished("resp_1", "stop", TokenCounts(20, 9, cached=5))
    )
    assert stage.response.end("completed", None) == Usage(
        total_tokens=34,
        input_tokens=23,
        output_tokens=11,
        input_token_details=InputTokens(
            text_tokens=20,
            audio_tokens=3,
            cached_tokens=5,
            cached_tokens_details=CachedTokens(text_tokens=5),
        ),
        output_token_details=OutputTokens(text_tokens=9, audio_tokens=2),
    )


def test_tokens_without_counts_of_the_model_are_estimated() -> None:
    stage = Stage()
    stage.response.generate()
    stage.speak(TENTH, FINE)
    usage = stage.response.end("completed", None)  # 3 for "Be brief.", 3 for "how are you?"
    assert usage.input_token_details == InputTokens(text_tokens=6)
    assert usage.output_token_details == OutputTokens(text_tokens=2, audio_tokens=2)
    assert the(says.ResponseDone, stage.buffer.drain()).response.usage == usage


def test_items_added_after_the_request_cost_nothing() -> None:
    stage = Stage()
    stage.response.generate()
    later = Message(id="u", role="user", content=(InputAudio(),))
    stage.conversation.add(Entry(later, samples=24_000))
    assert stage.response.end("completed", None).input_token_details.audio_tokens == 0


def test_response_that_was_not_generated_or_failed_costs_nothing() -> None:
    assert Stage().response.end("cancelled", None) == Usage()
    stage = Stage()
    stage.response.generate()
    stage.speak(TENTH, FINE)
    assert stage.response.end("failed", None) == Usage()
    assert the(says.ResponseDone, stage.buffer.drain()).response.usage == Usage()
