"""Workers for the tests of the host: started in processes of their own."""

import os
import sys
import time
from collections.abc import Iterator

from vivavoce.engines.worker import WorkerStream
from vivavoce.errors import EngineError

PATH = "tests.engines.workers:TestWorker"


class TestWorker:
    """Does what the request says."""

    __test__ = False
    Options = dict[str, str]
    Request = tuple[str, int]

    def __init__(self, options: dict[str, str]) -> None:
        if options.get("fail") == "raise":
            raise EngineError("no model here")
        if options.get("fail") == "hang":
            time.sleep(1_000)
        if os.path.exists(options.get("gate", "")):
            with open(options["gate"], "rb") as gate:  # a pipe: loading takes until it is written
                gate.read()
        self.hello = {"pid": os.getpid(), **options}

    def serve(self, request: tuple[str, int], stream: WorkerStream) -> Iterator[int]:
        action, number = request
        match action:
            case "count":  # messages of 1 KiB
                for i in range(number):
                    stream.send(f"{i}".ljust(1_000))
                    yield 0
            case "echo":  # the input, `number` bytes at a time
                while not stream.exhausted:
                    yield number
                    stream.send(stream.take(number).decode())
            case "pid":
                stream.send(str(os.getpid()))
                yield 1  # until the end of the input
            case "spin":  # without end, but with messages
                while not stream.cancelled:
                    stream.send("spin")
                    time.sleep(0.001)
            case "hang":
                stream.send("begun")
                time.sleep(number)
            case "flood":  # more than the window of messages, as fast as allowed
                for _ in range(number):
                    stream.send("x" * 100_000)
                    yield 0
                    stream.send(f"sent {stream.full}")
            case "exit":
                stream.send("begun")
                sys.stdout.write("what a pity\n")
                sys.stdout.flush()
                os._exit(number)
            case "error":
                raise EngineError("it cannot")
            case "bug":
                raise ValueError("a bug")
            case "garbage":
                stream._report("no frame")  # type: ignore[arg-type]
        yield 0
