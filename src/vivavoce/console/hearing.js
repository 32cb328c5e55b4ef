/** A microphone that may be closed, come later, and go away. */
import { Emitter } from "./emitter.js";
import { Capture, openMicrophone } from "./microphone.js";

/** Emits "piece" {samples, rms} every 40 ms, and "gone" when the microphone is no more. */
export class Hearing extends Emitter {
  stream = null;
  #open = false;
  #asking = false;
  #over = false;
  #capture = null;

  /** Whether there is a microphone. */
  get able() {
    return this.#capture !== null;
  }

  get open() {
    return this.#open;
  }

  /** Whether what it hears is meant for anybody. */
  set open(open) {
    this.#open = open;
    for (const track of this.stream?.getAudioTracks() ?? []) track.enabled = open;
  }

  /** Ask for the microphone. Resolves to whether there is a new one. Throws NoMicrophone. */
  async begin(device) {
    if (this.#asking || this.stream) return false;
    this.#asking = true;
    try {
      this.stream = await openMicrophone(device);
    } finally {
      this.#asking = false;
    }
    if (this.#over) {
      this.close();
      return false;
    }
    this.open = this.#open;
    this.stream.getAudioTracks()[0].addEventListener("ended", () => this.#lose());
    this.#capture = new Capture(this.stream);
    this.#capture.on("piece", (piece) => this.emit("piece", piece));
    await this.#capture.open();
    return true;
  }

  close() {
    this.#over = true;
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.#capture?.close();
  }

  #lose() {
    this.#capture.close();
    this.#capture = null;
    this.stream = null;
    this.emit("gone");
  }
}
