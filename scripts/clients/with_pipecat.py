"""pipecat's OpenAI Realtime service in a pipeline: a spoken turn with a tool."""

import asyncio

from plumbing import KEY, Trial, main, pieces, utterance

PACKAGES = ("pipecat-ai[openai,websocket]==1.14.0",)
RATE = 24_000


async def drive(trial: Trial) -> None:
    from pipecat.adapters.schemas.function_schema import FunctionSchema
    from pipecat.adapters.schemas.tools_schema import ToolsSchema
    from pipecat.frames.frames import (
        ErrorFrame,
        InputAudioRawFrame,
        LLMRunFrame,
        TTSAudioRawFrame,
        TTSTextFrame,
    )
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.runner import PipelineRunner
    from pipecat.pipeline.task import PipelineParams, PipelineTask
    from pipecat.processors.aggregators.llm_context import LLMContext
    from pipecat.processors.aggregators.llm_response_universal import (
        LLMContextAggregatorPair,
    )
    from pipecat.processors.frame_processor import FrameProcessor
    from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService

    asked: list[str] = []
    errors: list[str] = []
    said: list[str] = []
    audio = bytearray()
    greeted, answered = asyncio.Event(), asyncio.Event()

    class Sink(FrameProcessor):  # type: ignore[misc]
        async def process_frame(self, frame, direction) -> None:  # type: ignore[no-untyped-def]
            await super().process_frame(frame, direction)
            if isinstance(frame, TTSAudioRawFrame):
                audio.extend(frame.audio)
                greeted.set()
            elif isinstance(frame, TTSTextFrame):
                said.append(frame.text)
                if asked and "twenty" in "".join(said):
                    answered.set()
            elif isinstance(frame, ErrorFrame):
                errors.append(str(frame.error))
            await self.push_frame(frame, direction)

    async def get_weather(params) -> None:  # type: ignore[no-untyped-def]
        asked.append(params.arguments["city"])
        await params.result_callback({"degrees": 20})

    schema = FunctionSchema(
        "get_weather", "The weather of a city.", {"city": {"type": "string"}}, ["city"]
    )
    model = OpenAIRealtimeLLMService(api_key=KEY, base_url=f"{trial.ws}/v1/realtime")
    model.register_function("get_weather", get_weather)
    context = LLMContext(
        [{"role": "user", "content": "Hello"}], tools=ToolsSchema(standard_tools=[schema])
    )
    pair = LLMContextAggregatorPair(context)
    pipeline = Pipeline([pair.user(), model, Sink(), pair.assistant()])
    rates = PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE)
    task = PipelineTask(pipeline, params=rates)
    running = asyncio.create_task(PipelineRunner(handle_sigint=False).run(task))
    try:
        await task.queue_frame(LLMRunFrame())
        await greeted.wait()
        trial.expect(True, "written turn is answered by voice")
        await asyncio.sleep(3)  # the answer is over
        for piece in pieces(utterance()):
            await task.queue_frame(InputAudioRawFrame(piece, RATE, 1))
            await asyncio.sleep(0.02)
        await answered.wait()
        trial.expect(asked == ["Rome"], "tool is called")
        trial.expect(len(audio) > 24_000, "tool's output is answered by voice")
        trial.expect(not errors, "no error frame")
    finally:
        await task.cancel()
        await running


if __name__ == "__main__":
    main(PACKAGES, drive)
