"""The flight recorder: the last calls in memory, written to files when something fails.

Facts are kept as they come, without their audio unless that is asked for, encoded and compressed in
blocks: a call takes about 2 MB an hour. Files are written as JSON lines: see recording.py.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final, Self

import msgspec
from msgspec import Meta

from vivavoce.protocol.audio_frames import PassedAudio
from vivavoce.session.effects import Effect, RunVad
from vivavoce.session.facts import Fact, VadScores
from vivavoce.session.limits import SessionLimits
from vivavoce.session.options import AvailableModels, EngineNames
from vivavoce.session.shell import SessionStart
from vivavoce.telemetry.audio_entries import AUDIO_ENTRY, PIECE
from vivavoce.telemetry.entry_log import EntryLog, decoded
from vivavoce.telemetry.faults import FaultWatch
from vivavoce.telemetry.recording import (
    CallHeader,
    FaultKind,
    OnsetLevels,
    RecordedEntry,
    RecordedFault,
    RecordedModel,
    Redaction,
    clean_line,
    light_effect,
    light_fact,
    redacted,
)

log = logging.getLogger(__name__)

SLICE: Final = 64
"""How many entries are decoded and written before other tasks run."""
MAX_WAITING: Final = 100
"""Calls that may wait to be written; further ones are not written."""
STOP_TIMEOUT_S: Final = 5.0
"""The time at shutdown for calls that are still to be written."""
SUFFIX: Final = ".jsonl"


class RecorderSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[recorder]: the last calls, for `vivavoce replay`."""

    enabled: bool = True
    """Keep the last calls in memory."""
    sessions: Annotated[int, Meta(ge=1, le=10_000)] = 20
    """Calls that have ended, in memory."""
    memory_mb: Annotated[int, Meta(ge=1, le=65_536)] = 64
    """The memory for all calls; the oldest are dropped first."""
    folder: str = ""
    """Where calls are written in which something failed. Empty: nowhere."""
    max_files: Annotated[int, Meta(ge=1, le=1_000_000)] = 200
    """The most recordings in that folder; the oldest are deleted."""
    write_on: tuple[FaultKind, ...] = ("crash", "error", "failover", "silence")
    """Faults in a call for which it is written."""
    silent_seconds: Annotated[float, Meta(ge=1, le=3600)] = 20.0
    """If nothing comes for this long when an answer is due, that is `silence`."""
    audio: bool = False
    """Keep the audio of both sides."""
    redact: tuple[Redaction, ...] = ()
    """What is made unreadable: `words`: all letters of what was said; `numbers`: all digits and
    English number words."""

    def __post_init__(self) -> None:
        if self.audio and self.redact:
            raise ValueError(
                "audio and redact exclude each other, as the words can be heard: set one of them"
            )


class _RecordedNames:
    """Passes lookups of names on to the engines of a model, and records changes in their
    answers."""

    def __init__(self, model: str, names: EngineNames, call: "RecordedCall") -> None:
        self._model = model
        self._names = names
        self._call = call
        self._known: dict[tuple[str, ...], str] = {}

    def transcription_model(self, asked: str) -> str:
        answer = self._names.transcription_model(asked)
        return self._note(answer, "transcription_model", asked)

    def other_language(self, asked: str, language: str) -> str:
        answer = self._names.other_language(asked, language)
        return self._note(answer, "other_language", asked, language)

    def speech_model(self, asked: str) -> str:
        return self._note(self._names.speech_model(asked), "speech_model", asked)

    def voice(self, name: str, speech_model: str = "") -> str:
        return self._note(self._names.voice(name, speech_model), "voice", name, speech_model)

    def _note(self, answer: str, *asked: str) -> str:
        if self._known.get(asked) != answer:
            self._known[asked] = answer
            self._call.looked_up(self._model, asked[0], asked[1:], answer)
        return answer


