"""The canonical flows of the protocol on a WebSocket, event for event.

The numbers are those of the flows in the protocol reference.
"""

import pytest

from tests.session.stage import (
    SPOKEN,
    TURN,
    WHISPER,
    a_session,
    answered,
    ask,
    done,
    hear,
    receive,
    record,
    spoke,
    tell,
    the,
    transcribe,
    transcription_settings,
    update,
    wake,
    write,
)
from tests.session.story import Story
from vivavoce.errors import InvalidRequest
from vivavoce.protocol import codec
from vivavoce.protocol import server as says
from vivavoce.protocol.client import (
    InputAudioAppend,
    InputAudioCommit,
    ItemCreate,
    ItemTruncate,
    ResponseCancel,
)
from vivavoce.protocol.items import FunctionCallOutput, InputText, ItemReference, Message
from vivavoce.protocol.session import (
    AudioInputPatch,
    SemanticVad,
    ServerVad,
    TranscriptionAudioPatch,
    TranscriptionPatch,
    TranscriptionSessionPatch,
)
from vivavoce.session.effects import Effect, ScoreTurn, StartTranscription
from vivavoce.session.facts import (
    GenerationFinished,
    InvalidFrame,
    OutputFinished,
    TextGenerated,
    ToolCallArguments,
    ToolCallStarted,
    TranscriptionKey,
    TranscriptUpdated,
    TurnScored,
)
from vivavoce.session.shell import Session

A_TURN = [
    "input_audio_buffer.speech_started A",
    "input_audio_buffer.speech_stopped A",
    "input_audio_buffer.committed A first",
    "conversation.item.added A first",
    "conversation.item.done A first",
]
AN_ANSWER = [
    "response.output_item.added R1 B",
    "conversation.item.added B after A",
    "response.content_part.added R1 B",
    "response.output_audio_transcript.delta R1 B",
    "response.output_audio.delta R1 B",
    "response.output_audio_transcript.delta R1 B",
    "response.output_audio.delta R1 B",
    "response.output_audio.done R1 B",
    "response.output_audio_transcript.done R1 B",
    "response.content_part.done R1 B",
    "response.output_item.done R1 B",
    "conversation.item.done B after A",
    "response.done R1",
    "rate_limits.updated",
]


def speak_two_words(session: Session, response_id: str) -> list[Effect]:
    return tell(
        session,
        TextGenerated(response_id, "good day"),
        spoke(response_id, "good"),
        spoke(response_id, "day", begin=2400),
        GenerationFinished(response_id, "stop"),
        OutputFinished(response_id),
    )


def refusal(raw: str) -> InvalidRequest:
    """What reading that raises."""
    with pytest.raises(InvalidRequest) as caught:
        codec.decode(raw)
    return caught.value


def test_7_1_a_turn_under_server_vad_is_answered() -> None:
    session, story = a_session(), Story()
    effects = hear(session, TURN)
    assert story.of(effects) == [*A_TURN, "response.created R1"]
    response_id = answered(transcribe(session, effects, "hello"))
    assert story.of(speak_two_words(session, response_id)) == AN_ANSWER  # 7.12: limits come last


def test_7_1_the_words_of_the_user_come_beside_the_answer() -> None:
    session, story = a_session(transcription=WHISPER), Story()
    began = hear(session, "####")
    key = the(StartTranscription, began).key
    assert story.of(began) == A_TURN[:1]
    assert story.of(tell(session, TranscriptUpdated(key, "hello", 3, False))) == [
        "conversation.item.input_audio_transcription.delta A"
    ]
    ended = hear(session, 16 * ".")
    assert story.of(ended) == [*A_TURN[1:], "response.created R1"]
    words = transcribe(session, ended, "hello")
    assert story.of(words) == [
        "conversation.item.input_audio_transcription.delta A",
        "conversation.item.input_audio_transcription.completed A",
    ]
    assert story.of(speak_two_words(session, answered(words))) == AN_ANSWER


def test_7_2_a_manual_commit_waits_for_response_create() -> None:
    session, story = a_session(turn_detection=None), Story()
    assert story.of(receive(session, InputAudioAppend(audio=SPOKEN))) == []
    effects = receive(session, InputAudioCommit())
    assert story.of(effects) == A_TURN[2:]
    assert story.of(transcribe(session, effects, "hello")) == []
    effects = ask(session)
    assert story.of(effects) == ["response.created R1"]
    assert story.of(speak_two_words(session, answered(effects))) == AN_ANSWER


def test_7_2_commit_and_create_may_come_back_to_back() -> None:
    session, story = a_session(turn_detection=None, transcription=WHISPER), Story()
    receive(session, InputAudioAppend(audio=SPOKEN))
    committed = receive(session, InputAudioCommit())
    assert story.of(committed + ask(session)) == [*A_TURN[2:], "response.created R1"]
    words = transcribe(session, committed, "hello")
    assert story.of(words) == [
        "conversation.item.input_audio_transcription.delta A",
        "conversation.item.input_audio_transcription.completed A",
    ]
    assert story.of(speak_two_words(session, answered(words))) == AN_ANSWER


