"""How long a session may last, and how much it may hold."""

from dataclasses import dataclass

MAX_CALLS_PER_RESPONSE = 128


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Bounds of one session. Durations in seconds."""

    max_seconds: float = 3600.0
    """The session ends after that."""
    idle_seconds: float = 0.0
    """The session ends when nothing was received or played for so long; 0: never."""
    stall_seconds: float = 10.0
    """A response or transcription that makes no progress for so long fails."""
    gap_seconds: float = 3.0
    """Audio that stops arriving in the middle of a turn for so long counts as silence; 0: never."""
    max_buffer_seconds: float = 600.0
    """Most audio in the input buffer, and so in one item."""
    kept_audio_seconds: float = 600.0
    """Audio of items that can still be retrieved; the oldest is dropped first."""
    max_response_seconds: float = 1800.0
    """Most audio of one response; then it ends as `incomplete`."""
    max_response_tokens: int = 16384
    """Most text tokens of one response where the client sets no limit (`inf`)."""
    max_items: int = 5000
    """Most items in one conversation."""


def span(seconds: float) -> str:
    """A duration in words: "2 minutes", "90 seconds"."""
    if seconds >= 60 and seconds % 60 == 0:
        minutes = int(seconds // 60)
        return f"{minutes} minute{'s' if minutes != 1 else ''}"
    return f"{seconds:g} seconds"
