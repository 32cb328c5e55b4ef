"""What drives a model, and where the runner of a session finds another driver."""

from typing import Protocol

import msgspec

from vivavoce.protocol.session import SessionObject
from vivavoce.runtime.generation import Post, WaitWritable
from vivavoce.runtime.performers import MakePerformer
from vivavoce.session.brain import BrainFactory
from vivavoce.session.effects import RunTool, Say


class Driver(msgspec.Struct, frozen=True):
    """How a model is driven: its brain, and the performer of its effects."""

    brain: BrainFactory
    performer: MakePerformer
    model: str = ""
    """The model that serves the session from now on; "": the one that its client named."""
    relays: bool = False
    """Whether its brain is the relay."""


class Fallbacks(Protocol):
    """What is available with any brain: other drivers, a voice, and functions."""

    def fallback(self, session: SessionObject) -> Driver | None:
        """None: no fallback."""
        ...

    async def say(self, order: Say, post: Post, wait_writable: WaitWritable) -> None:
        """Speak a sentence of the server itself."""
        ...

    async def run_tool(self, order: RunTool, session_id: str) -> str:
        """Call a function of this server; return its result for the model."""
        ...

    async def recovered(self, session: SessionObject) -> Driver | None:
        """Wait until the upstream server that had failed works again; return its driver.

        None: it never will.
        """
        ...
