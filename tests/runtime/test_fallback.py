"""The next engine of a list takes over in the middle of a turn, and the first comes back."""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from tests.engines.openai.chat_server import KEY
from tests.runtime.stage import (
    MODELS,
    RecordingPeer,
    ScriptedEngines,
    make_runner,
    speech,
    template,
)
from vivavoce.engines.base import (
    BaseEngine,
    CallStarted,
    Capabilities,
    ChatEnded,
    ChatEvent,
    ChatRequest,
    Mark,
    Speech,
    TextDelta,
    Transcript,
    Voice,
)
from vivavoce.engines.http import HttpClient, ResponseTimeouts
from vivavoce.engines.remote import RemoteServer, ServerKind
from vivavoce.engines.scripted.engines import ScriptedLLM, ScriptedSTT, ScriptedTTS
from vivavoce.errors import EngineError, EngineLost, NoSound
from vivavoce.protocol.server import OutputTranscriptDone
from vivavoce.protocol.session import ServerVad
from vivavoce.runtime.catalog import ModelCatalog
from vivavoce.runtime.chains import CONTINUE, FallbackLLM, FallbackSTT, FallbackTTS
from vivavoce.runtime.fallback import (
    FallbackSettings,
    KeptAudio,
    Member,
    knows_language,
    languages_of,
)
from vivavoce.session.facts import Disconnected
from vivavoce.session.limits import SessionLimits
from vivavoce.session.shell import Session
from vivavoce.testing import check_llm, check_stt, check_tts, run

SETTINGS = FallbackSettings()
SERVER = RemoteServer("https://api.test/v1", ServerKind("LLM", "text"), api_key=KEY, headers={})
REFUSED = [
    (SERVER.refused(500, {}, b'{"error": "boom"}'), r"failed \(500\): boom"),
    (SERVER.refused(401, {}, f'{{"error": "wrong {KEY}"}}'.encode()), r"\(401\): wrong \*\*\*"),
    (SERVER.refused(429, {"Retry-After": "60"}, b""), "wait 60 s"),
    (SERVER.broken_off(), "broke off"),
    (EngineLost("the worker process ended"), "the worker process ended"),
]
"""Failures and what is logged of them."""


def now() -> float:
    return asyncio.get_running_loop().time()


class Engine(BaseEngine):
    """One of every kind: gives these things; an exception is raised, a number is a delay."""

    Settings = FallbackSettings
    sees = False
    sample_rate = 24_000
    default_voice = "own"

    def __init__(self, *things: Any, voices: tuple[str, ...] = ("own",)) -> None:
        self.things = things
        self.voices = tuple(Voice(name, ()) for name in voices)
        self.asked: list[Any] = []
        self.open = 0

    async def _play(self) -> AsyncGenerator[Any]:
        self.open += 1
        try:
            for thing in self.things:
                if isinstance(thing, Exception):
                    raise thing
                if isinstance(thing, float):
                    await asyncio.sleep(thing)
                else:
                    yield thing
        finally:
            self.open -= 1

    async def transcribe(
        self, audio: AsyncIterator[bytes], *, language: str | None, prompt: str
    ) -> AsyncGenerator[Transcript]:
        self.asked.append(b"".join([piece async for piece in audio]))
        async with aclosing(self._play()) as things:
            async for thing in things:
                yield thing

    async def generate(self, request: ChatRequest) -> AsyncGenerator[ChatEvent]:
        self.asked.append(request)
        async with aclosing(self._play()) as things:
            async for thing in things:
                yield thing

    async def synthesize(self, text: str, **how: Any) -> AsyncGenerator[Speech]:
        self.asked.append((text, how["voice"]))
        async with aclosing(self._play()) as things:
            async for thing in things:
                yield thing


def members(*engines: Any) -> list[Member[Any]]:
    return [Member(name, engine) for name, engine in zip("abcd", engines, strict=False)]


SAYS = (TextDelta("Yes."), ChatEnded())
REQUEST = ChatRequest("Be kind.", ())


