"""The chains of engines of each stage: recognition, language model, synthesis."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import msgspec

from vivavoce.audio.resample import Resampler
from vivavoce.engines.base import (
    LLM,
    STT,
    TTS,
    CallStarted,
    ChatEvent,
    ChatRequest,
    Mark,
    Speech,
    TextDelta,
    Transcript,
    streaming,
)
from vivavoce.errors import EngineError
from vivavoce.protocol.items import Message, OutputText
from vivavoce.runtime.fallback import (
    Begun,
    Chain,
    FallbackSettings,
    KeptAudio,
    Member,
    Race,
    following,
    knows_language,
    tries_of,
)
from vivavoce.runtime.text_stream import KeptText, speech_of
from vivavoce.session.word_timing import MS_PER_CHARACTER

log = logging.getLogger(__name__)

MIN_OWED_CHARACTERS = 40
"""If a text is shorter and not complete, an engine may wait for more of it."""
CONTINUE = (
    "Your last message was cut off by a fault. Continue it from exactly where it ends. "
    "Do not repeat anything of it and do not mention the fault."
)


class FallbackSTT(Chain[STT]):
    """Recognisers. The next one gets the audio from the start of the utterance."""

    stage = "stt"

    def __init__(self, members: Sequence[Member[STT]], settings: FallbackSettings) -> None:
        super().__init__(members, settings)
        self.sample_rate = members[0].engine.sample_rate

    async def transcribe(
        self, audio: AsyncIterator[bytes], *, language: str | None, prompt: str
    ) -> AsyncGenerator[Transcript]:
        """As in base.STT."""
        async with KeptAudio(audio) as kept:
            stable, final = "", False
            order = await self._order_for(kept, language)
            while not final:
                member = order.pop(0)
                again = member.engine.transcribe(
                    self._audio(kept, member), language=language, prompt=prompt
                )
                again = self.watched(member, again, kept)
                try:
                    async with aclosing(again), aclosing(self._timed(again, kept, member)) as heard:
                        async for transcript in heard:
                            merged = _continued(stable, transcript)
                            stable, final = merged.text[: merged.stable], merged.final
                            yield merged
                    if not final:
                        raise EngineError(f"{member.name} ended without a result")
                    self.succeed(member)
                except EngineError as exc:
                    self.fail(member, exc, order)
                    if final:
                        return
                    if not order:
                        raise
                    if not kept.is_whole:
                        raise EngineError(
                            f"{exc}; the utterance was too long to be heard once more"
                        ) from exc

    async def _order_for(self, kept: KeptAudio, language: str | None) -> list[Member[STT]]:
        """See in_order()."""
        return self.in_order(language)

    async def _audio(self, kept: KeptAudio, member: Member[STT]) -> AsyncGenerator[bytes]:
        resampler = Resampler(self.sample_rate, member.engine.sample_rate)
        async with aclosing(kept.pieces()) as pieces:
            async for piece in pieces:
                if made := resampler.feed(piece):
                    yield made
        if rest := resampler.flush():
            yield rest

    async def _timed(
        self, transcripts: AsyncGenerator[Transcript], kept: KeptAudio, member: Member[STT]
    ) -> AsyncGenerator[Transcript]:
        """Raises EngineError: nothing came for stt_seconds after the end of the audio."""
        seconds = self.settings.stt_seconds * tries_of(member.engine)
        while True:
            waiting = asyncio.ensure_future(anext(transcripts, None))
            ended = asyncio.ensure_future(kept.ended.wait())
            try:
                await asyncio.wait((waiting, ended), return_when=asyncio.FIRST_COMPLETED)
                await asyncio.wait((waiting,), timeout=seconds)
                if not waiting.done():
                    raise self.late(member, seconds)
                transcript = waiting.result()
            finally:
                for task in (waiting, ended):
                    task.cancel()
                await asyncio.wait((waiting, ended))
            if transcript is None:
                return
            yield transcript


class FallbackLLM(Chain[LLM]):
    """Language models; the next one continues the answer where the last one stopped."""

    stage = "llm"

    def __init__(self, members: Sequence[Member[LLM]], settings: FallbackSettings) -> None:
        super().__init__(members, settings)
        self.sees = members[0].engine.sees

    async def generate(self, request: ChatRequest) -> AsyncGenerator[ChatEvent]:
        """As in base.LLM. A failure after the start of a function call ends the answer."""
        conversation = request.conversation_id
        said, order = "", self.in_order(conversation=conversation)
        while True:
            asked = _continuation(request, said) if said else request

            def begin(member: Member[LLM], asked: ChatRequest = asked) -> AsyncGenerator[ChatEvent]:
                return self.watched(member, member.engine.generate(asked))

            async with Race(self, begin, order, self.settings.llm_seconds) as race:
                begun = await race.first()
                self.note_conversation(begun.member, conversation)
                order, called, continued = race.rest, False, bool(said)
                try:
                    async with aclosing(self._events(begun)) as events:
                        async for event in events:
                            called = called or isinstance(event, CallStarted)
                            if isinstance(event, TextDelta):
                                event = TextDelta(_joined(said, event.text, continued))
                                said, continued = said + event.text, False
                            yield event
                    return
                except EngineError as exc:
                    self.fail(begun.member, exc, order)
                    if called or not order:
                        raise EngineError(str(exc)) from exc

    def _events(self, begun: Begun[LLM, ChatEvent]) -> AsyncGenerator[ChatEvent]:
        return following(self, begun, self.settings.gap_seconds)


class FallbackTTS(Chain[TTS]):
    """Synthesisers.

    The next one speaks the rest of the clause, with another voice if it does not have the requested
    one. Engines that speak the language come first, and among them those that have the voice. The
    voices are those of all; the first engine's own come first.
    """

    stage = "tts"

    def __init__(self, members: Sequence[Member[TTS]], settings: FallbackSettings) -> None:
        super().__init__(members, settings)
        first = members[0].engine
        self.sample_rate = first.sample_rate
        voices = {voice.id: voice for member in members for voice in member.engine.voices}
        voices |= {voice.id: voice for voice in first.voices}
        self.voices = tuple(voices.values())
        self.default_voice = first.default_voice

    async def synthesize(
        self, text: str, *, voice: str, speed: float, language: str | None, instructions: str
    ) -> AsyncGenerator[Speech]:
        """As in base.TTS."""
        how: Any = {"speed": speed, "language": language, "instructions": instructions}

        def begin(member: Member[TTS]) -> AsyncGenerator[Speech]:
            voiced = self._voice(member, voice)
            made = member.engine.synthesize(text[spoken.at :], voice=voiced, **how)
            return self.watched(member, made)

        async def goes_on(at: int) -> bool:
            return bool(text[at:].strip())

        def follow(begun: Begun[TTS, Speech]) -> AsyncGenerator[Speech]:
            return following(self, begun, self.settings.gap_seconds)

        order = self._order_for(voice, language)
        spoken = _Spoken(self, lambda: text, speed)
        async with aclosing(self._speak(order, spoken, begin, follow, goes_on)) as speech:
            async for piece in speech:
                yield piece

    @property
    def streams_text(self) -> bool:
        """Whether the first engine accepts text as it is generated; the others may speak piece by
        piece."""
        return streaming(self.members[0].engine) is not None

    async def synthesize_stream(
        self,
        pieces: AsyncIterator[str],
        *,
        voice: str,
        speed: float,
        language: str | None,
        instructions: str,
    ) -> AsyncGenerator[Speech]:
        """As in base.StreamingTTS."""
        how: Any = {"speed": speed, "language": language, "instructions": instructions}
        async with KeptText(pieces) as kept:

            def begin(member: Member[TTS]) -> AsyncGenerator[Speech]:
                voiced = self._voice(member, voice)
                made = speech_of(member.engine, kept.pieces(spoken.at), voice=voiced, **how)
                return self.watched(member, made)

            def follow(begun: Begun[TTS, Speech]) -> AsyncGenerator[Speech]:
                return self._following_text(begun, kept)

            order = self._order_for(voice, language)
            if not await kept.reaches():
                return
            spoken = _Spoken(self, lambda: kept.text, speed)
            async with aclosing(self._speak(order, spoken, begin, follow, kept.reaches)) as speech:
                async for piece in speech:
                    yield piece

    def _voice(self, member: Member[TTS], voice: str) -> str:
        """The voice, or the engine's own if it does not have it."""
        known = {each.id for each in member.engine.voices}
        return voice if voice in known else member.engine.default_voice

    async def _speak(
        self,
        order: list[Member[TTS]],
        spoken: "_Spoken",
        begin: Callable[[Member[TTS]], AsyncGenerator[Speech]],
        follow: Callable[[Begun[TTS, Speech]], AsyncGenerator[Speech]],
        goes_on: Callable[[int], Awaitable[bool]],
    ) -> AsyncGenerator[Speech]:
        """The speech of a text by one engine after another, each from where the last one stopped.

        begin: an engine's speech from `spoken.at` on. follow: all of a stream that has begun.
        goes_on: whether the text has words after a character.
        """
        while await goes_on(spoken.at):
            async with Race(self, begin, order, self.settings.tts_seconds) as race:
                begun = await race.first()
                order = race.rest
                spoken.begin(begun.member.engine.sample_rate)
                try:
                    async with aclosing(follow(begun)) as pieces:
                        async for piece in pieces:
                            yield spoken.take(piece)
                    if rest := spoken.flush():
                        yield Speech(rest)
                    return
                except EngineError as exc:
                    self.fail(begun.member, exc, order)
                    if not order:
                        raise EngineError(str(exc)) from exc
                    spoken.stop()

    async def _following_text(
        self, begun: Begun[TTS, Speech], kept: KeptText
    ) -> AsyncGenerator[Speech]:
        """All output of an engine that gets its text as it is generated.

        Raises EngineError: it fails, or gives nothing for gap_seconds although it has text to
        speak.
        """
        clock = asyncio.get_running_loop().time
        seconds = self.settings.gap_seconds * tries_of(begun.member.engine)
        piece = begun.first
        while piece is not None:
            yield piece
            given, known = clock(), len(kept.text)
            coming = asyncio.ensure_future(anext(begun.stream, None))
            try:
                while not coming.done():
                    owes = kept.ended or len(kept.text) - known >= MIN_OWED_CHARACTERS
                    due = max(given, kept.changed_at) + seconds
                    if owes and clock() >= due:
                        raise self.late(begun.member, seconds)
                    more = asyncio.ensure_future(kept.changed())
                    try:
                        await asyncio.wait(
                            (coming, more),
                            timeout=due - clock() if owes else None,
                            return_when=asyncio.FIRST_COMPLETED,
                        )
                    finally:
                        more.cancel()
                        await asyncio.wait((more,))
                piece = coming.result()
            finally:
                coming.cancel()
                await asyncio.wait((coming,))

    def _order_for(self, voice: str, language: str | None) -> list[Member[TTS]]:
        """The engines in order: those that work first, among them those that speak the language,
        then those that have the voice. Raises EngineError: none has the voice.
        """
        if voice not in {known.id for known in self.voices}:
            raise EngineError(f"there is no voice {voice!r} of {self.members[0].name}")
        now = asyncio.get_running_loop().time()

        def unfitness(member: Member[TTS]) -> tuple[bool, bool, bool]:
            known = any(each.id == voice for each in member.engine.voices)
            fits = knows_language(member.engine, language)
            return not self._works(member, now), not fits, not known

        order = sorted(self.preferred(now), key=unfitness)
        self.say_language(language, order[0])
        return order


