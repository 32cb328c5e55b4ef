"""The clip library, the cache of spoken texts, and the words of transcripts."""

import asyncio
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from vivavoce.errors import AudioError, SettingsError
from vivavoce.talk.turn import level_db
from vivavoce.testing import clips, run
from vivavoce.testing.clips import ClipLibrary, SpeechCache, make_clips, spoken, with_noise
from vivavoce.testing.fake_server import FakeServer
from vivavoce.testing.words import has_words, word_error_rate, words_of

needs_voice = pytest.mark.skipif(
    find_spec("espeakng_loader") is None, reason="espeakng-loader is not installed"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "user_cache_path", lambda name: tmp_path / "cache" / name)


@needs_voice
def test_clip_library_has_every_kind_in_every_voice(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    index = asyncio.run(make_clips(folder, ("alloy", "echo")))
    assert len(index.clips) == 2 * 6 + 1
    library = ClipLibrary(folder)
    plain, noisy = (library.pcm(library.find(kind, "echo")) for kind in ("normal", "noise"))
    assert len(plain) == len(noisy)
    difference = np.frombuffer(noisy, "<i2").astype(int) - np.frombuffer(plain, "<i2")
    noise = difference.astype("<i2").tobytes()
    assert level_db(plain) - level_db(noise) == pytest.approx(clips.NOISE_SNR_DB, abs=0.3)
    assert not any(library.pcm(library.find("silence", "echo")))
    assert library.find("very_long").seconds > 30
    assert library.find("interruption").voice == "alloy"
    with pytest.raises(AudioError, match=r"has no 'normal' in the voice 'onyx'; it has interr"):
        library.find("normal", "onyx")


@needs_voice
def test_text_is_spoken_once_and_then_read_from_the_cache(tmp_path: Path) -> None:
    first = spoken("Hello there.", "alloy")
    files = list((tmp_path / "cache").rglob("*.wav"))
    assert len(files) == 1
    changed = files[0].stat().st_mtime_ns
    assert spoken("Hello there.", "alloy") == first
    assert spoken("Hello there.", "echo") != first
    assert files[0].stat().st_mtime_ns == changed
    with pytest.raises(AssertionError, match=r"cannot speak: the engine espeak has no voice 'bob'"):
        spoken("Hello there.", "bob")


@needs_voice
def test_user_with_a_real_voice_is_heard_in_virtual_time() -> None:
    async def main() -> float:
        async with FakeServer().running(listen=False) as fake, fake.connect():
            fake.user.set_voice("alloy")
            fake.answers("It opens at ten.")
            await fake.user.says("When does the museum open?")
            await fake.expect.heard("when does the museum open")
            await fake.expect.said("it opens at ten")
            return asyncio.get_running_loop().time()

    assert run(main()) < 5


def test_unknown_engine_of_a_voice_is_refused() -> None:
    async def main() -> None:
        async with SpeechCache("no-such-engine") as cache:
            await cache.speak("Hello.")

    with pytest.raises(SettingsError, match="no-such-engine"):
        asyncio.run(main())


def test_folder_without_a_clip_library_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"make one: vivavoce clips make"):
        ClipLibrary(tmp_path)


def test_noise_on_no_sound_is_no_sound() -> None:
    assert with_noise(b"", 10) == b""


@pytest.mark.parametrize(
    ("wanted", "heard", "rate"),
    [
        ("It is twenty-one degrees.", "it is 21 degrees", 0.0),
        ("the cat sat", "the cat sat down", 1 / 3),
        ("the cat sat", "a cat", 2 / 3),
        ("the cat sat", "", 1.0),
        ("", "", 0.0),
        ("", "uh", 1.0),
        ("Café, s'il vous plaît", "cafe s'il vous plait", 0.0),
    ],
)
def test_word_error_rate_is_the_edit_distance_of_words(
    wanted: str, heard: str, rate: float
) -> None:
    assert word_error_rate(wanted, heard) == pytest.approx(rate)


def test_words_are_found_whole_and_in_order() -> None:
    assert has_words("In Rome it is sunny, 21 degrees.", "twenty-one degrees")
    assert not has_words("It is sunny.", "sun")
    assert words_of("120,300 or 1007")[-3:] == ["one", "thousand", "seven"]
    assert words_of("Don\u2019t go!") == ["don't", "go"]
