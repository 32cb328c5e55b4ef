"""aiortc with the openai package's `realtime.calls.create`: a call with a spoken turn."""

import asyncio
import fractions
import json

from plumbing import KEY, QUESTION, Trial, main, pieces, silence, utterance

PACKAGES = ("aiortc==1.16.0", "openai==3.57.0", "numpy==2.4.6")
RATE = 48_000
FRAME_MS = 20


async def drive(trial: Trial) -> None:
    import av
    from aiortc import RTCPeerConnection, RTCSessionDescription
    from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
    from openai import AsyncOpenAI

    class Microphone(MediaStreamTrack):  # type: ignore[misc]
        kind = "audio"

        def __init__(self) -> None:
            super().__init__()
            self._frames: list[bytes] = []
            self._sent = 0
            self._began = asyncio.get_running_loop().time()

        def say(self, pcm: bytes) -> None:
            self._frames = pieces(pcm, FRAME_MS, RATE)

        async def recv(self) -> av.AudioFrame:
            due = self._began + self._sent * FRAME_MS / 1000
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            samples = RATE * FRAME_MS // 1000
            frame = av.AudioFrame(format="s16", layout="mono", samples=samples)
            frame.planes[0].update(self._frames.pop(0) if self._frames else bytes(2 * samples))
            frame.sample_rate, frame.pts = RATE, self._sent * samples
            frame.time_base = fractions.Fraction(1, RATE)
            self._sent += 1
            return frame

    peer = RTCPeerConnection()
    microphone = Microphone()
    peer.addTrack(microphone)
    channel = peer.createDataChannel("oai-events")
    events: asyncio.Queue[dict] = asyncio.Queue()  # type: ignore[type-arg]
    loud = asyncio.Event()
    listening: list[asyncio.Task[None]] = []

    async def listen(track: MediaStreamTrack) -> None:
        try:
            while True:
                if abs((await track.recv()).to_ndarray()).max() > 1000:
                    loud.set()
        except MediaStreamError:
            return

    channel.on("message", lambda message: events.put_nowait(json.loads(message)))
    peer.on("track", lambda track: listening.append(asyncio.create_task(listen(track))))

    async def until(kind: str) -> dict:  # type: ignore[type-arg]
        while (event := await events.get())["type"] != kind:
            if event["type"] == "error":
                raise RuntimeError(event["error"]["message"])
        return event

    await peer.setLocalDescription(await peer.createOffer())
    async with AsyncOpenAI(base_url=f"{trial.http}/v1", api_key=KEY) as client:
        session = {
            "type": "realtime",
            "model": "gpt-realtime",
            "audio": {"input": {"transcription": {"model": "whisper-1"}}},
        }
        answer = await client.realtime.calls.create(sdp=peer.localDescription.sdp, session=session)
        sdp = (await answer.aread()).decode()
    await peer.setRemoteDescription(RTCSessionDescription(sdp, "answer"))
    await until("session.created")
    microphone.say(silence(200, RATE) + utterance(RATE))
    heard = await until("conversation.item.input_audio_transcription.completed")
    trial.expect(heard["transcript"] == QUESTION, "spoken turn is transcribed")
    await until("output_audio_buffer.started")
    await asyncio.wait_for(loud.wait(), 10)
    trial.expect(True, "answered on the track")
    microphone.say(utterance(RATE))
    await until("output_audio_buffer.cleared")
    trial.expect(True, "barge-in clears the track")
    await until("output_audio_buffer.started")
    trial.expect(True, "second turn is answered")
    await peer.close()


if __name__ == "__main__":
    main(PACKAGES, drive)
