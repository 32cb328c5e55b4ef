"""Events of a session as messages of RTVI."""

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from tests.protocol.test_rtvi_client import response
from vivavoce.protocol import server as says
from vivavoce.protocol.items import FunctionCall
from vivavoce.protocol.responses import DurationUsage, Usage
from vivavoce.protocol.rtvi_output import RtviOutput
from vivavoce.protocol.server import AnyServerEvent
from vivavoce.protocol.session import (
    Audio,
    AudioInput,
    RealtimeSession,
    Transcription,
)

E: dict[str, Any] = {"event_id": "e"}
PART: dict[str, Any] = {**E, "response_id": "resp_1", "item_id": "i", "output_index": 0}
HEARD = RealtimeSession(audio=Audio(input=AudioInput(transcription=Transcription("m"))))
STARTED = says.SpeechStarted(**E, item_id="u", audio_start_ms=0)
STOPPED = says.SpeechStopped(**E, item_id="u", audio_end_ms=0)
CREATED = says.ResponseCreated(**E, response=response("in_progress"))
DONE = says.ResponseDone(**E, response=response())
PLAYS = says.OutputAudioStarted(**E, response_id="resp_1")
PLAYED = says.OutputAudioStopped(**E, response_id="resp_1")
CLEARED = says.OutputAudioCleared(**E, response_id="resp_1")
SAID = says.OutputTranscriptDone(**PART, transcript="")
LAST = says.TranscriptionCompleted(
    **E, item_id="u", transcript="hello there", usage=DurationUsage(seconds=1)
)
FAILED = says.TranscriptionFailed(
    **E, item_id="u", error=says.TranscriptionError("server_error", "stt_failed", "no")
)


def words(text: str) -> says.OutputTranscriptDelta:
    return says.OutputTranscriptDelta(**PART, delta=text)


def made(*events: AnyServerEvent) -> RtviOutput:
    output = RtviOutput(lambda: 0.0)
    told(output, *events)
    return output


def told(output: RtviOutput, *events: AnyServerEvent) -> list[dict[str, Any]]:
    return [
        {"type": "interruption"} if message is None else msgspec.json.decode(message)
        for event in events
        for message in output.messages(event)
    ]


def types(output: RtviOutput, *events: AnyServerEvent) -> list[str]:
    return [message["type"] for message in told(output, *events)]


def shown(messages: Iterable[bytes]) -> list[tuple[str, str]]:
    decoded = [msgspec.json.decode(message) for message in messages]
    return [
        (m["data"]["text"], m["data"]["spoken_status"])
        for m in decoded
        if m["type"] == "bot-output"
    ]


def test_end_of_speech_follows_its_transcript() -> None:
    output = made(says.SessionCreated(**E, session=HEARD))
    assert types(output, STARTED) == ["user-started-speaking", "bot-interrupted"]
    assert types(output, STOPPED, CREATED) == []
    delta = says.TranscriptionDelta(**E, item_id="u", delta="hello")
    assert types(output, delta) == ["user-input", "user-transcription"]
    assert types(output, LAST) == [
        "user-input",
        "user-transcription",
        "user-llm-text",
        "user-stopped-speaking",
        "bot-llm-started",
    ]


@pytest.mark.parametrize(
    "event",
    [
        words("Hi."),
        DONE,
        FAILED,
        says.OutputItemAdded(
            **E, response_id="resp_1", output_index=0, item=FunctionCall(name="weather")
        ),
    ],
)
def test_end_of_speech_waits_no_longer_than_for_an_answer(event: AnyServerEvent) -> None:
    output = made(says.SessionCreated(**E, session=HEARD), STARTED, STOPPED, CREATED)
    assert types(output, event)[:2] == ["user-stopped-speaking", "bot-llm-started"]


def test_end_of_speech_without_transcripts_is_sent_at_once() -> None:
    assert types(made(STARTED), STOPPED) == ["user-stopped-speaking"]


