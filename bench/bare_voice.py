"""The least that a voice server can be: audio in and out, and the network for voice activity.

Each append is answered by a delta of the same length, and its windows are scored in batches of 64.
There are no turns, no limits and nothing is kept: what a core carries of this is the bound for all
servers that are built on the same library.

python -m bench.bare_voice PORT
"""

import asyncio
import base64

import msgspec
import numpy as np
import uvloop
from aiohttp import WSMsgType, web

from bench.bare_relay import serve
from vivavoce.audio.formats import RATE
from vivavoce.audio.windows import WindowResampler
from vivavoce.engines.silero.vad import SileroSettings, SileroVAD
from vivavoce.session.cascade.turn_detection import WINDOW

BATCH = 64  # windows
TICK_S = 0.010  # after which fewer are scored
HISTORY_BYTES = 2 * WindowResampler(RATE, 16_000, WINDOW).history


class _Append(msgspec.Struct):
    type: str
    audio: bytes = b""


class Scorer:
    """Scores the windows of all streams together."""

    def __init__(self, vad: SileroVAD) -> None:
        self.vad = vad
        self._convert = WindowResampler(RATE, vad.sample_rate, WINDOW)
        self._waiting: list[tuple[int, bytes]] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, stream: int, window: bytes) -> None:
        """window: of PCM at 24 kHz, behind the samples that the resampler needs."""
        self._waiting.append((stream, window))
        if len(self._waiting) >= BATCH:
            self.score()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self.score)

    def score(self) -> None:
        """Score what waits; a stream is in a batch once."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            batch = dict(reversed(self._waiting))
            self._waiting = [one for one in self._waiting if batch[one[0]] is not one[1]]
            samples = np.frombuffer(b"".join(batch.values()), "<i2").reshape(len(batch), -1)
            self.vad.score(self._convert(samples), np.array(list(batch)))


async def converse(request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    await socket.send_str('{"type":"session.created"}')
    scorer: Scorer = request.app["scorer"]
    stream, pcm = scorer.vad.open(), bytearray(HISTORY_BYTES)
    decode = msgspec.json.Decoder(_Append).decode
    encode, delta = base64.b64encode, b'{"type":"response.output_audio.delta","delta":"%s"}'
    try:
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                continue
            asked = decode(message.data)
            if asked.type == "input_audio_buffer.append":
                pcm += asked.audio
                while len(pcm) >= HISTORY_BYTES + 2 * WINDOW:
                    scorer.add(stream, bytes(pcm[: HISTORY_BYTES + 2 * WINDOW]))
                    del pcm[: 2 * WINDOW]
                await socket.send_frame(delta % encode(asked.audio), WSMsgType.TEXT)
            elif asked.type == "input_audio_buffer.clear":
                await socket.send_str('{"type":"input_audio_buffer.cleared"}')
    finally:
        scorer.score()
        scorer.vad.close(stream)
    return socket


async def main() -> None:
    app = web.Application()
    app.router.add_get("/v1/realtime", converse)
    async with SileroVAD(SileroSettings()) as vad:
        app["scorer"] = Scorer(vad)
        await serve(app)


if __name__ == "__main__":
    uvloop.run(main())
