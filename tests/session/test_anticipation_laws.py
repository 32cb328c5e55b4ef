"""Work that begins early changes nothing on the wire but times.

The same history is played to a session that anticipates and to one that does not, with engines that
answer at once and always the same to the same input.
"""

import json
import re
from collections import Counter, deque
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hypothesis_examples import examples
from tests.session.stage import VOICES, drawn, vad_scores
from tests.session.stage import settings as session_settings
from tests.session.test_input_turns import wants
from vivavoce.protocol import client as asks
from vivavoce.protocol import server as says
from vivavoce.protocol.items import FunctionCall, InputText, Item, Message
from vivavoce.protocol.responses import ResponseParams
from vivavoce.protocol.session import SemanticVad, Transcription, TurnDetection
from vivavoce.session.cascade.turn_detection import WINDOW
from vivavoce.session.effects import (
    CancelGeneration,
    CancelTranscription,
    DraftTranscript,
    DropAnticipated,
    Effect,
    EndAudio,
    FeedAudio,
    Generate,
    Prompt,
    RunVad,
    ScoreTurn,
    Send,
    Speculate,
    StartTranscription,
)
from vivavoce.session.endpointing import Anticipation, TurnSettings
from vivavoce.session.facts import (
    AnticipationEnded,
    AudioGenerated,
    Disconnected,
    DraftTranscribed,
    Fact,
    GenerationFinished,
    GenerationProgress,
    OutputFinished,
    Received,
    SpokenWord,
    TextGenerated,
    TimerFired,
    ToolCallArguments,
    ToolCallStarted,
    TranscriptionKey,
    TranscriptUpdated,
    TurnScored,
)
from vivavoce.session.limits import SessionLimits
from vivavoce.session.options import AvailableModels
from vivavoce.session.shell import Session

EXAMPLES = examples(60)
LEVELS: tuple[Anticipation, ...] = ("transcript", "llm", "speech")
SPOKEN = ("####", "##..##", "########", "#.#")
PAUSES = (3 * ".", 7 * ".", 9 * ".", 20 * ".")
_ID = re.compile(r"\b(item|resp|event|call)_[\w]+")


class Step(NamedTuple):
    kind: str
    n: int


STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from(
            (
                *("speak", "pause", "speak", "pause", "pause", "go on", "wait"),
                *("commit", "clear", "create", "cancel", "write", "delete", "truncate", "update"),
            )
        ),
        st.integers(0, 7),
    ),
    max_size=40,
)
UPDATES: tuple[dict[str, Any], ...] = (
    {"turn_detection": {"type": "semantic_vad", "eagerness": "high"}},
    {"turn_detection": {"type": "server_vad", "silence_duration_ms": 300}},
    {"turn_detection": {"type": "server_vad", "interrupt_response": False}},
    {"turn_detection": {"type": "server_vad", "create_response": False}},
    {"turn_detection": None},
    {"transcription": {"model": "whisper-1"}},
    {"transcription": None},
    {"turn_detection": {"type": "semantic_vad"}},
)


