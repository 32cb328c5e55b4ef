"""Strands agents' bidirectional agent with its OpenAI Realtime model: text, speech, a tool.

The package takes no base URL: its address is a constant of the module, which is set here.
"""

import asyncio
import base64

from plumbing import KEY, Trial, main, pieces, utterance

PACKAGES = ("strands-agents[bidi-openai]==1.62.0",)


async def drive(trial: Trial) -> None:
    from strands import tool
    from strands.bidi import BidiAgent
    from strands.bidi.models.openai import realtime
    from strands.bidi.types.media import AudioDelta

    realtime.OPENAI_REALTIME_URL = f"{trial.ws}/v1/realtime"
    asked: list[str] = []

    @tool
    def get_weather(city: str) -> str:
        """The weather of a city."""
        asked.append(city)
        return "20 degrees"

    model = realtime.OpenAIRealtimeModel(
        model_id="gpt-realtime", transcription_model_id="gpt-4o-mini-transcribe", api_key=KEY
    )
    agent = BidiAgent(model=model, tools=[get_weather], system_prompt="Answer briefly.")
    async with agent:
        events = agent.receive()
        await agent.send("Hello")
        said, audio = await _answer(events)
        trial.expect("assistant" in said and audio, "written turn is answered by voice")
        for piece in pieces(utterance()):
            source = {"bytes": piece}
            await agent.send(AudioDelta(format="pcm", source=source))
        said, audio = await _answer(events)
        trial.expect("Rome" in said.get("user", ""), "spoken turn is transcribed")
        if not audio:
            said, audio = await _answer(events)
        trial.expect(asked == ["Rome"], "tool is called")
        trial.expect("20" in said["assistant"] and audio, "tool's output is answered by voice")
        await agent.send("Tell me a story")
        await _until(events, "bidi_audio_delta")
        for piece in pieces(utterance()):
            await agent.send(AudioDelta(format="pcm", source={"bytes": piece}))
        await _until(events, "bidi_barge_in")
        trial.expect(True, "speech interrupts the answer")


async def _until(events, kind: str) -> None:  # type: ignore[no-untyped-def]
    while (await asyncio.wait_for(anext(events), 20)).get("type") != kind:
        pass


async def _answer(events) -> tuple[dict[str, str], bytes]:  # type: ignore[no-untyped-def]
    """Transcripts by role and audio, up to the end of a response."""
    said: dict[str, str] = {}
    audio = b""
    while True:
        event = await asyncio.wait_for(anext(events), 20)
        kind = event.get("type")
        if kind == "bidi_transcript_delta":
            said[event["role"]] = said.get(event["role"], "") + event["delta"]
        elif kind == "bidi_audio_delta":
            audio += base64.b64decode(event["audio"])
        elif kind == "bidi_response_stop":
            return said, audio


if __name__ == "__main__":
    main(PACKAGES, drive)
