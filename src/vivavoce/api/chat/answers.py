"""What was said aloud lately, so that a client can refer to it by its id."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

KEPT_SECONDS = 3600
MOST_ANSWERS = 10_000
MOST_CHARACTERS = 8 << 20
"""Of all answers together."""


@dataclass(slots=True)
class _Answer:
    expires_at: int
    transcript: str = ""


class SpokenAnswers:
    """Transcripts of answers; the oldest are forgotten when there are too many."""

    def __init__(
        self,
        *,
        kept_seconds: int = KEPT_SECONDS,
        most: int = MOST_ANSWERS,
        most_characters: int = MOST_CHARACTERS,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._kept_seconds = kept_seconds
        self._most = most
        self._most_characters = most_characters
        self._wall_clock = wall_clock
        self._answers: OrderedDict[str, _Answer] = OrderedDict()
        self._characters = 0

    def begin(self) -> tuple[str, int]:
        """Id of a new answer, and the Unix time until which it is known."""
        answer_id = f"audio_{secrets.token_hex(16)}"
        expires_at = int(self._wall_clock()) + self._kept_seconds
        self._answers[answer_id] = _Answer(expires_at)
        self._bound()
        return answer_id, expires_at

    def add(self, answer_id: str, text: str) -> None:
        """That was said, too."""
        if (answer := self._answers.get(answer_id)) is not None:
            answer.transcript += text
            self._characters += len(text)
            self._bound()

    def transcript(self, answer_id: str) -> str | None:
        """None: never said, or too long ago."""
        self._bound()
        answer = self._answers.get(answer_id)
        return None if answer is None else answer.transcript

    def _bound(self) -> None:
        now = self._wall_clock()
        while self._answers:
            oldest = next(iter(self._answers.values()))
            too_many = len(self._answers) > self._most or self._characters > self._most_characters
            if oldest.expires_at > now and not too_many:
                return
            self._answers.popitem(last=False)
            self._characters -= len(oldest.transcript)
