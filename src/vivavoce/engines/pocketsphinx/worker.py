"""The recogniser process: orders come in on stdin, reports go out on stdout, it ends with stdin.

It is a process because the decoder holds the GIL. It decodes several utterances in turns, a slice
of each, so none waits for the whole of another.
"""

import os
import queue
import signal
import sys
import threading
from typing import BinaryIO

from pocketsphinx import Decoder

from vivavoce.engines.pocketsphinx.decoder import Model, Utterance
from vivavoce.engines.pocketsphinx.frames import (
    HEADER_BYTES,
    Cancel,
    End,
    Feed,
    Heard,
    HeardWord,
    Open,
    Order,
    Ready,
    Report,
    Taken,
    body_bytes,
    order,
    packed,
)

NICENESS = 5
"""The server's own loop comes first: it must keep all clients' audio flowing."""
REPORT_BYTES = 6_400
"""Of sound between two reports of words: 200 ms, at whatever speed it comes."""


class Recogniser:
    """Utterances, and the decoders they share."""

    def __init__(self, orders: "queue.SimpleQueue[Order]", sink: BinaryIO) -> None:
        self._orders = orders
        self._sink = sink
        self._model = Model()
        self._free: list[Decoder] = []
        # In the order of their turns: the one at the front has waited longest.
        self._utterances: dict[int, Utterance] = {}
        self._heard_bytes: dict[int, int] = {}
        self._reported: dict[int, tuple[int, tuple[HeardWord, ...]]] = {}

    def run(self) -> None:
        """Serve for ever."""
        self._free.append(self._model.decoder())
        self._report(Ready())
        while True:
            number = self._next()
            while number is None or not self._orders.empty():
                self._obey(self._orders.get())
                number = self._next()
            self._turn(number)

    def _next(self) -> int | None:
        return next((n for n, utterance in self._utterances.items() if utterance.due), None)

    def _obey(self, given: Order) -> None:
        match given:
            case Open(stream):
                self._utterances[stream] = Utterance()
            case Feed(stream, audio):
                self._utterances[stream].feed(audio)
            case End(stream):
                self._utterances[stream].end()
            case Cancel(stream):
                self._forget(stream)

    def _turn(self, number: int) -> None:
        utterance = self._utterances[number] = self._utterances.pop(number)
        if not utterance.listening:
            utterance.begin(self._free.pop() if self._free else self._model.decoder())
        taken = utterance.step()
        if taken:
            self._heard_bytes[number] = self._heard_bytes.get(number, 0) + taken
            self._report(Taken(number, taken))
        if utterance.finished:
            self._report(Heard(number, utterance.words, len(utterance.words), True))
            self._forget(number)
        else:
            self._tell(number, utterance)

    def _tell(self, number: int, utterance: Utterance) -> None:
        heard = self._heard_bytes.get(number, 0)
        told_at, told = self._reported.get(number, (0, ()))
        if utterance.words != told and heard - told_at >= REPORT_BYTES:
            self._reported[number] = heard, utterance.words
            self._report(Heard(number, utterance.words, utterance.stable, False))

    def _forget(self, number: int) -> None:
        utterance = self._utterances.pop(number, None)
        self._reported.pop(number, None)
        self._heard_bytes.pop(number, None)
        decoder = utterance.release() if utterance else None
        if decoder:
            self._free.append(decoder)

    def _report(self, report: Report) -> None:
        self._sink.write(packed(report))
        self._sink.flush()


def read(source: BinaryIO, orders: "queue.SimpleQueue[Order]") -> None:
    """Pass on orders until the server is gone, then end the process, whatever it is doing."""
    while len(header := source.read(HEADER_BYTES)) == HEADER_BYTES:
        orders.put(order(source.read(body_bytes(header))))
    os._exit(0)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends stdin
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    # Nothing that a library prints may get among the reports.
    sink = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # Bounded by the server, which feeds no more of an utterance than was taken.
    orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
    threading.Thread(target=read, args=(sys.stdin.buffer, orders), daemon=True).start()
    try:
        Recogniser(orders, sink).run()
    except BrokenPipeError:
        os._exit(0)  # the server is gone


if __name__ == "__main__":
    main()
