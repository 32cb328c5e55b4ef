"""The relay brain: what it passes on, and what it keeps of the conversation."""

import base64
from typing import Any

import msgspec
import pytest

from tests.session.relay_stage import HELLO, Relay, frame, lost, raw_types, sent_upstream
from tests.session.stage import (
    Priced,
    done,
    drawn,
    of,
    problem,
    the,
    types,
)
from vivavoce.protocol import client as asks
from vivavoce.protocol import server as says
from vivavoce.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputText,
    Message,
    OutputText,
)
from vivavoce.protocol.responses import (
    DurationUsage,
    InputTokens,
    OutputTokens,
    SessionUsage,
    Usage,
)
from vivavoce.protocol.session import (
    PCMU,
    AudioInputPatch,
    AudioPatch,
    RealtimePatch,
    ServerVad,
    ServerVadPatch,
    TranscriptionPatch,
)
from vivavoce.session.cascade.brain import CascadeBrain
from vivavoce.session.effects import (
    ClearPlayback,
    Close,
    ConnectUpstream,
    DisconnectUpstream,
    PlayAudio,
    RecordDroppedAudio,
    RecordUsage,
    RequestFallback,
    SendRaw,
    SendUpstream,
)
from vivavoce.session.facts import (
    AudioArrived,
    AudioPlayed,
    Disconnected,
    DrainStarted,
    TimerFired,
    UpstreamConnected,
)
from vivavoce.session.limits import SessionLimits
from vivavoce.session.relay.brain import RelayBrain

SILENT = SessionLimits(
    max_seconds=60.0, idle_seconds=20.0, say_time_low="", say_time_over="", say_idle=""
)


def test_single_append_is_kept_until_the_upstream_server_is_there_however_long_it_is() -> None:
    relay = Relay(connected=False)
    relay.send(asks.InputAudioAppend(audio=bytes(600_000)))
    sent = sent_upstream(relay.take(UpstreamConnected()))
    assert [len(e["audio"]) for e in sent if e["type"] == "input_audio_buffer.append"] == [800_000]


def test_relay_ends_when_it_was_idle_and_at_its_longest_duration_to_the_second() -> None:
    idle = Relay(limits=SILENT)
    assert idle.session.deadline == 20.0
    idle.now = 20.0
    assert the(Close, idle.take(TimerFired())).code == 1000
    busy = Relay(limits=SILENT)
    for busy.now in (15.0, 30.0, 45.0, 59.0):
        assert not of(Close, busy.send(asks.InputAudioAppend(audio=bytes(4800))))
    assert busy.session.deadline == 60.0
    busy.now = 60.0
    effects = busy.take(TimerFired())
    assert the(Close, effects).code == 1001
    assert of(DisconnectUpstream, effects)
    assert problem(effects)[0] == "session_expired"


# connecting


def test_relay_begun_connects_to_the_upstream_server_of_its_model() -> None:
    relay = Relay(connected=False)
    assert relay.first[1:] == [ConnectUpstream("far")]
    assert types(relay.first) == ["session.created"]


def test_relay_connected_sends_settings_then_what_was_queued_in_order() -> None:
    relay = Relay(connected=False)
    assert types(relay.send(asks.ItemCreate(item=HELLO))) == [
        "conversation.item.added",
        "conversation.item.done",
    ]
    relay.send(asks.ResponseCreate())
    update, item, create = sent_upstream(relay.take(UpstreamConnected()))
    assert update["type"] == "session.update"
    assert update["session"]["instructions"] == "Be brief."
    assert update["session"]["type"] == "realtime"
    assert not {"id", "object", "expires_at", "served_by", "model"} & set(update["session"])
    assert (item["type"], item["item"]["id"]) == ("conversation.item.create", "hi")
    assert create["type"] == "response.create"


def test_relay_asks_the_upstream_server_for_no_extension_of_ours() -> None:
    relay = Relay()
    detection = asks.SessionUpdate(
        session=RealtimePatch(
            audio=AudioPatch(input=AudioInputPatch(turn_detection=ServerVadPatch(explain=True)))
        )
    )
    (update,) = sent_upstream(relay.send(detection))
    assert update["session"]["audio"]["input"]["turn_detection"]["type"] == "server_vad"
    assert "explain" not in update["session"]["audio"]["input"]["turn_detection"]


