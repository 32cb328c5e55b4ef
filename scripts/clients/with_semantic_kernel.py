"""Semantic Kernel's realtime clients, over WebSocket and over WebRTC, each with a tool."""

import asyncio
import fractions

from plumbing import KEY, QUESTION, Trial, main, pieces, silence, utterance

PACKAGES = ("semantic-kernel[realtime]==1.45.0",)
RTC_RATE = 48_000
FRAME_MS = 20


async def drive(trial: Trial) -> None:
    await _websocket(trial)
    await _webrtc(trial)


async def _websocket(trial: Trial) -> None:
    from semantic_kernel.connectors.ai.open_ai import OpenAIRealtimeWebsocket
    from semantic_kernel.contents import AudioContent
    from semantic_kernel.contents.realtime_events import RealtimeAudioEvent

    weather = Weather()
    client = OpenAIRealtimeWebsocket(
        ai_model_id="gpt-realtime", api_key=KEY, client=_openai(trial), plugins=[weather]
    )
    async with client(settings=_settings(), create_response=False):
        for piece in pieces(utterance()):
            audio = AudioContent(data=piece, data_format="base64")
            await client.send(
                RealtimeAudioEvent(audio=audio, service_type="input_audio_buffer.append")
            )
        said, transcripts, audio_bytes = await _answers(client)
    trial.expect(transcripts == [QUESTION], "WebSocket: spoken turn is transcribed")
    trial.expect(weather.asked == ["Rome"], "tool is called")
    trial.expect("20" in said and audio_bytes > 24_000, "tool's output is answered by voice")


async def _webrtc(trial: Trial) -> None:
    from semantic_kernel.connectors.ai.open_ai import OpenAIRealtimeWebRTC

    weather = Weather()
    client = OpenAIRealtimeWebRTC(
        audio_track=_microphone(),
        ai_model_id="gpt-realtime",
        api_key=KEY,
        client=_openai(trial),
        plugins=[weather],
    )
    async with client(settings=_settings(), create_response=False):
        said, _, audio_bytes = await _answers(client)  # the client asks for no transcription here
    trial.expect(weather.asked == ["Rome"], "WebRTC: tool is called after a spoken turn")
    trial.expect("20" in said and audio_bytes > 0, "tool's output is answered by voice")


class Weather:
    """A plugin."""

    def __init__(self) -> None:
        from semantic_kernel.functions import kernel_function

        self.asked: list[str] = []

        def get_weather(city: str) -> str:
            self.asked.append(city)
            return "20 degrees"

        description = "The weather of a city."
        self.get_weather = kernel_function(get_weather, "get_weather", description)


def _openai(trial: Trial):  # type: ignore[no-untyped-def]
    from openai import AsyncOpenAI

    return AsyncOpenAI(base_url=f"{trial.http}/v1", api_key=KEY)


def _settings():  # type: ignore[no-untyped-def]
    from semantic_kernel.connectors.ai import FunctionChoiceBehavior
    from semantic_kernel.connectors.ai.open_ai import (
        OpenAIRealtimeExecutionSettings,
    )

    return OpenAIRealtimeExecutionSettings(
        instructions="Answer briefly.",
        voice="alloy",
        turn_detection={"type": "server_vad"},
        input_audio_transcription={"model": "whisper-1"},
        function_choice_behavior=FunctionChoiceBehavior.Auto(),
    )


def _microphone():  # type: ignore[no-untyped-def]
    """A track that speaks once after a second, then is silent."""
    import av
    from aiortc.mediastreams import MediaStreamTrack

    class Microphone(MediaStreamTrack):  # type: ignore[misc]
        kind = "audio"

        def __init__(self) -> None:
            super().__init__()
            speech = silence(1500, RTC_RATE) + utterance(RTC_RATE)
            self._frames = pieces(speech, FRAME_MS, RTC_RATE)
            self._sent = 0
            self._began = asyncio.get_running_loop().time()

        async def recv(self) -> av.AudioFrame:
            due = self._began + self._sent * FRAME_MS / 1000
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            samples = RTC_RATE * FRAME_MS // 1000
            frame = av.AudioFrame(format="s16", layout="mono", samples=samples)
            at = self._sent
            pcm = self._frames[at] if at < len(self._frames) else bytes(2 * samples)
            frame.planes[0].update(pcm)
            frame.sample_rate = RTC_RATE
            frame.pts = at * samples
            frame.time_base = fractions.Fraction(1, RTC_RATE)
            self._sent += 1
            return frame

    return Microphone()


async def _answers(client) -> tuple[str, list[str], int]:  # type: ignore[no-untyped-def]
    """Transcript of the answers, transcripts of the user, and audio, up to a spoken answer."""
    from semantic_kernel.contents.realtime_events import (
        RealtimeAudioEvent,
        RealtimeTextEvent,
    )

    said, audio = "", 0
    transcripts: list[str] = []
    async for event in client.receive():
        if isinstance(event, RealtimeAudioEvent):
            data = event.audio.data
            audio += len(data) if isinstance(data, bytes | str) else int(data.any())
        elif isinstance(event, RealtimeTextEvent):
            said += event.text.text
        elif event.service_type == "conversation.item.input_audio_transcription.completed":
            transcripts.append(event.service_event.transcript)
        elif event.service_type == "error":
            raise RuntimeError(f"error event: {event.service_event}")
        elif event.service_type == "response.done" and said:
            return said, transcripts, audio
    raise RuntimeError("the connection was closed")


if __name__ == "__main__":
    main(PACKAGES, drive)
