"""Spoken test audio, made by a voice of this machine: nothing recorded is part of the package.

`SpeechCache` speaks a text once and keeps it as a file. `make_clips` writes the clip library:
the situations that a voice application has to survive, in several voices. All audio in memory is
16-bit mono PCM at 24 kHz; the files are WAV.
"""

import asyncio
import hashlib
import threading
from collections.abc import Coroutine, Iterable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Final, NamedTuple, Self, TypeVar

import msgspec
import numpy as np
from platformdirs import user_cache_path

from vivavoce import __version__
from vivavoce.audio.formats import BYTES_PER_MS, RATE
from vivavoce.engines import registry
from vivavoce.engines.base import TTS
from vivavoce.errors import AudioError, EngineError, SettingsError
from vivavoce.media import files
from vivavoce.runtime.synthesis import Synthesis

T = TypeVar("T")
ENGINE: Final = "espeak"
"""The embedded voice."""
VOICES: Final = ("alloy", "echo", "shimmer")
"""The voices of the clip library if none are named."""
SPEED: Final = 0.9
"""At which the embedded recognisers understand the embedded voice best."""
TONE: Final = "tone"
"""In place of a voice: a tone as long as the text, which needs no engine."""
MS_PER_CHARACTER: Final = 40
"""The length of the tone that stands for a spoken text."""
SILENCE_MS: Final = 4_000
NOISE_SNR_DB: Final = 10.0
INDEX: Final = "index.json"
MAX_CLIP_SECONDS: Final = 600.0


