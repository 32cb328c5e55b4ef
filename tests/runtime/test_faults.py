"""A provider fails in a running conversation: the next one speaks, and the next turn works."""

import asyncio
import datetime
import os
import re
import signal
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.engines.openai.chat_server import (
    KEY,
    ChatServer,
    Reply,
    drops,
    engine,
    falls_silent,
    gives,
    says,
)
from tests.engines.openai.chat_server import text as chunk
from tests.engines.workers import PATH
from tests.runtime.stage import (
    MODELS,
    RecordingPeer,
    ScriptedEngines,
    make_runner,
    speech,
    template,
)
from vivavoce.engines.base import BaseEngine, Speech, TextDelta, Transcript, Voice
from vivavoce.engines.host import HostLimits, WorkerHost
from vivavoce.engines.openai.llm import OpenAILLM
from vivavoce.engines.openai.stt import OpenAISTT
from vivavoce.engines.openai.tts import OpenAITTS
from vivavoce.errors import EngineLost
from vivavoce.protocol.server import OutputAudioDelta, OutputTranscriptDone
from vivavoce.protocol.session import ServerVad
from vivavoce.runtime.catalog import Cascade, ModelCatalog
from vivavoce.runtime.chains import FallbackLLM, FallbackSTT, FallbackTTS
from vivavoce.runtime.fallback import FallbackSettings, Member
from vivavoce.session.facts import Disconnected
from vivavoce.session.limits import SessionLimits
from vivavoce.session.shell import Session
from vivavoce.testing import run

CHAINS: dict[str, Any] = {"stt": FallbackSTT, "llm": FallbackLLM, "tts": FallbackTTS}
REMOTE: dict[str, Any] = {"stt": OpenAISTT, "llm": OpenAILLM, "tts": OpenAITTS}
SOON = FallbackSettings(stt_seconds=0.2, llm_seconds=5.0, tts_seconds=5.0, gap_seconds=0.2)
SPOKEN = "It is noon."


def scripted() -> ScriptedEngines:
    return ScriptedEngines(stt={"transcripts": ["what time is it"]}, llm={"answers": [SPOKEN]})


def chained(stage: str, engine: Any, settings: FallbackSettings = SOON) -> Cascade:
    """Scripted engines, with another engine before that of one stage."""
    engines = scripted()
    members = (Member("first", engine), Member("second", getattr(engines, stage)))
    chain: Any = {stage: CHAINS[stage](members, settings)}
    return replace(engines.cascade, **chain)


async def converse(cascade: Cascade, turns: int = 2) -> RecordingPeer:
    """Two turns of a user; what the client is sent."""
    peer = RecordingPeer()
    now = asyncio.get_running_loop().time()
    session = Session(template(ServerVad()), MODELS, SessionLimits(), salt="t", now=now)
    runner = make_runner(session, peer, ModelCatalog({"default": cascade}, "default"))
    running = asyncio.create_task(runner.run())
    await asyncio.sleep(0)
    for turn in range(1, turns + 1):
        for fact in speech():
            runner.post(fact)
            await runner.wait_caught_up()
        await peer.until("response.done", turn)
    runner.post(Disconnected())
    await running
    return peer


def transcripts(peer: RecordingPeer) -> list[str]:
    return [event.transcript for event in peer.events if isinstance(event, OutputTranscriptDone)]


def check(peer: RecordingPeer, caplog: pytest.LogCaptureFixture, stage: str, cause: str) -> None:
    """Both turns were answered, and one line of the log names provider, stage and cause."""
    assert peer.endings == [("completed", None)] * 2
    first, second = transcripts(peer)
    assert first.endswith(SPOKEN)
    assert second == SPOKEN
    lines = [
        record.getMessage()
        for record in caplog.records
        if record.name == "vivavoce.runtime.fallback" and record.levelname == "WARNING"
    ]
    assert len(lines) == 1
    assert re.fullmatch(f"{stage} first failed: .*{cause}.*; second takes over", lines[0])
    assert KEY not in caplog.text


async def converse_with(stage: str, base_url: str) -> RecordingPeer:
    """Converse where the first engine of that stage is a service at an address."""
    given = {"base_url": base_url, "api_key": KEY, "model": "m"}
    made = REMOTE[stage](msgspec.convert(given, REMOTE[stage].Settings))
    async with asyncio.timeout(30), made:
        return await converse(chained(stage, made))


