/** The Realtime protocol over WebRTC: sound on tracks, events on a data channel. */
import { problem, Refused } from "./access.js";
import { Emitter } from "./emitter.js";

const GATHER_MS = 1000;
const DOUBT_MS = 3000; // how long a call that nothing comes from may find its way back

/** Emits "event" (parsed), "stream" (the server's voice) and "close" {code, reason}, once. */
export class Call extends Emitter {
  #peer = null;
  #channel = null;
  #sender = null;
  #doubt = 0;
  #over = false;

  async open({ base, key, model, stream, iceServers = [] }) {
    this.#peer = new RTCPeerConnection({ iceServers });
    this.#peer.ontrack = ({ streams, track }) =>
      this.emit("stream", streams[0] ?? new MediaStream([track]));
    this.#peer.onconnectionstatechange = () => this.#watch();
    const track = stream?.getAudioTracks()[0] ?? "audio"; // both ways: a microphone may come later
    this.#sender = this.#peer.addTransceiver(track, { direction: "sendrecv" }).sender;
    this.#channel = this.#peer.createDataChannel("oai-events");
    this.#channel.onmessage = ({ data }) => this.emit("event", JSON.parse(data));
    this.#channel.onclose = () => this.#end("The call has ended.");
    await this.#peer.setLocalDescription();
    await gathered(this.#peer);
    const answer = await this.#offer(base, key, model);
    await this.#peer.setRemoteDescription({ type: "answer", sdp: answer });
  }

  get ready() {
    return this.#channel?.readyState === "open";
  }

  send(event) {
    this.#channel.send(JSON.stringify(event));
  }

  /** Send this microphone from now on; null: none. */
  async listenTo(stream) {
    await this.#sender?.replaceTrack(stream?.getAudioTracks()[0] ?? null);
  }

  close() {
    this.#end("");
  }

  #watch() {
    clearTimeout(this.#doubt);
    const { connectionState } = this.#peer;
    if (connectionState === "failed") this.#end("The call broke off.");
    if (connectionState === "disconnected") {
      this.#doubt = setTimeout(() => this.#end("The call broke off."), DOUBT_MS);
    }
  }

  async #offer(base, key, model) {
    const url = new URL("v1/realtime/calls", base);
    if (model) url.searchParams.set("model", model);
    const headers = { "Content-Type": "application/sdp" };
    if (key) headers.Authorization = `Bearer ${key}`;
    const body = this.#peer.localDescription.sdp;
    const answer = await fetch(url, { method: "POST", headers, body });
    if (answer.status === 404 || answer.status === 405 || answer.status === 501) {
      throw new Refused("This server takes no WebRTC calls. Choose WebSocket in the settings.");
    }
    if (!answer.ok) throw await problem(answer);
    return answer.text();
  }

  #end(reason) {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#doubt);
    this.#peer?.close();
    this.emit("close", { code: reason ? 1006 : 1000, reason });
  }
}

/** Servers that hear of no later candidates need all of them in the offer; one second is enough. */
function gathered(peer) {
  if (peer.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((resolve) => {
    const limit = setTimeout(resolve, GATHER_MS);
    peer.addEventListener("icegatheringstatechange", () => {
      if (peer.iceGatheringState !== "complete") return;
      clearTimeout(limit);
      resolve();
    });
  });
}
