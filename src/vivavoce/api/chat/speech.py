"""Answers that are spoken: a completion with its sound, whole or as it comes."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from vivavoce.api.chat.answers import SpokenAnswers
from vivavoce.api.chat.completion import CompletionChunk, Tell
from vivavoce.api.chat.sound import encoder, tell_length
from vivavoce.api.work import together
from vivavoce.audio.formats import RATE
from vivavoce.audio.resample import Resampler
from vivavoce.engines.base import TTS
from vivavoce.media.encoding import FileEncoder
from vivavoce.runtime.clauses import Clauses

CLAUSES_AHEAD = 32  # of one choice, thought of and not spoken yet; then the model waits
_PIECE_BYTES = RATE * 2  # most of one delta: a second of pcm16
_WHOLE_BYTES = 6  # three samples are eight base64 characters: joined deltas decode as one text


@dataclass(frozen=True, slots=True)
class SpeechOptions:
    """Who speaks, and what becomes of the sound."""

    tts: TTS
    voice: str
    format: str
    answers: SpokenAnswers

    async def say(self, clause: str) -> AsyncGenerator[bytes]:
        """PCM of a clause, in short pieces; nothing of one without a letter or digit."""
        if not any(c.isalnum() for c in clause):
            return
        resampler = Resampler(self.tts.sample_rate, RATE)
        step = self.tts.sample_rate // 4 * 2  # bytes of a quarter of a second
        async with aclosing(
            self.tts.synthesize(clause, voice=self.voice, speed=1.0, language=None, instructions="")
        ) as pieces:
            async for piece in pieces:
                for at in range(0, len(piece.audio), step):
                    yield resampler.feed(piece.audio[at : at + step])
                    await asyncio.sleep(0)  # to encode a long piece at once takes too long
        yield resampler.flush()


async def speak(completion: CompletionChunk, tongue: SpeechOptions) -> CompletionChunk:
    """The whole answer; the text of each choice has become audio. Raises EngineError."""
    async with together() as tasks:
        for choice in completion["choices"]:
            message = choice.get("message") if isinstance(choice, dict) else None
            if isinstance(message, dict) and _text(message):
                tasks.create_task(_speak_message(message, tongue))
    return completion


async def _speak_message(message: CompletionChunk, tongue: SpeechOptions) -> None:
    text = message["content"]
    cutter, file, sound = Clauses(), await encoder(tongue.format), bytearray()
    for clause in (*cutter.feed(text), cutter.flush()):
        async with aclosing(tongue.say(clause)) as pieces:
            async for pcm in pieces:
                sound += file.feed(pcm)
    sound += file.finish()
    if tongue.format == "wav":
        tell_length(sound)
    audio_id, expires_at = tongue.answers.begin()
    tongue.answers.add(audio_id, text)
    message["content"] = None
    message["audio"] = {
        "id": audio_id,
        "expires_at": expires_at,
        "data": b64encode(sound).decode(),
        "transcript": text,
    }


class StreamedSpeech:
    """Turns the chunks of an answer into chunks with audio, clause by clause.

    What is not text goes through at once. Why a choice ends is told after its last sound, what
    concerns all of them at the very end. `tell` is called by several tasks.
    """

    def __init__(self, tongue: SpeechOptions, tasks: asyncio.TaskGroup, tell: Tell) -> None:
        self._tongue = tongue
        self._tasks = tasks
        self._tell = tell
        self._mouths: dict[int, _ChoiceSpeaker] = {}
        self._speaking: list[asyncio.Task[None]] = []
        self._last: list[CompletionChunk] = []

    async def feed(self, chunk: CompletionChunk) -> None:
        """The next chunk of the answer. Waits where speech has fallen far behind."""
        head = {name: value for name, value in chunk.items() if name != "choices"}
        choices = chunk.get("choices") or ()
        if not choices:
            self._last.append(chunk)
            return
        passed = []
        for choice in choices:
            index = choice.get("index") or 0
            if index not in self._mouths:
                mouth = self._mouths[index] = _ChoiceSpeaker(self._tongue, self._tell, index, head)
                self._speaking.append(self._tasks.create_task(mouth.speak()))
            if rest := await self._mouths[index].take(choice, head):
                passed.append(rest)
        if passed:
            await self._tell({**head, "choices": passed})

    async def end(self) -> None:
        """That was the answer: say the rest of it."""
        for mouth in self._mouths.values():
            await mouth.close()
        if self._speaking:
            await asyncio.wait(self._speaking)
        for chunk in self._last:
            await self._tell(chunk)


class _ChoiceSpeaker:
    """Speaks one choice."""

    def __init__(
        self, tongue: SpeechOptions, tell: Tell, index: int, head: CompletionChunk
    ) -> None:
        self._tongue = tongue
        self._tell = tell
        self._index = index
        self._head = head
        self._cutter = Clauses()
        self._clauses: asyncio.Queue[str | None] = asyncio.Queue(CLAUSES_AHEAD)
        self._file: FileEncoder | None = None
        self._sound = bytearray()  # encoded, and not told yet
        self._audio_id = ""
        self._expires_at = 0
        self._finish: CompletionChunk | None = None  # the chunk that ends it

    async def take(self, choice: CompletionChunk, head: CompletionChunk) -> CompletionChunk | None:
        """Keep what is to be spoken, and the finish; what is left goes out at once."""
        delta = {k: v for k, v in (choice.get("delta") or {}).items() if v is not None}
        text = delta.pop("content", "")
        for clause in self._cutter.feed(text) if isinstance(text, str) else ():
            await self._clauses.put(clause)
        rest = {k: v for k, v in choice.items() if v is not None} | {"delta": delta}
        if choice.get("finish_reason"):
            self._finish = {**head, "choices": [rest]}
            return None
        rest["finish_reason"] = None
        return rest if delta or rest.keys() - {"index", "delta", "finish_reason"} else None

    async def close(self) -> None:
        if rest := self._cutter.flush():
            await self._clauses.put(rest)
        await self._clauses.put(None)

    async def speak(self) -> None:
        while (clause := await self._clauses.get()) is not None:
            await self._say(clause)
        if self._file is not None:
            self._sound += self._file.finish()
            await self._tell_sound(len(self._sound))
            await self._tell_audio({"expires_at": self._expires_at})
        if self._finish is not None:
            await self._tell(self._finish)

    async def _say(self, clause: str) -> None:
        if self._file is None and not clause.strip():
            return  # an answer of nothing but function calls is not spoken
        said: CompletionChunk = {"transcript": clause}
        if self._file is None:
            self._file = await encoder(self._tongue.format)
            self._audio_id, self._expires_at = self._tongue.answers.begin()
            said = {"id": self._audio_id, **said}
        self._tongue.answers.add(self._audio_id, clause)
        await self._tell_audio(said)
        async with aclosing(self._tongue.say(clause)) as pieces:
            async for pcm in pieces:
                self._sound += self._file.feed(pcm)
                await self._tell_sound(len(self._sound) // _WHOLE_BYTES * _WHOLE_BYTES)

    async def _tell_sound(self, size: int) -> None:
        for at in range(0, size, _PIECE_BYTES):
            piece = bytes(self._sound[at : min(at + _PIECE_BYTES, size)])
            await self._tell_audio({"data": b64encode(piece).decode()})
        del self._sound[:size]

    async def _tell_audio(self, audio: CompletionChunk) -> None:
        choice = {"index": self._index, "delta": {"audio": audio}, "finish_reason": None}
        await self._tell({**self._head, "choices": [choice]})


def _text(message: CompletionChunk) -> str:
    content = message.get("content")
    return content if isinstance(content, str) and content.strip() else ""
