"""Checks of the contract of engines. Each check takes an engine that was entered.

    async def main() -> None:
        async with EspeakTTS(EspeakSettings()) as tts:
            await check_tts(tts)

    asyncio.run(main())

A check raises AssertionError with what is wrong. The clock is used only to fail instead of hanging;
so engines without threads, processes and sockets may be checked in virtual time too. The checks
call an engine several times, also at the same time: a fake server behind it must answer each call
alike.
"""

import asyncio
import json
import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterable
from contextlib import aclosing, suppress
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vivavoce.engines.base import (
    LLM,
    STT,
    TTS,
    VAD,
    AudioTurnModel,
    CallDelta,
    CallStarted,
    Capabilities,
    ChatEnded,
    ChatEvent,
    ChatRequest,
    Cleaner,
    Engine,
    Speech,
    StreamingTTS,
    TextDelta,
    Transcript,
    TurnModel,
    streaming,
)
from vivavoce.engines.speaker_model import SpeakerModel
from vivavoce.errors import EngineError
from vivavoce.protocol.items import InputText, Message

T = TypeVar("T")

TIMEOUT_S = 60.0
HELLO = ChatRequest(
    instructions="You are a kind voice on the telephone. Be brief.",
    items=(Message(id="item_1", role="user", content=(InputText("Hello, what can you do?"),)),),
)
STORY = (
    "A long time ago, in a small town by the sea, there lived a baker who could not sleep. "
    "Every night he walked along the harbour, counted the boats, and came home at dawn. "
    "One morning, however, a boat was missing, and nobody but he had noticed it."
)
TURNS = ("", "yes", "i would like to", "what time is it", "Wie spät ist es?", "...", "12 34 5")


def check_engine(engine: Engine) -> None:
    """Capabilities as data on the class; an engine that was entered works."""
    capabilities = type(engine).capabilities
    assert isinstance(capabilities, Capabilities), "capabilities are not of that type"
    languages = capabilities.languages
    assert languages == "any" or (languages and not isinstance(languages, str)), (
        f"languages are {languages!r}; say 'any' or a tuple of tags"
    )
    assert capabilities.word_times in ("exact", "estimated", "none"), capabilities.word_times
    assert engine.health() is None, f"its health is {engine.health()!r} right after entering it"


async def check_vad(vad: VAD) -> None:
    """Shape and range; rows and streams do not touch each other; a new stream starts clean."""
    check_engine(vad)
    assert vad.sample_rate > 0
    assert vad.window_samples > 0
    assert vad.max_batch >= 1
    rows = min(3, vad.max_batch)
    windows = np.stack([_sounds(vad, 8, seed) for seed in range(rows)], axis=1)

    scores = _scores(vad, windows, range(rows))
    alone = np.concatenate([_scores(vad, windows[:, [i]], [0]) for i in range(rows)], axis=1)
    turned = _scores(vad, windows[:, ::-1], range(rows))[:, ::-1]
    _close_to(scores, alone, "a row's probability depends on the other rows of its batch")
    _close_to(scores, turned, "a row's probability depends on its place in the batch")
    _close_to(
        scores, _scores(vad, windows, reversed(range(rows))), "a stream's number changes what it is"
    )
    _check_interleaved_streams(vad, windows[:, 0])
    _check_reopened_stream(vad, windows[:, 0])
    assert vad.score(*_batch(vad, 0)).shape == (0,), "an empty batch gives an empty result"
    _check_full_batch(vad)


async def check_turn(turn: TurnModel) -> None:
    """A probability for any text in any language, the same one each time; and for any sound."""
    check_engine(turn)
    for text in TURNS:
        for language in (None, "en", "de", "xx", "en-US"):
            first = await _within_timeout(turn.score(text, language=language))
            again = await _within_timeout(turn.score(text, language=language))
            assert 0.0 <= first <= 1.0, f"score({text!r}) is {first}, not within 0..1"
            assert first == again, f"score({text!r}) is {first}, then {again}"
    if isinstance(turn, AudioTurnModel):
        assert turn.audio_seconds > 0
        for pcm in (b"", bytes(9_600), _hum(24_000) * 10):
            by_sound = await _within_timeout(turn.score_audio(pcm, "yes", language=None))
            assert 0.0 <= by_sound <= 1.0, f"score_audio() is {by_sound}, not within 0..1"


