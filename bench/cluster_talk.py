"""People who talk to a cluster, live, check what they get, and come back when they are cut off.

Each speaks a sentence, is answered, pauses, and so on, 25 frames of microphone a second all the
time. It plays an answer to its end before it speaks, because a server keeps only the words of an
answer that can have been heard. It keeps the items that it was shown, and on each return compares
them with those that the server repeats (`items=1`). A sentence that was not committed when the
connection broke is spoken again from its beginning.
"""

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple
from urllib.parse import urlencode

import msgspec

from bench.sound import recordings
from bench.wire import NO_CLOSE, Line, Way, appends, connect, event
from vivavoce.audio.formats import BYTES_PER_SAMPLE, RATE

FRAME_MS = 40
SLOTS = 40  # of one period of FRAME_MS, so that not all people speak at the same instant
MARGIN_S = 0.1  # of quiet before and after the speech of a sentence
MAX_PAUSE_S = 1.0  # between an answer and the next sentence
FIRST_RETURN_S, MAX_RETURN_S = 0.2, 2.0  # pauses before a connection, at random below these
REPEATED_S = 0.5  # after an attachment: the items have been repeated
PLAYED_S = 1.0  # after an answer: its last words have been heard, and it is stored
SILENCE_S = 12.0  # without an answer, or without the end of a turn: that is silence
SHUTDOWN_CLOSE, TAKEN_OVER_CLOSE = 1012, 4003
MAX_PROBLEMS = 20
ANSWER = "You said: "

State = Literal["pause", "speaking", "waiting", "answering"]


class Item(NamedTuple):
    """A message, as its client knows it."""

    id: str
    role: str
    text: str
    """"": not known yet."""
    is_whole: bool = True
    """False: an answer that was cut."""

    def begins(self, whole: "Item") -> bool:
        """Whether this is an answer without the last words of `whole`."""
        return (
            self.role == "assistant"
            and self.text != whole.text
            and whole.text.startswith(self.text)
        )


@dataclass
class Totals:
    """What all conversations found."""

    turns: int = 0
    waits: list[tuple[float, float]] = field(default_factory=list)
    """When an answer began, and the seconds from the end of speech to there."""
    alive: list[float] = field(default_factory=list)
    """When each conversation that came back was heard, or was spoken to, for the first time."""
    closes: Counter[int] = field(default_factory=Counter)
    """Close codes; 1006: none."""
    errors: Counter[str] = field(default_factory=Counter)
    """Codes of error events, and responses that did not complete."""
    lost_conversations: int = 0
    lost: int = 0
    """Items that the server does not have any more, and had no reason to lose."""
    doubled: int = 0
    changed: int = 0
    """Items with other words, or at another place."""
    unstored: int = 0
    """Items of the last moment before a kill that the client gave the server again."""
    cut_in_turn: int = 0
    """Turns that were announced, and cut off by a close with 1012."""
    silent: int = 0
    responses: set[str] = field(default_factory=set)
    """`SESSION:RESPONSE` of each that was seen to its end."""
    problems: list[str] = field(default_factory=list)

    def note(self, problem: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)


