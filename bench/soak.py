"""Whether memory stays flat: 20 conversations at once for many minutes.

Each conversation sends 40 ms of microphone 25 times a second: recorded speech during a turn, a
quiet room otherwise. A turn is one of ACTIONS, chosen at random from a fixed seed. After
TURNS_PER_SESSION turns, or a dropped connection, the session is replaced by a new one. Silero
judges every window; recognition, model and synthesiser follow a script.

    python -m bench.soak [SECONDS] [--sessions N] [--out FILE]
    python -m bench.soak --faults [--minutes 120] [--sessions N] [--every SECONDS]

The second is of bench/soak_faults.py: something fails all the time.
"""

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from bench import soak_faults
from bench.figures import Figure, percentile, spread
from bench.report import parser_of, perform, show, write
from bench.served import SCRIPTED, Served, served, take_other_core
from bench.soak_figures import (
    KIB,
    REPORT_SECONDS,
    SAMPLE_SECONDS,
    SETTLE_SECONDS,
    TURNS_PER_SESSION,
    Sample,
    slope,
    warmed,
)
from bench.sound import recordings, silence
from bench.wire import Line, appends, connect, event

SECONDS = 720
QUICK_SECONDS = 40  # of shorter runs a slope cannot be told
SESSIONS = 20
FRAME_MS = 40
EVENT_TIMEOUT_S = 20.0  # for one event of a turn; a turn without it is lost
MAX_EVENTS = 4096  # that a conversation has not read yet
MAX_RECORDING_S = 4.0  # longer recordings have pauses that end a turn
PAUSE_SECONDS = 0.5  # between two turns, on average
LAG_SECONDS = 1.0  # between two GET /health
TAIL = 20  # events kept to explain a lost turn

CONFIG = (
    SCRIPTED
    + """
[engines.stt.scripted]
transcripts = ["go forward ten meters", "ten of clubs", "he was not an ill disposed young man"]

[engines.llm.scripted]
answers = [
  "This is an answer of some length, so that there is time to interrupt it, and it has an end.",
  {calls = [{name = "weather", arguments = {city = "Rome"}}]},
  "Twenty degrees and a little wind. The evening will be clear. Is there anything else?",
]

[engines.tts.scripted]
realtime_factor = 1.0
chunk_ms = 40
"""
)
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
_READ = frozenset(
    {
        b"conversation.item.truncated",
        b"error",
        b"input_audio_buffer.speech_started",
        b"response.created",
        b"response.done",
        b"response.output_audio.delta",
        b"session.updated",
    }
)


class LostTurnError(Exception):
    """An event of the turn did not come in time."""


class Totals:
    """What all conversations did."""

    def __init__(self) -> None:
        self.turns: Counter[str] = Counter()
        """Finished, by action."""
        self.tool_calls = 0
        self.interrupted = 0
        """Responses that ended as `cancelled`."""
        self.sessions = 0
        self.lost: list[str] = []
        self.errors: Counter[str] = Counter()
        """Error events and failed responses, by code."""
        self.lags: list[float] = []
        """Milliseconds of each GET /health."""


