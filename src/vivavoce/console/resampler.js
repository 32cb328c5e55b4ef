/** Changes the rate of a stream of samples: a windowed sinc, looked up by phase. */

const LOBES = 16; // zero crossings on each side: the more, the steeper
const PHASES = 512;

export class Resampler {
  #step;
  #half;
  #table;
  #kept = new Float32Array(0);
  #at;

  constructor(from, to) {
    this.#step = from / to;
    const wide = Math.max(1, this.#step); // going down, the filter is as much wider as it is lower
    this.#half = Math.ceil(LOBES * wide);
    this.#table = kernel(this.#half, 0.95 / wide);
    this.#at = this.#half;
    this.#kept = new Float32Array(this.#half); // silence before the first sample
  }

  /** What can be said of the samples so far. The last few milliseconds wait for those to come. */
  push(samples) {
    if (this.#step === 1) return samples;
    const all = new Float32Array(this.#kept.length + samples.length);
    all.set(this.#kept);
    all.set(samples, this.#kept.length);
    const out = [];
    while (this.#at + this.#half < all.length) {
      out.push(this.#sum(all));
      this.#at += this.#step;
    }
    const used = Math.max(0, Math.floor(this.#at) - this.#half);
    this.#kept = all.slice(used);
    this.#at -= used;
    return Float32Array.from(out);
  }

  #sum(all) {
    const whole = Math.floor(this.#at);
    const phase = Math.round((this.#at - whole) * PHASES);
    const row = this.#table[phase];
    const first = whole - this.#half + 1;
    let sum = 0;
    for (let n = 0; n < row.length; n++) sum += row[n] * all[first + n];
    return sum;
  }
}

/** A row of weights for each phase; each row adds up to 1, so that a constant stays one. */
function kernel(half, cutoff) {
  return Array.from({ length: PHASES + 1 }, (_, phase) => {
    const row = Float32Array.from({ length: 2 * half }, (_, n) => {
      const x = n - half + 1 - phase / PHASES;
      const window = 0.5 + 0.5 * Math.cos((Math.PI * x) / half);
      const angle = Math.PI * x * cutoff;
      return (x === 0 ? 1 : Math.sin(angle) / angle) * window;
    });
    const sum = row.reduce((a, b) => a + b, 0);
    return row.map((weight) => weight / sum);
  });
}
