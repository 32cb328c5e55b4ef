"""Server-sent events: bytes in, data strings out. No sockets.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
Only `data` is read: the servers that engines speak to put the type of an event into its data.
"""

from vivavoce.errors import EngineError

MAX_EVENT_BYTES = 1 << 20
"""Of a line, and of the data of one event."""

_BOM = b"\xef\xbb\xbf"


class SseReader:
    """One stream. An event that is too long is an EngineError of `source` with `remedy`."""

    def __init__(
        self,
        source: str,
        remedy: str = "is base_url right?",
        *,
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> None:
        self._source = source
        self._remedy = remedy
        self._max_event_bytes = max_event_bytes
        self._line = bytearray()  # begun, its end has not come
        self._data: list[bytes] = []
        self._size = 0
        self._after_cr = False  # an LF that comes now belongs to that CR
        self._first = True

    def feed(self, chunk: bytes) -> list[str]:
        """The data of every event that this chunk completes; invalid UTF-8 becomes U+FFFD.

        Raises EngineError: a line or an event is longer than max_event_bytes.
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
            self._extend_line(line)
            self._end_line(bytes(self._line), events)
            self._line.clear()
        self._extend_line(rest)
        return events

    def close(self) -> list[str]:
        """The end of the stream: an event that lacks only its blank line.

        The standard drops it, but some servers end so. A line that lacks its end is dropped: it
        was cut off.
        """
        events: list[str] = []
        self._end_line(b"", events)
        return events

    def _extend_line(self, part: bytes) -> None:
        self._line += part
        self._check_size(len(self._line))

    def _check_size(self, size: int) -> None:
        if size > self._max_event_bytes:
            most = f"{self._max_event_bytes / (1 << 20):g} MiB"
            raise EngineError(f"{self._source} sent an event longer than {most}; {self._remedy}")

    def _end_line(self, line: bytes, events: list[str]) -> None:
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
            self._size += len(value) + 1  # a line feed joins them
            self._check_size(self._size)
            self._data.append(value.removeprefix(b" "))