class Talker:
    """One conversation and its client."""

    def __init__(
        self,
        address: tuple[str, int],
        key: str,
        speech: Sequence[bytes],
        quiet: Sequence[bytes],
        totals: Totals,
        chance: random.Random,
        *,
        model: str = "default",
    ) -> None:
        self.address = address
        self.resting = False
        """Say no more after this turn."""
        self.session = ""
        self.items: dict[str, Item] = {}
        self.uttered = 0
        self.close_code = 0
        """Of the last connection that was closed."""
        self._comes_back = True
        self._key, self._speech, self._quiet = key, speech, quiet
        self._totals, self._chance, self._model = totals, chance, model
        self._line: Line | None = None
        self._attempt = 0
        self._returning: asyncio.Task[None] | None = None
        self._token = self._last_event = ""
        self._state: State = "pause"
        self._frames: deque[bytes] = deque()
        self._announced = False  # speech_started has come, and the turn is not committed
        self._unsaid = False  # the sentence has no item yet
        self._since = self._next_at = time.perf_counter()
        self._rested_at = self._played_at = 0.0  # ... when all audio so far has been played
        self._again: list[Item] | None = None  # items that the server repeats, until compared
        self._again_last: str | None = ""  # the id of the last of them; "": not known
        self._first_sign = False  # of life, after a return
        self._ticks = 0
        self._unsent: list[bytes] = []  # until the connection is open

    @property
    def at_rest(self) -> bool:
        """Whether it is between two turns, and the answer to the last one was heard."""
        is_played = time.perf_counter() > max(self._rested_at, self._played_at) + PLAYED_S
        return self._state == "pause" and self.is_back and is_played

    @property
    def is_connected(self) -> bool:
        return self._line is not None

    @property
    def is_back(self) -> bool:
        """Whether the connection is there, and all items were compared."""
        return self._line is not None and self._again is None

    async def open(self) -> None:
        """Begin at once. Raises OSError and TimeoutError."""
        await self._connect()

    async def come_back(self) -> None:
        """Try until a server takes the conversation up, with growing pauses."""
        pause = FIRST_RETURN_S
        while self._line is None:
            await asyncio.sleep(self._chance.uniform(0, pause))
            pause = min(MAX_RETURN_S, 2 * pause)
            with suppress(OSError, TimeoutError):
                await self._connect()

    def twin(self, address: tuple[str, int]) -> "Talker":
        """Another client with the same token, at another address; come_back() takes it over.

        This one does not come back when it is closed: it would take the conversation over again.
        """
        self._comes_back = False
        twin = Talker(
            address, self._key, self._speech, self._quiet, self._totals, random.Random(self.session)
        )
        twin.session, twin._token = self.session, self._token
        twin.items, twin.uttered, twin.close_code = dict(self.items), self.uttered, NO_CLOSE
        twin._unsaid = self._unsaid
        return twin

    def tick(self, now: float) -> None:
        """Send the next frame; every FRAME_MS."""
        if self._line is None:
            return
        if self._again is not None and self._again_last == "" and now > self._since + REPEATED_S:
            self._compare()
        if self._state == "pause" and now >= self._next_at and not self.resting and self.is_back:
            self.uttered += not self._unsaid
            self._unsaid = True
            self._speak(now)
        elif self._state != "pause" and now > self._since + SILENCE_S:
            self._totals.silent += 1
            self._totals.note(f"{self.session}: silence while {self._state}")
            self._rest(now)
        self._ticks += 1
        if self._frames:
            self._line.write(self._frames.popleft())
            if not self._frames:
                self._since = now
        else:
            self._line.write(self._quiet[self._ticks % len(self._quiet)])

    def drop(self) -> None:
        """Lose the connection as a network does; the client comes back by itself."""
        if (line := self._line) is not None:
            self._lost(self._attempt, NO_CLOSE)
            line.abort()

    async def leave(self) -> None:
        """Close the connection, and do not come back."""
        self._attempt += 1
        if self._returning is not None:
            self._returning.cancel()
            await asyncio.gather(self._returning, return_exceptions=True)
        if self._line is not None:
            self._line.close()

    def check(self) -> None:
        """At the end: each sentence has one item, and one answer that repeats it."""
        users = [item for item in self.items.values() if item.role == "user"]
        if (wrong := len(users) - self.uttered) > 0:
            self._totals.doubled += wrong
            self._totals.note(f"{self.session}: {wrong} sentences more than were spoken")
        elif wrong:
            self._totals.lost -= wrong
            self._totals.note(f"{self.session}: {-wrong} sentences are in no item")
        answer, asked = "", ""
        for item in [*self.items.values(), Item("", "user", "")]:
            if item.role == "assistant":
                answer = f"{answer} {item.text}".strip()
                continue
            if asked and not _answers(asked, answer):
                self._totals.changed += 1
                self._totals.note(f"{self.session}: {asked!r} was answered by {answer!r}")
            asked, answer = item.text, ""

    def _speak(self, now: float) -> None:
        self._state, self._since = "speaking", now
        self._frames = deque(self._speech)

    def _rest(self, now: float) -> None:
        self._state, self._rested_at = "pause", now
        self._next_at = max(now, self._played_at) + self._chance.uniform(0.1, MAX_PAUSE_S)

    # the connection

    async def _connect(self) -> None:
        """Raises OSError and TimeoutError."""
        self._attempt += 1
        attempt = self._attempt
        self._unsent.clear()
        query = {"model": self._model}
        if self._token:
            query |= {"session_id": self.session, "resume_token": self._token, "items": "1"}
            query |= {"last_event_id": self._last_event}
        host, port = self.address
        line = await connect(
            port,
            lambda kind, payload, at: self._heard(attempt, kind, payload, at),
            Way(f"/v1/realtime?{urlencode(query)}", "session.created", key=self._key),
            host=host,
            lost=lambda code: self._lost(attempt, code),
        )
        if line.closed:
            raise ConnectionError("closed at once")
        self._line = line
        for frame in self._unsent:
            line.write(frame)
        self._unsent.clear()

    def _lost(self, attempt: int, code: int) -> None:
        if attempt != self._attempt or self._line is None:
            return
        self._line, self.close_code = None, code
        self._totals.closes[code] += 1
        if code == SHUTDOWN_CLOSE and self._announced:
            self._totals.cut_in_turn += 1
            self._totals.note(f"{self.session}: closed in the middle of a turn")
        self._announced = False
        if self._comes_back and code != TAKEN_OVER_CLOSE:
            self._returning = asyncio.create_task(self.come_back())

    # events

    def _heard(self, attempt: int, kind: bytes, payload: bytes, at: float) -> None:
        if attempt != self._attempt:
            return
        if kind == b"response.output_audio.delta":
            self._sign(at)
            self._played_at = max(self._played_at, at) + _seconds(payload)
            if self._state == "waiting":
                self._state = "answering"
                self._totals.waits.append((at, at - self._since))
            self._since = at
            return
        said = msgspec.json.decode(payload)
        again = str(said.get("event_id", "")).startswith("event_again_")
        if not again:
            self._last_event = said.get("event_id", "")
        match kind:
            case b"session.created":
                self._created(said, at)
            case b"conversation.item.done":
                self._done(_item(said["item"]), again=again)
            case b"input_audio_buffer.speech_started":
                self._announced = True
                self._sign(at)
            case b"input_audio_buffer.committed":
                self._announced, self._unsaid, self._state = False, False, "waiting"
                self._frames.clear()
            case b"conversation.item.input_audio_transcription.completed":
                if item := self.items.get(said["item_id"]):
                    self.items[item.id] = item._replace(text=said["transcript"])
            case b"response.done":
                self._answered(said["response"], at)
            case b"error":
                self._totals.errors[said["error"].get("code") or said["error"]["type"]] += 1

    def _sign(self, at: float) -> None:
        if self._first_sign:
            self._first_sign = False
            self._totals.alive.append(at)

    def _created(self, said: dict[str, Any], at: float) -> None:
        if self.session and not said.get("resumed"):
            self._totals.lost_conversations += 1
            self._totals.note(f"{self.session} did not go on")
            self.items.clear()
        self._since = at
        if self.session and said.get("resumed"):
            self._first_sign = True
            self._again = []
            self._again_last = said["resume"].get("last_item_id", "")
        else:
            self.session = said["session"]["id"]
            transcription = {"transcription": {"model": "whisper-1"}}
            settings = {"type": "realtime", "audio": {"input": transcription}}
            self._send("session.update", session=settings)
        self._token = said["resume"]["token"]
        if self._again is not None and self._again_last is None:
            self._compare()

    def _send(self, kind: str, **fields: Any) -> None:
        """Send an event, or keep it until the connection is open."""
        if self._line is not None:
            self._line.write(event(kind, **fields))
        else:
            self._unsent.append(event(kind, **fields))

    def _done(self, item: Item, *, again: bool) -> None:
        if not again:
            self.items[item.id] = item
        elif self._again is not None:
            self._again.append(item)
            if item.id == self._again_last:
                self._compare()

    def _answered(self, response: dict[str, Any], at: float) -> None:
        if response["status"] != "completed":
            self._totals.errors[f"response {response['status']}"] += 1
        self._totals.responses.add(f"{self.session}:{response['id']}")
        self._totals.turns += 1
        if self._state != "speaking":
            self._rest(at)

    # after a return

    def _compare(self) -> None:
        """The items that the server has repeated with those that were known."""
        again, self._again = self._again or [], None
        found = {item.id: item for item in again}
        if doubled := len(again) - len(found):
            self._totals.doubled += doubled
            self._totals.note(f"{self.session}: {doubled} items are there twice")
        known = list(self.items.values())
        kept = [item for item in known if item.id in found]
        tail = known[len(kept) :]
        if known[: len(kept)] != kept:  # one is missing before another that is there
            self._totals.lost += 1
            self._totals.note(f"{self.session} lost an item between others")
        if kept and list(found)[: len(kept)] != [item.id for item in kept]:
            self._totals.changed += 1
            self._totals.note(f"{self.session}: other order")
        users = [n for n, item in enumerate(again) if item.role == "user"]
        last_answers = again[users[-1] + 1 :] if users else again
        for item in kept:
            repeated = found[item.id]
            if repeated.begins(item) and repeated in last_answers:
                # killed before it had stored that all was played: it says the last words again
                found[item.id] = repeated._replace(is_whole=False)
                continue
            if repeated.begins(item) and not item.is_whole:
                continue  # it was interrupted: only what was heard of it is kept
            if item.text and repeated.text != item.text:
                self._totals.changed += 1
                self._totals.note(f"{self.session}: {item} became {repeated}")
        said_meanwhile = any(i.role == "user" and i.id not in self.items for i in found.values())
        self.items = found
        self._give_back(tail)
        self._go_on(said_meanwhile=said_meanwhile)

    def _give_back(self, tail: list[Item]) -> None:
        """What the server has not stored: it may be so after a kill, and after nothing else."""
        if not tail:
            return
        if self.close_code != NO_CLOSE:
            self._totals.lost += len(tail)
            self._totals.note(f"{self.session} lost {tail} after {self.close_code}")
        self._totals.unstored += len(tail)
        for item in tail:
            if item.role != "user":
                continue  # the question is answered again
            if not item.text:
                self._unsaid = True  # and so it is spoken again
                continue
            part = {"type": "input_text", "text": item.text}
            again = {"id": item.id, "type": "message", "role": "user", "content": [part]}
            self._send("conversation.item.create", item=again)
            self._send("response.create")
            self.items[item.id] = item

    def _go_on(self, *, said_meanwhile: bool) -> None:
        now = time.perf_counter()
        if said_meanwhile:
            self._unsaid = False
            self._frames.clear()
        last = next(reversed(self.items.values()), None)
        if last is not None and not last.is_whole:
            self._state, self._since = "waiting", now  # it listens, and speaks then
        elif self._unsaid:
            self._speak(now)
        elif last is not None and last.role == "user":
            self._state, self._since = "waiting", now
        else:
            self._state, self._next_at = "pause", now