async def check_stt(
    stt: STT, speech: bytes = b"", *, language: str | None = None, silence: bool = True
) -> None:
    """One final, last; stable text stays; however audio comes; closing early harms nothing.

    speech: PCM at the engine's rate, else a hum stands in. silence: whether to check that silence
    gives "" (an engine that is told what to hear may say no).
    """
    check_engine(stt)
    assert stt.sample_rate > 0
    speech = speech or _hum(stt.sample_rate)
    quiet = bytes(2 * stt.sample_rate)

    async def hear(audio: bytes, pieces: int) -> list[Transcript]:
        transcripts = stt.transcribe(_pieces(audio, pieces), language=language, prompt="")
        return check_transcripts(await _collect(transcripts))

    await hear(speech, len(speech))
    await hear(speech, 2 * 333)
    await hear(speech[:2], 2)
    assert (await hear(b"", 2))[-1].text == "" or not silence, "words heard in no audio at all"
    assert (await hear(quiet, 6400))[-1].text == "" or not silence, "words heard in silence"

    await stt.transcribe(_pieces(speech, 6400), language=language, prompt="").aclose()
    for turns in (1, 10):
        endless = stt.transcribe(_endless(speech), language=language, prompt="")
        await _abandon(endless, turns)
    await _read_one(stt.transcribe(_pieces(speech, 6400), language=language, prompt=""))
    async with asyncio.TaskGroup() as tasks:
        for _ in range(2):
            tasks.create_task(hear(speech, 6400))


def check_transcripts(transcripts: list[Transcript]) -> list[Transcript]:
    """The rules of one utterance: exactly one final, last, all stable; stable text stays."""
    assert transcripts, "no transcript at all"
    assert [t.final for t in transcripts] == [False] * (len(transcripts) - 1) + [True], (
        "exactly one transcript is final, and it is the last"
    )
    for transcript in transcripts:
        assert 0 <= transcript.stable <= len(transcript.text), f"stable too long: {transcript}"
        starts = [word.start_ms for word in transcript.words]
        assert starts == sorted(starts), f"words out of order: {transcript.words}"
        assert all(0 <= word.start_ms <= word.end_ms for word in transcript.words)
    final = transcripts[-1]
    assert final.stable == len(final.text), "a final transcript is all stable"
    for i, earlier in enumerate(transcripts):
        promise = earlier.text[: earlier.stable]
        for later in transcripts[i + 1 :]:
            assert later.text.startswith(promise), f"{promise!r} was stable, then {later.text!r}"
    return transcripts


async def check_llm(llm: LLM, request: ChatRequest = HELLO) -> None:
    """Ends once; calls have JSON arguments; closing early harms nothing; two answers at once."""
    check_engine(llm)
    assert isinstance(llm.sees, bool)

    async def ask() -> list[ChatEvent]:
        return check_answer(await _collect(llm.generate(request)))

    await ask()
    await llm.generate(request).aclose()
    await _read_one(llm.generate(request))
    await _abandon(llm.generate(request), 1)
    await _abandon(llm.generate(request), 10)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(2):
            tasks.create_task(ask())


def check_answer(events: list[ChatEvent]) -> list[ChatEvent]:
    """The rules of one answer: ChatEnded once, last; every call whole, its arguments JSON."""
    assert events, "no event at all"
    ends = [isinstance(event, ChatEnded) for event in events]
    assert ends == [False] * (len(events) - 1) + [True], "exactly one ChatEnded, last"
    calls: dict[int, tuple[CallStarted, list[str]]] = {}
    open_index: int | None = None
    for event in events:
        match event:
            case TextDelta(text):
                assert text, "an empty TextDelta"
            case CallStarted(index=index, call_id=call_id, name=name):
                assert index not in calls, f"call {index} started twice"
                assert name, f"a call without a name: {event}"
                assert call_id, f"a call without an id: {event}"
                calls[index], open_index = (event, []), index
            case CallDelta(index=index, arguments=arguments):
                assert index == open_index, f"arguments of call {index} while {open_index} is open"
                calls[index][1].append(arguments)
            case ChatEnded():
                pass
    ids = [call.call_id for call, _ in calls.values()]
    assert len(set(ids)) == len(ids), f"two calls with one id: {ids}"
    for call, pieces in calls.values():
        assert isinstance(json.loads("".join(pieces)), dict), f"{call.name}: not a JSON object"
    return events


