// Pipecat's JavaScript client, as a page uses it. `seen` is what the test reads.
import { heard, play } from "./sound.js";
import { PipecatClient } from "@pipecat-ai/client-js";
import { SmallWebRTCTransport } from "@pipecat-ai/small-webrtc-transport";
import { WavMediaManager, WebSocketTransport } from "@pipecat-ai/websocket-transport";

const seen = { events: [], heard: [], said: [], outputs: [], metrics: 0, version: null };
window.seen = seen;
const TOOLS = [{ type: "function", name: "weather" }];

const TRANSPORTS = {
  // the default manager loads a script from another site
  websocket: () => new WebSocketTransport({ mediaManager: new WavMediaManager(512, 16000) }),
  webrtc: () => new SmallWebRTCTransport({ mediaManager: new WavMediaManager(512, 16000) }),
};

/** Ask the server's /start for a session, and begin it. */
window.connect = async (transport, server, key) => {
  const note = (type) => () => seen.events.push(type);
  const client = new PipecatClient({
    transport: TRANSPORTS[transport](),
    enableMic: true,
    callbacks: {
      onBotReady: ({ version }) => (seen.version = version),
      onUserTranscript: ({ text, final }) => final && seen.heard.push(text),
      onBotTranscript: ({ text }) => seen.said.push(text),
      onBotOutput: ({ text, spoken_status }) => seen.outputs.push([text, spoken_status]),
      onMetrics: () => (seen.metrics += 1),
      onUserStartedSpeaking: () => {
        seen.events.push("user-started");
        seen.loudAtStart = heard.loud;
      },
      onUserStoppedSpeaking: note("user-stopped"),
      onBotStartedSpeaking: note("bot-started"),
      onBotStoppedSpeaking: note("bot-stopped"),
      onBotDisconnected: note("bot-left"),
      onDisconnected: note("disconnected"),
      onTrackStarted: (track, participant) => participant?.local || play(track),
      onError: ({ data }) => seen.events.push(data),
    },
  });
  window.client = client;
  client.registerFunctionCallHandler("weather", async (call) => {
    seen.call = call.arguments;
    return { sky: "clear" };
  });
  const headers = new Headers(key ? { Authorization: `Bearer ${key}` } : {});
  await client.startBotAndConnect({
    endpoint: `${server}/start`,
    headers,
    requestData: { transport },
  });
  seen.session = await client.sendClientRequest("session.update", { tools: TOOLS });
};

window.refused = () => client.sendClientRequest("wibble", {}).catch(() => (seen.refused = true));

/** Let the client believe that its connection of WebRTC has failed: it makes another one. */
window.loseConnection = () => {
  const { pc } = client._transport;
  Object.defineProperty(pc, "iceConnectionState", { value: "failed" });
  pc.dispatchEvent(new Event("iceconnectionstatechange"));
  window.lost = pc;
};

window.isConnectedAgain = () => {
  const { pc, dc } = client._transport;
  return pc !== lost && dc.readyState === "open";
};
