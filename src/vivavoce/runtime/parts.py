"""The parts that a runner is given: its client, and what sees and keeps its session."""

from typing import Protocol

from vivavoce.protocol.server import AnyServerEvent, SessionCreated
from vivavoce.session.checkpoint import Checkpoint
from vivavoce.session.effects import Effect
from vivavoce.session.facts import Fact


class Peer(Protocol):
    """The client, whatever transport carries it."""

    def send(self, event: AnyServerEvent) -> None:
        """Queue an event. Never waits."""
        ...

    def send_raw(self, data: bytes) -> None:
        """Queue a GA server event, JSON. Never waits."""
        ...

    @property
    def is_writable(self) -> bool:
        """Whether wait_writable() would not wait."""
        ...

    @property
    def waiting_bytes(self) -> int:
        """Of what was sent and is queued here still."""
        ...

    async def wait_writable(self) -> None:
        """Backpressure: wait until the client has taken most of what was sent."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Send what is queued, then close. Nothing is sent after that."""
        ...


class Player(Protocol):
    """Plays answers, where the server owns the playback. Posts AudioPlayed as they are played."""

    def play(self, item_id: str, audio: bytes) -> None:
        """Play that behind what waits. Never waits."""
        ...

    def flush(self) -> None:
        """Drop what was not played yet."""
        ...

    def duck(self, ducked: bool) -> None:
        """Play softly from now on, or at full level again."""
        ...


class Observer(Protocol):
    """Sees all that happens in a session: usage metering, metrics, a flight recorder."""

    def on(self, fact: Fact | None, effects: list[Effect], now: float) -> None:
        """`effects` is what the session makes of `fact`; None: its beginning, or a new brain.

        Called before they are carried out. It must not change or keep the list, nor wait. It does
        not see audio that a relay passes on, but for the first of an answer: see
        Session.pass_output(). With an attribute `skips_audio` that is true it does not see audio of
        a cascade that goes on, either: see Session.steady.
        """
        ...


class Keeper(Protocol):
    """Keeps a session for a client that loses its connection and comes back."""

    @property
    def repeats_items(self) -> bool:
        """Whether the client asks for the items of its conversation."""
        ...

    def announced(self, event: SessionCreated) -> SessionCreated:
        """The event as the client gets it: it says how to come back."""
        ...

    def keep(self, checkpoint: Checkpoint) -> None:
        """Store a checkpoint in place of the last one. Never waits."""
        ...

    async def wait_kept(self) -> None:
        """Wait until it is stored. A store that cannot be reached is not waited for long."""
        ...


class CallObserver(Observer, Protocol):
    """Sees what an observer does not, too: all that a session is given."""

    def swapping(self, *, relays: bool, model: str, now: float) -> None:
        """Another brain takes over; on() follows, without a fact."""
        ...

    def passed(self, frame: bytes, now: float, *, output: bool) -> None:
        """The session has let a frame pass: see Session.pass_input() and pass_output()."""
        ...

    def failed(self, fact: Fact | None, exc: Exception, now: float) -> None:
        """The session fails by a bug. fact: what it was given, if it raised the exception."""
        ...

    def leave(self) -> None:
        """The session has ended. May be called more than once."""
        ...
