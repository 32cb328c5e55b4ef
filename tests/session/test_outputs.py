"""What a response puts out, sent piece by piece."""

from typing import Any

import pytest

from tests.session.stage import events
from vivavoce.audio.formats import Format, encode
from vivavoce.protocol import server as says
from vivavoce.protocol.items import FunctionCall, Message, OutputAudio, OutputText
from vivavoce.session.cascade.outputs import CallOutput, OutputPlace, SpokenMessage, WrittenMessage
from vivavoce.session.effects import EffectBuffer, Ids
from vivavoce.session.facts import SpokenWord

AT = OutputPlace("resp_1", "item_1", 2)
PLACE: dict[str, Any] = {"response_id": "resp_1", "item_id": "item_1", "output_index": 2}
WORDS = (SpokenWord("Good ", 0), SpokenWord("day.", 480))
SOUND = b"\x10\x00" * 960


def an_outbox() -> EffectBuffer:
    return EffectBuffer(Ids("t"))


def spoken(outbox: EffectBuffer, format_: Format = "audio/pcm") -> SpokenMessage:
    return SpokenMessage(AT, outbox, format_)


def sound_of(sent: list[says.AnyServerEvent]) -> bytes:
    return b"".join(e.delta for e in sent if isinstance(e, says.OutputAudioDelta))


def test_spoken_message_begins_with_an_empty_part() -> None:
    outbox = an_outbox()
    message = spoken(outbox)
    message.begin()
    part = says.ShownPart(type="audio", transcript="")
    assert events(outbox.drain()) == [
        says.ContentPartAdded(event_id="event_t00001", **PLACE, part=part)
    ]
    assert message.item("in_progress") == Message(
        id="item_1", status="in_progress", role="assistant", content=()
    )


def test_words_are_sent_before_their_audio() -> None:
    outbox = an_outbox()
    spoken(outbox).add(SOUND, WORDS)
    assert events(outbox.drain()) == [
        says.OutputTranscriptDelta(event_id="event_t00001", **PLACE, delta="Good day."),
        says.OutputAudioDelta(event_id="event_t00002", **PLACE, delta=SOUND),
    ]


def test_audio_without_words_and_words_without_audio_are_sent_alone() -> None:
    outbox = an_outbox()
    message = spoken(outbox)
    message.add(SOUND, ())
    message.add(b"", WORDS)
    assert [type(event) for event in events(outbox.drain())] == [
        says.OutputAudioDelta,
        says.OutputTranscriptDelta,
    ]


def test_spoken_message_ends_with_its_whole_transcript() -> None:
    outbox = an_outbox()
    message = spoken(outbox)
    message.add(SOUND, WORDS)
    outbox.drain()
    message.finish("completed")
    part = says.ShownPart(type="audio", transcript="Good day.")
    assert events(outbox.drain()) == [
        says.OutputAudioDone(event_id="event_t00003", **PLACE),
        says.OutputTranscriptDone(event_id="event_t00004", **PLACE, transcript="Good day."),
        says.ContentPartDone(event_id="event_t00005", **PLACE, part=part),
    ]
    assert message.item("completed") == Message(
        id="item_1", role="assistant", content=(OutputAudio(transcript="Good day."),)
    )


def test_spoken_message_keeps_words_and_audio_in_its_ledger() -> None:
    message = spoken(an_outbox())
    message.add(SOUND, WORDS)
    message.ledger.cut(480)
    assert (message.ledger.samples, message.ledger.heard_text) == (960, "Good")


@pytest.mark.parametrize("format_", ["audio/pcmu", "audio/pcma"])
def test_complete_message_sends_all_audio_in_the_format_of_the_client(format_: Format) -> None:
    outbox = an_outbox()
    message = spoken(outbox, format_)
    message.add(SOUND, WORDS)
    message.add(SOUND, ())
    message.finish("completed")
    assert sound_of(events(outbox.drain())) == encode(SOUND + SOUND, format_)


def test_interrupted_message_sends_no_more_audio() -> None:
    outbox = an_outbox()
    message = spoken(outbox, "audio/pcmu")
    message.add(SOUND, WORDS)
    outbox.drain()
    message.finish("incomplete")
    assert [type(event) for event in events(outbox.drain())] == [
        says.OutputAudioDone,
        says.OutputTranscriptDone,
        says.ContentPartDone,
    ]
    assert message.item("incomplete").status == "incomplete"


def test_written_message_streams_its_text_and_sends_it_whole_at_its_end() -> None:
    outbox = an_outbox()
    message = WrittenMessage(AT, outbox)
    message.begin()
    message.add("Good ")
    message.add("day.")
    message.finish("completed")
    empty = says.ShownPart(type="text", text="")
    whole = says.ShownPart(type="text", text="Good day.")
    assert events(outbox.drain()) == [
        says.ContentPartAdded(event_id="event_t00001", **PLACE, part=empty),
        says.OutputTextDelta(event_id="event_t00002", **PLACE, delta="Good "),
        says.OutputTextDelta(event_id="event_t00003", **PLACE, delta="day."),
        says.OutputTextDone(event_id="event_t00004", **PLACE, text="Good day."),
        says.ContentPartDone(event_id="event_t00005", **PLACE, part=whole),
    ]


def test_written_message_shows_its_text_only_when_it_is_over() -> None:
    message = WrittenMessage(AT, an_outbox())
    message.add("Good day.")
    assert message.item("in_progress") == Message(
        id="item_1", status="in_progress", role="assistant", content=()
    )
    assert message.item("incomplete") == Message(
        id="item_1", status="incomplete", role="assistant", content=(OutputText(text="Good day."),)
    )


def test_call_streams_its_arguments_and_sends_them_whole_at_its_end() -> None:
    outbox = an_outbox()
    call = CallOutput(AT, outbox, "call_1", "get_weather")
    call.begin()
    assert outbox.drain() == []
    assert call.item("in_progress") == FunctionCall(
        id="item_1", status="in_progress", call_id="call_1", name="get_weather", arguments=""
    )
    call.add('{"city"')
    call.add(':"Rome"}')
    call.finish("completed")
    of_call = {**PLACE, "call_id": "call_1"}
    assert events(outbox.drain()) == [
        says.FunctionArgumentsDelta(event_id="event_t00001", **of_call, delta='{"city"'),
        says.FunctionArgumentsDelta(event_id="event_t00002", **of_call, delta=':"Rome"}'),
        says.FunctionArgumentsDone(
            event_id="event_t00003", **of_call, name="get_weather", arguments='{"city":"Rome"}'
        ),
    ]


def test_incomplete_call_has_no_arguments_done() -> None:
    outbox = an_outbox()
    call = CallOutput(AT, outbox, "call_1", "get_weather")
    call.add('{"ci')
    outbox.drain()
    call.finish("incomplete")
    assert outbox.drain() == []
    assert call.item("incomplete") == FunctionCall(
        id="item_1", status="incomplete", call_id="call_1", name="get_weather", arguments='{"ci'
    )
