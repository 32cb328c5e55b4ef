"""Usage of a session by its owner: an observer that logs the sum when the session ends."""

import logging

from vivavoce.protocol.session import SessionObject
from vivavoce.session.effects import Close, Effect, RecordUsage
from vivavoce.session.facts import Fact
from vivavoce.session.usage import UsageTotals

log = logging.getLogger(__name__)


class UsageLog:
    """Sums what a session uses, by model.

    who: the name of the key that opened the session; "" where no key is needed.
    """

    def __init__(self, session: SessionObject, who: str) -> None:
        self.session_id = session.id
        self.who = who
        self.models: dict[str, UsageTotals] = {}

    def on(self, fact: Fact | None, effects: list[Effect], now: float) -> None:
        for effect in effects:
            match effect:
                case RecordUsage(model=model):
                    self.models.setdefault(model, UsageTotals()).add(effect)
                case Close():
                    self._log()

    def _log(self) -> None:
        for model, used in self.models.items():
            log.info(
                "%s: used by %s of %s: %d responses, %d tokens in, %d out, %d s transcribed",
                self.session_id,
                self.who or "anonymous",
                model,
                used.responses,
                used.input_tokens,
                used.output_tokens,
                used.transcribed_seconds,
            )
