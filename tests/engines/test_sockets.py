"""Engines over WebSockets, against servers that behave as their services document it."""

import asyncio
import base64
import math
import re
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import WSMsgType, web

from tests.server import scripted, serving
from vivavoce.engines.assemblyai import AssemblyAISettings, AssemblyAISTT
from vivavoce.engines.base import STT, TTS, Mark, Speech, Transcript, Word
from vivavoce.engines.cartesia import CartesiaSettings, CartesiaTTS
from vivavoce.engines.deepgram import DeepgramSettings, DeepgramSTT
from vivavoce.engines.elevenlabs import ElevenLabsSettings, ElevenLabsTTS
from vivavoce.engines.realtime_stt import RealtimeSTT, RealtimeSTTSettings
from vivavoce.errors import EngineError, EngineLost
from vivavoce.testing import check_stt, check_tts

KEY = "key-of-the-service"
RATE = 24_000
Behave = Callable[[web.WebSocketResponse, "Service"], Awaitable[None]]


class Service:
    """A WebSocket server with one behaviour; it remembers who connected."""

    def __init__(self, behave: Behave) -> None:
        self.behave = behave
        self.requests: list[web.Request] = []
        self.messages: list[dict[str, Any]] = []
        self.expires: tuple[str, ...] = ()
        """After these texts a context is ended, whatever follows."""
        self.base_url = ""

    async def connect(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        keys = {request.headers.get(name, "") for name in ("Authorization", "X-API-Key")}
        if not any(KEY in key for key in (*keys, request.headers.get("xi-api-key", ""))):
            return web.json_response({"err_msg": "Invalid credentials."}, status=401)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await self.behave(socket, self)
        return socket


@asynccontextmanager
async def service(behave: Behave) -> AsyncIterator[Service]:
    made, app = Service(behave), web.Application()
    app.router.add_get("/{path:.*}", made.connect)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        made.base_url = f"ws://127.0.0.1:{runner.addresses[0][1]}/v1"
        yield made
    finally:
        await runner.cleanup()


async def audio_of(socket: web.WebSocketResponse) -> AsyncIterator[bytes | dict[str, Any]]:
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            yield message.data
        elif message.type is WSMsgType.TEXT:
            yield msgspec.json.decode(message.data)


# --- recognition


async def deepgram(socket: web.WebSocketResponse, service: Service) -> None:
    """Results of two phrases; after CloseStream the rest, Metadata, and the close."""

    def result(text: str, *, final: bool) -> dict[str, Any]:
        words = [
            {"word": word, "punctuated_word": word.title(), "start": 0.1 * n, "end": 0.1 * n + 0.1}
            for n, word in enumerate(text.split())
        ]
        best = {"transcript": text, "words": words, "confidence": 0.9}
        channel = {"alternatives": [best]}
        return {"type": "Results", "is_final": final, "start": 0, "channel": channel}

    heard = 0
    async with aclosing(audio_of(socket)) as given:  # type: ignore[type-var]
        async for message in given:
            if isinstance(message, bytes):
                heard += 1
                if heard == 1:
                    await socket.send_json(result("hel", final=False))
                if heard == 2:
                    await socket.send_json(result("hello", final=True))
            elif message["type"] == "CloseStream":
                if heard > 1:
                    await socket.send_json(result("there", final=True))
                await socket.send_json({"type": "Metadata", "duration": 1.0})
                await socket.close()
                return


async def assemblyai(socket: web.WebSocketResponse, service: Service) -> None:
    """Begin; partial, ended and formatted Turn; Termination."""
    await socket.send_json({"type": "Begin", "id": "1", "expires_at": 0})

    def turn(text: str, *, ended: bool, formatted: bool = False) -> dict[str, Any]:
        words = [{"text": text, "start": 0, "end": 300, "word_is_final": ended}]
        return {
            **{"type": "Turn", "turn_order": 0, "transcript": text, "words": words},
            **{"end_of_turn": ended, "turn_is_formatted": formatted},
        }

    heard = False
    async with aclosing(audio_of(socket)) as given:  # type: ignore[type-var]
        async for message in given:
            if isinstance(message, bytes):
                assert 1600 <= len(message) <= 32_000  # 50 to 1000 ms
                if not heard:
                    await socket.send_json(turn("hello", ended=False))
                heard = True
            elif message["type"] == "ForceEndpoint":
                await socket.send_json(turn("hello there", ended=True))
                await socket.send_json(turn("Hello there.", ended=True, formatted=True))
            elif message["type"] == "Terminate":
                await socket.send_json({"type": "Termination", "audio_duration_seconds": 1})
                await socket.close()
                return


def made_stt(kind: str, base_url: str, **options: Any) -> Any:
    first: dict[str, Any] = {"base_url": base_url, "api_key": KEY, "first_result_seconds": 5.0}
    options = first | options
    if kind == "deepgram":
        return DeepgramSTT(DeepgramSettings(**options))
    return AssemblyAISTT(AssemblyAISettings(**options))


RECOGNISERS = {"deepgram": deepgram, "assemblyai": assemblyai}


def hum(rate: int, ms: int = 400) -> bytes:
    samples = rate * ms // 1000
    return struct.pack(f"<{samples}h", *(int(8000 * math.sin(n / 5)) for n in range(samples)))


async def pieces(pcm: bytes, size: int = 3200) -> AsyncIterator[bytes]:
    for at in range(0, len(pcm), size):
        yield pcm[at : at + size]
        await asyncio.sleep(0)


async def heard(stt: STT, pcm: bytes | None = None) -> list[Transcript]:
    given = pieces(hum(stt.sample_rate) if pcm is None else pcm)
    async with aclosing(stt.transcribe(given, language="en", prompt="")) as found:
        return [transcript async for transcript in found]


@pytest.mark.parametrize("kind", RECOGNISERS)
def test_recogniser_behind_a_websocket_passes_the_conformance_checks(kind: str) -> None:
    async def main() -> None:
        async with (
            service(RECOGNISERS[kind]) as there,
            made_stt(kind, there.base_url) as stt,
        ):
            await check_stt(stt)

    asyncio.run(main())


def test_deepgram_gives_words_as_they_come_and_times_at_the_end() -> None:
    async def main() -> None:
        async with service(deepgram) as there, made_stt("deepgram", there.base_url) as stt:
            found = await heard(stt)
            assert found[-1] == Transcript(
                *("hello there", 11, True),
                (Word("Hello", 0, 100), Word("There", 0, 100)),
            )
            assert [t.text for t in found[:-1]] == ["hel", "hello", "hello there"]
            query = there.requests[0].query
            assert (query["model"], query["language"], query["sample_rate"]) == (
                *("nova-3", "en"),
                "16000",
            )
            assert there.requests[0].headers["Authorization"] == f"Token {KEY}"

    asyncio.run(main())


def test_assemblyai_gives_the_formatted_turn() -> None:
    async def main() -> None:
        async with service(assemblyai) as there, made_stt("assemblyai", there.base_url) as stt:
            found = await heard(stt)
            assert found[-1].text == "Hello there."
            assert found[0] == Transcript("hello", 0)
            assert there.requests[0].headers["Authorization"] == KEY

    asyncio.run(main())


def test_warm_connection_is_used_by_the_next_utterance() -> None:
    async def main() -> None:
        async with service(deepgram) as there, made_stt("deepgram", there.base_url) as stt:
            stt.warm()
            stt.warm()  # one is enough
            await heard(stt)
            assert len(there.requests) == 1
            stt.warm()
            german = stt.transcribe(pieces(hum(16_000)), language="de", prompt="")
            async with aclosing(german) as found:
                assert [t async for t in found]
            assert [r.query["language"] for r in there.requests][-1] == "de"

    asyncio.run(main())


async def cuts(socket: web.WebSocketResponse, service: Service) -> None:
    await socket.receive()
    assert socket._req is not None
    assert socket._req.transport is not None
    socket._req.transport.abort()


async def stalls(socket: web.WebSocketResponse, service: Service) -> None:
    async for _ in socket:
        pass


async def refuses(socket: web.WebSocketResponse, service: Service) -> None:
    await socket.receive()
    error = {"type": "Error", "description": f"no credit on {KEY}", "error": "no credit"}
    await socket.send_json(error)
    await socket.close()


async def closes(socket: web.WebSocketResponse, service: Service) -> None:
    await socket.receive()
    await socket.close(code=1011, message=b"NET-0001")


async def chatters(socket: web.WebSocketResponse, service: Service) -> None:
    await socket.receive()
    await socket.send_str("no JSON")
    await stalls(socket, service)


@pytest.mark.parametrize("kind", RECOGNISERS)
@pytest.mark.parametrize(
    ("behave", "error", "message"),
    [
        (cuts, EngineLost, "broke off in the middle"),
        (stalls, EngineError, "did not begin to answer within 0.2 s"),
        (refuses, EngineError, "failed while it answered: no credit"),
        (closes, EngineError, r"NET-0001 \(1011\)"),
        (chatters, EngineError, "sent something else instead of a transcript"),
    ],
)
def test_failure_of_a_recogniser_is_one_sentence(
    kind: str, behave: Behave, error: type[EngineError], message: str
) -> None:
    async def main() -> None:
        async with (
            service(behave) as there,
            made_stt(kind, there.base_url, first_result_seconds=0.2) as stt,
        ):
            with pytest.raises(error, match=message) as failure:
                await heard(stt)
            assert KEY not in str(failure.value)

    asyncio.run(main())


def test_wrong_key_is_refused_with_the_remedy() -> None:
    async def main() -> None:
        async with (
            service(deepgram) as there,
            made_stt("deepgram", there.base_url, api_key="wrong") as stt,
        ):
            with pytest.raises(EngineError, match=r"refused the API key \(401\).*check api_key"):
                await heard(stt)

    asyncio.run(main())


def test_transcription_session_at_another_vivavoce() -> None:
    async def main() -> None:
        settings = scripted(stt={"transcripts": ["hello from there"], "repeat": True})
        async with serving(settings) as server:
            options = RealtimeSTTSettings(base_url=f"{server.ws}/v1", api_key="any-key")
            async with RealtimeSTT(options) as stt:
                found = await heard(stt)
                assert found[-1] == Transcript("hello from there", 16, True)
                await check_stt(stt)

    asyncio.run(main())


# --- synthesis


def tone(text: str, speed: float) -> bytes:
    return b"\x00\x10" * int(len(text) * 1200 / speed)


async def cartesia(socket: web.WebSocketResponse, service: Service) -> None:
    """Timestamps, chunks and `done` of each context; `cancel` ends one; `continue` keeps it."""
    given_before: dict[str, int] = {}
    async with aclosing(audio_of(socket)) as given:  # type: ignore[type-var]
        async for message in given:
            assert isinstance(message, dict)
            service.messages.append(message)
            if message.get("cancel"):
                continue
            context, text = message["context_id"], message["transcript"]
            before = given_before.get(context, 0)
            given_before[context] = before + len(text)
            speed = message.get("generation_config", {}).get("speed", 1.0)
            words = [(found[0], found.start()) for found in re.finditer(r"\S+", text)]
            times = {
                "words": [word for word, _ in words],
                "start": [(before + at) * 0.05 / speed for _, at in words],
                "end": [0.0] * len(words),
            }
            shared = {"context_id": context, "status_code": 206, "done": False}
            if words:
                await socket.send_json(shared | {"type": "timestamps", "word_timestamps": times})
            pcm = tone(text, speed)
            for at in range(0, len(pcm), 9600):
                data = base64.b64encode(pcm[at : at + 9600]).decode()
                await socket.send_json(shared | {"type": "chunk", "data": data})
            if not message["continue"] or text in service.expires:
                await socket.send_json(shared | {"type": "done", "done": True})


async def elevenlabs(socket: web.WebSocketResponse, service: Service) -> None:
    """Audio with the times of its characters; isFinal when a context is closed."""
    speeds: dict[str, float] = {}
    async with aclosing(audio_of(socket)) as given:  # type: ignore[type-var]
        async for message in given:
            assert isinstance(message, dict)
            service.messages.append(message)
            context = message["context_id"]
            if message.get("text") == " ":
                speeds[context] = message.get("voice_settings", {}).get("speed", 1.0)
            elif text := message.get("text", "").strip():
                pcm = tone(text, speeds[context])
                half = len(pcm) // 4 * 2
                chars = [*text]
                alignment = {
                    "chars": chars,
                    "charStartTimesMs": [int(n * 50 / speeds[context]) for n in range(len(chars))],
                }
                for part, times in ((pcm[:half], alignment), (pcm[half:], None)):
                    audio = base64.b64encode(part).decode()
                    await socket.send_json(
                        {"audio": audio, "alignment": times, "contextId": context}
                    )
            elif message.get("close_context"):
                await socket.send_json({"isFinal": True, "contextId": context})


SYNTHESISERS = {"cartesia": cartesia, "elevenlabs": elevenlabs}


def made_tts(kind: str, base_url: str, **options: Any) -> Any:
    options = {"base_url": base_url, "api_key": KEY, "voices": {"ann": "id-1"}} | options
    if kind == "cartesia":
        return CartesiaTTS(CartesiaSettings(**options))
    return ElevenLabsTTS(ElevenLabsSettings(**options))


async def spoken(tts: TTS, text: str = "Hello there, friend.") -> list[Speech]:
    speech = tts.synthesize(
        text, voice=tts.default_voice, speed=1.0, language="en", instructions=""
    )
    async with aclosing(speech):
        return [piece async for piece in speech]


@pytest.mark.parametrize("kind", SYNTHESISERS)
def test_synthesiser_behind_a_websocket_passes_the_conformance_checks(kind: str) -> None:
    async def main() -> None:
        async with service(SYNTHESISERS[kind]) as there, made_tts(kind, there.base_url) as tts:
            await check_tts(tts)
            assert len(there.requests) == 1  # all texts share a connection
            assert any(m.get("cancel") or m.get("close_context") for m in there.messages)

    asyncio.run(main())


@pytest.mark.parametrize("kind", SYNTHESISERS)
def test_speech_has_the_times_of_its_words(kind: str) -> None:
    async def main() -> None:
        async with service(SYNTHESISERS[kind]) as there, made_tts(kind, there.base_url) as tts:
            tts.warm()
            speech = await spoken(tts, "Hello there")
            assert b"".join(piece.audio for piece in speech) == tone("Hello there", 1.0)
            marks = [mark for piece in speech for mark in piece.marks]
            assert marks == [Mark(0, 0, 5), Mark(RATE * 300 // 1000, 6, 11)]
            assert len(there.requests) == 1

    asyncio.run(main())


async def spoken_stream(
    tts: Any, *texts: str, between: Callable[[], Awaitable[object]] | None = None
) -> list[Speech]:
    async def pieces() -> AsyncIterator[str]:
        for n, text in enumerate(texts):
            if n and between is not None:
                await between()
            yield text

    speech = tts.synthesize_stream(pieces(), voice="ann", speed=1.0, language="en", instructions="")
    async with aclosing(speech):
        return [piece async for piece in speech]


def places(speech: list[Speech]) -> list[tuple[int, int]]:
    """Of the words in the text."""
    return [(mark.start, mark.end) for piece in speech for mark in piece.marks]


@pytest.mark.parametrize("kind", SYNTHESISERS)
def test_text_in_pieces_is_one_context_and_has_the_times_of_its_words(kind: str) -> None:
    async def main() -> None:
        async with service(SYNTHESISERS[kind]) as there, made_tts(kind, there.base_url) as tts:
            speech = await spoken_stream(tts, "Hello there, ", "it is ", "noon.")
            assert places(speech) == [(0, 5), (6, 12), (13, 15), (16, 18), (19, 24)]
            assert len({message["context_id"] for message in there.messages}) == 1
            texts = [m.get("transcript", m.get("text", "")).strip() for m in there.messages]
            assert [text for text in texts if text] == ["Hello there,", "it is", "noon."]
            assert not any(m.get("cancel") for m in there.messages)

    asyncio.run(main())


@pytest.mark.parametrize("kind", SYNTHESISERS)
def test_text_in_pieces_that_is_interrupted_is_cancelled_with_its_context(kind: str) -> None:
    async def main() -> None:
        async with service(SYNTHESISERS[kind]) as there, made_tts(kind, there.base_url) as tts:
            awaited = asyncio.Event()

            async def forever() -> None:
                awaited.set()
                await asyncio.Event().wait()

            talking = asyncio.create_task(
                spoken_stream(tts, "Hello there. ", "And more.", between=forever)
            )
            await awaited.wait()
            talking.cancel()
            await asyncio.wait((talking,))
            assert await spoken(tts, "It goes on.")  # on the same connection, after the cancelling
            assert any(m.get("cancel") or m.get("close_context") for m in there.messages)
            assert not any("And more." in str(message) for message in there.messages)
            assert len(there.requests) == 1

    asyncio.run(main())


def test_context_that_the_service_ends_while_text_is_awaited_is_followed_by_another() -> None:
    async def main() -> None:
        async with service(cartesia) as there, made_tts("cartesia", there.base_url) as tts:

            async def until_it_was_read() -> None:
                await spoken(tts, "hm")  # over the same connection: its end comes later
                for _ in range(9):
                    await asyncio.sleep(0)

            there.expires = ("One, ", "two. ")
            speech = await spoken_stream(tts, "One, ", "two. ", "Three.", between=until_it_was_read)
            named = {m["context_id"] for m in there.messages if m["transcript"] not in ("hm", "")}
            assert len(named) == 3
            assert places(speech) == [(0, 4), (5, 9), (10, 16)]
            there.expires = ("Three.",)
            speech = await spoken_stream(tts, "Three.", " ", between=until_it_was_read)
            assert places(speech) == [(0, 6)]

    asyncio.run(main())


def test_service_that_falls_silent_while_it_owes_speech_is_an_error() -> None:
    async def main() -> None:
        async with (
            service(stalls) as there,
            made_tts("cartesia", there.base_url, first_audio_seconds=0.2) as tts,
        ):
            with pytest.raises(EngineError, match=r"did not begin to answer within 0\.2 s"):
                await spoken_stream(tts, "Hello.")

    asyncio.run(main())


@pytest.mark.parametrize("kind", SYNTHESISERS)
@pytest.mark.parametrize(
    ("behave", "error", "message"),
    [
        (cuts, EngineLost, "broke off in the middle"),
        (stalls, EngineError, "did not begin to answer within 0.2 s"),
        (closes, EngineError, r"NET-0001 \(1011\)"),
    ],
)
def test_failure_of_a_synthesiser_is_one_sentence_and_the_next_text_connects_anew(
    kind: str, behave: Behave, error: type[EngineError], message: str
) -> None:
    async def main() -> None:
        async with (
            service(behave) as there,
            made_tts(kind, there.base_url, first_audio_seconds=0.2) as tts,
        ):
            with pytest.raises(error, match=message):
                await spoken(tts)
            there.behave = SYNTHESISERS[kind]
            if behave is not stalls:
                assert await spoken(tts)

    asyncio.run(main())


def test_settings_of_a_service_are_checked() -> None:
    assert DeepgramSettings(base_url="wss://a.example").base_url == "https://a.example"
    assert KEY not in repr(DeepgramSettings(api_key=KEY, headers={"X": KEY}))
    for options in ({"base_url": "ftp://x"}, {"api_key": "k\u00e9y"}):
        with pytest.raises(ValueError, match=r"base_url|api_key"):
            DeepgramSettings(**options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="query: at most 64"):
        DeepgramSettings(query={str(n): "" for n in range(65)})
    with pytest.raises(ValueError, match="voices: name at least one"):
        CartesiaSettings(voices={})
