"""Shared builders for the tests of the session core: sessions, audio, drawings, effects.

A drawing is one character a window of 32 ms: '#' speech, '.' silence, a digit d the probability
d / 10. Its audio carries the probability in its samples, so that any RunVad can be answered.
"""

from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET

from vivavoce.protocol import server as says
from vivavoce.protocol.client import (
    AnyClientEvent,
    InputAudioAppend,
    ItemCreate,
    ResponseCreate,
    SessionUpdate,
)
from vivavoce.protocol.items import FunctionTool, InputAudio, InputText, Item, Message, OutputAudio
from vivavoce.protocol.responses import Response, ResponseError, ResponseParams, Usage
from vivavoce.protocol.server import AnyServerEvent
from vivavoce.protocol.session import (
    PCM,
    Audio,
    AudioFormat,
    AudioInput,
    AudioOutput,
    RealtimeSession,
    ServerVad,
    SessionObject,
    SessionPatch,
    Transcription,
    TranscriptionAudio,
    TranscriptionSession,
    TurnDetection,
)
from vivavoce.session.brain import Shared
from vivavoce.session.cascade.turn_detection import WINDOW
from vivavoce.session.checkpoint import Checkpoint
from vivavoce.session.conversation import Conversation
from vivavoce.session.effects import (
    CleanAudio,
    Effect,
    EffectBuffer,
    EndAudio,
    Generate,
    Ids,
    RecordUsage,
    RunVad,
    Send,
)
from vivavoce.session.facts import (
    AudioCleaned,
    AudioGenerated,
    Fact,
    Received,
    SpokenWord,
    TimerFired,
    TranscriptionKey,
    TranscriptUpdated,
    VadScores,
)
from vivavoce.session.limits import SessionLimits
from vivavoce.session.options import AvailableModels, ModelInfo, Options
from vivavoce.session.playback import ClientPlayback, ServerPlayback
from vivavoce.session.shell import Session
from vivavoce.session.usage import UsageMeter

T = TypeVar("T")

VOICES = ModelInfo(voices=frozenset({"marin", "ash"}), default_voice="ash")
MODELS = AvailableModels(models={"gpt-realtime": VOICES, "local": VOICES}, default_model="local")
VAD = ServerVad()
TOOLS = tuple(FunctionTool(name) for name in ("wave", "dial", "add", "look", "get_weather"))
"""Functions that tests let a model call."""
WHISPER = Transcription(model="whisper-1")
PCM24 = PCM()
LIMITS = SessionLimits()
WORDS_MS = 100  # length of each word of an answer
TURN = "####" + 15 * "."  # 128 ms of speech and just enough silence to end it (500 ms)


def settings(
    *,
    turn_detection: TurnDetection | None = VAD,
    transcription: Transcription | None = None,
    input_format: AudioFormat = PCM24,
    output_format: AudioFormat = PCM24,
    voice: str = "marin",
    **fields: Any,
) -> RealtimeSession:
    """The settings of a conversation; `fields` are those of the session object itself."""
    audio = Audio(
        AudioInput(format=input_format, transcription=transcription, turn_detection=turn_detection),
        AudioOutput(format=output_format, voice=voice),
    )
    session = RealtimeSession(id="sess_1", model="gpt-realtime", audio=audio, tools=TOOLS)
    return msgspec.structs.replace(session, **fields)


def transcription_settings(
    *,
    turn_detection: TurnDetection | None = VAD,
    transcription: Transcription | None = WHISPER,
) -> TranscriptionSession:
    """The settings of a transcription session."""
    audio = AudioInput(transcription=transcription, turn_detection=turn_detection)
    return TranscriptionSession(id="sess_1", audio=TranscriptionAudio(audio))


