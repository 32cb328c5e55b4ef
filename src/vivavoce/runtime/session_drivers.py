"""The drivers of one session: the one it begins with, and those that replace it."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import msgspec

from vivavoce.limits.accounts import Owner
from vivavoce.protocol.session import RealtimeSession, SessionObject
from vivavoce.runtime.catalog import ModelCatalog
from vivavoce.runtime.drivers import Driver
from vivavoce.runtime.generation import Post, WaitWritable, say
from vivavoce.runtime.performers import CascadePerformer, MakePerformer
from vivavoce.runtime.relay_performer import RelayPerformer
from vivavoce.runtime.speaker_gate import SpeakerGate
from vivavoce.runtime.tools import ServerTool, ToolOutcome
from vivavoce.runtime.upstream import NO_FALLBACK, Relay
from vivavoce.runtime.upstream_calls import DirectPerformer, PassedOffer
from vivavoce.session.cascade.brain import CascadeBrain
from vivavoce.session.effects import RunTool, Say
from vivavoce.session.facts import OutputFinished
from vivavoce.session.options import AvailableModels
from vivavoce.session.relay.brain import RelayBrain
from vivavoce.session.relay.direct import DirectBrain


class ToolMeasurements(Protocol):
    """Receives measurements of calls to functions of this server."""

    def on_tool(self, name: str, outcome: ToolOutcome, seconds: float) -> None: ...


class DriverContext(Protocol):
    """What all sessions of a server share and their drivers need."""

    @property
    def catalog(self) -> ModelCatalog: ...

    @property
    def models(self) -> AvailableModels: ...

    @property
    def tools(self) -> Mapping[str, ServerTool]: ...

    @property
    def measurements(self) -> ToolMeasurements | None: ...

    @property
    def owner_of(self) -> Callable[[str], Owner]: ...

    @property
    def gate(self) -> SpeakerGate | None: ...


class Drivers(msgspec.Struct, frozen=True):
    """Finds drivers for the session of one client, and speaks for the server."""

    context: DriverContext
    who: str
    is_busy: Callable[[], bool]
    """Whether the server is too busy for work that may turn out not to be needed."""
    offer: PassedOffer | None = None
    """The media of a call that does not pass through this server, so that no other driver can take
    over."""

    def first(self, model: str) -> Driver:
        """The driver with which a session of that model begins; "" is the default one."""
        if found := self._relay(model):
            if self.offer is not None:
                return Driver(DirectBrain, self._direct_performer(found[1]), relays=True)
            return Driver(RelayBrain, self._relay_performer(found[1]), relays=True)
        return self._cascade(model)

    def fallback(self, session: SessionObject) -> Driver | None:
        """The cascade that continues if the upstream server of a session's model fails."""
        found = self._relay_of(session)
        if self.offer is not None or (found and found[1].fallback == NO_FALLBACK):
            return None
        return self._cascade(self.context.catalog.fallback(found[0] if found else ""))

    async def say(self, order: Say, post: Post, wait_writable: WaitWritable) -> None:
        if self.offer is not None:  # the server cannot send anything to the client
            post(OutputFinished(order.order.response_id))
            return
        cascade = self.context.catalog.voice_of(order.order.prompt.model)
        await say(order, cascade, post, wait_writable)

    async def run_tool(self, order: RunTool, session_id: str) -> str:
        context, clock = self.context, asyncio.get_running_loop().time
        outcome: ToolOutcome = "cancelled"
        begun_at = clock()
        try:
            result = await context.tools[order.name].run(order, session_id, self.who)
            outcome = result.outcome
        finally:
            if context.measurements:
                context.measurements.on_tool(order.name, outcome, clock() - begun_at)
        return result.text

    async def recovered(self, session: SessionObject) -> Driver | None:
        """The relay again, as soon as its upstream server answers; None: the client named no
        relay."""
        found = self._relay_of(session)
        if found is None:
            return None
        name, relay = found
        await relay.hold.wait_answering(relay)
        return Driver(RelayBrain, self._relay_performer(relay), name, relays=True)

    def relay(self, model: str) -> Relay | None:
        """The relay that serves a name; None: a cascade does."""
        found = self._relay(model)
        return None if found is None else found[1]

    def _relay_of(self, session: SessionObject) -> tuple[str, Relay] | None:
        """The relay that the session's client named, with its name; None: a cascade."""
        return self._relay(session.model if isinstance(session, RealtimeSession) else "")

    def _relay(self, model: str) -> tuple[str, Relay] | None:
        """An unknown name, or an alias, means a relay if the model that serves it is one."""
        name = self.context.models.served_by(model, "").model
        relay = self.context.catalog.relays.get(name)
        return None if relay is None else (name, relay)

    def _relay_performer(self, relay: Relay) -> MakePerformer:
        return partial(RelayPerformer, relay, self.context.owner_of(self.who).identity)

    def _direct_performer(self, relay: Relay) -> MakePerformer:
        assert self.offer is not None
        return partial(DirectPerformer, relay, self.context.owner_of(self.who).identity, self.offer)

    def _cascade(self, model: str) -> Driver:
        context = self.context
        performer = partial(
            CascadePerformer, context.catalog, model, is_busy=self.is_busy, gate=context.gate
        )
        return Driver(CascadeBrain, performer, model)
