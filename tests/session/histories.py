"""Random histories: what clients, engines and the clock can do, in any order.

A step is a few small numbers, so that a history shrinks and can be played to two sessions. Their
meaning is decided when it is played: an id is picked among those that were seen until then.
"""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from hypothesis import strategies as st

from tests.session.stage import MODELS, drawn, settings, spoke, transcription_settings, vad_scores
from vivavoce.errors import InvalidRequest
from vivavoce.protocol import client as asks
from vivavoce.protocol import server as says
from vivavoce.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputText,
    Item,
    ItemReference,
    Message,
    OutputText,
)
from vivavoce.protocol.responses import AudioOutputParams, AudioParams, ResponseParams
from vivavoce.protocol.session import (
    PCMU,
    AudioInputPatch,
    AudioOutputPatch,
    AudioPatch,
    PCMPatch,
    RealtimePatch,
    SemanticVadPatch,
    ServerVad,
    ServerVadPatch,
    SessionObject,
    SessionPatch,
    TranscriptionPatch,
    TranscriptionSessionPatch,
)
from vivavoce.session.brain import BrainFactory
from vivavoce.session.cascade.brain import CascadeBrain
from vivavoce.session.checkpoint import Checkpoint
from vivavoce.session.effects import Effect, EndAudio, RunVad, Send, StartTranscription
from vivavoce.session.facts import (
    Disconnected,
    DrainStarted,
    Fact,
    GenerationFailed,
    GenerationFinished,
    GenerationProgress,
    InvalidFrame,
    ItemTranscriptionFailed,
    OutputFinished,
    Received,
    TextGenerated,
    TimerFired,
    TokenCounts,
    ToolCallArguments,
    ToolCallStarted,
    TranscriptionKey,
    TranscriptUpdated,
    TurnScored,
    VadScores,
)
from vivavoce.session.limits import SessionLimits
from vivavoce.session.shell import Session

T = TypeVar("T")
NO_KEY = TranscriptionKey("item_x")
DRAWINGS = ("########", "####" + 16 * ".", 16 * ".", "#.#.#", "..##..##", "####")
WORDS = "well that is what I have always said to them "
LIMITS = SessionLimits(
    max_seconds=2000.0,
    idle_seconds=90.0,
    stall_seconds=4.0,
    max_buffer_seconds=4.0,
    kept_audio_seconds=2.0,
)
PATCHES: tuple[SessionPatch, ...] = (
    RealtimePatch(audio=AudioPatch(input=AudioInputPatch(turn_detection=None))),
    RealtimePatch(audio=AudioPatch(input=AudioInputPatch(turn_detection=ServerVadPatch()))),
    RealtimePatch(audio=AudioPatch(input=AudioInputPatch(turn_detection=SemanticVadPatch()))),
    RealtimePatch(
        audio=AudioPatch(
            input=AudioInputPatch(
                turn_detection=ServerVadPatch(interrupt_response=False, create_response=True)
            )
        )
    ),
    RealtimePatch(
        audio=AudioPatch(
            input=AudioInputPatch(turn_detection=ServerVadPatch(create_response=False))
        )
    ),
    RealtimePatch(
        audio=AudioPatch(input=AudioInputPatch(transcription=TranscriptionPatch(model="whisper-1")))
    ),
    RealtimePatch(audio=AudioPatch(input=AudioInputPatch(format=PCMU(), transcription=None))),
    RealtimePatch(audio=AudioPatch(input=AudioInputPatch(format=PCMPatch()))),
    RealtimePatch(output_modalities=("text",), instructions="Be brief."),
    RealtimePatch(
        output_modalities=("audio",),
        audio=AudioPatch(output=AudioOutputPatch(format=PCMU(), voice="nova")),
    ),
    RealtimePatch(output_modalities=("text", "audio")),
    TranscriptionSessionPatch(),
    RealtimePatch(
        audio=AudioPatch(input=AudioInputPatch(turn_detection=ServerVadPatch(idle_timeout_ms=5000)))
    ),
)
OPENINGS: tuple[SessionObject, ...] = (
    settings(),
    settings(turn_detection=None),
    settings(turn_detection=ServerVad(idle_timeout_ms=5000)),
    transcription_settings(),
)
FROM_CLIENTS = (
    *("append", "append", "append", "commit", "clear", "write", "write", "record", "call"),
    *("output", "retrieve", "truncate", "delete", "create", "create", "out of band", "cancel"),
    *("update", "invalid", "reserved id"),
)
FROM_ENGINES = (
    *("vad", "vad", "vad", "vad again", "turn score", "transcribe", "transcribe", "transcript"),
    *("transcription fails", "progress", "text", "audio", "audio", "tool call", "arguments"),
    *("generated", "spoken", "failure"),
)
FROM_OUTSIDE = ("timer", "timer", "early timer")
RARELY = ("drain", "disconnect", "long wait")


