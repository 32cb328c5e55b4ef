"""Runs the session of a recorded call again, with the facts and the times that were recorded.

A session is a pure function of them, so it makes the same effects, as far as the recording has all
that they follow from: see docs/recorder.md for what it has not.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from vivavoce.errors import RecordingError
from vivavoce.replay.levels import facts_of
from vivavoce.session.cascade.brain import CascadeBrain
from vivavoce.session.effects import Effect
from vivavoce.session.facts import Fact
from vivavoce.session.limits import SessionLimits
from vivavoce.session.options import AvailableModels, ModelInfo
from vivavoce.session.policy import Rules
from vivavoce.session.relay.brain import RelayBrain
from vivavoce.session.shell import Session
from vivavoce.telemetry.faults import FaultWatch
from vivavoce.telemetry.recorder import RecorderSettings
from vivavoce.telemetry.recording import (
    CallHeader,
    CallRecording,
    RecordedEntry,
    RecordedFault,
    Redaction,
    clean_line,
    light_effect,
    redacted,
    text_frame,
)


@dataclass(frozen=True, slots=True)
class ReplayedMoment:
    """A fact and what the session made of it."""

    at: float
    fact: Fact | None
    effects: list[Effect]
    raised: str = ""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The first entry of a recording whose effects are other ones now."""

    at: float
    fact: str
    recorded: list[Any]
    replayed: list[Any]


@dataclass(slots=True)
class ReplayedCall:
    """A call that was run again."""

    recording: CallRecording
    moments: list[ReplayedMoment] = field(default_factory=list)
    mismatch: Mismatch | None = None
    """None: the effects are those of the recording."""
    simulated: bool = False
    """Whether answers of engines were moved to where they are asked for now."""

    @property
    def faults(self) -> list[RecordedFault]:
        """What goes wrong in it."""
        header = self.recording.header
        watch = FaultWatch(header.session, RecorderSettings().silent_seconds)
        for moment in self.moments:
            if moment.raised:
                watch.add("crash", moment.at, moment.raised)
            watch.on(moment.fact, moment.effects, moment.at)
        if self.moments:
            watch.end(self.moments[-1].at)
        return watch.faults


class ReplayedNames:
    """Gives the answers that the engines of a model gave to lookups of names."""

    def __init__(self, model: str, answers: Mapping[tuple[str, str, tuple[str, ...]], str]) -> None:
        self._model = model
        self._answers = answers

    def transcription_model(self, asked: str) -> str:
        return self._answer("transcription_model", asked)

    def other_language(self, asked: str, language: str) -> str:
        return self._answers.get((self._model, "other_language", (asked, language)), "")

    def speech_model(self, asked: str) -> str:
        return self._answer("speech_model", asked)

    def voice(self, name: str, speech_model: str = "") -> str:
        return self._answer("voice", name, speech_model)

    def _answer(self, lookup: str, *asked: str) -> str:
        return self._answers.get((self._model, lookup, asked), asked[0])