def test_7_3_text_is_answered_in_text() -> None:
    session, story = a_session(), Story()
    item = Message(role="user", content=(InputText("hello"),))
    assert story.of(receive(session, ItemCreate(item=item))) == [
        "conversation.item.added A first",
        "conversation.item.done A first",
    ]
    effects = ask(session, output_modalities=("text",))
    response_id = answered(effects)
    effects += tell(
        session,
        TextGenerated(response_id, "good "),
        TextGenerated(response_id, "day"),
        GenerationFinished(response_id, "stop"),
        OutputFinished(response_id),
    )
    assert story.of(effects) == [
        "response.created R1",
        "response.output_item.added R1 B",
        "conversation.item.added B after A",
        "response.content_part.added R1 B",
        "response.output_text.delta R1 B",
        "response.output_text.delta R1 B",
        "response.output_text.done R1 B",
        "response.content_part.done R1 B",
        "response.output_item.done R1 B",
        "conversation.item.done B after A",
        "response.done R1",
        "rate_limits.updated",
    ]


def test_7_3_text_in_a_session_of_sound_is_answered_aloud() -> None:
    session, story = a_session(), Story()
    effects = write(session, "hello")
    story.of(effects)
    assert story.of(speak_two_words(session, answered(effects))) == AN_ANSWER


def test_7_4_a_function_is_called_and_its_output_answered() -> None:
    session, story = a_session(), Story()
    effects = write(session, "weather?")
    response_id = answered(effects)
    story.of(effects)
    effects = tell(
        session,
        ToolCallStarted(response_id, 0, "call_1", "get_weather"),
        ToolCallArguments(response_id, 0, '{"city":'),
        ToolCallArguments(response_id, 0, '"Rome"}'),
        GenerationFinished(response_id, "stop"),
        OutputFinished(response_id),
    )
    assert story.of(effects) == [
        "response.output_item.added R1 B",
        "conversation.item.added B after A",
        "response.function_call_arguments.delta R1 B",
        "response.function_call_arguments.delta R1 B",
        "response.function_call_arguments.done R1 B",
        "response.output_item.done R1 B",
        "conversation.item.done B after A",
        "response.done R1",
        "rate_limits.updated",
    ]
    output = FunctionCallOutput(call_id="call_1", output="sunny")
    assert story.of(receive(session, ItemCreate(item=output))) == [
        "conversation.item.added C after B",
        "conversation.item.done C after B",
    ]
    assert story.of(ask(session)) == ["response.created R2"]


def test_7_5_speech_interrupts_the_answer() -> None:
    session, story = a_session(), Story()
    effects = write(session, "hello")
    response_id = answered(effects)
    story.of(effects)
    story.of(tell(session, TextGenerated(response_id, "good"), spoke(response_id, "good")))
    began = hear(session, "####")
    assert story.of(began) == [
        "input_audio_buffer.speech_started C",
        "response.output_audio.done R1 B",
        "response.output_audio_transcript.done R1 B",
        "response.content_part.done R1 B",
        "response.output_item.done R1 B",
        "conversation.item.done B after A",
        "response.done R1",
        "rate_limits.updated",
    ]
    assert tell(session, spoke(response_id, "day", begin=2400)) == []
    truncate = ItemTruncate(item_id=story.item("B"), content_index=0, audio_end_ms=50)
    assert story.of(receive(session, truncate)) == ["conversation.item.truncated B"]
    assert story.of(hear(session, 16 * ".")) == [
        "input_audio_buffer.speech_stopped C",
        "input_audio_buffer.committed C after B",
        "conversation.item.added C after B",
        "conversation.item.done C after B",
        "response.created R2",
    ]


def test_7_5_without_interruption_the_answer_goes_on() -> None:
    session, story = a_session(turn_detection=ServerVad(interrupt_response=False)), Story()
    effects = write(session, "hello")
    response_id = answered(effects)
    story.of(effects)
    story.of(tell(session, spoke(response_id, "good")))
    assert story.of(hear(session, "####")) == ["input_audio_buffer.speech_started C"]
    assert story.of(tell(session, spoke(response_id, "day", begin=2400))) == [
        "response.output_audio_transcript.delta R1 B",
        "response.output_audio.delta R1 B",
    ]


def test_7_7_an_answer_is_cancelled_once() -> None:
    session, story = a_session(), Story()
    effects = write(session, "hello")
    response_id = answered(effects)
    story.of(effects)
    story.of(tell(session, spoke(response_id, "good")))
    assert story.of(receive(session, ResponseCancel(response_id=response_id))) == [
        "response.output_audio.done R1 B",
        "response.output_audio_transcript.done R1 B",
        "response.content_part.done R1 B",
        "response.output_item.done R1 B",
        "conversation.item.done B after A",
        "response.done R1",
        "rate_limits.updated",
    ]
    assert story.of(receive(session, ResponseCancel(response_id=response_id))) == ["error"]


