/** Runs beside the page: sound in, 40 ms pieces of PCM16 at 24 kHz out, each with its loudness. */
import { Resampler } from "./resampler.js";

const RATE = 24000;
const PIECE = RATE * 0.04;

class Capture extends AudioWorkletProcessor {
  #resampler = new Resampler(sampleRate, RATE);
  #piece = new Int16Array(PIECE);
  #filled = 0;
  #energy = 0;

  process([input]) {
    if (!input.length) return true; // nothing is plugged in yet
    const mono = input.length === 1 ? input[0] : mixed(input);
    for (const sample of this.#resampler.push(mono)) {
      const kept = Math.max(-1, Math.min(1, sample));
      this.#energy += kept * kept;
      this.#piece[this.#filled++] = Math.round(kept * 32767);
      if (this.#filled === PIECE) this.#hand();
    }
    return true;
  }

  #hand() {
    const rms = Math.sqrt(this.#energy / PIECE);
    this.port.postMessage({ samples: this.#piece, rms }, [this.#piece.buffer]);
    this.#piece = new Int16Array(PIECE);
    this.#filled = 0;
    this.#energy = 0;
  }
}

function mixed(channels) {
  return channels[0].map((_, n) => channels.reduce((sum, c) => sum + c[n], 0) / channels.length);
}

registerProcessor("vivavoce-capture", Capture);