async def check_tts(
    tts: TTS, text: str = STORY, *, language: str | None = "en", speed: bool = True
) -> None:
    """Audio streams in whole samples, marks fit it; bad voices are refused; closing harms nothing.

    text: long enough to be streamed. speed: whether a higher speed must give less audio.
    """
    check_engine(tts)
    assert tts.sample_rate > 0
    assert tts.default_voice in [voice.id for voice in tts.voices], "the default voice is unknown"

    def begin(words: str, voice: str = tts.default_voice, pace: float = 1.0) -> _Speaking:
        return tts.synthesize(words, voice=voice, speed=pace, language=language, instructions="")

    async def say(words: str, pace: float = 1.0) -> int:
        return check_speech(await _collect(begin(words, pace=pace)), words)

    whole = await _collect(begin(text))
    samples = check_speech(whole, text)
    assert len([piece for piece in whole if piece.audio]) > 1, "long speech comes in one piece"
    assert await say("Yes.") < samples, "one word takes as long as a story"
    assert not speed or await say(text, 1.5) < samples, "a higher speed does not shorten the speech"
    await _check_unknown_voice(begin("Hello.", voice="no-voice-of-this-name"))
    for nothing in ("...", " ", "\u2014"):
        silence = b"".join(piece.audio for piece in await _collect(begin(nothing)))
        assert len(silence) <= 4 * tts.sample_rate, f"more than 2 s of sound for {nothing!r}"

    await begin(text).aclose()
    await _read_one(begin(text))
    await say("It still works.")
    await _abandon(begin(text), 1)
    await _abandon(begin(text), 10)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(2):
            tasks.create_task(say("Both at once."))
    if (engine := streaming(tts)) is not None:
        await _check_streamed_text(engine, text, language)


async def _check_streamed_text(tts: StreamingTTS, text: str, language: str | None) -> None:
    """Text may come word by word; without any there is no speech, and the rest may never come."""
    come = asyncio.Event()

    async def words(*, ends: bool = True) -> AsyncGenerator[str]:
        for word in re.findall(r"\S+\s*", text):
            yield word
        if not ends:
            await come.wait()

    async def nothing() -> AsyncGenerator[str]:
        return
        yield

    def begin(pieces: AsyncGenerator[str]) -> _Speaking:
        return tts.synthesize_stream(
            pieces, voice=tts.default_voice, speed=1.0, language=language, instructions=""
        )

    check_speech(await _collect(begin(words())), text)
    assert await _collect(begin(nothing())) == [], "speech without text"
    await _abandon(begin(words(ends=False)), 1)
    check_speech(await _collect(begin(words())), text)


def check_speech(pieces: list[Speech], text: str) -> int:
    """The rules of one utterance's audio and marks; return its length in samples."""
    position = 0
    last_at = 0
    for piece in pieces:
        assert len(piece.audio) % 2 == 0, f"{len(piece.audio)} bytes are not whole samples"
        for mark in piece.marks:
            assert mark.at >= position, f"{mark} comes later than its sound, which began earlier"
            assert mark.at >= last_at, f"{mark} goes back before {last_at}"
            assert 0 <= mark.start < mark.end <= len(text), f"{mark} is not inside the text"
            last_at = mark.at
        position += len(piece.audio) // 2
    assert last_at <= position, f"a mark at {last_at} of only {position} samples"
    assert any(piece.audio.strip(b"\0") for piece in pieces), "only silence"
    starts = [mark.start for piece in pieces for mark in piece.marks]
    assert starts == sorted(starts), f"marks go back in the text: {starts}"
    return position


