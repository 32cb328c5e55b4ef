"""A session as a whole: what it does with each fact, when it wants to be woken, how it ends."""

import msgspec
import pytest

from tests.session.stage import (
    MODELS,
    SPOKEN,
    WHISPER,
    a_session,
    answered,
    ask,
    done,
    drawn,
    events,
    failure,
    final,
    hear,
    kept,
    of,
    problem,
    receive,
    record,
    say,
    settings,
    spoke,
    tell,
    the,
    transcribe,
    transcription_settings,
    types,
    update,
    wake,
    write,
)
from vivavoce.audio.formats import encode
from vivavoce.errors import InvalidRequest
from vivavoce.protocol import server as says
from vivavoce.protocol.client import (
    InputAudioAppend,
    InputAudioClear,
    InputAudioCommit,
    ItemCreate,
    ItemDelete,
    ItemRetrieve,
    ItemTruncate,
    OutputAudioClear,
    ResponseCancel,
    ResponseCreate,
)
from vivavoce.protocol.items import FunctionCall, FunctionCallOutput, InputAudio, InputText, Message
from vivavoce.protocol.session import (
    PCMU,
    AudioInputPatch,
    AudioPatch,
    RealtimePatch,
    SemanticVad,
    ServerVad,
    TranscriptionSessionPatch,
)
from vivavoce.session.effects import (
    CancelGeneration,
    CancelTranscription,
    Close,
    ScoreTurn,
    Send,
    StartTranscription,
)
from vivavoce.session.facts import (
    AccessEnded,
    Disconnected,
    DrainStarted,
    InvalidFrame,
    ItemTranscriptionFailed,
    OutputFinished,
    TranscriptionKey,
    TranscriptUpdated,
    TurnScored,
)
from vivavoce.session.limits import SessionLimits
from vivavoce.session.shell import Session

HOUR = 3600.0
NEVER = float("inf")
DEAF = RealtimePatch(audio=AudioPatch(input=AudioInputPatch(turn_detection=None)))
HELLO = Message(id="hello", role="user", content=(InputText("hello"),))


def test_client_is_greeted_with_its_session() -> None:
    session = Session(settings(), MODELS, SessionLimits(), salt="t", now=0.0)
    (greeting,) = session.begin()
    assert isinstance(greeting, Send)
    assert isinstance(greeting.event, says.SessionCreated)
    assert greeting.event.session == session.checkpoint(0.0).session
    assert greeting.event.event_id == "event_t00002"  # the first id is of the user's first item


def test_settings_are_answered_with_the_whole_session() -> None:
    session = a_session()
    sent = the(says.SessionUpdated, update(session, DEAF)).session
    assert sent == session.checkpoint(0.0).session
    assert sent == settings(turn_detection=None, served_by=sent.served_by)


def test_session_type_can_be_changed_before_anything_has_happened() -> None:
    patch = TranscriptionSessionPatch()
    assert types(update(a_session(), patch)) == ["session.updated"]
    used = [a_session() for _ in range(3)]
    receive(used[0], ItemCreate(item=HELLO))
    receive(used[1], InputAudioAppend(audio=b"\0\0"))
    ask(used[2])
    for session in used:
        assert problem(update(session, patch))[0] == "invalid_parameter"


def test_refusal_names_the_event_that_caused_it() -> None:
    session = a_session()
    effects = receive(session, ItemDelete(item_id="gone", event_id="mine"))
    error = the(says.ErrorEvent, effects).error
    assert (error.code, error.event_id) == ("item_delete_invalid_item_id", "mine")
    assert error.type == "invalid_request_error"


def test_invalid_frame_is_refused() -> None:
    bad = InvalidRequest("No.", code="invalid_value", param="type", event_id="mine")
    assert events(tell(a_session(), InvalidFrame(bad))) == [
        says.ErrorEvent(
            event_id="event_t00003",
            error=says.ErrorBody(
                code="invalid_value", message="No.", param="type", event_id="mine"
            ),
        )
    ]


def test_output_buffer_clear_without_one_is_an_error() -> None:
    effects = receive(a_session(), OutputAudioClear(event_id="mine"))
    error = the(says.ErrorEvent, effects).error
    assert (error.code, error.param, error.event_id) == ("invalid_value", "type", "mine")


