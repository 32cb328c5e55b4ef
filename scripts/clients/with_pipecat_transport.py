"""pipecat's WebsocketClientTransport on /ws?rtvi=1: a spoken turn and a typed one."""

import asyncio

from plumbing import QUESTION, Trial, main, pieces, utterance

PACKAGES = ("pipecat-ai[websocket]==1.14.0",)
RATE = 16_000


async def drive(trial: Trial) -> None:
    from pipecat.frames.frames import (
        InputAudioRawFrame,
        InputTransportMessageFrame,
        OutputAudioRawFrame,
        OutputTransportMessageUrgentFrame,
    )
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.runner import PipelineRunner
    from pipecat.pipeline.task import PipelineParams, PipelineTask
    from pipecat.processors.frame_processor import FrameProcessor
    from pipecat.transports.websocket.client import (
        WebsocketClientParams,
        WebsocketClientTransport,
    )

    messages: asyncio.Queue[dict] = asyncio.Queue()  # type: ignore[type-arg]
    audio = bytearray()

    class Sink(FrameProcessor):  # type: ignore[misc]
        async def process_frame(self, frame, direction) -> None:  # type: ignore[no-untyped-def]
            await super().process_frame(frame, direction)
            if isinstance(frame, InputTransportMessageFrame):
                messages.put_nowait(frame.message)
            elif isinstance(frame, InputAudioRawFrame):
                audio.extend(frame.audio)
                return  # it would be sent back
            await self.push_frame(frame, direction)

    params = WebsocketClientParams(audio_in_enabled=True, audio_out_enabled=True)
    transport = WebsocketClientTransport(f"{trial.ws}/ws?rtvi=1", params)
    rates = PipelineParams(audio_in_sample_rate=24_000, audio_out_sample_rate=RATE)
    pipeline = Pipeline([transport.input(), Sink(), transport.output()])
    task = PipelineTask(pipeline, params=rates)
    running = asyncio.create_task(PipelineRunner(handle_sigint=False).run(task))

    async def send(kind: str, id_: str, data: dict) -> None:  # type: ignore[type-arg]
        message = {"label": "rtvi-ai", "type": kind, "id": id_, "data": data}
        await task.queue_frame(OutputTransportMessageUrgentFrame(message=message))

    async def until(kind: str) -> dict:  # type: ignore[type-arg]
        while (message := await messages.get())["type"] != kind:
            if message["type"].startswith("error"):
                raise RuntimeError(message["data"]["error"])
        return message

    try:
        await send("client-ready", "r1", {"version": "2.2.0", "about": {"library": "pipecat"}})
        trial.expect((await until("bot-ready"))["id"] == "r1", "bot is ready")
        for piece in pieces(utterance(RATE), 20, RATE):
            await task.queue_frame(OutputAudioRawFrame(piece, RATE, 1))
        heard = await until("user-llm-text")
        trial.expect(heard["data"]["text"] == QUESTION, "spoken turn is transcribed")
        await until("bot-stopped-speaking")
        trial.expect(len(audio) > 24_000, "spoken turn is answered by voice")
        await send("send-text", "t1", {"content": "Hello"})
        await until("bot-started-speaking")
        trial.expect(True, "typed turn is answered by voice")
    finally:
        await task.cancel()
        await running


if __name__ == "__main__":
    main(PACKAGES, drive)