class Call:
    """A session, its engines, and what its client is sent."""

    def __init__(self, level: Anticipation, opening: TurnDetection, *, at_end: bool) -> None:
        info = replace(VOICES, transcribes_at_end=at_end)
        turns = TurnSettings(anticipation=level)
        models = AvailableModels({"local": info}, "local", turns=turns)
        heard = Transcription("whisper-1")
        self.session = Session(
            session_settings(turn_detection=opening, transcription=heard),
            models,
            SessionLimits(),
            salt="t",
            now=0.0,
        )
        self.now = 0.0
        self.sent: list[says.AnyServerEvent] = []
        self.at_end = at_end
        self.open: dict[str, str] = {"": ""}  # what began early and was neither used nor dropped
        self._facts: deque[Fact] = deque()
        self._audio: dict[TranscriptionKey, bytes] = {}
        self._rest: dict[str, list[Fact]] = {}  # of answers, until the engine goes on
        self.open.clear()
        self._carry_out(self.session.begin())

    def play(self, steps: list[Step]) -> None:
        for step in steps:
            self._step(step)
        self._tell(Disconnected())

    def _step(self, step: Step) -> None:
        n = step.n
        match step.kind:
            case "speak" | "pause":
                patterns = SPOKEN if step.kind == "speak" else PAUSES
                for window in patterns[n % len(patterns)]:
                    self._tell(Received(asks.InputAudioAppend(audio=drawn(window))))
            case "go on":
                for response_id in tuple(self._rest):
                    self._facts.extend(self._rest.pop(response_id))
                self._tell(None)
            case "wait":
                self.now += n * 0.25
                self._tell(TimerFired())
            case _:
                self._tell(Received(self._event(step.kind, n)))

    def _event(self, kind: str, n: int) -> asks.AnyClientEvent:
        items = [e.item.id for e in self.sent if isinstance(e, says.ItemAdded)]
        item_id = items[-1 - n % len(items)] if items else "item_x"
        match kind:
            case "commit":
                return asks.InputAudioCommit()
            case "clear":
                return asks.InputAudioClear()
            case "create":
                return asks.ResponseCreate(response=ResponseParams())
            case "cancel":
                return asks.ResponseCancel()
            case "delete":
                return asks.ItemDelete(item_id=item_id)
            case "truncate":
                return asks.ItemTruncate(item_id=item_id, content_index=0, audio_end_ms=100 * n)
            case "update":
                return asks.SessionUpdate(session=wants(**UPDATES[n]))
        item = Message(role="user", content=(InputText(f"typed {n}"),))
        return asks.ItemCreate(item=item)

    def _tell(self, fact: Fact | None) -> None:
        if fact is not None:
            self._facts.append(fact)
        while self._facts:
            self._carry_out(self.session.handle(self._facts.popleft(), self.now))

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Send(event=event):
                self.sent.append(event)
            case RunVad():
                self._facts.append(vad_scores(effect))
            case StartTranscription(key=key):
                self._audio[key] = b""
            case FeedAudio(key=key, audio=audio):
                self._audio[key] += audio
                text = words_in(self._audio[key])
                if not self.at_end and text:
                    self._facts.append(TranscriptUpdated(key, text, len(text) // 2, False))
            case EndAudio(key=key, draft_id=draft_id, begins=begins):
                text = words_in(self._audio.pop(key))
                if draft_id:
                    assert self.open.pop(draft_id) == text
                assert text.startswith(begins)
                self._facts.append(TranscriptUpdated(key, text, len(text), True))
            case CancelTranscription(key=key):
                self._audio.pop(key, None)
            case ScoreTurn(item_id=item_id, text=text):
                # the words of a draft may end a turn sooner, which is what they are for: not here
                likelihood = 0.6 if self.at_end else (len(text) * 5 % 7) / 6
                self._facts.append(TurnScored(item_id, likelihood))
            case CancelGeneration(response_id=response_id):
                self._rest.pop(response_id, None)
            case Generate(response_id=response_id, prompt=prompt, begun=begun):
                if begun:
                    assert self.open.pop(begun) == "answer"
                first, self._rest[response_id] = answer(response_id, prompt)
                self._facts.extend(first)
            case _:
                self._perform_early(effect)

    def _perform_early(self, effect: Effect) -> None:
        match effect:
            case DraftTranscript(draft_id=draft_id, order=order):
                text = words_in(self._audio[order.key])
                if len(text) % 5 == 4:
                    self._facts.append(AnticipationEnded(draft_id, refused=True))
                    return
                self.open[draft_id] = text
                self._facts.append(DraftTranscribed(draft_id, text))
            case Speculate(speculation_id=id_, prompt=prompt):
                if len(prompt.items) % 5 == 4:
                    self._facts.append(AnticipationEnded(id_, characters=3))
                else:
                    self.open[id_] = "answer"
            case DropAnticipated(id=id_):
                if self.open.pop(id_) == "answer":
                    self._facts.append(AnticipationEnded(id_, characters=7))


def words_in(audio: bytes) -> str:
    """A word for each piece of speech, as long as it."""
    windows = np.frombuffer(audio, "<i2")
    windows = windows[: len(windows) // WINDOW * WINDOW].reshape(-1, WINDOW).mean(axis=1) > 500
    pieces = "".join("#" if loud else " " for loud in windows).split()
    return " ".join(f"a{len(piece)}" for piece in pieces)


def answer(response_id: str, prompt: Prompt) -> tuple[list[Fact], list[Fact]]:
    """What the model makes of a prompt: at once, and when it goes on."""
    said = msgspec.json.encode(prompt.items).decode()
    size = len(_ID.sub("", said))
    word = SpokenWord(f"heard {size} ", 0)
    first: list[Fact] = [
        GenerationProgress(response_id),
        TextGenerated(response_id, word.text),
        AudioGenerated(response_id, b"\1\0" * 2400, (word,)),
    ]
    rest: list[Fact] = [AudioGenerated(response_id, b"\1\0" * 2400, ())]
    if size % 3 == 0:
        call = f"call_{size}"
        first += [ToolCallStarted(response_id, 0, call, "wave")]
        rest += [ToolCallArguments(response_id, 0, "{}")]
    return first, [*rest, GenerationFinished(response_id, "stop"), OutputFinished(response_id)]


def shown(events: list[says.AnyServerEvent]) -> list[Any]:
    """Events with ids numbered in the order in which they appear."""
    text = msgspec.json.encode(events).decode()
    names: dict[str, str] = {}

    def number(match: re.Match[str]) -> str:
        kind = match.group(1)
        return names.setdefault(match.group(), f"{kind}{len(names)}")

    raw = json.loads(text)
    for event in raw:
        event.pop("event_id")
    shown_: list[Any] = json.loads(_ID.sub(number, json.dumps(raw)))
    return shown_


OPENINGS = st.sampled_from((session_settings().audio.input.turn_detection, SemanticVad()))


@settings(max_examples=EXAMPLES)
@given(st.sampled_from(LEVELS), OPENINGS, st.booleans(), STEPS)
def test_early_work_changes_nothing_on_the_wire_and_leaves_nothing_behind(
    level: Anticipation, opening: TurnDetection, at_end: bool, steps: list[Step]
) -> None:
    calls = [Call(each, opening, at_end=at_end) for each in (level, "off")]
    for call in calls:
        call.play(steps)
    early, plain = calls
    assert shown(early.sent) == shown(plain.sent)
    assert early.open == {}
    used, without = early.session.usage, plain.session.usage
    assert msgspec.structs.replace(used, speculative_tokens=0) == without
    called = Counter(called_in(early.sent))
    assert called == Counter(called_in(plain.sent))


def called_in(events: list[says.AnyServerEvent]) -> list[str]:
    """The calls that a client may run."""
    items: list[Item] = [e.item for e in events if isinstance(e, says.OutputItemDone)]
    return [i.call_id for i in items if isinstance(i, FunctionCall) and i.status == "completed"]


@pytest.mark.parametrize("at_end", [True, False])
def test_histories_of_this_law_have_early_answers_that_are_adopted(at_end: bool) -> None:
    """The law would be empty otherwise."""
    opening = session_settings().audio.input.turn_detection
    assert opening
    call = Call("speech", opening, at_end=at_end)
    begun: list[str] = []
    perform = call._perform

    def watched(effect: Effect) -> None:
        if isinstance(effect, Generate):
            begun.append(effect.begun)
        perform(effect)

    call._perform = watched  # type: ignore[method-assign]
    call.play([Step("speak", 0), Step("pause", 3), Step("go on", 0)])
    assert [bool(each) for each in begun] == [True]