def test_input_buffer_is_cleared() -> None:
    session = a_session(turn_detection=None)
    receive(session, InputAudioAppend(audio=SPOKEN))
    effects = receive(session, InputAudioClear())
    assert types(effects) == ["input_audio_buffer.cleared"]
    assert problem(receive(session, InputAudioCommit()))[0] == "input_audio_buffer_commit_empty"


def test_item_is_added_and_done_at_once() -> None:
    session = a_session()
    receive(session, ItemCreate(item=HELLO))
    first = Message(role="system", content=(InputText("be kind"),))
    sent = events(receive(session, ItemCreate(item=first, previous_item_id="root")))
    item = msgspec.structs.replace(first, id="item_t00005")
    assert sent == [
        says.ItemAdded(event_id="event_t00006", previous_item_id=None, item=item),
        says.ItemDone(event_id="event_t00007", previous_item_id=None, item=item),
    ]
    sent = events(receive(session, ItemCreate(item=FunctionCall(id="f", name="wave"))))
    assert isinstance(sent[0], says.ItemAdded)
    assert sent[0].previous_item_id == "hello"


def test_output_of_a_call_needs_the_call() -> None:
    session = a_session()
    output = ItemCreate(item=FunctionCallOutput(call_id="call_1", output="42"))
    assert problem(receive(session, output)) == (
        "invalid_tool_call_id",
        "Tool call ID 'call_1' not found in conversation.",
    )
    call = FunctionCall(call_id="call_1", name="wave")
    receive(session, ItemCreate(item=call))
    assert types(receive(session, output)) == ["conversation.item.added", "conversation.item.done"]


def test_item_id_reserved_by_the_server_is_refused() -> None:
    session = a_session()
    started = the(says.SpeechStarted, hear(session, "####"))
    stolen = msgspec.structs.replace(HELLO, id=started.item_id)
    effects = receive(session, ItemCreate(item=stolen, event_id="mine"))
    assert problem(effects) == (
        "item_create_duplicate_item_id",
        f"Error adding item: an item with id '{started.item_id}' already exists.",
    )
    committed = the(says.InputAudioCommitted, hear(session, 16 * "."))
    assert committed.item_id == started.item_id
    receive(session, ItemDelete(item_id=started.item_id))
    assert "conversation.item.added" in types(receive(session, ItemCreate(item=stolen)))


def test_item_is_retrieved_with_its_sound_in_the_clients_format() -> None:
    session = a_session(turn_detection=None, input_format=PCMU())
    wire = encode(drawn("####"), "audio/pcmu")
    record(session, "u", wire)
    item = the(says.ItemRetrieved, receive(session, ItemRetrieve(item_id="u"))).item
    assert isinstance(item, Message)
    (part,) = item.content
    assert isinstance(part, InputAudio)
    assert isinstance(part.audio, bytes)
    assert len(part.audio) == len(wire)


def test_item_without_audio_is_retrieved_as_it_is() -> None:
    session = a_session()
    call = FunctionCall(id="f", call_id="call_1", name="wave")
    for item in (HELLO, call):
        receive(session, ItemCreate(item=item))
        effects = receive(session, ItemRetrieve(item_id=item.id))
        assert the(says.ItemRetrieved, effects).item == item


def test_answer_is_truncated_and_the_three_values_come_back() -> None:
    session = a_session()
    response_id = answered(write(session, "count"))
    effects = tell(session, spoke(response_id, "one two"), OutputFinished(response_id))
    item_id = the(says.OutputItemDone, effects).item.id
    ask_for = ItemTruncate(item_id=item_id, content_index=0, audio_end_ms=100)
    sent = the(says.ItemTruncated, receive(session, ask_for))
    assert (sent.item_id, sent.content_index, sent.audio_end_ms) == (item_id, 0, 100)
    assert kept(session) == ["count", "one"]


def test_deleted_item_is_transcribed_no_further() -> None:
    session = a_session(turn_detection=None, transcription=WHISPER)
    record(session, "u")
    effects = receive(session, ItemDelete(item_id="u"))
    assert (the(says.ItemDeleted, effects).item_id, the(CancelTranscription, effects)) == (
        "u",
        CancelTranscription(TranscriptionKey("u")),
    )
    assert tell(session, final("u", "late")) == []


