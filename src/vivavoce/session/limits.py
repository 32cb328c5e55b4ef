"""How long a session may last, and how much it may hold."""

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

# 32 years: TOML has `inf`, which no timer can count down
MAX_SECONDS = 1e9
Seconds: TypeAlias = Annotated[float, Meta(gt=0, le=MAX_SECONDS)]
SecondsOrZero: TypeAlias = Annotated[float, Meta(ge=0, le=MAX_SECONDS)]


class SessionLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The limits in [session]."""

    max_seconds: Seconds = 3600.0
    """A session ends after that."""
    idle_seconds: SecondsOrZero = 0.0
    """A session ends when nothing has arrived or been played for so long; 0: never."""
    stall_seconds: Seconds = 10.0
    """A response or transcription fails when its engine has sent nothing for so long."""
    gap_seconds: SecondsOrZero = 3.0
    """Audio that stops in the middle of a turn counts as silence after so long; 0: never."""
    max_buffer_seconds: Seconds = 600.0
    """Audio in the input buffer, and so in one item."""
    kept_audio_seconds: SecondsOrZero = 600.0
    """Audio of items that can still be retrieved; the oldest is dropped first."""


def span(seconds: float) -> str:
    """A duration in words, for error texts: "1 minute", "2.5 seconds"."""
    if seconds >= 60 and seconds % 60 == 0:
        minutes = int(seconds // 60)
        return f"{minutes} minute{'s' if minutes != 1 else ''}"
    return f"{seconds:g} seconds"
