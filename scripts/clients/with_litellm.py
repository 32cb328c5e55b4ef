"""LiteLLM's proxy in front of our server: a Realtime client and a chat client of the proxy."""

import asyncio
import base64
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plumbing import (
    KEY,
    QUESTION,
    SkippedError,
    Trial,
    get,
    main,
    pieces,
    utterance,
    without_settings,
)

PACKAGES = ("litellm[proxy]==1.100.0", "openai[realtime]==2.54.0")
START_TIMEOUT_S = 80.0
REPEATED = "conversation_already_has_active_response"
"""The proxy sends response.create after each transcript, where turn detection did so already."""
CONFIG = """
model_list:
  - model_name: voice
    litellm_params:
      model: openai/gpt-realtime
      api_base: {http}/v1
      api_key: {key}
    model_info:
      mode: realtime
  - model_name: chat
    litellm_params:
      model: openai/default
      api_base: {http}/v1
      api_key: {key}
general_settings:
  master_key: {key}
"""


async def drive(trial: Trial) -> None:
    from openai import AsyncOpenAI

    with proxy_of(trial.http) as (proxy, port, log):
        await _until_ready(proxy, port, log)
        async with AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY) as client:
            await _realtime(trial, client)
            answer = await client.chat.completions.create(
                model="chat", messages=[{"role": "user", "content": "Hello"}]
            )
            trial.expect(answer.choices[0].message.content, "chat completion")


@contextmanager
def proxy_of(http: str) -> Iterator[tuple[subprocess.Popen[bytes], int, Path]]:
    """A proxy in front of that server: its process, port and log file."""
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("wb") as log:
        config = Path(folder, "config.yaml")
        config.write_text(CONFIG.format(http=http, key=KEY), encoding="utf-8")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = str(Path(sys.executable).with_name("litellm"))
        proxy = subprocess.Popen(
            (command, "--config", config, "--host", "127.0.0.1", "--port", str(port)),
            env=without_settings(os.environ),
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield proxy, port, Path(folder, "log")
        finally:
            proxy.terminate()
            try:
                proxy.wait(15)
            except subprocess.TimeoutExpired:
                proxy.kill()
                proxy.wait()


async def _realtime(trial: Trial, client) -> None:  # type: ignore[no-untyped-def]
    async with client.realtime.connect(model="voice") as connection:
        await connection.session.update(
            session={
                "type": "realtime",
                "audio": {"input": {"transcription": {"model": "whisper-1"}}},
            }
        )
        for piece in pieces(utterance()):
            await connection.input_audio_buffer.append(audio=base64.b64encode(piece).decode())
        audio, transcripts = 0, []
        async for event in connection:
            if event.type == "response.output_audio.delta":
                audio += len(base64.b64decode(event.delta))
            elif event.type == "conversation.item.input_audio_transcription.completed":
                transcripts.append(event.transcript)
            elif event.type == "error" and event.error.code != REPEATED:
                raise RuntimeError(event.error.message)
            elif event.type == "response.done":
                break
    trial.expect(transcripts == [QUESTION], "spoken turn is transcribed")
    trial.expect(audio > 24_000, "answered by voice")


async def _until_ready(proxy: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Raises SkippedError where the proxy does not start."""
    loop = asyncio.get_running_loop()
    until = loop.time() + START_TIMEOUT_S
    while loop.time() < until and proxy.poll() is None:
        try:
            await get(f"http://127.0.0.1:{port}/health/liveliness")
        except OSError:
            await asyncio.sleep(0.2)
        else:
            return
    text = await asyncio.to_thread(log.read_text, errors="replace")
    raise SkippedError(f"the proxy did not start: {text[-300:]}")


if __name__ == "__main__":
    main(PACKAGES, drive)
