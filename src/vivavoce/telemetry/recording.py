"""The format of a recorded call: JSON lines, versioned.

The first line is the CallHeader: what the session began with. Each further line is a RecordedEntry:
a fact with its time and its effects, in order. Times are seconds of the clock that the session was
given, exact, so that a replay makes the same comparisons. Audio stands as base64, or as the number
of its bytes where it was not kept.
"""

import base64
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import msgspec
import numpy as np
from msgspec.structs import replace

from vivavoce.audio.formats import BYTES_PER_SAMPLE
from vivavoce.errors import InvalidRequest, RecordingError
from vivavoce.protocol.client import InputAudioAppend, ItemCreate, ResponseCreate
from vivavoce.protocol.items import FunctionTool
from vivavoce.protocol.server import ItemRetrieved, OutputAudioDelta
from vivavoce.protocol.session import SessionObject
from vivavoce.protocol.upstream import read_upstream
from vivavoce.session.cascade.turn_detection import (
    MIN_CROSSINGS,
    MIN_RISING,
    RISE_WINDOWS,
    RISING,
    WINDOW,
    crossings,
)
from vivavoce.session.checkpoint import Checkpoint
from vivavoce.session.effects import (
    AddEchoReference,
    CleanAudio,
    Effect,
    FeedAudio,
    Generate,
    PlayAudio,
    Prompt,
    RunVad,
    Say,
    ScoreTurn,
    Send,
    SendRaw,
    SendUpstream,
    Speculate,
)
from vivavoce.session.endpointing import TurnSettings
from vivavoce.session.facts import (
    AudioArrived,
    AudioCleaned,
    AudioGenerated,
    Fact,
    InvalidFrame,
    Received,
    UpstreamConnected,
    UpstreamEventReceived,
    VadScores,
)
from vivavoce.session.interruption import InterruptionSettings
from vivavoce.session.limits import SessionLimits
from vivavoce.session.policy import Policy
from vivavoce.session.speaker_gate import SpeakerGateSettings

FORMAT = "vivavoce-recording"
VERSION = 1
MAX_LEVEL_BYTES = 256 * 1024
"""The microphone audio that is kept until its scores arrive, to measure its level: five seconds."""
ONSET_SCORES = 12
"""In a row that may be of speech: after so many a turn has begun, and the level is not needed."""
Redaction: TypeAlias = Literal["words", "numbers"]
FaultKind: TypeAlias = Literal["crash", "error", "failover", "silence"]


class RecordedModel(msgspec.Struct, frozen=True, kw_only=True):
    """What a session needs to know of a configured model: see session.options.ModelInfo."""

    voices: tuple[str, ...] | None
    default_voice: str
    turn_samples: int = 0
    transcribes_at_end: bool = False
    decodes_pauses: bool = False
    has_names: bool = False
    """Whether its engines decide on names of models of speech: their answers are entries."""


class CallHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The first line: with it and the facts a session can be run again."""

    format: str = FORMAT
    version: int = VERSION
    server: str
    """The version of the package that recorded it."""
    id: str
    began_at: float
    """Unix seconds."""
    now: float
    """The same moment on the clock of the entries."""
    salt: str
    relays: bool
    """Whether its first brain is the relay."""
    server_plays: bool
    session: SessionObject
    limits: SessionLimits
    models: dict[str, RecordedModel]
    default_model: str
    lock_voice: bool = False
    failure_errors: bool = False
    aliases: dict[str, tuple[str, ...]] = {}
    interruption: InterruptionSettings = InterruptionSettings()
    turns: TurnSettings = TurnSettings()
    speaker_gate: SpeakerGateSettings = SpeakerGateSettings()
    policy: Policy | None = None
    key_models: tuple[str, ...] | None = None
    tools: tuple[FunctionTool, ...] = ()
    audio: bool = False
    redacted: tuple[Redaction, ...] = ()
    checkpoint: Checkpoint | None = None
    """From which it went on; None: it was new."""
    dropped: int = 0
    """Entries behind the first line that did not fit into the memory of the recorder."""


class RecordedFault(msgspec.Struct, frozen=True):
    """Something that went wrong in a call."""

    kind: FaultKind
    at: float
    detail: str


class RecordedEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line: a fact, a frame that passed, the answer to a lookup of a name, or the end."""

    at: float
    fact: str = ""
    """The name of its class. Empty: the session began, or another brain took over."""
    fields: Any = None
    effects: tuple[tuple[str, Any], ...] = ()
    """The name of the class of each, and its fields."""
    levels: tuple[tuple[int, tuple[float, ...]], ...] = ()
    """Of microphone audio that is not kept: a position in samples, and the root mean squares of the
    windows of 32 ms from there on. Only where speech may begin."""
    raised: str = ""
    """The exception that the session raised in place of returning effects."""
    brain: Literal["", "cascade", "relay"] = ""
    """The brain that took over."""
    model: str = ""
    """Its model."""
    passed: Literal["", "input", "output"] = ""
    """A frame that a relay passed on without decoding it: from the client, or to it."""
    frame: str = ""
    lookup: tuple[str, str, tuple[str, ...]] | None = None
    """Model, method of session.options.EngineNames, and arguments."""
    answer: str = ""
    faults: tuple[RecordedFault, ...] | None = None
    """In the last line: what went wrong."""


