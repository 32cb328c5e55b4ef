"""The options of `vivavoce talk` and `vivavoce demo`, as the command line reads them, and the
timeouts of both."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vivavoce.secret import Secret

DEFAULT_URL = "ws://localhost:8080/v1/realtime"
DEFAULT_MODEL = "gpt-realtime"
"""The model that is requested if neither an option nor the address names one."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Time limits, in seconds."""

    connect: float = 10.0
    """For the connection, and for the server to accept one event."""
    quiet: float = 30.0
    """Between two events, while an answer is expected."""
    decision: float = 15.0
    """For the end of a spoken turn, from the end of the file; silence is sent meanwhile."""
    answer: float = 180.0
    """For a whole answer, from the end of the question."""
    transcript: float = 3.0
    """For a transcript that is still missing when the answer is done."""
    close: float = 2.0
    """For the closing handshake."""
    start: float = 120.0
    """For the server of the demo to be ready: a slow machine loads models for long."""
    stop: float = 5.0
    """For the server of the demo to end after SIGTERM; then it is killed."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TalkOptions:
    """At most one of --file, --text and --mic; without any of them the standard input is read."""

    url: str = DEFAULT_URL
    """ws(s):// or http(s)://, with or without /v1/realtime and ?model=."""
    model: str = ""
    """The model to request."""
    voice: str = ""
    """The voice to request."""
    instructions: str = ""
    """The instructions for the model."""
    files: Annotated[tuple[Path, ...], Parameter(name="--file", negative="")] = ()
    """An audio file, sent to the server in real time. Repeat it for several turns."""
    texts: Annotated[tuple[str, ...], Parameter(name="--text", negative="")] = ()
    """A typed turn. Repeat it for several turns."""
    mic: Annotated[bool, Parameter(negative="")] = False
    """Talk by microphone and speaker until Ctrl-C. Needs the extra `mic`."""
    save: Path | None = None
    """A WAV file for the audio of all answers."""
    events: Path | None = None
    """A JSON Lines file for every event: {"at": seconds, "sent": bool, "event": {...}}."""
    api_key: Annotated[Secret, Parameter(env_var="OPENAI_API_KEY", show_env_var=False)] = Secret()
    """The API key, if the server needs one; by default the one in OPENAI_API_KEY."""
    timeline: bool = True
    """Show every event as it comes."""
    color: bool = True
    """Show colours."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """The options of `vivavoce demo`."""

    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None
    """The settings file of the server; ./vivavoce.toml if there is one."""
    save: Path = Path("demo-reply.wav")
    """The WAV file for the answer."""
    question: str = "What can you do?"
    """The question, spoken by the embedded voice. Keep it short, so that the embedded recognizer
    understands it."""
    keep: Annotated[bool, Parameter(negative="")] = False
    """Leave the server running afterwards, until Ctrl-C."""
    timeline: bool = True
    """Show every event as it comes."""
