"""A session as it is stored, and what a client that comes back says about it."""

import msgspec

from vivavoce.audio.formats import to_samples
from vivavoce.protocol.items import Message, OutputAudio
from vivavoce.protocol.session import SessionObject
from vivavoce.session.conversation import Entry, SavedEntry
from vivavoce.session.ledger import Ledger
from vivavoce.session.usage import UsageTotals

CHECKPOINT_VERSION = 2


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A session, as it is stored: without audio, with times relative to its making."""

    version: int = CHECKPOINT_VERSION
    session: SessionObject
    entries: tuple[SavedEntry, ...]
    usage: UsageTotals
    expires_in: float
    """Seconds until the session ends."""
    position: int
    """Samples of microphone audio that came: positions on the wire go on from here."""
    quiet_for: float | None
    """Seconds since the last answer was played to its end, if nothing came after it."""
    owes_response: bool = False
    """Whether the user waits for an answer."""
    cut_item_id: str = ""
    """The last item, where it is an answer that was not generated or played to its end."""


def continued(
    checkpoint: Checkpoint, *, expires_in: float, heard: tuple[str, int] | None, finish: bool
) -> Checkpoint:
    """The checkpoint from which a session goes on for a client that has come back.

    heard: an answer, and the milliseconds that its client has played of it. finish: whether an
    answer that was cut off is finished.
    """
    ended = (_ended(saved) for saved in checkpoint.entries)
    entries = [saved for saved in ended if saved is not None]
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
        owes_response=checkpoint.owes_response and finish,
        cut_item_id=cut_item_id if finish else "",
    )


def _ended(saved: SavedEntry) -> SavedEntry | None:
    """An entry that is not generated any further; None: there is nothing of it."""
    item, ledger = saved.item, saved.ledger
    if item.status != "in_progress" or (isinstance(item, Message) and item.role == "user"):
        return saved
    if not isinstance(item, Message) or ledger is None or not ledger.words:
        return None
    part = OutputAudio(transcript=Ledger.load(ledger).text)
    item = msgspec.structs.replace(item, status="incomplete", content=(part,))
    return SavedEntry(item, saved.words, saved.samples, ledger)


def _cut(saved: SavedEntry, heard: int) -> SavedEntry:
    assert saved.ledger
    entry = Entry(saved.item, {}, saved.words, saved.samples, Ledger.load(saved.ledger))
    assert entry.ledger
    entry.ledger.cut(max(0, heard))
    entry.show_heard_only()
    return SavedEntry(entry.item, entry.words, entry.samples, entry.ledger.save())


def is_of_user(saved: SavedEntry) -> bool:
    """Whether an entry is something that the user said and whose words are known."""
    item = saved.item
    if not isinstance(item, Message) or item.role != "user":
        return False
    return not saved.samples or bool(saved.words.get(0))