def shared(
    session: SessionObject | None = None,
    *,
    models: AvailableModels | None = None,
    limits: SessionLimits = SessionLimits(),  # noqa: B008  frozen
    kept_bytes: int = 1_000_000,
    server_plays: bool = False,
) -> Shared:
    """What a brain shares with its shell, without either."""
    effects = EffectBuffer(Ids("t"))
    return Shared(
        options=Options(session or settings(), models or MODELS),
        conversation=Conversation(kept_bytes=kept_bytes),
        playback=ServerPlayback(effects) if server_plays else ClientPlayback(),
        effects=effects,
        usage=UsageMeter(effects),
        limits=limits,
    )


class Priced:
    """A nano-USD for each token or second, and two for each second that the session lasts."""

    def cost(self, record: RecordUsage) -> int:
        used = record.usage
        return used.total_tokens if isinstance(used, Usage) else used.seconds

    def time_cost(self, seconds: float) -> int:
        return round(2 * seconds)


def a_session(
    opening: SessionObject | None = None,
    *,
    offer: AvailableModels = MODELS,
    limits: SessionLimits = LIMITS,
    checkpoint: Checkpoint | None = None,
    salt: str = "t",
    now: float = 0.0,
    **chosen: Any,
) -> Session:
    """A session that has begun. `chosen` goes to settings()."""
    session = Session(
        opening or settings(**chosen), offer, limits, salt=salt, now=now, checkpoint=checkpoint
    )
    session.begin()
    return session


def receive(session: Session, event: AnyClientEvent, now: float = 0.0) -> list[Effect]:
    """The client sends an event."""
    return tell(session, Received(event), now=now)


def update(session: Session, patch: SessionPatch, now: float = 0.0) -> list[Effect]:
    """The client changes settings."""
    return receive(session, SessionUpdate(session=patch), now)


def drawn(pattern: str) -> bytes:
    """The audio of a drawing, PCM at 24 kHz."""
    levels = [{"#": 900, ".": 100}.get(c) or int(c) * 100 for c in pattern]
    return np.repeat(np.array(levels, "<i2"), WINDOW).tobytes()


SPOKEN = drawn("####")


def vad_scores(effect: RunVad) -> VadScores:
    """The scores of the audio of a drawing."""
    windows = np.frombuffer(effect.audio, "<i2").reshape(-1, WINDOW)
    return VadScores(effect.at, tuple(float(level) for level in windows.mean(axis=1) / 1000))


def hear(session: Session, pattern: str, now: float = 0.0) -> list[Effect]:
    """Audio of a drawing comes, one append a window; every RunVad is answered at once."""
    return hear_sound(session, (drawn(window) for window in pattern), now)


def hear_sound(session: Session, pieces: Iterable[bytes], now: float = 0.0) -> list[Effect]:
    """Audio comes in these pieces; every RunVad and CleanAudio is answered at once."""
    effects: list[Effect] = []
    for piece in pieces:
        new = receive(session, InputAudioAppend(audio=piece), now)
        for effect in new:
            if isinstance(effect, CleanAudio):
                new = new + tell(session, AudioCleaned(effect.audio), now=now)
        effects += new
        for effect in new:
            if isinstance(effect, RunVad):
                effects += tell(session, vad_scores(effect), now=now)
    return effects


def transcribe(
    session: Session, effects: list[Effect], text: str, now: float = 0.0
) -> list[Effect]:
    """The final transcript of every recording that these effects end."""
    return [
        effect
        for finish in effects
        if isinstance(finish, EndAudio)
        for effect in tell(session, TranscriptUpdated(finish.key, text, len(text), True), now=now)
    ]


def say(session: Session, text: str, pattern: str = TURN, now: float = 0.0) -> list[Effect]:
    """The user takes a turn with these words."""
    effects = hear(session, pattern, now)
    return effects + transcribe(session, effects, text, now)


def write(session: Session, text: str, now: float = 0.0) -> list[Effect]:
    """The client adds a text of the user and requests a response."""
    item = Message(role="user", content=(InputText(text=text),))
    return receive(session, ItemCreate(item=item), now) + ask(session, now=now)