class CallRecording(msgspec.Struct, frozen=True):
    """A recorded call."""

    header: CallHeader
    entries: tuple[RecordedEntry, ...]

    @property
    def faults(self) -> tuple[RecordedFault, ...]:
        """What went wrong, as the recorder saw it."""
        return self.entries[-1].faults or () if self.entries else ()


_FACTS: dict[str, Any] = {kind.__name__: kind for kind in get_args(Fact)}
_AUDIO: dict[type, str] = {
    AudioArrived: "audio",
    AudioCleaned: "audio",
    AudioGenerated: "audio",
    RunVad: "audio",
    FeedAudio: "audio",
    ScoreTurn: "audio",
    PlayAudio: "audio",
    CleanAudio: "audio",
    AddEchoReference: "audio",
    InputAudioAppend: "audio",
    OutputAudioDelta: "delta",
}
"""The field of a fact, an effect or an event that is audio."""
_NESTED = (ItemCreate, ResponseCreate, ItemRetrieved)
"""Events with items, in which audio may be."""
_PROMPTED = (Generate, Speculate, Say)
_RAW_AUDIO = re.compile(rb'"(audio|delta)"(\s*:\s*)"([A-Za-z0-9+/]{16,}={0,2})"')
_RAW_DELTA = re.compile(rb'"response\.(?:output_)?audio\.delta"')
_RAW_SIZE = re.compile(r'"(audio|delta)"(\s*:\s*)"\((\d+) bytes\)"')


class OnsetLevels:
    """The levels of the windows in which speech may begin, for a replay without the audio.

    The level of a window that hisses is negative.
    """

    def __init__(self) -> None:
        self._chunks: list[RunVad] = []
        self._bytes = 0
        self._needed = 0  # no level before this position will be needed: scores come in order
        self._loud = 0  # scores in a row that may be of speech

    def add(self, chunk: RunVad) -> None:
        """These windows are to be scored."""
        chunks = self._chunks
        chunks.append(chunk)
        self._bytes += len(chunk.audio)
        while len(chunks) > 1 and (
            self._bytes > MAX_LEVEL_BYTES
            or chunks[0].at + len(chunks[0].audio) // BYTES_PER_SAMPLE <= self._needed
        ):
            self._bytes -= len(chunks.pop(0).audio)

    def scored(self, scores: VadScores) -> list[tuple[int, list[float]]]:
        """The levels that belong to an entry; none where nobody begins to speak."""
        if (first := scores.at - RISE_WINDOWS * WINDOW) > self._needed:
            self._needed = first
        speech = max(scores.speech, default=0.0)
        if speech <= RISING:
            self._loud = 0
            return []
        self._loud += speech >= MIN_RISING
        if self._loud > ONSET_SCORES:
            return []
        first, last = self._needed, scores.at + len(scores.speech) * WINDOW
        found = []
        for chunk in self._chunks:
            if chunk.at + len(chunk.audio) // BYTES_PER_SAMPLE > first and chunk.at < last:
                windows = np.frombuffer(chunk.audio, "<i2").reshape(-1, WINDOW)
                samples = windows.astype(np.float32)
                levels = np.sqrt(np.vecdot(samples, samples) / WINDOW)
                levels[crossings(windows) >= MIN_CROSSINGS] *= -1
                found.append((chunk.at, [round(level, 2) for level in levels.tolist()]))
                self._needed = chunk.at + len(windows) * WINDOW
        return found


def light_fact(fact: Fact, *, audio: bool, raw: bool) -> Any:
    """A fact as it is kept: without audio unless `audio`; frames of the client only if `raw`."""
    if type(fact) is VadScores:  # most of them
        return fact
    match fact:
        case Received(event=event, raw=frame):
            kept: Any = frame_text(frame, audio=audio) if raw and frame is not None else None
            light: Any = event if audio else _light(event)
            return {**light, "raw": kept} if isinstance(light, dict) else Received(light, kept)
        case InvalidFrame(problem=problem):
            return {
                "problem": {
                    "message": problem.message,
                    "code": problem.code,
                    "param": problem.param,
                    "event_id": problem.event_id,
                }
            }
        case UpstreamEventReceived(raw=frame):
            return {"raw": frame_text(frame, audio=audio)}
        case _:
            return fact if audio else _light(fact)


