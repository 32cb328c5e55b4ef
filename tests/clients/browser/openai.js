// The package `openai`, as a page uses it. `seen` is what the test reads.
import OpenAI from "/node_modules/openai/index.mjs";
import { OpenAIRealtimeWebSocket } from "/node_modules/openai/realtime/websocket.mjs";
import { OpenAIRealtimeWebRTC } from "/node_modules/openai/realtime/webrtc.mjs";

const seen = { events: [], problems: [], answer: "", error: null };
window.seen = seen;

window.call = async (server, key) => {
  const client = new OpenAI({
    apiKey: key,
    baseURL: `${server}/v1`,
    dangerouslyAllowBrowser: true,
    maxRetries: 0,
  });
  window.client = client;
  const line = new OpenAIRealtimeWebRTC();
  window.line = line;
  line.onEvent(({ type }) => seen.events.push(type));
  line.onConnectionEvent((event) => {
    if (event.type === "error") seen.problems.push(String(event.error));
    if (event.type === "closed") seen.closed = event.reason;
  });
  line.on("response.output_audio_transcript.done", ({ transcript }) => (seen.answer = transcript));
  line.on("error", ({ error }) => seen.problems.push(error.message));
  const microphone = await navigator.mediaDevices.getUserMedia({ audio: true });
  line.peerConnection.addTransceiver("video"); // is refused, and the call is made all the same
  for (const track of microphone.getTracks()) line.peerConnection.addTrack(track, microphone);
  await line.connect({
    exchangeSdp: async (sdp, { signal }) => {
      const session = { type: "realtime", model: "gpt-realtime", instructions: "Be brief." };
      const reply = await client.realtime.calls.create({ sdp, session }, { signal });
      seen.callId = reply.headers.get("location").split("/").at(-1);
      return reply.text();
    },
  });
};

/** Over a WebSocket, which the package takes to be wss whatever it is told. */
window.ask = (server, key, text) => {
  const client = new OpenAI({ apiKey: key, baseURL: `${server}/v1`, dangerouslyAllowBrowser: true });
  const line = new OpenAIRealtimeWebSocket({ model: "gpt-realtime" }, client);
  window.line = line;
  line.on("event", ({ type }) => seen.events.push(type));
  line.on("error", (error) => seen.problems.push(String(error)));
  line.on("response.output_audio_transcript.done", ({ transcript }) => (seen.answer = transcript));
  line.socket.addEventListener("close", ({ code }) => (seen.closed = code));
  line.on("session.created", () => {
    const content = [{ type: "input_text", text }];
    line.send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
    line.send({ type: "response.create" });
  });
};

window.hangUp = () => client.realtime.calls.hangup(seen.callId);
