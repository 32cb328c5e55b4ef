"""Sound in chat completions: recordings to PCM, answers to speech, whole or as they come."""

import asyncio
import secrets
import time
from base64 import b64decode, b64encode
from collections import OrderedDict
from collections.abc import Callable
from contextlib import aclosing
from io import BytesIO

import msgspec

from vivavoce.api.chat.completion import CompletionChunk, SendChunk
from vivavoce.audio.formats import RATE
from vivavoce.errors import AudioError
from vivavoce.media.decoding import Bounds, Raw, SoundFile
from vivavoce.media.encoding import FileEncoder, FileFormat
from vivavoce.runtime.clauses import Clauses
from vivavoce.runtime.concurrency import in_thread, task_group
from vivavoce.runtime.synthesis import Synthesis

ANSWER_KEPT_S = 3600
MAX_ANSWERS = 10_000
MAX_TRANSCRIPT_CHARACTERS = 8 << 20
"""Characters of all answers together."""
CLAUSES_AHEAD = 32  # of one choice, generated and not spoken yet; above that the model waits
ENCODED_MS = 250
"""Encoded at a time: 3 ms of work."""
_DELTA_BYTES = RATE * 2  # most of one delta: a second of pcm16
_ALIGNED_BYTES = 6  # three samples are eight base64 characters: joined deltas decode as one text
_DECODED_CHARACTERS = 1 << 20  # of base64 at a time: the interpreter lets others run in between
_UNCODED = ("pcm", "wav")


class _KeptAnswer(msgspec.Struct):
    expires_at: int
    transcript: str = ""


