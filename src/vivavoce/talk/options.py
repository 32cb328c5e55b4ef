"""What a caller of `talk` and `demo` decides. Values only: reading the environment is the caller's.

Every wait of the client has its end here, in seconds.
"""

from dataclasses import dataclass, field
from pathlib import Path

from vivavoce.secret import Secret

DEFAULT_URL = "ws://localhost:8080/v1/realtime"
DEFAULT_MODEL = "gpt-realtime"
"""What is asked for where neither the caller nor the address names a model."""


@dataclass(frozen=True, slots=True)
class Waits:
    """How long a server may take, in seconds."""

    connect: float = 10.0
    """To take the connection, and to take one event that is sent."""
    quiet: float = 30.0
    """Between two events, while an answer is owed."""
    decision: float = 15.0
    """To end a spoken turn, counted from the end of the file: silence is sent meanwhile."""
    answer: float = 180.0
    """For a whole answer, counted from the end of the question."""
    transcript: float = 3.0
    """For a transcript that is still missing when the answer is done."""
    close: float = 2.0
    """To say goodbye."""


@dataclass(frozen=True, slots=True)
class TalkOptions:
    """One run of `vivavoce talk`.

    At most one of `files`, `texts` and `mic`; with none of them the standard input is read.
    """

    url: str = DEFAULT_URL
    """ws(s):// or http(s)://, with or without /v1/realtime and ?model=."""
    model: str = ""
    voice: str = ""
    instructions: str = ""
    files: tuple[Path, ...] = ()
    """Sound files, one spoken turn each."""
    texts: tuple[str, ...] = ()
    """One typed turn each."""
    mic: bool = False
    save: Path | None = None
    """A WAV file for all that the assistant says."""
    events: Path | None = None
    """A JSON Lines file for all events: {"at": seconds, "sent": bool, "event": {...}}."""
    api_key: Secret = field(default_factory=Secret)
    timeline: bool = True
    """Whether every event is shown as it comes."""
    waits: Waits = Waits()


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """One run of `vivavoce demo`."""

    save: Path = Path("demo-reply.wav")
    keep: bool = False
    """Leave the server running, until interrupted, when all is said."""
    config: Path | None = None
    """The settings file of the server; as for `serve` when there is none."""
    question: str = "What can you do?"
    """Short and plain: the embedded recogniser has to understand an embedded voice."""
    timeline: bool = True
    start_seconds: float = 30.0
    """How long the server may take to be ready."""
    stop_seconds: float = 5.0
    """How long it may take to end when told."""
    waits: Waits = Waits()
