/** Runs beside the page: plays what is queued and knows to the sample how far it came. */

const REPORT = 960; // samples between reports: 40 ms

class Playback extends AudioWorkletProcessor {
  #queue = []; // {id, samples, at}
  #played = new Map(); // id -> samples
  #since = 0;
  #energy = 0;
  #busy = false;

  constructor() {
    super();
    this.port.onmessage = ({ data }) => {
      if (data.stop) this.#stop(data.stop);
      else this.#queue.push({ id: data.id, samples: data.samples, at: 0 });
    };
  }

  process(_inputs, [[out]]) {
    let n = 0;
    while (n < out.length && this.#queue.length) {
      const piece = this.#queue[0];
      const take = Math.min(out.length - n, piece.samples.length - piece.at);
      for (let k = 0; k < take; k++) {
        const sample = piece.samples[piece.at + k] / 32768;
        out[n + k] = sample;
        this.#energy += sample * sample;
      }
      n += take;
      piece.at += take;
      this.#played.set(piece.id, (this.#played.get(piece.id) ?? 0) + take);
      if (piece.at === piece.samples.length) this.#queue.shift();
    }
    this.#since += out.length;
    const busy = this.#queue.length > 0;
    if (this.#since >= REPORT || busy !== this.#busy) this.#report(busy);
    return true;
  }

  #report(busy) {
    const rms = Math.sqrt(this.#energy / this.#since);
    this.port.postMessage({ played: [...this.#played].slice(-4), rms, busy });
    this.#busy = busy;
    this.#since = 0;
    this.#energy = 0;
  }

  #stop(token) {
    const ids = new Set(this.#queue.map((piece) => piece.id));
    const cut = [...ids].map((id) => [id, this.#played.get(id) ?? 0]);
    this.#queue = [];
    this.port.postMessage({ stopped: token, cut });
  }
}

registerProcessor("vivavoce-playback", Playback);
