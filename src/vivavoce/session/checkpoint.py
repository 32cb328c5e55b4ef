"""A session as it is stored, and what a client says when it comes back to one."""

import msgspec

from vivavoce.audio.formats import to_samples
from vivavoce.protocol.items import InputAudio, Message, OutputAudio
from vivavoce.protocol.server import (
    ItemDeleted,
    ItemDone,
    ItemTruncated,
    OutputTranscriptDelta,
    ResponseDone,
    SessionUpdated,
    TranscriptionCompleted,
)
from vivavoce.protocol.session import SessionObject
from vivavoce.session.brain import Brain, Shared
from vivavoce.session.conversation import Entry, SavedEntry
from vivavoce.session.effects import (
    CleanAudio,
    Effect,
    FeedAudio,
    Generate,
    RunVad,
    Send,
    SendUpstream,
)
from vivavoce.session.facts import Fact, UpstreamEventReceived
from vivavoce.session.ledger import Ledger
from vivavoce.session.usage import UsageTotals

INFINITY = float("inf")
CHECKPOINT_VERSION = 2
PLAYED_SAVE_S = 2.0  # how often the position is stored while the server plays an answer
# effects of what changes nothing in a checkpoint
_NO_CHANGE = (RunVad, FeedAudio, CleanAudio, SendUpstream)
_MUST_SAVE = (
    ItemDone,
    ItemDeleted,
    ItemTruncated,
    ResponseDone,
    SessionUpdated,
    TranscriptionCompleted,
)  # events after which a checkpoint is always due
_MUST_SAVE_RAW = {
    "conversation.item.done",
    "conversation.item.input_audio_transcription.completed",
    "response.done",
}  # ... events of an upstream server


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A session as it is stored: without audio, with times relative to the time of storing."""

    version: int = CHECKPOINT_VERSION
    session: SessionObject
    entries: tuple[SavedEntry, ...]
    usage: UsageTotals
    expires_in: float
    """Seconds until the session ends."""
    position: int
    """Samples of microphone audio received: positions on the wire continue from here."""
    quiet_for: float | None
    """Seconds since the last answer was played to its end; None if something came after it."""
    owes_response: bool = False
    """Whether the user is waiting for an answer."""
    cut_item_id: str = ""
    """The last item, if it is an answer that was not generated or played to its end."""
    pauses: tuple[int, ...] = ()
    """The speaker's last pauses in mid-turn, in samples."""
    spoken_until: int = 0
    """The position at which the speech of the last turn ended; 0: there was none."""


class Checkpoints:
    """Decides when a session is stored, and makes the checkpoints of it."""

    def __init__(self, shared: Shared, now: float) -> None:
        self.changed = False
        """Changes since the last checkpoint."""
        self.due = False
        """Whether the next checkpoint is made at once, because an item might be lost."""
        self._shared = shared
        self._made_at = now
        self._begun = ""  # the last answer whose first words were sent

    def see(self, fact: Fact, effects: list[Effect], now: float) -> None:
        """Note a fact and its effects."""
        if effects and not self.changed:
            self.changed = not all(isinstance(effect, _NO_CHANGE) for effect in effects)
        if not self.due and self._is_due(fact, effects, now):
            self.changed = self.due = True

    def late(self, now: float) -> bool:
        """Whether the time has come to store how far answers were played, if any was."""
        return now >= self._made_at + PLAYED_SAVE_S

    def make(self, brain: Brain, expires_in: float, now: float, *, begins_none: bool) -> Checkpoint:
        """begins_none: whether the session begins no more responses."""
        self.changed = self.due = False
        self._made_at = now
        shared = self._shared
        quiet_since, played = brain.quiet_since, shared.playback.until
        if quiet_since is not None and played < INFINITY:
            quiet_since = max(quiet_since, played)
        entries = shared.conversation.save(shared.playback.queued)
        return Checkpoint(
            session=shared.options.session,
            entries=entries,
            usage=msgspec.structs.replace(shared.usage.totals),
            expires_in=expires_in,
            position=brain.position,
            quiet_for=None if quiet_since is None else now - quiet_since,
            owes_response=brain.owes_response or (begins_none and self._waits(entries)),
            cut_item_id=self._cut_item(entries),
            pauses=tuple(shared.pauses),
            spoken_until=shared.pauses.spoken_until,
        )

    def _is_due(self, fact: Fact, effects: list[Effect], now: float) -> bool:
        if type(fact) is UpstreamEventReceived and fact.event.type in _MUST_SAVE_RAW:
            return True
        if self._shared.playback.queued and self.late(now):
            self._made_at = now  # or soon, where there is a keeper
            return True
        return any(
            type(effect) is Generate
            or (type(effect) is Send and isinstance(effect.event, _MUST_SAVE))
            or self._begins_answer(effect)
            for effect in effects
        )

    def _begins_answer(self, effect: Effect) -> bool:
        """Whether the first words of an answer are sent. Once stored, the answer is continued."""
        if type(effect) is not Send or type(effect.event) is not OutputTranscriptDelta:
            return False
        is_new = effect.event.item_id != self._begun
        self._begun = effect.event.item_id
        return is_new

    def _waits(self, entries: tuple[SavedEntry, ...]) -> bool:
        """Whether the last item is the user's, so that an answer is due."""
        vad = self._shared.options.turn_detection
        answered = vad is not None and vad.create_response is True
        return answered and bool(entries) and _is_of_user(entries[-1])

    def _cut_item(self, entries: tuple[SavedEntry, ...]) -> str:
        """The last item, if it is an answer that is being generated, or played by the server."""
        last = entries[-1] if entries else None
        if last is None or last.ledger is None:
            return ""
        is_open = last.item.status == "in_progress"
        return last.item.id if is_open or self._shared.playback.queued.get(last.item.id) else ""