def test_relay_while_connecting_keeps_the_last_seconds_of_audio_and_all_else() -> None:
    relay = Relay(connected=False)
    dropped = 0
    for n in range(400):  # 16 s
        effects = relay.send(asks.InputAudioAppend(audio=bytes([n % 250]) * 1920))
        dropped += sum(effect.frames for effect in of(RecordDroppedAudio, effects))
        if n < 200:
            relay.send(asks.InputAudioCommit())
    queued = sent_upstream(relay.take(UpstreamConnected()))
    audio = [event["audio"] for event in queued if event["type"] == "input_audio_buffer.append"]
    assert 9 <= len(audio) / 25 <= 10
    assert dropped == 400 - len(audio)
    assert audio[-1] == msgspec.to_builtins(bytes([399 % 250]) * 1920)
    assert len(queued) - len(audio) == 201  # commits, and the settings


@pytest.mark.parametrize(("events", "size"), [(300, 1), (5, 1024 * 1024)])
def test_relay_while_connecting_is_given_up_with_more_events_than_can_be_kept(
    events: int, size: int
) -> None:
    relay = Relay(connected=False)
    raw = b'{"type":"response.cancel"}' + b" " * size
    effects = [e for _ in range(events) for e in relay.send(asks.ResponseCancel(), raw)]
    request = the(RequestFallback, effects)
    assert (request.close_code, "in time" in request.reason) == (1013, True)


def test_relay_with_a_long_history_is_not_given_up_for_it() -> None:
    relay = Relay(connected=False, brain=CascadeBrain)
    for n in range(300):
        relay.send(asks.ItemCreate(item=msgspec.structs.replace(HELLO, id=f"i{n}")))
    relay.session.swap(RelayBrain, 0.0, model="far")
    relay.send(asks.ResponseCreate())
    assert len(sent_upstream(relay.take(UpstreamConnected()))) == 302


def test_relay_settings_changed_are_sent_upstream_and_answered_here() -> None:
    relay = Relay()
    effects = relay.send(asks.SessionUpdate(session=RealtimePatch(instructions="Be long.")))
    assert types(effects) == ["session.updated"]
    (update,) = sent_upstream(effects)
    assert update["session"]["instructions"] == "Be long."
    assert relay.say("session.updated", session={}) == []


# from the client


def test_relay_client_frame_passes_byte_for_byte() -> None:
    relay = Relay()
    raw = b'{"type":"input_audio_buffer.append",  "audio":"AAA="}'
    (sent,) = relay.send(asks.InputAudioAppend(audio=b"\0\0"), raw)
    assert sent.data == raw  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "event",
    [
        asks.InputAudioCommit(),
        asks.InputAudioClear(),
        asks.ResponseCreate(),
        asks.ResponseCancel(),
    ],
)
def test_relay_client_event_without_its_frame_is_encoded(event: Any) -> None:
    (sent,) = sent_upstream(Relay().send(event))
    assert sent["type"] == event.__struct_config__.tag


def test_relay_item_deleted_is_deleted_upstream() -> None:
    relay = Relay()
    relay.send(asks.ItemCreate(item=HELLO))
    effects = relay.send(asks.ItemDelete(item_id="hi"))
    assert types(effects) == ["conversation.item.deleted"]
    assert sent_upstream(effects) == [{"type": "conversation.item.delete", "item_id": "hi"}]
    assert relay.say("conversation.item.deleted", item_id="hi") == []


def test_relay_item_with_a_recording_is_sent_upstream_with_it_in_the_clients_format() -> None:
    relay = Relay(input_format=PCMU())
    audio = b"\x7f" * 160
    item = Message(id="u", role="user", content=(InputText("say:"), InputAudio(audio=audio)))
    (sent,) = sent_upstream(relay.send(asks.ItemCreate(item=item)))
    text, recording = sent["item"]["content"]
    assert text["text"] == "say:"
    assert len(msgspec.convert(recording["audio"], bytes)) == len(audio)


