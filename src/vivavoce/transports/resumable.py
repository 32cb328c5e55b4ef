"""The peer of a session that outlives its connections: it keeps frames, so that none is lost."""

import asyncio

from vivavoce.protocol.audio_frames import AudioForm, PassedAudio, framed, is_exact
from vivavoce.protocol.codec import encode
from vivavoce.protocol.server import AnyServerEvent, OutputAudioDelta, SessionCreated
from vivavoce.protocol.wire import Frame
from vivavoce.runtime.client_errors import TAKEN_OVER, TAKEN_OVER_CLOSE, taken_over
from vivavoce.runtime.resume import Ticket
from vivavoce.runtime.runner import Runner
from vivavoce.runtime.tasks import Signal
from vivavoce.session.facts import Disconnected
from vivavoce.transports.send_queue import WRITABLE_BYTES, FrameSource, SendQueue

KEPT_S = 10  # how long a frame is kept in case that it has to be sent again, and up to ...
DROP_PAUSE_S = 1  # ... longer: frames of a second are dropped together
MAX_KEPT_BYTES = 1024 * 1024  # ... while a client is connected
MAX_HELD_BYTES = 4 * 1024 * 1024  # while no client is connected; above this the session ends
CLIENT_CLOSES = (1000, 1001)  # RFC 6455, 7.4.1: the client has left and does not come back
LOST = 1006  # ... without a close frame
_LOOK_BYTES = 256  # the first characters of a frame, which contain its event_id


class History:
    """The text frames that a client was sent last. Positions count the frames of a session.

    A session that speaks adds 25 a second. Of a frame of audio the event is kept, or its parts in a
    relay: the audio is also that of the session, and a frame of it would take memory that was not
    touched before, which costs more time than all else here. No tuple and no time is kept of each,
    because the garbage collector would visit the tuples of all sessions in one step; an event of
    audio it does not visit.
    """

    def __init__(self) -> None:
        self.end = 0
        """The position behind the last frame."""
        self.held = False
        """Whether no client is connected: then no frame is dropped."""
        # Three lists, because an empty deque takes 760 bytes. The first: frames, the audio of
        # frames whose parts are kept, and events.
        self._kept: list[bytes | OutputAudioDelta] = []
        self._ids: list[bytes] = []  # the event_id of frames whose parts are kept, else b""
        self._forms: list[AudioForm | None] = []  # and their form
        self._ends: list[int] = []  # what `end` was in each of the last seconds, while any is kept
        self._bytes = 0
        self._dropped = b""  # the beginning of the frame that was dropped last
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def begin(self) -> int:
        """The position of the first frame that is kept."""
        return self.end - len(self._kept)

    @property
    def is_full(self) -> bool:
        return self._bytes > MAX_HELD_BYTES

    def add(self, frame: bytes, source: FrameSource = None) -> None:
        """source: what the frame says, if that is known."""
        kept: bytes | OutputAudioDelta = frame
        form, event_id = None, b""
        if type(source) is OutputAudioDelta:
            kept = source
        elif type(source) is tuple and is_exact(source[2]):
            form, event_id, kept = source
        self._forms.append(form)
        self._ids.append(event_id)
        self._kept.append(kept)
        self._bytes += _size(kept)
        self.end += 1
        if self._bytes > MAX_KEPT_BYTES and not self.held:
            self._drop()
        if self._timer is None:
            self._set_timer()

    def since(self, position: int) -> list[Frame]:
        """All frames from a position on."""
        skipped = max(0, position - self.begin)
        return [Frame("text", self._frame(n)) for n in range(skipped, len(self._kept))]

    def behind(self, event_id: str) -> int | None:
        """The position behind the frame of an event; None: frames behind it are not kept."""
        wanted = f'"{event_id}"'.encode()
        for n in reversed(range(len(self._kept))):
            if wanted in self._beginning(n):
                return self.begin + n + 1
        return self.begin if wanted in self._dropped else None

    def release(self) -> None:
        """A client is connected again."""
        self.held = False
        self._drop()
        if self._timer is None and self._kept:
            self._set_timer()

    def close(self) -> None:
        self._drop_first(len(self._kept))
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self) -> None:
        self._timer = self._loop.call_later(DROP_PAUSE_S, self._drop_old)

    def _drop_old(self) -> None:
        """A second has passed."""
        self._timer = None
        if self.held:
            self._ends.clear()
            return
        self._ends.append(self.end)
        if len(self._ends) > KEPT_S // DROP_PAUSE_S:
            self._drop_first(max(0, self._ends.pop(0) - self.begin))
        if self._kept:
            self._set_timer()
        else:
            self._ends.clear()

    def _drop(self) -> None:
        count, left = 0, self._bytes
        while left > MAX_KEPT_BYTES and count < len(self._kept) - 1:
            left -= _size(self._kept[count])
            count += 1
        self._drop_first(count)

    def _drop_first(self, count: int) -> None:
        if count:
            self._dropped = self._beginning(count - 1)
        self._bytes -= sum(map(_size, self._kept[:count]))
        del self._kept[:count], self._ids[:count], self._forms[:count]

    def _frame(self, n: int) -> bytes:
        kept, form = self._kept[n], self._forms[n]
        if isinstance(kept, OutputAudioDelta):
            return encode(kept)
        return kept if form is None else framed((form, self._ids[n], kept))

    def _beginning(self, n: int) -> bytes:
        """What contains the event_id of a frame."""
        kept, form = self._kept[n], self._forms[n]
        if isinstance(kept, OutputAudioDelta):
            return f'"{kept.event_id}"'.encode()
        if form is None:
            return kept[:_LOOK_BYTES]
        before, after, _ = form
        return b"".join((before, self._ids[n], after))[:_LOOK_BYTES]