class _Spoken:
    """What was spoken of a text so far: audio at the rate of the chain."""

    def __init__(self, chain: FallbackTTS, text: Callable[[], str], speed: float) -> None:
        """text: returns the text that is known so far."""
        self.samples = 0
        """Of all engines."""
        self._chain_rate = chain.sample_rate
        self._text = text
        self._speed = speed
        self.at = 0
        """The character at which the present engine began, or the next one begins."""
        self.begin(chain.sample_rate)

    def begin(self, rate: int) -> None:
        """An engine begins to speak."""
        self._rate, self._begin = rate, self.samples
        self._resampler = Resampler(rate, self._chain_rate)
        self._marks: list[Mark] = []

    def take(self, piece: Speech) -> Speech:
        audio = self._resampler.feed(piece.audio)
        marks = tuple(
            Mark(
                self._begin + mark.at * self._chain_rate // self._rate,
                self.at + mark.start,
                self.at + mark.end,
            )
            for mark in piece.marks
        )
        self._marks += marks
        self.samples += len(audio) // 2
        return Speech(audio, marks)

    def flush(self) -> bytes:
        rest = self._resampler.flush()
        self.samples += len(rest) // 2
        return rest

    def stop(self) -> None:
        """The engine has failed: the next one begins with the first word that was not spoken to its
        end. That is known by the marks, and without them estimated by the usual length of speech. A
        word may be spoken twice, but none is left out.
        """
        if self._marks:
            heard = [mark for mark in self._marks if mark.at < self.samples]
            self.at = heard[-1].start if heard else self.at
            return
        ms, text = (self.samples - self._begin) * 1000 / self._chain_rate, self._text()
        end = min(len(text), self.at + int(ms * self._speed / MS_PER_CHARACTER))
        self.at = max(self.at, text.rfind(" ", 0, end) + 1)


def _continued(stable: str, transcript: Transcript) -> Transcript:
    """A transcript that begins with the words that another engine had reported as stable."""
    text = transcript.text
    if not text.startswith(stable):
        words = text.split()[len(stable.split()) :]
        text = " ".join((stable.rstrip(), *words)) if words else stable
        if len(text) < len(stable) or not text.startswith(stable):
            text = stable + " ".join(words)
    kept = len(text) if transcript.final else max(len(stable), min(transcript.stable, len(text)))
    return msgspec.structs.replace(transcript, text=text, stable=kept)


def _continuation(request: ChatRequest, said: str) -> ChatRequest:
    """A request to another model to continue what was said."""
    return replace(
        request,
        instructions=f"{request.instructions}\n\n{CONTINUE}".lstrip(),
        items=(*request.items, Message(role="assistant", content=(OutputText(said),))),
    )


def _joined(said: str, text: str, continued: bool) -> str:
    """The first text of a continuation, after a space if two words would touch."""
    touches = continued and said[-1:].isalnum() and text[:1].isalnum()
    return f" {text}" if touches else text
