"""A law is a function that checks a random history; each history is checked by many of them."""

from collections.abc import Callable, Iterator

import msgspec
from hypothesis import given, settings

from tests.hypothesis_examples import examples
from tests.session.histories import EVERYTHING, Step, World, openings
from vivavoce.protocol import server as says
from vivavoce.protocol.session import SessionObject
from vivavoce.session.effects import Effect, Send, SendRaw
from vivavoce.session.facts import Disconnected

EXAMPLES = examples(50)
SERVER_EVENTS: msgspec.json.Decoder[says.AnyServerEvent] = msgspec.json.Decoder(says.AnyServerEvent)


def every_history_keeps(*laws: Callable[[World], None]) -> Callable[[], None]:
    """A test of many histories, each of which ends with the client's leaving."""

    @settings(max_examples=examples(100))
    @given(openings, EVERYTHING)
    def holds(opening: SessionObject, steps: list[Step]) -> None:
        world = World(opening)
        world.play(steps)
        world.tell(Disconnected())
        for law in laws:
            law(world)

    return holds


def effects(world: World) -> Iterator[Effect]:
    return (effect for moment in world.history for effect in moment.effects)


def events(world: World) -> Iterator[says.AnyServerEvent]:
    """All events that the client is sent, those of an upstream server among them."""
    for effect in effects(world):
        match effect:
            case Send(event=event):
                yield event
            case SendRaw(data=data):
                yield SERVER_EVENTS.decode(data)


def of_response(event: says.AnyServerEvent) -> str | None:
    """The response that an event is about."""
    if isinstance(event, says.ResponseCreated | says.ResponseDone):
        return event.response.id
    return getattr(event, "response_id", None)
