"""Turn-taking of any Realtime server: `python -m bench.turns [--url wss://…] [--plot turns.svg]`.

Scripted dialogues (bench/dialogues.py): a user who pauses, hesitates and ends; and sounds over an
answer: interruptions, backchannels, coughs, music, another speaker, the answer's own echo. Without
--url a server of its own is started. The ends of turns are logical times, from the positions in
the audio that the server reports; the rest is measured from the moment at which the frame with the
sample in question was sent.

--half tune|report|both   every other scenario of each kind; the default is report
--url URL                 another server; --key KEY (or OPENAI_API_KEY) and --model NAME go with it
--turn-detection JSON     {"type": "semantic_vad"} if not given
--hurry N                 ends of turns only, N times faster than real time
--only KIND               may be given more than once
--plot FILE               an SVG of all scenarios
--out FILE                JSON of all scenarios
"""

import argparse
import asyncio
import base64
import os
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np

from bench.dialogues import (
    ECHO_DB,
    INTERRUPTIONS,
    TURNS,
    Scenario,
    half,
    pcm16,
    scenarios,
)
from bench.figures import Figure, percentile, spread
from bench.report import parser_of, show
from bench.served import served, take_other_core
from bench.turns_plot import drawn
from vivavoce.audio.formats import RATE
from vivavoce.engines.packs import problem_of

FRAME_MS = 20
FRAME = RATE * FRAME_MS // 1000
LEAD_S = 1.0
"""A quiet room before what is tested; over an answer, from its first sound on."""
AFTER_S = 6.0
"""How long an answer to a turn is waited for, and for its cut."""
OVERLAP_AFTER_S = 3.0
"""How long the reaction to a sound over an answer is waited for."""
ECHO_DELAY_S = 0.1
ANSWER_TIMEOUT_S = 20.0
EARLY_MS = 150
"""A turn that ends so long before the last sound is not cut: that may be a faint consonant."""
AT_ONCE = 4
CONFIG = """
[models.default]
stt = "{stt}"
llm = "scripted"
tts = "espeak"

[engines.llm.scripted]
answers = ["{answer}"]
"""
ANSWER = (
    "Bread begins with flour, water, salt and yeast. The baker weighs all of it and mixes it in a "
    "large bowl until nothing dry is left. Then the dough rests, so that the flour takes up the "
    "water. After that it is folded and stretched until it is smooth. "
) * 3
OWN_STT = ("moonshine", "pocketsphinx")


@dataclass(slots=True)
class Outcome:
    """What a server did in one scenario. Times are milliseconds; None: it did not happen."""

    name: str
    kind: str
    cut: bool = False
    """Whether a turn was ended before its last word."""
    decided_ms: float | None = None
    """From the last sound of a turn to its end as the server reports it, by audio positions."""
    answered_ms: float | None = None
    """From the last sound of a turn to the first sound of the answer."""
    stopped_ms: float | None = None
    """From the onset of a sound to the event at which a client stops the answer."""
    problem: str = ""


@dataclass(slots=True)
class Heard:
    """What came from the server, with the time of arrival."""

    first_audio: float | None = None
    """Of the last response."""
    started: list[float] = field(default_factory=list)
    stopped: list[tuple[float, float]] = field(default_factory=list)
    """Arrival, and milliseconds of audio; nan where the server does not say."""
    cancelled: list[float] = field(default_factory=list)
    audio: bytearray = field(default_factory=bytearray)
    """Of the first response."""
    problem: str = ""

    def take(self, event: dict[str, Any], at: float) -> None:
        kind = event.get("type", "")
        if kind in ("response.output_audio.delta", "response.audio.delta"):
            if self.first_audio is None:
                self.first_audio = at
            if not self.cancelled:
                self.audio += base64.b64decode(event["delta"])
        elif kind == "response.created":
            self.first_audio = None
        elif kind == "input_audio_buffer.speech_started":
            self.started.append(at)
        elif kind == "input_audio_buffer.speech_stopped":
            self.stopped.append((at, event.get("audio_end_ms", float("nan"))))
        elif kind == "response.done" and event["response"]["status"] == "cancelled":
            self.cancelled.append(at)
        elif kind == "error":
            self.problem = str(event.get("error", event))


