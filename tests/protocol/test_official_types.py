"""What we send and take, held against the types of the official client library."""

from collections.abc import Iterator
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from openai.types.beta.realtime import RealtimeClientEvent as OfficialBetaClientEvent
from openai.types.beta.realtime import RealtimeServerEvent as OfficialBetaServerEvent
from openai.types.realtime import RealtimeClientEvent as OfficialClientEvent
from openai.types.realtime import RealtimeServerEvent as OfficialServerEvent
from pydantic import TypeAdapter, ValidationError

from tests.hypothesis_examples import examples
from tests.protocol.client_samples import (
    BETA_CLIENT_EVENTS,
    GA_CLIENT_EVENTS,
)
from tests.protocol.samples import (
    RICH_SESSION,
    SERVER_EVENTS,
    TRANSCRIPTION_SESSION,
)
from tests.session.histories import EVERYTHING, Step, World, openings
from tests.session.laws import events
from vivavoce.protocol import codec
from vivavoce.protocol.beta import Beta
from vivavoce.protocol.beta_client import AnyBetaEvent
from vivavoce.protocol.client import AnyClientEvent
from vivavoce.protocol.codec import GA
from vivavoce.protocol.server import AnyServerEvent, SessionUpdated
from vivavoce.protocol.session import SessionObject
from vivavoce.session.facts import Disconnected

official_ga: TypeAdapter[Any] = TypeAdapter(OfficialServerEvent)
official_beta: TypeAdapter[Any] = TypeAdapter(OfficialBetaServerEvent)

GA_FRAMES = [frame.data for event in SERVER_EVENTS for frame in GA().encode(event)]
BETA_FRAMES = [frame.data for event in SERVER_EVENTS for frame in Beta().encode(event)]


def kind(frame: bytes) -> str:
    return str(msgspec.json.decode(frame)["type"])


def our_names(union: Any) -> set[str]:
    return {str(event.__struct_config__.tag) for event in get_args(union)}


def official_names(union: Any) -> set[str]:
    """The union is Annotated[Union[...], discriminator]."""
    members = get_args(get_args(union)[0])
    return {get_args(member.model_fields["type"].annotation)[0] for member in members}


def test_samples_cover_every_server_event() -> None:
    assert {type(event) for event in SERVER_EVENTS} == set(get_args(AnyServerEvent))


def test_server_events_are_those_of_the_official_types() -> None:
    assert our_names(AnyServerEvent) == official_names(OfficialServerEvent)
    assert our_names(AnyClientEvent) == official_names(OfficialClientEvent)
    assert our_names(AnyBetaEvent) == official_names(OfficialBetaClientEvent)


def test_beta_server_events_are_those_of_the_official_types() -> None:
    sent = {kind(frame) for frame in BETA_FRAMES}
    # the schema has it, the library's union forgot it
    assert sent - {"transcription_session.created"} == official_names(OfficialBetaServerEvent)


def test_samples_cover_every_client_event() -> None:
    assert {event["type"] for event in GA_CLIENT_EVENTS} == our_names(AnyClientEvent)
    assert {event["type"] for event in BETA_CLIENT_EVENTS} == our_names(AnyBetaEvent)


@pytest.mark.parametrize("frame", GA_FRAMES, ids=kind)
def test_server_event_validates_against_the_official_type(frame: bytes) -> None:
    assert official_ga.validate_json(frame).type == kind(frame)


@settings(max_examples=examples(40))
@given(openings, EVERYTHING)
def test_events_of_random_histories_validate_against_the_official_type(
    opening: SessionObject, steps: list[Step]
) -> None:
    world = World(opening)
    world.play(steps)
    world.tell(Disconnected())
    for event in events(world):
        frame = codec.encode(event)
        assert official_ga.validate_json(frame).type == event.__struct_config__.tag


@pytest.mark.parametrize(
    "frame",
    [frame for frame in BETA_FRAMES if not kind(frame).startswith("transcription_session.")],
    ids=kind,
)
def test_beta_server_event_validates_against_the_official_type(frame: bytes) -> None:
    assert official_beta.validate_json(frame).type == kind(frame)


def test_beta_transcription_session_validates_but_for_its_secret() -> None:
    """The library wants a secret there, which only the HTTP answer has; the server sends null."""
    (frame,) = Beta().encode(SessionUpdated(event_id="e", session=TRANSCRIPTION_SESSION))
    event = msgspec.json.decode(frame.data)
    assert event["session"]["client_secret"] is None
    event["session"]["client_secret"] = {"value": "ek_1", "expires_at": 1}
    assert official_beta.validate_python(event).session.turn_detection.threshold == 0.25


@pytest.mark.parametrize("adapter", [official_ga, official_beta], ids=["ga", "beta"])
def test_official_type_refuses_an_event_with_a_missing_field(adapter: TypeAdapter[Any]) -> None:
    with pytest.raises(ValidationError):
        adapter.validate_python({"type": "conversation.item.deleted", "event_id": "e"})


def nulls(value: Any, path: str = "") -> Iterator[str]:
    if value is None:
        yield path
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from nulls(inner, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            yield from nulls(inner, f"{path}[]")


def test_null_is_sent_only_where_every_client_accepts_it() -> None:
    """One client drops an event for a null in an item, a part, a usage or a failure."""
    allowed = {
        "error.code",
        "error.param",
        "error.event_id",
        "item.content[].transcript",  # of a user's audio that is not written down yet
        "previous_item_id",
        "response.conversation_id",
        "response.metadata",
        "response.status_details",
        "response.usage",
        "session.include",
        "session.prompt",
        "session.reasoning",
        "session.tracing",
        "session.audio.input.noise_reduction",
        "session.audio.input.transcription",
        "session.audio.input.turn_detection.idle_timeout_ms",
    }
    found = {path for frame in GA_FRAMES for path in nulls(msgspec.json.decode(frame))}
    assert found == allowed


def test_every_event_but_dtmf_has_an_event_id() -> None:
    without = {kind(frame) for frame in GA_FRAMES if "event_id" not in msgspec.json.decode(frame)}
    assert without == {"input_audio_buffer.dtmf_event_received"}


def test_part_types_are_short_in_part_events_and_long_in_items() -> None:
    events = [msgspec.json.decode(frame) for frame in GA_FRAMES]
    shown = {event["part"]["type"] for event in events if "part" in event}
    kept = {part["type"] for event in events for part in event.get("item", {}).get("content", ())}
    assert shown == {"audio", "text"}
    assert kept == {"input_audio", "input_image", "input_text", "output_audio", "output_text"}


def test_transcription_settings_are_echoed_with_three_keys_at_most() -> None:
    (frame,) = GA().encode(SessionUpdated(event_id="e", session=RICH_SESSION))
    session = msgspec.json.decode(frame.data)["session"]
    assert session["audio"]["input"]["transcription"] == {
        "model": "whisper-1",
        "language": "it",
        "prompt": "Roma",
    }
    (frame,) = GA().encode(SessionUpdated(event_id="e", session=TRANSCRIPTION_SESSION))
    session = msgspec.json.decode(frame.data)["session"]
    assert session["audio"]["input"]["transcription"] == {"model": "whisper-1"}