def test_word_times_that_were_requested_are_sent_and_stay_in_the_item() -> None:
    session = a_session(turn_detection=None, transcription=WHISPER)
    record(session, "u")
    assert types(tell(session, TranscriptUpdated(TranscriptionKey("u"), "hel", 2, False))) == [
        "conversation.item.input_audio_transcription.delta"
    ]
    assert types(tell(session, final("u", "hello"))) == [
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
    ]
    item = the(says.ItemRetrieved, receive(session, ItemRetrieve(item_id="u"))).item
    assert isinstance(item, Message)
    assert item.content == (InputAudio(audio=SPOKEN, transcript="hello"),)


def test_word_times_are_not_sent_unless_requested() -> None:
    session = a_session(turn_detection=None)
    record(session, "u")
    assert tell(session, final("u", "hello")) == []
    item = the(says.ItemRetrieved, receive(session, ItemRetrieve(item_id="u"))).item
    assert isinstance(item, Message)
    assert item.content == (InputAudio(audio=SPOKEN, transcript=None),)
    assert kept(session) == ["hello"]


def test_word_times_outside_the_conversation_are_not_sent() -> None:
    session = a_session(transcription=WHISPER)
    item = Message(role="user", content=(InputAudio(audio=SPOKEN),))
    effects = ask(session, conversation="none", input=(item,))
    assert types(transcribe(session, effects, "psst")) == []
    assert kept(session) == []


def test_words_sound_finished_or_not() -> None:
    session = a_session(turn_detection=SemanticVad())
    effects = hear(session, "####" + 7 * ".")
    key = the(StartTranscription, effects).key
    assert of(ScoreTurn, effects) == [ScoreTurn(key.item_id, "", None)]
    effects = tell(session, TranscriptUpdated(key, "that is all", 0, False))
    assert effects == [ScoreTurn(key.item_id, "that is all", None)]
    assert tell(session, TurnScored(key.item_id, 0.0)) == []
    hear(session, 7 * ".")
    assert "response.created" in types(tell(session, TurnScored(key.item_id, 1.0)))


@pytest.mark.parametrize(
    ("vad", "interrupts"),
    [
        (ServerVad(), True),
        (SemanticVad(), True),
        (ServerVad(interrupt_response=False), False),
        (SemanticVad(interrupt_response=False), False),
    ],
)
def test_speech_interrupts_where_the_client_wants_it(
    vad: ServerVad | SemanticVad, interrupts: bool
) -> None:
    session = a_session(turn_detection=vad)
    response_id = answered(write(session, "hello"))
    assert of(CancelGeneration, hear(session, "##")) == [CancelGeneration(response_id)] * interrupts


def test_turn_detection_can_be_switched_off_during_a_turn() -> None:
    session = a_session()
    hear(session, "####")
    update(session, DEAF)
    assert types(hear(session, 20 * ".")) == []
    committed = receive(session, InputAudioCommit())
    assert types(committed)[0] == "input_audio_buffer.committed"
    transcribe(session, committed, "hello")
    assert kept(session) == ["hello"]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(3600, "60 minutes"), (60, "1 minute"), (90, "90 seconds"), (0.5, "0.5 seconds")],
)
def test_session_ends_at_its_time_limit(seconds: float, said: str) -> None:
    session = a_session(limits=SessionLimits(max_seconds=seconds), now=100.0)
    answered(write(session, "hello", now=100.0))
    tell(session, now=100.0)
    effects = wake(session, now=100.0 + seconds)
    reason = f"Your session hit the maximum duration of {said}."
    assert problem(effects) == ("session_expired", reason)
    assert done(effects).status == "cancelled"
    assert effects[-1] == Close(1001, reason)


def test_access_that_ends_closes_the_session_with_its_own_code() -> None:
    session = a_session()
    answered(write(session, "hello"))
    effects = tell(session, AccessEnded("invalid_api_key", "The key was revoked.", 3000))
    assert problem(effects) == ("invalid_api_key", "The key was revoked.")
    assert done(effects).status == "cancelled"
    assert effects[-1] == Close(3000, "invalid_api_key")


