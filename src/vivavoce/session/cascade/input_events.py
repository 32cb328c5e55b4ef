"""The events that a client gets about the turns of its user, and the items of these turns.

Positions are samples at 24 kHz since the session began.
"""

from msgspec import UNSET

from vivavoce.audio.formats import BYTES_PER_SAMPLE, to_ms
from vivavoce.protocol.items import InputAudio, Message
from vivavoce.protocol.server import (
    InputAudioCleared,
    InputAudioCommitted,
    ItemAdded,
    ItemDone,
    SpeechStarted,
    SpeechStopped,
    TimeoutTriggered,
    TurnDecision,
)
from vivavoce.session.brain import Shared
from vivavoce.session.conversation import Entry
from vivavoce.session.effects import RecordTurn


def send_started(shared: Shared, item_id: str, start: int) -> None:
    """A turn has begun."""
    effects = shared.effects
    effects.send(
        SpeechStarted(event_id=effects.event_id(), item_id=item_id, audio_start_ms=to_ms(start))
    )


def send_stopped(shared: Shared, item_id: str, end: int, decision: TurnDecision) -> None:
    """A turn has ended."""
    effects = shared.effects
    effects.send(
        SpeechStopped(
            event_id=effects.event_id(),
            item_id=item_id,
            audio_end_ms=to_ms(end),
            decision=decision if shared.options.explains_turns else UNSET,
        )
    )
    effects.add(RecordTurn(item_id, decision))


def send_timeout(shared: Shared, item_id: str, end: int, silent_ms: int) -> None:
    """Nobody has spoken for so long, up to a position."""
    end_ms = to_ms(end)
    shared.effects.send(
        TimeoutTriggered(
            event_id=shared.effects.event_id(),
            item_id=item_id,
            audio_start_ms=max(0, end_ms - silent_ms),
            audio_end_ms=end_ms,
        )
    )


def send_cleared(shared: Shared) -> None:
    """The audio that was not committed was dropped."""
    shared.effects.send(InputAudioCleared(event_id=shared.effects.event_id()))


def put_item(shared: Shared, item_id: str, pcm: bytes, words: dict[int, str]) -> None:
    """Make an item of the audio of a turn. words: of its parts, where they are known."""
    item = Message(id=item_id, role="user", content=(InputAudio(),))
    entry = Entry(item, {0: pcm}, words, len(pcm) // BYTES_PER_SAMPLE)
    previous = shared.conversation.add(entry)
    effects = shared.effects
    effects.send(
        InputAudioCommitted(event_id=effects.event_id(), previous_item_id=previous, item_id=item_id)
    )
    for sent in (ItemAdded, ItemDone):
        effects.send(sent(event_id=effects.event_id(), previous_item_id=previous, item=item))