def test_relay_item_is_sent_upstream_without_null_fields() -> None:
    relay = Relay()
    item = Message(id="u", role="user", content=(InputAudio(audio=bytes(960)),))
    effects = relay.send(asks.ItemCreate(item=item))
    (raw,) = [effect.data for effect in of(SendUpstream, effects)]
    assert b"null" not in raw


def test_relay_track_without_audio_sends_nothing() -> None:
    assert Relay().take(AudioArrived(b"")) == []


def test_relay_track_audio_is_sent_in_the_format_of_the_settings() -> None:
    relay = Relay(input_format=PCMU())
    sent = sent_upstream(relay.take(*(AudioArrived(bytes(960)) for _ in range(20))))
    audio = b"".join(msgspec.convert(event["audio"], bytes) for event in sent)
    assert 0 < len(audio) <= 20 * 160
    assert len(audio) > 19 * 160 - 160


def test_relay_output_clear_on_a_websocket_is_an_error() -> None:
    relay = Relay()
    assert "no output audio buffer" in problem(relay.send(asks.OutputAudioClear()))[1]


# from the upstream server


def test_relay_unknown_event_passes_as_it_came() -> None:
    relay = Relay()
    fact = frame("some.new.event", novelty={"deep": [1, None]})
    assert relay.take(fact) == [SendRaw(fact.raw)]


@pytest.mark.parametrize("kind", ["session.created", "conversation.created", ""])
def test_relay_event_that_the_shell_has_sent_itself_does_not_pass(kind: str) -> None:
    assert Relay().say(kind) == []


@pytest.mark.parametrize("kind", ["created", "added", "done"])
def test_relay_item_event_of_an_item_of_the_client_does_not_pass(kind: str) -> None:
    relay = Relay()
    relay.send(asks.ItemCreate(item=HELLO))
    item = msgspec.to_builtins(HELLO)
    assert relay.say(f"conversation.item.{kind}", item=item) == []


@pytest.mark.parametrize("kind", ["added", "done"])
def test_relay_item_event_without_an_item_adds_nothing(kind: str) -> None:
    relay = Relay()
    relay.say(f"conversation.item.{kind}")
    assert relay.session.checkpoint(0.0).entries == ()


@pytest.mark.parametrize("item_id", ["", "root"])
def test_relay_item_with_a_reserved_id_is_passed_on_and_not_kept(item_id: str) -> None:
    relay = Relay()
    item = {"id": item_id, "type": "message", "role": "user", "content": []}
    assert raw_types(relay.say("conversation.item.added", item=item)) == ["conversation.item.added"]
    relay.send(asks.ItemCreate(item=HELLO))
    assert [entry.item.id for entry in relay.session.checkpoint(0.0).entries] == ["hi"]


def test_relay_item_of_an_unknown_type_is_passed_on_and_not_kept() -> None:
    relay = Relay()
    item = {"id": "m", "type": "mcp_call"}
    assert len(relay.say("conversation.item.added", item=item)) == 1
    assert relay.say("conversation.item.done", item=item) == []
    assert relay.session.checkpoint(0.0).entries == ()


def test_relay_items_are_kept_in_the_order_of_the_upstream_server() -> None:
    relay = Relay()
    for item_id, before in [("a", None), ("c", "a"), ("b", "a"), ("d", "unknown")]:
        item = {"id": item_id, "type": "message", "role": "user", "content": []}
        relay.say("conversation.item.added", item=item, previous_item_id=before)
    entries = relay.session.checkpoint(0.0).entries
    assert [entry.item.id for entry in entries] == ["a", "b", "c", "d"]


