/** Playback of answers, and how much of each has been played. */
import { RATE } from "./audio.js";
import { AudioCapture, loadWorklets, NoSecureContext } from "./microphone.js";
import { Emitter } from "./state.js";

const MAX_POSITIONS = 8; // answers; older ones are played to their end
const SILENCE_RMS = 0.0005;
const MAX_PAUSE_MS = 600; // within speech; longer silence is a gap in the stream

/** How much of each answer is audible: the samples played, less those in the audio device. */
export class PlayedPositions {
  #positions = new Map(); // id -> {samples, at: ms since when the count is unchanged}

  /**
   * Milliseconds of answer `id` that are audible at `now` (ms), when `samples` of it have been
   * handed to the audio device, whose latency is `latency` seconds.
   */
  audibleMs(id, samples, latency, now) {
    let position = this.#positions.get(id);
    if (position?.samples !== samples) {
      position = { samples, at: now };
      this.#positions.delete(id);
      this.#positions.set(id, position);
      const [oldest] = this.#positions.keys();
      if (this.#positions.size > MAX_POSITIONS) this.#positions.delete(oldest);
    }
    const pendingMs = Math.max(0, latency * 1000 - (now - position.at));
    return Math.max(0, Math.floor((samples / RATE) * 1000 - pendingMs));
  }
}

/**
 * Plays PCM16 that arrives in events. Emits "level" (root mean square), "played"
 * [[id, ms], ...], "busy" when it begins to play, and "idle" when the queue has run empty.
 */
export class Player extends Emitter {
  busy = false;
  #context = null;
  #paused = false;
  #loading = null;
  #node = null;
  #stops = new Map(); // token -> resolve
  #lastToken = 0;
  #positions = new PlayedPositions();

  /**
   * Call it from a click or a key: browsers require one for sound. speaker: the id of a
   * loudspeaker. Throws NoSecureContext.
   */
  open(speaker = "") {
    if (!window.isSecureContext) throw new NoSecureContext();
    this.#context = new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
    if (speaker) this.useSpeaker(speaker);
  }

  /** Play on that loudspeaker, "" for the default one, where the browser can choose. */
  async useSpeaker(speaker) {
    await chooseSpeaker(this.#context, speaker);
  }

  /** Get ready to play. After an error it can be called again. Throws TypeError without a server. */
  load() {
    this.#loading ??= this.#load().catch((error) => {
      this.#loading = null;
      throw error;
    });
    return this.#loading;
  }

  play(id, samples) {
    this.busy = true;
    this.#node.port.postMessage({ id, samples }, [samples.buffer]);
  }

  /** Stop now. Resolves to [[id, audible ms], ...] of the answers that were cut off. */
  stop() {
    const token = ++this.#lastToken;
    const stopped = new Promise((resolve) => this.#stops.set(token, resolve));
    this.#node.port.postMessage({ stop: token });
    return stopped;
  }

  /** Play nothing for now. */
  pause() {
    this.#paused = true;
    if (this.#context?.state === "running") this.#context.suspend();
    this.emit("level", 0);
  }

  /** Go on after pause(). */
  continue() {
    this.#paused = false;
    if (this.#context?.state === "suspended") this.#context.resume();
  }

  async close() {
    for (const resolve of this.#stops.values()) resolve([]);
    this.#stops.clear();
    if (this.#context?.state !== "closed") await this.#context?.close();
  }

  async #load() {
    await loadWorklets(this.#context);
    this.#node = new AudioWorkletNode(this.#context, "vivavoce-playback", {
      numberOfInputs: 0,
      outputChannelCount: [1],
    });
    this.#node.port.onmessage = ({ data }) => this.#onMessage(data);
    this.#node.connect(this.#context.destination);
    await this.#context.resume();
  }

  #onMessage(data) {
    if (data.stopped) {
      this.#stops.get(data.stopped)?.(this.#audible(data.cut));
      this.#stops.delete(data.stopped);
      return;
    }
    const wasBusy = this.busy;
    this.busy = data.busy;
    this.emit("level", this.#paused ? 0 : data.rms); // some come after pause()
    this.emit("played", this.#audible(data.played));
    if (data.busy && !wasBusy) this.emit("busy");
    if (wasBusy && !data.busy) this.emit("idle");
  }

  #audible(counts) {
    const latency = this.#context.outputLatency || this.#context.baseLatency || 0;
    const now = performance.now();
    return counts.map(([id, samples]) => [
      id,
      this.#positions.audibleMs(id, samples, latency, now),
    ]);
  }
}

/**
 * Plays answers that arrive as a MediaStream. Emits "frame" {samples, rms} every 40 ms,
 * "progress" {response, ms} of the response that is played (Infinity: all of it was), and
 * "problem" (a sentence) if the browser does not play.
 */
export class StreamPlayer extends Emitter {
  #response = null; // id of the response that is played
  #playedMs = 0;
  #silentMs = 0; // since the last sound
  #element = new Audio();
  #capture;
  #open = true;

  constructor(stream) {
    super();
    this.#element.srcObject = stream;
    this.#capture = new AudioCapture(stream);
    this.#capture.on("frame", (frame) => {
      if (!this.#open) return;
      this.emit("frame", frame);
      if (this.playing) this.#advance(frame);
    });
  }

  get playing() {
    return this.#response !== null;
  }

  /** Take a server event: output_audio_buffer.started, .stopped and .cleared matter. */
  feed({ type, response_id: response }) {
    if (!type.startsWith("output_audio_buffer.")) return;
    if (type.endsWith(".stopped") && this.playing) this.#report(Infinity);
    this.#response = type.endsWith(".started") ? response : null;
    this.#playedMs = 0;
    this.#silentMs = 0;
  }

  /** Play on that loudspeaker, "" for the default one, where the browser can choose. */
  async useSpeaker(speaker) {
    await chooseSpeaker(this.#element, speaker);
  }

  /** Begin, on that loudspeaker. */
  async play(speaker = "") {
    if (speaker) await this.useSpeaker(speaker);
    try {
      await this.#element.play();
    } catch {
      if (this.#open) this.emit("problem", "The browser does not play sound yet.");
    }
    try {
      if (this.#open) await this.#capture.load();
    } catch {
      if (this.#open) this.emit("problem", "The level of the answers cannot be measured.");
    }
  }

  close() {
    this.#open = false;
    this.#element.srcObject = null;
    this.#capture.close();
  }

  #advance({ samples, rms }) {
    const ms = (samples.length / RATE) * 1000;
    this.#silentMs = rms > SILENCE_RMS ? 0 : this.#silentMs + ms;
    if (this.#silentMs > MAX_PAUSE_MS) return;
    this.#playedMs += ms;
    this.#report(this.#playedMs);
  }

  #report(ms) {
    this.emit("progress", { response: this.#response, ms });
  }
}

/** Set the output of an AudioContext or an audio element. A device that is gone: the default. */
async function chooseSpeaker(target, speaker) {
  await target?.setSinkId?.(speaker).catch(() => target.setSinkId("").catch(() => {}));
}