def test_7_8_a_response_out_of_band_leaves_no_trace() -> None:
    session, story = a_session(turn_detection=None), Story()
    story.of(record(session, "u"))
    effects = ask(
        session,
        conversation="none",
        output_modalities=("text",),
        metadata={"topic": "mood"},
        input=(ItemReference("u"), Message(role="user", content=(InputText("mood?"),))),
    )
    assert story.of(effects) == ["response.created R1"]
    effects += tell(session, TranscriptUpdated(TranscriptionKey("u"), "hurray", 6, True))
    response_id = answered(effects)
    sent = tell(session, TextGenerated(response_id, "good"), OutputFinished(response_id))
    assert story.of(sent) == [
        "response.output_item.added R1 B",
        "response.content_part.added R1 B",
        "response.output_text.delta R1 B",
        "response.output_text.done R1 B",
        "response.content_part.done R1 B",
        "response.output_item.done R1 B",
        "response.done R1",
        "rate_limits.updated",
    ]
    for response in (the(says.ResponseCreated, effects).response, done(sent)):
        assert (response.conversation_id, response.metadata) == (None, {"topic": "mood"})


def test_7_9_a_transcription_session_writes_down_what_is_committed() -> None:
    session, story = a_session(transcription_settings(transcription=None)), Story()
    patch = TranscriptionSessionPatch(
        audio=TranscriptionAudioPatch(
            input=AudioInputPatch(
                turn_detection=None, transcription=TranscriptionPatch(model="whisper-1")
            )
        )
    )
    assert story.of(update(session, patch)) == ["session.updated"]
    appended = receive(session, InputAudioAppend(audio=SPOKEN))
    key = the(StartTranscription, appended).key
    assert story.of(tell(session, TranscriptUpdated(key, "hello there", 6, False))) == [
        "conversation.item.input_audio_transcription.delta A"
    ]
    committed = receive(session, InputAudioCommit())
    assert story.of(committed) == A_TURN[2:]
    assert story.of(transcribe(session, committed, "hello there")) == [
        "conversation.item.input_audio_transcription.delta A",
        "conversation.item.input_audio_transcription.completed A",
    ]


def test_7_9_a_transcription_session_may_find_the_turns_itself() -> None:
    session, story = a_session(transcription_settings()), Story()
    effects = hear(session, TURN)
    assert story.of(effects) == A_TURN
    assert story.of(transcribe(session, effects, "hello")) == [
        "conversation.item.input_audio_transcription.delta A",
        "conversation.item.input_audio_transcription.completed A",
    ]


def test_7_10_a_bad_event_is_answered_and_changes_nothing() -> None:
    session, story = a_session(), Story()
    effects = write(session, "hello")
    story.of(effects)
    bad = InvalidFrame(refusal('{"type":"scooby.dooby.doo","event_id":"my_awesome_event"}'))
    sent = tell(session, bad)
    assert story.of(sent) == ["error"]
    error = the(says.ErrorEvent, sent).error
    assert (error.type, error.code) == ("invalid_request_error", "invalid_value")
    assert (error.param, error.event_id) == ("type", "my_awesome_event")
    assert error.message.startswith("Invalid value: 'scooby.dooby.doo'.")
    assert story.of(speak_two_words(session, answered(effects))) == AN_ANSWER


def test_7_13_a_long_silence_is_a_turn() -> None:
    session, story = a_session(turn_detection=ServerVad(idle_timeout_ms=6000)), Story()
    effects = write(session, "hello", now=1.0)
    story.of(effects + speak_two_words(session, answered(effects)))
    hear(session, 10 * ".")
    assert story.of(wake(session)) == [
        "input_audio_buffer.timeout_triggered C",
        "input_audio_buffer.committed C after B",
        "conversation.item.added C after B",
        "conversation.item.done C after B",
        "response.created R2",
    ]


def test_7_14_semantic_vad_ends_the_turn_when_the_words_sound_finished() -> None:
    session, story = a_session(turn_detection=SemanticVad()), Story()
    began = hear(session, "####")
    assert story.of(began) == A_TURN[:1]
    paused = hear(session, 13 * ".")
    assert story.of(paused) == []
    question = the(ScoreTurn, paused)
    stopped = tell(session, TurnScored(question.item_id, 1.0))
    assert story.of(stopped) == [*A_TURN[1:], "response.created R1"]
    words = transcribe(session, stopped, "hello")
    assert story.of(speak_two_words(session, answered(words))) == AN_ANSWER


def test_7_14_semantic_vad_waits_no_longer_than_it_may() -> None:
    session, story = a_session(turn_detection=SemanticVad(eagerness="high")), Story()
    assert story.of(hear(session, "####" + 61 * ".")) == A_TURN[:1]
    assert story.of(hear(session, ".")) == [*A_TURN[1:], "response.created R1"]