def test_relay_kept_items_are_those_of_the_protocol() -> None:
    relay = Relay()
    call = {"id": "f", "type": "function_call", "call_id": "c1", "name": "dial"}
    relay.say("conversation.item.added", item=call)
    relay.say("conversation.item.done", item={**call, "arguments": "{}", "status": "completed"})
    output = {"id": "o", "type": "function_call_output", "call_id": "c1", "output": "42"}
    relay.say("conversation.item.added", item=output)
    content = [
        {"type": "input_text", "text": "one"},
        {"type": "input_audio", "transcript": "two"},
        {"type": "hologram"},
    ]
    user = {"id": "u", "type": "message", "role": "user", "content": content}
    relay.say("conversation.item.added", item=user)
    relay.say("conversation.item.done", item={**user, "status": "completed"})
    assert [entry.item for entry in relay.session.checkpoint(0.0).entries] == [
        FunctionCall(id="f", call_id="c1", name="dial", arguments="{}"),
        FunctionCallOutput(id="o", call_id="c1", output="42"),
        Message(id="u", role="user", content=(InputText("one"), InputAudio(transcript="two"))),
    ]


def test_relay_transcript_of_a_turn_is_kept_and_passed_on() -> None:
    relay = Relay()
    effects = relay.turn("u", "hello there")
    assert raw_types(effects)[-1] == "conversation.item.input_audio_transcription.completed"
    (entry,) = relay.session.checkpoint(0.0).entries
    assert entry.words == {0: "hello there"}
    assert entry.item == Message(
        id="u", role="user", content=(InputAudio(transcript="hello there"),)
    )


@pytest.mark.parametrize("fields", [{"item_id": "?", "transcript": "x"}, {"item_id": "u"}])
def test_relay_transcript_of_nothing_known_is_passed_on(fields: dict[str, Any]) -> None:
    relay = Relay()
    relay.turn("u", None)
    kind = "conversation.item.input_audio_transcription.completed"
    assert raw_types(relay.say(kind, content_index=7, **fields)) == [kind]
    assert relay.session.checkpoint(0.0).entries[0].words == {}


def test_relay_transcript_of_a_part_that_is_not_there_is_kept_apart() -> None:
    relay = Relay()
    relay.turn("u", None)
    kind = "conversation.item.input_audio_transcription.completed"
    relay.say(kind, item_id="u", content_index=7, transcript="x")
    assert relay.session.checkpoint(0.0).entries[0].words == {7: "x"}


def test_relay_announced_item_id_is_refused_to_the_client_until_it_is_free() -> None:
    relay = Relay()
    relay.say("input_audio_buffer.speech_started", item_id="u")
    stolen = msgspec.structs.replace(HELLO, id="u")
    code, _ = problem(relay.send(asks.ItemCreate(item=stolen)))
    assert code == "item_create_duplicate_item_id"
    relay.say("input_audio_buffer.cleared")
    assert "conversation.item.added" in types(relay.send(asks.ItemCreate(item=stolen)))


def test_relay_answer_is_kept_with_its_words_and_audio() -> None:
    relay = Relay()
    relay.open_response()
    relay.open_item("a")
    relay.open_part("a")
    effects = relay.speak("a", "one two")
    assert (
        raw_types(effects)
        == [
            "response.output_audio_transcript.delta",
            "response.output_audio.delta",
        ]
        * 2
    )
    item = the(says.ItemRetrieved, relay.send(asks.ItemRetrieve(item_id="a"))).item
    assert isinstance(item, Message)
    relay.say(
        "conversation.item.done",
        item={
            "id": "a",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_audio", "transcript": "one two "}],
        },
    )
    item = the(says.ItemRetrieved, relay.send(asks.ItemRetrieve(item_id="a"))).item
    assert isinstance(item, Message)
    (part,) = item.content
    assert part.transcript == "one two "  # type: ignore[union-attr]
    assert part.audio == b"\1\0" * 4800  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["output_audio", "output_audio_transcript", "output_text"])
def test_relay_delta_of_an_unknown_item_is_passed_on_and_not_kept(kind: str) -> None:
    relay = Relay()
    relay.open_response()
    effects = relay.say(f"response.{kind}.delta", response_id="r", item_id="x", delta="AAAA")
    assert raw_types(effects) == [f"response.{kind}.delta"]
    assert relay.session.checkpoint(0.0).entries == ()
    assert done(lost(relay)).output == ()


def test_relay_end_of_a_known_item_that_is_not_readable_is_passed_on() -> None:
    relay = Relay()
    relay.open_response()
    relay.open_item("a")
    item = {"id": "a", "type": "hologram", "status": "completed"}
    assert raw_types(relay.say("conversation.item.done", item=item)) == ["conversation.item.done"]


