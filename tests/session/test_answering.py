"""Which responses there are, what each waits for and reads, and how it ends."""

import dataclasses
from typing import Any

import pytest

from tests.session.stage import (
    MODELS,
    SPOKEN,
    a_session,
    answered,
    ask,
    done,
    failure,
    final,
    hear,
    kept,
    of,
    problem,
    receive,
    record,
    say,
    spoke,
    tell,
    texts,
    the,
    transcription_settings,
    types,
    update,
    wake,
    write,
)
from vivavoce.protocol import server as says
from vivavoce.protocol.client import (
    ItemDelete,
    ItemTruncate,
    ResponseCancel,
)
from vivavoce.protocol.items import InputAudio, ItemReference, Message
from vivavoce.protocol.responses import (
    ResponseError,
    StatusDetails,
    Usage,
)
from vivavoce.protocol.session import AudioOutputPatch, AudioPatch, RealtimePatch, ServerVad
from vivavoce.session.effects import (
    CancelGeneration,
    CancelTranscription,
    Generate,
    StartTranscription,
)
from vivavoce.session.facts import (
    Disconnected,
    GenerationFailed,
    GenerationFinished,
    GenerationProgress,
    ItemTranscriptionFailed,
    OutputFinished,
    SpeechFailed,
    TextGenerated,
    ToolCallArguments,
    ToolCallStarted,
    TranscriptionKey,
    TranscriptUpdated,
)
from vivavoce.session.limits import SessionLimits

LOCKED = dataclasses.replace(MODELS, lock_voice=True)
PATIENT = ServerVad(interrupt_response=False)
STALLS = SessionLimits(stall_seconds=4.0)


def test_second_response_is_refused_while_one_runs() -> None:
    session = a_session()
    first = answered(write(session, "hello"))
    assert problem(ask(session)) == (
        "conversation_already_has_active_response",
        f"Conversation already has an active response in progress: {first}. "
        f"Wait until the response is finished before creating a new one.",
    )


def test_any_number_may_run_beside_it() -> None:
    session = a_session()
    beside = [answered(ask(session, conversation="none")) for _ in range(2)]
    first = answered(write(session, "hello"))
    beside += [answered(ask(session, conversation="none")) for _ in range(2)]
    assert len({first, *beside}) == 5
    ended = [done(tell(session, OutputFinished(response_id))) for response_id in (*beside, first)]
    assert [response.id for response in ended] == [*beside, first]
    assert [response.conversation_id for response in ended] == [None] * 4 + ["conv_1"]


def test_transcription_session_has_no_responses() -> None:
    session = a_session(transcription_settings())
    effects = ask(session)
    assert problem(effects) == (
        "invalid_parameter",
        "A transcription session has no responses.",
    )
    assert the(says.ErrorEvent, effects).error.param == "type"


def test_response_is_created_at_once_and_generated_when_the_transcript_is_final() -> None:
    session = a_session(turn_detection=None)
    record(session, "u")
    effects = ask(session)
    assert types(effects) == ["response.created"]
    assert of(Generate, effects) == []
    assert tell(session, TranscriptUpdated(TranscriptionKey("u"), "hel", 0, False)) == []
    prompt = the(Generate, tell(session, final("u", "hello"))).prompt
    assert texts(prompt.items) == ["hello"]


def test_recording_that_only_a_cancelled_response_reads_is_dropped() -> None:
    session = a_session(turn_detection=None)
    record(session, "u")
    item = Message(role="user", content=(InputAudio(audio=SPOKEN),))
    effects = ask(session, conversation="none", input=(ItemReference("u"), item))
    key = next(order.key for order in of(StartTranscription, effects))
    response_id = the(says.ResponseCreated, effects).response.id
    effects = receive(session, ResponseCancel(response_id=response_id))
    assert of(CancelTranscription, effects) == [CancelTranscription(key)]
    assert of(CancelGeneration, effects) == []
    assert tell(session, final(key, "late")) == []