def light_effect(effect: Effect) -> Any:
    """An effect as it is kept: always without audio, and with a summary of what a model gets."""
    if type(effect) in _AUDIO:  # most of them
        return _light(effect)
    match effect:
        case Send(event=event):
            light = _light(event)
            return {"event": light["event"]} if isinstance(light, dict) else Send(light)
        case SendRaw(data=data) | SendUpstream(data=data):
            return {"data": frame_text(data, audio=False)}
        case _ if isinstance(effect, _PROMPTED):
            return _prompted(effect)
        case _:
            return _light(effect)


def _light(value: Any) -> Any:
    """Audio replaced by the number of its bytes: the same struct, or {"event": builtins}."""
    if field := _AUDIO.get(type(value)):
        return replace(value, **{field: len(getattr(value, field))})
    if isinstance(value, _NESTED):
        return {"event": _without_audio(msgspec.to_builtins(value, builtin_types=(bytes,)))}
    return value


def _without_audio(tree: Any) -> Any:
    match tree:
        case bytes():
            return len(tree)
        case dict():
            return {name: _without_audio(value) for name, value in tree.items()}
        case list() | tuple():
            return [_without_audio(value) for value in tree]
    return tree


def _prompted(effect: Any) -> dict[str, Any]:
    """The order of a generation. Of its prompt the last item; the rest follows from the facts."""
    if isinstance(effect, Say):
        return {"response_id": effect.order.response_id, "text": effect.text}
    prompt: Prompt = effect.prompt
    kept = {name: getattr(effect, name) for name in effect.__struct_fields__ if name != "prompt"}
    last = msgspec.to_builtins(prompt.items[-1], builtin_types=(bytes,)) if prompt.items else None
    kept["prompt"] = {
        "model": prompt.model,
        "voice": prompt.voice,
        "spoken": prompt.spoken,
        "items": len(prompt.items),
        "last": _without_audio(last),
    }
    return kept


def frame_text(frame: bytes, *, audio: bool) -> str:
    """A JSON frame as text; its audio replaced by the number of its bytes unless `audio`."""
    if not audio:
        has_delta = _RAW_DELTA.search(frame) is not None

        def size(found: re.Match[bytes]) -> bytes:
            if found[1] == b"delta" and not has_delta:
                return found[0]
            length = len(found[3]) * 3 // 4 - found[3].count(b"=", -2)
            return b'"%s"%s"(%d bytes)"' % (found[1], found[2], length)

        frame = _RAW_AUDIO.sub(size, frame)
    return frame.decode(errors="replace")


def text_frame(text: str) -> bytes:
    """The frame of such a text, with silence in place of audio that was not kept."""
    return _RAW_SIZE.sub(
        lambda found: f'"{found[1]}"{found[2]}"{_silence(int(found[3]))}"', text
    ).encode()


@lru_cache(maxsize=64)
def _silence(size: int) -> str:
    return base64.b64encode(bytes(size)).decode()


def fact_of(entry: RecordedEntry) -> Fact:
    """The fact of an entry that has one. Raises RecordingError."""
    kind, fields = _FACTS.get(entry.fact), entry.fields or {}
    if kind is None or not isinstance(fields, dict):
        raise RecordingError(f"the recording has an unknown fact, {entry.fact[:80]!r}")
    try:
        if kind is InvalidFrame:
            return InvalidFrame(InvalidRequest(**fields["problem"]))
        if kind is UpstreamEventReceived:
            raw = text_frame(fields["raw"])
            return UpstreamEventReceived(read_upstream(raw), raw)
        if kind is UpstreamConnected and fields.get("expires_in") is None:
            return UpstreamConnected()  # JSON has no infinity
        if kind is Received:
            raw_text = fields.get("raw")
            event = {"event": _with_silence(fields["event"])}
            received: Received = msgspec.convert(event, Received)
            return replace(received, raw=text_frame(raw_text)) if raw_text else received
        fact: Fact = msgspec.convert(_with_silence(fields), kind)
    except (msgspec.ValidationError, KeyError, TypeError) as exc:
        raise RecordingError(f"the recording has a {entry.fact} that is not valid: {exc}") from exc
    return fact


