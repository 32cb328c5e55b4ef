"""End of speech to first audio with work that begins early, and what that costs in vain.

Recognition takes 300 ms after the end of a recording, the model 500 ms to its first word, the voice
300 ms to its first sound. Somebody hums for 1.3 s, every other time with a pause of 350 ms in it,
at which work begins in vain. Two recognisers: one that begins at the end of a recording, a stub of
OpenAI's API in this process, and one that gives a word every 200 ms while it listens.
"""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from bench.figures import Figure, percentile, spread
from bench.microphones import Microphone, speak
from bench.report import run
from bench.served import served
from bench.sound import silence, tone
from bench.wire import appends, connect, event

FRAME_MS = 20
STT_S, LLM_S, TTS_S = 0.3, 0.5, 0.3
WORDS = "what time is it now"
SPOKEN_S, PAUSE_S, QUIET_S = 1.28, 0.35, 3.0
AFTER_SPEECH_MS = 600.0
"""With partial words and the first clause begun early."""
AFTER_DECISION_MS = 1100.0
"""With the default, and a recogniser that begins at the end."""
HUMS = tone(SPOKEN_S) + silence(QUIET_S)
HESITATES = tone(0.6) + silence(PAUSE_S) + tone(SPOKEN_S - 0.6) + silence(QUIET_S)
CONFIG = f"""
[store]
url = "memory"

[turns]
anticipation = "LEVEL"
anticipation_max_load = 1.0

[models.default]
vad = "scripted"
turn = "scripted"
stt = "STT"
llm = "scripted"
tts = "scripted"

[engines.turn.scripted]
default = 0.2
table = {{"{WORDS}" = 0.9}}

[engines.stt.scripted]
word_ms = 200
transcripts = [{{text = "{WORDS}", delay_seconds = {STT_S}, partials = true}}]

[engines.stt.openai]
base_url = "http://127.0.0.1:PORT/v1"
api_key = "none"

[engines.llm.scripted]
answers = [{{text = "It is late.", first_token_seconds = {LLM_S}}}]

[engines.tts.scripted]
first_audio_seconds = {TTS_S}
ms_per_character = 10
"""


@asynccontextmanager
async def recogniser() -> AsyncIterator[int]:
    """OpenAI's endpoint of transcriptions, on this machine; its port."""

    async def transcribe(request: web.Request) -> web.StreamResponse:
        await request.read()
        await asyncio.sleep(STT_S)
        return web.json_response({"text": WORDS})

    async def models(_: web.Request) -> web.StreamResponse:
        return web.json_response({"data": []})

    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/v1/audio/transcriptions", transcribe)
    app.router.add_get("/v1/models", models)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


class _Turns:
    """When the first audio of each answer came after the end of speech and after the decision."""

    def __init__(self, microphone_of: list[Microphone], ends: list[float]) -> None:
        self.after_speech: list[float] = []
        self.after_decision: list[float] = []
        self._microphone_of = microphone_of
        self._ends = ends  # of speech, milliseconds from the beginning
        self._stopped: float | None = None

    def heard(self, kind: bytes, payload: bytes, at: float) -> None:
        if kind == b"input_audio_buffer.speech_stopped":
            self._stopped = at
        elif kind == b"response.output_audio.delta" and self._stopped is not None:
            end = self._ends[len(self.after_speech)]
            spoken = self._microphone_of[0].heard_at(end, FRAME_MS)
            self.after_speech.append((at - spoken) * 1000)
            self.after_decision.append((at - self._stopped) * 1000)
            self._stopped = None


async def measure(quick: bool) -> list[Figure]:
    turns = 4 if quick else 12
    figures: list[Figure] = []
    async with recogniser() as port:
        for stt, what in (("openai", "recogniser at its end"), ("scripted", "partial words")):
            for level in ("off", "transcript", "llm", "speech"):
                config = CONFIG.replace("LEVEL", level).replace('"STT"', f'"{stt}"')
                seen, used = await _case(config.replace("PORT", str(port)), turns)
                name = f"end of speech → first audio, {what}, anticipation {level}"
                figures.append(
                    Figure(
                        measure=f"{name}, p50",
                        value=percentile(seen.after_speech, 50),
                        unit="ms",
                        target=AFTER_SPEECH_MS if stt + level == "scriptedspeech" else None,
                        detail={
                            "after_speech_ms": spread(seen.after_speech),
                            "after_decision_ms": spread(seen.after_decision),
                            "in_vain": used,
                        },
                    )
                )
                figures.append(
                    Figure(
                        measure="… after the turn decision, p50",
                        value=percentile(seen.after_decision, 50),
                        unit="ms",
                        target=AFTER_DECISION_MS
                        if level == "transcript" and stt == "openai"
                        else None,
                    )
                )
                figures.append(
                    Figure(measure=f"… tokens in vain, {turns} turns", value=used, unit="tokens")
                )
    return figures


async def _case(config: str, turns: int) -> tuple[_Turns, float]:
    sounds = [HESITATES if n % 2 else HUMS for n in range(turns)]
    ends, at = [], 0.0
    for sound in sounds:
        ends.append(at + len(sound) / 48 - QUIET_S * 1000)
        at += len(sound) / 48
    people: list[Microphone] = []
    seen = _Turns(people, ends)
    async with served(config) as server:
        line = await connect(server.port, seen.heard)
        line.write(_settings())
        people.append(Microphone(line, appends(b"".join(sounds), FRAME_MS)))
        await speak(people, at / 1000, FRAME_MS)
        line.close()
        await asyncio.sleep(1.0)  # usage is booked a moment later
        used = await asyncio.to_thread(_in_vain, server.port)
    if len(seen.after_speech) != turns:
        raise RuntimeError(f"{len(seen.after_speech)} of {turns} turns were answered")
    return seen, used


def _settings() -> bytes:
    vad = {"type": "server_vad", "silence_duration_ms": 500}
    audio = {"input": {"turn_detection": vad}}
    return event("session.update", session={"type": "realtime", "audio": audio})


def _in_vain(port: int) -> float:
    """Tokens of the usage of kind `speculative`; ten for a second of audio."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/usage?by=kind", timeout=10) as reply:
        lines = json.loads(reply.read())["data"]
    early = [line for line in lines if line["group"]["kind"] == "speculative"]
    return sum(
        line["input_tokens"] + line["output_tokens"] + 10 * line["audio_seconds"] for line in early
    )


if __name__ == "__main__":
    run(measure)