def test_text_audio_and_calls_are_sent_to_the_client() -> None:
    session = a_session()
    response_id = answered(write(session, "hello"))
    effects = tell(
        session,
        TextGenerated(response_id, "one"),
        spoke(response_id, "one"),
        ToolCallStarted(response_id, 0, "call_1", "wave"),
        ToolCallArguments(response_id, 0, "{}"),
        GenerationFinished(response_id, "stop"),
        OutputFinished(response_id),
    )
    response = done(effects)
    assert (response.status, response.status_details) == ("completed", None)
    assert the(says.FunctionArgumentsDone, effects).arguments == "{}"
    assert the(says.OutputTranscriptDone, effects).transcript == "one "
    assert session.usage.responses == 1


@pytest.mark.parametrize(
    ("reason", "said"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_answer_that_the_model_did_not_finish_is_incomplete(reason: Any, said: Any) -> None:
    session = a_session()
    response_id = answered(write(session, "hello"))
    effects = tell(
        session,
        spoke(response_id, "one"),
        GenerationFinished(response_id, reason),
        OutputFinished(response_id),
    )
    response = done(effects)
    assert response.status == "incomplete"
    assert response.status_details == StatusDetails(type="incomplete", reason=said)
    assert response.output[0].status == "incomplete"


def test_answer_can_end_without_generation_finished() -> None:
    session = a_session()
    response_id = answered(write(session, "hello"))
    assert done(tell(session, OutputFinished(response_id))).status == "completed"


def test_output_of_a_cancelled_or_unknown_response_is_ignored() -> None:
    session = a_session()
    response_id = answered(write(session, "hello"))
    receive(session, ResponseCancel())
    assert tell(session, spoke(response_id, "late"), OutputFinished(response_id)) == []
    assert (
        tell(session, TextGenerated("resp_x", "stray"), GenerationFailed("resp_x", "llm", "stray"))
        == []
    )


def test_output_before_the_generation_is_requested_is_ignored() -> None:
    session = a_session(turn_detection=None)
    record(session, "u")
    response_id = the(says.ResponseCreated, ask(session)).response.id
    assert tell(session, spoke(response_id, "early"), OutputFinished(response_id)) == []
    assert answered(tell(session, final("u", "hello"))) == response_id


def test_cancel_without_an_id_cancels_the_response_of_the_conversation() -> None:
    session = a_session()
    beside = answered(ask(session, conversation="none"))
    response_id = answered(write(session, "hello"))
    effects = receive(session, ResponseCancel())
    assert the(CancelGeneration, effects) == CancelGeneration(response_id)
    assert done(effects).status_details == StatusDetails(
        type="cancelled", reason="client_cancelled"
    )
    effects = receive(session, ResponseCancel(response_id=beside))
    assert (the(CancelGeneration, effects), done(effects).status) == (
        CancelGeneration(beside),
        "cancelled",
    )


@pytest.mark.parametrize("response_id", [None, "resp_x"])
def test_cancel_without_a_response_is_an_error(response_id: str | None) -> None:
    session = a_session()
    ask(session, conversation="none")
    assert problem(receive(session, ResponseCancel(response_id=response_id))) == (
        "response_cancel_not_active",
        "Cancellation failed: no active response found",
    )


def test_response_that_waits_is_cancelled_without_stopping_anything() -> None:
    session = a_session(turn_detection=None)
    record(session, "u")
    ask(session)
    effects = receive(session, ResponseCancel())
    assert types(effects) == ["response.done", "rate_limits.updated"]
    assert of(CancelGeneration, effects) == []
    assert done(effects).usage == Usage()
    assert tell(session, final("u", "hello")) == []


def test_speech_interrupts_an_answer_that_is_complete_but_still_played() -> None:
    session = a_session()
    response_id = answered(write(session, "count", now=10.0))
    tell(
        session, spoke(response_id, "one two three", ms=1000), OutputFinished(response_id), now=11.0
    )
    effects = hear(session, "##", now=12.0)
    assert types(effects) == ["input_audio_buffer.speech_started"]
    assert kept(session) == ["count", "one"]


def test_truncation_by_the_client_overrules_the_estimate_of_what_was_heard() -> None:
    session = a_session()
    response_id = answered(write(session, "count", now=10.0))
    effects = tell(session, spoke(response_id, "one two three", ms=1000), now=11.0)
    item_id = the(says.OutputItemAdded, effects).item.id
    sent = ItemTruncate(item_id=item_id, content_index=0, audio_end_ms=2000)
    receive(session, sent, now=12.0)
    hear(session, "##", now=12.0)
    assert kept(session) == ["count", "one two"]


def test_voice_is_locked_while_audio_of_the_assistant_is_in_the_conversation() -> None:
    session = a_session(offer=LOCKED)
    voice = RealtimePatch(audio=AudioPatch(output=AudioOutputPatch(voice="ash")))
    back = RealtimePatch(audio=AudioPatch(output=AudioOutputPatch(voice="marin")))
    assert types(update(session, voice)) == ["session.updated"]
    assert types(update(session, back)) == ["session.updated"]
    beside = answered(ask(session, conversation="none"))
    tell(session, spoke(beside, "psst"), OutputFinished(beside))
    assert types(update(session, voice)) == ["session.updated"]
    assert types(update(session, back)) == ["session.updated"]
    response_id = answered(write(session, "hello"))
    tell(session, spoke(response_id, "hi"), OutputFinished(response_id))
    code, _ = problem(update(session, voice))
    assert code == "cannot_update_voice"
    saved = session.checkpoint(0.0)
    again = a_session(saved.session, offer=LOCKED, checkpoint=saved, salt="u")
    code, _ = problem(update(again, voice))
    assert code == "cannot_update_voice"


def test_turn_that_ends_during_an_uninterruptible_answer_is_answered_next() -> None:
    session = a_session(turn_detection=PATIENT)
    first = answered(say(session, "one"))
    effects = say(session, "two")
    assert "response.created" not in types(effects)
    assert "response.done" not in types(effects)
    effects = tell(session, spoke(first, "uno"), OutputFinished(first))
    assert types(effects)[-2:] == ["rate_limits.updated", "response.created"]
    assert texts(the(Generate, effects).prompt.items) == ["one", "two", "uno "]


@pytest.mark.parametrize("stage", ["stt", "llm", "tts"])
def test_failed_answer_names_the_stage_that_failed(stage: Any) -> None:
    session = a_session()
    response_id = answered(write(session, "hello"))
    tell(session, spoke(response_id, "one"))
    effects = tell(session, GenerationFailed(response_id, stage, "it is broken"))
    assert failure(effects) == (f"{stage}_failed", "it is broken")
    assert done(effects).output[0].status == "incomplete"
    assert kept(session) == ["hello", "one "]
    assert (
        done(tell(session, OutputFinished(answered(write(session, "again"))))).status == "completed"
    )


def test_failed_response_without_failure_errors_sends_no_error_event() -> None:
    session = a_session()
    response_id = answered(write(session, "hello"))
    effects = tell(session, GenerationFailed(response_id, "llm", "it is broken"))
    assert types(effects) == ["response.done", "rate_limits.updated"]
    assert done(effects).status == "failed"


def test_failed_response_with_failure_errors_is_followed_by_an_error_event() -> None:
    session = a_session(offer=dataclasses.replace(MODELS, failure_errors=True))
    response_id = answered(write(session, "hello"))
    effects = tell(session, GenerationFailed(response_id, "llm", "it is broken"))
    assert types(effects) == ["response.done", "rate_limits.updated", "error"]
    assert failure(effects) == ("llm_failed", "it is broken")
    error = the(says.ErrorEvent, effects).error
    assert (error.type, error.code, error.message) == ("server_error", "llm_failed", "it is broken")


@pytest.mark.parametrize("failure_errors", [False, True])
def test_answer_whose_speech_fails_is_completed_in_writing(failure_errors: bool) -> None:
    session = a_session(offer=dataclasses.replace(MODELS, failure_errors=failure_errors))
    response_id = answered(write(session, "hello"))
    tell(session, spoke(response_id, "one"), SpeechFailed(response_id, "it is broken"))
    again = SpeechFailed(response_id, "it is broken again")  # the first reason is told
    effects = tell(session, again, OutputFinished(response_id))
    message = "Speech synthesis failed, the answer goes on in writing: it is broken"
    response = done(effects)
    assert response.status == "completed"
    assert response.status_details
    assert isinstance(error := response.status_details.error, ResponseError)
    assert (error.code, error.message) == ("tts_failed", message)
    assert ("error" in types(effects)) == failure_errors


def test_server_function_at_work_begins_no_message() -> None:
    session = a_session()
    response_id = answered(write(session, "hello"))
    assert types(tell(session, GenerationProgress(response_id, writes=False))) == []
    assert "response.output_item.added" in types(tell(session, GenerationProgress(response_id)))


def test_transcription_that_fails_fails_the_response_that_waits_for_it() -> None:
    session = a_session(turn_detection=None)
    record(session, "u")
    ask(session)
    beside = the(says.ResponseCreated, ask(session, conversation="none")).response.id
    effects = tell(session, ItemTranscriptionFailed(TranscriptionKey("u"), "it is broken"))
    assert [event.response.status for event in of(says.ResponseDone, effects)] == ["failed"] * 2
    assert of(says.ResponseDone, effects)[1].response.id == beside
    assert texts(the(Generate, write(session, "again")).prompt.items) == [None, "again"]


def test_words_that_failed_before_they_were_asked_for_fail_what_asks_for_them() -> None:
    session = a_session(turn_detection=None)
    record(session, "u")
    assert tell(session, ItemTranscriptionFailed(TranscriptionKey("u"), "it is broken")) == []
    effects = ask(session)
    assert types(effects)[0] == "response.created"
    assert failure(effects) == ("stt_failed", "it is broken")
    assert texts(the(Generate, ask(session)).prompt.items) == [None]


def test_words_that_failed_long_ago_fail_nothing() -> None:
    session = a_session(turn_detection=None)
    record(session, "u")
    tell(session, ItemTranscriptionFailed(TranscriptionKey("u"), "it is broken"))
    assert texts(the(Generate, write(session, "never mind")).prompt.items) == [None, "never mind"]


def test_answer_without_output_is_given_up() -> None:
    session = a_session(limits=STALLS)
    response_id = answered(write(session, "hello", now=10.0))
    assert session.deadline == 14.0
    effects = wake(session)
    assert the(CancelGeneration, effects) == CancelGeneration(response_id)
    assert failure(effects) == (
        "llm_stalled",
        "Nothing came from the language model for 4 seconds; the response was given up.",
    )


def test_at_the_end_of_the_session_every_response_ends() -> None:
    session = a_session(turn_detection=None)
    running = answered(ask(session, conversation="none"))
    record(session, "u")
    waiting = the(says.ResponseCreated, ask(session)).response.id
    effects = session.handle(Disconnected(), 1.0)
    ended = [event.response for event in of(says.ResponseDone, effects)]
    assert [response.id for response in ended] == [running, waiting]
    assert [response.status_details for response in ended] == [StatusDetails(type="cancelled")] * 2
    assert of(CancelGeneration, effects) == [CancelGeneration(running)]


def test_id_of_an_item_in_the_input_is_replaced() -> None:
    session = a_session(turn_detection=None)
    record(session, "u")
    item = Message(id="u", role="user", content=(InputAudio(audio=SPOKEN),))
    both = [ask(session, conversation="none", input=(item,)) for _ in range(2)]
    keys = [the(StartTranscription, effects).key for effects in both]
    assert len({*(key.item_id for key in keys), "u"}) == 3
    answers = [the(Generate, tell(session, final(key, key.item_id))) for key in keys]
    assert [texts(answer.prompt.items) for answer in answers] == [[key.item_id] for key in keys]


def test_stall_fails_only_the_response_that_stalled() -> None:
    session = a_session(limits=STALLS)
    answered(ask(session, conversation="none", now=10.0))
    answered(write(session, "hello", now=12.0))
    assert done(wake(session)).conversation_id is None
    assert session.deadline == 16.0


def test_deleted_answer_is_not_truncated() -> None:
    session = a_session()
    response_id = answered(write(session, "count"))
    effects = tell(session, spoke(response_id, "one two"))
    receive(session, ItemDelete(item_id=the(says.OutputItemAdded, effects).item.id))
    assert done(receive(session, ResponseCancel())).status == "cancelled"


def test_complete_answer_before_a_recording_counts_as_heard_whole() -> None:
    session = a_session()
    response_id = answered(write(session, "count", now=10.0))
    tell(
        session, spoke(response_id, "one two three", ms=3000), OutputFinished(response_id), now=11.0
    )
    hear(session, "." * 20 + "##", now=11.1)  # 0.7 s of sound, all at once
    assert kept(session) == ["count", "one two three "]
