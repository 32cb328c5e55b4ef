"""A client's name of a model: which engine serves it, and when that is loaded and given back."""

import asyncio
from dataclasses import replace
from typing import Any, Self

import pytest

from tests.runtime.stage import ScriptedEngines
from vivavoce.engines.base import BaseEngine, Transcript, Voice
from vivavoce.errors import EngineError, SettingsError
from vivavoce.runtime.catalog import Cascade
from vivavoce.runtime.chains import FallbackSTT
from vivavoce.runtime.choice import RETRY_S, EngineChoice, EngineMatch, OnDemandEngine
from vivavoce.session.facts import Stage
from vivavoce.testing import run


class Named(BaseEngine):
    """An engine that is known by its name."""

    sample_rate = 16_000
    default_voice = "own"
    voices = (Voice("own", ()), Voice("heart", ()))

    def __init__(self, name: str = "", *, offers: str = "", fails: str = "") -> None:
        self.name = name
        self.offers = offers
        self.fails = fails
        self.entered = 0
        self.left = asyncio.Event()

    async def __aenter__(self) -> Self:
        if self.fails:
            raise EngineError(self.fails)
        self.entered += 1
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.entered -= 1
        self.left.set()

    def for_model(self, name: str) -> Any:
        return Named(name) if name and name == self.offers else None

    async def transcribe(self, audio: Any, *, language: Any, prompt: str) -> Any:
        yield Transcript(self.name, final=True)


class Source:
    """Engines by name."""

    def __init__(self, **engines: Any) -> None:
        self.engines = engines
        self.asked: list[tuple[str, bool]] = []

    def find(self, stage: Stage, name: str, *, alias: bool) -> EngineMatch | None:
        self.asked.append((name, alias))
        found = self.engines.get(name)
        if isinstance(found, OnDemandEngine):
            return EngineMatch(name, found.engine, found, other=True) if found.usable else None
        return EngineMatch(name, found, other=True) if found else None


def cascade(choice: EngineChoice, **engines: Any) -> Cascade:
    return replace(
        ScriptedEngines().cascade,
        **engines,
        names={"stt": "local", "llm": "brain", "tts": "mouth"},
        choice=choice,
    )


async def recogniser(cascade: Cascade, asked: str) -> Any:
    """The engine that is used for a name, without those that would take over."""
    async with cascade.use_stt(asked) as stt:
        return stt.members[0].engine if isinstance(stt, FallbackSTT) else stt


def test_name_that_nothing_has_is_served_by_the_engine_of_the_conversation() -> None:
    async def main() -> None:
        own = Named("own")
        made = cascade(EngineChoice(source=Source()), stt=own)
        for asked in ("", "local", "unheard-of"):
            assert await recogniser(made, asked) is own
            assert made.transcription_model(asked) == "local"

    run(main())


def test_model_that_the_own_engine_offers_comes_before_all_others() -> None:
    async def main() -> None:
        other = Named("other")
        made = cascade(EngineChoice(source=Source(big=other)), stt=Named("own", offers="big"))
        assert made.transcription_model("big") == "big"
        assert (await recogniser(made, "big")).name == "big"
        assert await recogniser(made, "big") is not other

    run(main())


def test_other_engine_of_the_settings_serves_with_the_own_one_behind_it() -> None:
    async def main() -> None:
        other, own = Named("other"), Named("own")
        made = cascade(EngineChoice(source=Source(other=other)), stt=own)
        async with made.use_stt("other") as stt:
            assert isinstance(stt, FallbackSTT)
            assert [str(member.engine) for member in stt.members] == [str(other), str(own)]
            first = stt.members[0]
        async with made.use_stt("other") as stt:
            assert isinstance(stt, FallbackSTT)
            assert stt.members[0] is first  # what it has failed at is remembered

    run(main())


def test_alias_stands_for_the_first_of_its_names_that_is_there() -> None:
    async def main() -> None:
        source = Source(small=Named("small"))
        aliases = {"whisper-1": ("large", "small", "default"), "tts-1": ("default", "small")}
        made = cascade(EngineChoice(aliases, source))
        assert made.transcription_model("whisper-1") == "small"
        assert source.asked == [("whisper-1", False), ("large", True), ("small", True)]
        assert made.transcription_model("tts-1") == "local"
        assert made.choice.model("whisper-1") == "large"
        assert made.choice.model("gpt-x") == "gpt-x"

    run(main())


def test_alias_of_a_voice_stands_for_one_that_the_synthesiser_has() -> None:
    async def main() -> None:
        aliases = {"af_heart": ("nobody", "heart")}
        made = cascade(EngineChoice(aliases, Source(other=Named("other"))))
        async with made.use_tts("other") as tts:
            assert made.voice_of(tts, "af_heart") == "heart"
            assert made.voice_of(tts, "nobody") == "own"
            assert made.voice_of(tts, "marin") == "own"  # only that of the conversation has it
        assert made.voice("af_heart", "other") == "heart"
        assert made.speech_model("other") == "other"

    run(main())


def test_engine_on_demand_is_loaded_once_and_given_back_when_idle() -> None:
    async def main() -> None:
        made: list[Named] = []

        def make() -> Named:
            made.append(Named("late"))
            return made[-1]

        demand = OnDemandEngine("stt", "late", make, idle_s=0.01)
        async with demand.use() as first, demand.use() as second:
            assert first is second is made[0] is demand.engine
            assert demand.users == 2
            await asyncio.sleep(0.03)
            assert made[0].entered == 1  # it is used
        async with asyncio.timeout(5):
            await made[0].left.wait()
        assert demand.engine is None
        async with demand.use() as again:
            assert again is made[1]
        await demand.unload()
        assert made[1].entered == 0

    asyncio.run(main())


def test_engine_on_demand_without_a_limit_stays_until_it_is_unloaded() -> None:
    async def main() -> None:
        engine = Named()
        demand = OnDemandEngine("stt", "late", lambda: engine, idle_s=0)
        await demand.unload()
        await demand.load()
        assert engine.entered
        await demand.unload()
        assert not engine.entered

    asyncio.run(main())


@pytest.mark.parametrize("error", [SettingsError, EngineError])
def test_engine_that_cannot_be_loaded_is_replaced_and_not_tried_at_once(
    error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        def make() -> Named:
            raise error("[engines.stt.late] no weights; pull them")

        demand = OnDemandEngine("stt", "late", make)
        own = Named("own")
        made = cascade(EngineChoice(source=Source(late=demand)), stt=own)
        assert made.transcription_model("late") == "late"
        assert made.voice("any", "late") == "any"  # its voices are not known yet
        assert await recogniser(made, "late") is own
        assert "stt late failed: [engines.stt.late] no weights; pull them; local" in caplog.text
        assert made.transcription_model("late") == "local"
        assert RETRY_S > 0

    asyncio.run(main())


def test_engine_that_loads_too_long_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Named):
        async def __aenter__(self) -> Self:
            await asyncio.Event().wait()
            return self

    async def main() -> None:
        monkeypatch.setattr("vivavoce.runtime.choice.LOAD_TIMEOUT_S", 0.01)
        demand = OnDemandEngine("stt", "slow", Slow)
        with pytest.raises(EngineError, match="slow was not loaded within"):
            await demand.load()
        await demand.unload()

    asyncio.run(main())