class Conversation:
    """One session: its microphone, and the events that its turns wait for."""

    def __init__(self, line: Line, totals: Totals, quiet: list[bytes]) -> None:
        self.line = line
        self._totals = totals
        self._quiet = quiet
        self._speech: list[bytes] = []
        self._events: asyncio.Queue[tuple[bytes, bytes]] = asyncio.Queue(MAX_EVENTS)
        self._tail: list[str] = []
        line.heard = self._received

    async def microphone(self) -> None:
        """Send speech where there is some, else the quiet room, until cancelled."""
        began, sent = time.perf_counter(), 0
        while True:
            frame = self._speech.pop(0) if self._speech else self._quiet[sent % len(self._quiet)]
            self.line.write(frame)
            sent += 1
            await asyncio.sleep(max(0.0, began + sent * FRAME_MS / 1000 - time.perf_counter()))

    def speak(self, frames: list[bytes]) -> None:
        self._speech = list(frames)

    def write_text(self, text: str) -> None:
        part = {"type": "input_text", "text": text}
        item = {"type": "message", "role": "user", "content": [part]}
        self.line.write(event("conversation.item.create", item=item))
        self.line.write(event("response.create"))

    async def next(self, *kinds: bytes) -> tuple[bytes, bytes]:
        """The next event of one of these types. Raises LostTurnError."""
        try:
            async with asyncio.timeout(EVENT_TIMEOUT_S):
                while True:
                    kind, payload = await self._events.get()
                    if kind in kinds:
                        return kind, payload
        except TimeoutError:
            waited = b" or ".join(kinds).decode()
            raise LostTurnError(f"no {waited} after: {', '.join(self._tail)}") from None

    async def answer(self) -> dict[str, Any]:
        """The end of the next response that nothing interrupts; function calls are answered."""
        while True:
            _, payload = await self.next(b"response.done")
            response: dict[str, Any] = msgspec.json.decode(payload)["response"]
            calls = [item for item in response["output"] if item["type"] == "function_call"]
            if response["status"] == "cancelled":
                continue
            if not calls:
                return response
            for call in calls:
                self._totals.tool_calls += 1
                output = {"call_id": call["call_id"], "output": '{"degrees": 20}'}
                item = {"type": "function_call_output", **output}
                self.line.write(event("conversation.item.create", item=item))
            self.line.write(event("response.create"))

    async def audio(self) -> str:
        """Wait for the first audio of an answer; return its item."""
        while True:
            kind, payload = await self.next(b"response.output_audio.delta", b"response.done")
            if kind == b"response.output_audio.delta":
                item_id: str = msgspec.json.decode(payload)["item_id"]
                return item_id
            response = msgspec.json.decode(payload)["response"]
            for call in response["output"]:
                if call["type"] == "function_call":
                    self._totals.tool_calls += 1
                    self.line.write(event("response.create"))

    def forget(self) -> None:
        """Drop the events of earlier turns."""
        while not self._events.empty():
            self._events.get_nowait()

    def _received(self, kind: bytes, payload: bytes, _at: float) -> None:
        if kind != b"response.output_audio.delta":
            self._tail.append(kind.decode())
            del self._tail[:-TAIL]
        if kind == b"error":
            error = msgspec.json.decode(payload)["error"]
            self._totals.errors[error.get("code") or error["type"]] += 1
        elif kind == b"response.done":
            status = msgspec.json.decode(payload)["response"]["status"]
            self._totals.interrupted += status == "cancelled"
            if status in ("failed", "incomplete"):
                self._totals.errors[f"response {status}"] += 1
        if kind in _READ and not self._events.full():
            self._events.put_nowait((kind, payload))


Utterances = list[list[bytes]]
Action = Callable[[Conversation, list[bytes]], Awaitable[None]]


async def spoken(talk: Conversation, speech: list[bytes]) -> None:
    """A spoken turn."""
    talk.speak(speech)
    await talk.next(b"input_audio_buffer.speech_started")
    await talk.answer()


async def text(talk: Conversation, speech: list[bytes]) -> None:
    """A written turn, answered by voice."""
    talk.write_text("What is the weather in Rome?")
    await talk.answer()


async def barge_in(talk: Conversation, speech: list[bytes]) -> None:
    """Speech into an answer; the client truncates it; the new turn is answered."""
    talk.write_text("Tell me a story.")
    item_id = await talk.audio()
    talk.speak(speech)
    await talk.next(b"input_audio_buffer.speech_started")
    _truncate(talk, item_id, 80)
    await talk.answer()


async def cancel(talk: Conversation, speech: list[bytes]) -> None:
    """response.cancel in mid-answer."""
    talk.write_text("Tell me a story.")
    await talk.audio()
    talk.line.write(event("response.cancel"))
    await talk.next(b"response.done")


async def truncate(talk: Conversation, speech: list[bytes]) -> None:
    """An answer that is cut to its first 200 ms after its end."""
    talk.write_text("Tell me a story.")
    item_id = await talk.audio()
    await talk.next(b"response.done")
    _truncate(talk, item_id, 200)
    await talk.next(b"conversation.item.truncated")


