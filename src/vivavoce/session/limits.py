"""How long a session may last, and how much it may hold."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How long and how much. Seconds; 0 for idle_seconds means never."""

    max_seconds: float = 3600.0
    """A session ends after that."""
    idle_seconds: float = 0.0
    """A session in which nothing has come or been played for so long ends."""
    stall_seconds: float = 10.0
    """A response or transcription of which nothing has come for so long is given up."""
    gap_seconds: float = 3.0
    """Sound that has stopped coming in mid-turn for so long is silence; 0: never."""
    max_buffer_seconds: float = 600.0
    """Most sound in the input buffer, and so in one item."""
    kept_audio_seconds: float = 600.0
    """Sound of items that can still be retrieved; older sound goes first."""


def span(seconds: float) -> str:
    """A duration as people say it."""
    if seconds >= 60 and seconds % 60 == 0:
        minutes = int(seconds // 60)
        return f"{minutes} minute{'s' if minutes != 1 else ''}"
    return f"{seconds:g} seconds"
