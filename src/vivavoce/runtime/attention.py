"""What a session listens with all the time: the ears, and the judge of turns, of its own model."""

import asyncio
import logging
from collections.abc import Callable

from vivavoce.errors import EngineError
from vivavoce.runtime.catalog import Cascade
from vivavoce.runtime.vad_batcher import Deliver, Fail, VadStream
from vivavoce.session.effects import ScoreTurn
from vivavoce.session.facts import TurnScored

log = logging.getLogger(__name__)

NO_IDEA = 0.5  # the likelihood that a turn is finished, where its judge fails
ASSESS_SECONDS = 1.0  # in which it has to tell: later the silence has told as much


class Attention:
    """Opens an ear when there is something to hear. Close it in the end."""

    def __init__(
        self, cascade: Cascade, judged: Deliver, tell: Callable[[TurnScored], None], fail: Fail
    ) -> None:
        """`judged` and `tell` take the verdicts; `fail` is told why an ear hears nothing more."""
        self._cascade = cascade
        self._judged = judged
        self._tell = tell
        self._fail = fail
        self._ear: VadStream | None = None

    @property
    def waiting(self) -> int:
        """Windows that have not been judged yet."""
        return self._ear.waiting if self._ear else 0

    def score(self, at: int, audio: bytes) -> None:
        """Have whole windows of PCM at 24 kHz judged."""
        if self._ear is None:
            self._ear = self._cascade.ears.open(self._judged, self._fail)
        self._ear.score(at, audio)

    async def assess(self, order: ScoreTurn) -> None:
        """Have it judged whether the words sound finished."""
        try:
            async with asyncio.timeout(ASSESS_SECONDS):
                likelihood = await self._cascade.turn.score(order.text, language=order.language)
        except (EngineError, TimeoutError) as exc:
            reason = str(exc) or f"nothing came from their judge for {ASSESS_SECONDS:g} s"
            log.warning("turns are ended by silence alone: %s", reason)
            likelihood = NO_IDEA
        self._tell(TurnScored(order.item_id, likelihood))

    def close(self) -> None:
        if self._ear:
            self._ear.close()
