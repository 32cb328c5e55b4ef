/** The Realtime protocol over a WebSocket. */
import { Emitter } from "./emitter.js";

/** Emits "event" (parsed) and "close" {code, reason}, once. */
export class Socket extends Emitter {
  #socket = null;

  async open({ base, key, model }) {
    const url = new URL("v1/realtime", base);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    if (model) url.searchParams.set("model", model);
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

  /** Sound goes out as events here. */
  listenTo() {}

  close() {
    this.#socket?.close(1000);
  }
}