def test_sentences_are_shown_at_the_rate_of_the_answer_before() -> None:
    output = made(CREATED, words("One two. "), words("Three four."), PLAYS, SAID, DONE)
    assert shown(output.playing(0)) == [("One two.", "new")]
    assert shown(output.playing(2_400)) == []
    assert shown(output.playing(24_000)) == [("One two.", "completed"), ("Three four.", "new")]
    assert shown(output.playing(24_000)) == []
    assert [m for m in types(output, PLAYED) if m == "bot-output"] == ["bot-output"]
    told(output, CREATED, words("A b. C d."), SAID, PLAYS)
    assert shown(output.playing(2_400)) == [("A b.", "new")]  # slower than in the first answer


def test_sentences_that_were_not_shown_are_complete_at_the_end() -> None:
    output = made(CREATED, words("One. Two."), SAID, DONE, PLAYS)
    told_messages = told(output, PLAYED)
    statuses = [m["data"]["spoken_status"] for m in told_messages if m["type"] == "bot-output"]
    assert statuses == ["new", "completed", "new", "completed"]


def test_interrupted_sentence_is_not_complete() -> None:
    output = made(CREATED, words("One two. Three"), PLAYS)
    assert shown(output.playing(480)) == [("One two.", "new")]
    assert types(output, CLEARED) == ["interruption", "bot-interrupted", "bot-stopped-speaking"]
    told(output, SAID, DONE, says.ResponseCreated(**E, response=response("in_progress", "resp_2")))
    told(output, says.OutputAudioStarted(**E, response_id="resp_2"))
    assert shown(output.playing(24_000)) == []


def test_answer_that_is_played_after_another_is_not_timed_by_it() -> None:
    other = says.OutputAudioStarted(**E, response_id="resp_0")
    output = made(CREATED, words("Hi."), other, DONE)
    assert types(output, says.OutputAudioStopped(**E, response_id="resp_0")) == [
        "bot-stopped-speaking"
    ]


def test_written_answer_is_not_spoken() -> None:
    output = made(CREATED)
    delta = says.OutputTextDelta(**PART, delta="One.  Two")
    done = says.OutputTextDone(**PART, text="One.  Two")
    outputs = [m["data"] for m in told(output, delta, done) if m["type"] == "bot-output"]
    assert [(o["text"], o["will_be_spoken"]) for o in outputs] == [("One.", False), ("Two", False)]


def test_speech_during_an_answer_does_not_say_interrupted_before_it_is() -> None:
    assert types(made(CREATED, PLAYS), STARTED) == ["user-started-speaking"]


def test_blank_text_is_no_sentence() -> None:
    assert "bot-transcription" not in types(made(CREATED, words(" ")), SAID)


def test_tokens_of_a_response_are_metrics() -> None:
    used = msgspec.structs.replace(
        response(), usage=Usage(total_tokens=9, input_tokens=7, output_tokens=2)
    )
    (metrics,) = [
        m["data"]
        for m in told(made(), says.ResponseDone(**E, response=used))
        if m["type"] == "metrics"
    ]
    (tokens,) = metrics["tokens"]
    assert (tokens["prompt_tokens"], tokens["completion_tokens"], tokens["total_tokens"]) == (
        7,
        2,
        9,
    )


def test_response_of_which_nothing_is_known_has_no_metrics() -> None:
    assert types(made(), DONE) == ["bot-llm-stopped"]


def test_sounds_at_the_end_are_reported() -> None:
    assert types(made(), says.OutputAudioDone(**PART)) == ["bot-tts-stopped"]
    assert types(made(), says.InputAudioCleared(**E)) == []


@pytest.mark.parametrize(("code", "fatal"), [("session_expired", True), ("stt_failed", False)])
def test_error_says_whether_the_session_ends(code: str, fatal: bool) -> None:
    body = says.ErrorBody(code=code, message="It failed.")
    (message,) = told(made(), says.ErrorEvent(**E, error=body))
    assert message["data"] == {"error": "It failed.", "fatal": fatal}


def test_error_of_a_message_is_answered_by_its_id() -> None:
    body = says.ErrorBody(message="It failed.", event_id="m7")
    (message,) = told(made(), says.ErrorEvent(**E, error=body))
    assert (message["type"], message["id"]) == ("error-response", "m7")


def test_cancelling_nothing_is_no_error() -> None:
    body = says.ErrorBody(code="response_cancel_not_active", message="none")
    assert told(made(), says.ErrorEvent(**E, error=body)) == []