class RecordedCall:
    """One call: an observer of its session, and the record of it."""

    def __init__(self, start: SessionStart, recorder: "Recorder") -> None:
        self.id = start.settings.id
        self.began_at = recorder.wall_clock()
        self.dropped = 0
        """How many entries did not fit into the memory."""
        self.ended = False
        self.models = replace(start.models, models=self._named(start.models))
        """The options that the session uses instead of its own, so that lookups of names are
        recorded."""
        self._start = start
        self._recorder = recorder
        self._relays = start.relays  # now
        self._audio = recorder.settings.audio
        self._levels = None if self._audio else OnsetLevels()
        self._watch = FaultWatch(start.settings, recorder.settings.silent_seconds)
        self._now = start.now
        self._log = EntryLog(recorder.grew, audio=self._audio)
        self._add = self._log.add

    @property
    def faults(self) -> list[RecordedFault]:
        """What went wrong so far."""
        return self._watch.faults

    @property
    def seconds(self) -> float:
        """From its beginning to its last fact."""
        return self._now - self._start.now

    def on(self, fact: Fact | None, effects: list[Effect], now: float) -> None:
        """See Observer."""
        self._now = now
        try:
            levels: Any = ()
            if self._levels is not None:
                if type(fact) is VadScores:
                    levels = self._levels.scored(fact)
                else:
                    for effect in effects:
                        if type(effect) is RunVad:
                            self._levels.add(effect)
            made = None if levels or self._audio or self._relays else AUDIO_ENTRY.get(type(fact))
            if made and len(effects) <= 1:
                entry = made(fact, effects[0] if effects else None, now)
                if entry is not None:
                    self._log.add_audio(entry)
                    if self._watch.due_since is not None:
                        self._watch.on_audio(now, answered=entry[0] == PIECE)
                    return
            self._keep(fact, effects, levels, now)
            self._watch.on(fact, effects, now)
        except Exception as exc:  # noqa: BLE001  a bug here must not end the call
            self._lose(exc)

    def _keep(self, fact: Fact | None, effects: list[Effect], levels: Any, now: float) -> None:
        kept = tuple([(type(effect).__name__, light_effect(effect)) for effect in effects])
        if fact is None:
            self._add((now, "", None, kept, ()))
        else:
            light = light_fact(fact, audio=self._audio, raw=self._relays)
            self._add((now, type(fact).__name__, light, kept, levels))

    def swapping(self, *, relays: bool, model: str, now: float) -> None:
        """Another brain takes over; on() follows."""
        self._relays = relays
        brain = "relay" if relays else "cascade"
        self._add({"at": now, "brain": brain, "model": model})

    def passed(self, frame: bytes, audio: PassedAudio, now: float, *, output: bool) -> None:
        """A relay has passed a frame on without decoding it."""
        self._now = now
        self._log.add_frame(frame, audio, now, output=output)
        if output:
            self._watch.due_since = None

    def looked_up(self, model: str, lookup: str, asked: tuple[str, ...], answer: str) -> None:
        """The engines of a model have answered what a name means."""
        self._add({"at": self._now, "lookup": (model, lookup, asked), "answer": answer})

    def failed(self, fact: Fact | None, exc: Exception, now: float) -> None:
        """The session, or a performer of its effects, has a bug.

        fact: the fact that the session was given.
        """
        self._now = now
        detail = f"{type(exc).__name__}: {exc}"
        try:
            if fact is not None:
                light = light_fact(fact, audio=self._audio, raw=self._relays)
                self._add(
                    {"at": now, "fact": type(fact).__name__, "fields": light, "raised": detail}
                )
        except Exception as bug:  # noqa: BLE001  as in on()
            self._lose(bug)
        self._watch.add("crash", now, detail)

    def leave(self) -> None:
        """The session has ended. Never waits."""
        if not self.ended:
            self.ended = True
            self._watch.end(self._now)
            self._recorder.keep(self)

    def _named(self, models: AvailableModels) -> dict[str, Any]:
        return {
            name: info
            if info.names is None
            else replace(info, names=_RecordedNames(name, info.names, self))
            for name, info in models.models.items()
        }

    def _lose(self, exc: Exception) -> None:
        """An entry could not be kept."""
        if not self.dropped:
            log.error("%s cannot be recorded", self.id, exc_info=exc)
        self.dropped += 1

    def drop_block(self) -> bool:
        """Drop the oldest part; False: no part is complete."""
        count = self._log.drop_block()
        self.dropped += count
        return count > 0

    def header(self) -> CallHeader:
        """The first line."""
        start, settings = self._start, self._recorder.settings
        models, rules = start.models, start.models.rules
        policy, key_models = (None, None) if rules is None else rules.source
        return CallHeader(
            server=self._recorder.version,
            id=self.id,
            began_at=self.began_at,
            now=start.now,
            salt=start.salt,
            relays=start.relays,
            server_plays=start.server_plays,
            session=start.settings,
            limits=_plain_limits(start.limits),
            models={name: _recorded_model(info) for name, info in models.models.items()},
            default_model=models.default_model,
            lock_voice=models.lock_voice,
            failure_errors=models.failure_errors,
            aliases=dict(models.aliases),
            interruption=models.interruption,
            turns=models.turns,
            speaker_gate=models.speaker_gate,
            policy=policy,
            key_models=None if key_models is None else tuple(sorted(key_models)),
            tools=() if rules is None else rules.tools,
            audio=settings.audio,
            redacted=settings.redact,
            checkpoint=start.checkpoint,
            dropped=self.dropped,
        )

    async def lines(self) -> AsyncIterator[bytes]:
        """The recording so far, some lines at a time. Other tasks run in between."""
        blocks = self._log.blocks()
        at, faults = self._now, tuple(self._watch.faults)
        yield self._line(msgspec.to_builtins(self.header(), str_keys=True))
        for block in blocks:
            entries = decoded(block)
            while lines := b"".join(self._line(entry) for entry in islice(entries, SLICE)):
                yield lines
                await asyncio.sleep(0)
        yield self._line(RecordedEntry(at=at, faults=faults))

    def _line(self, entry: Any) -> bytes:
        if (kinds := self._recorder.settings.redact) and isinstance(entry, dict):
            entry = redacted(entry, kinds)
        return clean_line(msgspec.json.encode(entry)) + b"\n"

    @property
    def bytes(self) -> int:
        """In memory."""
        return self._log.bytes

    def growth(self) -> int:
        """By how many bytes it has grown since the last time that the recorder was told."""
        return self._log.growth()


