// OpenAI's agents SDK over a WebSocket, against the server whose address is the argument.
import { RealtimeAgent, RealtimeSession, tool } from "@openai/agents-realtime";
import { z } from "zod";

const RATE = 24_000;
const url = `${process.argv[2].replace("http", "ws")}/v1/realtime`;
const asked = [];
const weather = tool({
  name: "get_weather",
  description: "The weather of a city",
  parameters: z.object({ city: z.string() }),
  execute: ({ city }) => {
    asked.push(city);
    return `20 degrees in ${city}`;
  },
});
const agent = new RealtimeAgent({ name: "Guide", instructions: "Help.", tools: [weather] });
const session = new RealtimeSession(agent, { transport: "websocket", model: "gpt-realtime" });
const errors = [];
let soundBytes = 0;
session.on("error", ({ error }) => errors.push(JSON.stringify(error)));
session.on("audio", ({ data }) => (soundBytes += data.byteLength));

function expect(holds, what) {
  if (!holds) throw new Error(`${what} ${errors.join()}`);
  console.log(what);
}

/** The end of the answer that the agent gives last: after a tool it gives one more. */
const answered = () => new Promise((resolve) => session.once("agent_end", (_, __, text) => resolve(text)));

await session.connect({ apiKey: "sk-no-key-is-checked", url });
expect(true, "connection");

let end = answered();
session.sendMessage("What is the weather in Rome?");
let text = await end;
if (!text.includes("20")) text = await answered();
expect(asked.join() === "Rome", "tool is called");
expect(text.includes("20"), "tool's output is answered");

end = answered();
const speech = new Int16Array(2 * RATE);
for (let i = 0; i < 0.6 * RATE; i++) speech[i] = 20_000 * Math.sin((2 * Math.PI * 200 * i) / RATE);
for (let at = 0; at < speech.length; at += 960) session.sendAudio(speech.slice(at, at + 960).buffer);
await end;
expect(soundBytes > RATE, "spoken turn is answered");
expect(!errors.length, "no errors");
session.close();
