// Vercel's AI SDK against the server whose address is the argument.
import { createOpenAI } from "@ai-sdk/openai";
import { generateSpeech, generateText, isStepCount, streamText, tool, transcribe } from "ai";
import { z } from "zod";

const openai = createOpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "sk-no-key-is-checked" });
const model = openai.chat("gpt-4o-mini");

function expect(holds, what) {
  if (!holds) throw new Error(what);
  console.log(what);
}

expect((await generateText({ model, prompt: "Hello" })).text, "answer");

let pieces = 0;
for await (const piece of streamText({ model, prompt: "Hello" }).textStream) pieces += piece !== "";
expect(pieces > 1, "streamed answer");

const asked = [];
const weather = tool({
  description: "The weather of a city",
  inputSchema: z.object({ city: z.string() }),
  execute: ({ city }) => {
    asked.push(city);
    return `20 degrees in ${city}`;
  },
});
const { text } = await generateText({
  model,
  tools: { weather },
  stopWhen: isStepCount(3),
  prompt: "What is the weather in Rome?",
});
expect(asked.join() === "Rome", "tool is called");
expect(text.includes("20"), "tool's output is answered");

const speech = await generateSpeech({
  model: openai.speech("tts-1"),
  text: "Good morning.",
  voice: "alloy",
  outputFormat: "wav",
});
expect(speech.audio.uint8Array.length > 10_000, "speech");
const heard = await transcribe({
  model: openai.transcription("whisper-1"),
  audio: speech.audio.uint8Array,
});
expect(heard.text, "transcript");
