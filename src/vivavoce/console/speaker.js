/** Plays answers, and tells how much of each was played. */
import { Ear } from "./ear.js";
import { Emitter } from "./emitter.js";
import { NoSound } from "./microphone.js";
import { RATE } from "./sound.js";

/** Emits "level" (root mean square), "played" [[id, ms], ...], "idle" when all was played. */
export class Speaker extends Emitter {
  busy = false;
  #context = null;
  #node = null;
  #stops = new Map();
  #stopped = 0;
  #ear = new Ear();

  /** Call it from a click or a key: browsers let no page make a sound unasked. Throws NoSound. */
  async open() {
    if (!window.isSecureContext) throw new NoSound();
    this.#context = new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
    await this.#context.audioWorklet.addModule(new URL("./playback.worklet.js", import.meta.url));
    this.#node = new AudioWorkletNode(this.#context, "vivavoce-playback", {
      numberOfInputs: 0,
      outputChannelCount: [1],
    });
    this.#node.port.onmessage = ({ data }) => this.#hear(data);
    this.#node.connect(this.#context.destination);
    await this.#context.resume();
    return this;
  }

  play(id, samples) {
    this.busy = true;
    this.#node.port.postMessage({ id, samples }, [samples.buffer]);
  }

  /** Silence, now. Resolves to [[id, ms that reached the ear], ...] of what was cut off. */
  stop() {
    const token = ++this.#stopped;
    const done = new Promise((resolve) => this.#stops.set(token, resolve));
    this.#node.port.postMessage({ stop: token });
    return done;
  }

  async close() {
    for (const resolve of this.#stops.values()) resolve([]);
    this.#stops.clear();
    if (this.#context?.state !== "closed") await this.#context?.close();
  }

  #hear(data) {
    if (data.stopped) {
      const cut = data.cut.map(([id, samples]) => [id, this.#heard(id, samples)]);
      this.#stops.get(data.stopped)?.(cut);
      this.#stops.delete(data.stopped);
      return;
    }
    const wasBusy = this.busy;
    this.busy = data.busy;
    this.emit("level", data.rms);
    this.emit("played", data.played.map(([id, samples]) => [id, this.#heard(id, samples)]));
    if (wasBusy && !data.busy) this.emit("idle");
  }

  /** What has left the worklet is still on its way through the sound card for a moment. */
  #heard(id, samples) {
    const late = this.#context.outputLatency || this.#context.baseLatency || 0;
    return this.#ear.heard(id, samples, late, performance.now());
  }
}