async def drop(talk: Conversation, speech: list[bytes]) -> None:
    """The connection is lost in mid-answer."""
    talk.write_text("Tell me a story.")
    await talk.audio()
    talk.line.abort()


ACTIONS: tuple[Action, ...] = (spoken, spoken, text, barge_in, cancel, truncate, drop)


def _truncate(talk: Conversation, item_id: str, audio_end_ms: int) -> None:
    talk.line.write(
        event(
            "conversation.item.truncate",
            item_id=item_id,
            content_index=0,
            audio_end_ms=audio_end_ms,
        )
    )


async def converse(
    port: int, seed: int, until: float, utterances: Utterances, all_: Totals
) -> None:
    """One conversation after the other until that time (time.perf_counter)."""
    choice = random.Random(seed)
    quiet = appends(silence(2.0), FRAME_MS)
    while time.perf_counter() < until:
        line = await connect(port)
        all_.sessions += 1
        talk = Conversation(line, all_, quiet)
        line.write(event("session.update", session={"type": "realtime", "tools": [WEATHER]}))
        microphone = asyncio.create_task(talk.microphone())
        try:
            await _turns(talk, choice, until, utterances, all_)
        finally:
            microphone.cancel()
            line.close()


async def _turns(
    talk: Conversation, choice: random.Random, until: float, utterances: Utterances, all_: Totals
) -> None:
    await talk.next(b"session.updated")
    for _ in range(TURNS_PER_SESSION):
        if time.perf_counter() > until:
            return
        action = choice.choice(ACTIONS)
        talk.forget()
        try:
            await action(talk, choice.choice(utterances))
        except LostTurnError as error:
            all_.lost.append(f"{action.__name__}: {error}")
            return
        all_.turns[action.__name__] += 1
        if action is drop:
            return
        await asyncio.sleep(choice.uniform(0, 2 * PAUSE_SECONDS))


async def watch(server: Served, until: float, all_: Totals, samples: list[Sample]) -> None:
    """Take a sample every SAMPLE_SECONDS, print one line every REPORT_SECONDS."""
    began, reported = time.perf_counter(), 0
    while (now := time.perf_counter()) < until:
        sample = _sample(server, now - began)
        samples.append(sample)
        if sample.seconds >= reported * REPORT_SECONDS:
            reported += 1
            recent = all_.lags[-int(REPORT_SECONDS / LAG_SECONDS) :]
            print(
                f"  {sample.seconds:4.0f} s  RSS {sample.rss_kib / KIB:.1f} MiB, "
                f"{sample.descriptors} descriptors, {sample.threads} threads, "
                f"lag p50 {percentile(recent, 50):.1f} max {max(recent, default=0):.1f} ms, "
                f"{all_.sessions} sessions, {all_.turns.total()} turns, {len(all_.lost)} lost, "
                f"errors {dict(all_.errors)}",
                file=sys.stderr,
                flush=True,
            )
        await asyncio.sleep(SAMPLE_SECONDS)


async def measure_lag(port: int, until: float, lags: list[float]) -> None:
    """Milliseconds of GET /health with its connection, once a second: the lag of the loop."""
    while time.perf_counter() < until:
        asked = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(EVENT_TIMEOUT_S):
            await reader.readline()
        lags.append((time.perf_counter() - asked) * 1000)
        writer.close()
        await asyncio.sleep(LAG_SECONDS)


async def soak(seconds: float, sessions: int = SESSIONS) -> list[Figure]:
    """All figures of one run."""
    utterances = [
        appends(recording.pcm, FRAME_MS)
        for recording in await recordings()
        if recording.seconds <= MAX_RECORDING_S
    ]
    all_, samples = Totals(), list[Sample]()
    async with served(CONFIG) as server:
        until = time.perf_counter() + seconds
        cpu, waiting = server.cpu_seconds, server.kept_waiting_seconds
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(watch(server, until, all_, samples))
            tasks.create_task(measure_lag(server.port, until, all_.lags))
            for seed in range(sessions):
                tasks.create_task(converse(server.port, seed, until, utterances, all_))
        used, waited = server.cpu_seconds - cpu, server.kept_waiting_seconds - waiting
        await asyncio.sleep(SETTLE_SECONDS if seconds > QUICK_SECONDS else 1.0)
        end = _sample(server, seconds + SETTLE_SECONDS)
    shares = [
        Figure(measure="… CPU of the server", value=100 * used / seconds, unit="% of a core"),
        Figure(
            measure="… time in which others were on its core",
            value=100 * waited / seconds,
            unit="%",
        ),
    ]
    return _figures(seconds, sessions, all_, samples, end) + shares


