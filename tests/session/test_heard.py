"""What was heard of an answer that was interrupted."""

from tests.session.stage import (
    a_session,
    answered,
    ask,
    done,
    hear,
    kept,
    receive,
    spoke,
    tell,
    the,
    types,
    write,
)
from vivavoce.protocol import server as says
from vivavoce.protocol.client import (
    ItemDelete,
    ItemTruncate,
    ResponseCancel,
)
from vivavoce.session.facts import (
    AudioGenerated,
    OutputFinished,
    SpokenWord,
    TextGenerated,
)


def test_cancelled_answer_keeps_the_words_that_were_played() -> None:
    session = a_session()
    response_id = answered(write(session, "count", now=10.0))
    tell(session, spoke(response_id, "one two three", ms=1000), now=11.0)
    receive(session, ResponseCancel(), now=12.75)
    assert kept(session) == ["count", "one two"]


def test_words_whose_sound_had_not_come_were_not_heard() -> None:
    session = a_session()
    response_id = answered(write(session, "count", now=10.0))
    tell(session, spoke(response_id, "one", ms=1000), now=11.0)
    tell(session, AudioGenerated(response_id, b"", (SpokenWord("two", 24_000),)), now=11.0)
    receive(session, ResponseCancel(), now=30.0)
    assert kept(session) == ["count", "one"]


def test_answer_that_is_cancelled_before_its_first_sound_was_not_heard() -> None:
    session = a_session()
    response_id = answered(write(session, "count"))
    tell(session, TextGenerated(response_id, "one two"))
    receive(session, ResponseCancel())
    assert kept(session) == ["count"]


def test_answer_that_was_played_to_its_end_is_kept_whole() -> None:
    session = a_session()
    response_id = answered(write(session, "count", now=10.0))
    tell(
        session, spoke(response_id, "one two three", ms=1000), OutputFinished(response_id), now=11.0
    )
    hear(session, "##", now=14.0)
    assert kept(session) == ["count", "one two three "]


def test_answer_is_played_after_the_one_before_it() -> None:
    session = a_session()
    first = answered(write(session, "count", now=10.0))
    tell(session, spoke(first, "one two", ms=1000), OutputFinished(first), now=11.0)
    second = answered(ask(session, now=11.0))
    tell(session, spoke(second, "three four", ms=1000), now=11.0)
    hear(session, "##", now=14.0)
    assert kept(session) == ["count", "one two ", "three"]


def test_answer_of_which_nothing_was_played_was_not_said() -> None:
    session = a_session()
    first = answered(write(session, "count", now=10.0))
    tell(session, spoke(first, "one two", ms=1000), OutputFinished(first), now=11.0)
    second = answered(ask(session, now=11.0))
    tell(session, spoke(second, "three four", ms=1000), now=11.0)
    hear(session, "##", now=12.0)
    assert kept(session) == ["count", "one"]


def test_cancelling_an_answer_does_not_stop_the_one_before_it() -> None:
    session = a_session()
    first = answered(write(session, "count", now=10.0))
    tell(session, spoke(first, "one two", ms=1000), OutputFinished(first), now=11.0)
    second = answered(ask(session, now=11.0))
    tell(session, spoke(second, "three four", ms=1000), now=11.0)
    receive(session, ResponseCancel(), now=12.0)
    assert kept(session) == ["count", "one two "]


def test_client_can_truncate_an_answer_later() -> None:
    session = a_session()
    response_id = answered(write(session, "count", now=10.0))
    effects = tell(session, spoke(response_id, "one two three", ms=1000), now=11.0)
    item_id = the(says.OutputItemAdded, effects).item.id
    hear(session, "##", now=11.0)
    assert kept(session) == ["count"]
    receive(session, ItemTruncate(item_id=item_id, content_index=0, audio_end_ms=2000), now=12.0)
    assert kept(session) == ["count", "one two"]


def test_deleted_answer_was_not_said() -> None:
    session = a_session()
    response_id = answered(write(session, "count", now=10.0))
    effects = tell(session, spoke(response_id, "one two", ms=1000), now=11.0)
    receive(session, ItemDelete(item_id=the(says.OutputItemAdded, effects).item.id), now=11.0)
    hear(session, "##", now=11.5)
    assert kept(session) == ["count"]


def test_speech_does_not_interrupt_what_runs_beside_the_conversation() -> None:
    session = a_session()
    beside = answered(ask(session, conversation="none"))
    tell(session, spoke(beside, "one two"))
    effects = hear(session, "##")
    assert types(effects) == ["input_audio_buffer.speech_started"]
    assert done(tell(session, OutputFinished(beside))).status == "completed"
