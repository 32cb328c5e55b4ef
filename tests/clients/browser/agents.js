// @openai/agents-realtime, as a page uses it. `seen` is what the test reads.
import {
  OpenAIRealtimeWebRTC,
  RealtimeAgent,
  RealtimeSession,
  tool,
} from "/node_modules/@openai/agents-realtime/dist/bundle/openai-realtime-agents.mjs";
import { z } from "/node_modules/zod/index.js";
import "./sound.js";

window.hum = window.speak; // into the microphone of a call
const seen = { state: "", events: [], errors: [], tools: [], history: [], loudest: 0 };
window.seen = seen;
window.count = (type) => seen.events.filter((seen) => seen === type).length;

const weather = tool({
  name: "weather",
  description: "The weather in a city",
  parameters: z.object({ city: z.string() }),
  execute: ({ city }) => {
    seen.tools.push(city);
    return `It rains in ${city}.`;
  },
});

function sessionWith(transport, config = {}) {
  const agent = new RealtimeAgent({ name: "Guide", instructions: "Help.", tools: [weather] });
  const session = new RealtimeSession(agent, { transport, model: "gpt-realtime", config });
  session.on("error", ({ error }) => seen.errors.push(String(error?.error?.message ?? error)));
  session.on("history_updated", (history) => (seen.history = structuredClone(history)));
  session.on("transport_event", ({ type }) => seen.events.push(type));
  session.on("audio", ({ data }) => {
    seen.loudest = Math.max(seen.loudest, ...new Int16Array(data).map(Math.abs));
  });
  session.transport.on("connection_change", (state) => (seen.state = state));
  window.session = session;
  return session;
}

window.call = async (server, key) => {
  const transport = new OpenAIRealtimeWebRTC({ baseUrl: `${server}/v1/realtime/calls` });
  // longer than what is missing of a hum where the browser is late: it would be two turns
  const turnDetection = { type: "server_vad", silence_duration_ms: 1500 };
  const session = sessionWith(transport, { audio: { input: { turnDetection } } });
  await session.connect({ apiKey: key });
  seen.callId = transport.callId;
};

const energy = async () => {
  const { peerConnection } = session.transport.connectionState;
  const stats = [...(await peerConnection.getStats()).values()];
  return stats.find(({ type }) => type === "inbound-rtp")?.totalAudioEnergy ?? 0;
};

/** Resolves when something more than silence has come over the track, for a while. */
window.hear = async () => {
  for (const before = await energy(); (await energy()) < before + 0.05; );
};

window.connect = (server, key) =>
  sessionWith("websocket").connect({ apiKey: key, url: `${server}/v1/realtime` });

/** A hum, and silence behind it. */
window.speak = () => {
  const sound = new Int16Array(72000);
  for (let at = 0; at < 8000; at++) sound[at] = 12000 * Math.sin((at * 2 * Math.PI * 180) / 24000);
  session.sendAudio(sound.buffer);
};
