"""Rows of the protocol's checklist that no other test of the session names.

The numbers in the comments are those of the reference's §12.
"""

from typing import Any

import msgspec
import pytest

from tests.session.stage import (
    SPOKEN,
    TURN,
    WHISPER,
    a_session,
    answered,
    ask,
    done,
    events,
    hear,
    of,
    problem,
    receive,
    record,
    say,
    spoke,
    tell,
    texts,
    the,
    transcribe,
    transcription_settings,
    types,
    write,
)
from vivavoce.protocol import codec
from vivavoce.protocol import server as says
from vivavoce.protocol.client import (
    InputAudioAppend,
    InputAudioClear,
    InputAudioCommit,
    ItemCreate,
    ItemDelete,
    ItemRetrieve,
    ItemTruncate,
    ResponseCancel,
    ResponseCreate,
)
from vivavoce.protocol.items import (
    FunctionTool,
    InputAudio,
    InputText,
    Item,
    ItemReference,
    Message,
    ToolChoice,
    ToolName,
)
from vivavoce.protocol.responses import AudioOutputParams, AudioParams
from vivavoce.protocol.server import AnyServerEvent
from vivavoce.protocol.session import (
    ServerVad,
)
from vivavoce.session.effects import Effect, Generate, Prompt, StartTranscription
from vivavoce.session.facts import (
    GenerationFinished,
    OutputFinished,
    TextGenerated,
    ToolCallArguments,
    ToolCallStarted,
    TranscriptionKey,
    TranscriptUpdated,
)

HELLO = InputText("hello")


def wire(event: AnyServerEvent) -> dict[str, Any]:
    """An event as a client sees it."""
    frame = codec.encode(event)
    decoded: dict[str, Any] = msgspec.json.decode(frame)
    return decoded


def prompt(effects: list[Effect]) -> Prompt:
    return the(Generate, effects).prompt


def committed(effects: list[Effect]) -> str:
    return the(says.InputAudioCommitted, effects).item_id


def test_commit_needs_a_tenth_of_a_second() -> None:
    # 46
    session = a_session(turn_detection=None)
    receive(session, InputAudioAppend(audio=bytes(2 * 2399)))
    effects = receive(session, InputAudioCommit(event_id="mine"))
    assert problem(effects) == (
        "input_audio_buffer_commit_empty",
        "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, "
        "but buffer only has 99.96ms of audio.",
    )
    assert the(says.ErrorEvent, effects).error.event_id == "mine"
    receive(session, InputAudioAppend(audio=bytes(2)))
    assert committed(receive(session, InputAudioCommit()))


def test_buffer_is_cleared_also_when_it_is_empty_and_during_an_answer() -> None:
    # 43, 47, 48
    session = a_session(turn_detection=None)
    assert types(receive(session, InputAudioClear())) == ["input_audio_buffer.cleared"]
    answered(write(session, "hello"))
    assert receive(session, InputAudioAppend(audio=SPOKEN))
    assert types(receive(session, InputAudioAppend(audio=SPOKEN))) == []
    assert types(receive(session, InputAudioClear())) == ["input_audio_buffer.cleared"]


def test_turn_keeps_one_item_id_from_its_start_to_its_transcript() -> None:
    # 49, 50, 51, 58
    session = a_session(transcription=WHISPER)
    began = hear(session, "####")
    item_id = the(says.SpeechStarted, began).item_id
    began += tell(session, TranscriptUpdated(the(StartTranscription, began).key, "hello", 5, False))
    ended = hear(session, 16 * ".")
    words = transcribe(session, ended, "hello")
    named = [
        getattr(event, "item_id", None) or event.item.id  # type: ignore[union-attr]
        for event in events(began + ended + words)
        if not isinstance(event, says.ResponseCreated)
    ]
    assert named == [item_id] * len(named)
    assert len(named) == 7


def test_times_count_the_sound_and_include_padding_and_silence() -> None:
    # 52, 115
    session = a_session()
    effects = hear(session, 20 * "." + TURN + "..")
    started, stopped = the(says.SpeechStarted, effects), the(says.SpeechStopped, effects)
    assert started.audio_start_ms == 20 * 32 - 300
    assert stopped.audio_end_ms == 39 * 32
    entry = session.checkpoint(0.0).entries[-1]
    assert entry.samples == (stopped.audio_end_ms - started.audio_start_ms) * 24


def test_user_item_has_no_words_and_no_sound_when_it_is_added() -> None:
    # 45, 66
    session = a_session(turn_detection=None, transcription=WHISPER)
    receive(session, InputAudioAppend(audio=SPOKEN))
    effects = receive(session, InputAudioCommit())
    for event in (the(says.ItemAdded, effects), the(says.ItemDone, effects)):
        assert wire(event)["item"]["content"] == [{"type": "input_audio", "transcript": None}]