class SpokenAnswers:
    """Transcripts of answers with audio, so that a client can refer to them by id.

    The oldest are dropped when there are too many.
    """

    def __init__(
        self,
        *,
        kept_s: int = ANSWER_KEPT_S,
        max_answers: int = MAX_ANSWERS,
        max_characters: int = MAX_TRANSCRIPT_CHARACTERS,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._kept_s = kept_s
        self._max_answers = max_answers
        self._max_characters = max_characters
        self._wall_clock = wall_clock
        self._answers: OrderedDict[str, _KeptAnswer] = OrderedDict()
        self._characters = 0

    def begin(self) -> tuple[str, int]:
        """Id of a new answer, and the Unix time until which it is kept."""
        answer_id = f"audio_{secrets.token_hex(16)}"
        expires_at = int(self._wall_clock()) + self._kept_s
        self._answers[answer_id] = _KeptAnswer(expires_at)
        self._drop_old()
        return answer_id, expires_at

    def add(self, answer_id: str, text: str) -> None:
        """Append to the transcript of an answer."""
        if (answer := self._answers.get(answer_id)) is not None:
            answer.transcript += text
            self._characters += len(text)
            self._drop_old()

    def transcript(self, answer_id: str) -> str | None:
        """None: unknown, or expired."""
        self._drop_old()
        answer = self._answers.get(answer_id)
        return None if answer is None else answer.transcript

    def _drop_old(self) -> None:
        now = self._wall_clock()
        while self._answers:
            oldest = next(iter(self._answers.values()))
            too_many = (
                len(self._answers) > self._max_answers or self._characters > self._max_characters
            )
            if oldest.expires_at > now and not too_many:
                return
            self._answers.popitem(last=False)
            self._characters -= len(oldest.transcript)


def decoded(data: str, format_: str, *, rate: int, max_seconds: float) -> bytes:
    """PCM of that rate from a recording in base64 or a data URI. Blocks: call from a thread.

    The container is found in the bytes; only pcm16, which has none, must be declared. Raises
    AudioError.
    """
    file = SoundFile(
        BytesIO(_decoded_base64(data)),
        "the recording",
        raw=Raw() if format_ == "pcm16" else None,
        rate=rate,
        bounds=Bounds(max_seconds=max_seconds, silence=False),
    )
    return b"".join(file.pieces())


def _decoded_base64(data: str) -> bytes:
    if data.startswith("data:"):
        data = data.partition(",")[2]
    data = "".join(data.split())
    raw = bytearray()
    try:
        if "=" in data[:-2]:
            raise ValueError("base64 goes on after its end")
        for at in range(0, len(data), _DECODED_CHARACTERS):
            raw += b64decode(data[at : at + _DECODED_CHARACTERS], validate=True)
    except ValueError as exc:
        raise AudioError("the recording is not valid base64") from exc
    return bytes(raw)


class AnswerSpeech(msgspec.Struct, frozen=True):
    """How the answers to one request are spoken, and where their transcripts are kept."""

    synthesis: Synthesis
    format: str
    answers: SpokenAnswers

    async def encoder(self) -> FileEncoder:
        """The encoder for one answer.

        It is made in a thread, because FFmpeg takes a while to load.
        """
        kind: FileFormat = "pcm" if self.format == "pcm16" else self.format  # type: ignore[assignment]
        if kind in _UNCODED:
            return FileEncoder(kind)
        return await in_thread(FileEncoder, kind)


async def speak(completion: CompletionChunk, speech: AnswerSpeech) -> CompletionChunk:
    """The completion, in which audio replaces the text of each choice. Raises EngineError."""
    async with task_group() as tasks:
        for choice in completion["choices"]:
            message = choice.get("message") if isinstance(choice, dict) else None
            if isinstance(message, dict) and _text(message):
                tasks.create_task(_speak_message(message, speech))
    return completion


async def _speak_message(message: CompletionChunk, speech: AnswerSpeech) -> None:
    text = message["content"]
    encoder, file = await speech.encoder(), bytearray()
    async with aclosing(speech.synthesis.text(text)) as pieces:
        async for piece in pieces:
            file += encoder.feed(piece.audio)
    file += encoder.finish()
    encoder.write_length(file)
    audio_id, expires_at = speech.answers.begin()
    speech.answers.add(audio_id, text)
    message["content"] = None
    message["audio"] = {
        "id": audio_id,
        "expires_at": expires_at,
        "data": b64encode(file).decode(),
        "transcript": text,
    }


def _text(message: CompletionChunk) -> str:
    content = message.get("content")
    return content if isinstance(content, str) and content.strip() else ""


class StreamedSpeech:
    """Turns the chunks of an answer into chunks with audio, clause by clause.

    What is not text is sent at once; the finish reason of a choice after its last audio; chunks
    without choices at the very end. `send` is called by several tasks.
    """

    def __init__(self, speech: AnswerSpeech, tasks: asyncio.TaskGroup, send: SendChunk) -> None:
        self._speech = speech
        self._tasks = tasks
        self._send = send
        self._speakers: dict[int, _ChoiceSpeaker] = {}
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
            if index not in self._speakers:
                speaker = _ChoiceSpeaker(self._speech, self._send, index, head)
                self._speakers[index] = speaker
                self._speaking.append(self._tasks.create_task(speaker.run()))
            if rest := await self._speakers[index].take(choice, head):
                passed.append(rest)
        if passed:
            await self._send({**head, "choices": passed})

    async def end(self) -> None:
        """The answer is complete: speak the rest of it."""
        for speaker in self._speakers.values():
            await speaker.close()
        if self._speaking:
            await asyncio.wait(self._speaking)
        for chunk in self._last:
            await self._send(chunk)


class _ChoiceSpeaker:
    """Speaks one choice."""

    def __init__(
        self, speech: AnswerSpeech, send: SendChunk, index: int, head: CompletionChunk
    ) -> None:
        self._speech = speech
        self._send = send
        self._index = index
        self._head = head
        self._cutter = Clauses()
        self._clauses: asyncio.Queue[str | None] = asyncio.Queue(CLAUSES_AHEAD)
        self._encoder: FileEncoder | None = None
        self._unsent = bytearray()  # encoded
        self._audio_id = ""
        self._expires_at = 0
        self._finish: CompletionChunk | None = None  # the chunk that ends it

    async def take(self, choice: CompletionChunk, head: CompletionChunk) -> CompletionChunk | None:
        """Keep the text that is to be spoken, and the finish; return the rest, which is sent at
        once."""
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
        """No more text will come."""
        if rest := self._cutter.flush():
            await self._clauses.put(rest)
        await self._clauses.put(None)

    async def run(self) -> None:
        while (clause := await self._clauses.get()) is not None:
            await self._speak(clause)
        if self._encoder is not None:
            self._unsent += self._encoder.finish()
            await self._send_encoded(len(self._unsent))
            await self._send_audio({"expires_at": self._expires_at})
        if self._finish is not None:
            await self._send(self._finish)

    async def _speak(self, clause: str) -> None:
        if self._encoder is None and not clause.strip():
            return  # an answer of nothing but function calls is not spoken
        audio: CompletionChunk = {"transcript": clause}
        if self._encoder is None:
            self._encoder = await self._speech.encoder()
            self._audio_id, self._expires_at = self._speech.answers.begin()
            audio = {"id": self._audio_id, **audio}
        self._speech.answers.add(self._audio_id, clause)
        await self._send_audio(audio)
        async with aclosing(self._speech.synthesis.clause(clause)) as pieces:
            async for piece in pieces:
                self._unsent += self._encoder.feed(piece.audio)
                await self._send_encoded(len(self._unsent) // _ALIGNED_BYTES * _ALIGNED_BYTES)

    async def _send_encoded(self, size: int) -> None:
        for at in range(0, size, _DELTA_BYTES):
            data = bytes(self._unsent[at : min(at + _DELTA_BYTES, size)])
            await self._send_audio({"data": b64encode(data).decode()})
        del self._unsent[:size]

    async def _send_audio(self, audio: CompletionChunk) -> None:
        choice = {"index": self._index, "delta": {"audio": audio}, "finish_reason": None}
        await self._send({**self._head, "choices": [choice]})
