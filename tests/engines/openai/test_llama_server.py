"""llama.cpp's server, played by a program that behaves as its documentation says."""

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.engines.openai.chat_server import collect
from vivavoce.engines.base import ChatEnded, TextDelta
from vivavoce.engines.openai.llama_server import LlamaLLM, LlamaSettings
from vivavoce.errors import EngineError
from vivavoce.testing import check_llm

SERVER = """#!{python}
import json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
key = "Bearer " + os.environ["LLAMA_API_KEY"]
if open(options["--model"]).read() == "broken":
    sys.exit("error: this is no GGUF file")
with open(options["--model"] + ".log", "a") as log:
    log.write(json.dumps(dict(options, pid=os.getpid())) + "\\n")
asked_for_health = []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        asked_for_health.append(1)
        self.send_response(503 if len(asked_for_health) == 1 else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        allowed = self.headers["Authorization"] == key and self.path == "/v1/chat/completions"
        self.send_response(200 if allowed else 401)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for text, finish in (("Of ", None), ("course.", None), ("", "stop")):
            choice = {{"index": 0, "delta": {{"content": text}}, "finish_reason": finish}}
            self.wfile.write(b"data: " + json.dumps({{"choices": [choice]}}).encode() + b"\\n\\n")
        self.wfile.write(b"data: [DONE]\\n\\n")

    def log_message(self, *args):
        pass


ThreadingHTTPServer(("127.0.0.1", int(options["--port"])), Handler).serve_forever()
"""


def settings(folder: Path, held: str = "weights", **options: Any) -> LlamaSettings:
    program, model = folder / "llama-server", folder / "smol.gguf"
    program.write_text(SERVER.format(python=sys.executable))
    program.chmod(0o755)
    model.write_text(held)
    return LlamaSettings(model=str(model), server=str(program), **options)


def starts(folder: Path) -> list[dict[str, Any]]:
    """The arguments of each start, and its process."""
    return [json.loads(line) for line in (folder / "smol.gguf.log").read_text().splitlines()]


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_llama_conforms_to_the_contract_and_leaves_no_process(tmp_path: Path) -> None:
    async def main() -> None:
        async with LlamaLLM(settings(tmp_path, device="cuda", threads=3)) as llm:
            assert llm.loading
            await check_llm(llm)
            assert not llm.loading
            assert llm.health() is None

    asyncio.run(main())
    (started,) = starts(tmp_path)
    assert not is_alive(started["pid"])
    assert started["--n-gpu-layers"] == "999"
    assert (started["--threads"], started["--ctx-size"], started["--parallel"]) == (
        "3",
        "16384",
        "4",
    )
    assert started["--host"] == "127.0.0.1"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_server_that_dies_or_hangs_is_started_again(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("HEALTH_TIMEOUT_S", "MIN_PAUSE_S", "CLOSE_TIMEOUT_S"):
        monkeypatch.setattr(f"vivavoce.engines.openai.llama_server.{name}", 0.3)

    async def main() -> None:
        async with LlamaLLM(settings(tmp_path, first_token_seconds=0.5)) as llm:
            assert await collect(llm) == [TextDelta("Of "), TextDelta("course."), ChatEnded()]
            os.kill(starts(tmp_path)[0]["pid"], number)
            while llm.health() is None:
                with suppress(EngineError):  # a kill takes a moment
                    await collect(llm)
            assert len(await collect(llm)) == 3

    asyncio.run(main())
    assert len(starts(tmp_path)) == 2
    cause = "ended with code -9" if number == signal.SIGKILL else "gave no sign of life for 0.3 s"
    assert f"[engines.llm.llama] llama-server {cause}" in caplog.text


def test_server_that_cannot_load_its_model_says_why(tmp_path: Path) -> None:
    async def main() -> None:
        async with LlamaLLM(settings(tmp_path, "broken", start_seconds=2.0)) as llm:
            with pytest.raises(EngineError, match=r"ended with code 1 \(error: this is no GGUF"):
                await collect(llm)

    asyncio.run(main())


def test_missing_program_and_file_are_refused_with_the_remedy(tmp_path: Path) -> None:
    async def main(wrong: LlamaSettings) -> None:
        async with LlamaLLM(wrong):
            pass

    with pytest.raises(EngineError, match="model: name a GGUF file"):
        LlamaLLM(LlamaSettings())
    with pytest.raises(EngineError, match=r"there is no program 'no-such-server'; install llama"):
        asyncio.run(main(LlamaSettings(model="x.gguf", server="no-such-server")))
    right = settings(tmp_path)
    with pytest.raises(EngineError, match=r"there is no file x\.gguf"):
        asyncio.run(main(LlamaSettings(model="x.gguf", server=right.server)))
    llm = LlamaLLM(right)
    with pytest.raises(EngineError, match="enter the engine before use"):
        asyncio.run(collect(llm))
