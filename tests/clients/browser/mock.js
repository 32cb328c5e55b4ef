// The package `openai` in a page whose server is mocked. `seen` is what the test reads.
import OpenAI from "/node_modules/openai/index.mjs";
import { OpenAIRealtimeWebSocket } from "/node_modules/openai/realtime/websocket.mjs";

const seen = { events: [], problems: [], answers: [], calls: [] };
window.seen = seen;

window.begin = async (home) => {
  const { MockRealtime } = await import(`${home}/testing.js`);
  const server = (window.server = new MockRealtime());
  server.install();
  const client = new OpenAI({ apiKey: "none", dangerouslyAllowBrowser: true });
  const line = (window.line = new OpenAIRealtimeWebSocket({ model: "gpt-realtime" }, client));
  line.on("event", ({ type }) => seen.events.push(type));
  line.on("error", (error) => seen.problems.push(String(error.message ?? error)));
  line.on("response.output_audio_transcript.done", ({ transcript }) => seen.answers.push(transcript));
  line.on("response.function_call_arguments.done", (event) => {
    seen.calls.push([event.name, event.arguments]);
    const item = { type: "function_call_output", call_id: event.call_id, output: "21 degrees" };
    line.send({ type: "conversation.item.create", item });
  });
  line.on("response.done", ({ response }) => {
    if (response.output.some(({ type }) => type === "function_call")) {
      line.send({ type: "response.create" });
    }
  });
  line.socket.addEventListener("close", ({ code }) => (seen.closed = code));
};
