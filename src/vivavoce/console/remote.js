/** An answer that comes as a stream: the browser plays it, and it is looked at on the way. */
import { Emitter } from "./emitter.js";
import { Capture } from "./microphone.js";
import { RATE } from "./sound.js";

const SOFT = 0.0005; // a root mean square that is silence
const LONGEST_PAUSE_MS = 600; // of somebody who goes on speaking

/**
 * Emits "piece" {samples, rms} every 40 ms, "paced" {response, ms} of the response that is being
 * heard (Infinity: all of it was), and "problem" where the browser will not play.
 */
export class Remote extends Emitter {
  #response = null; // that is being heard
  #heard = 0; // ms of it
  #quiet = 0; // ms since there was any sound
  #element = new Audio();
  #capture;
  #open = true;

  constructor(stream) {
    super();
    this.#element.srcObject = stream;
    this.#capture = new Capture(stream);
    this.#capture.on("piece", (piece) => {
      if (!this.#open) return;
      this.emit("piece", piece);
      if (this.speaking) this.#advance(piece);
    });
  }

  get speaking() {
    return this.#response !== null;
  }

  /** An event of the server's: some tell that sound started, stopped, or was cleared. */
  told({ type, response_id: response }) {
    if (!type.startsWith("output_audio_buffer.")) return;
    if (type.endsWith(".stopped") && this.speaking) this.#pace(Infinity);
    this.#response = type.endsWith(".started") ? response : null;
    this.#heard = 0;
    this.#quiet = 0;
  }

  async play() {
    await this.#element
      .play()
      .catch(() => this.#open && this.emit("problem", "The browser does not play sound yet."));
    if (this.#open) await this.#capture.open();
  }

  close() {
    this.#open = false;
    this.#element.srcObject = null;
    this.#capture.close();
  }

  #advance({ samples, rms }) {
    const ms = (samples.length / RATE) * 1000;
    this.#quiet = rms > SOFT ? 0 : this.#quiet + ms;
    if (this.#quiet > LONGEST_PAUSE_MS) return; // nothing comes: the network has gone, it may be
    this.#heard += ms;
    this.#pace(this.#heard);
  }

  #pace(ms) {
    this.emit("paced", { response: this.#response, ms });
  }
}
