/** A microphone, or any stream, as pieces of PCM16. */
import { Emitter } from "./emitter.js";

const ASKED = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };

/** Why there is no microphone, in a sentence for whoever sits before the page. */
export class NoMicrophone extends Error {}

/** The page can have neither microphone nor loudspeaker. */
export class NoSound extends Error {
  message =
    "Browsers let only pages at https or at localhost listen and speak. " +
    "Open this page there, or give the server a certificate.";
}

/** Asks for a microphone. Throws NoMicrophone. */
export async function openMicrophone(deviceId = "") {
  if (!navigator.mediaDevices) {
    throw new NoMicrophone(new NoSound().message);
  }
  const audio = deviceId ? { ...ASKED, deviceId: { exact: deviceId } } : ASKED;
  try {
    return await navigator.mediaDevices.getUserMedia({ audio });
  } catch (problem) {
    throw new NoMicrophone(SENTENCES[problem.name] ?? `No microphone: ${problem.message}.`);
  }
}

const SENTENCES = {
  NotAllowedError: "The microphone is not allowed. Allow it beside the page's address, or type.",
  NotFoundError: "There is no microphone. Plug one in, or type.",
  OverconstrainedError: "The chosen microphone is gone. Choose another one.",
  NotReadableError: "Something else is using the microphone.",
};

/** Emits "piece" {samples, rms}, every 40 ms. */
export class Capture extends Emitter {
  #context = null;
  #stream;

  constructor(stream) {
    super();
    this.#stream = stream;
  }

  async open() {
    this.#context = new AudioContext({ latencyHint: "interactive" });
    await this.#context.audioWorklet.addModule(new URL("./capture.worklet.js", import.meta.url));
    const worklet = new AudioWorkletNode(this.#context, "vivavoce-capture", { numberOfOutputs: 0 });
    worklet.port.onmessage = ({ data }) => this.emit("piece", data);
    this.#context.createMediaStreamSource(this.#stream).connect(worklet);
    await this.#context.resume();
    return this;
  }

  async close() {
    for (const track of this.#stream.getTracks()) track.stop();
    if (this.#context?.state !== "closed") await this.#context?.close();
  }
}
