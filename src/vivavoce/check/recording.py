"""The events of one scenario, and the checks that judge them after it has ended.

A scenario talks to the server and records. A check reads the recording and raises CheckFailed, or
NotApplicable if what it tests did not occur; so checks work on stored recordings as well.
"""

import base64
import binascii
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

EventFields: TypeAlias = dict[str, Any]
MAX_EVIDENCE = 8
"""The most events that a result shows."""


class CheckFailed(Exception):
    """The server broke the rule. `evidence`: the events that show it."""

    def __init__(self, message: str, *evidence: EventFields) -> None:
        super().__init__(message)
        self.evidence = evidence[:MAX_EVIDENCE]


class NotApplicable(Exception):
    """What the check tests did not occur."""


class RecordedEvent(NamedTuple):
    """One event, sent or received; `at` is in seconds since the connection was made."""

    at: float
    sent: bool
    event: EventFields


@dataclass(slots=True)
class CheckRecording:
    """What happened in one scenario."""

    scenario: str
    dialect: str = "ga"
    """ga, beta, webrtc or http."""
    entries: list[RecordedEvent] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    """What no event shows: status codes, close codes, ids by role."""
    unsupported: str = ""
    """Why the server does not support what the scenario tests."""
    missing: list[str] = field(default_factory=list)
    """What the scenario waited for and did not get."""

    @property
    def received(self) -> list[EventFields]:
        """The server's events in order."""
        return [entry.event for entry in self.entries if not entry.sent]

    def all(self, kind: str, **fields: Any) -> list[EventFields]:
        """The server's events of that type with those fields."""
        return [e for e in self.received if e.get("type") == kind and _has(e, fields)]

    def need(self, kind: str, **fields: Any) -> EventFields:
        """The first of those events. Raises NotApplicable."""
        found = self.all(kind, **fields)
        if not found:
            named = "".join(f", {name} {value}" for name, value in fields.items())
            raise NotApplicable(f"no {kind}{named} came")
        return found[0]

    def expect(self, kind: str, message: str, **fields: Any) -> EventFields:
        """The first of those events. Raises CheckFailed with the message."""
        found = self.all(kind, **fields)
        if not found:
            raise CheckFailed(message, *self.tail())
        return found[0]

    def reply_to(self, event_id: str) -> EventFields | None:
        """The error that names the client event of that id."""
        errors = [e for e in self.all("error") if at(e, "error", "event_id") == event_id]
        return errors[0] if errors else None

    def note(self, name: str) -> Any:
        """A note. Raises NotApplicable if the scenario ended before it."""
        if name not in self.notes:
            raise NotApplicable(self.missing[0] if self.missing else f"the scenario has no {name}")
        return self.notes[name]

    def response(self, name: str) -> tuple[EventFields, list[EventFields]]:
        """The response.done of a response that the scenario named, and its events.

        Raises NotApplicable if it did not end, or failed.
        """
        key = self.note(name)
        done = [e for e in self.all("response.done") if at(e, "response", "id") == key]
        if not done:
            raise NotApplicable(f"response {key} did not end")
        if at(done[0], "response", "status") == "failed":
            details = at(done[0], "response", "status_details", "error", "message")
            raise NotApplicable(f"the response failed: {details}")
        return done[0], [e for e in self.received if _response_id(e) == key]

    def between(self, first: EventFields, last: EventFields) -> list[EventFields]:
        """The server's events after `first` and before `last`."""
        events = self.received
        return events[_place(events, first) + 1 : _place(events, last)]

    def place(self, event: EventFields) -> int:
        """The index of one of the server's events."""
        return _place(self.received, event)

    def tail(self) -> list[EventFields]:
        """The last events, as evidence that an event is missing."""
        return self.received[-3:]


Judge: TypeAlias = Callable[[CheckRecording], None]


class ConformanceCheck(NamedTuple):
    """One rule. `scenario` "": it is applied to every recording of a dialect in `dialects`."""

    id: str
    section: str
    """The page and the heading that state it: `protocol.md: Errors`."""
    statement: str
    judge: Judge
    scenario: str = ""
    dialects: tuple[str, ...] = ("ga",)


class CheckList:
    """The checks of one module, in the order in which they are declared."""

    def __init__(self) -> None:
        self.checks: list[ConformanceCheck] = []

    def add(
        self, name: str, section: str, scenario: str = "", dialects: tuple[str, ...] = ("ga",)
    ) -> Callable[[Judge], Judge]:
        """Declare a check; its statement is the docstring of the function."""

        def declare(judge: Judge) -> Judge:
            statement = (judge.__doc__ or "").strip()
            self.checks.append(
                ConformanceCheck(name, section, statement, judge, scenario, dialects)
            )
            return judge

        return declare


def at(event: Any, *path: str | int) -> Any:
    """The value at a path of keys and indexes; None if absent."""
    for key in path:
        if isinstance(event, dict) and isinstance(key, str):
            event = event.get(key)
        elif isinstance(event, list) and isinstance(key, int) and key < len(event):
            event = event[key]
        else:
            return None
    return event


def require(condition: object, message: str, *evidence: EventFields) -> None:
    """Raise CheckFailed with the message unless the condition holds."""
    if not condition:
        raise CheckFailed(message, *evidence)


def require_type(event: EventFields, kind: str) -> None:
    """Raise CheckFailed unless the event is of that type."""
    why = f": {at(event, 'error', 'message')}" if event.get("type") == "error" else ""
    require(event.get("type") == kind, f"{event.get('type')} came, not {kind}{why}", event)


def audio_of(events: list[EventFields], kind: str = "response.output_audio.delta") -> bytes:
    """The audio of delta events, decoded. Raises CheckFailed."""
    pieces = []
    for event in events:
        if event.get("type") == kind:
            try:
                pieces.append(base64.b64decode(event.get("delta") or "", validate=True))
            except (binascii.Error, TypeError, ValueError) as exc:
                raise CheckFailed(f"the audio is not base64: {exc}", event) from exc
    return b"".join(pieces)


def shortened(value: Any, limit: int = 160) -> Any:
    """A value for a report: long texts, such as audio, are shortened."""
    if isinstance(value, str) and len(value) > limit:
        return f"{value[:40]}… ({len(value)} characters)"
    if isinstance(value, dict):
        return {key: shortened(each, limit) for key, each in value.items()}
    if isinstance(value, list):
        return [shortened(each, limit) for each in value]
    return value


def responses(recording: CheckRecording) -> Iterator[tuple[str, list[EventFields]]]:
    """The events of each response, by its id, in the order of their first events."""
    found: dict[str, list[EventFields]] = {}
    for event in recording.received:
        key = _response_id(event)
        if isinstance(key, str):
            found.setdefault(key, []).append(event)
    yield from found.items()


def _response_id(event: EventFields) -> Any:
    kind = event.get("type")
    if kind in ("response.created", "response.done"):
        return at(event, "response", "id")
    return event.get("response_id") if str(kind).startswith("response.") else None


def _has(event: EventFields, fields: dict[str, Any]) -> bool:
    return all(event.get(name) == value for name, value in fields.items())


def _place(events: list[EventFields], event: EventFields) -> int:
    return next(i for i, each in enumerate(events) if each is event)