def test_after_the_close_there_is_nothing() -> None:
    session = a_session()
    hear(session, "####")
    effects = tell(session, Disconnected())
    assert [type(effect) for effect in effects] == [CancelTranscription, Close]
    assert effects[-1] == Close(1000, "the client left")
    assert tell(session, Disconnected(), DrainStarted()) == []
    assert write(session, "hello") + hear(session, "####") + wake(session) == []


def test_session_without_events_ends() -> None:
    session = a_session(limits=SessionLimits(idle_seconds=30.0), now=100.0)
    assert session.deadline == 130.0
    tell(session, InvalidFrame(InvalidRequest("No.")), now=110.0)
    assert wake(session, now=130.0) == []
    receive(session, InputAudioClear(), now=120.0)
    assert session.deadline == 150.0
    effects = wake(session)
    assert problem(effects)[0] == "session_idle"
    assert effects[1:] == [Close(1000, "nothing came for 30 seconds")]


QUIET = ServerVad(idle_timeout_ms=5000)


def an_answer(session: Session, now: float, ms: int = 2000) -> None:
    """An answer that is made at once and played for that long."""
    response_id = answered(write(session, "hello", now=now))
    tell(session, spoke(response_id, "hi", ms=ms), OutputFinished(response_id), now=now)


def test_silence_after_an_answer_is_answered_after_the_idle_timeout() -> None:
    session = a_session(turn_detection=QUIET)
    hear(session, 300 * ".", now=9.0)
    an_answer(session, now=10.0)
    assert session.deadline == 17.0
    effects = wake(session)
    triggered = the(says.TimeoutTriggered, effects)
    assert (triggered.audio_start_ms, triggered.audio_end_ms) == (4600, 9600)
    assert types(effects) == [
        "input_audio_buffer.timeout_triggered",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
    ]
    tell(session, OutputFinished(answered(effects)), now=18.0)
    assert session.deadline == 23.0


def test_at_a_shutdown_the_answer_under_way_is_the_last() -> None:
    session = a_session(turn_detection=QUIET)
    response_id = answered(write(session, "hello"))
    assert tell(session, DrainStarted()) == []
    assert problem(ask(session)) == ("server_shutdown", "The server is shutting down.")
    effects = tell(session, OutputFinished(response_id))
    assert types(effects) == ["response.done", "rate_limits.updated"]
    assert effects[-1] == Close(1012, "the server is shutting down")


def test_words_that_do_not_come_in_time_are_given_up() -> None:
    session = a_session(transcription_settings(), limits=SessionLimits(stall_seconds=4.0))
    key = the(StartTranscription, hear(session, "####" + 16 * ".", now=10.0)).key
    assert session.deadline == 14.0
    effects = wake(session)
    assert effects[0] == CancelTranscription(key)
    error = the(says.TranscriptionFailed, effects).error
    assert (error.type, error.code) == ("transcription_error", "stt_stalled")
    assert error.message == ("Nothing came from speech recognition for 4 seconds; it was given up.")


def test_restored_session_goes_on() -> None:
    session = a_session(instructions="Be brief.")
    an_answer(session, now=1.0)
    saved = session.checkpoint(9.0)
    again = a_session(saved.session, checkpoint=saved, salt="u", now=9.0)
    assert again.checkpoint(9.0) == saved
    assert again.deadline == session.deadline
    assert kept(again) == ["hello", "hi "]
    assert the(says.ResponseCreated, ask(again)).response.conversation_id == "conv_1"


def test_response_is_cancelled() -> None:
    session = a_session()
    answered(receive(session, ResponseCreate()))
    assert done(receive(session, ResponseCancel())).status == "cancelled"


def test_recogniser_that_fails_in_a_turn_fails_that_turn_only() -> None:
    session = a_session(transcription=WHISPER)
    key = the(StartTranscription, hear(session, "####")).key
    assert tell(session, ItemTranscriptionFailed(key, "it is broken")) == []
    effects = hear(session, 16 * ".")
    assert types(effects)[4:6] == [
        "response.created",
        "conversation.item.input_audio_transcription.failed",
    ]
    assert failure(effects) == ("stt_failed", "it is broken")
    assert answered(say(session, "again"))
