"""The process in which espeak-ng speaks: orders in on stdin, sound out on stdout.

It is a process because the C code is not reentrant and because some texts crash it ("'-'-"
before a Hindi word is one): that must cost one utterance, not the server.

An order is a line of JSON: {"speak": number, "text", "voice", "words_per_minute", "pitch",
"pitch_range", "room"} or {"cancel": number}. The first reply is a Hello. Then for each order come
replies, a line of JSON each, those with "bytes" followed by that much 16-bit mono PCM; the last
one has "ended". When `room` samples are made, it stops at the end of a clause and says in "next"
where to go on. The process ends when stdin does.
"""

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

from vivavoce.engines.espeak.library import Chunk, Library, Manner
from vivavoce.errors import EngineError


class Orders:
    """The orders to speak, in order of arrival; cancelling overtakes them."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        # The other side sends the next order when the last one has ended.
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(8)
        self._cancelled = -1
        self._closed = False
        threading.Thread(target=self._read, daemon=True).start()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while (order := self._waiting.get()) is not None:
            yield order

    def wanted(self, number: int) -> bool:
        """Whether anyone still listens to that order."""
        return number != self._cancelled and not self._closed

    def _read(self) -> None:
        for line in self._source:
            order = json.loads(line)
            if "cancel" in order:
                self._cancelled = order["cancel"]
            else:
                self._waiting.put(order)
        self._closed = True
        self._waiting.put(None)


class Reading:
    """One order being carried out."""

    def __init__(self, order: dict[str, Any], orders: Orders, sink: BinaryIO) -> None:
        self._number: int = order["speak"]
        self._text: str = order["text"]
        self._room: int = order["room"]
        self._manner = Manner(
            order["voice"], order["words_per_minute"], order["pitch"], order["pitch_range"]
        )
        self._orders = orders
        self._sink = sink
        self._samples = 0
        self._next: int | None = None

    def carry_out(self, library: Library) -> None:
        error = None
        try:
            library.speak(self._text, self._manner, self._hear)
        except EngineError as exc:
            error = str(exc)
        reply(
            self._sink, {"number": self._number, "ended": True, "next": self._next, "error": error}
        )

    def _hear(self, chunk: Chunk) -> bool:
        if not self._orders.wanted(self._number):
            return False
        self._samples += len(chunk.audio) // 2
        if chunk.audio or chunk.words:
            header = {"number": self._number, "bytes": len(chunk.audio), "words": chunk.words}
            reply(self._sink, header, chunk.audio)
        ends = [end for end in chunk.clause_ends if 0 < end < len(self._text)]
        if ends and self._samples >= self._room:
            self._next = ends[-1]
            return False
        return True


def reply(sink: BinaryIO, header: dict[str, Any], audio: bytes = b"") -> None:
    try:
        sink.write(json.dumps(header).encode() + b"\n" + audio)
        sink.flush()
    except BrokenPipeError:
        os._exit(0)  # the server is gone, and this may be inside of a callback from C


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends stdin
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the C code prints must not get among the replies
    try:
        library = Library()
    except EngineError as exc:
        reply(sink, {"error": str(exc)})
        return
    languages = [[one.identifier, one.name, one.tags] for one in library.languages]
    reply(sink, {"sample_rate": library.sample_rate, "languages": languages})
    orders = Orders(sys.stdin.buffer)
    for order in orders:
        Reading(order, orders, sink).carry_out(library)
    library.close()


if __name__ == "__main__":
    main()