def _plain_limits(limits: SessionLimits) -> SessionLimits:
    """Without the settings of a server that may stand beside the limits."""
    return SessionLimits(**{name: getattr(limits, name) for name in _LIMITS})


_LIMITS = tuple(field.name for field in msgspec.structs.fields(SessionLimits))


def _recorded_model(info: Any) -> RecordedModel:
    return RecordedModel(
        voices=None if info.voices is None else tuple(sorted(info.voices)),
        default_voice=info.default_voice,
        turn_samples=info.turn_samples,
        transcribes_at_end=info.transcribes_at_end,
        decodes_pauses=info.decodes_pauses,
        has_names=info.names is not None,
    )


class CallSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A call in memory, for lists of them."""

    id: str
    began_at: float
    """Unix seconds."""
    seconds: float
    live: bool
    bytes: int
    """In memory."""
    dropped: int
    faults: tuple[RecordedFault, ...]


class Recorder:
    """Keeps the calls in progress and the last ones that have ended."""

    def __init__(
        self,
        settings: RecorderSettings,
        *,
        version: str = "",
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """version: of the package; it stands in each recording."""
        self.settings = settings
        self.version = version
        self.wall_clock = wall_clock
        self._live: dict[str, RecordedCall] = {}
        self._past: deque[RecordedCall] = deque()
        self._waiting: asyncio.Queue[RecordedCall] = asyncio.Queue(MAX_WAITING)
        self._writes = False
        self.bytes = 0
        """The memory of all calls, as it was when each of them completed a block."""

    def begin(self, start: SessionStart) -> RecordedCall:
        """Record a session."""
        call = RecordedCall(start, self)
        self._live[call.id] = call
        return call

    def keep(self, call: RecordedCall) -> None:
        """A call has ended."""
        if self._live.get(call.id) is call:  # otherwise it was resumed in the meantime
            del self._live[call.id]
        self._past.append(call)
        while len(self._past) > self.settings.sessions:
            self._drop_oldest()
        self.grew(call.growth())
        if any(fault.kind in self.settings.write_on for fault in call.faults):
            self._write_later(call)

    def grew(self, size: int) -> None:
        """A call has grown by so many bytes: drop the oldest calls, then the oldest parts of the
        longest, down to memory_mb."""
        self.bytes += size
        most = self.settings.memory_mb * 1024 * 1024
        while self.bytes > most and self._past:
            self._drop_oldest()
        while self.bytes > most and self._live:
            longest = max(self._live.values(), key=lambda call: call.bytes)
            before = longest.bytes
            if not longest.drop_block():
                break
            self.bytes -= before - longest.bytes

    def _drop_oldest(self) -> None:
        call = self._past.popleft()
        self.bytes += call.growth() - call.bytes

    def calls(self) -> list[CallSummary]:
        """The newest first."""
        return [
            CallSummary(
                id=call.id,
                began_at=call.began_at,
                seconds=call.seconds,
                live=not call.ended,
                bytes=call.bytes,
                dropped=call.dropped,
                faults=tuple(call.faults),
            )
            for call in sorted(self._calls(), key=lambda call: -call.began_at)
        ]

    def find(self, call_id: str) -> RecordedCall | None:
        """A call in memory; if the session was resumed, its last part."""
        return next((call for call in reversed(self._calls()) if call.id == call_id), None)

    def _calls(self) -> list[RecordedCall]:
        return [*self._past, *self._live.values()]

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Self]:
        """Write calls to the folder as they fail; at the end, the ones that are still to be
        written."""
        if not self.settings.folder:
            yield self
            return
        task = asyncio.create_task(self._write_all())
        self._writes = True
        try:
            yield self
        finally:
            self._writes = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await self._waiting.join()
            task.cancel()
            await asyncio.wait((task,))

    def _write_later(self, call: RecordedCall) -> None:
        if self._writes:
            try:
                self._waiting.put_nowait(call)
            except asyncio.QueueFull:
                log.warning("%s is not written: too many calls wait to be", call.id)

    async def _write_all(self) -> None:
        while True:
            call = await self._waiting.get()
            try:
                path = await self.write(call, Path(self.settings.folder))
                log.warning("%s: %s; written to %s", call.id, call.faults[0].detail, path)
            except OSError as exc:
                log.error("%s cannot be written: %s", call.id, exc)
            finally:
                self._waiting.task_done()

    async def write(self, call: RecordedCall, folder: Path) -> Path:
        """Write a call to a file of that folder. Raises OSError."""
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(call.began_at))
        path = folder / f"{stamp}-{call.id}{SUFFIX}"
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        file = await asyncio.to_thread(unfinished.open, "wb")
        try:
            async for lines in call.lines():
                await asyncio.to_thread(file.write, lines)
        finally:
            await asyncio.to_thread(file.close)
        await asyncio.to_thread(unfinished.replace, path)
        await asyncio.to_thread(self._delete_oldest, folder)
        return path

    def _delete_oldest(self, folder: Path) -> None:
        """Names begin with the time, so their order is that of the calls."""
        every = sorted(folder.glob(f"[0-9]*-sess_*{SUFFIX}"))
        for path in every[: max(0, len(every) - self.settings.max_files)]:
            path.unlink(missing_ok=True)
