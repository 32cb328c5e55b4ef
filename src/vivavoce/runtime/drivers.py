"""What drives a model, and where the runner of a session finds another driver."""

from dataclasses import dataclass
from typing import Protocol

from vivavoce.protocol.session import SessionObject
from vivavoce.runtime.generation import Post, WaitWritable
from vivavoce.runtime.performers import MakePerformer
from vivavoce.session.brain import BrainFactory
from vivavoce.session.effects import RunTool, Say


@dataclass(frozen=True, slots=True)
class Driver:
    """How a model is driven: the brain, and what carries out its effects."""

    brain: BrainFactory
    performer: MakePerformer
    model: str = ""
    """The model that serves the session from now on; "": the one that its client named."""
    relays: bool = False
    """Whether the brain is the relay."""


class Fallbacks(Protocol):
    """What works whatever the brain of a session does: other drivers, a voice, functions."""

    def fallback(self, session: SessionObject) -> Driver | None:
        """None: no fallback."""
        ...

    async def say(self, order: Say, post: Post, wait_writable: WaitWritable) -> None:
        """Speak for the server itself."""
        ...

    async def run_tool(self, order: RunTool, session_id: str) -> str:
        """Call a function of this server; its result for the model."""
        ...

    async def recovered(self, session: SessionObject) -> Driver | None:
        """Wait until what had failed works again; the driver of it. None: it never will."""
        ...