def test_every_transcription_reports_its_usage() -> None:
    # 54, 55, 56
    session = a_session(turn_detection=None, transcription=WHISPER)
    record(session, "u", bytes(2 * 24_001))
    tell(session, TranscriptUpdated(TranscriptionKey("u"), "hello", 2, False))
    effects = tell(session, TranscriptUpdated(TranscriptionKey("u"), "hello there", 11, True))
    assert the(says.TranscriptionDelta, effects).delta == "llo there"
    completed = wire(the(says.TranscriptionCompleted, effects))
    assert completed["usage"] == {"type": "duration", "seconds": 2}
    assert (completed["transcript"], completed["content_index"]) == ("hello there", 0)
    assert session.usage.transcribed_seconds == 2


def test_transcription_session_creates_no_response() -> None:
    # 59
    session = a_session(transcription_settings())
    sent = types(say(session, "hello") + say(session, "hello"))
    assert not [kind for kind in sent if kind.startswith("response.")]


def test_ids_and_places_given_by_the_client_are_kept() -> None:
    # 62, 63, 64
    session = a_session()
    places: list[tuple[str, str | None, str | None]] = [
        ("a", None, None),
        ("b", "", "a"),
        ("c", "root", None),
        ("d", "c", "c"),
    ]
    for item_id, asked, before in places:
        item = Message(id=item_id, role="user", content=(HELLO,))
        added = the(says.ItemAdded, receive(session, ItemCreate(item=item, previous_item_id=asked)))
        assert (added.item.id, added.previous_item_id) == (item_id, before)
    lost = Message(id="e", role="user", content=(HELLO,))
    effects = receive(session, ItemCreate(item=lost, previous_item_id="gone"))
    assert problem(effects) == (
        "item_create_invalid_previous_item_id",
        "Error adding item: the previous item with id 'gone' does not exist.",
    )
    assert [entry.item.id for entry in session.checkpoint(0.0).entries] == ["c", "d", "a", "b"]


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (ItemRetrieve(item_id="gone", event_id="mine"), "item_retrieve_invalid_item_id"),
        (ItemDelete(item_id="gone", event_id="mine"), "item_delete_invalid_item_id"),
        (
            ItemTruncate(item_id="gone", content_index=0, audio_end_ms=0, event_id="mine"),
            "item_truncate_invalid_item_id",
        ),
    ],
)
def test_unknown_item_is_an_error_that_names_the_event(event: Any, code: str) -> None:
    # 68, 69, 109, 112
    session = a_session()
    receive(session, ItemCreate(item=Message(id="gone", role="user", content=(HELLO,))))
    receive(session, ItemDelete(item_id="gone"))
    error = wire(the(says.ErrorEvent, receive(session, event)))["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", code)
    assert error["event_id"] == "mine"
    assert set(error) == {"type", "code", "message", "param", "event_id"}


def test_truncate_accepts_only_assistant_audio_within_its_length() -> None:
    # 70, 71, 72, 73, 89
    session = a_session()
    response_id = answered(write(session, "count"))
    user_item = session.checkpoint(0.0).entries[0].item.id
    effects = tell(session, TextGenerated(response_id, "one"))
    item_id = the(says.OutputItemAdded, effects).item.id

    def truncate(item: str, ms: int) -> list[Effect]:
        return receive(session, ItemTruncate(item_id=item, content_index=0, audio_end_ms=ms))

    for item in (user_item, item_id):  # the second has no sound yet
        assert problem(truncate(item, 0)) == (
            "unsupported_content_type",
            "Only model output audio messages can be truncated",
        )
    tell(session, spoke(response_id, "one two"))
    assert problem(truncate(item_id, 201)) == (
        "invalid_value",
        "Audio content of 200ms is already shorter than 201ms",
    )
    assert types(truncate(item_id, 200)) == ["conversation.item.truncated"]
    assert types(truncate(item_id, 100)) == ["conversation.item.truncated"]
    tell(session, OutputFinished(response_id))
    assert texts(prompt(ask(session)).items) == ["count", "one"]


def test_response_shows_every_key_from_creation_to_end() -> None:
    # 79, 80, 81
    session = a_session()
    created = ask(session, metadata={"client_event_id": "x"})
    keys = {
        *("object", "id", "status", "status_details", "output", "conversation_id", "usage"),
        *("output_modalities", "max_output_tokens", "audio", "metadata"),
    }
    first = wire(the(says.ResponseCreated, created))["response"]
    assert set(first) == keys
    assert (first["status"], first["status_details"], first["usage"]) == ("in_progress", None, None)
    last = wire(the(says.ResponseDone, tell(session, OutputFinished(answered(created)))))[
        "response"
    ]
    assert set(last) == keys
    assert (last["status"], last["status_details"]) == ("completed", None)
    assert first["metadata"] == last["metadata"] == {"client_event_id": "x"}
    assert last["usage"] == {
        "total_tokens": 0,
        "input_tokens": 0,
        "output_tokens": 0,
        "input_token_details": {
            "text_tokens": 0,
            "audio_tokens": 0,
            "image_tokens": 0,
            "cached_tokens": 0,
            "cached_tokens_details": {"text_tokens": 0, "audio_tokens": 0, "image_tokens": 0},
        },
        "output_token_details": {"text_tokens": 0, "audio_tokens": 0},
    }


