"""A telephone call: a simulated Twilio media stream, a bridge, and our server as the Realtime API.

The bridge is the one that OpenAI and Twilio document: two WebSockets, G.711 mu-law both ways
without re-encoding (`audio/pcmu`), a mark after each piece of audio, and on barge-in a `clear` to
Twilio and a truncation of the interrupted item. The simulated peer sends what Twilio sends:
`connected`, `start`, `media` of 20 ms at 8 kHz, and each `mark` back once its audio is played.
"""

import asyncio
import base64
import json

from plumbing import KEY, Trial, main, mulaw, pieces, silence, tone

PACKAGES = ("openai[realtime]==3.57.0",)
RATE = 8_000
FRAME_MS = 20
FRAME_BYTES = RATE * FRAME_MS // 1000
STREAM = "MZ0123456789"


async def drive(trial: Trial) -> None:
    from openai import AsyncOpenAI
    from websockets.asyncio.client import connect
    from websockets.asyncio.server import serve

    client = AsyncOpenAI(base_url=f"{trial.http}/v1", api_key=KEY)
    done: list[str] = []

    async def on_call(twilio) -> None:  # type: ignore[no-untyped-def]
        async with client.realtime.connect(model="gpt-realtime") as openai:
            await Bridge(twilio, openai, done).run()

    async with serve(on_call, "127.0.0.1", 0) as bridge:
        port = bridge.sockets[0].getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}/media-stream") as line:
            await _call(trial, Phone(line), done)


