"""The entries of one recorded call in memory: encoded, and compressed in blocks.

Frames that pass a relay come fifty times a second. Those that differ in their event_id and audio
alone are kept as a form and, of each, its time, its id and the size of its audio. Of a cascade,
entries of audio that goes on are as frequent; they are kept in a few values each.
"""

import zlib
from collections.abc import Callable, Iterator
from random import randrange
from typing import Any, Final

import msgspec

from vivavoce.protocol.audio_frames import AudioForm, PassedAudio
from vivavoce.telemetry.audio_entries import WIDTH, AudioEntry, entries_of
from vivavoce.telemetry.recording import frame_text

BLOCK_BYTES: Final = 32 * 1024
"""The size of entries that are compressed together; that takes about 0.3 ms."""
FIRST_BYTES: Final = 2048
"""The size of the first block: a silent session has no more than its settings."""
SIZE_BYTES: Final = 4
"""In front of each entry."""
MAX_RUN: Final = 32
"""The most frames that passed, or entries of audio, in a row before they are encoded as one."""
_SECOND: Final = (BLOCK_BYTES // 2, BLOCK_BYTES)
_FIELDS = ("at", "fact", "fields", "effects", "levels")
"""The fields of an entry that is kept as an array."""


class EntryLog:
    """Entries in the order in which they came, the oldest of which may be dropped."""

    def __init__(self, grew: Callable[[int], None], *, audio: bool) -> None:
        """grew: called with growth() when a block is complete. audio: whether the audio of frames
        is kept."""
        self.bytes = 0
        """In memory."""
        self._counted_bytes = 0  # of them, by growth()
        self._grew = grew
        self._audio = audio
        self._encode = msgspec.msgpack.Encoder().encode
        self._block: list[bytes] = []
        self._block_bytes = 0
        self._block_entries = 0
        self._full_bytes = FIRST_BYTES
        self._blocks: list[tuple[int, bytes]] = []  # entries in it, compressed
        self._run: list[Any] = []  # of each frame: now, whether it is output, its id and size
        # of the frames in the run, those to the upstream server and those to the client
        self._forms: list[AudioForm | None] = [None, None]
        self._audio_run: list[Any] = []  # entries of audio, one after the other

    def add(self, entry: Any) -> None:
        """A dict of the entry as it will be read, or a tuple of its values without names."""
        if self._run or self._audio_run:
            self._keep_run()
        self._append(entry, 1)

    def add_audio(self, entry: AudioEntry) -> None:
        """See AUDIO_ENTRY."""
        if self._run:
            self._keep_run()
        self._audio_run += entry
        if len(self._audio_run) == WIDTH * MAX_RUN:
            self._keep_run()

    def add_frame(self, frame: bytes, audio: PassedAudio, now: float, *, output: bool) -> None:
        """A frame that passed a relay."""
        form, event_id, pcm = audio
        if form != self._forms[output]:
            self._keep_whole(frame, form, now, output=output)
            return
        if self._audio_run:
            self._keep_run()
        run = self._run
        run += (now, output, event_id, len(pcm))
        if len(run) == 4 * MAX_RUN:
            self._keep_run()

    def drop_block(self) -> int:
        """Drop the oldest part; return the number of its entries. 0: none is complete."""
        if not self._blocks:
            return 0
        count, block = self._blocks.pop(0)
        self.bytes -= len(block)
        self._counted_bytes -= len(block)
        return count

    def growth(self) -> int:
        """Bytes that have come since the last call; a block that was dropped had been counted."""
        grown, self._counted_bytes = self.bytes - self._counted_bytes, self.bytes
        return grown

    def blocks(self) -> list[bytes]:
        """For decoded(), the oldest first."""
        self._keep_run()
        return [block for _, block in self._blocks] + [zlib.compress(b"".join(self._block), 1)]

    def _keep_whole(self, frame: bytes, form: AudioForm, now: float, *, output: bool) -> None:
        """Keep a frame, and the form that it shares with others."""
        text = frame_text(frame, audio=self._audio)
        self.add({"at": now, "passed": _passed(output), "frame": text})
        if not self._audio:
            self._forms[output] = form
            self._append({"form": form, "output": output}, 0)

    def _keep_run(self) -> None:
        """Make one entry of the frames that have passed, or of the entries of audio."""
        run, self._run = self._run, []
        if run:
            self._append({"run": run}, len(run) // 4)
        audio, self._audio_run = self._audio_run, []
        if audio:
            self._append({"audio": audio}, len(audio) // WIDTH)

    def _append(self, entry: Any, count: int) -> None:
        """count: of the entries that will be read."""
        data = self._encode(entry)
        size = len(data) + SIZE_BYTES
        self._block += (len(data).to_bytes(SIZE_BYTES, "big"), data)
        self._block_bytes += size
        self._block_entries += count
        self.bytes += size
        if self._block_bytes >= self._full_bytes:
            self._compress()

    def _compress(self) -> None:
        block = zlib.compress(b"".join(self._block), 1)
        self._blocks.append((self._block_entries, block))
        self.bytes += len(block) - self._block_bytes
        self._block, self._block_bytes, self._block_entries = [], 0, 0
        # calls that began together are not compressed together
        self._full_bytes = BLOCK_BYTES if len(self._blocks) > 1 else randrange(*_SECOND)
        self._forms = [None, None]  # each block has its own: those before it may be dropped
        self._grew(self.growth())


def decoded(block: bytes) -> Iterator[dict[str, Any]]:
    """The entries of a block, as builtins."""
    block, at = zlib.decompress(block), 0
    forms: dict[bool, list[bytes]] = {}
    while at < len(block):
        start = at + SIZE_BYTES
        at = start + int.from_bytes(block[at:start], "big")
        entry = msgspec.msgpack.decode(block[start:at])
        if isinstance(entry, list):
            yield _named(entry)
        elif "audio" in entry:
            for each in entries_of(entry["audio"]):
                yield _named(msgspec.msgpack.decode(msgspec.msgpack.encode(each)))
        elif "form" in entry:
            forms[entry["output"]] = entry["form"]
        elif "run" in entry:
            yield from _frames(entry["run"], forms)
        else:
            yield entry


def _named(entry: list[Any]) -> dict[str, Any]:
    named = zip(_FIELDS, entry, strict=True)
    return {name: value for name, value in named if value or name == "at"}


def _frames(run: list[Any], forms: dict[bool, list[bytes]]) -> Iterator[dict[str, Any]]:
    for now, output, event_id, size in zip(*[iter(run)] * 4, strict=True):
        before, after, tail = forms[output]
        text = b"%s%s%s(%d bytes)%s" % (before, event_id, after, size, tail)
        yield {"at": now, "passed": _passed(output), "frame": text.decode()}


def _passed(output: bool) -> str:
    return "output" if output else "input"
