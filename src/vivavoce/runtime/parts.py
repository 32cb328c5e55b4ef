"""What a runner is given: its client, its observers, and the keeper of its session."""

from typing import Protocol

from vivavoce.protocol.audio_frames import PassedAudio
from vivavoce.protocol.server import AnyServerEvent, SessionCreated
from vivavoce.session.checkpoint import Checkpoint
from vivavoce.session.effects import Effect
from vivavoce.session.facts import Fact


class Peer(Protocol):
    """The connection to the client, over any transport."""

    def send(self, event: AnyServerEvent) -> None:
        """Queue an event. Never waits."""
        ...

    def send_raw(self, data: bytes, audio: PassedAudio | None = None) -> None:
        """Queue a GA server event, JSON. Never waits.

        audio: the audio of the frame and the bytes around it, where they are known; a peer that
        keeps sent frames may keep these instead.
        """
        ...

    @property
    def is_writable(self) -> bool:
        """Whether wait_writable() would return at once."""
        ...

    @property
    def waiting_bytes(self) -> int:
        """Bytes that were sent and are still queued here."""
        ...

    async def wait_writable(self) -> None:
        """Backpressure: wait until the client has taken most of what was sent."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Send what is queued, then close. Nothing is sent after that."""
        ...


class Player(Protocol):
    """Plays answers, if the server owns the playback. Posts AudioPlayed as audio is played."""

    def play(self, item_id: str, audio: bytes) -> None:
        """Play this after the audio that is queued. Never waits."""
        ...

    def flush(self) -> None:
        """Drop the audio that was not played yet."""
        ...

    def duck(self, ducked: bool) -> None:
        """Play at a lower level from now on, or at full level again."""
        ...


class Observer(Protocol):
    """Observes everything that happens in a session: usage metering, metrics, a flight recorder."""

    def on(self, fact: Fact | None, effects: list[Effect], now: float) -> None:
        """`effects` are those that the session returned for `fact`; None: the session begins, or
        has a new brain. Called before they are carried out. It must not change or keep the list,
        nor wait. It is not called for audio that a relay passes on, except for the first audio of
        an answer: see Session.pass_output(). If it has an attribute `skips_audio` that is true, it
        is not called for audio of a cascade that changes nothing else, either: see Session.steady.
        """
        ...


class Keeper(Protocol):
    """Stores a session for a client that loses its connection and comes back."""

    @property
    def repeats_items(self) -> bool:
        """Whether the client requests the items of its conversation."""
        ...

    def announced(self, event: SessionCreated) -> SessionCreated:
        """The event as the client gets it, with what the client needs to come back."""
        ...

    def keep(self, checkpoint: Checkpoint) -> None:
        """Store a checkpoint in place of the last one. Never waits."""
        ...

    async def wait_kept(self) -> None:
        """Wait until it is stored. If the store cannot be reached, return after a short time."""
        ...


class CallObserver(Observer, Protocol):
    """Is also called for what an observer does not get: everything that a session is given."""

    def swapping(self, *, relays: bool, model: str, now: float) -> None:
        """The brain was replaced; on() follows, without a fact."""
        ...

    def passed(self, frame: bytes, audio: PassedAudio, now: float, *, output: bool) -> None:
        """The session has let a frame pass undecoded: see Session.pass_input() and
        pass_output()."""
        ...

    def failed(self, fact: Fact | None, exc: Exception, now: float) -> None:
        """The session has failed by a bug.

        fact: the fact it was given, if it raised the exception itself.
        """
        ...

    def leave(self) -> None:
        """The session has ended. May be called more than once."""
        ...
