"""What waits for words that do not come, and for answers that stall."""

from tests.session.stage import (
    SPOKEN,
    a_session,
    answered,
    ask,
    failure,
    final,
    hear,
    of,
    receive,
    record,
    say,
    tell,
    texts,
    the,
    types,
    wake,
    write,
)
from vivavoce.protocol.client import ItemCreate
from vivavoce.protocol.items import InputAudio, Message
from vivavoce.session.effects import CancelGeneration, CancelTranscription, EndAudio, Generate
from vivavoce.session.facts import (
    AudioGenerated,
    GenerationProgress,
    ItemTranscriptionFailed,
    TextGenerated,
    TranscriptionKey,
)
from vivavoce.session.limits import SessionLimits

STALLS = SessionLimits(stall_seconds=4.0)


def test_words_of_a_second_recording_fail_what_asks_for_them() -> None:
    session = a_session(turn_detection=None)
    recording = InputAudio(audio=SPOKEN)
    item = Message(id="u", role="user", content=(recording, recording))
    receive(session, ItemCreate(item=item))
    tell(
        session,
        ItemTranscriptionFailed(TranscriptionKey("u", 1), "it is broken"),
        final("u", "hello"),
    )
    assert failure(ask(session)) == ("stt_failed", "it is broken")


def test_words_that_failed_do_not_matter_to_what_does_not_read_them() -> None:
    session = a_session(turn_detection=None)
    record(session, "u")
    tell(session, ItemTranscriptionFailed(TranscriptionKey("u"), "it is broken"))
    assert the(Generate, ask(session, conversation="none", input=())).prompt.items == ()


def test_any_progress_restarts_the_stall_timer() -> None:
    session = a_session(limits=STALLS)
    response_id = answered(write(session, "hello", now=10.0))
    tell(session, TextGenerated(response_id, "one"), now=13.0)
    assert wake(session, now=14.0) == []
    assert session.deadline == 17.0
    code, reason = failure(wake(session))
    assert code == "tts_stalled"
    assert reason == "Nothing came from speech synthesis for 4 seconds; the response was given up."


def test_slow_model_that_has_no_clause_complete_is_not_given_up() -> None:
    session = a_session(limits=STALLS)
    response_id = answered(write(session, "hello", now=10.0))
    first = tell(session, GenerationProgress(response_id), now=13.0)
    assert types(first) == [
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
    ]
    assert tell(session, GenerationProgress(response_id), now=16.0) == []
    assert wake(session, now=17.0) == []
    assert failure(wake(session))[0] == "llm_stalled"


def test_stalled_tts_is_given_up_while_the_model_goes_on() -> None:
    session = a_session(limits=STALLS)
    response_id = answered(write(session, "hello", now=10.0))
    tell(session, TextGenerated(response_id, "one"), now=11.0)
    assert tell(session, GenerationProgress(response_id), now=13.0) == []
    assert session.deadline == 15.0
    assert failure(wake(session))[0] == "tts_stalled"


def test_stall_after_all_text_was_spoken_is_blamed_on_the_model() -> None:
    session = a_session(limits=STALLS)
    response_id = answered(write(session, "hello", now=10.0))
    tell(
        session,
        TextGenerated(response_id, "one"),
        AudioGenerated(response_id, b"", ends=True),
        now=13.0,
    )
    assert failure(wake(session))[0] == "llm_stalled"


def test_response_whose_transcript_is_late_is_given_up() -> None:
    session = a_session(limits=STALLS)
    effects = hear(session, "####" + 16 * ".", now=10.0)
    key = the(EndAudio, effects).key
    assert session.deadline == 14.0
    effects = wake(session)
    assert the(CancelTranscription, effects) == CancelTranscription(key)
    assert of(CancelGeneration, effects) == []
    assert failure(effects) == (
        "stt_stalled",
        "Nothing came from speech recognition for 4 seconds; it was given up.",
    )
    assert texts(the(Generate, say(session, "again", now=14.0)).prompt.items) == [None, "again"]
