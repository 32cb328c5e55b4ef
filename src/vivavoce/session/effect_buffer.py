"""Where all parts of a session put what it asks of the world, and where ids come from."""

from vivavoce.protocol.server import AnyServerEvent, ErrorBody, ErrorEvent
from vivavoce.session.effects import Effect, Send


class Ids:
    """Ids that never repeat: a salt, given, and a counter."""

    def __init__(self, salt: str) -> None:
        self._salt = salt
        self._count = 0

    def next(self, kind: str) -> str:
        self._count += 1
        return f"{kind}_{self._salt}{self._count:05x}"


class EffectBuffer:
    """Effects in the order in which they are to be performed. Nothing is put after a close."""

    def __init__(self, ids: Ids) -> None:
        self.ids = ids
        self._effects: list[Effect] = []

    def event_id(self) -> str:
        """A new id for the event that is about to be sent."""
        return self.ids.next("event")

    def send(self, event: AnyServerEvent) -> None:
        self._effects.append(Send(event))

    def add(self, effect: Effect) -> None:
        self._effects.append(effect)

    def error(
        self,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        cause: str | None = None,
    ) -> None:
        """Send an `error` event; `cause` is the event_id of the client event at fault."""
        body = ErrorBody(type=kind, code=code, message=message, param=param, event_id=cause)
        self.send(ErrorEvent(event_id=self.event_id(), error=body))

    def drain(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects
