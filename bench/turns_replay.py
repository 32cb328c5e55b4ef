"""The dialogues of bench.turns in virtual time: `python -m bench.turns_replay [--explain]`.

A session gets its facts at the times at which they would come, from engines that read the sound
once and are charged what they need on a quiet machine. So what is decided, when, and from what does
not depend on the load of the machine, and the same code gives the same figures. What is not in them
is the network and the server's own milliseconds; bench.turns measures those.

--half tune|report|both, --only KIND, --plot FILE, --out FILE   as in bench.turns
--explain   what each session was given and has sent, with times
--voice VOICE   who speaks, such as "kokoro af_heart"; may be given more than once
"""

import argparse
import asyncio
import heapq
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bench.dialogues import ECHO_DB, INTERRUPTIONS, TALKERS, TURNS, Scenario, half, pcm16, scenarios
from bench.figures import Figure
from bench.replay_engines import Engines, Recogniser, VadReader, engines
from bench.report import parser_of, show
from bench.turns import (
    ANSWER_TIMEOUT_S,
    EARLY_MS,
    ECHO_DELAY_S,
    FRAME,
    FRAME_MS,
    LEAD_S,
    Outcome,
    figures,
)
from bench.turns_plot import drawn
from vivavoce.audio.formats import RATE
from vivavoce.engines.turn.text import likelihood
from vivavoce.engines.worker import Hypothesis
from vivavoce.protocol import client as asks
from vivavoce.protocol import server as says
from vivavoce.protocol.session import Audio, AudioInput, RealtimeSession, SemanticVad, TurnDetection
from vivavoce.session.effects import (
    CancelGeneration,
    CancelTranscription,
    Effect,
    EndAudio,
    FeedAudio,
    Generate,
    RunVad,
    ScoreTurn,
    Send,
    StartTranscription,
)
from vivavoce.session.endpointing import TurnSettings
from vivavoce.session.facts import (
    AudioGenerated,
    Fact,
    GenerationFinished,
    OutputFinished,
    Received,
    TimerFired,
    TranscriptionKey,
    TranscriptUpdated,
    TurnScored,
    VadScores,
)
from vivavoce.session.interruption import InterruptionSettings
from vivavoce.session.limits import SessionLimits
from vivavoce.session.options import AvailableModels, ModelInfo
from vivavoce.session.shell import Session

VAD_S, SOUND_S, ANSWER_S = 0.001, 0.086, 0.03
"""What voice activity, smart-turn, and a scripted model with espeak's first clause take."""
AFTER_S, OVERLAP_AFTER_S = 6.0, 4.0
TURN_SECONDS = 8