class ReplayedSession:
    """The session of a recording, at its beginning."""

    def __init__(self, header: CallHeader, limits: SessionLimits | None = None) -> None:
        """limits: in place of those of the recording. Raises RecordingError."""
        if header.dropped:
            raise RecordingError(
                f"{header.id} cannot be replayed: the recorder dropped its first "
                f"{header.dropped} entries; raise [recorder] memory_mb"
            )
        self.answers: dict[tuple[str, str, tuple[str, ...]], str] = {}
        self._header = header
        self._limits = limits or header.limits
        self._made: Session | None = None

    @property
    def session(self) -> Session:
        """Made at its first use: lookups of names that were recorded before come first."""
        if self._made is None:
            header = self._header
            self._made = Session(
                header.session,
                self._models(),
                self._limits,
                salt=header.salt,
                now=header.now,
                server_plays=header.server_plays,
                brain=RelayBrain if header.relays else CascadeBrain,
                checkpoint=header.checkpoint,
            )
        return self._made

    def note(self, entry: RecordedEntry) -> None:
        """Take an entry that is an answer to a lookup."""
        assert entry.lookup is not None
        self.answers[entry.lookup] = entry.answer

    def swap(self, entry: RecordedEntry) -> list[Effect]:
        """Another brain takes over."""
        brain = RelayBrain if entry.brain == "relay" else CascadeBrain
        last, first = self.session.swap(brain, entry.at, model=entry.model)
        return last + first

    def pass_frame(self, entry: RecordedEntry) -> bool:
        """Whether a frame passes now as it did."""
        frame = text_frame(entry.frame)
        if entry.passed == "input":
            return self.session.pass_input(frame, entry.at) is not None
        return self.session.pass_output(frame, entry.at) is not None

    def _models(self) -> AvailableModels:
        header = self._header
        key_models = None if header.key_models is None else frozenset(header.key_models)
        return AvailableModels(
            {
                name: ModelInfo(
                    None if info.voices is None else frozenset(info.voices),
                    info.default_voice,
                    ReplayedNames(name, self.answers) if info.has_names else None,
                    info.turn_samples,
                    info.transcribes_at_end,
                    info.decodes_pauses,
                )
                for name, info in header.models.items()
            },
            header.default_model,
            header.lock_voice,
            header.failure_errors,
            header.aliases,
            header.interruption,
            Rules(header.policy, key_models, header.tools),
            header.turns,
            header.speaker_gate,
        )


def replayed_exactly(recording: CallRecording) -> ReplayedCall:
    """Give the session its facts at their times; stop at the first mismatch.

    Raises RecordingError.
    """
    call, session = ReplayedCall(recording), ReplayedSession(recording.header)
    kinds, swap = recording.header.redacted, None
    for entry, fact in facts_of(recording):
        if entry.lookup is not None:
            session.note(entry)
        elif entry.brain:
            swap = entry
        elif entry.passed:
            if not session.pass_frame(entry):
                what = f"a frame passes ({entry.passed})"
                call.mismatch = Mismatch(entry.at, what, [entry.frame], ["it is decoded"])
        elif entry.faults is None:
            moment = _moment(session, entry, fact, swap)
            swap = None
            call.moments.append(moment)
            call.mismatch = _compared(entry, moment, kinds)
        if call.mismatch:
            break
    return call


def _moment(
    session: ReplayedSession, entry: RecordedEntry, fact: Fact | None, swap: RecordedEntry | None
) -> ReplayedMoment:
    if fact is not None:
        return performed(lambda: session.session.handle(fact, entry.at), fact, entry.at)
    if swap is not None:
        return performed(lambda: session.swap(swap), None, entry.at)
    return performed(lambda: session.session.begin(), None, entry.at)


def performed(work: Callable[[], list[Effect]], fact: Fact | None, at: float) -> ReplayedMoment:
    """What a session makes of a fact; an exception that it raises is a result, too."""
    try:
        return ReplayedMoment(at, fact, work())
    except Exception as exc:  # noqa: BLE001  the fault that is looked for
        return ReplayedMoment(at, fact, [], f"{type(exc).__name__}: {exc}")


def _compared(
    entry: RecordedEntry, moment: ReplayedMoment, kinds: tuple[Redaction, ...]
) -> Mismatch | None:
    recorded: list[Any] = [list(effect) for effect in entry.effects]
    replayed = kept_effects(moment.effects, kinds)
    if (recorded, entry.raised) == (replayed, moment.raised):
        return None
    return Mismatch(
        entry.at,
        entry.fact or "(a brain begins)",
        recorded + ([f"raised {entry.raised}"] if entry.raised else []),
        replayed + ([f"raised {moment.raised}"] if moment.raised else []),
    )


def kept_effects(effects: list[Effect], kinds: tuple[Redaction, ...]) -> list[Any]:
    """Effects as a recording keeps them."""
    light = [(type(effect).__name__, light_effect(effect)) for effect in effects]
    tree: Any = msgspec.to_builtins(light)
    data = msgspec.json.encode(redacted(tree, kinds) if kinds else tree)
    kept: list[Any] = msgspec.json.decode(clean_line(data))
    return kept
