"""Server-sent events: bytes in, data strings out. No sockets.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
Only `data` is read: chat completions use neither event names, ids nor retry times.
"""

from vivavoce.errors import EngineError

MAX_EVENT_BYTES = 1 << 20
"""Longest line, and most data of one event."""

_BOM = b"\xef\xbb\xbf"


class EventReader:
    """One stream. `source` is how an error names the place."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._line = bytearray()  # begun, its end has not come
        self._data: list[bytes] = []
        self._size = 0
        self._after_cr = False  # an LF that comes now belongs to that CR
        self._first = True

    def feed(self, chunk: bytes) -> list[str]:
        """The data of every event that this chunk completes.

        Raises EngineError: a line or an event is longer than MAX_EVENT_BYTES.
        """
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        if not chunk:
            return []
        self._after_cr = chunk.endswith(b"\r")
        lines = chunk.splitlines()
        rest = b"" if chunk.endswith((b"\r", b"\n")) else lines.pop()
        events: list[str] = []
        for line in lines:
            self._grow(line)
            self._take(bytes(self._line), events)
            self._line.clear()
        self._grow(rest)
        return events

    def close(self) -> list[str]:
        """The end of the stream has come: an event that lacks only its blank line.

        The standard drops it, but some servers end so. A line that lacks its end is dropped: it
        was cut off.
        """
        events: list[str] = []
        self._take(b"", events)
        return events

    def _grow(self, part: bytes) -> None:
        self._line += part
        self._bound(len(self._line))

    def _bound(self, size: int) -> None:
        if size > MAX_EVENT_BYTES:
            raise EngineError(
                f"{self._source} sent an event longer than {MAX_EVENT_BYTES >> 20} MiB; "
                "is base_url that of a chat-completions server?"
            )

    def _take(self, line: bytes, events: list[str]) -> None:
        if self._first:
            line = line.removeprefix(_BOM)
            self._first = False
        if not line:
            if self._data:
                events.append(b"\n".join(self._data).decode(errors="replace"))
                self._data.clear()
                self._size = 0
            return
        name, _, value = line.partition(b":")
        if name == b"data":
            self._size += len(value)
            self._bound(self._size)
            self._data.append(value.removeprefix(b" "))