class Step(NamedTuple):
    """One thing that happens: its kind, two numbers that vary it, seconds since the last one."""

    kind: str
    n: int
    m: int
    seconds: float


def steps(*kinds: str) -> st.SearchStrategy[list[Step]]:
    """A list of one step of these kinds."""
    step = st.builds(
        Step,
        st.sampled_from(kinds),
        st.integers(0, 15),
        st.integers(0, 15),
        st.sampled_from((0.0, 0.0, 0.125, 1.0, 3.0)),
    )
    return st.lists(step, min_size=1, max_size=1)


def scene(*kinds: str, n: int = 0, m: int = 4) -> list[Step]:
    """Steps that usually follow each other and concern the newest ids."""
    return [Step(kind, n, m, 0.125) for kind in kinds]


SCENES = st.sampled_from(
    [
        [*scene("append", n=1), *scene("vad", "transcribe", "transcript")],
        [*scene("append", n=1), *scene("vad")],
        [*scene("append"), *scene("vad", "transcribe")],
        [*scene("append"), *scene("commit", "transcript", "create")],
        [*scene("write", n=5), *scene("create")],
        [*scene("write", n=5), *scene("create", n=2)],
        scene("record", "create", "transcript"),
        scene("record", "out of band", "transcript", n=1),
        scene("text", "audio", m=12),
        scene("text", "audio", "generated", "spoken", m=8),
        scene("audio", "audio", m=12),
        scene("tool call", "arguments", "tool call", "arguments", "generated", "spoken"),
        scene("audio", "truncate", m=2),
        scene("spoken", "timer"),
    ]
)


def histories(*kinds: str, longest: int = 40) -> st.SearchStrategy[list[Step]]:
    parts = st.one_of(steps(*kinds), SCENES)
    return st.lists(parts, min_size=longest // 5, max_size=longest).map(
        lambda scenes: [step for scene in scenes for step in scene]
    )


EVERYTHING = histories(*FROM_CLIENTS, *FROM_ENGINES, *FROM_OUTSIDE, *FROM_CLIENTS, *RARELY)
TALK = histories(*FROM_CLIENTS, *FROM_ENGINES, *FROM_OUTSIDE)
openings = st.sampled_from(OPENINGS)


@dataclass(frozen=True, slots=True)
class Moment:
    """A fact, its time, and its effects."""

    now: float
    fact: Fact
    effects: list[Effect]
    deadline: float  # thereafter
    used: tuple[int, ...]  # until then: the totals of usage


