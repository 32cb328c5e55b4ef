"""Conversations with a scripted server, in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, fields
from io import BytesIO
from typing import Any

import msgspec
import pytest

from tests.talk.scripted_server import (
    CREATED,
    ITEM,
    OPENING,
    RESPONSE,
    START,
    STARTED,
    STOPPED,
    UPDATED,
    Script,
    ScriptedConnection,
    done,
    error,
    heard,
    screen,
    silence,
    sound,
    tone,
    word,
)
from vivavoce.talk.client import ConnectionLost
from vivavoce.talk.conversation import TalkConversation, open_conversation
from vivavoce.talk.options import TalkOptions, Timeouts
from vivavoce.talk.turn import Turn, TurnTimes
from vivavoce.testing.virtual_time import run

APPEND = "input_audio_buffer.append"
QUESTION = tone(600) + silence(100)
"""Speech ends at 0.6 s; 18 pieces, of which the last is filled up."""


@dataclass
class Result:
    """What a conversation came to, and when."""

    turn: Turn
    ended: float
    sent: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    record: list[dict[str, Any]] = field(default_factory=list)

    def count(self, kind: str) -> int:
        return sum(event["type"] == kind for _, event in self.sent)


def converse(
    script: Script,
    ask: Callable[[TalkConversation], Awaitable[Turn]],
    timeouts: Timeouts | None = None,
) -> Result:
    async def main() -> Result:
        connection, record = ScriptedConnection(script), BytesIO()
        page, _ = screen(timeline=True)
        async with open_conversation(
            connection, page, timeouts or Timeouts(), record
        ) as conversation:
            turn = await ask(conversation)
            ended = asyncio.get_running_loop().time()
        lines = [msgspec.json.decode(line) for line in record.getvalue().splitlines()]
        return Result(turn, ended, connection.sent, lines)

    return run(main())


def aloud(conversation: TalkConversation) -> Awaitable[Turn]:
    return conversation.ask_aloud(QUESTION)


def typed(conversation: TalkConversation) -> Awaitable[Turn]:
    return conversation.ask("hello")


ANSWERED: Script = {
    (APPEND, 3): [(0.0, STARTED)],
    (APPEND, 25): [
        (0.0, STOPPED),
        (0.25, heard("hello")),
        (0.5, RESPONSE),
        (0.5, ITEM),
        (0.75, word("Yes.")),
        (1.0, sound(tone(20))),
        (1.25, done()),
    ],
}


def test_spoken_turn_is_timed_from_the_end_of_its_speech() -> None:
    result = converse(ANSWERED, aloud)
    assert result.turn.answered
    times = [getattr(result.turn.times, mark.name) for mark in fields(TurnTimes)]
    assert times == pytest.approx([0.6, 1.0, 1.25, 1.5, 2.0, 2.25])
    assert bytes(result.turn.audio) == tone(20)


def test_spoken_turn_sends_audio_in_real_time_and_then_silence() -> None:
    result = converse(ANSWERED, aloud)
    times = [at for at, event in result.sent if event["type"] == APPEND]
    assert times == [pytest.approx(0.04 * n) for n in range(1, 57)]
    pcm = b"".join(
        msgspec.convert(event["audio"], bytes) for _, event in result.sent if "audio" in event
    )
    assert pcm == QUESTION + bytes(len(pcm) - len(QUESTION))


def test_typed_turn_sends_an_item_and_response_create() -> None:
    script: Script = {("response.create", 1): [(0.5, RESPONSE), (0.75, word("Hi.")), (1.0, done())]}
    result = converse(script, typed)
    assert [event for _, event in result.sent] == [
        {
            "type": "conversation.item.create",
            "item": {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "hello"}],
            },
        },
        {"type": "response.create"},
    ]
    assert (result.turn.answers, result.ended) == (["Hi."], 1.0)


def test_spoken_turn_waits_for_a_late_transcript_until_its_timeout() -> None:
    answer: Script = {(APPEND, 25): [(0.0, STOPPED), (0.1, word("Yes.")), (0.5, done())]}
    result = converse(answer, aloud, Timeouts(transcript=2.0))
    assert result.turn.answered
    assert result.ended == pytest.approx(3.5)
    result = converse({**answer, (APPEND, 40): [(0.0, heard("hello"))]}, aloud)
    assert result.turn.transcripts == ["hello"]
    assert result.ended == pytest.approx(1.6)


@pytest.mark.parametrize(
    ("script", "problem", "ended"),
    [
        (
            {},
            "the server did not notice any speech in 15 s of silence after the question",
            15.72,
        ),
        (
            {(APPEND, 3): [(0.0, STARTED)]},
            "the server did not notice the end of the speech in 15 s of silence after the question",
            15.72,
        ),
        (
            {(APPEND, 25): [(0.0, STOPPED), (0.5, RESPONSE)]},
            "nothing came from the server for 30 s",
            31.5,
        ),
        (
            {
                (APPEND, 25): [(0.0, STOPPED), (0.5, RESPONSE)],
                **{(APPEND, n): [(0.0, word("and "))] for n in range(26, 10_000, 25)},
            },
            "the answer was not done after 180 s",
            180.72,
        ),
        (
            {
                (APPEND, 30): [
                    (0.0, ConnectionLost("the server closed the connection (1011): oops"))
                ]
            },
            "the server closed the connection (1011): oops",
            1.2,
        ),
        ({(APPEND, 30): [(0.0, error("no such voice"))]}, "no such voice", 1.2),
    ],
)
def test_spoken_turn_without_an_answer_ends_with_the_reason(
    script: Script, problem: str, ended: float
) -> None:
    result = converse(script, aloud)
    assert (result.turn.answered, result.turn.problems) == (False, [problem])
    assert result.ended == pytest.approx(ended)


def test_typed_turn_with_a_silent_server_times_out() -> None:
    result = converse({}, typed, Timeouts(quiet=7.0))
    assert result.turn.problems == ["nothing came from the server for 7 s"]
    assert result.ended == pytest.approx(7.0)


def test_record_has_every_event_as_sent_and_received() -> None:
    script: Script = {("response.create", 1): [(0.5, word("Hi.")), (0.5, done())]}
    result = converse(script, typed)
    assert result.record == [
        {"at": 0.0, "sent": True, "event": result.sent[0][1]},
        {"at": 0.0, "sent": True, "event": result.sent[1][1]},
        {"at": 0.5, "sent": False, "event": word("Hi.")},
        {"at": 0.5, "sent": False, "event": done()},
    ]


def set_up(script: Script, *, spoken: bool = True) -> tuple[str | None, list[str], float]:
    async def main() -> tuple[str | None, list[str], float]:
        connection = ScriptedConnection(script)
        page, _ = screen()
        async with open_conversation(connection, page, Timeouts()) as conversation:
            problem = await conversation.set_up(TalkOptions(), spoken=spoken)
            return problem, connection.types, asyncio.get_running_loop().time()

    return run(main())


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (OPENING, (None, ["session.update"], 0.0)),
        ({}, ("the server did not answer for 30 s", [], 30.0)),
        ({START: [(1.0, error("no key"))]}, ("no key", [], 1.0)),
        ({START: [(1.0, ConnectionLost("closed"))]}, ("closed", [], 1.0)),
        (
            {START: [(0.0, CREATED)]},
            ("the server did not answer for 30 s", ["session.update"], 30.0),
        ),
        (
            {START: [(0.0, CREATED)], ("session.update", 1): [(2.0, error("no"))]},
            ("no", ["session.update"], 2.0),
        ),
    ],
)
def test_set_up_succeeds_or_returns_the_problem(
    script: Script, expected: tuple[str | None, list[str], float]
) -> None:
    assert set_up(script) == expected


def test_set_up_of_a_typed_conversation_sends_nothing() -> None:
    assert set_up({START: [(0.0, UPDATED | CREATED)]}, spoken=False) == (None, [], 0.0)


def test_unless_lost_when_the_connection_is_lost_returns_none() -> None:
    async def main() -> tuple[str | None, str | None]:
        connection = ScriptedConnection({START: [(5.0, ConnectionLost("closed"))]})
        page, _ = screen()
        async with open_conversation(connection, page, Timeouts()) as conversation:
            typed = await conversation.unless_lost(asyncio.sleep(1.0, "hello"))
            return typed, await conversation.unless_lost(asyncio.sleep(9.0, "late"))

    assert run(main()) == ("hello", None)


def test_turn_when_interrupted_stays_in_the_list() -> None:
    script: Script = {("response.create", 1): [(0.5, RESPONSE), (0.5, sound(tone(20)))]}
    turns: list[Turn] = []

    async def main() -> None:
        page, _ = screen()
        async with (
            asyncio.timeout(1.0),
            open_conversation(
                ScriptedConnection(script), page, Timeouts(), None, turns
            ) as conversation,
        ):
            await conversation.ask("hello")

    with pytest.raises(TimeoutError):
        run(main())
    assert [bytes(turn.audio) for turn in turns] == [tone(20)]
