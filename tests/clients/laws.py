"""What holds for every stream of server events, whatever was asked: the order of things.

check() takes the frames that one connection received, oldest first. Beta names are read as GA's.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Frame: TypeAlias = dict[str, Any]

BETA_NAMES = {
    "conversation.item.created": "conversation.item.added",
    "response.text.delta": "response.output_text.delta",
    "response.text.done": "response.output_text.done",
    "response.audio.delta": "response.output_audio.delta",
    "response.audio.done": "response.output_audio.done",
    "response.audio_transcript.delta": "response.output_audio_transcript.delta",
    "response.audio_transcript.done": "response.output_audio_transcript.done",
    "transcription_session.created": "session.created",
    "transcription_session.updated": "session.updated",
}
# by the name of its deltas: the key of the whole in the event that closes them
WHOLES = {
    "response.output_text": "text",
    "response.output_audio_transcript": "transcript",
    "response.function_call_arguments": "arguments",
    "response.output_audio": None,
}
PARTS = {
    "text": {"response.output_text"},
    "audio": {"response.output_audio", "response.output_audio_transcript"},
}


def check(frames: Iterable[Frame]) -> None:
    """Raise AssertionError at the first frame that breaks a law, and name it."""
    laws = (Greeting(), Items(), Responses(), Turns(), Dictations())
    for n, frame in enumerate(frames):
        known = {**frame, "type": BETA_NAMES.get(frame["type"], frame["type"])}
        for law in laws:
            try:
                law.feed(known)
            except AssertionError as exc:
                raise AssertionError(f"frame {n}: {exc}: {_short(frame)}") from exc


@dataclass
class Greeting:
    """session.created comes first, and once; no two events have the same id."""

    ids: set[str] = field(default_factory=set)

    def feed(self, frame: Frame) -> None:
        assert (frame["type"] == "session.created") == (not self.ids), "not greeted first and once"
        assert frame["event_id"] not in self.ids, "an event_id came twice"
        self.ids.add(frame["event_id"])


@dataclass
class Items:
    """Inserting each item after its previous_item_id reproduces the server's conversation."""

    order: list[str] = field(default_factory=list)
    open: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)

    def feed(self, frame: Frame) -> None:
        match frame:
            case {"type": "conversation.item.added", "item": {"id": key}}:
                assert key not in self.seen, "an item was added twice"
                self.order.insert(self._place(frame["previous_item_id"]), key)
                self.seen.add(key)
                self.open.add(key)
            case {"type": "conversation.item.done", "item": {"id": key, "status": status}}:
                assert key in self.open, "an item was done before it was added, or twice"
                assert status != "in_progress", "an item that is done goes on"
                self.open.remove(key)
                before = self.order[: self.order.index(key)]
                previous = before[-1] if before else None
                assert frame["previous_item_id"] == previous, f"it stands behind {previous}"
            case {"type": "conversation.item.deleted", "item_id": key}:
                assert key in self.order, "an item that is not there was deleted"
                self.order.remove(key)
                self.open.discard(key)
            case {"type": "conversation.item.retrieved", "item": {"id": key}}:
                assert key in self.order, "an item that is not there was retrieved"
            case {"type": "conversation.item.truncated", "item_id": key}:
                assert key in self.order, "an item that is not there was truncated"
            case _:
                pass

    def _place(self, previous: str | None) -> int:
        if previous is None:
            return 0
        assert previous in self.order, f"there is no item {previous}"
        return self.order.index(previous) + 1


@dataclass
class Output:
    """One item of a response, as it is put out."""

    index: int
    item: Frame
    added: bool = False  # to the conversation
    part: str = ""  # the type of its part while that is open
    had_part: bool = False
    deltas: dict[str, str] = field(default_factory=dict)
    closed: dict[str, str | None] = field(default_factory=dict)
    done: Frame | None = None

    def feed(self, kind: str, frame: Frame) -> None:
        """Take an event of this item, its content parts and its arguments."""
        assert self.done is None, "an item that is done goes on"
        match kind:
            case "response.content_part.added":
                assert not self.had_part, "an item has two parts"
                self.had_part, self.part = True, frame["part"]["type"]
            case "response.content_part.done":
                assert frame["part"]["type"] == self.part, "no such part is open"
                assert PARTS[self.part] <= set(self.closed), "a part is done, its streams are not"
                self._compare_part(frame["part"])
                self.part = ""
            case "response.output_item.done":
                assert not self.part, "an item is done, its part is not"
                assert not set(self.deltas) - set(self.closed) or self._is_broken_call(frame)
                self.done = frame["item"]
            case _:
                self._stream(kind, frame)

    def _stream(self, kind: str, frame: Frame) -> None:
        stream, _, verb = kind.rpartition(".")
        if stream == "response.function_call_arguments":
            assert self.item["type"] == "function_call", "arguments of no call"
            assert frame["call_id"] == self.item["call_id"], "arguments of another call"
        else:
            assert stream in PARTS.get(self.part, ()), "no part of that kind is open"
        assert stream not in self.closed, "a stream that is closed goes on"
        if verb == "delta":
            assert frame["delta"], "an empty delta"
            self.deltas[stream] = self.deltas.get(stream, "") + frame["delta"]
            return
        assert verb == "done", "unknown event"
        key = WHOLES[stream]
        if key is not None:
            assert frame[key] == self.deltas.get(stream, ""), "the deltas are not the whole"
        self.closed[stream] = frame[key] if key else None

    def _compare_part(self, part: Frame) -> None:
        for stream in PARTS[self.part]:
            if key := WHOLES[stream]:
                assert part[key] == self.closed[stream], "the part is not what was streamed"

    def _is_broken_call(self, frame: Frame) -> bool:
        item = frame["item"]
        return bool(item["type"] == "function_call" and item["status"] == "incomplete")


