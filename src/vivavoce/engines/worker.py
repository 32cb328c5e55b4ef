"""The worker's side of engines/host.py: what runs in a worker process. How to write one:

A worker is a module of your package with one class. The process builds it once, which loads the
model, and then serves one generator for each stream:

    class UppercaseWorker:
        Options = dict[str, str]  # what WorkerHost was given; any type that msgspec decodes
        Request = str  # what WorkerHost.open() was given

        def __init__(self, options: dict[str, str]) -> None:
            self.hello = {"sample_rate": 16_000}  # optional: what WorkerHost.loaded() returns

        def serve(self, request: str, stream: WorkerStream) -> Iterator[int]:
            stream.send(request.upper())  # anything that msgspec encodes
            while not stream.exhausted:
                yield 3_200  # other streams have their turn; go on when so many bytes are queued
                if data := stream.take(3_200):
                    stream.send(len(data))

The engine names it: `WorkerHost("my_package.worker:UppercaseWorker", options, ...)`.

* A generator yields the number of bytes of input that it needs before it goes on; the end of input
  is enough, too. `yield 0` only lets the others have their turn. It is not resumed while the reader
  of its messages is behind. Between two yields lies at most some 100 ms of work: that long another
  stream waits, and a turn of more than `hang_seconds` is taken for a hang.
* Streams whose input has ended are served first, because a reader waits for their last message;
  among them the one with the least input. Then those that set `stream.urgent`, then the rest; each
  group in turns.
* The generator is closed when its stream is cancelled. Code that cannot yield, such as a callback
  from C, checks `stream.cancelled`.
* EngineError ends the stream with that message; any other exception with its name, and its
  traceback goes to stderr. What is printed on stdout goes to stderr.
* The process ends when the server does. Ctrl-C is for the server.
"""

import os
import queue
import signal
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, BinaryIO, Protocol, TypeAlias

import msgspec

from vivavoce.errors import EngineError

INPUT_WINDOW_BYTES = 64_000
"""Input of one stream that may wait in the process: two seconds of 16 kHz PCM."""
OUTPUT_WINDOW_BYTES = 1 << 20
"""Messages of one stream that may be unread before its generator is paused."""

HEADER = struct.Struct(">I")
"""A frame is its length and that many bytes of msgpack."""


