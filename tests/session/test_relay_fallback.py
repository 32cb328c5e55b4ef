"""What becomes of a conversation when another brain takes over from a relay, or a relay from it."""

from typing import Any

import msgspec

from tests.session.relay_stage import HELLO, Relay, lost, sent_upstream
from tests.session.stage import (
    TURN,
    done,
    drawn,
    final,
    hear,
    of,
    receive,
    spoke,
    texts,
    the,
    transcription_settings,
    types,
    vad_scores,
    write,
)
from vivavoce.protocol import client as asks
from vivavoce.protocol import server as says
from vivavoce.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    Message,
    OutputText,
)
from vivavoce.protocol.session import RealtimePatch
from vivavoce.session.cascade.brain import CascadeBrain
from vivavoce.session.effects import (
    Close,
    ConnectUpstream,
    DisconnectUpstream,
    EndAudio,
    FeedAudio,
    Generate,
    RunVad,
    StartTranscription,
)
from vivavoce.session.facts import (
    DrainStarted,
    OutputFinished,
    TextGenerated,
    UpstreamConnected,
    UpstreamLost,
)
from vivavoce.session.limits import SessionLimits
from vivavoce.session.relay.brain import RelayBrain


def test_relay_lost_in_an_answer_closes_it_and_the_cascade_answers_again() -> None:
    relay = Relay()
    relay.turn("u", "how are you")
    relay.open_response()
    relay.open_item("a")
    relay.open_part("a")
    relay.speak("a", "fine thanks friend")
    relay.now = 0.1
    effects = lost(relay)
    assert types(effects) == [
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
        "response.created",
    ]
    assert the(says.OutputTranscriptDone, effects).transcript == "fine thanks friend "
    response = done(effects)
    assert (response.id, response.status, response.conversation_id) == ("r", "failed", "c")
    assert response.status_details is not None
    assert [item.id for item in response.output] == ["a"]
    assert of(DisconnectUpstream, effects)
    order = the(Generate, effects)
    assert order.prompt.model == "local"
    assert order.prompt.instructions == "Be brief."
    assert texts(order.prompt.items) == ["how are you", "fine"]  # 100 of 300 ms were played
    ended = relay.take(TextGenerated(order.response_id, "x"), OutputFinished(order.response_id))
    assert done(ended).status == "completed"


def test_relay_lost_in_a_written_answer_closes_it_as_text() -> None:
    relay = Relay(output_modalities=("text",))
    relay.send(asks.ItemCreate(item=HELLO))
    relay.open_response()
    relay.open_item("a")
    relay.open_part("a", "text")
    place = {"response_id": "r", "item_id": "a", "output_index": 0, "content_index": 0}
    relay.say("response.output_text.delta", delta="one ", **place)
    relay.say("response.output_text.delta", delta="two", **place)
    effects = lost(relay)
    assert types(effects)[:3] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
    ]
    assert the(says.OutputTextDone, effects).text == "one two"
    (item,) = done(effects).output
    assert item == Message(
        id="a", status="incomplete", role="assistant", content=(OutputText("one two"),)
    )
    assert texts(the(Generate, effects).prompt.items) == ["hello", "one two"]


def test_relay_lost_in_a_call_closes_it_as_incomplete_and_nobody_reads_it() -> None:
    relay = Relay()
    relay.send(asks.ItemCreate(item=HELLO))
    relay.open_response()
    call: dict[str, Any] = {"type": "function_call", "call_id": "c1", "name": "dial", "role": None}
    relay.open_item("f", index=1, **call)
    place = {"response_id": "r", "item_id": "f", "output_index": 1, "call_id": "c1"}
    relay.say("response.function_call_arguments.delta", delta='{"n"', **place)
    effects = lost(relay)
    (item,) = done(effects).output
    assert item == FunctionCall(
        id="f", status="incomplete", call_id="c1", name="dial", arguments='{"n"'
    )
    assert of(says.FunctionArgumentsDone, effects) == []
    assert [one.id for one in the(Generate, effects).prompt.items] == ["hi"]


def test_relay_lost_shows_the_outputs_that_had_ended_before() -> None:
    relay = Relay()
    relay.open_response()
    relay.open_item("m", index=0)
    relay.open_part("m")
    relay.speak("m", "calling")
    relay.say("response.content_part.done", response_id="r", item_id="m")
    call = {"id": "f", "type": "function_call", "call_id": "c1", "name": "dial"}
    relay.say("response.output_item.added", response_id="r", output_index=1, item=call)
    relay.say(
        "response.output_item.done",
        response_id="r",
        output_index=1,
        item={**call, "arguments": "{}"},
    )
    mcp = {"id": "x", "type": "mcp_call"}
    for kind in ("added", "done"):
        relay.say(f"response.output_item.{kind}", response_id="r", output_index=2, item=mcp)
    effects = lost(relay)
    assert "response.content_part.done" not in types(effects)
    assert [(item.id, item.status) for item in done(effects).output] == [
        ("m", "incomplete"),
        ("f", "completed"),
    ]