def ask(session: Session, now: float = 0.0, **params: Any) -> list[Effect]:
    """The client requests a response."""
    return receive(session, ResponseCreate(response=ResponseParams(**params)), now)


def spoke(response_id: str, text: str, *, begin: int = 0, ms: int = WORDS_MS) -> AudioGenerated:
    """Audio of an answer: its words, each of `ms`, from sample `begin` of the answer on."""
    length = ms * 24
    texts = [f"{word} " for word in text.split()]
    words = tuple(SpokenWord(word, begin + n * length) for n, word in enumerate(texts))
    return AudioGenerated(response_id, b"\x01\x00" * length * len(words), words)


def events(effects: list[Effect]) -> list[AnyServerEvent]:
    """Events that are sent to the client."""
    return [effect.event for effect in effects if isinstance(effect, Send)]


def types(effects: list[Effect]) -> list[str]:
    """Types of the events that are sent to the client."""
    return [str(type(event).__struct_config__.tag) for event in events(effects)]


def of(kind: type[T], effects: list[Effect]) -> list[T]:
    """All effects, or events sent, of one kind."""
    found = [effect.event if isinstance(effect, Send) else effect for effect in effects]
    return [one for one in found if isinstance(one, kind)]


def the(kind: type[T], effects: list[Effect]) -> T:
    """The one effect, or event sent, of that kind."""
    found = of(kind, effects)
    assert len(found) == 1, f"{len(found)} of {kind.__name__} in {effects}"
    return found[0]


def tell(session: Session, *facts: Fact, now: float = 0.0) -> list[Effect]:
    """The effects of facts at one time, without those for observers."""
    return [
        effect
        for fact in facts
        for effect in session.handle(fact, now)
        if not isinstance(effect, RecordUsage)
    ]


def wake(session: Session, now: float | None = None) -> list[Effect]:
    """The timer of the session fires at its deadline, or at that time."""
    return tell(session, TimerFired(), now=session.deadline if now is None else now)


def done(effects: list[Effect]) -> Response:
    return the(says.ResponseDone, effects).response


def without_audio(item: Item) -> Item:
    """An item as a restored session has it: audio is not saved."""
    if not isinstance(item, Message):
        return item
    content = tuple(
        msgspec.structs.replace(part, audio=UNSET)
        if isinstance(part, InputAudio | OutputAudio)
        else part
        for part in item.content
    )
    return msgspec.structs.replace(item, content=content)


def problem(effects: list[Effect]) -> tuple[str | None, str]:
    error = the(says.ErrorEvent, effects).error
    return error.code, error.message


def answered(effects: list[Effect]) -> str:
    """The id of the one response whose generation is requested."""
    return the(Generate, effects).response_id


def texts(items: tuple[Item, ...]) -> list[str | None]:
    """The text of each part of the messages, as a model reads it."""
    return [
        getattr(part, "text", None) or getattr(part, "transcript", None)
        for item in items
        if isinstance(item, Message)
        for part in item.content
    ]


def kept(session: Session) -> list[str | None]:
    """The texts of the conversation, as a model would read them now."""
    return texts(the(Generate, ask(session, conversation="none")).prompt.items)


def record(session: Session, item_id: str, pcm: bytes = SPOKEN, now: float = 0.0) -> list[Effect]:
    """The client adds a recording to the conversation."""
    item = Message(id=item_id, role="user", content=(InputAudio(audio=pcm),))
    return receive(session, ItemCreate(item=item), now)


def final(key: TranscriptionKey | str, text: str) -> TranscriptUpdated:
    """The last transcript of a recording, or of the first one of an item."""
    key = key if isinstance(key, TranscriptionKey) else TranscriptionKey(key)
    return TranscriptUpdated(key, text, len(text), True)


def failure(effects: list[Effect]) -> tuple[str, str]:
    """Code and reason of a failed response."""
    response = done(effects)
    assert (response.status, response.usage) == ("failed", Usage())
    assert response.status_details is not None
    error = response.status_details.error
    assert isinstance(error, ResponseError)
    return error.code, error.message