def test_relay_item_of_a_turn_without_audio_keeps_no_recording() -> None:
    relay = Relay()
    relay.send(asks.InputAudioAppend(audio=drawn("####")))
    relay.say("input_audio_buffer.committed", item_id="u")
    item = {"id": "u", "type": "message", "role": "user", "content": []}
    relay.say("conversation.item.added", item=item)
    assert relay.session.checkpoint(0.0).entries[0].samples == 0


@pytest.mark.parametrize("delta", ["é", "AAAAA", "\0"])
def test_relay_audio_that_is_not_base64_is_passed_on_and_not_kept(delta: str) -> None:
    relay = Relay()
    relay.open_response()
    relay.open_item("a")
    effects = relay.say("response.output_audio.delta", response_id="r", item_id="a", delta=delta)
    assert raw_types(effects) == ["response.output_audio.delta"]


def test_relay_g711_answer_is_kept_as_pcm_across_its_deltas() -> None:
    relay = Relay(output_format=PCMU())
    relay.open_response()
    relay.open_item("a")
    for _ in range(2):
        delta = base64.b64encode(bytes(160)).decode()  # 20 ms
        relay.say("response.output_audio.delta", response_id="r", item_id="a", delta=delta)
    entry = relay.session.checkpoint(0.0).entries[0]
    assert entry.ledger
    assert entry.ledger.samples == 2 * 480


def test_relay_written_answer_is_kept_as_text() -> None:
    relay = Relay()
    relay.open_response()
    relay.open_item("a")
    item = {
        "id": "a",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "hi"}],
    }
    relay.say("conversation.item.done", item=item)
    relay.say("response.done", response={"id": "r"})
    (entry,) = relay.session.checkpoint(0.0).entries
    assert entry.ledger is None
    assert entry.item == Message(id="a", role="assistant", content=(OutputText("hi"),))


def test_relay_response_done_counts_its_usage() -> None:
    relay = Relay()
    relay.open_response()
    usage = {"total_tokens": 12, "input_tokens": 5, "output_tokens": 7}
    effects = relay.say("response.done", response={"id": "r", "usage": usage})
    assert the(RecordUsage, effects) == RecordUsage("r", "far", Usage(12, 5, 7))
    totals = relay.session.usage
    assert (totals.responses, totals.input_tokens, totals.output_tokens) == (1, 5, 7)


@pytest.mark.parametrize("status", ["cancelled", "incomplete"])
def test_relay_response_that_was_cut_short_counts_the_usage_that_it_reports(status: str) -> None:
    relay = Relay()
    relay.open_response()
    usage = {"total_tokens": 12, "input_tokens": 5, "output_tokens": 7}
    effects = relay.say("response.done", response={"id": "r", "status": status, "usage": usage})
    assert the(RecordUsage, effects) == RecordUsage("r", "far", Usage(12, 5, 7), confirmed=True)


def test_relay_adds_what_was_used_to_the_end_of_a_response_where_the_client_includes_it() -> None:
    relay = Relay(include=("x_usage", "item.input_audio_transcription.logprobs"), costs=Priced())
    sent = sent_upstream(relay.first)[0]["session"]
    assert sent["include"] == ["item.input_audio_transcription.logprobs"]
    relay.open_response()
    usage = {"total_tokens": 12, "input_tokens": 5, "output_tokens": 7}
    effects = relay.say("response.done", response={"id": "r", "usage": usage}, kept=1)
    (raw,) = [effect.data for effect in effects if isinstance(effect, SendRaw)]
    event = msgspec.json.decode(raw)
    assert (event["kept"], event["response"]["usage"]) == (1, usage)
    assert (event["x_usage"]["responses"], event["x_usage"]["nano_usd"]) == (1, 12)
    relay.open_response("s")
    closed = the(says.ResponseDone, lost(relay)).x_usage
    assert isinstance(closed, SessionUsage)
    assert (closed.responses, closed.nano_usd, closed.response_nano_usd) == (2, 12, 0)


