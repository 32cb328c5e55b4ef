"""How long a session lasts, how long it may be idle, and the sentences that announce both.

All times are those of the session's facts, in seconds.
"""

from vivavoce.session.announcement import Ending
from vivavoce.session.limits import SessionLimits, span

INFINITY = float("inf")
# for the last sentence; after it the session ends without having said it all
ENDING_TIMEOUT_S = 15.0
LAST_WORDS_S = 5.0  # before a session expires, its last sentence begins
LATE_S = 1.0  # how much longer a session may last until this sentence is over
TIME_WARNING_S = 60.0  # before a session expires, the warning is said
GREETING_DELAY_S = 0.3  # after the beginning: a client that chooses a voice does so at once


class Lifetime:
    """Decides when a session warns of its end, and when it ends by itself."""

    def __init__(
        self, limits: SessionLimits, now: float, *, expires_in: float | None = None
    ) -> None:
        """expires_in: seconds that are left to a resumed session; None: the session is new."""
        self.expires_at = now + (limits.max_seconds if expires_in is None else expires_in)
        self.active_at = now
        """When something was last received, or an answer was being generated."""
        self._limits = limits
        greets = limits.say_greeting and expires_in is None
        self._greets_at = now + GREETING_DELAY_S if greets else INFINITY
        self._warns = bool(limits.say_time_low)

    @property
    def ends_at(self) -> float:
        """When the session expires, or its last sentence begins."""
        early = LAST_WORDS_S if self._limits.say_time_over else 0.0
        return self.expires_at - early

    @property
    def speaks_at(self) -> float:
        """When speak() has something to say."""
        warns_at = self.expires_at - TIME_WARNING_S if self._warns else INFINITY
        return min(self._greets_at, warns_at)

    def idle_at(self, played_until: float, *, busy: bool) -> float:
        """When nothing will have been received or played for idle_seconds."""
        seconds = self._limits.idle_seconds
        if not seconds or busy:
            return INFINITY
        return max(self.active_at, played_until) + seconds

    def speak(self, now: float) -> str:
        """The sentence that is due, once each: the greeting, or the warning a minute before the
        end."""
        if self._greets_at <= now:
            self._greets_at = INFINITY
            return self._limits.say_greeting
        self._warns = False
        return self._limits.say_time_low

    def expired(self) -> tuple[Ending, str]:
        """The ending of a session that has reached its longest duration, and its last sentence."""
        reason = f"Your session hit the maximum duration of {span(self._limits.max_seconds)}."
        latest = self.expires_at + LATE_S
        ending = Ending("session_expired", reason, 1001, reason, latest)
        return ending, self._limits.say_time_over

    def idle(self, now: float) -> tuple[Ending, str]:
        """The ending of an idle session."""
        reason = f"nothing came for {span(self._limits.idle_seconds)}"
        message, latest = f"{reason.capitalize()}.", now + ENDING_TIMEOUT_S
        return Ending("session_idle", message, 1000, reason, latest), self._limits.say_idle
