"""The interface of a brain, the part of a session that decides what is said, and the state that it
shares with the session.

The shell (`Session`) owns what every client sees whatever answers it: settings, items, errors,
limits, expiry. A brain owns the audio input, the turns and the responses: the cascade on this
machine, or a relay to an upstream server. One can take over from another in mid-conversation.
"""

from collections.abc import Callable
from typing import Protocol, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from vivavoce.protocol.audio_frames import PassedAudio
from vivavoce.protocol.client import (
    InputAudioAppend,
    InputAudioClear,
    InputAudioCommit,
    OutputAudioClear,
    ResponseCancel,
    ResponseCreate,
)
from vivavoce.protocol.responses import SessionUsage
from vivavoce.session.conversation import Conversation, Entry
from vivavoce.session.effects import EffectBuffer
from vivavoce.session.endpointing import SpeakerPauses
from vivavoce.session.facts import BrainFact, Fact, TranscriptionKey
from vivavoce.session.limits import SessionLimits
from vivavoce.session.options import Options
from vivavoce.session.playback import Playback
from vivavoce.session.usage import UsageMeter

BrainEvent: TypeAlias = (
    InputAudioAppend
    | InputAudioCommit
    | InputAudioClear
    | ResponseCreate
    | ResponseCancel
    | OutputAudioClear
)
"""The client events that only a brain can carry out."""


class Shared(msgspec.Struct, frozen=True):
    """State that the shell and its brain both read and change."""

    options: Options
    conversation: Conversation
    playback: Playback
    effects: EffectBuffer
    usage: UsageMeter
    limits: SessionLimits
    pauses: SpeakerPauses = msgspec.field(default_factory=SpeakerPauses)
    """The language of the user in mid-turn."""
    announcements: list[str] = msgspec.field(default_factory=list)
    """Sentences that the server itself says, one at a time, as soon as nobody speaks."""
    sent_words: dict[TranscriptionKey, str] = msgspec.field(default_factory=dict)
    """What was sent as deltas of transcripts that the previous brain did not complete."""

    def shown_usage(self, now: float) -> SessionUsage | UnsetType:
        """The `x_usage` of a response.done."""
        return self.usage.so_far(now) if self.options.includes_usage else UNSET


class Handover(msgspec.Struct, frozen=True):
    """What one brain leaves to the next. Everything else is in Shared."""

    position: int = 0
    """Samples of microphone audio received in this session."""
    pending_audio: bytes = b""
    """The end of that audio, which is in no item yet: 16-bit mono PCM at 24 kHz."""
    turn_item_id: str | None = None
    """The id announced by `speech_started` for a turn that is still open."""
    owes_response: bool = False
    """Whether the user is still waiting for an answer."""
    cut_item_id: str = ""
    """The id of an answer that was cut off when the connection broke, and that is to be
    finished."""
    quiet_since: float | None = None
    """When the last answer ended; None if something came after it."""


class Brain(Protocol):
    """Decides what is said. No I/O and no clock: it adds effects to Shared.effects.

    The shell calls settle() after each fact. InvalidRequest raised by on_client() becomes an
    `error` event.
    """

    @property
    def deadline(self) -> float:
        """When on_timer() is due if nothing else happens; infinite: never."""
        ...

    @property
    def busy(self) -> bool:
        """Whether a response is in progress or due."""
        ...

    @property
    def pristine(self) -> bool:
        """Whether no audio was received and no response was requested yet."""
        ...

    @property
    def turn_open(self) -> bool:
        """Whether a turn of the user is in progress, or still has to be answered."""
        ...

    @property
    def transcribing(self) -> bool:
        """Whether a complete recording still lacks its transcript."""
        ...

    @property
    def position(self) -> int:
        """Samples of microphone audio received in this session, at 24 kHz."""
        ...

    @property
    def quiet_since(self) -> float | None:
        """When the last answer ended; None if something came after it."""
        ...

    @property
    def owes_response(self) -> bool:
        """Whether the user is waiting for an answer, or for the rest of one."""
        ...

    @property
    def at_rest(self) -> bool:
        """Whether nobody speaks, nothing is being transcribed, and no response is in progress."""
        ...

    @property
    def reserved_id(self) -> str | None:
        """The item id that was announced to the client before its item is in the conversation."""
        ...

    def attach(self, handover: Handover, now: float) -> None:
        """Begin a session, or take over from another brain."""
        ...

    def detach(self, now: float) -> Handover:
        """Send the events that end what is open, stop all work, and return what the next brain
        needs."""
        ...

    def pass_input(self, frame: bytes, now: float) -> PassedAudio | None:
        """The audio of a frame of a GA client that no rule touches, so that it can go upstream as
        it is; it is counted. None changes nothing: the caller decodes the frame."""
        ...

    def append_of(self, frame: bytes) -> InputAudioAppend | None:
        """Decode a frame of a GA client if its bytes are those of an append like the one before it.

        None: the caller decodes the frame. Not used by a brain that passes frames on.
        """
        ...

    def pass_output(self, frame: bytes, now: float) -> PassedAudio | None:
        """The same for a frame of the upstream server that goes to the client."""
        ...

    def continue_audio(self, fact: Fact, now: float) -> bool:
        """A short path for audio, and for scores of windows, that change no state but their own.

        True: only the effects of this fact follow, no deadline has moved nearer, and settle() need
        not be called. False: nothing was done; use the ordinary method.
        """
        ...

    def on_client(self, event: BrainEvent, raw: bytes | None, now: float) -> None:
        """Carry out a client event. Raises InvalidRequest, in which case nothing was changed."""
        ...

    def on_audio(self, audio: bytes, now: float) -> None:
        """Take microphone audio of a media track: 16-bit mono PCM at 24 kHz."""
        ...

    def on_settings(self, now: float) -> None:
        """The client has changed settings of the session."""
        ...

    def on_item_added(self, entry: Entry, previous_item_id: str | None, now: float) -> None:
        """The client has added an item to the conversation."""
        ...

    def on_item_deleted(self, item_id: str, now: float) -> None:
        """The client has deleted an item."""
        ...

    def on_item_truncated(self, item_id: str, audio_end_ms: int, now: float) -> None:
        """The client has stopped playing an answer at that position."""
        ...

    def on_fact(self, fact: BrainFact, now: float) -> None:
        """Take what a performer reports. Facts of another kind of brain are ignored."""
        ...

    def on_timer(self, now: float) -> None:
        """Do what is due at `now`."""
        ...

    def settle(self, now: float) -> None:
        """Do what is due after any fact."""
        ...

    def drain(self) -> None:
        """Finish what is under way, and begin nothing by itself: the server shuts down."""
        ...

    def stop(self, now: float) -> None:
        """End every response, because the session closes."""
        ...


CONTINUE_INSTRUCTIONS = (
    "The connection broke off while you were speaking. Your last message is what the user has "
    "heard of it. Go on from there, without a greeting and without repeating it."
)
"""Added to the instructions of a response that continues an answer which was cut off."""

BrainFactory: TypeAlias = Callable[[Shared], Brain]
