"""The user's side of a conversation as messages of RTVI: speech, transcripts, typed texts."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from vivavoce.protocol import server as says
from vivavoce.protocol.responses import DurationUsage
from vivavoce.protocol.rtvi_messages import write

MAX_TYPED = 100  # typed texts that are not in the conversation yet
USER = "user"


class UserMessages:
    """What the user says and types. `clock` gives unix seconds.

    `user-stopped-speaking` is sent after the transcript, if there are transcripts.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.transcribes = False
        self.holds_stop = False
        """Whether the end of speech waits for its transcript."""
        self.heard_seconds = 0
        """The length of the transcribed audio that was not reported in metrics yet."""
        self.transcript_delay: float | None = None
        """Seconds from the last end of speech to its transcript, until it is reported."""
        self._clock = clock
        self._stopped_at: float | None = None
        self._words: dict[str, str] = {}  # transcripts in progress, by item
        self._typed: dict[str, tuple[str, str]] = {}  # item id: message id and text

    def typed(self, item_id: str, message_id: str, text: str) -> None:
        """Report that text, with the id of its message, once it is in the conversation."""
        self._typed[item_id] = (message_id, text)
        while len(self._typed) > MAX_TYPED:
            self._typed.pop(next(iter(self._typed)))

    def started(self) -> Iterator[bytes]:
        yield write("user-started-speaking")

    def stopped(self) -> Iterator[bytes]:
        self._stopped_at = self._clock()
        if self.transcribes:
            self.holds_stop = True
        else:
            yield write("user-stopped-speaking")

    def release_stop(self) -> Iterator[bytes]:
        """Send the end of speech if it is still held back."""
        if self.holds_stop:
            self.holds_stop = False
            yield write("user-stopped-speaking")

    def partial(self, event: says.TranscriptionDelta) -> Iterator[bytes]:
        text = self._words[event.item_id] = self._words.get(event.item_id, "") + event.delta
        yield from self._transcript(text, final=False)

    def final(self, event: says.TranscriptionCompleted) -> Iterator[bytes]:
        self._words.pop(event.item_id, None)
        if isinstance(event.usage, DurationUsage):
            self.heard_seconds += event.usage.seconds
        if self._stopped_at is not None:
            self.transcript_delay = max(0.0, self._clock() - self._stopped_at)
            self._stopped_at = None
        yield from self._transcript(event.transcript, final=True)
        yield write("user-llm-text", {"text": event.transcript})

    def failed(self, item_id: str) -> None:
        """There will be no transcript of that item."""
        self._words.pop(item_id, None)

    def added(self, item_id: str) -> Iterator[bytes]:
        """An item is in the conversation: a typed text is reported."""
        if item_id in self._typed:
            message_id, text = self._typed.pop(item_id)
            now = self._timestamp()
            data = {"text": text, "input_type": "chat", "timestamp": now, "final": True}
            yield write("user-input", {**data, "msg_id": message_id})
            yield write("user-llm-text", {"text": text})

    def _transcript(self, text: str, *, final: bool) -> Iterator[bytes]:
        common = {"text": text, "user_id": USER, "timestamp": self._timestamp(), "final": final}
        yield write("user-input", {**common, "input_type": "transcription"})
        yield write("user-transcription", common)

    def _timestamp(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
