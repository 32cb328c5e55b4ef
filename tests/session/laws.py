"""A law: a check of every random history."""

from collections.abc import Callable, Iterator

import msgspec
from hypothesis import given, settings

from tests.hypothesis_examples import examples
from tests.session.histories import EVERYTHING, Step, World, openings
from vivavoce.protocol import server as says
from vivavoce.protocol.session import SessionObject
from vivavoce.session.effects import Effect, Send, SendRaw
from vivavoce.session.facts import Disconnected

EXAMPLES = examples(50)  # of each law
SERVER_EVENTS: msgspec.json.Decoder[says.AnyServerEvent] = msgspec.json.Decoder(says.AnyServerEvent)
CHECKS: dict[str, Callable[[World], None]] = {}
"""All laws by name."""


def law(check: Callable[[World], None]) -> Callable[[], None]:
    """The check is made of many histories, each of which ends with the client's leaving."""

    @settings(max_examples=EXAMPLES)
    @given(openings, EVERYTHING)
    def holds(opening: SessionObject, steps: list[Step]) -> None:
        world = World(opening)
        world.play(steps)
        world.tell(Disconnected())
        check(world)

    holds.__name__ = check.__name__
    CHECKS[check.__name__] = check
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