async def answered(llm: FallbackLLM) -> list[ChatEvent]:
    async with aclosing(llm.generate(REQUEST)) as events:
        return [event async for event in events]


async def source(*pieces: bytes, pause: float = 0.0) -> AsyncIterator[bytes]:
    for piece in pieces:
        await asyncio.sleep(pause)
        yield piece


async def heard(stt: FallbackSTT, *pieces: bytes) -> list[Transcript]:
    audio = source(*pieces, pause=0.1)
    async with aclosing(stt.transcribe(audio, language=None, prompt="")) as found:
        return [transcript async for transcript in found]


async def spoken(tts: FallbackTTS, text: str) -> list[Speech]:
    how: dict[str, Any] = {"voice": "own", "speed": 1.0, "language": None, "instructions": ""}
    async with aclosing(tts.synthesize(text, **how)) as pieces:
        return [piece async for piece in pieces]


@pytest.mark.parametrize(("failure", "cause"), REFUSED)
def test_llm_failure_is_answered_by_the_next_and_logged_in_one_line(
    failure: EngineError, cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        chain = FallbackLLM(members(Engine(failure), Engine(*SAYS)), SETTINGS)
        assert await answered(chain) == [*SAYS]
        assert now() == 0.0

    with caplog.at_level(logging.WARNING):
        run(main())
    (line,) = caplog.messages
    assert line.startswith("llm a failed: ")
    assert line.endswith("; b takes over")
    assert KEY not in line
    assert re.search(cause, line)


def test_llm_that_gives_nothing_is_replaced_within_its_time_out() -> None:
    async def main() -> None:
        slow = Engine(60.0, *SAYS)
        assert await answered(FallbackLLM(members(slow, Engine(*SAYS)), SETTINGS)) == [*SAYS]
        assert now() <= SETTINGS.llm_seconds + 0.1
        assert slow.open == 0

    run(main())


@pytest.mark.parametrize("fault", [60.0, SERVER.broken_off()])
def test_llm_that_stops_in_mid_answer_is_continued_by_the_next(fault: Any) -> None:
    async def main() -> None:
        first, second = Engine(TextDelta("It is"), fault), Engine(TextDelta("noon."), ChatEnded())
        events = await answered(FallbackLLM(members(first, second), SETTINGS))
        assert events == [TextDelta("It is"), TextDelta(" noon."), ChatEnded()]
        assert now() <= SETTINGS.gap_seconds + 0.1
        (asked,) = second.asked
        assert asked.instructions == f"Be kind.\n\n{CONTINUE}"
        assert [part.text for item in asked.items for part in item.content] == ["It is"]

    run(main())


def test_llm_failure_after_a_function_call_has_begun_ends_the_answer() -> None:
    async def main() -> None:
        first = Engine(CallStarted(0, "c", "pay"), EngineError("gone"))
        second = Engine(*SAYS)
        with pytest.raises(EngineError, match="gone"):
            await answered(FallbackLLM(members(first, second), SETTINGS))
        assert second.asked == []

    run(main())


def test_engine_that_failed_is_left_out_until_it_may_have_recovered() -> None:
    async def main() -> None:
        first, second = Engine(SERVER.refused(500, {}, b"")), Engine(*SAYS)
        chain = FallbackLLM(members(first, second), SETTINGS)
        for _ in range(3):
            await answered(chain)
        assert len(first.asked) == 1
        await asyncio.sleep(SETTINGS.recovery_seconds)
        await answered(chain)
        assert len(first.asked) == 2
        await asyncio.sleep(SETTINGS.recovery_seconds)
        await answered(chain)
        assert len(first.asked) == 2, "twice as long after the second failure"
        await asyncio.sleep(SETTINGS.recovery_seconds)
        first.things = (TextDelta("Back."), ChatEnded())
        for _ in range(2):
            assert await answered(chain) == [*first.things]

    run(main())


def test_retry_after_of_a_server_is_waited_for() -> None:
    async def main() -> None:
        first, second = Engine(SERVER.refused(429, {"Retry-After": "90"}, b"")), Engine(*SAYS)
        chain = FallbackLLM(members(first, second), SETTINGS)
        await answered(chain)
        await asyncio.sleep(80)
        await answered(chain)
        assert len(first.asked) == 1

    run(main())


def test_engines_are_asked_again_with_back_off_when_all_have_failed() -> None:
    async def main() -> None:
        failing = [Engine(SERVER.refused(503, {}, b"")) for _ in range(2)]
        with pytest.raises(EngineError, match="503"):
            await answered(FallbackLLM(members(*failing), SETTINGS))
        assert [len(engine.asked) for engine in failing] == [3, 3]
        assert now() == pytest.approx(0.1 + 0.2)

    run(main())


def test_failure_that_asking_again_does_not_mend_is_not_retried() -> None:
    async def main() -> None:
        failing = Engine(SERVER.refused(401, {}, b""))
        with pytest.raises(EngineError, match="401"):
            await answered(FallbackLLM(members(failing), SETTINGS))
        assert len(failing.asked) == 1

    run(main())


@pytest.mark.parametrize(("slow", "winner"), [(3.0, "Yes."), (0.6, "Slow.")])
def test_slow_first_token_is_hedged(slow: float, winner: str) -> None:
    async def main() -> None:
        first = Engine(slow, TextDelta("Slow."), ChatEnded())
        second = Engine(0.5, *SAYS)
        chain = FallbackLLM(members(first, second), FallbackSettings(hedge_seconds=0.3))
        assert (await answered(chain))[0] == TextDelta(winner)
        assert now() == pytest.approx(min(slow, 0.8))
        assert (first.open, second.open) == (0, 0)

    run(main())


def test_engine_that_reports_a_fault_is_asked_last() -> None:
    class Down(Engine):
        def health(self) -> str | None:
            return "its process does not start"

    async def main() -> None:
        down, second = Down(*SAYS), Engine(*SAYS)
        chain = FallbackLLM(members(down, second), SETTINGS)
        await answered(chain)
        assert (len(down.asked), len(second.asked)) == (0, 1)
        assert chain.health() is None
        assert FallbackLLM(members(down), SETTINGS).health() == "its process does not start"

    run(main())


FINAL = Transcript("a b c", 5, final=True)


@pytest.mark.parametrize("fault", [EngineError("gone"), 60.0])
def test_stt_gets_all_audio_again_and_keeps_stable_words(fault: Any) -> None:
    async def main() -> None:
        first = Engine(Transcript("x b", 2), fault)
        second = Engine(FINAL)
        found = await heard(FallbackSTT(members(first, second), SETTINGS), b"12", b"34", b"56")
        assert second.asked == [b"123456"]
        assert found == [Transcript("x b", 2), Transcript("x b c", 5, final=True)]
        assert now() <= 0.3 + SETTINGS.stt_seconds + 0.1

    run(main())


def test_stt_that_reads_no_audio_is_replaced_after_the_end_of_the_audio() -> None:
    class Stopped(Engine):
        async def transcribe(
            self, audio: AsyncIterator[bytes], **how: Any
        ) -> AsyncGenerator[Transcript]:
            await asyncio.Event().wait()
            yield FINAL

    async def main() -> None:
        chain = FallbackSTT(members(Stopped(), Engine(FINAL)), SETTINGS)
        assert await heard(chain, b"12", b"34") == [FINAL]
        assert now() == pytest.approx(0.2 + SETTINGS.stt_seconds)

    run(main())


def test_stt_without_a_result_fails_when_no_engine_is_left() -> None:
    async def main() -> None:
        chain = FallbackSTT(members(Engine(), Engine(EngineError("no"))), SETTINGS)
        with pytest.raises(EngineError, match="no"):
            await heard(chain, b"12")

    run(main())


def test_stt_that_knows_the_language_is_asked_first(caplog: pytest.LogCaptureFixture) -> None:
    class English(Engine):
        capabilities = Capabilities(languages=("en",))

    async def by(chain: FallbackSTT, language: str | None) -> str:
        found = chain.transcribe(source(b"a\0"), language=language, prompt="")
        async with aclosing(found) as transcripts:
            return "".join([transcript.text async for transcript in transcripts])

    async def main() -> None:
        english = English(Transcript("english", 7, final=True))
        other = Engine(Transcript("other", 5, final=True))
        chain = FallbackSTT(members(english, other), SETTINGS)
        for language in (None, "en", "en-US", "english", "klingon"):
            assert await by(chain, language) == "english"
        for _ in range(2):
            assert await by(chain, "de") == "other"
        assert languages_of(chain) == "any"
        alone = FallbackSTT(members(english, English()), SETTINGS)
        assert await by(alone, "de") == "english"
        assert (languages_of(alone), knows_language(alone, "de")) == (("en",), False)

    caplog.set_level(logging.INFO)
    run(main())
    assert caplog.messages == ["stt a does not know de; b is used"]


def test_kept_audio_is_bounded() -> None:
    async def main() -> None:
        piece = bytes(1 << 20)
        async with KeptAudio(source(*[piece] * 20)) as kept:
            assert kept.is_whole
            async with aclosing(kept.pieces()) as pieces:
                assert sum([len(piece) async for piece in pieces]) == 20 << 20
            assert not kept.is_whole

    run(main())


TONE = Speech(b"\1\0" * 2400)


@pytest.mark.parametrize("fault", [EngineError("cut"), 60.0])
def test_tts_cut_in_mid_speech_is_continued_with_the_next_voice(fault: Any) -> None:
    async def main() -> None:
        marked = Speech(b"\1\0" * 2400, (Mark(0, 0, 3), Mark(1200, 4, 7)))
        first = Engine(marked, fault)
        second = Engine(Speech(b"\2\0" * 10, (Mark(0, 0, 3), Mark(5, 4, 9))), voices=("other",))
        second.default_voice = "other"
        pieces = await spoken(FallbackTTS(members(first, second), SETTINGS), "One two three")
        assert second.asked == [("two three", "other")]
        assert pieces[0] == marked
        assert pieces[1].marks == (Mark(2400, 4, 7), Mark(2405, 8, 13))
        assert now() <= SETTINGS.gap_seconds + 0.1

    run(main())


def test_tts_without_marks_is_continued_at_a_word_by_the_length_of_its_speech() -> None:
    async def main() -> None:
        first, second = Engine(*[TONE] * 8, EngineError("cut")), Engine(TONE)
        text = "One two three four five"
        await spoken(FallbackTTS(members(first, second), SETTINGS), text)
        assert second.asked == [("three four five", "own")]

    run(main())


def test_tts_that_gives_no_sound_is_replaced_within_its_time_out() -> None:
    async def main() -> None:
        chain = FallbackTTS(members(Engine(60.0), Engine(TONE)), SETTINGS)
        assert await spoken(chain, "One.") == [TONE]
        assert now() <= SETTINGS.tts_seconds + 0.1

    run(main())


def test_tts_of_another_language_or_script_is_the_engine_that_speaks_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class English(Engine):
        capabilities = Capabilities(languages=("en",))

    async def by(chain: FallbackTTS, text: str, language: str | None, voice: str = "own") -> Any:
        how: dict[str, Any] = {"voice": voice, "speed": 1.0, "instructions": ""}
        async with aclosing(chain.synthesize(text, language=language, **how)) as pieces:
            return [piece.audio[:1] async for piece in pieces]

    async def main() -> None:
        english = English(Speech(b"e\0"))
        any_ = Engine(Speech(b"a\0"), voices=("own", "de"))
        chain = FallbackTTS(members(english, any_), SETTINGS)
        assert [voice.id for voice in chain.voices] == ["own", "de"]
        for language in (None, "en", "EN-gb", "en_us"):
            assert await by(chain, "Hello", language) == [b"e"]
        for _ in range(2):
            assert await by(chain, "Hallo", "de-AT") == [b"a"]
        assert await by(chain, "Hello", "en", "de") == [b"a"]  # only that one has the voice
        mute = English(NoSound("cannot read this"))
        unable = FallbackTTS(members(mute, any_), SETTINGS)
        for _ in range(2):  # it is asked again: nothing is wrong with it
            assert await by(unable, "?", None) == [b"a"]
        assert mute.asked == [("?", "own")] * 2

    caplog.set_level(logging.INFO)
    run(main())
    assert caplog.messages[0] == "tts a does not know de-AT; b is used"
    assert caplog.messages[1:] == ["tts a failed: cannot read this; b takes over"] * 2


def test_model_that_one_engine_offers_puts_it_first() -> None:
    class Offers(Engine):
        def for_model(self, name: str) -> Any:
            return Engine(TextDelta("big"), ChatEnded()) if name == "big" else None

    async def main() -> None:
        chain = FallbackLLM(members(Engine(*SAYS), Offers(*SAYS)), SETTINGS)
        big = chain.for_model("big")
        assert big is not None
        assert (await answered(big))[0] == TextDelta("big")
        assert chain.for_model("huge") is None

    run(main())


def test_chains_pass_the_conformance_checks() -> None:
    async def main() -> None:
        engines = ScriptedEngines(stt={"hears_silence": False})
        stt = ScriptedSTT(engines.stt._script)
        llm = ScriptedLLM(engines.llm._script)
        tts = ScriptedTTS(engines.tts._script)
        await check_stt(FallbackSTT(members(stt, stt), SETTINGS))
        await check_llm(FallbackLLM(members(llm, llm), SETTINGS))
        await check_tts(FallbackTTS(members(tts, tts), SETTINGS))

    run(main())


@pytest.mark.parametrize(
    ("address", "cause"),
    [("http://no-such-host.invalid/v1", "not known to DNS"), ("https://127.0.0.1:1/v1", "refused")],
)
def test_server_that_cannot_be_reached_is_replaced(
    address: str, cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Remote(Engine):
        async def generate(self, request: ChatRequest) -> AsyncGenerator[ChatEvent]:
            server = RemoteServer(address, ServerKind("LLM", "text"), headers={})
            async with (
                HttpClient(server, connect_timeout_s=3.0) as client,
                client.request("GET", "models", timeouts=ResponseTimeouts(3.0, 3.0)),
            ):
                yield ChatEnded()

    async def main() -> None:
        assert await answered(FallbackLLM(members(Remote(), Engine(*SAYS)), SETTINGS)) == [*SAYS]

    asyncio.run(main())
    assert cause in caplog.text


def test_conversation_goes_on_with_the_next_engines_of_every_stage() -> None:
    engines = ScriptedEngines(stt={"transcripts": ["what time is it"]}, llm={"answers": ["Noon."]})
    cascade = replace(
        engines.cascade,
        stt=FallbackSTT(members(Engine(EngineLost("killed")), engines.stt), SETTINGS),
        llm=FallbackLLM(members(Engine(TextDelta("It is "), 60.0), engines.llm), SETTINGS),
        tts=FallbackTTS(members(Engine(60.0, voices=("alloy",)), engines.tts), SETTINGS),
    )
    catalog = ModelCatalog({"default": cascade}, "default")

    async def main() -> None:
        peer = RecordingPeer()
        session = Session(template(ServerVad()), MODELS, SessionLimits(), salt="t", now=0.0)
        runner = make_runner(session, peer, catalog)
        running = asyncio.create_task(runner.run())
        await asyncio.sleep(0)
        for turn in (1, 2):
            for fact in speech():
                runner.post(fact)
                await runner.wait_caught_up()
            await peer.until("response.done", turn)
        runner.post(Disconnected())
        await running
        assert peer.endings == [("completed", None)] * 2
        heard = [e.transcript for e in peer.events if isinstance(e, OutputTranscriptDone)]
        assert heard == ["It is Noon.", "Noon."]

    run(main())