def converse_with_server(stage: str, reply: Reply) -> RecordingPeer:
    async def main() -> RecordingPeer:
        async with ChatServer([reply]) as server:
            return await converse_with(stage, server.base_url)

    return asyncio.run(main())


@pytest.mark.parametrize("stage", ["stt", "llm", "tts"])
@pytest.mark.parametrize(
    ("status", "headers", "cause"),
    [
        (500, {}, r"\(500\)"),
        (401, {}, r"\(401\)"),
        (429, {"Retry-After": "60"}, "wait 60 s"),
    ],
)
def test_provider_that_refuses_is_replaced_in_the_same_turn(
    stage: str, status: int, headers: dict[str, str], cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    reply = gives(status, {"error": f"no, {KEY}"}, **headers)
    check(converse_with_server(stage, reply), caplog, stage, cause)


PCM = b"\x00\x10" * 2400


def sound(*, goes_on: bool) -> Reply:
    """A tenth of a second of speech, then silence or a broken connection."""

    async def reply(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "audio/pcm"})
        response.content_length = 10 * len(PCM)
        await response.prepare(request)
        await response.write(PCM)
        if goes_on:
            await asyncio.Event().wait()
        assert request.transport is not None
        request.transport.close()
        return response

    return reply


@pytest.mark.parametrize(
    ("stage", "reply", "cause"),
    [
        ("llm", falls_silent(chunk("Well, ")), "first gave nothing for 0.2 s"),
        ("tts", sound(goes_on=True), "first gave nothing for 0.2 s"),
        ("llm", drops(chunk("Well, ")), "broke off"),
        ("tts", sound(goes_on=False), "broke off"),
        ("stt", drops(), "closed before an answer"),
    ],
)
def test_provider_that_stalls_or_is_cut_off_in_the_middle_is_continued_by_the_next(
    stage: str, reply: Reply, cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    check(converse_with_server(stage, reply), caplog, stage, cause)


@pytest.mark.parametrize("stage", ["stt", "llm", "tts"])
def test_provider_whose_name_is_not_known_to_dns_is_replaced(
    stage: str, caplog: pytest.LogCaptureFixture
) -> None:
    peer = asyncio.run(converse_with(stage, "http://no-such-host.invalid/v1"))
    check(peer, caplog, stage, "not known to DNS")


def self_signed(folder: Path) -> ssl.SSLContext:
    """Of a server that anybody could be."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    both = folder / "server.pem"
    both.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return context


@asynccontextmanager
async def tls_server(context: ssl.SSLContext) -> AsyncIterator[str]:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("stage", ["stt", "llm", "tts"])
def test_provider_with_a_certificate_of_its_own_is_replaced(
    stage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    context = self_signed(tmp_path)

    async def main() -> RecordingPeer:
        async with tls_server(context) as base_url:
            return await converse_with(stage, base_url)

    check(asyncio.run(main()), caplog, stage, r"TLS failed \(self-signed certificate\)")


class OnWorker(BaseEngine):
    """Recognises or speaks in a process, which gets a signal in the middle of its work."""

    sample_rate = 24_000
    default_voice = "alloy"
    voices = (Voice("alloy", ()),)

    def __init__(self, number: int) -> None:
        self._signal = number
        self._pid = 0
        limits = HostLimits(hang_seconds=30.0)
        self.host: WorkerHost[str] = WorkerHost(
            PATH, {}, name="x.first", message=str, limits=limits
        )

    async def __aenter__(self) -> "OnWorker":
        await self.host.__aenter__()
        self._pid = (await self.host.loaded(dict[str, Any]))["pid"]
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._signal == signal.SIGSTOP:
            os.kill(self._pid, signal.SIGCONT)
        await self.host.__aexit__(*exc)

    async def transcribe(
        self, audio: AsyncIterator[bytes], *, language: str | None, prompt: str
    ) -> AsyncGenerator[Transcript]:
        async with self.host.open(("hang", 2), audio) as stream:
            async for _ in stream:
                os.kill(self._pid, self._signal)
        yield Transcript("never")

    async def synthesize(self, text: str, **how: Any) -> AsyncGenerator[Speech]:
        async with self.host.open(("hang", 2)) as stream:
            async for _ in stream:
                yield Speech(PCM)
                os.kill(self._pid, self._signal)


@pytest.mark.parametrize("stage", ["stt", "tts"])
@pytest.mark.parametrize(
    ("number", "cause"),
    [(signal.SIGKILL, "killed by signal 9"), (signal.SIGSTOP, "gave nothing for 0.2 s")],
)
def test_worker_that_is_killed_or_stopped_is_replaced_in_the_same_turn(
    stage: str,
    number: int,
    cause: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))

    async def main() -> RecordingPeer:
        async with asyncio.timeout(30), OnWorker(number) as worker:
            return await converse(chained(stage, worker))

    check(asyncio.run(main()), caplog, stage, cause)


class Stalling(BaseEngine):
    """Gives its things and then nothing; notes when it began to give nothing."""

    sample_rate = 24_000
    default_voice = "alloy"
    voices = (Voice("alloy", ()),)
    sees = False

    def __init__(self, *things: Any) -> None:
        self._things = things
        self.silent_since = 0.0

    async def _give(self) -> AsyncGenerator[Any]:
        for thing in self._things:
            yield thing
        self.silent_since = asyncio.get_running_loop().time()
        await asyncio.Event().wait()

    async def transcribe(self, audio: AsyncIterator[bytes], **how: Any) -> AsyncGenerator[Any]:
        async for _ in audio:
            pass
        async with aclosing(self._give()) as given:
            async for thing in given:
                yield thing

    async def generate(self, request: Any) -> AsyncGenerator[Any]:
        async with aclosing(self._give()) as given:
            async for thing in given:
                yield thing

    async def synthesize(self, text: str, **how: Any) -> AsyncGenerator[Any]:
        async with aclosing(self._give()) as given:
            async for thing in given:
                yield thing


class Timed(RecordingPeer):
    """Notes when audio came."""

    def __init__(self) -> None:
        super().__init__()
        self.audio_at: list[float] = []

    def send(self, event: Any) -> None:
        super().send(event)
        if isinstance(event, OutputAudioDelta):
            self.audio_at.append(asyncio.get_running_loop().time())


@pytest.mark.parametrize(
    ("stage", "things", "seconds"),
    [
        ("stt", (), 3.0),
        ("llm", (), 4.0),
        ("llm", (TextDelta("Well, "),), 2.0),
        ("tts", (), 2.0),
        ("tts", (Speech(PCM),), 2.0),
    ],
)
def test_audio_of_the_next_engine_comes_within_its_time_out_and_100_ms(
    stage: str, things: tuple[Any, ...], seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    stalling = Stalling(*things)
    monkeypatch.setattr("tests.runtime.test_faults.RecordingPeer", Timed)

    async def main() -> None:
        peer = await converse(chained(stage, stalling, FallbackSettings()), turns=1)
        assert isinstance(peer, Timed)
        assert peer.endings == [("completed", None)]
        after = [at for at in peer.audio_at if at > stalling.silent_since]
        assert after[0] - stalling.silent_since <= seconds + 0.1

    run(main())


def test_model_without_a_fallback_has_its_apology_spoken_and_the_next_turn_works() -> None:
    asked: list[str] = []

    async def fails_first(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/completions"):
            asked.append(request.path)
        return await (says(SPOKEN) if len(asked) > 1 else gives(500))(request)

    async def main() -> RecordingPeer:
        async with (
            asyncio.timeout(30),
            ChatServer([fails_first]) as server,
            engine(server) as llm,
        ):
            return await converse(replace(scripted().cascade, llm=llm, apology="Sorry."))

    peer = asyncio.run(main())
    assert peer.endings == [("failed", "llm_failed"), ("completed", None)]
    assert transcripts(peer) == ["Sorry.", SPOKEN]


class LostSTT(BaseEngine):
    """Hangs until it is killed after 8 s; its next process takes 8 s to load."""

    Settings = FallbackSettings
    sample_rate = 24_000

    def __init__(self) -> None:
        self.asked = 0

    async def transcribe(
        self, audio: AsyncIterator[bytes], *, language: str | None, prompt: str
    ) -> AsyncGenerator[Transcript]:
        self.asked += 1
        async for _ in audio:
            pass
        if self.asked <= 2:
            await asyncio.sleep(8.0)
        if self.asked == 1:
            raise EngineLost("it hung and was killed")
        yield Transcript("what time is it", 15, final=True)


def test_turn_whose_worker_hangs_and_loads_slowly_is_recognised_all_the_same() -> None:
    async def main() -> RecordingPeer:
        return await converse(replace(scripted().cascade, stt=LostSTT()))

    peer = run(main())
    assert peer.endings == [("completed", None)] * 2
    assert transcripts(peer) == [SPOKEN] * 2