async def _call(trial: Trial, phone: "Phone", done: list[str]) -> None:
    """One call: a question, its answer, a question into the next answer."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(phone.talk()), tasks.create_task(phone.listen())]
        phone.say(tone(600, rate=RATE) + silence(100, RATE))
        await phone.until(lambda: phone.received > RATE)
        trial.expect(phone.received > RATE, "spoken turn is answered in mu-law")
        await phone.until(lambda: phone.marks > 0)  # as soon as the first piece was played
        trial.expect(True, "marks are returned")
        phone.say(tone(600, rate=RATE))
        await phone.until(lambda: phone.cleared > 0)
        trial.expect(phone.cleared == 1, "barge-in clears the line")
        await phone.until(lambda: "cancelled" in done and "truncated" in done)
        trial.expect(True, "interrupted answer is cancelled and truncated")
        before = phone.received
        await phone.until(lambda: phone.received > before + RATE // 2)
        trial.expect(True, "second turn is answered")
        for task in running:
            task.cancel()


class Phone:
    """The simulated Twilio side: a caller who speaks, and a speaker that plays in real time."""

    def __init__(self, line) -> None:  # type: ignore[no-untyped-def]
        self.received = 0
        """Bytes of mu-law that came."""
        self.marks = 0
        """Marks that were sent back."""
        self.cleared = 0
        self._line = line
        self._speech: list[bytes] = []
        self._playing: list[tuple[str, int | str]] = []
        """What is still to be played: ("media", bytes) and ("mark", name)."""

    def say(self, pcm: bytes) -> None:
        """Speak 16-bit PCM at 8 kHz."""
        self._speech = pieces(pcm, FRAME_MS, RATE)

    async def until(self, holds) -> None:  # type: ignore[no-untyped-def]
        """Wait until that holds; the time limit of the trial bounds it."""
        while not holds():  # noqa: ASYNC110  the peer's own 20 ms clock
            await asyncio.sleep(FRAME_MS / 1000)

    async def talk(self) -> None:
        """Send 20 ms of microphone and play 20 ms of speaker, 50 times a second."""
        await self._send(event="connected", protocol="Call", version="1.0.0")
        media_format = {"encoding": "audio/x-mulaw", "sampleRate": RATE, "channels": 1}
        start = {"streamSid": STREAM, "callSid": "CA0", "mediaFormat": media_format}
        await self._send(event="start", streamSid=STREAM, start=start)
        loop = asyncio.get_running_loop()
        began, sent = loop.time(), 0
        while True:
            pcm = self._speech.pop(0) if self._speech else bytes(2 * FRAME_BYTES)
            media = {
                "track": "inbound",
                "timestamp": str(sent * FRAME_MS),
                "payload": base64.b64encode(mulaw(pcm)).decode(),
            }
            await self._send(event="media", streamSid=STREAM, media=media)
            await self._play(FRAME_BYTES)
            sent += 1
            await asyncio.sleep(max(0.0, began + sent * FRAME_MS / 1000 - loop.time()))

    async def listen(self) -> None:
        async for message in self._line:
            event = json.loads(message)
            if event["event"] == "media":
                audio = base64.b64decode(event["media"]["payload"], validate=True)
                self.received += len(audio)
                self._playing.append(("media", len(audio)))
            elif event["event"] == "mark":
                self._playing.append(("mark", event["mark"]["name"]))
            elif event["event"] == "clear":
                self.cleared += 1
                names = [name for kind, name in self._playing if kind == "mark"]
                self._playing.clear()
                for name in names:
                    await self._mark(str(name))

    async def _play(self, room: int) -> None:
        while self._playing:
            kind, what = self._playing[0]
            if kind == "mark":
                await self._mark(str(what))
            elif int(what) > room:
                self._playing[0] = (kind, int(what) - room)
                return
            else:
                room -= int(what)
            self._playing.pop(0)

    async def _mark(self, name: str) -> None:
        self.marks += 1
        await self._send(event="mark", streamSid=STREAM, mark={"name": name})

    async def _send(self, **event: object) -> None:
        await self._line.send(json.dumps(event))


class Bridge:
    """Between a media stream and a Realtime connection."""

    def __init__(self, twilio, openai, done: list[str]) -> None:  # type: ignore[no-untyped-def]
        self._twilio = twilio
        self._openai = openai
        self._done = done
        """What the Realtime side reported: statuses of responses, and truncations."""
        self._latest_ms = 0
        self._started_ms: int | None = None
        self._item_id: str | None = None
        self._marks: list[str] = []

    async def run(self) -> None:
        pcmu = {"type": "audio/pcmu"}
        audio = {
            "input": {"format": pcmu, "turn_detection": {"type": "server_vad"}},
            "output": {"format": pcmu, "voice": "alloy"},
        }
        await self._openai.session.update(session={"type": "realtime", "audio": audio})
        upward = asyncio.create_task(self._upward())
        try:
            async for event in self._openai:
                await self._downward(event)
        finally:
            upward.cancel()

    async def _upward(self) -> None:
        async for message in self._twilio:
            event = json.loads(message)
            if event["event"] == "media":
                self._latest_ms = int(event["media"]["timestamp"])
                await self._openai.input_audio_buffer.append(audio=event["media"]["payload"])
            elif event["event"] == "mark" and self._marks:
                self._marks.pop(0)
        await self._openai.close()

    async def _downward(self, event) -> None:  # type: ignore[no-untyped-def]
        if event.type == "response.output_audio.delta":
            await self._send(event="media", media={"payload": event.delta})
            if self._item_id != event.item_id:
                self._item_id, self._started_ms = event.item_id, self._latest_ms
            self._marks.append("part")
            await self._send(event="mark", mark={"name": "part"})
        elif event.type == "input_audio_buffer.speech_started":
            await self._interrupt()
        elif event.type == "conversation.item.truncated":
            self._done.append("truncated")
        elif event.type == "response.done":
            self._done.append(event.response.status)
        elif event.type == "error":
            self._done.append(f"error: {event.error.message}")

    async def _interrupt(self) -> None:
        if not self._marks or self._started_ms is None or self._item_id is None:
            return
        await self._openai.conversation.item.truncate(
            item_id=self._item_id, content_index=0, audio_end_ms=self._latest_ms - self._started_ms
        )
        await self._send(event="clear")
        self._marks.clear()
        self._item_id = self._started_ms = None

    async def _send(self, **event: object) -> None:
        await self._twilio.send(json.dumps({"streamSid": STREAM, **event}))


if __name__ == "__main__":
    main(PACKAGES, drive)
