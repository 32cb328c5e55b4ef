"""A turn that ends while an answer runs which nothing may interrupt."""

from tests.session.stage import (
    a_session,
    answered,
    ask,
    hear,
    of,
    say,
    tell,
    texts,
    the,
    types,
)
from vivavoce.protocol.session import ServerVad
from vivavoce.session.effects import Close, Generate
from vivavoce.session.facts import (
    DrainStarted,
    OutputFinished,
)

PATIENT = ServerVad(interrupt_response=False)


def test_owed_turns_are_answered_together() -> None:
    session = a_session(turn_detection=PATIENT)
    first = answered(say(session, "one"))
    say(session, "two")
    say(session, "three")
    second = answered(tell(session, OutputFinished(first)))
    assert types(tell(session, OutputFinished(second))) == ["response.done", "rate_limits.updated"]


def test_owed_turn_is_not_answered_into_the_next() -> None:
    session = a_session(turn_detection=PATIENT)
    first = answered(say(session, "one"))
    say(session, "two")
    hear(session, "##")
    assert types(tell(session, OutputFinished(first))) == ["response.done", "rate_limits.updated"]
    effects = say(session, "three", pattern=16 * ".")
    second = the(Generate, effects)
    assert texts(second.prompt.items) == ["one", "two", "three"]
    assert types(tell(session, OutputFinished(second.response_id))) == [
        "response.done",
        "rate_limits.updated",
    ]


def test_owed_turn_is_answered_by_a_response_of_the_client() -> None:
    session = a_session(turn_detection=PATIENT)
    first = answered(say(session, "one"))
    say(session, "two")
    hear(session, "##")
    tell(session, OutputFinished(first))
    second = answered(ask(session))
    hear(session, 16 * ".")
    assert types(tell(session, OutputFinished(second)))[-1] == "response.created"


def test_owed_turn_is_answered_before_the_server_shuts_down() -> None:
    session = a_session(turn_detection=PATIENT)
    first = answered(say(session, "one"))
    say(session, "two")
    tell(session, DrainStarted())
    effects = tell(session, OutputFinished(first))
    assert of(Close, effects) == []
    assert the(Close, tell(session, OutputFinished(answered(effects)))).code == 1012