class WorkerFrame(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of everything that goes over the pipes."""


class StartWorker(WorkerFrame, frozen=True):
    """The first frame to a worker."""

    options: msgspec.Raw
    nice: int


class ShareHost(WorkerFrame, frozen=True):
    """The first frame to a host that several share, of engines/shared.py, in place of
    StartWorker: the arguments of WorkerHost."""

    worker: str
    options: msgspec.Raw
    name: str
    limits: msgspec.Raw


class OpenStream(WorkerFrame, frozen=True):
    """The number is never used again."""

    stream: int
    request: msgspec.Raw


class StreamInput(WorkerFrame, frozen=True):
    """At most INPUT_WINDOW_BYTES of a stream are under way and not reported by InputTaken."""

    stream: int
    data: bytes


class EndOfInput(WorkerFrame, frozen=True):
    stream: int


class CancelStream(WorkerFrame, frozen=True):
    """The reader has left the stream. Overtakes all other frames."""

    stream: int


class OutputRead(WorkerFrame, frozen=True):
    """So many bytes of messages were read."""

    stream: int
    size: int


class Ping(WorkerFrame, frozen=True):
    """Answered between two turns of work."""


class WorkerReady(WorkerFrame, frozen=True):
    """The first frame from a worker: the model is loaded."""

    hello: msgspec.Raw


class InputTaken(WorkerFrame, frozen=True):
    stream: int
    size: int


class StreamOutput(WorkerFrame, frozen=True):
    stream: int
    message: msgspec.Raw


class StreamClosed(WorkerFrame, frozen=True):
    """The last frame of a stream that was not cancelled."""

    stream: int
    error: str | None
    lost: bool = False
    """Its process has ended; of a shared host."""


class HostFailed(WorkerFrame, frozen=True):
    """A shared host has no process that works; the connection ends."""

    reason: str


class Pong(WorkerFrame, frozen=True):
    """The worker is alive."""


ToWorker: TypeAlias = (
    StartWorker
    | ShareHost
    | OpenStream
    | StreamInput
    | EndOfInput
    | CancelStream
    | OutputRead
    | Ping
)
FromWorker: TypeAlias = WorkerReady | HostFailed | InputTaken | StreamOutput | StreamClosed | Pong

_encode = msgspec.msgpack.Encoder().encode
decode_order: Callable[[bytes], ToWorker] = msgspec.msgpack.Decoder(ToWorker).decode
decode_report: Callable[[bytes], FromWorker] = msgspec.msgpack.Decoder(FromWorker).decode


def packed(frame: ToWorker | FromWorker) -> bytes:
    """The frame as it goes over a pipe."""
    body = _encode(frame)
    return HEADER.pack(len(body)) + body


def raw(value: object) -> msgspec.Raw:
    """A value as it stands in a frame."""
    return msgspec.Raw(_encode(value))


class WorkerStream:
    """One stream, as the worker sees it."""

    def __init__(self, number: int, report: Callable[[FromWorker], None]) -> None:
        self.ended = False
        """All input is queued or taken."""
        self.cancelled = False
        """Whether the reader has left. Becomes true at once, also within a turn."""
        self.urgent = False
        """Set by the worker: what it makes of the input so far is waited for."""
        self.contended = False
        """Whether other streams wait for their turn, so that work which is not urgent can wait."""
        self.received = 0
        """Bytes of input so far."""
        self._number = number
        self._report = report
        self._input = bytearray()
        self._unread = 0

    @property
    def queued(self) -> int:
        """Bytes of input that wait."""
        return len(self._input)

    @property
    def exhausted(self) -> bool:
        """Whether all input was taken."""
        return self.ended and not self._input

    @property
    def full(self) -> bool:
        """Whether the reader is behind; sending more is allowed, and better left to later."""
        return self._unread >= OUTPUT_WINDOW_BYTES

    def take(self, size: int) -> bytes:
        """The next input, at most `size` bytes; b"" if none is queued."""
        taken = bytes(self._input[:size])
        del self._input[:size]
        if taken:
            self._report(InputTaken(self._number, len(taken)))
        return taken

    def send(self, message: object) -> None:
        """A message to the reader, at once."""
        made = raw(message)
        self._unread += len(made)
        self._report(StreamOutput(self._number, made))

    def add_input(self, data: bytes) -> None:
        self._input += data
        self.received += len(data)

    def note_read(self, size: int) -> None:
        self._unread -= size


class Worker(Protocol):
    """What a worker class is; see the top of this file."""

    def __init__(self, options: Any) -> None: ...

    def serve(self, request: Any, stream: WorkerStream) -> Iterator[int]: ...


class _Served:
    """A stream, its generator, and how much input it waits for."""

    def __init__(self, stream: WorkerStream, turns: Iterator[int]) -> None:
        self.stream = stream
        self.turns = turns
        self.needed = 0

    @property
    def due(self) -> bool:
        stream = self.stream
        return not stream.full and (stream.ended or stream.queued >= self.needed)

    @property
    def rank(self) -> tuple[int, int]:
        """The lowest has the next turn."""
        stream = self.stream
        if stream.ended:
            return 0, stream.received
        return (1 if stream.urgent else 2), 0


class WorkerLoop:
    """Serves streams in turns: of those of the same rank, the one that has waited longest."""

    def __init__(self, worker: Worker, source: BinaryIO, sink: BinaryIO) -> None:
        self._worker = worker
        self._request_type = getattr(worker, "Request", Any)
        self._source = source
        self._sink = sink
        # Bounded by the server: it opens a bounded number of streams and keeps to their windows.
        self._orders: queue.SimpleQueue[ToWorker] = queue.SimpleQueue()
        self._served: dict[int, _Served] = {}

    def run(self) -> None:
        """Serve for ever. Raises BrokenPipeError: the server is gone."""
        self._report(WorkerReady(raw(getattr(self._worker, "hello", None))))
        threading.Thread(target=self._read, daemon=True).start()
        while True:
            number = self.next_stream()
            while number is None or not self._orders.empty():
                self.obey(self._orders.get())
                number = self.next_stream()
            self.take_turn(number)

    def _read(self) -> None:
        """Pass on orders until the server is gone, then end the process, whatever it is doing."""
        while (order := read_order(self._source)) is not None:
            if isinstance(order, CancelStream) and (served := self._served.get(order.stream)):
                served.stream.cancelled = True
            self._orders.put(order)
        os._exit(0)

    def next_stream(self) -> int | None:
        """The stream that has the next turn; None: all of them wait for something."""
        due = (number for number, served in self._served.items() if served.due)
        return min(due, key=lambda number: self._served[number].rank, default=None)

    def obey(self, order: ToWorker) -> None:
        """Do what the server says."""
        match order:
            case Ping():
                self._report(Pong())
                return
            case OpenStream(number, request):
                self._open(number, request)
                return
            case StartWorker() | ShareHost():
                return
        served = self._served.get(order.stream)
        if served is None:  # it closed while this was on its way
            return
        match order:
            case StreamInput(data=data):
                served.stream.add_input(data)
            case EndOfInput():
                served.stream.ended = True
            case OutputRead(size=size):
                served.stream.note_read(size)
            case CancelStream(number):
                del self._served[number]
                _close(served.turns)

    def _open(self, number: int, request: msgspec.Raw) -> None:
        stream = WorkerStream(number, self._report)
        try:
            wanted = msgspec.msgpack.decode(request, type=self._request_type)
            self._served[number] = _Served(stream, iter(self._worker.serve(wanted, stream)))
        except Exception as exc:  # noqa: BLE001  any error ends this stream and no other
            self._report(StreamClosed(number, _sentence(exc)))

    def take_turn(self, number: int) -> None:
        """One turn of that stream; it is the last in its rank then."""
        served = self._served.pop(number)
        served.stream.contended = any(other.due for other in self._served.values())
        self._served[number] = served
        error = None
        try:
            served.needed = next(served.turns)
            return
        except StopIteration:
            pass
        except BrokenPipeError:
            raise
        except Exception as exc:  # noqa: BLE001  any error ends this stream and no other
            error = _sentence(exc)
        del self._served[number]
        self._report(StreamClosed(number, error))

    def _report(self, frame: FromWorker) -> None:
        self._sink.write(packed(frame))
        self._sink.flush()


def _close(turns: Iterator[int]) -> None:
    try:
        getattr(turns, "close", lambda: None)()
    except Exception:  # noqa: BLE001  the reader has left the stream
        traceback.print_exc()


def _sentence(exc: Exception) -> str:
    if isinstance(exc, EngineError):
        return str(exc)
    traceback.print_exception(exc)
    return f"it failed with {type(exc).__name__}: {exc}"


def read_order(source: BinaryIO) -> ToWorker | None:
    """The next frame; None: the other side is gone."""
    header = source.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    (size,) = HEADER.unpack(header)
    body = source.read(size)
    return decode_order(body) if len(body) == size else None


def _die_with_the_server() -> None:
    """Linux: SIGKILL when the server's thread ends, also while C code holds the interpreter."""
    if sys.platform == "linux":
        import ctypes  # not in the server, which imports this file, too

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def main(path: str) -> None:
    """Be a worker process: `path` is "module:Class", orders come on stdin, reports go to stdout."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # to the whole group: the server ends it later
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    # Threads of BLAS that wait for each other on a busy machine made small products 400 x slower.
    os.putenv("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported
    _die_with_the_server()
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    start = read_order(source)
    if not isinstance(start, StartWorker):
        return
    if start.nice and hasattr(os, "nice"):
        os.nice(start.nice)
    module, _, name = path.partition(":")
    kind = getattr(import_module(module), name)
    try:
        worker = kind(msgspec.msgpack.decode(start.options, type=getattr(kind, "Options", Any)))
    except EngineError as exc:
        raise SystemExit(str(exc)) from None
    try:
        WorkerLoop(worker, source, sink).run()
    except BrokenPipeError:
        os._exit(0)


# --- what a speech recogniser sends


class HeardWord(msgspec.Struct, frozen=True, array_like=True):
    """A word, and when it was said, in milliseconds from the start of the utterance."""

    text: str
    start_ms: int
    end_ms: int
    joined: bool = False
    """No space is between it and the word before."""
    logprob: float | None = None
    """Natural logarithm of its probability, where the recogniser gives one."""


class Hypothesis(msgspec.Struct, frozen=True, array_like=True):
    """All words of an utterance so far. The first `stable` words will not change any more."""

    words: tuple[HeardWord, ...]
    stable: int
    final: bool
    language: str | None = None
    """Where the recogniser found it out."""


# --- models of ONNX


def onnx_options(threads: int) -> Any:
    """The SessionOptions of onnxruntime. Waiting threads sleep, which leaves the CPU to others."""
    import onnxruntime  # a worker process without such a model need not load it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors
    return options


# --- what a synthesiser is asked for and sends


class UtteranceRequest(msgspec.Struct, frozen=True, array_like=True):
    """A text to be spoken: prose, without markdown. speed: 1.0 is normal."""

    text: str
    voice: str
    speed: float
    language: str | None
    awaited: bool = False
    """Nothing of the answer that it begins was heard yet: its first sound comes before others."""


class SpeechChunk(msgspec.Struct, frozen=True, array_like=True):
    """16-bit mono PCM, and the words that begin in it.

    Each is (sample of this chunk, start, end): text[start:end] begins at that sample.
    """

    audio: bytes
    words: tuple[tuple[int, int, int], ...] = ()
