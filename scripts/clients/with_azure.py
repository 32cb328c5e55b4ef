"""The openai package's Azure client: a preview version's Realtime dialect, and chat.

Azure's own `rtclient` is not on PyPI; this client opens the same address with the same headers:
/openai/realtime?api-version=…-preview&deployment=NAME and `api-key`.
"""

import asyncio
import base64

from plumbing import KEY, QUESTION, Trial, main, pieces, utterance

PACKAGES = ("openai[realtime]==3.57.0",)
API_VERSION = "2025-04-01-preview"
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


async def drive(trial: Trial) -> None:
    from openai import AsyncAzureOpenAI

    client = AsyncAzureOpenAI(
        azure_endpoint=trial.http,
        websocket_base_url=f"{trial.ws}/openai",
        api_version=API_VERSION,
        api_key=KEY,
    )
    async with client, client.beta.realtime.connect(model="my-deployment") as connection:
        await connection.session.update(
            session={
                "modalities": ["text", "audio"],
                "voice": "alloy",
                "input_audio_format": "pcm16",
                "input_audio_transcription": {"model": "whisper-1"},
                "turn_detection": {"type": "server_vad"},
                "tools": [WEATHER],
            }
        )
        await _until(connection, "session.updated")
        trial.expect(True, "beta session is updated")
        for piece in pieces(utterance()):
            await connection.input_audio_buffer.append(audio=base64.b64encode(piece).decode())
        events = await _until(connection, "response.done")
        transcripts = [
            e.transcript
            for e in events
            if e.type == "conversation.item.input_audio_transcription.completed"
        ]
        trial.expect(transcripts == [QUESTION], "spoken turn is transcribed")
        calls = [item for item in events[-1].response.output if item.type == "function_call"]
        trial.expect(calls and calls[0].name == "get_weather", "tool is called")
        await connection.conversation.item.create(
            item={
                "type": "function_call_output",
                "call_id": calls[0].call_id,
                "output": '{"degrees": 20}',
            }
        )
        await connection.response.create()
        events = await _until(connection, "response.done")
        audio = b"".join(
            base64.b64decode(e.delta) for e in events if e.type == "response.audio.delta"
        )
        trial.expect(len(audio) > 24_000, "tool's output is answered by voice")
        answer = await client.chat.completions.create(
            model="my-deployment", messages=[{"role": "user", "content": "Hello"}]
        )
        trial.expect(answer.choices[0].message.content, "chat completion")


async def _until(connection, kind: str) -> list:  # type: ignore[no-untyped-def,type-arg]
    """Events up to the first of this type; an error ends the wait, too."""
    events = []
    while True:
        events.append(await asyncio.wait_for(connection.recv(), 20))
        if events[-1].type == "error":
            raise RuntimeError(events[-1].error.message)
        if events[-1].type == kind:
            return events


if __name__ == "__main__":
    main(PACKAGES, drive)
