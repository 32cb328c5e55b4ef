"""A language model on this machine: llama.cpp's server in a process that is supervised here.

`llama-server` is started with a GGUF file, on a free port of 127.0.0.1 and with a random key, and
is used like any OpenAI-compatible server. If it ends or does not answer, it is started again.
"""

import asyncio
import logging
import secrets
import shutil
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Annotated, Literal, Self

import msgspec
from msgspec import Meta

from vivavoce.engines.base import BaseEngine, Capabilities, ChatEvent, ChatRequest
from vivavoce.engines.http import HttpClient, PositiveSeconds, ResponseTimeouts
from vivavoce.engines.openai.llm import OpenAILLM, OpenAILLMSettings
from vivavoce.engines.remote import RemoteServer, ServerKind
from vivavoce.engines.worker_link import last_line
from vivavoce.errors import EngineError

log = logging.getLogger(__name__)

LOAD_TIMEOUT_S = 600.0
POLL_S = 0.2
"""Between two looks at a server that loads its model."""
HEALTH_TIMEOUT_S = 5.0
"""A server that does not say how it is for so long, after a failure, hangs."""
MIN_PAUSE_S, MAX_PAUSE_S = 1.0, 30.0
"""Before a server that ended is started again."""
END_NOTICE_S = 0.5
"""From a server that refuses connections to the end of its process."""
CLOSE_TIMEOUT_S = 3.0
ALL_LAYERS = 999
_START = """
import os, signal, sys
os.environ["LLAMA_API_KEY"] = sys.stdin.readline().strip()
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""The key comes by a pipe: the arguments of a process can be read by everybody. PR_SET_PDEATHSIG:
llama-server does not notice that its starter is gone."""


class LlamaSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[engines.llm.llama]`."""

    model: str = ""
    """A GGUF file. Required."""
    server: str = "llama-server"
    """The program, by its path or as it is found on PATH."""
    device: Literal["cpu", "cuda"] = "cpu"
    """cuda: the whole model on the GPU; it needs a build of llama.cpp with CUDA."""
    threads: Annotated[int, Meta(ge=1)] = 2
    context: Annotated[int, Meta(ge=256)] = 4096
    """Tokens of one conversation."""
    streams: Annotated[int, Meta(ge=1)] = 4
    """Answers at the same time."""
    arguments: tuple[str, ...] = ()
    """Further arguments of the program, such as --flash-attn."""
    temperature: Annotated[float, Meta(ge=0)] | None = None
    """None: that of the program."""
    start_seconds: PositiveSeconds = 120.0
    """How long the first answers wait for the model to be loaded."""
    first_token_seconds: PositiveSeconds = 30.0
    gap_seconds: PositiveSeconds = 15.0
    """Longest silence within an answer."""


class LlamaLLM(BaseEngine):
    """Starts the server and asks it."""

    Settings = LlamaSettings
    capabilities = Capabilities(licence="MIT", models="a GGUF file, and llama-server of llama.cpp")
    sees = False

    def __init__(self, settings: LlamaSettings) -> None:
        if not settings.model:
            raise EngineError("model: name a GGUF file")
        self._settings = settings
        self._ready = asyncio.Event()
        self._suspect = asyncio.Event()
        self._failure: str | None = None
        self._loaded = False
        self._running: asyncio.Task[None] | None = None
        self._llm: OpenAILLM | None = None

    async def __aenter__(self) -> Self:
        """Start the server, which loads the model meanwhile. Raises EngineError: it is not here."""
        program, model = await asyncio.to_thread(_found, self._settings)
        port, key = _free_port(), secrets.token_urlsafe(24)
        base_url = f"http://127.0.0.1:{port}/v1"
        settings = OpenAILLMSettings(
            base_url=base_url,
            model=Path(model).stem,
            api_key=key,
            temperature=self._settings.temperature,
            first_token_seconds=self._settings.first_token_seconds,
            gap_seconds=self._settings.gap_seconds,
            max_tokens_field="max_tokens",
            sees=False,
        )
        self._llm = await OpenAILLM(settings).__aenter__()
        command = [program, *self._arguments(model, port)]
        self._running = asyncio.create_task(self._supervise(command, port, key))
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait((self._running,))
        if self._llm is not None:
            await self._llm.__aexit__(*exc)

    def health(self) -> str | None:
        return self._failure

    @property
    def loading(self) -> bool:
        return self._running is not None and not self._loaded

    async def generate(self, request: ChatRequest) -> AsyncGenerator[ChatEvent]:
        """As base.LLM has it. Waits for the model to be loaded."""
        if self._llm is None:
            raise EngineError("[engines.llm.llama] it is closed; enter the engine before use")
        try:
            async with asyncio.timeout(self._settings.start_seconds):
                await self._ready.wait()
        except TimeoutError:
            raise EngineError(
                self._failure
                or f"[engines.llm.llama] it was not ready within {self._settings.start_seconds:g} s"
            ) from None
        try:
            async with aclosing(self._llm.generate(request)) as events:
                async for event in events:
                    yield event
        except EngineError:
            self._suspect.set()
            raise

    def _arguments(self, model: str, port: int) -> list[str]:
        settings = self._settings
        layers = ALL_LAYERS if settings.device == "cuda" else 0
        return [
            *("--model", model, "--host", "127.0.0.1", "--port", str(port)),
            *("--ctx-size", str(settings.context * settings.streams)),
            *("--parallel", str(settings.streams), "--threads", str(settings.threads)),
            *("--n-gpu-layers", str(layers), *settings.arguments),
        ]

    async def _supervise(self, command: list[str], port: int, key: str) -> None:
        """Keep a server running until this is cancelled."""
        pause = MIN_PAUSE_S
        while True:
            ended = await self._serve(command, port, key)
            pause = MIN_PAUSE_S if self._ready.is_set() else min(MAX_PAUSE_S, 2 * pause)
            self._ready.clear()
            self._failure = f"[engines.llm.llama] llama-server {ended}"
            log.warning("%s; it is started again", self._failure)
            await asyncio.sleep(pause)

    async def _serve(self, command: list[str], port: int, key: str) -> str:
        """One server, from its start to its end; how it ended."""
        start = (sys.executable, "-I", "-c", _START, *command)
        try:
            process = await asyncio.create_subprocess_exec(
                *start, stdin=PIPE, stdout=DEVNULL, stderr=PIPE
            )
        except OSError as exc:
            return f"could not be started: {exc.strerror or exc}"
        assert process.stdin
        assert process.stderr
        process.stdin.write(f"{key}\n".encode())
        complaint = asyncio.create_task(last_line(process.stderr))
        ending = asyncio.create_task(process.wait())
        watching = asyncio.create_task(self._watch(port))
        try:
            await asyncio.wait((ending, watching), return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait((ending,), timeout=END_NOTICE_S)
            if not ending.done():
                return watching.result()
            said = await complaint
            how = f"ended with code {ending.result()}"
            return f"{how} ({said})" if said else how
        finally:
            watching.cancel()
            await _end(process, ending)
            await asyncio.wait((watching, complaint), timeout=CLOSE_TIMEOUT_S)
            complaint.cancel()

    async def _watch(self, port: int) -> str:
        """Wait until the model is loaded; after that look at it when an answer fails. The fault."""
        server = RemoteServer(f"http://127.0.0.1:{port}", ServerKind("LLM", "health"), headers={})
        async with HttpClient(server, connect_timeout_s=HEALTH_TIMEOUT_S) as client:
            try:
                async with asyncio.timeout(LOAD_TIMEOUT_S):
                    while not await _is_well(client):  # noqa: ASYNC110  another process
                        await asyncio.sleep(POLL_S)
            except TimeoutError:
                return f"did not load the model within {LOAD_TIMEOUT_S:g} s, and was killed"
            self._failure, self._loaded = None, True
            self._suspect.clear()
            self._ready.set()
            while True:
                await self._suspect.wait()
                self._suspect.clear()
                if not await _is_well(client):
                    return f"gave no sign of life for {HEALTH_TIMEOUT_S:g} s, and was killed"


async def _is_well(client: HttpClient) -> bool:
    timeouts = ResponseTimeouts(HEALTH_TIMEOUT_S, HEALTH_TIMEOUT_S)
    with suppress(EngineError):
        async with client.request("GET", "health", timeouts=timeouts) as response:
            return response.status == 200
    return False


async def _end(process: Process, ending: "asyncio.Task[int]") -> None:
    """Ask it to end, and kill it if it does not."""
    with suppress(ProcessLookupError):
        process.terminate()
        await asyncio.wait((ending,), timeout=CLOSE_TIMEOUT_S)
        if not ending.done():
            process.kill()
    await asyncio.wait((ending,))


def _found(settings: LlamaSettings) -> tuple[str, str]:
    """The paths of the program and of the model. Raises EngineError."""
    program = shutil.which(Path(settings.server).expanduser())
    if program is None:
        raise EngineError(
            f"[engines.llm.llama] server: there is no program {settings.server!r}; install "
            f"llama.cpp (https://github.com/ggml-org/llama.cpp), or name its llama-server"
        )
    model = Path(settings.model).expanduser()
    if not model.is_file():
        raise EngineError(f"[engines.llm.llama] model: there is no file {model}; name a GGUF file")
    return program, str(model)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