def test_relay_lost_with_an_item_deleted_meanwhile_ends_it_in_the_response_only() -> None:
    relay = Relay()
    relay.open_response()
    relay.open_item("a")
    relay.open_part("a")
    relay.speak("a", "one")
    relay.send(asks.ItemDelete(item_id="a"))
    effects = lost(relay)
    assert of(says.ItemDone, effects) == []
    assert the(says.OutputItemDone, effects).item.id == "a"


def test_relay_lost_before_anything_was_said_of_an_item_ends_it_empty() -> None:
    relay = Relay()
    relay.open_response()
    relay.open_item("a")
    (item,) = done(lost(relay)).output
    assert item == Message(id="a", status="incomplete", role="assistant", content=())


def test_relay_lost_with_two_responses_ends_each_once() -> None:
    relay = Relay()
    relay.open_response("r")
    relay.open_response("beside", conversation_id=None)
    relay.say("response.done", response={"id": "unknown"})
    effects = lost(relay)
    ended = [event.response for event in of(says.ResponseDone, effects)]
    assert [(one.id, one.conversation_id) for one in ended] == [("r", "c"), ("beside", None)]
    assert relay.session.usage.responses == 3


def test_relay_lost_between_request_and_response_the_cascade_answers() -> None:
    relay = Relay()
    write(relay.session, "hello")
    effects = lost(relay)
    assert texts(the(Generate, effects).prompt.items) == ["hello"]


def test_relay_lost_at_rest_the_cascade_waits_for_the_user() -> None:
    relay = Relay()
    relay.turn("u", "hello")
    effects = lost(relay)
    assert types(effects) == []
    assert of(Generate, effects) == []


def test_relay_lost_before_the_transcript_came_the_cascade_transcribes_the_recording() -> None:
    relay = Relay()
    relay.send(asks.InputAudioAppend(audio=drawn("####")))
    relay.turn("u", None)
    relay.open_response()
    effects = lost(relay)
    key = the(StartTranscription, effects).key
    assert (key.item_id, key.content_index) == ("u", 0)
    assert the(FeedAudio, effects).audio == drawn("####")
    assert of(EndAudio, effects)
    assert of(Generate, effects) == []  # the answer waits for the words
    order = the(Generate, relay.take(final(key, "hello")))
    assert texts(order.prompt.items) == ["hello"]


def test_relay_lost_recordings_that_were_answered_are_not_transcribed_again() -> None:
    relay = Relay()
    relay.send(asks.InputAudioAppend(audio=drawn("####")))
    relay.turn("u", None)
    relay.open_item("a")
    item = {"id": "a", "type": "message", "role": "assistant", "status": "completed"}
    relay.say("conversation.item.done", item=item)
    assert of(StartTranscription, lost(relay)) == []


def test_relay_lost_in_a_turn_the_cascade_goes_on_with_it() -> None:
    relay = Relay()
    relay.send(asks.InputAudioAppend(audio=drawn("....####")))
    relay.say("input_audio_buffer.speech_started", item_id="u")
    relay.send(asks.InputAudioAppend(audio=drawn("##")))
    effects = lost(relay)
    score = the(RunVad, effects)
    assert (score.at, len(score.audio)) == (0, len(drawn("....####")) + len(drawn("##")))
    more = relay.take(vad_scores(score)) + hear(relay.session, 16 * ".")
    assert of(says.SpeechStarted, more) == []  # the upstream server has announced it
    assert the(says.SpeechStopped, more).item_id == "u"
    assert the(says.InputAudioCommitted, more).item_id == "u"


def test_relay_lost_without_turn_detection_the_cascade_has_all_audio_that_was_pushed() -> None:
    relay = Relay(turn_detection=None)
    audio = drawn(100 * "#")  # 3.2 s
    relay.send(asks.InputAudioAppend(audio=audio))
    lost(relay)
    committed = receive(relay.session, asks.InputAudioCommit())
    item_id = the(says.InputAudioCommitted, committed).item_id
    item = the(says.ItemRetrieved, receive(relay.session, asks.ItemRetrieve(item_id=item_id))).item
    assert isinstance(item, Message)
    assert item.content[0].audio == audio  # type: ignore[union-attr]


def test_relay_lost_in_a_turn_without_turn_detection_the_commit_makes_the_announced_item() -> None:
    relay = Relay()
    relay.send(asks.InputAudioAppend(audio=drawn("####")))
    relay.say("input_audio_buffer.speech_started", item_id="u")
    off = {"audio": {"input": {"turn_detection": None}}}
    relay.send(asks.SessionUpdate(session=msgspec.convert(off, type=RealtimePatch)))
    lost(relay)
    committed = receive(relay.session, asks.InputAudioCommit())
    assert the(says.InputAudioCommitted, committed).item_id == "u"


def test_relay_lost_in_a_transcription_session_creates_no_response() -> None:
    relay = Relay(opening=transcription_settings())
    relay.send(asks.ResponseCreate())
    assert types(lost(relay, "")) == []


