"""All that a skill may look at when it answers."""

from dataclasses import dataclass
from datetime import datetime

from vivavoce.engines.builtin.conversation import Exchange
from vivavoce.engines.builtin.manners import Manners
from vivavoce.engines.builtin.words import Utterance


@dataclass(frozen=True, slots=True)
class Situation:
    """An utterance and what surrounds it."""

    said: Utterance
    past: Exchange
    manners: Manners
    now: datetime
    max_tokens: int | None = None
