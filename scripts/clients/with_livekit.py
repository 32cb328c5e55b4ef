"""livekit-plugins-openai's Realtime model, without a LiveKit server: speech, a tool, text."""

import asyncio
import contextlib

from plumbing import KEY, Trial, main, pieces, utterance

PACKAGES = ("livekit-plugins-openai==1.8.9",)
RATE = 24_000


async def drive(trial: Trial) -> None:
    from livekit import rtc
    from livekit.agents import function_tool, llm
    from livekit.agents.utils import http_context
    from livekit.plugins import openai

    @function_tool
    async def get_weather(city: str) -> str:
        """The weather of a city."""
        return "20 degrees"

    generations: asyncio.Queue[llm.GenerationCreatedEvent] = asyncio.Queue()
    transcripts: asyncio.Queue[str] = asyncio.Queue()
    errors: list[object] = []
    async with contextlib.AsyncExitStack() as stack:
        if hasattr(http_context, "open"):
            await stack.enter_async_context(http_context.open())
        else:
            http_context._new_session_ctx()
        model = openai.realtime.RealtimeModel(
            base_url=f"{trial.http}/v1", api_key=KEY, model="gpt-realtime", voice="alloy"
        )
        session = model.session()
        session.on("generation_created", generations.put_nowait)
        session.on(
            "input_audio_transcription_completed",
            lambda event: event.is_final and transcripts.put_nowait(event.transcript),
        )
        session.on("error", errors.append)
        await session.update_instructions("Answer briefly.")
        await session.update_tools([get_weather])
        for piece in pieces(utterance()):
            session.push_audio(rtc.AudioFrame(piece, RATE, 1, len(piece) // 2))
        generation = await generations.get()
        trial.expect("Rome" in await transcripts.get(), "spoken turn is transcribed")
        calls = [call async for call in generation.function_stream]
        trial.expect(calls and "Rome" in calls[0].arguments, "tool is called")
        context = session.chat_ctx.copy()
        output = llm.FunctionCallOutput(
            call_id=calls[0].call_id, name="get_weather", output="20 degrees", is_error=False
        )
        context.items.append(output)
        await session.update_chat_ctx(context)
        said, audio = await _read(await session.generate_reply())
        trial.expect("20" in said and audio > RATE // 2, "tool's output is answered by voice")
        said, audio = await _read(await session.generate_reply(instructions="Say hello."))
        trial.expect(said and audio, "generate_reply is answered")
        trial.expect(not errors, "no error event")
        await session.aclose()


async def _read(generation) -> tuple[str, int]:  # type: ignore[no-untyped-def]
    """Transcript and samples of an answer."""
    said, samples = "", 0
    async for message in generation.message_stream:
        said += "".join([str(text) async for text in message.text_stream])
        async for frame in message.audio_stream:
            samples += frame.samples_per_channel
    return said, samples


if __name__ == "__main__":
    main(PACKAGES, drive)
