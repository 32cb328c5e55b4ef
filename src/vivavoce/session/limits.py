"""How long a session may last, and how much it may hold."""

import re
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

# 32 years: TOML has `inf`, which no timer can count down
MAX_SECONDS = 1e9
Seconds: TypeAlias = Annotated[float, Meta(gt=0, le=MAX_SECONDS)]
SecondsOrZero: TypeAlias = Annotated[float, Meta(ge=0, le=MAX_SECONDS)]
Count: TypeAlias = Annotated[int, Meta(ge=1)]
MAX_CALLS_PER_RESPONSE = 128
MAX_BACKGROUND_CALLS = 16
"""Functions of this server that run in the background of one session at the same time."""
FILLERS = {
    "de": "Einen Moment.",
    "en": "One moment.",
    "es": "Un momento.",
    "fr": "Un instant.",
    "it": "Un momento.",
    "ja": "少々お待ちください。",
    "nl": "Een moment.",
    "pl": "Chwileczkę.",
    "pt": "Um momento.",
    "zh": "请稍等。",
}
"""The filler by the language of the conversation."""


class SessionLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The limits in [session]: bounds of one session. Durations in seconds."""

    max_seconds: Seconds = 3600.0
    """The longest duration of a session."""
    idle_seconds: SecondsOrZero = 0.0
    """The session ends when nothing was received or played for this long; 0: never."""
    stall_seconds: Seconds = 10.0
    """A response or transcription that makes no progress for this long fails."""
    gap_seconds: SecondsOrZero = 3.0
    """Audio that stops arriving in mid-turn counts as silence after this time; 0: never."""
    max_buffer_seconds: Seconds = 600.0
    """The most audio in the input buffer, and so in one item."""
    kept_audio_seconds: SecondsOrZero = 600.0
    """How much audio of items is kept, so that clients can retrieve it; the oldest is dropped
    first."""
    max_response_seconds: Seconds = 1800.0
    """The most audio of one response; then it ends as `incomplete`."""
    max_response_tokens: Count = 16384
    """The most text tokens of one response, if the client sets no limit (`inf`)."""
    max_items: Count = 5000
    """The most items in one conversation."""
    warn_at: Annotated[float, Meta(gt=0, le=1)] = 0.8
    """The share of a budget from which on `say_budget_low` is said."""
    say_budget_low: str = "Most of your budget is used up."
    """The server says this sentence once, between two answers.

    Empty: it says nothing; the same holds for the sentences below.
    """
    say_budget_spent: str = "Your budget is used up, so this call ends now. Goodbye."
    """Said before a session ends because a budget is spent."""
    say_store_lost: str = "This call has to end now. Goodbye."
    """Said before a session ends because its budget cannot be looked up."""
    say_time_low: str = ""
    """Said a minute before `max_seconds`."""
    say_time_over: str = ""
    """Said in the last seconds before `max_seconds`."""
    say_idle: str = ""
    """Said before a session ends after `idle_seconds`."""
    say_greeting: str = ""
    """Said when a session begins."""
    say_failed: str = ""
    """Said when an answer fails, at any stage, before anything of it was heard."""
    filler_seconds: SecondsOrZero = 0.0
    """After this time without output of the model a filler is said, once in each turn; 0: never."""
    say_filler: str = ""
    """The filler. Empty: "One moment." in the language of the conversation."""

    @property
    def without_announcements(self) -> "SessionLimits":
        """The same limits with all sentences empty, where the server has no way to speak."""
        words = {name: "" for name in self.__struct_fields__ if name.startswith("say_")}
        return msgspec.structs.replace(self, **words)

    def filler(self, language: str | None) -> str:
        """The filler for this language."""
        base = re.split("[-_]", (language or "en").lower())[0]
        return self.say_filler or FILLERS.get(base, FILLERS["en"])


def span(seconds: float) -> str:
    """A duration in words: "2 minutes", "90 seconds"."""
    if seconds >= 60 and seconds % 60 == 0:
        minutes = int(seconds // 60)
        return f"{minutes} minute{'s' if minutes != 1 else ''}"
    return f"{seconds:g} seconds"