@pytest.mark.parametrize(
    ("usage", "recorded"),
    [
        ({"type": "duration", "seconds": 2.2}, DurationUsage(3)),
        (
            {
                "type": "tokens",
                "input_tokens": 14,
                "output_tokens": 5,
                "total_tokens": 19,
                "input_token_details": {"audio_tokens": 14, "text_tokens": 0},
            },
            Usage(19, 14, 5, InputTokens(audio_tokens=14), OutputTokens(text_tokens=5)),
        ),
    ],
)
def test_relay_transcription_counts_its_usage_on_the_recogniser(
    usage: dict[str, Any], recorded: Usage | DurationUsage
) -> None:
    relay = Relay()
    recogniser = TranscriptionPatch(model="gpt-4o-transcribe")
    audio = AudioPatch(input=AudioInputPatch(transcription=recogniser))
    relay.send(asks.SessionUpdate(session=RealtimePatch(audio=audio)))
    completed = "conversation.item.input_audio_transcription.completed"
    effects = relay.say(completed, item_id="i", content_index=0, transcript="hi", usage=usage)
    expected = RecordUsage("i:0", "far", recorded, "transcription", recogniser="gpt-4o-transcribe")
    assert the(RecordUsage, effects) == expected
    assert relay.session.usage.responses == 0


@pytest.mark.parametrize("usage", [None, 7, {"seconds": "long"}, {"input_tokens": "many"}])
def test_relay_transcription_without_readable_usage_records_none(usage: Any) -> None:
    relay = Relay()
    completed = "conversation.item.input_audio_transcription.completed"
    effects = relay.say(completed, item_id="i", content_index=0, transcript="hi", usage=usage)
    assert not [effect for effect in effects if isinstance(effect, RecordUsage)]


@pytest.mark.parametrize("usage", [None, 7, {}, {"input_tokens": "many"}])
def test_relay_usage_that_is_not_readable_counts_as_a_response_without_tokens(usage: Any) -> None:
    relay = Relay()
    effects = relay.say("response.done", response={"id": "r", "usage": usage})
    assert raw_types(effects) == ["response.done"]
    assert (relay.session.usage.responses, relay.session.usage.input_tokens) == (1, 0)
    assert not the(RecordUsage, effects).confirmed


def test_relay_interrupted_keeps_only_the_words_that_were_heard() -> None:
    relay = Relay()
    relay.open_response()
    relay.open_item("a")
    relay.speak("a", "one two three")
    relay.now = 0.1  # of 300 ms
    relay.say("input_audio_buffer.speech_started", item_id="u")
    (entry,) = relay.session.checkpoint(0.1).entries
    assert entry.ledger is not None
    assert entry.ledger.heard == 2400


def test_relay_that_must_not_interrupt_goes_on_playing() -> None:
    relay = Relay(turn_detection=ServerVad(interrupt_response=False))
    relay.open_response()
    relay.open_item("a")
    relay.speak("a", "one two three")
    relay.say("input_audio_buffer.speech_started", item_id="u")
    (entry,) = relay.session.checkpoint(0.0).entries
    assert entry.ledger is not None
    assert entry.ledger.heard is None


def test_relay_truncation_by_the_client_goes_upstream() -> None:
    relay = Relay()
    relay.open_response()
    relay.open_item("a")
    relay.speak("a", "one two three")
    effects = relay.send(asks.ItemTruncate(item_id="a", content_index=0, audio_end_ms=100))
    assert types(effects) == ["conversation.item.truncated"]
    (sent,) = sent_upstream(effects)
    assert (sent["type"], sent["audio_end_ms"]) == ("conversation.item.truncate", 100)
    assert relay.say("conversation.item.truncated", item_id="a") == []


# where the server plays


def test_relay_where_the_server_plays_audio_is_played_and_not_sent() -> None:
    relay = Relay(server_plays=True)
    relay.open_response()
    relay.open_item("a")
    effects = relay.speak("a", "one")
    assert raw_types(effects) == ["response.output_audio_transcript.delta"]
    assert types(effects) == ["output_audio_buffer.started"]
    assert the(PlayAudio, effects) == PlayAudio("a", b"\1\0" * 2400)