def test_input_of_a_response_replaces_the_conversation() -> None:
    # 84, 85
    session = a_session(turn_detection=None)
    for name in ("a", "b"):
        item = Message(id=name, role="user", content=(InputText(name),))
        receive(session, ItemCreate(item=item))
    recording = Message(role="user", content=(InputAudio(audio=SPOKEN),))
    inputs: list[tuple[tuple[Item | ItemReference, ...], list[str | None]]] = [
        ((), []),
        ((ItemReference("b"),), ["b"]),
        ((Message(role="user", content=(HELLO,)), ItemReference("a")), ["hello", "a"]),
        ((recording, ItemReference("a")), ["psst", "a"]),
    ]
    for listed, read in inputs:
        effects = ask(session, conversation="none", input=listed)
        effects += transcribe(session, effects, "psst")
        assert texts(prompt(effects).items) == read
    assert texts(prompt(ask(session)).items) == ["a", "b"]


def test_parameters_of_a_response_do_not_outlive_it() -> None:
    # 85
    session = a_session(instructions="Be brief.")
    voice = AudioParams(output=AudioOutputParams(voice="ash"))
    effects = ask(session, instructions="Sing.", audio=voice, max_output_tokens=9)
    asked = prompt(effects)
    assert (asked.instructions, asked.voice, asked.max_output_tokens) == ("Sing.", "ash", 9)
    tell(session, OutputFinished(answered(effects)))
    asked = prompt(ask(session))
    assert (asked.instructions, asked.voice, asked.max_output_tokens) == (
        "Be brief.",
        "marin",
        None,
    )


@pytest.mark.parametrize("choice", ["none", "auto", "required", ToolName("wave")])
def test_choice_of_tools_reaches_the_model(choice: ToolChoice) -> None:
    # 94
    tool = FunctionTool("wave")
    session = a_session(tools=(tool,), tool_choice=choice)
    asked = prompt(ask(session))
    assert (asked.tools, asked.tool_choice) == ((tool,), choice)
    asked = prompt(ask(session, conversation="none", tools=(), tool_choice="none"))
    assert (asked.tools, asked.tool_choice) == ((), "none")


def test_message_and_several_calls_are_outputs_in_order() -> None:
    # 75, 86, 88, 90, 91, 92, 93
    session = a_session()
    response_id = answered(write(session, "wave twice"))
    effects = tell(
        session,
        spoke(response_id, "gladly"),
        ToolCallStarted(response_id, 0, "call_1", "wave"),
        ToolCallArguments(response_id, 0, "{}"),
        ToolCallStarted(response_id, 1, "call_2", "wave"),
        ToolCallArguments(response_id, 1, '{"n"'),
        GenerationFinished(response_id, "length"),
        OutputFinished(response_id),
    )
    assert [event.output_index for event in of(says.OutputItemAdded, effects)] == [0, 1, 2]
    begun = [wire(event)["item"] for event in of(says.OutputItemAdded, effects)[1:]]
    assert [(i["call_id"], i["name"], i["arguments"]) for i in begun] == [
        ("call_1", "wave", ""),
        ("call_2", "wave", ""),
    ]
    complete = the(says.FunctionArgumentsDone, effects)
    assert (complete.call_id, complete.name, complete.arguments) == ("call_1", "wave", "{}")
    response = done(effects)
    assert [item.status for item in response.output] == ["incomplete", "completed", "incomplete"]
    assert response.status == "incomplete"
    assert of(Generate, effects) == []


def test_cancel_and_the_end_may_cross() -> None:
    # 82, 102
    session = a_session()
    response_id = answered(write(session, "hello"))
    tell(session, OutputFinished(response_id))
    assert problem(receive(session, ResponseCancel(response_id=response_id)))[0] == (
        "response_cancel_not_active"
    )
    again = answered(ask(session))
    receive(session, ResponseCancel())
    assert tell(session, spoke(again, "late"), OutputFinished(again)) == []
    assert answered(receive(session, ResponseCreate()))


def test_speech_before_the_first_sound_cancels_an_empty_answer() -> None:
    # 98, 99, 100
    session = a_session()
    response_id = answered(say(session, "hello"))
    effects = hear(session, "##")
    assert types(effects) == [
        "input_audio_buffer.speech_started",
        "response.done",
        "rate_limits.updated",
    ]
    response = done(effects)
    assert (response.id, response.output) == (response_id, ())
    assert wire(the(says.ResponseDone, effects))["response"]["status_details"] == {
        "type": "cancelled",
        "reason": "turn_detected",
    }


def test_both_switches_off_leave_only_the_events_of_the_turn() -> None:
    # 101
    vad = ServerVad(create_response=False, interrupt_response=False)
    session = a_session(turn_detection=vad)
    response_id = answered(write(session, "hello"))
    assert types(hear(session, TURN))[:2] == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
    ]
    assert types(tell(session, OutputFinished(response_id))) == [
        "response.done",
        "rate_limits.updated",
    ]