class Call:
    """One session: a microphone that never stops, and what comes back."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, hurry: float) -> None:
        self.heard = Heard()
        self._socket = socket
        self._hurry = hurry
        self._room = pcm16(np.zeros(30 * RATE))
        self._due = 0.0
        self._sent: list[float] = []
        """When each frame was sent."""

    async def listen(self) -> None:
        async for message in self._socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                self.heard.take(msgspec.json.decode(message.data), time.perf_counter())

    async def send(self, kind: str, **fields: Any) -> None:
        await self._socket.send_str(msgspec.json.encode({"type": kind, **fields}).decode())

    async def speak(self, pcm: bytes) -> int:
        """Send sound as a live microphone; return the number of its first frame."""
        first = len(self._sent)
        for at in range(0, len(pcm) - 2 * FRAME + 1, 2 * FRAME):
            await self._frame(pcm[at : at + 2 * FRAME])
        return first

    async def rest(self, seconds: float) -> None:
        """Send the sound of the room."""
        await self.speak(self._room[: int(seconds * RATE) // FRAME * FRAME * 2])

    async def rest_until_answered(self, seconds: float) -> bool:
        """Send the sound of the room until an answer sounds; False: none did."""
        for _ in range(int(seconds * 1000 / FRAME_MS)):
            if self.heard.first_audio is not None:
                return True
            await self._frame(self._room[: 2 * FRAME])
        return False

    async def echo(self, seconds: float) -> int:
        """Send what the user's loudspeaker plays, as a microphone without cancellation hears it."""
        first, gain = len(self._sent), 10 ** (ECHO_DB / 20)
        begun = self.heard.first_audio or time.perf_counter()
        for _ in range(int(seconds * 1000 / FRAME_MS)):
            at = int((time.perf_counter() - begun - ECHO_DELAY_S) * RATE) // FRAME * FRAME
            played = bytes(self.heard.audio[2 * at : 2 * (at + FRAME)]).ljust(2 * FRAME, b"\0")
            await self._frame(pcm16(np.frombuffer(played, "<i2") / 32768 * gain))
        return first

    def sent_at(self, frame: int, seconds: float) -> float:
        """When the sample so many seconds behind the start of that frame had been sent."""
        number = frame + int(seconds * 1000 / FRAME_MS)
        return self._sent[min(number, len(self._sent) - 1)]

    async def _frame(self, pcm: bytes) -> None:
        if self._sent:
            due = self._due + FRAME_MS / 1000 / self._hurry
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            self._due = max(due, time.perf_counter() - 0.2)
        else:
            self._due = time.perf_counter()
        audio = base64.b64encode(pcm).decode()
        await self._socket.send_str(f'{{"type":"input_audio_buffer.append","audio":"{audio}"}}')
        self._sent.append(time.perf_counter())


@dataclass(frozen=True, slots=True)
class Target:
    """A server, and how a session of it is set up."""

    url: str
    key: str
    turn_detection: dict[str, Any]
    hurry: float = 1.0


async def play(scenario: Scenario, target: Target, http: aiohttp.ClientSession) -> Outcome:
    """Run one scenario in a session of its own."""
    headers = {"Authorization": f"Bearer {target.key}"} if target.key else {}
    outcome = Outcome(scenario.name, scenario.kind)
    hurry = target.hurry if scenario.kind in TURNS else 1.0
    async with http.ws_connect(target.url, headers=headers, max_msg_size=0) as socket:
        call = Call(socket, hurry)
        listening = asyncio.create_task(call.listen())
        try:
            audio = {"input": {"turn_detection": target.turn_detection}}
            await call.send("session.update", session={"type": "realtime", "audio": audio})
            if scenario.over_answer:
                await _over_answer(scenario, call, outcome)
            else:
                await _turn(scenario, call, outcome)
        except (TimeoutError, ConnectionError) as exc:
            outcome.problem = str(exc) or "no answer came"
        finally:
            listening.cancel()
    outcome.problem = outcome.problem or call.heard.problem
    return outcome


async def _turn(scenario: Scenario, call: Call, outcome: Outcome) -> None:
    await call.rest(LEAD_S)
    first = await call.speak(scenario.pcm)
    if scenario.kind not in TURNS:
        await call.rest(1.0)
        if call.heard.started:
            outcome.stopped_ms = (call.heard.started[0] - call.sent_at(first, 0.0)) * 1000
        return
    ends_ms = first * FRAME_MS + scenario.ends * 1000
    await call.rest(AFTER_S - 4.0)
    await call.rest_until_answered(4.0)
    ended = call.sent_at(first, scenario.ends)
    stops = [
        (at, ms if ms == ms else (at - ended) * 1000 + ends_ms) for at, ms in call.heard.stopped
    ]
    outcome.cut = any(ms < ends_ms - EARLY_MS for _, ms in stops)
    if stops and not outcome.cut:
        outcome.decided_ms = stops[-1][1] - ends_ms
        if call.heard.first_audio is not None:
            outcome.answered_ms = (call.heard.first_audio - ended) * 1000
    if not stops:
        outcome.problem = "the end of the turn was not found"


async def _over_answer(scenario: Scenario, call: Call, outcome: Outcome) -> None:
    await call.rest(LEAD_S)
    await call.speak(scenario.question)
    if not await call.rest_until_answered(ANSWER_TIMEOUT_S):
        raise TimeoutError
    await call.rest(LEAD_S)
    if scenario.kind == "echo":
        first = await call.echo(scenario.ends)
    else:
        first = await call.speak(scenario.pcm)
    await call.rest(OVERLAP_AFTER_S)
    onset = call.sent_at(first, scenario.begins)
    stops = [at for at in call.heard.started + call.heard.cancelled if at >= onset]
    if stops:
        outcome.stopped_ms = (min(stops) - onset) * 1000