class Replay:
    """One scenario, in a session of its own."""

    def __init__(
        self,
        scenario: Scenario,
        engines: Engines,
        *,
        detection: TurnDetection = SemanticVad(explain=True),  # noqa: B008  frozen
        turns: TurnSettings = TurnSettings(),  # noqa: B008  frozen
        interruption: InterruptionSettings = InterruptionSettings(),  # noqa: B008  frozen
    ) -> None:
        info = ModelInfo(None, "alloy", turn_samples=TURN_SECONDS * RATE)
        models = AvailableModels(
            {"default": info}, "default", interruption=interruption, turns=turns
        )
        opening = RealtimeSession(
            id="sess_1", model="default", audio=Audio(AudioInput(turn_detection=detection))
        )
        self.log: list[str] = []
        self.sent: list[tuple[float, says.AnyServerEvent]] = []
        self._scenario = scenario
        self._engines = engines
        self._session = Session(opening, models, SessionLimits(), salt="t", now=0.0)
        self._now = 0.0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._recognisers: dict[TranscriptionKey, Recogniser] = {}
        self._vad = VadReader(engines.vad)
        self._first = float("inf")  # when what is tested begins
        self._answered: float | None = None  # when the answer that is spoken over has begun
        self._room = pcm16(np.zeros(30 * RATE))
        self._sound_asked = 0
        self._cancelled: set[str] = set()

    def run(self) -> Outcome:
        """Play it to its end."""
        self._carry_out(self._session.begin())
        self._speak(self._microphone(), 1)
        while self._agenda:
            if self._session.deadline < self._agenda[0][0]:
                self._now = max(self._now, self._session.deadline)
                self._tell(TimerFired())
                continue
            self._now, _, act = heapq.heappop(self._agenda)
            act()
        return self._outcome()

    def _speak(self, frames: Iterator[bytes], n: int) -> None:
        """Send the frames of a microphone, each when it is full; n: how many have been sent."""

        def speak() -> None:
            audio = next(frames, b"")
            if audio:
                self._tell(Received(asks.InputAudioAppend(audio=audio)))
                self._speak(frames, n + 1)

        self._at(n * FRAME_MS / 1000, speak)

    def _microphone(self) -> Iterator[bytes]:
        """What it hears, frame by frame."""
        one = self._scenario
        yield from self._quiet(LEAD_S)
        if one.over_answer:
            yield from _frames(one.question)
            for _ in range(int(ANSWER_TIMEOUT_S * 1000 / FRAME_MS)):
                if self._answered is not None:
                    break
                yield from self._quiet(FRAME_MS / 1000)
            yield from self._quiet(LEAD_S)
        self._first = self._now - FRAME_MS / 1000
        yield from self._echo(one.ends) if one.kind == "echo" else _frames(one.pcm)
        yield from self._quiet(OVERLAP_AFTER_S if one.over_answer else AFTER_S)

    def _quiet(self, seconds: float) -> Iterator[bytes]:
        return _frames(self._room[: 2 * round(seconds * RATE)])

    def _echo(self, seconds: float) -> Iterator[bytes]:
        """What the loudspeaker plays, late and soft."""
        played = np.frombuffer(b"".join(pcm for pcm, _ in self._engines.answer), "<i2") / 32768
        for _ in range(int(seconds * 1000 / FRAME_MS)):
            late = self._now - FRAME_MS / 1000 - (self._answered or 0.0) - ECHO_DELAY_S
            at = int(late * RATE)
            yield pcm16(played[at : at + FRAME] * 10 ** (ECHO_DB / 20))

    def _outcome(self) -> Outcome:
        one = Outcome(self._scenario.name, self._scenario.kind)
        begins = self._first + self._scenario.begins
        ends = self._first + self._scenario.ends
        sent = [(at, event) for at, event in self.sent if at >= begins]
        started = [at for at, event in sent if isinstance(event, says.SpeechStarted)]
        if self._scenario.kind in TURNS:
            stops = [
                event.audio_end_ms
                for _, event in self.sent
                if isinstance(event, says.SpeechStopped)
            ]
            one.cut = any(ms < ends * 1000 - EARLY_MS for ms in stops)
            asked = [at for at, e in self.sent if isinstance(e, says.ResponseCreated)]
            sounds = [
                at
                for at, e in self.sent
                if isinstance(e, says.OutputAudioDelta) and at >= asked[-1]
            ]
            if not stops:
                one.problem = "the end of the turn was not found"
            elif not one.cut:
                one.decided_ms = stops[-1] - ends * 1000
                one.answered_ms = (sounds[0] - ends) * 1000 if sounds else None
            return one
        cancelled = [
            at
            for at, event in sent
            if isinstance(event, says.ResponseDone) and event.response.status == "cancelled"
        ]
        found = [*started, *cancelled]
        one.stopped_ms = (min(found) - begins) * 1000 if found else None
        return one

    def _at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (when, next(self._count), act))

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        self._at(self._now + seconds, act)

    def _telling(self, fact: Fact) -> Callable[[], None]:
        return lambda: self._tell(fact)

    def _tell(self, fact: Fact) -> None:
        match fact:
            case TranscriptUpdated(text=text, final=final):
                self._note(f"words{' final' if final else ''}: {text!r}")
            case TurnScored(likelihood=score, source=source):
                self._note(f"{source}: {score:.2f}")
            case AudioGenerated() if self._answered is None:
                self._answered = self._now
        self._carry_out(self._session.handle(fact, self._now))

    def _note(self, text: str) -> None:
        self.log.append(f"{(self._now - self._first) * 1000:6.0f} ms  {text}")

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Send(event=event):
                self.sent.append((self._now, event))
                self._note_event(event)
            case RunVad(at=at, audio=audio):
                self._after(VAD_S, self._telling(VadScores(at, self._vad.read(audio))))
            case StartTranscription(key=key):
                recogniser = Recogniser(self._engines.stt, self._after)
                recogniser.post = lambda heard: self._on_words(key, recogniser, heard)
                self._recognisers[key] = recogniser
            case FeedAudio(key=key, audio=audio):
                self._recognisers[key].feed(audio)
            case EndAudio(key=key):
                self._recognisers[key].finish()
            case CancelTranscription(key=key):
                del self._recognisers[key]
            case ScoreTurn():
                self._score(effect)
            case Generate(response_id=response_id):
                self._answer(response_id)
            case CancelGeneration(response_id=response_id):
                self._cancelled.add(response_id)

    def _on_words(self, key: TranscriptionKey, source: Recogniser, heard: Hypothesis) -> None:
        if self._recognisers.get(key) is source:
            text = " ".join(word.text for word in heard.words)
            stable = len(" ".join(word.text for word in heard.words[: heard.stable]))
            certainty = heard.words[-1].logprob if heard.words else None
            self._tell(TranscriptUpdated(key, text, stable, heard.final, certainty=certainty))

    def _score(self, order: ScoreTurn) -> None:
        if order.text or not order.audio:
            score = likelihood(order.text, order.language or "en")
            self._after(VAD_S, self._telling(TurnScored(order.item_id, score, "words")))
        if order.audio:
            self._sound_asked += 1
            asked, score = self._sound_asked, self._engines.sound_score(order.audio)
            fact = TurnScored(order.item_id, score, "sound")
            self._after(SOUND_S, lambda: self._tell(fact) if asked == self._sound_asked else None)

    def _answer(self, response_id: str) -> None:
        def tell(fact: Fact) -> None:
            if response_id not in self._cancelled:
                self._tell(fact)

        for n, (pcm, words) in enumerate(self._engines.answer):
            fact = AudioGenerated(response_id, pcm, words)
            self._after(ANSWER_S * (n + 1), lambda fact=fact: tell(fact))  # type: ignore[misc]
        over = ANSWER_S * (len(self._engines.answer) + 1)
        self._after(over, lambda: tell(GenerationFinished(response_id, "stop")))
        self._after(over, lambda: tell(OutputFinished(response_id)))

    def _note_event(self, event: says.AnyServerEvent) -> None:
        match event:
            case says.SpeechStarted():
                self._note("> speech_started")
            case says.SpeechStopped(decision=decision):
                shown: Any = msgspec.to_builtins(decision) if decision else ""
                self._note(f"> speech_stopped {shown}")
            case says.ResponseDone(response=response):
                self._note(f"> response {response.status}")
            case says.InputAudioCommitted():
                self._note("> committed")


def _frames(pcm: bytes) -> Iterator[bytes]:
    return (pcm[at : at + 2 * FRAME] for at in range(0, len(pcm) - 2 * FRAME + 1, 2 * FRAME))


async def measure(quick: bool) -> list[Figure]:
    every = half(await scenarios(), "report")
    at_hand = await engines()
    return figures([Replay(one, at_hand).run() for one in (every[::4] if quick else every)])


async def _main(given: argparse.Namespace) -> list[Outcome]:
    every = half(await scenarios(given.voice or TALKERS), given.half)
    at_hand = await engines()
    outcomes = []
    for one in every:
        if given.only and one.kind not in given.only:
            continue
        replay = Replay(one, at_hand)
        outcomes.append(outcome := replay.run())
        if given.explain:
            expected = one.kind in INTERRUPTIONS
            wrong = outcome.cut or (
                not outcome.problem
                and one.kind not in TURNS
                and (outcome.stopped_ms is not None) != expected
            )
            print(
                f"\n{'WRONG  ' if wrong else ''}{one.name}, to {one.ends * 1000:.0f} ms: {outcome}"
            )
            print("\n".join(replay.log))
    return outcomes


def main() -> None:
    parser = parser_of("turns_replay", __doc__)
    parser.add_argument("--half", choices=("tune", "report", "both"), default="report")
    parser.add_argument("--only", action="append", default=[], metavar="KIND")
    parser.add_argument("--voice", action="append", default=[])
    parser.add_argument("--explain", action="store_true")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    parser.add_argument("--out", type=Path, metavar="FILE")
    given = parser.parse_args()
    outcomes = asyncio.run(_main(given))
    show(figures(outcomes))
    if given.plot:
        given.plot.write_text(drawn(outcomes), encoding="utf-8")
    if given.out:
        given.out.write_bytes(msgspec.json.format(msgspec.json.encode(outcomes)))
    for one in outcomes:
        if one.problem:
            print(f"{one.name}: {one.problem}", file=sys.stderr)


if __name__ == "__main__":
    main()
