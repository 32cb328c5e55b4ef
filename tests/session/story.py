"""A conversation as one reads it: events in order, ids as short names in order of appearance."""

from itertools import count
from string import ascii_uppercase

from tests.session.stage import events
from vivavoce.protocol.server import AnyServerEvent
from vivavoce.session.effects import Effect


class Story:
    """Tells events as "type R1 A after B": response 1, item A, which stands after item B.

    A response is R1, R2 ...; an item a letter; "first" is an item with none before it.
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._letters = iter(ascii_uppercase)
        self._numbers = count(1)

    def of(self, effects: list[Effect]) -> list[str]:
        return [self._line(event) for event in events(effects)]

    def item(self, name: str) -> str:
        """The id of the item with that name."""
        return next(id_ for id_, known in self._names.items() if known == name)

    def _line(self, event: AnyServerEvent) -> str:
        words = [str(type(event).__struct_config__.tag)]
        response = getattr(event, "response", None)
        if response_id := getattr(event, "response_id", None) or getattr(response, "id", None):
            words.append(self._names.setdefault(response_id, self._fresh_response(response_id)))
        item = getattr(event, "item", None)
        if item_id := getattr(event, "item_id", None) or getattr(item, "id", None):
            words.append(self._item(item_id))
        if hasattr(event, "previous_item_id"):
            before = event.previous_item_id
            words.append("first" if before is None else f"after {self._item(before)}")
        return " ".join(words)

    def _item(self, item_id: str) -> str:
        if item_id not in self._names:
            self._names[item_id] = next(self._letters)
        return self._names[item_id]

    def _fresh_response(self, response_id: str) -> str:
        return "" if response_id in self._names else f"R{next(self._numbers)}"
