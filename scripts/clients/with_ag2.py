"""ag2's realtime agent (`ag2.live.LiveAgent`): a spoken turn with a tool."""

import asyncio

from plumbing import KEY, QUESTION, Trial, main, pieces, utterance

PACKAGES = ("ag2[openai]==1.2.1", "openai[realtime]==3.57.0")


async def drive(trial: Trial) -> None:
    from ag2.events import (
        ModelResponse,
        RecordedAudioEvent,
        SynthesizedAudioEvent,
        TranscriptionCompletedEvent,
    )
    from ag2.live import LiveAgent, OpenAIRealTimeConfig
    from ag2.live.openai import InputConfig
    from openai import AsyncOpenAI

    asked: list[str] = []
    transcripts: list[str] = []
    answers: asyncio.Queue[str] = asyncio.Queue()
    audio = bytearray()

    async def get_weather(city: str) -> str:
        """The weather of a city."""
        asked.append(city)
        return "20 degrees"

    agent = LiveAgent(
        "assistant",
        "Answer briefly.",
        config=OpenAIRealTimeConfig(
            "gpt-realtime",
            client=AsyncOpenAI(base_url=f"{trial.http}/v1", api_key=KEY),
            input=InputConfig(transcription={"model": "gpt-4o-mini-transcribe"}),
        ),
        tools=[get_weather],
    )
    async with agent.run() as context:

        async def on_transcript(event: TranscriptionCompletedEvent) -> None:
            transcripts.append(event.content)

        async def on_audio(event: SynthesizedAudioEvent) -> None:
            audio.extend(event.content)

        async def on_response(event: ModelResponse) -> None:
            if event.message:
                answers.put_nowait(event.message.content)

        stream = context.stream
        with (
            stream.where(TranscriptionCompletedEvent).sub_scope(on_transcript),
            stream.where(SynthesizedAudioEvent).sub_scope(on_audio),
            stream.where(ModelResponse).sub_scope(on_response),
        ):
            for piece in pieces(utterance()):
                await context.send(RecordedAudioEvent(piece))
            answer = await answers.get()
    trial.expect(transcripts == [QUESTION], "spoken turn is transcribed")
    trial.expect(asked == ["Rome"], "tool is called")
    trial.expect("20" in answer and len(audio) > 24_000, "tool's output is answered by voice")


if __name__ == "__main__":
    main(PACKAGES, drive)