@dataclass
class Responses:
    """response.created, its items one inside the other, response.done: once, last, complete."""

    outputs: dict[str, list[Output]] = field(default_factory=dict)
    beside: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)

    def feed(self, frame: Frame) -> None:
        kind = frame["type"]
        if kind == "response.created":
            self._create(frame["response"])
        elif kind == "response.done":
            self._end(frame["response"])
        elif kind.startswith("response."):
            self._go_on(kind, frame)
        elif kind == "conversation.item.added":
            self._added(frame["item"])

    def _create(self, response: Frame) -> None:
        key = response["id"]
        assert key not in self.outputs, "a response was created twice"
        assert response["status"] == "in_progress", "a response that begins has ended"
        assert response["output"] == [], "a response that begins has put out"
        if response.get("conversation_id") is None:
            self.beside.add(key)
        else:
            running = set(self.outputs) - self.ended - self.beside
            assert not running, f"{running} is under way"
        self.outputs[key] = []

    def _go_on(self, kind: str, frame: Frame) -> None:
        key = frame["response_id"]
        assert key in self.outputs, "unknown response"
        assert key not in self.ended, "a response that is done goes on"
        outputs, index = self.outputs[key], frame["output_index"]
        if kind == "response.output_item.added":
            assert index == len(outputs), "an index was left out"
            outputs.append(Output(index, frame["item"], added=key in self.beside))
            return
        assert index < len(outputs), "an item goes on that was not announced"
        output = outputs[index]
        assert frame.get("item_id", output.item["id"]) == output.item["id"], "it's another item"
        assert output.added, "an item goes on that the conversation does not know"
        output.feed(kind, frame)

    def _added(self, item: Frame) -> None:
        for key, outputs in self.outputs.items():
            for output in outputs:
                if output.item["id"] == item["id"]:
                    assert key not in self.beside, "an item out of band is in the conversation"
                    output.added = True

    def _end(self, response: Frame) -> None:
        key, status = response["id"], response["status"]
        assert key in self.outputs, "unknown response"
        assert key not in self.ended, "a response was done twice"
        assert status in ("completed", "cancelled", "incomplete", "failed"), "no way to end"
        assert all(output.done for output in self.outputs[key]), "an item is not done"
        assert response["output"] == [output.done for output in self.outputs[key]], (
            "the output is not what was put out"
        )
        assert response["usage"] is not None, "usage is missing"
        details = response["status_details"]
        assert details is not None or status == "completed", "no reason"
        assert details is None or status != "completed" or details["error"], "one too many"
        assert details is None or details["type"] == status, "a reason for another end"
        self.ended.add(key)


@dataclass
class Turns:
    """Speech starts and stops in turns, on one clock; what was said becomes that very item."""

    speaking: str | None = None
    stopped: str | None = None
    committed: str | None = None
    at_ms: int = 0

    def feed(self, frame: Frame) -> None:
        if self.stopped is not None:
            assert frame["type"] == "input_audio_buffer.committed", "a turn ended, no item came"
            assert frame["item_id"] == self.stopped, "a turn became another item"
        if self.committed is not None:
            assert frame["type"] == "conversation.item.added", "a commit gave no item"
            assert frame["item"]["id"] == self.committed, "a commit gave another item"
        self.stopped = self.committed = None
        match frame:
            case {"type": "input_audio_buffer.speech_started", "item_id": key}:
                assert self.speaking is None, "speech started twice"
                self.speaking = key
                self._tick(frame["audio_start_ms"])
            case {"type": "input_audio_buffer.speech_stopped", "item_id": key}:
                assert key == self.speaking, "speech stopped that had not started"
                self.speaking, self.stopped = None, key
                self._tick(frame["audio_end_ms"])
            case {"type": "input_audio_buffer.committed", "item_id": key}:
                self.speaking, self.committed = None, key
            case {"type": "input_audio_buffer.cleared" | "session.updated"}:
                self.speaking = None
            case _:
                pass

    def _tick(self, ms: int) -> None:
        assert isinstance(ms, int), "milliseconds are whole"
        assert ms >= self.at_ms, "the clock of the sound went back"
        self.at_ms = ms


@dataclass
class Dictations:
    """Deltas of the user's words are the transcript, which comes once, after its item."""

    words: dict[tuple[str, int], str] = field(default_factory=dict)
    ended: set[tuple[str, int]] = field(default_factory=set)
    items: set[str] = field(default_factory=set)

    def feed(self, frame: Frame) -> None:
        kind = frame["type"]
        if kind == "conversation.item.added":
            self.items.add(frame["item"]["id"])
        stream, _, verb = kind.rpartition(".")
        if stream != "conversation.item.input_audio_transcription":
            return
        key = (frame["item_id"], frame["content_index"])
        assert key not in self.ended, "words that are complete go on"
        if verb == "delta":
            self.words[key] = self.words.get(key, "") + frame["delta"]
            return
        assert frame["item_id"] in self.items, "words of an item that is not there"
        self.ended.add(key)
        if verb == "completed" and key in self.words:
            assert frame["transcript"] == self.words[key], "the deltas are not the transcript"


def _short(frame: Frame) -> str:
    text = str(frame)
    return text if len(text) <= 400 else f"{text[:400]}…"