def continued(
    checkpoint: Checkpoint, *, expires_in: float, heard: tuple[str, int] | None, finish: bool
) -> Checkpoint:
    """The checkpoint from which a session goes on for a client that has come back.

    heard: an answer, and the milliseconds that its client has played of it. finish: whether an
    answer that was cut off is finished. A last message whose words were not known yet is left out:
    its audio is not stored, and a client that knows its words may add it again.
    """
    ended = (_ended(saved) for saved in checkpoint.entries)
    entries = [saved for saved in ended if saved is not None]
    if is_lost := bool(entries) and _has_no_words(entries[-1]):
        entries.pop()
    is_there = bool(entries) and entries[-1].item.id == checkpoint.cut_item_id
    cut_item_id = checkpoint.cut_item_id if is_there else ""
    for index, saved in enumerate(entries):
        if heard and saved.item.id == heard[0] and saved.ledger:
            entries[index] = cut = _cut(saved, to_samples(heard[1]))
            was_whole, last = saved.ledger.heard is None, index == len(entries) - 1
            if was_whole and last and cut.ledger and Ledger.load(cut.ledger).unheard_text:
                cut_item_id = saved.item.id
    return msgspec.structs.replace(
        checkpoint,
        entries=tuple(entries),
        expires_in=expires_in,
        owes_response=checkpoint.owes_response and finish and not is_lost,
        cut_item_id=cut_item_id if finish else "",
    )


def _ended(saved: SavedEntry) -> SavedEntry | None:
    """An entry that is neither generated nor played any further; None: there is nothing to keep.

    An answer keeps the words that were played. One that broke off keeps those whose audio was made:
    a synthesiser may tell the times of words long before.
    """
    item, ledger = saved.item, saved.ledger
    is_open, is_message = item.status == "in_progress", isinstance(item, Message)
    if is_message and ledger and ledger.words and (is_open or ledger.heard is not None):
        answer = Ledger.load(ledger)
        if answer.heard is None:
            answer.cut(answer.samples)
        part = OutputAudio(transcript=answer.heard_text)
        status = "incomplete" if is_open else item.status
        item = msgspec.structs.replace(item, status=status, content=(part,))
        return SavedEntry(item, saved.words, saved.samples, answer.save())
    is_of_user = isinstance(item, Message) and item.role == "user"
    return None if is_open and not is_of_user else saved


def _cut(saved: SavedEntry, heard: int) -> SavedEntry:
    assert saved.ledger
    entry = Entry(saved.item, {}, saved.words, saved.samples, Ledger.load(saved.ledger))
    assert entry.ledger
    entry.ledger.cut(max(0, heard))
    entry.show_heard_only()
    return SavedEntry(entry.item, entry.words, entry.samples, entry.ledger.save())


def _is_of_user(saved: SavedEntry) -> bool:
    """Whether an entry is an item of the user whose words are known."""
    item = saved.item
    return isinstance(item, Message) and item.role == "user" and not _has_no_words(saved)


def _has_no_words(saved: SavedEntry) -> bool:
    """Whether an entry is speech of the user that has no transcript."""
    item = saved.item
    return (
        isinstance(item, Message)
        and item.role == "user"
        and bool(item.content)
        and all(isinstance(part, InputAudio) for part in item.content)
        and not any(saved.words.values())
    )