def _answers(asked: str, answer: str) -> bool:
    """Whether an answer repeats what was asked. One that was cut is begun again: the scripted model
    knows no better way to continue."""
    whole = ANSWER + asked
    begun = answer.removesuffix(whole).strip()
    return answer.endswith(whole) and whole.startswith(begun)


def _seconds(delta: bytes) -> float:
    """The length of the sound in an event."""
    begin = delta.index(b'"delta":"') + len(b'"delta":"')
    return (delta.index(b'"', begin) - begin) * 3 / 4 / BYTES_PER_SAMPLE / RATE


def _item(told: dict[str, Any]) -> Item:
    part = (told.get("content") or [{}])[0]
    text = (part.get("transcript") or part.get("text") or "").strip()
    return Item(told["id"], told.get("role", ""), text, told.get("status") != "incomplete")


async def sentence() -> list[bytes]:
    """The shortest recording, without the quiet around it: it has no pause that ends a turn."""
    shortest = min(await recordings(), key=lambda recording: recording.ends - recording.begins)
    begin = max(0, int((shortest.begins - MARGIN_S) * RATE))
    end = int((shortest.ends + MARGIN_S) * RATE)
    return appends(shortest.pcm[2 * begin : 2 * end], FRAME_MS)


async def talk(talkers: Sequence[Talker]) -> None:
    """Let them all send their frames, until cancelled. There may come more of them."""
    step, began, n = FRAME_MS / 1000 / SLOTS, time.perf_counter(), 0
    while True:
        now = time.perf_counter()
        for talker in talkers[n % SLOTS :: SLOTS]:
            talker.tick(now)
        n += 1
        await asyncio.sleep(max(0.0, began + n * step - time.perf_counter()))