async def measure(quick: bool) -> list[Figure]:
    return await soak(QUICK_SECONDS if quick else SECONDS)


def _sample(server: Served, seconds: float) -> Sample:
    return Sample(seconds, server.rss // KIB, server.descriptors, server.threads)


def _figures(
    seconds: float, sessions: int, all_: Totals, samples: list[Sample], end: Sample
) -> list[Figure]:
    warm = warmed(samples, seconds)
    rise, error = slope(warm)
    late, late_error = slope([sample for sample in samples if sample.seconds >= seconds / 2])
    detail = {
        "standard_error_kib_per_minute": round(error, 2),
        "samples": [asdict(sample) for sample in samples],
        "after_the_last_session": asdict(end),
    }
    counts = {
        "turns": dict(all_.turns),
        "tool_calls": all_.tool_calls,
        "interrupted": all_.interrupted,
        "sessions": all_.sessions,
        "lost": all_.lost,
        "errors": dict(all_.errors),
    }
    over = f"{sessions} conversations, {seconds / 60:.0f} min"
    return [
        Figure(
            measure=f"growth of memory, {over}, after the first 2 min",
            value=rise,
            unit="KiB/min",
            detail=detail,
        ),
        Figure(measure="… its standard error", value=error, unit="KiB/min"),
        Figure(
            measure="… in the second half of the run",
            value=late,
            unit="KiB/min",
            detail={"standard_error_kib_per_minute": round(late_error, 2)},
        ),
        Figure(measure="… RSS at the start of the slope", value=warm[0].rss_kib / KIB, unit="MiB"),
        Figure(measure="… RSS at the end of it", value=warm[-1].rss_kib / KIB, unit="MiB"),
        Figure(measure="… RSS without sessions", value=end.rss_kib / KIB, unit="MiB"),
        Figure(measure="… descriptors without sessions", value=end.descriptors, unit=""),
        Figure(measure="… turns", value=all_.turns.total(), unit="", detail=counts),
        Figure(measure="… lost turns", value=len(all_.lost), unit="", target=0.0),
        Figure(measure="… errors", value=all_.errors.total(), unit="", target=0.0),
        Figure(
            measure="… GET /health, p99",
            value=percentile(all_.lags, 99),
            unit="ms",
            detail=spread(all_.lags),
        ),
    ]


def main() -> None:
    parser = parser_of("soak", __doc__)
    parser.add_argument("seconds", type=float, nargs="?", default=SECONDS)
    parser.add_argument("--sessions", type=int, default=SESSIONS)
    parser.add_argument("--faults", action="store_true", help="let something fail all the time")
    parser.add_argument("--minutes", type=float, metavar="N", help="in place of SECONDS")
    parser.add_argument("--every", type=float, default=60.0, metavar="SECONDS", help="a fault")
    parser.add_argument("--out", type=Path, default=Path("out/soak.json"), metavar="FILE")
    given = parser.parse_args()
    seconds = given.seconds if given.minutes is None else 60 * given.minutes
    if seconds < QUICK_SECONDS:
        parser.error(f"a soak takes {QUICK_SECONDS} seconds or more; {seconds:g} were asked for")
    take_other_core()

    async def measured(_quick: bool) -> list[Figure]:
        if given.faults:
            return await soak_faults.soak(seconds, given.sessions, given.every)
        return await soak(seconds, given.sessions)

    figures = perform(measured, quick=False)
    write(given.out, [("soak", figure) for figure in figures])
    show(figures)
    print(f"written to {given.out}")
    if given.faults and any(figure.verdict == "MISSED" for figure in figures):
        sys.exit(1)


if __name__ == "__main__":
    main()
