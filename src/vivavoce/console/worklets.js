/**
 * Audio worklets: capture (microphone -> PCM16 at 24 kHz) and playback (PCM16 -> loudspeaker).
 * They run in the browser's audio thread. The file imports nothing, so that one request loads it.
 */

const RATE = 24000;
const FRAME_SAMPLES = RATE * 0.04;
const REPORT_SAMPLES = RATE * 0.04;
const LOBES = 16; // zero crossings of the sinc on each side; more make the filter steeper
const PHASES = 512;
const MAX_POSITIONS = 16; // answers whose played samples are counted

/** Converts the sample rate with a windowed sinc, tabulated by phase. */
export class Resampler {
  #step; // input samples per output sample
  #half; // input samples on each side of an output sample
  #kernel;
  #input;
  #at;

  constructor(from, to) {
    this.#step = from / to;
    const width = Math.max(1, this.#step); // a lower cutoff needs a filter as much longer
    this.#half = Math.ceil(LOBES * width);
    this.#kernel = kernel(this.#half, 0.95 / width);
    this.#at = this.#half;
    this.#input = new Float32Array(this.#half); // silence before the first sample
  }

  /** Returns the output for all input so far but the last `half` samples, which wait for more. */
  push(samples) {
    if (this.#step === 1) return samples;
    const all = new Float32Array(this.#input.length + samples.length);
    all.set(this.#input);
    all.set(samples, this.#input.length);
    const out = [];
    while (this.#at + this.#half < all.length) {
      out.push(this.#sum(all));
      this.#at += this.#step;
    }
    const used = Math.max(0, Math.floor(this.#at) - this.#half);
    this.#input = all.slice(used);
    this.#at -= used;
    return Float32Array.from(out);
  }

  #sum(all) {
    const whole = Math.floor(this.#at);
    const weights = this.#kernel[Math.round((this.#at - whole) * PHASES)];
    const first = whole - this.#half + 1;
    let sum = 0;
    for (let n = 0; n < weights.length; n++) sum += weights[n] * all[first + n];
    return sum;
  }
}

/** The weights of each phase, Hann-windowed. Each row sums to 1, so that DC keeps its level. */
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

/** Posts {samples: Int16Array, rms} for each 40 ms of input. */
class CaptureProcessor extends AudioWorkletProcessor {
  #resampler = new Resampler(sampleRate, RATE);
  #frame = new Int16Array(FRAME_SAMPLES);
  #filled = 0;
  #energy = 0;

  process([input]) {
    if (!input.length) return true; // no source is connected yet
    const mono = input.length === 1 ? input[0] : mixed(input);
    for (const sample of this.#resampler.push(mono)) {
      const clipped = Math.max(-1, Math.min(1, sample));
      this.#energy += clipped * clipped;
      this.#frame[this.#filled++] = Math.round(clipped * 32767);
      if (this.#filled === FRAME_SAMPLES) this.#post();
    }
    return true;
  }

  #post() {
    const rms = Math.sqrt(this.#energy / FRAME_SAMPLES);
    this.port.postMessage({ samples: this.#frame, rms }, [this.#frame.buffer]);
    this.#frame = new Int16Array(FRAME_SAMPLES);
    this.#filled = 0;
    this.#energy = 0;
  }
}

function mixed(channels) {
  return channels[0].map((_, n) => channels.reduce((sum, c) => sum + c[n], 0) / channels.length);
}

/**
 * Plays {id, samples} messages in order. Posts {played: [[id, samples], ...], rms, busy} every
 * 40 ms. A {stop: token} message empties the queue and is answered with
 * {stopped: token, cut: [[id, samples played], ...]}.
 */
class PlaybackProcessor extends AudioWorkletProcessor {
  #queue = []; // {id, samples, at}
  #played = new Map(); // id -> number of samples
  #sinceReport = 0;
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
    this.#sinceReport += out.length;
    const busy = this.#queue.length > 0;
    if (this.#sinceReport >= REPORT_SAMPLES || busy !== this.#busy) this.#report(busy);
    return true;
  }

  #report(busy) {
    const rms = Math.sqrt(this.#energy / this.#sinceReport);
    this.port.postMessage({ played: [...this.#played].slice(-4), rms, busy });
    if (this.#played.size > MAX_POSITIONS) this.#played.delete(this.#played.keys().next().value);
    this.#busy = busy;
    this.#sinceReport = 0;
    this.#energy = 0;
  }

  #stop(token) {
    const ids = new Set(this.#queue.map(({ id }) => id));
    const cut = [...ids].map((id) => [id, this.#played.get(id) ?? 0]);
    this.#queue = [];
    this.port.postMessage({ stopped: token, cut });
  }
}

registerProcessor("vivavoce-capture", CaptureProcessor);
registerProcessor("vivavoce-playback", PlaybackProcessor);