def hum(milliseconds: int) -> bytes:
    """A tone that scripted engines take for speech."""
    at = np.arange(RATE * milliseconds // 1000) * (2 * np.pi * 200 / RATE)
    return bytes((np.sin(at) * 9_000).astype("<i2").data)


def tone(text: str) -> bytes:
    """The tone that stands for a spoken text."""
    return hum(len(text) * MS_PER_CHARACTER)


class SpeechCache:
    """Speech of one engine, each text spoken once and kept in a folder.

    An async context manager: the engine is started with the first text that is not there yet.
    """

    def __init__(self, engine: str = ENGINE, folder: Path | None = None) -> None:
        """folder: by default clips/ in the cache of this user."""
        self._engine = engine
        self._folder = folder or user_cache_path("vivavoce") / "clips"
        self._stack = AsyncExitStack()
        self._tts: TTS | None = None  # while it runs

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._tts = None
        await self._stack.aclose()

    async def speak(self, text: str, voice: str = "") -> bytes:
        """The text in that voice; "": the first of VOICES. TONE: a tone.

        Raises SettingsError: no such engine or voice; EngineError; AudioError: the folder cannot be
        written.
        """
        voice = voice or VOICES[0]
        if voice == TONE:
            return tone(text)
        key = "\0".join((__version__, self._engine, voice, str(SPEED), text))
        path = self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.wav"
        if path.is_file():
            return await asyncio.to_thread(files.read, path, max_seconds=MAX_CLIP_SECONDS)
        pcm = await self._synthesize(text, voice)
        await asyncio.to_thread(_write, path, pcm)
        return pcm

    async def _enter(self, engine: TTS) -> TTS:
        self._tts = await self._stack.enter_async_context(engine)
        return self._tts

    async def _synthesize(self, text: str, voice: str) -> bytes:
        tts = self._tts
        if tts is None:
            made = registry.create("tts", self._engine, {})
            tts = await self._enter(made)
        known = [each.id for each in tts.voices]
        if voice not in known:
            raise SettingsError(
                f"the engine {self._engine} has no voice {voice!r}; it has for example "
                f"{', '.join(known[:8])}"
            )
        pcm = bytearray()
        async with aclosing(Synthesis(tts, voice, speed=SPEED).text(text)) as pieces:
            async for piece in pieces:
                pcm += piece.audio
        return bytes(pcm)


def spoken(text: str, voice: str = "", engine: str = ENGINE) -> bytes:
    """Speak from anywhere, also from virtual time, in which no engine runs. Blocks its thread.

    Raises AssertionError, as the expectations of a test do: the voice cannot be used.
    """

    if voice == TONE:
        return tone(text)

    async def speak() -> bytes:
        async with SpeechCache(engine) as cache:
            return await cache.speak(text, voice)

    try:
        return _in_thread(speak())
    except (SettingsError, EngineError, AudioError) as exc:
        raise AssertionError(f"the user of the test cannot speak: {exc}") from exc


def _in_thread(work: Coroutine[object, object, T]) -> T:
    """The result of a coroutine that runs in a thread and an event loop of its own."""
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(asyncio.run(work))
        except BaseException as exc:  # noqa: BLE001  it is raised in the thread that waits
            failures.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def _write(path: Path, pcm: bytes) -> None:
    """Raises AudioError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise AudioError(f"the folder {path.parent} cannot be made: {exc.strerror}") from exc
    files.write_wav(path, pcm)


# --- the clip library


class ClipKind(NamedTuple):
    """One situation."""

    name: str
    text: str
    about: str


LIBRARY: Final = (
    ClipKind("normal", "What time does the museum open on Saturday?", "an ordinary question"),
    ClipKind(
        "noise",
        "What time does the museum open on Saturday?",
        f"the same question in noise, {NOISE_SNR_DB:g} dB below the voice",
    ),
    ClipKind(
        "interruption",
        "Wait, stop. That is not what I meant.",
        "for the middle of an answer",
    ),
    ClipKind(
        "unfinished",
        "I would like to book a table for",
        "a sentence that breaks off",
    ),
    ClipKind(
        "very_long",
        "I have a long story to tell you, so please listen until I have come to the end. "
        "Last week we wanted to visit the museum, and we had looked up the opening hours on the "
        "web page, and it said that it would be open until six in the evening. So we took the "
        "train at two, which was late, and then the bus, which was full, and when we came to the "
        "door at a quarter past four a sign said that it had closed at four because of a concert. "
        "We asked at the desk of the hotel across the street, and the man there said that this "
        "happens every month and that nobody ever changes the web page. We walked once around the "
        "building, looked through the windows, had a coffee, and went home again on the same bus. "
        "Now my mother wants to come along next Saturday, and she walks with a stick, so I would "
        "like to know for certain when you open, when you close, whether there is a lift, and "
        "whether we can have our money back if the doors are closed again.",
        "about a minute without a pause that ends the turn",
    ),
    ClipKind(
        "two_questions",
        "What does a ticket cost, and where can I park the car?",
        "two questions at once",
    ),
    ClipKind("silence", "", f"{SILENCE_MS} ms of digital silence; one file for all voices"),
)
KINDS: Final = {kind.name: kind for kind in LIBRARY}


class Clip(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the library."""

    file: str
    kind: str
    voice: str
    """"" of silence."""
    text: str
    """What a recogniser should hear."""
    seconds: float


class ClipIndex(msgspec.Struct, frozen=True, kw_only=True):
    """index.json of a clip library."""

    engine: str
    version: str
    clips: tuple[Clip, ...]


class ClipLibrary:
    """The clips in a folder that `vivavoce clips make` has written."""

    def __init__(self, folder: Path) -> None:
        """Raises AudioError: there is no library."""
        self._folder = folder
        try:
            self.index = msgspec.json.decode((folder / INDEX).read_bytes(), type=ClipIndex)
        except (OSError, msgspec.MsgspecError) as exc:
            raise AudioError(
                f"there is no clip library in {folder}; make one: vivavoce clips make {folder}"
            ) from exc

    def find(self, kind: str, voice: str = "") -> Clip:
        """The clip of that kind in that voice; "": the first. Raises AudioError."""
        for clip in self.index.clips:
            if clip.kind == kind and (not voice or clip.voice in (voice, "")):
                return clip
        there = ", ".join(sorted({clip.kind for clip in self.index.clips}))
        wanted = f"{kind!r} in the voice {voice!r}" if voice else repr(kind)
        raise AudioError(f"the clip library {self._folder} has no {wanted}; it has {there}")

    def pcm(self, clip: Clip) -> bytes:
        """The audio of a clip. Blocks. Raises AudioError."""
        return files.read(self._folder / clip.file, max_seconds=MAX_CLIP_SECONDS)


async def make_clips(
    folder: Path, voices: Iterable[str] = VOICES, engine: str = ENGINE
) -> ClipIndex:
    """Write the clip library: every kind in every voice. What is there already is replaced.

    Raises SettingsError: no such engine or voice; EngineError; AudioError: it cannot be written.
    """
    made: list[Clip] = []
    async with SpeechCache(engine) as cache:
        for kind in LIBRARY:
            for voice in voices if kind.text else ("",):
                speech = await cache.speak(kind.text, voice) if kind.text else b""
                pcm = treated(kind.name, speech)
                file = f"{kind.name}-{voice}.wav" if voice else f"{kind.name}.wav"
                await asyncio.to_thread(_write, folder / file, pcm)
                seconds = round(len(pcm) / BYTES_PER_MS / 1000, 2)
                made.append(
                    Clip(file=file, kind=kind.name, voice=voice, text=kind.text, seconds=seconds)
                )
    index = ClipIndex(engine=engine, version=__version__, clips=tuple(made))
    try:
        (folder / INDEX).write_bytes(msgspec.json.format(msgspec.json.encode(index)))
    except OSError as exc:
        raise AudioError(f"{folder / INDEX} cannot be written: {exc.strerror}") from exc
    return index


def treated(kind: str, speech: bytes) -> bytes:
    """The audio of a clip, from the speech of its text."""
    match kind:
        case "silence":
            return bytes(SILENCE_MS * BYTES_PER_MS)
        case "noise":
            return with_noise(speech, NOISE_SNR_DB)
        case _:
            return speech


def with_noise(pcm: bytes, snr_db: float) -> bytes:
    """Speech with pink noise (power 1/f) under it, the same noise each time.

    snr_db: power of the speech over that of the noise, both over the whole clip.
    """
    speech = np.frombuffer(pcm, "<i2").astype(np.float64)
    if not speech.size:
        return pcm
    white = np.random.default_rng(1).standard_normal(speech.size)
    spectrum = np.fft.rfft(white)
    spectrum[1:] /= np.sqrt(np.arange(1, spectrum.size))
    spectrum[0] = 0
    noise = np.fft.irfft(spectrum, speech.size)
    wanted = float(np.mean(speech**2)) / 10 ** (snr_db / 10)
    power = float(np.mean(noise**2))
    mixed = speech + noise * (np.sqrt(wanted / power) if power else 0.0)
    return bytes(np.clip(np.round(mixed), -32768, 32767).astype("<i2").data)