def _with_silence(tree: Any) -> Any:
    """Numbers of bytes replaced by so much silence, base64."""
    match tree:
        case dict():
            return {
                name: _silence(value)
                if name == "audio" and type(value) is int
                else _with_silence(value)
                for name, value in tree.items()
            }
        case list():
            return [_with_silence(value) for value in tree]
    return tree


_SECRETS = re.compile(
    rb"\b(?:sk|ek|rk|xai|proj|org|vv)[-_][A-Za-z0-9_-]{12,}(?:\.[A-Za-z0-9_-]+)*"
    rb"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"
    rb"|(?<=[Bb]earer )[A-Za-z0-9._~+/=-]{8,}"
    rb"|(?<=://)[^/@\s\"]{1,200}:[^/@\s\"]{1,200}@"
)
_SPOKEN_NUMBER = re.compile(
    r"(?i)\b(?:zero|oh|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w{3,5}teen|"
    r"twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million)\b"
)
_DIGIT = re.compile(r"\d")
_LETTER = re.compile(r"[^\W\d_]")
_SAID = {
    *("text", "transcript", "instructions", "delta", "arguments", "output", "say", "prompt"),
    *("begins", "image_url", "description", "token", "words", "message"),
}
"""The fields in which words of people and of models stand."""


def redacted(tree: Any, kinds: tuple[Redaction, ...], said: str = "") -> Any:
    """The fields of a fact or an effect with what people and models say made unreadable.

    Letters become "x", digits "0"; lengths, spaces and punctuation stay, as the decisions of a
    session depend on them. numbers: English number words, too.
    """
    match tree:
        case dict() if said == "words":  # of the parts of an item, by their place
            return {part: redacted(value, kinds, said) for part, value in tree.items()}
        case dict():
            return {name: redacted(value, kinds, name) for name, value in tree.items()}
        case list() | tuple():  # the bytes of a token spell it
            return [] if said == "bytes" else [redacted(value, kinds, said) for value in tree]
        case str() if said in ("raw", "data", "frame") and tree.startswith("{"):
            return _redacted_frame(tree, kinds)
        case str() if said in _SAID and not _RAW_SIZE.search(f'"delta":"{tree}"'):
            return _masked(tree, kinds)
    return tree


def _redacted_frame(text: str, kinds: tuple[Redaction, ...]) -> str:
    try:
        tree = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return _masked(text, kinds)
    return msgspec.json.encode(redacted(tree, kinds)).decode()


def _masked(text: str, kinds: tuple[Redaction, ...]) -> str:
    if "numbers" in kinds:
        text = _SPOKEN_NUMBER.sub(lambda found: "0" * len(found[0]), text)
        text = _DIGIT.sub("0", text)
    if "words" in kinds:
        text = _LETTER.sub("x", text)
    return text


def clean_line(line: bytes) -> bytes:
    """A line without what looks like a key, a token or a password."""
    return _SECRETS.sub(b"***", line)


def encode_lines(recording: CallRecording) -> Iterator[bytes]:
    """The lines of a recording, each with its end."""
    for part in (recording.header, *recording.entries):
        yield clean_line(msgspec.json.encode(part)) + b"\n"


_entries = msgspec.json.Decoder(RecordedEntry)


def decode_lines(lines: Iterable[bytes], name: str) -> CallRecording:
    """A recording; `name` is that of the file. Raises RecordingError."""
    every = iter(lines)
    try:
        first = msgspec.json.decode(next(every, b""))
    except (msgspec.DecodeError, UnicodeError) as exc:
        raise RecordingError(f"{name} is no recording: its first line is not JSON") from exc
    if not isinstance(first, dict) or first.get("format") != FORMAT:
        raise RecordingError(f"{name} is no recording: its first line has no format {FORMAT!r}")
    version = first.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise RecordingError(
            f"{name} has version {version} of the format, and this vivavoce reads version "
            f"{VERSION}: install vivavoce {first.get('server', '')} or newer"
        )
    try:
        header = msgspec.convert(first, CallHeader, str_keys=True)
    except msgspec.ValidationError as exc:
        raise RecordingError(f"{name}, line 1: {exc}") from exc
    entries = []
    for number, line in enumerate(every, 2):
        try:
            entries.append(_entries.decode(line))
        except (msgspec.DecodeError, UnicodeError) as exc:
            raise RecordingError(f"{name}, line {number}: {exc}") from exc
    return CallRecording(header, tuple(entries))


def read_recording(path: Path) -> CallRecording:
    """The recording in a file. Raises RecordingError."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as exc:
        raise RecordingError(f"{path} cannot be read: {exc.strerror}") from exc
    return decode_lines(lines, str(path))
