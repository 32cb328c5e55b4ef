/** The Realtime protocol over WebRTC: sound on tracks, events on a data channel. */
import { problem, Refused } from "./access.js";
import { Emitter } from "./emitter.js";

const GATHER_MS = 1000;

/** Emits "event" (parsed), "stream" (the server's voice) and "close" {code, reason}, once. */
export class Call extends Emitter {
  #peer = null;
  #channel = null;
  #over = false;

  async open({ base, key, model, stream, iceServers = [] }) {
    this.#peer = new RTCPeerConnection({ iceServers });
    this.#peer.ontrack = ({ streams, track }) =>
      this.emit("stream", streams[0] ?? new MediaStream([track]));
    this.#peer.onconnectionstatechange = () => {
      if (this.#peer.connectionState === "failed") this.#end("The call broke off.");
    };
    for (const track of stream?.getAudioTracks() ?? []) this.#peer.addTrack(track, stream);
    if (!stream) this.#peer.addTransceiver("audio", { direction: "recvonly" });
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

  close() {
    this.#end("");
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
