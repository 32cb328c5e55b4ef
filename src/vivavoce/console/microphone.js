/** The microphone: permission, capture as PCM16, and its loss. */
import { Emitter } from "./state.js";

const SILENT_RMS = 0.0005; // below it there is no sound, not even noise
const SILENCE_MS = 5000;
const SENTENCES = {
  NotAllowedError:
    "Microphone blocked. Click the icon left of the address, allow it, then press " +
    "“Use microphone”. You can also type.",
  NotFoundError: "No microphone found. Connect one, or type.",
  OverconstrainedError: "The chosen microphone is not connected. Choose another one.",
  NotReadableError: "Another program is using the microphone.",
};

/** There is no microphone; the message is a sentence for the user. */
export class NoMicrophone extends Error {}

/** The page may use neither microphone nor loudspeaker: it is not a secure context. */
export class NoSecureContext extends Error {
  message =
    "Browsers allow audio only on pages at https or at localhost. " +
    "Open this page there, or give the server a certificate.";
}

/** Ask for a microphone; `device` "" is the default one. Throws NoMicrophone. */
export async function openStream({ device = "", echoCancellation = true }) {
  if (!navigator.mediaDevices) throw new NoMicrophone(new NoSecureContext().message);
  const audio = { echoCancellation, noiseSuppression: true, autoGainControl: true };
  if (device) audio.deviceId = { exact: device };
  try {
    return await navigator.mediaDevices.getUserMedia({ audio });
  } catch (error) {
    throw new NoMicrophone(SENTENCES[error.name] ?? `No microphone: ${error.message}.`);
  }
}

/** {microphones, speakers}: [{deviceId, label}]; browsers give names after the first permission. */
export async function devices() {
  const all = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  const named = (wanted) =>
    all.filter(({ kind, label, deviceId }) => kind === wanted && label && deviceId !== "default");
  return { microphones: named("audioinput"), speakers: named("audiooutput") };
}

/** Notices a microphone that gives no sound at all, once until it is restarted. */
export class SilenceWatch {
  #since = null; // ms; null: sound was heard, or it was reported

  restart() {
    this.#since = undefined;
  }

  /** Take the level of a frame. Returns whether there was no sound for SILENCE_MS. */
  add(rms, at) {
    if (rms > SILENT_RMS) this.#since = null;
    if (this.#since === null) return false;
    this.#since ??= at;
    if (at - this.#since < SILENCE_MS) return false;
    this.#since = null;
    return true;
  }
}

let failedLoads = 0;

/** Load worklets.js into an AudioContext. Throws TypeError, as fetch does, without a server. */
export async function loadWorklets(context) {
  const url = new URL("./worklets.js", import.meta.url);
  if (failedLoads) url.searchParams.set("attempt", failedLoads); // a failed load stays in a cache
  try {
    await context.audioWorklet.addModule(url);
  } catch (error) {
    failedLoads++;
    throw new TypeError(error.message);
  }
}

/** Any MediaStream as PCM16 at 24 kHz. Emits "frame" {samples, rms} every 40 ms. */
export class AudioCapture extends Emitter {
  #stream;
  #context = null;
  #loading = null;

  constructor(stream) {
    super();
    this.#stream = stream;
  }

  /** Begin to capture. After an error it can be called again. Throws TypeError without a server. */
  load() {
    this.#loading ??= this.#load().catch((error) => {
      this.#loading = null;
      throw error;
    });
    return this.#loading;
  }

  async close() {
    for (const track of this.#stream.getTracks()) track.stop();
    if (this.#context?.state !== "closed") await this.#context?.close();
  }

  async #load() {
    this.#context ??= new AudioContext({ latencyHint: "interactive" });
    await loadWorklets(this.#context);
    const options = { numberOfOutputs: 0 };
    const worklet = new AudioWorkletNode(this.#context, "vivavoce-capture", options);
    worklet.port.onmessage = ({ data }) => this.emit("frame", data);
    this.#context.createMediaStreamSource(this.#stream).connect(worklet);
    await this.#context.resume();
  }
}

/**
 * A microphone that can be opened late, muted and lost. Emits "frame" {samples, rms} every 40 ms,
 * and "lost" when the device is disconnected.
 */
export class Microphone extends Emitter {
  stream = null;
  #enabled = false;
  #asking = false;
  #closed = false;
  #capture = null;

  /** Whether there is a microphone. */
  get available() {
    return this.stream !== null;
  }

  /** Whether its audio is for the server. A disabled track is silent. */
  get enabled() {
    return this.#enabled;
  }

  set enabled(enabled) {
    this.#enabled = enabled;
    for (const track of this.stream?.getAudioTracks() ?? []) track.enabled = enabled;
  }

  /** The name of the device. */
  get label() {
    return this.stream?.getAudioTracks()[0].label ?? "";
  }

  /** Ask for the microphone of these settings. Resolves to whether there is a new one. Throws NoMicrophone. */
  async open(settings) {
    if (this.#asking || this.stream) return false;
    this.#asking = true;
    let stream;
    try {
      stream = await openStream(settings);
    } finally {
      this.#asking = false;
    }
    if (this.#closed) {
      for (const track of stream.getTracks()) track.stop();
      return false;
    }
    this.stream = stream;
    this.enabled = this.#enabled;
    stream.getAudioTracks()[0].addEventListener("ended", () => {
      if (this.stream === stream) this.#onEnded();
    });
    this.#capture = new AudioCapture(stream);
    this.#capture.on("frame", (frame) => this.emit("frame", frame));
    return true;
  }

  /** Begin to capture, if there is a microphone. Throws TypeError without a server. */
  async load() {
    await this.#capture?.load();
  }

  /** Give the device back; another can be opened. */
  release() {
    this.#capture?.close();
    this.#capture = null;
    this.stream = null;
  }

  close() {
    this.#closed = true;
    this.#capture?.close();
  }

  #onEnded() {
    this.release();
    this.emit("lost");
  }
}
