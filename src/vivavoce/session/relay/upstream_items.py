"""Items of the upstream server's conversation, kept in that of this session."""

from vivavoce.protocol.items import Message, Status
from vivavoce.protocol.upstream import UpstreamEvent
from vivavoce.session.brain import Shared
from vivavoce.session.conversation import ROOT, Entry
from vivavoce.session.ledger import Ledger
from vivavoce.session.relay.audio import RelayInput
from vivavoce.session.relay.items import is_text, read_item


class UpstreamItems:
    """Keeps items and transcripts, so that another brain can continue."""

    __slots__ = ("_conversation", "_input")

    def __init__(self, shared: Shared, input_: RelayInput) -> None:
        """input_: has the audio of the user's turns."""
        self._conversation = shared.conversation
        self._input = input_

    def add(self, event: UpstreamEvent) -> bool:
        """Keep a new item; return whether the client gets the event."""
        if event.item is None or event.item.id in self._conversation:
            return False  # an item that the client or this conversation has added
        if event.item.id in ("", ROOT):
            return True  # an id that no item can have here
        item = read_item(event.item, "in_progress")
        if item is None:
            return True
        entry = Entry(item)
        if isinstance(item, Message) and item.role == "assistant":
            entry.ledger = Ledger()
        if isinstance(item, Message):
            self._input.keep_recording(entry, item)
        previous = event.previous_item_id
        known = previous is not None and previous in self._conversation
        self._conversation.add(entry, previous if known else None)
        return True

    def finish(self, event: UpstreamEvent) -> bool:
        """Keep an item as it is when it is done; return whether the client gets the event."""
        if event.item is None:
            return True
        entry = self._conversation.find(event.item.id)
        if entry is None or entry.item.status == "completed":
            return False
        status: Status = "completed" if event.item.status == "completed" else "incomplete"
        if (item := read_item(event.item, status)) is not None:
            self._conversation.replace(item)
            if isinstance(item, Message) and item.role == "assistant" and is_text(item):
                entry.ledger = None
        return True

    def set_words(self, event: UpstreamEvent) -> None:
        """Keep the transcript of a user's turn."""
        entry = self._conversation.find(event.item_id)
        if entry is None or event.transcript is None or not isinstance(entry.item, Message):
            return
        entry.words[event.content_index] = event.transcript
        if event.content_index < len(entry.item.content):
            entry.show_words(event.content_index)