def test_relay_outside_a_turn_keeps_one_second_and_in_one_what_the_limit_allows() -> None:
    relay = Relay(limits=SessionLimits(max_buffer_seconds=2.0))
    second = bytes(48_000)
    for _ in range(3):
        relay.send(asks.InputAudioAppend(audio=second))
    relay.say("input_audio_buffer.speech_started", item_id="u")
    score = the(RunVad, lost(relay))
    assert score.at == 48_000  # samples: two of the three seconds are gone
    relay = Relay(limits=SessionLimits(max_buffer_seconds=2.0))
    relay.say("input_audio_buffer.speech_started", item_id="u")
    for _ in range(3):
        relay.send(asks.InputAudioAppend(audio=second))
    assert the(RunVad, lost(relay)).at == 24_000


def test_late_facts_of_the_relay_do_not_reach_the_cascade() -> None:
    relay = Relay()
    lost(relay)
    assert relay.take(UpstreamConnected(), UpstreamLost("again")) == []
    assert relay.say("response.created", response={"id": "late"}) == []


def test_facts_of_a_cascade_do_not_reach_the_relay() -> None:
    relay = Relay()
    assert relay.take(spoke("r", "one"), OutputFinished("r")) == []


def test_draining_session_swapped_goes_on_draining() -> None:
    relay = Relay()
    relay.open_response()
    relay.take(DrainStarted())
    effects = lost(relay)
    order = the(Generate, effects)
    assert the(Close, relay.take(OutputFinished(order.response_id))).code == 1012


def test_swap_from_cascade_to_relay_takes_history_audio_and_the_owed_answer() -> None:
    relay = Relay(brain=CascadeBrain, connected=False, model="gpt-realtime")
    first = the(Generate, write(relay.session, "hello")).response_id
    relay.take(spoke(first, "hi"), OutputFinished(first))
    second = the(Generate, write(relay.session, "and you?")).response_id
    audio = drawn("....")
    receive(relay.session, asks.InputAudioAppend(audio=audio))
    last, new = relay.session.swap(RelayBrain, 0.0, model="far")
    assert done(last).id == second
    assert done(last).status == "cancelled"
    assert the(ConnectUpstream, new) == ConnectUpstream("far")
    sent = sent_upstream(relay.take(UpstreamConnected()))
    assert [event["type"] for event in sent] == [
        "session.update",
        *["conversation.item.create"] * 3,
        "input_audio_buffer.append",
        "response.create",
    ]
    assert [event["item"]["content"][0] for event in sent[1:4]] == [
        {"type": "input_text", "text": "hello"},
        {"type": "output_text", "text": "hi "},
        {"type": "input_text", "text": "and you?"},
    ]
    assert msgspec.convert(sent[4]["audio"], bytes) == audio


def test_swap_to_a_relay_and_back_loses_no_audio() -> None:
    relay = Relay(brain=CascadeBrain, connected=False, turn_detection=None)
    receive(relay.session, asks.InputAudioAppend(audio=drawn("####")))
    relay.session.swap(RelayBrain, 0.0, model="far")
    lost(relay)
    committed = receive(relay.session, asks.InputAudioCommit())
    assert the(says.InputAudioCommitted, committed)


def test_swap_to_a_relay_sends_calls_and_the_words_of_recordings() -> None:
    relay = Relay(brain=CascadeBrain, connected=False)
    items = (
        Message(id="u", role="user", content=(InputAudio(audio=drawn("#"), transcript="spoken"),)),
        FunctionCall(id="f", call_id="c1", name="dial", arguments="{}"),
        FunctionCallOutput(id="o", call_id="c1", output="42"),
    )
    for item in items:
        receive(relay.session, asks.ItemCreate(item=item))
    relay.session.swap(RelayBrain, 0.0, model="far")
    sent = sent_upstream(relay.take(UpstreamConnected()))[1:]
    assert [event["item"]["type"] for event in sent] == [
        "message",
        "function_call",
        "function_call_output",
    ]
    assert [event["item"]["id"] for event in sent] == ["u", "f", "o"]
    assert sent[0]["item"]["content"] == [{"type": "input_text", "text": "spoken"}]


def test_swap_to_a_relay_sends_of_an_answer_the_words_that_were_heard_and_no_audio() -> None:
    relay = Relay()
    relay.turn("u", "how are you")
    relay.open_response()
    relay.open_item("a")
    relay.open_part("a")
    relay.speak("a", "fine thanks friend")
    relay.send(asks.ItemTruncate(item_id="a", content_index=0, audio_end_ms=150))
    relay.session.swap(RelayBrain, 0.0, model="far")
    sent = sent_upstream(relay.take(UpstreamConnected()))
    items = [event["item"] for event in sent if event["type"] == "conversation.item.create"]
    assert [item["id"] for item in items] == ["u", "a"]
    assert items[0]["content"] == [{"type": "input_text", "text": "how are you"}]
    (part,) = items[1]["content"]
    assert (part["type"], part["text"].split()) == ("output_text", ["fine", "thanks"])


def test_session_after_a_swap_hears_the_next_turn() -> None:
    relay = Relay()
    relay.turn("u", "one")
    lost(relay)
    effects = hear(relay.session, TURN)
    assert the(says.SpeechStarted, effects).item_id not in ("u", "")
    assert "response.created" in types(effects)
