"""The item ids that a session keeps for itself."""

import re


class OwnIds:
    """Ids of our own making. A client may put in an item under one only after deleting ours.

    An item's id is told before the item is there, so a client could take it, or guess the next
    one, and what the session makes itself must always find its place.
    """

    def __init__(self, salt: str) -> None:
        self._ours = re.compile(rf"item_{re.escape(salt)}[0-9a-f]{{5,}}")
        self._free: set[str] = set()

    def holds(self, item_id: str) -> bool:
        return bool(self._ours.fullmatch(item_id)) and item_id not in self._free

    def release(self, item_id: str) -> None:
        """The item with that id was deleted: a client may put it back."""
        if self._ours.fullmatch(item_id):
            self._free.add(item_id)
