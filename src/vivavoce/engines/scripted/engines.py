"""Engines that follow a script, for tests, demos and measurements. Deterministic.

They wait by asyncio.sleep alone, and only where the script says so; otherwise they let other tasks
run after every few steps. One engine serves many sessions, which share the script's order.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from vivavoce.engines.base import (
    BaseEngine,
    CallDelta,
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
    Word,
)
from vivavoce.engines.scripted.scripts import (
    LLMScript,
    ScriptedAnswer,
    ScriptedCall,
    ScriptedTranscript,
    SpeakerScript,
    STTScript,
    TTSScript,
    TurnScript,
    VADScript,
)
from vivavoce.errors import EngineError
from vivavoce.protocol.items import InputAudio, InputText, Item, Message

T = TypeVar("T")

_STEPS = 16  # taken at once before other tasks may run
_REMEMBERED = 20  # of the things that tests look up afterwards
_ARGUMENTS_CHUNK = 16  # characters, so that arguments come in pieces as they do from models
_WORD = re.compile(r"\S+")
_TOKEN = re.compile(r"\s*\S+\s*")


class ScriptedVAD(BaseEngine):
    """Speech is a window that has a loud sample."""

    Settings = VADScript
    max_batch = 512

    def __init__(self, settings: VADScript) -> None:
        self.sample_rate = settings.sample_rate
        self.window_samples = settings.window_samples
        self._level = settings.level
        self._free: list[int] = []
        self._opened = 0

    def open(self) -> int:
        if self._free:
            return self._free.pop()
        self._opened += 1
        return self._opened - 1

    def close(self, stream: int) -> None:
        self._free.append(stream)

    def score(self, windows: NDArray[np.float32], streams: NDArray[np.intp]) -> NDArray[np.float32]:
        """1.0 for a window that has a sample beyond the level, else 0.0."""
        peaks = np.maximum(windows.max(axis=1), -windows.min(axis=1))
        speech: NDArray[np.float32] = (peaks > self._level).astype(np.float32)
        return speech


class ScriptedTurn(BaseEngine):
    """Looks the transcript up in a table."""

    Settings = TurnScript

    def __init__(self, settings: TurnScript) -> None:
        self._script = settings
        self.asked: list[str] = []
        """The last texts it was given."""

    async def score(self, text: str, *, language: str | None) -> float:
        _remember(self.asked, text)
        await _until(_now() + self._script.delay_seconds)
        return self._script.table.get(text.strip(), self._script.default)


class ScriptedSpeaker(BaseEngine):
    """A voice is its loudest frequency: sounds less than 100 Hz apart are one."""

    Settings = SpeakerScript
    dimensions = 40
    window_ms = 1_000
    same_voice = same_windows = 0.5

    def __init__(self, settings: SpeakerScript) -> None:
        self.sample_rate = settings.sample_rate
        self._error = settings.error

    async def embed(self, clips: Sequence[bytes]) -> NDArray[np.float32]:
        """[n, 40]: 1 in the place of the loudest of bands of 100 Hz, else 0."""
        if self._error:
            raise EngineError(self._error)
        rows = np.zeros((len(clips), self.dimensions), np.float32)
        for row, clip in zip(rows, clips, strict=True):
            spectrum = np.abs(np.fft.rfft(np.frombuffer(clip, "<i2"), self.sample_rate))
            row[min(int(spectrum.argmax()) // 100, self.dimensions - 1)] = 1.0
        return rows


class ScriptedSTT(BaseEngine):
    """Gives the transcripts of the script, in the order in which the audio begins."""

    Settings = STTScript
    capabilities = Capabilities(word_times="estimated")

    def __init__(self, settings: STTScript) -> None:
        self.sample_rate = settings.sample_rate
        self.heard: list[int] = []
        """Samples of the last utterances whose audio ended."""
        self._script = settings
        self._played = 0

    async def transcribe(
        self, audio: AsyncIterator[bytes], *, language: str | None, prompt: str
    ) -> AsyncGenerator[Transcript]:
        utterance = self._next() if self._script.hears_silence else None
        samples = told = step = 0
        async for piece in audio:
            await _yield_now_and_then(step)
            step += 1
            samples += len(piece) // 2
            if utterance is None and piece.strip(b"\0"):
                utterance = self._next()
            if utterance is not None and utterance.partials:
                due = self._milliseconds(samples) // self._script.word_ms
                due = min(due, len(utterance.text.split()))
                if due > told:
                    told = due
                    yield self._partial(utterance.text, told)
        _remember(self.heard, samples)
        ended = _now()
        utterance = utterance or ScriptedTranscript()
        if utterance.stall:
            await _stall()
        await _until(ended + utterance.delay_seconds)
        if utterance.error is not None:
            raise EngineError(utterance.error)
        text = utterance.text
        words = self._words(text, self._milliseconds(samples))
        yield Transcript(text, len(text), final=True, words=words)

    def _next(self) -> ScriptedTranscript:
        script = self._script
        scripted = _pick(script.transcripts, self._played, script.repeat, "engines.stt.scripted")
        self._played += 1
        return ScriptedTranscript(scripted) if isinstance(scripted, str) else scripted

    def _partial(self, text: str, words: int) -> Transcript:
        ends = [match.end() for match in _WORD.finditer(text)]
        known = text[: ends[words - 1]]
        stable = ends[words - 2] if words > 1 else 0
        return Transcript(known, stable, words=self._words(known, words * self._script.word_ms))

    def _words(self, text: str, audio_ms: int) -> tuple[Word, ...]:
        words = _WORD.findall(text)
        if not words or not self._script.word_times:
            return ()
        each = min(self._script.word_ms, audio_ms // len(words))
        return tuple(
            Word(word, i * each, (i + 1) * each, self._script.logprob)
            for i, word in enumerate(words)
        )

    def _milliseconds(self, samples: int) -> int:
        return samples * 1000 // self.sample_rate


class ScriptedLLM(BaseEngine):
    """Gives the answers of the script, in the order of the requests."""

    Settings = LLMScript

    def __init__(self, settings: LLMScript) -> None:
        self.sees = settings.sees
        self.requests: list[ChatRequest] = []
        """The last requests."""
        self._script = settings
        self._played = 0
        self._calls = 0

    async def generate(self, request: ChatRequest) -> AsyncGenerator[ChatEvent]:
        _remember(self.requests, request)
        answer = self._next()
        tokens = _TOKEN.findall(answer.text + (last_user_text(request.items) * answer.echo))
        limit = request.max_output_tokens
        cut = limit is not None and len(tokens) > limit
        said = tokens[:limit] if cut else tokens
        failing = answer.stall or answer.error is not None
        if failing:
            said = said[: answer.fail_after_words]

        start = _now() + answer.first_token_seconds
        await _until(start)
        chunks = said if answer.chunk == "word" else ["".join(said)] * bool(said)
        for i, text in enumerate(chunks):
            await _pace(start, i, answer.tokens_per_second)
            yield TextDelta(text)
        if failing:
            await _fail(answer.error)
        if not cut:
            for index, call in enumerate(answer.calls):
                for event in self._call(index, call):
                    yield event
        yield ChatEnded("length" if cut else answer.reason, answer.usage)

    def _next(self) -> ScriptedAnswer:
        script = self._script
        scripted = _pick(script.answers, self._played, script.repeat, "engines.llm.scripted")
        self._played += 1
        return ScriptedAnswer(scripted) if isinstance(scripted, str) else scripted

    def _call(self, index: int, call: ScriptedCall) -> list[CallStarted | CallDelta]:
        self._calls += 1
        arguments = call.arguments
        if not isinstance(arguments, str):
            arguments = msgspec.json.encode(arguments).decode()
        return [
            CallStarted(index, call.call_id or f"call_{self._calls}", call.name),
            *(
                CallDelta(index, arguments[start : start + _ARGUMENTS_CHUNK])
                for start in range(0, len(arguments), _ARGUMENTS_CHUNK)
            ),
        ]


class ScriptedTTS(BaseEngine):
    """Hums for as long as the text would take."""

    Settings = TTSScript
    capabilities = Capabilities(word_times="exact")

    def __init__(self, settings: TTSScript) -> None:
        self.sample_rate = settings.sample_rate
        self.voices = tuple(Voice(name, (), "A hum.") for name in settings.voices)
        self.default_voice = settings.default_voice or settings.voices[0]
        self.spoken: list[tuple[str, str, float]] = []
        """Text, voice and speed of the last utterances."""
        self._script = settings
        self._hums: dict[str, bytes] = {}

    async def __aexit__(self, *exc: object) -> None:
        self._hums.clear()

    async def synthesize(
        self, text: str, *, voice: str, speed: float, language: str | None, instructions: str
    ) -> AsyncGenerator[Speech]:
        script = self._script
        if voice not in script.voices:
            raise EngineError(
                f"[engines.tts.scripted] no voice {voice!r}; there are: {', '.join(script.voices)}"
            )
        if speed <= 0:
            raise EngineError(f"[engines.tts.scripted] the speed is {speed}; it must be above 0")
        _remember(self.spoken, (text, voice, speed))
        per_character = script.ms_per_character * self.sample_rate / 1000 / speed
        whole = round(len(text) * per_character)
        failing = _holds(text, script.fail_on) or _holds(text, script.stall_on)
        end = min(whole, script.fail_after_ms * self.sample_rate // 1000) if failing else whole
        marks = _marks(text, per_character) if script.marks else []

        start = _now() + script.first_audio_seconds
        await _until(start)
        size = max(1, script.chunk_ms * self.sample_rate // 1000)
        marked = 0  # marks that were given
        for step, at in enumerate(range(0, end, size)):
            if script.realtime_factor:
                await _until(start + at / self.sample_rate * script.realtime_factor)
            await _yield_now_and_then(step)
            until = min(at + size, end)
            first = marked
            while marked < len(marks) and marks[marked].at < until:
                marked += 1
            yield Speech(self._audio(voice, at, until), tuple(marks[first:marked]))
        if failing:
            await _fail(
                f"[engines.tts.scripted] the script fails on {script.fail_on!r}"
                if _holds(text, script.fail_on)
                else None
            )

    def _audio(self, voice: str, start: int, end: int) -> bytes:
        hum = self._hums.get(voice)
        if hum is None:
            hum = self._hums[voice] = self._hum(self._script.voices.index(voice))
        begin, size = 2 * (start % self.sample_rate), 2 * (end - start)
        audio = hum[begin : begin + size]
        rest = size - len(audio)  # the hum is repeated only where a piece reaches beyond its end
        return audio + (hum * (1 + rest // len(hum)))[:rest] if rest else audio

    def _hum(self, number: int) -> bytes:
        """One second, which may follow itself: the pitch is a whole number. No sample is 0."""
        at = np.arange(self.sample_rate) * (2 * np.pi / self.sample_rate)
        wave = np.round(np.sin((120 + 10 * number) * at) * 12_000)
        wave[wave == 0] = 1
        return bytes(wave.astype("<i2").data)


def last_user_text(items: Sequence[Item]) -> str:
    """What the user wrote or said last; "" if nothing."""
    for item in reversed(items):
        if isinstance(item, Message) and item.role == "user":
            parts = (
                part.text if isinstance(part, InputText) else part.transcript
                for part in item.content
                if isinstance(part, InputText | InputAudio)
            )
            return " ".join(text for text in parts if text)
    return ""


def _marks(text: str, per_character: float) -> list[Mark]:
    return [
        Mark(int(match.start() * per_character), match.start(), match.end())
        for match in _WORD.finditer(text)
    ]


def _holds(text: str, part: str) -> bool:
    return bool(part) and part in text


def _pick(scripted: Sequence[T], played: int, repeat: bool, place: str) -> T:
    if played >= len(scripted) and not repeat:
        raise EngineError(f"[{place}] the script is at its end; lengthen it or set repeat = true")
    return scripted[played % len(scripted)]


def _remember(things: list[T], thing: T) -> None:
    things.append(thing)
    del things[:-_REMEMBERED]


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _until(when: float) -> None:
    seconds = when - _now()
    if seconds > 0:
        await asyncio.sleep(seconds)


async def _yield_now_and_then(step: int) -> None:
    if step % _STEPS == _STEPS - 1:
        await asyncio.sleep(0)


async def _pace(start: float, step: int, per_second: float) -> None:
    if per_second:
        await _until(start + step / per_second)
    await _yield_now_and_then(step)


async def _stall() -> None:
    await asyncio.Event().wait()


async def _fail(error: str | None) -> None:
    """Raise, or without an error wait to be cancelled."""
    if error is not None:
        raise EngineError(error)
    await _stall()