def figures(outcomes: Sequence[Outcome]) -> list[Figure]:
    """The table: the goals first, then what explains them."""
    good = [one for one in outcomes if not one.problem]
    turns = [one for one in good if one.kind in TURNS]
    breaks = [one for one in good if one.kind in INTERRUPTIONS]
    soft = [one for one in good if one.kind == "backchannel"]
    other = [one for one in good if one not in turns + breaks + soft]
    answered = [one.answered_ms for one in turns if one.answered_ms is not None]
    decided = [one.decided_ms for one in turns if one.decided_ms is not None]
    stops = [one.stopped_ms for one in breaks if one.stopped_ms is not None]
    found = [
        Figure(
            measure=f"premature cuts, of {len(turns)} turns",
            value=_percent(one.cut for one in turns),
            unit="%",
            target=5.0,
        ),
        Figure(
            measure="response delay: last sound of the turn → first sound of the answer, median",
            value=percentile(answered, 50),
            unit="ms",
            target=400.0,
            detail=spread(answered),
        ),
        Figure(
            measure="… → end of the turn, by audio positions, median",
            value=percentile(decided, 50),
            unit="ms",
            detail=spread(decided),
        ),
        Figure(
            measure=f"yields to an interruption, of {len(breaks)}",
            value=_percent(one.stopped_ms is not None for one in breaks),
            unit="%",
            target=95.0,
            at_least=True,
        ),
        Figure(
            measure="stop: onset of the interruption → end of the answer, median",
            value=percentile(stops, 50),
            unit="ms",
            target=300.0,
            detail=spread(stops),
        ),
        Figure(measure="… 95 %", value=percentile(stops, 95), unit="ms"),
        Figure(
            measure=f"backchannel selectivity, of {len(soft)}",
            value=_percent(one.stopped_ms is None for one in soft) / 100,
            unit="",
            target=0.9,
            at_least=True,
        ),
        Figure(
            measure=f"false starts: noise, music, another voice, echo, of {len(other)}",
            value=_percent(one.stopped_ms is not None for one in other),
            unit="%",
            target=2.0,
        ),
    ]
    for kind in dict.fromkeys(one.kind for one in other):
        some = [one for one in other if one.kind == kind]
        share = _percent(one.stopped_ms is not None for one in some)
        found.append(Figure(measure=f"… {kind}, of {len(some)}", value=share, unit="%"))
    failed = len(outcomes) - len(good)
    return [*found, Figure(measure="scenarios that failed", value=failed, unit="")]


def _percent(flags: Any) -> float:
    every = list(flags)
    return 100 * sum(every) / len(every) if every else float("nan")


async def run(every: Sequence[Scenario], target: Target) -> list[Outcome]:
    """Some at once; the order of the outcomes is that of the scenarios."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(scenario: Scenario) -> Outcome:
        async with places:
            return await play(scenario, target, http)

    async with aiohttp.ClientSession() as http:
        return list(await asyncio.gather(*(one(scenario) for scenario in every)))


def own_config() -> str:
    """The settings of the server that is started here."""
    stt = OWN_STT[0] if problem_of("moonshine-tiny-en") is None else OWN_STT[1]
    return CONFIG.format(stt=stt, answer=ANSWER)


async def measure(quick: bool) -> list[Figure]:
    every = half(await scenarios(), "report")
    every = every[::4] if quick else every
    async with served(own_config()) as server:
        url = f"ws://127.0.0.1:{server.port}/v1/realtime?model=default"
        return figures(await run(every, Target(url, "", {"type": "semantic_vad"})))


async def _main(given: argparse.Namespace) -> list[Outcome]:
    every = half(await scenarios(), given.half)
    if given.only:
        every = [one for one in every if one.kind in given.only]
    detection = msgspec.json.decode(given.turn_detection)
    async with AsyncExitStack() as stack:
        url = given.url
        if not url:
            config = given.config.read_text() if given.config else own_config()
            server = await stack.enter_async_context(served(config))
            url = f"ws://127.0.0.1:{server.port}/v1/realtime"
        url = f"{url}?model={given.model}" if "?" not in url else url
        return await run(every, Target(url, given.key, detection, given.hurry))


def main() -> None:
    parser = parser_of("turns", __doc__)
    parser.add_argument("--half", choices=("tune", "report", "both"), default="report")
    parser.add_argument("--url", default="", help="ws://host:port/v1/realtime")
    parser.add_argument("--key", default=os.environ.get("OPENAI_API_KEY", ""))
    parser.add_argument("--model", default="default")
    parser.add_argument("--config", type=Path, help="settings of the server that is started")
    parser.add_argument("--turn-detection", default='{"type": "semantic_vad"}', metavar="JSON")
    parser.add_argument("--hurry", type=float, default=1.0)
    parser.add_argument("--only", action="append", default=[], metavar="KIND")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    parser.add_argument("--out", type=Path, metavar="FILE")
    given = parser.parse_args()
    take_other_core()
    outcomes = asyncio.run(_main(given))
    show(figures(outcomes))
    for one in outcomes:
        if one.problem:
            print(f"{one.name}: {one.problem}", file=sys.stderr)
    if given.plot:
        given.plot.write_text(drawn(outcomes), encoding="utf-8")
    if given.out:
        given.out.write_bytes(msgspec.json.format(msgspec.json.encode(outcomes)))


if __name__ == "__main__":
    main()