class World:
    """Plays steps to a session and remembers what happened."""

    def __init__(
        self,
        opening: SessionObject,
        *,
        salt: str = "t",
        now: float = 0.0,
        checkpoint: Checkpoint | None = None,
        limits: SessionLimits = LIMITS,
        brain: BrainFactory = CascadeBrain,
    ) -> None:
        models = dataclasses.replace(MODELS, failure_errors=True)
        self.session = Session(
            opening, models, limits, salt=salt, now=now, brain=brain, checkpoint=checkpoint
        )
        self.salt = salt
        self.now = now
        self.history: list[Moment] = []
        entries = checkpoint.entries if checkpoint else ()
        self.items: list[str] = [entry.item.id for entry in entries]
        self.responses: list[str] = []
        self.keys: list[TranscriptionKey] = []
        self._scores: list[VadScores] = []  # not given yet
        self._given: list[VadScores] = []
        self._finished: set[TranscriptionKey] = set()
        self._words: dict[
            TranscriptionKey, int
        ] = {}  # letters of WORDS that were recognised, by transcription

    def take_over(self, other: "World") -> None:
        """Copy ids, scores and transcripts of another, not its session and history."""
        self.items, self.responses, self.keys = [*other.items], [*other.responses], [*other.keys]
        self._scores, self._given = [*other._scores], [*other._given]
        self._finished, self._words = {*other._finished}, {**other._words}

    def play(self, steps: list[Step]) -> list[Moment]:
        for step in steps:
            self.now += step.seconds
            fact = self._fact(step)
            if fact is not None:
                self.tell(fact)
        return self.history

    def tell(self, fact: Fact) -> list[Effect]:
        effects = self.session.handle(fact, self.now)
        self.record(fact, effects)
        return effects

    def record(self, fact: Fact, effects: list[Effect]) -> None:
        """Keep a fact with its effects."""
        total = self.session.usage
        used = (total.responses, total.input_tokens, total.output_tokens, total.transcribed_seconds)
        self.history.append(Moment(self.now, fact, effects, self.session.deadline, used))
        for effect in effects:
            self._notice(effect)

    def _notice(self, effect: Effect) -> None:
        match effect:
            case Send(event=says.ItemAdded(item=item) | says.OutputItemAdded(item=item)):
                self.items.append(item.id)
            case Send(event=says.SpeechStarted(item_id=item_id)):
                self.items.append(item_id)
            case Send(event=says.ResponseCreated(response=response)):
                self.responses.append(response.id)
            case RunVad():
                self._scores.append(vad_scores(effect))
            case StartTranscription(key=key):
                self.keys.append(key)
            case EndAudio(key=key):
                self._finished.add(key)

    def _fact(self, step: Step) -> Fact | None:
        n, m = step.n, step.m
        match step.kind:
            case "vad":
                if not self._scores:
                    return None
                self._given.append(self._scores.pop(0))
                return self._given[-1]
            case "vad again":
                return pick(self._given, n)
            case "turn score":
                return TurnScored(pick(self.items, n) or "item_x", m / 15)
            case "transcribe" | "transcript":
                last = step.kind == "transcript"
                return self._transcribed(pick(self.keys, n) or NO_KEY, m, final=last)
            case "transcription fails":
                return ItemTranscriptionFailed(pick(self.keys, n) or NO_KEY, "it is broken")
            case "timer" | "long wait":
                if self.session.deadline - self.now < (60.0 if step.kind == "timer" else 1e6):
                    self.now = max(self.now, self.session.deadline)
                return TimerFired()
            case "early timer":
                return TimerFired()
            case "drain":
                return DrainStarted() if n == 0 else None
            case "disconnect":
                return Disconnected() if n == 0 else None
            case "invalid":
                return InvalidFrame(InvalidRequest("No.", event_id=f"event_{n}"))
        return self._of_answer(step) or Received(self._event(step))

    def _transcribed(self, key: TranscriptionKey, m: int, *, final: bool) -> TranscriptUpdated:
        """A transcript only grows; the final one comes when all audio has."""
        self._words[key] = length = min(self._words.get(key, 0) + m, len(WORDS))
        final = final and (key in self._finished or key not in self.keys)
        return TranscriptUpdated(
            key, WORDS[:length], length if final else max(0, length - 3), final
        )

    def _of_answer(self, step: Step) -> Fact | None:
        response_id = pick(self.responses, step.n) or "resp_x"
        match step.kind:
            case "progress":
                return GenerationProgress(response_id)
            case "text":
                return TextGenerated(response_id, WORDS[: step.m])
            case "audio":
                return spoke(response_id, WORDS[: step.m], ms=250)
            case "tool call":
                return ToolCallStarted(response_id, step.m % 4, f"call_{step.m}", "wave")
            case "arguments":
                return ToolCallArguments(response_id, step.m % 4, "{}")
            case "generated":
                tokens = TokenCounts(step.m, step.n, step.m // 2) if step.m % 2 else None
                reason = ("stop", "stop", "length", "content_filter")[step.m % 4]
                return GenerationFinished(response_id, reason, tokens)  # type: ignore[arg-type]
            case "spoken":
                return OutputFinished(response_id)
            case "failure":
                stage = ("stt", "llm", "tts")[step.m % 3]
                return GenerationFailed(response_id, stage, "it is broken")  # type: ignore[arg-type]
        return None

    def _event(self, step: Step) -> asks.AnyClientEvent:
        n, m, known = step.n, step.m, pick(self.items, step.n) or "item_x"
        match step.kind:
            case "append":
                return asks.InputAudioAppend(audio=self._sound(n, m))
            case "commit":
                return asks.InputAudioCommit()
            case "clear":
                return asks.InputAudioClear()
            case "retrieve":
                return asks.ItemRetrieve(item_id=known)
            case "truncate":
                return asks.ItemTruncate(item_id=known, content_index=m // 8, audio_end_ms=m * 50)
            case "delete":
                return asks.ItemDelete(item_id=known)
            case "cancel":
                return asks.ResponseCancel(response_id=pick([*self.responses, "resp_x", None], m))
            case "update":
                return asks.SessionUpdate(session=PATCHES[n % len(PATCHES)])
            case "create" | "out of band":
                return asks.ResponseCreate(response=self._params(step))
        before = pick(["", "root", "gone", None, None, None, known], m)
        return asks.ItemCreate(item=self._item(step), previous_item_id=before)

    def _sound(self, n: int, m: int) -> bytes:
        sound = drawn(DRAWINGS[n % len(DRAWINGS)])
        return sound[: len(sound) - (m if m < 4 else 0)]  # now and then half a sample

    def _item(self, step: Step) -> Item:
        n, m = step.n, step.m
        item_id = pick(["", "", f"mine_{n}", pick(self.items, n) or ""], m)
        match step.kind:
            case "reserved id":
                number = 1 + 16 * n + m
                text = (InputText("stolen"),)
                return Message(id=f"item_{self.salt}{number:05x}", role="user", content=text)
            case "record":
                sound = (InputAudio(audio=drawn(DRAWINGS[m % 3])),) * (1 + n % 2)
                return Message(id=item_id or "", role="user", content=sound)
            case "call":
                return FunctionCall(id=item_id or "", call_id=f"call_{m}", name="wave")
            case "output":
                return FunctionCallOutput(id=item_id or "", call_id=f"call_{m}", output="done")
        if n % 4 == 3:
            return Message(id=item_id or "", role="assistant", content=(OutputText(WORDS[:n]),))
        return Message(id=item_id or "", role="user", content=(InputText(WORDS[:n]),))

    def _params(self, step: Step) -> ResponseParams | None:
        n, m = step.n, step.m
        if step.kind == "create":
            texts = ResponseParams(output_modalities=("text",), metadata={"n": str(n)})
            sound = AudioParams(output=AudioOutputParams(format=PCMU(), voice="ash"))
            aloud = ResponseParams(output_modalities=("audio",), audio=sound)
            wrong = ResponseParams(output_modalities=())
            return pick([None, None, texts, aloud, wrong], n)
        recording = Message(id="mine_1", role="user", content=(InputAudio(audio=drawn("####")),))
        listed: list[tuple[Item | ItemReference, ...] | None] = [
            None,
            (),
            (ItemReference(pick(self.items, m) or "gone"),),
            (recording, recording),
        ]
        return ResponseParams(conversation="none", input=pick(listed, n))


def pick(choices: list[T], n: int) -> T | None:
    """One of the choices, counted from the last one; None if there are none."""
    return choices[-1 - n % len(choices)] if choices else None