async def check_clean(cleaner: Cleaner) -> None:
    """As many bytes out as in, for pieces of any length; streams do not touch each other."""
    check_engine(cleaner)
    recorded, played = _hum(24_000), bytes(48_000)
    for field in ("near", "far"):
        results = []
        for size in (480, 1_200, 24_000):
            stream, other = cleaner.open(field), cleaner.open(field)
            cleaned = b""
            for start in range(0, len(recorded), size):
                piece = recorded[start : start + size]
                stream.play(played[: len(piece)])
                made = stream.process(piece)
                assert len(made) == len(piece), f"{len(piece)} bytes in, {len(made)} bytes out"
                cleaned += made
                other.play(piece)
                other.process(piece[::-1])
            stream.close()
            other.close()
            results.append(cleaned)
        assert results[0] == results[1] == results[2], "the result depends on the cutting"
        assert any(results[0]), "speech is removed as a whole"


async def check_speaker(speaker: SpeakerModel) -> None:
    """A vector of length 1 for any sound, the same each time, whatever is asked beside it."""
    check_engine(speaker)
    assert speaker.sample_rate > 0
    assert speaker.window_ms > 0
    assert 0.0 < speaker.same_windows <= speaker.same_voice <= 1.0
    hum = _hum(speaker.sample_rate)
    clips = [hum, hum[: len(hum) // 2], hum * 3, bytes(2), bytes(len(hum))]
    together = await _within_timeout(speaker.embed(clips))
    assert together.shape == (len(clips), speaker.dimensions), f"{together.shape} for the clips"
    assert together.dtype == np.float32, f"embeddings are {together.dtype}, not float32"
    lengths = np.linalg.norm(together, axis=1)
    assert np.allclose(lengths, 1.0, atol=1e-3), f"embeddings have the lengths {lengths}"
    for i, clip in enumerate(clips):
        (alone,) = await _within_timeout(speaker.embed([clip]))
        _close_to(together[i], alone, "an embedding depends on the other clips")
    none = await _within_timeout(speaker.embed([]))
    assert none.shape == (0, speaker.dimensions), f"{none.shape} for no clips"
    async with asyncio.TaskGroup() as tasks:
        both = [tasks.create_task(_within_timeout(speaker.embed([hum]))) for _ in range(2)]
    _close_to(both[0].result(), both[1].result(), "two requests at once differ")
    asking = asyncio.create_task(_as_coroutine(speaker.embed([hum * 10])))
    await asyncio.sleep(0)
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await _within_timeout(asking)
    assert len(await _within_timeout(speaker.embed([hum]))) == 1, "it failed after a cancellation"


async def _as_coroutine(waiting: Awaitable[T]) -> T:
    return await waiting


_Speaking = AsyncGenerator[Speech]


async def _check_unknown_voice(speaking: _Speaking) -> None:
    message = None
    try:
        await _collect(speaking)
    except EngineError as exc:
        message = str(exc)
    assert message is not None, "an unknown voice is accepted"
    assert message.strip(), "the error of an unknown voice has no message"


async def _collect(stream: AsyncGenerator[T]) -> list[T]:
    async with asyncio.timeout(TIMEOUT_S), aclosing(stream):
        return [thing async for thing in stream]


async def _read_one(stream: AsyncGenerator[T]) -> T:
    """Take the first thing and close, as a session does that is interrupted."""
    async with asyncio.timeout(TIMEOUT_S), aclosing(stream):
        return await anext(stream)


async def _abandon(stream: AsyncGenerator[T], turns: int) -> None:
    """Cancel the reader while it waits, after that many iterations of the loop."""
    reader = asyncio.create_task(_collect(stream))
    for _ in range(turns):
        await asyncio.sleep(0)
    reader.cancel()
    with suppress(asyncio.CancelledError):
        await _within_timeout(reader)


async def _within_timeout(waiting: Awaitable[T]) -> T:
    async with asyncio.timeout(TIMEOUT_S):
        return await waiting


async def _pieces(audio: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(audio), max(size, 2)):
        yield audio[start : start + size]


async def _endless(audio: bytes) -> AsyncIterator[bytes]:
    async for piece in _pieces(audio, 6400):
        yield piece
    await asyncio.Event().wait()


def _hum(sample_rate: int) -> bytes:
    """A second of a loud hum with overtones, like a vowel that is held."""
    at = np.arange(sample_rate) * (2 * math.pi / sample_rate)
    wave = 0.5 * np.sin(140 * at) + 0.2 * np.sin(700 * at) + 0.1 * np.sin(1200 * at)
    return bytes((wave * 32767).astype("<i2").data)


def _sounds(vad: VAD, windows: int, seed: int) -> NDArray[np.float32]:
    """[windows, window_samples] of silence, hum, noise and overload, in turns."""
    noise = np.random.default_rng(seed).uniform(-1, 1, (windows, vad.window_samples))
    at = np.arange(windows * vad.window_samples).reshape(windows, -1) / vad.sample_rate
    hum = 0.6 * np.sin(2 * math.pi * (120 + 40 * seed) * at)
    shape = np.zeros((windows, vad.window_samples))
    for i in range(windows):
        shape[i] = (0 * hum[i], hum[i], 0.3 * noise[i], np.sign(noise[i]))[(i + seed) % 4]
    return shape.astype(np.float32)


def _scores(vad: VAD, windows: NDArray[np.float32], order: Iterable[int]) -> NDArray[np.float32]:
    """Open a stream a column, score windows [steps, rows, samples], close; return [steps, rows].

    order: which of the opened streams each column gets.
    """
    opened = [vad.open() for _ in range(windows.shape[1])]
    assert len(set(opened)) == len(opened), f"two streams have one number: {opened}"
    streams = np.array([opened[i] for i in order], dtype=np.intp)
    steps = []
    for step in windows:
        steps.append(np.array(vad.score(np.ascontiguousarray(step), streams)))
        _check_probabilities(steps[-1], len(streams))
    for stream in opened:
        vad.close(stream)
    return np.stack(steps)


def _check_probabilities(scores: NDArray[np.float32], rows: int) -> None:
    assert scores.dtype == np.float32, f"probabilities are {scores.dtype}, not float32"
    assert scores.shape == (rows,), f"{scores.shape} for {rows} rows"
    assert np.all((scores >= 0) & (scores <= 1)), f"not within 0..1: {scores}"


def _check_interleaved_streams(vad: VAD, sounds: NDArray[np.float32]) -> None:
    """A stream is the same whether others are fed between its windows or not."""
    ours, other = vad.open(), vad.open()
    noise = _sounds(vad, len(sounds), 7)
    seen = []
    for i, window in enumerate(sounds):
        seen.append(vad.score(window[None], np.array([ours], dtype=np.intp)).copy())
        vad.score(noise[i : i + 1], np.array([other], dtype=np.intp))
    vad.close(other)
    vad.close(ours)
    alone = _scores(vad, sounds[:, None], [0])
    _close_to(np.stack(seen), alone, "feeding a stream changes another stream")


def _check_reopened_stream(vad: VAD, sounds: NDArray[np.float32]) -> None:
    """What closed streams heard is forgotten, also by one opened in the place of another."""
    kept = vad.open()
    first = _scores(vad, sounds[:, None], [0])
    _scores(vad, _sounds(vad, 5, 9)[:, None], [0])
    _close_to(first, _scores(vad, sounds[:, None], [0]), "a new stream remembers an older one")
    vad.close(kept)


def _check_full_batch(vad: VAD) -> None:
    windows, _ = _batch(vad, vad.max_batch)
    _scores(vad, windows[None], range(vad.max_batch))


def _batch(vad: VAD, rows: int) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    return np.zeros((rows, vad.window_samples), np.float32), np.zeros(rows, np.intp)


def _close_to(one: NDArray[np.float32], other: NDArray[np.float32], wrong: str) -> None:
    apart = float(np.max(np.abs(one - other)))
    assert apart < 1e-3, f"{wrong}: {apart:.4f} apart"
