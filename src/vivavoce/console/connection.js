/** Connections to a Realtime server: WebSocket, WebRTC, and the HTTP requests around them. */
import { Emitter, KeyNeeded, Refused, sentenceOf } from "./state.js";

const ICE_GATHERING_TIMEOUT_MS = 1000;
const DISCONNECTED_TIMEOUT_MS = 3000; // time for an interrupted call to recover

/** Emits "event" (a parsed server event) and, once, "close" {code, reason}. */
export class WebSocketConnection extends Emitter {
  #socket = null;

  /** answers: false for a transcription session. */
  async open({ base, key, model, answers = true, resume = {} }) {
    const url = new URL("v1/realtime", base);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    if (model) url.searchParams.set("model", model);
    if (!answers) url.searchParams.set("intent", "transcription");
    for (const [name, value] of Object.entries(resume)) url.searchParams.set(name, value);
    const protocols = key ? ["realtime", `openai-insecure-api-key.${key}`] : ["realtime"];
    this.#socket = new WebSocket(url, protocols);
    this.#socket.onmessage = ({ data }) => this.emit("event", JSON.parse(data));
    this.#socket.onclose = ({ code, reason }) => this.emit("close", { code, reason });
  }

  get ready() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  send(event) {
    this.#socket.send(JSON.stringify(event));
  }

  /** Audio is sent as events here; there is no track to replace. */
  setMicrophone() {}

  close() {
    this.#socket?.close(1000);
  }
}

/**
 * Audio on tracks, events on the data channel "oai-events". Emits "event", "stream" (a MediaStream
 * with the audio of the answers) and, once, "close" {code, reason}.
 */
export class WebRtcConnection extends Emitter {
  #peer = null;
  #channel = null;
  #sender = null;
  #timer = 0;
  #closed = false;

  async open({ base, key, model, stream, resume = {}, iceServers = [] }) {
    this.#peer = new RTCPeerConnection({ iceServers });
    this.#peer.ontrack = ({ streams, track }) =>
      this.emit("stream", streams[0] ?? new MediaStream([track]));
    this.#peer.onconnectionstatechange = () => this.#onStateChange();
    const track = stream?.getAudioTracks()[0] ?? "audio"; // a microphone may be added later
    this.#sender = this.#peer.addTransceiver(track, { direction: "sendrecv" }).sender;
    this.#channel = this.#peer.createDataChannel("oai-events");
    this.#channel.onmessage = ({ data }) => this.emit("event", JSON.parse(data));
    this.#channel.onclose = () => this.#close("The call has ended.");
    await this.#peer.setLocalDescription();
    await gatheringDone(this.#peer);
    const sdp = await this.#exchangeSdp(base, key, { ...(model && { model }), ...resume });
    await this.#peer.setRemoteDescription({ type: "answer", sdp });
  }

  get ready() {
    return this.#channel?.readyState === "open";
  }

  send(event) {
    this.#channel.send(JSON.stringify(event));
  }

  /** Send the first audio track of `stream` from now on; null sends none. */
  async setMicrophone(stream) {
    await this.#sender?.replaceTrack(stream?.getAudioTracks()[0] ?? null);
  }

  close() {
    this.#close("");
  }

  #onStateChange() {
    clearTimeout(this.#timer);
    const { connectionState } = this.#peer;
    if (connectionState === "failed") this.#close("The call was disconnected.");
    if (connectionState === "disconnected") {
      const close = () => this.#close("The call was disconnected.");
      this.#timer = setTimeout(close, DISCONNECTED_TIMEOUT_MS);
    }
  }

  async #exchangeSdp(base, key, query) {
    const url = new URL("v1/realtime/calls", base);
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
    const headers = { ...authorization(key), "Content-Type": "application/sdp" };
    const body = this.#peer.localDescription.sdp;
    const response = await fetch(url, { method: "POST", headers, body });
    if (response.status === 404 || response.status === 405 || response.status === 501) {
      throw new Refused("This server has no WebRTC. Choose WebSocket in the settings.");
    }
    if (!response.ok) throw await errorOf(response);
    return response.text();
  }

  #close(reason) {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#peer?.close();
    this.emit("close", { code: reason ? 1006 : 1000, reason });
  }
}

/** Wait until the offer has all ICE candidates, at most a second: the server has no trickle ICE. */
function gatheringDone(peer) {
  if (peer.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ICE_GATHERING_TIMEOUT_MS);
    peer.addEventListener("icegatheringstatechange", () => {
      if (peer.iceGatheringState !== "complete") return;
      clearTimeout(timer);
      resolve();
    });
  });
}

/**
 * A short-lived key for one connection. A server without client_secrets gets `key` itself. Throws
 * KeyNeeded, Refused, TypeError (no network) or Error.
 */
export async function shortLivedKey(base, key) {
  const headers = { ...authorization(key), "Content-Type": "application/json" };
  const url = new URL("v1/realtime/client_secrets", base);
  const response = await fetch(url, { method: "POST", headers, body: "{}" });
  if (response.ok) return (await response.json()).value;
  if (response.status === 404 || response.status === 405) return key;
  throw await errorOf(response);
}

/** The JSON at a path of the server; {} where it has none. Throws KeyNeeded, TypeError. */
export async function fetchData(base, path, key) {
  const response = await fetch(new URL(path, base), { headers: authorization(key) });
  if (response.status === 401) throw new KeyNeeded("This server needs an API key.");
  return response.ok ? response.json() : {};
}

/** The `data` of a list such as v1/models; [] where the server has none. Throws KeyNeeded. */
export async function fetchList(base, path, key) {
  return (await fetchData(base, path, key)).data ?? [];
}

/**
 * Why a WebSocket was refused, in a sentence: browsers hide the status of a failed handshake, so
 * this asks GET /ready.
 */
export async function refusalOf(base) {
  try {
    const { status } = await fetch(new URL("ready", base));
    if (status === 503) return "The server is full or shutting down (503).";
    return "The server refused the connection.";
  } catch {
    return unreachable(base);
  }
}

/** The sentence for a server that does not answer. */
export function unreachable(base) {
  return `Can't reach the server at ${new URL(base).host}.`;
}

export function authorization(key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** The error of a response: KeyNeeded or Refused if a retry is useless, otherwise Error. */
async function errorOf(response) {
  const sentence = await response
    .json()
    .then((body) => sentenceOf(body.error.message))
    .catch(() => `The server answered with ${response.status}.`);
  if (response.status === 401) return new KeyNeeded(sentence);
  const permanent = response.status < 500 && response.status !== 429;
  return permanent ? new Refused(sentence) : new Error(sentence);
}