def _size(kept: bytes | OutputAudioDelta) -> int:
    return len(kept if isinstance(kept, bytes) else kept.delta)


class ResumableLink:
    """A peer that speaks GA. Set ticket.runner before the connection can be lost."""

    def __init__(self, ticket: Ticket, queue: SendQueue) -> None:
        self._ticket = ticket
        self._history = History()
        self._queue: SendQueue | None = queue
        self._base = 0  # position of the first frame of the queue
        self._unsent = 0  # position of the first frame that was not written, while detached
        self._unsent_bytes = 0  # of it and all behind it
        self._closed = False
        self._changed = Signal()  # resolved when the queue is replaced or the session ends
        self._timer: asyncio.TimerHandle | None = None
        queue.on_frame = self._history.add

    @property
    def runner(self) -> Runner | None:
        """The session, while it lasts."""
        return self._ticket.runner

    # the peer

    def send(self, event: AnyServerEvent) -> None:
        if self._queue is not None:
            self._queue.send(event)
        else:
            self._hold(encode(event), event)

    def send_raw(self, data: bytes, audio: PassedAudio | None = None) -> None:
        if self._queue is not None:
            self._queue.send_raw(data, audio)
        else:
            self._hold(data, audio)

    @property
    def is_writable(self) -> bool:
        if self._queue is not None:
            return self._queue.is_writable
        return self._closed or self.waiting_bytes <= WRITABLE_BYTES

    @property
    def waiting_bytes(self) -> int:
        if self._queue is not None:
            return self._queue.waiting_bytes
        return self._unsent_bytes

    async def wait_writable(self) -> None:
        while not self.is_writable:
            if self._queue is not None:
                await self._queue.wait_writable()
            else:
                self._changed.clear()
                await self._changed.wait()

    def close(self, code: int, reason: str) -> None:
        self._closed = True
        self._changed.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._queue is not None:
            self._queue.close(code, reason)
            self._queue.on_frame = None
        self._history.close()

    # its connections

    def attach(self, queue: SendQueue, created: SessionCreated, last_event_id: str) -> bool:
        """Continue with a new connection.

        False: events that its client needs are no longer kept. An older connection is closed, with
        the reason.
        """
        position = self._unsent
        if self._queue is not None:
            position = self._base + self._queue.sent
        if last_event_id:
            found = self._history.behind(last_event_id)
            position = -1 if found is None else found
        if self._closed or position < self._history.begin:
            return False
        if self._queue is not None:
            self._tell_older(self._queue)
        if self._timer is not None:
            self._timer.cancel()
        frames = self._history.since(position)
        queue.send(created)
        queue.send_frames(frames)
        queue.on_frame = self._history.add
        self._queue, self._base = queue, position - 1
        self._ticket.client_away = False
        self._history.release()
        self._changed.set()
        return True

    def lost(self, queue: SendQueue, code: int) -> None:
        """A connection has ended. code: of the client's close frame, 1006 without one."""
        if queue is not self._queue or self._closed:
            return
        runner = self._ticket.runner
        self._queue, queue.on_frame = None, None
        self._unsent = self._base + queue.sent
        self._unsent_bytes = sum(len(frame.data) for frame in self._history.since(self._unsent))
        self._history.held = True
        queue.close(1000, "the client left")
        grace_s = self._ticket.service.settings.grace_seconds
        gap = self._unsent < self._history.begin
        if runner is None or code in CLIENT_CLOSES or not grace_s or gap:
            self._end(code)
        else:
            self._ticket.client_away = True
            self._timer = asyncio.get_running_loop().call_later(grace_s, self._end, code)

    def _end(self, code: int) -> None:
        if self._ticket.runner is not None:
            self._ticket.runner.post(Disconnected(code))

    def _hold(self, frame: bytes, source: FrameSource) -> None:
        if self._closed:
            return
        self._history.add(frame, source)
        self._unsent_bytes += len(frame)
        if self._history.is_full:
            self._end(LOST)

    def _tell_older(self, queue: SendQueue) -> None:
        queue.on_frame = None
        queue.send(taken_over())
        queue.close(TAKEN_OVER_CLOSE, TAKEN_OVER)
