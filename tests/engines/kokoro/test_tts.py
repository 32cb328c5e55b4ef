"""Kokoro with its real weights: `vivavoce models pull kokoro-82m`."""

import asyncio
from pathlib import Path

import pytest

from vivavoce.engines.kokoro.tts import (
    ALIASES,
    OWN_VOICES,
    PACK,
    KokoroSettings,
    KokoroTTS,
)
from vivavoce.engines.packs import manifest, problem_of
from vivavoce.errors import EngineError
from vivavoce.testing.conformance import check_tts

pulled = pytest.mark.skipif(problem_of(PACK) is not None, reason=f"{PACK} is not installed")


@pulled
@pytest.mark.timeout(300)
def test_kokoro_conforms_to_the_contract() -> None:
    async def main() -> None:
        async with KokoroTTS(KokoroSettings(start_seconds=120)) as engine:
            await check_tts(engine, "Yes, it is. No, it is not. It may be so, one day.")

    asyncio.run(main())


@pulled
@pytest.mark.timeout(120)
def test_voice_of_another_language_speaks_it() -> None:
    async def main() -> int:
        async with KokoroTTS(KokoroSettings(start_seconds=120)) as engine:
            spoken = engine.synthesize(
                "Hola, buenos d\u00edas.",
                voice="ef_dora",
                speed=1.0,
                language="es",
                instructions="",
            )
            return sum([len(piece.audio) async for piece in spoken])

    pytest.importorskip("espeakng_loader")
    assert 24_000 < asyncio.run(main()) < 4 * 48_000


def test_language_is_that_of_the_request_where_kokoro_speaks_it_else_of_the_voice() -> None:
    engine = KokoroTTS(KokoroSettings())
    asked = [
        engine.request("x", voice, 3.0, language)
        for voice, language in (
            ("af_heart", None),
            ("bm_george", "en"),
            ("af_heart", "fr-FR"),
            ("ef_dora", "ja"),
            ("nova", "en-us"),
        )
    ]
    assert [each.language for each in asked] == ["en-us", "en-gb", "fr", "es", "en-us"]
    assert asked[-1].voice == "af_nova"
    assert asked[0].speed == 2.0


def test_voices_are_those_of_the_pack() -> None:
    files = manifest()[PACK].files
    assert {f"{voice}.bin" for voice in OWN_VOICES} <= set(files)
    assert set(ALIASES.values()) <= set(OWN_VOICES)


def test_folder_without_the_voice_is_refused_with_the_place(tmp_path: Path) -> None:
    async def enter() -> None:
        async with KokoroTTS(KokoroSettings(model=str(tmp_path))):
            pass

    with pytest.raises(EngineError, match=r"holds no Kokoro model: there is no model\.onnx"):
        asyncio.run(enter())