@pytest.mark.parametrize("played_ms", [0, 130])
@pytest.mark.parametrize("how", ["speech", "clear"])
def test_relay_where_the_server_plays_tells_both_sides_what_was_heard(
    how: str, played_ms: int
) -> None:
    relay = Relay(server_plays=True)
    relay.open_response()
    relay.open_item("a")
    relay.speak("a", "one two")
    relay.take(AudioPlayed("a", 24 * played_ms))
    if how == "speech":
        effects = relay.say("input_audio_buffer.speech_started", item_id="u")
    else:
        effects = relay.send(asks.OutputAudioClear())
    assert of(ClearPlayback, effects)
    assert the(says.OutputAudioCleared, effects)
    assert the(says.ItemTruncated, effects).audio_end_ms == played_ms
    assert sent_upstream(effects) == [
        {
            "type": "conversation.item.truncate",
            "item_id": "a",
            "content_index": 0,
            "audio_end_ms": played_ms,
        }
    ]


def test_relay_where_the_server_plays_deleted_answer_is_not_truncated() -> None:
    relay = Relay(server_plays=True)
    relay.open_response()
    relay.open_item("a")
    relay.speak("a", "one two")
    relay.send(asks.ItemDelete(item_id="a"))
    effects = relay.send(asks.OutputAudioClear())
    assert of(says.ItemTruncated, effects) == []


# the state of a brain


def test_relay_is_busy_from_the_request_to_the_end_of_the_response() -> None:
    relay = Relay()
    relay.send(asks.ResponseCreate())
    assert not relay.session.checkpoint_due
    assert of(Close, relay.take(DrainStarted())) == []
    relay.open_response()
    effects = relay.say("response.done", response={"id": "r"})
    assert the(Close, effects).code == 1012


def test_relay_request_that_was_refused_is_not_waited_for() -> None:
    relay = Relay()
    relay.send(asks.ResponseCreate())
    assert raw_types(relay.say("error", error={"message": "no"})) == ["error"]
    assert the(Close, relay.take(DrainStarted())).code == 1012


def test_relay_at_a_shutdown_waits_for_the_turn_and_its_answer() -> None:
    relay = Relay()
    relay.say("input_audio_buffer.speech_started", item_id="u")
    assert of(Close, relay.take(DrainStarted())) == []
    assert of(Close, relay.turn("u", "hello")) == []
    relay.open_response()
    assert the(Close, relay.say("response.done", response={"id": "r"})).code == 1012


def test_relay_at_a_shutdown_does_not_wait_for_an_answer_that_was_refused() -> None:
    relay = Relay()
    relay.turn("u", "hello")
    assert of(Close, relay.take(DrainStarted())) == []
    assert the(Close, relay.say("error", error={"message": "no"})).code == 1012


def test_relay_at_a_shutdown_waits_for_audio_that_the_client_has_not_committed() -> None:
    relay = Relay(turn_detection=None)
    relay.send(asks.InputAudioAppend(audio=drawn("####")))
    assert of(Close, relay.take(DrainStarted())) == []
    assert the(Close, relay.say("input_audio_buffer.committed", item_id="u")).code == 1012


def test_relay_checkpoint_is_due_at_rest_only() -> None:
    relay = Relay()
    relay.session.checkpoint(0.0)
    relay.say("input_audio_buffer.speech_started", item_id="u")
    assert not relay.session.checkpoint_due
    relay.say("input_audio_buffer.committed", item_id="u")
    assert relay.session.checkpoint_due
    assert relay.session.deadline == 3600.0
    relay.now = 3600.0
    assert the(Close, relay.take(TimerFired())).code == 1001


def test_relay_timer_before_its_end_does_nothing() -> None:
    assert Relay().take(TimerFired()) == []


def test_relay_client_gone_ends_the_open_response_and_the_connection() -> None:
    relay = Relay()
    relay.open_response()
    effects = relay.take(Disconnected())
    assert done(effects).status == "cancelled"
    assert [type(effect) for effect in effects][-2:] == [DisconnectUpstream, Close]
