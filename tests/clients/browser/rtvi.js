// Pipecat's JavaScript client, as a page uses it. `seen` is what the test reads.
import { PipecatClient } from "@pipecat-ai/client-js";
import { WavMediaManager, WebSocketTransport } from "@pipecat-ai/websocket-transport";

const seen = { events: [], heard: [], said: [], outputs: [], metrics: 0, version: null };
window.seen = seen;

window.connect = async (address, tools) => {
  const note = (type) => () => seen.events.push(type);
  const client = new PipecatClient({
    transport: new WebSocketTransport({ mediaManager: new WavMediaManager(512, 16000) }),
    enableMic: true,
    callbacks: {
      onBotReady: ({ version }) => (seen.version = version),
      onUserTranscript: ({ text, final }) => final && seen.heard.push(text),
      onBotTranscript: ({ text }) => seen.said.push(text),
      onBotOutput: ({ text, spoken_status }) => seen.outputs.push([text, spoken_status]),
      onMetrics: () => (seen.metrics += 1),
      onUserStartedSpeaking: note("user-started"),
      onUserStoppedSpeaking: note("user-stopped"),
      onBotStartedSpeaking: note("bot-started"),
      onBotStoppedSpeaking: note("bot-stopped"),
      onDisconnected: note("disconnected"),
      onError: ({ data }) => seen.events.push(data),
    },
  });
  window.client = client;
  client.registerFunctionCallHandler("weather", async (call) => {
    seen.call = call.arguments;
    return { sky: "clear" };
  });
  await client.connect({ wsUrl: address });
  if (tools) seen.session = await client.sendClientRequest("session.update", { tools });
};

window.refused = () => client.sendClientRequest("wibble", {}).catch(() => (seen.refused = true));
