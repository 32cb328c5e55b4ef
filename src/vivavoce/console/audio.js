/** Audio samples: PCM16 at 24 kHz, mono. Base64 in events, wav in files. */

export const RATE = 24000; // samples a second
export const MAX_RECORDING_S = 1200; // one minute of both sides takes 6 MB
const MAX_ARGUMENTS = 0x8000; // of one String.fromCharCode call

/** Base64 of samples (Int16Array) as little-endian PCM16. */
export function toBase64(samples) {
  const bytes = new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength);
  let text = "";
  for (let at = 0; at < bytes.length; at += MAX_ARGUMENTS) {
    text += String.fromCharCode(...bytes.subarray(at, at + MAX_ARGUMENTS));
  }
  return btoa(text);
}

/** The bytes of base64, as Uint8Array. */
export function fromBase64(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let n = 0; n < bytes.length; n++) bytes[n] = text.charCodeAt(n);
  return bytes;
}

/** The number of bytes of base64, without decoding it. */
export function byteLength(base64) {
  const padding = base64.endsWith("==") ? 2 : Number(base64.endsWith("="));
  return (base64.length * 3) / 4 - padding;
}

/** Makes whole samples of PCM16 bytes that arrive split at any byte. */
export class SampleJoiner {
  #rest = new Uint8Array(0);

  /** bytes: Uint8Array. Returns an Int16Array of the samples that are complete. */
  join(bytes) {
    const all = new Uint8Array(this.#rest.length + bytes.length);
    all.set(this.#rest);
    all.set(bytes, this.#rest.length);
    const even = all.length - (all.length % 2);
    this.#rest = all.slice(even);
    return new Int16Array(all.buffer, 0, even / 2).slice();
  }
}

/** Position of a root mean square on a logarithmic meter: 0 at -60 dBFS and below, 1 at 0 dBFS. */
export function meterLevel(rms) {
  return rms <= 0.001 ? 0 : Math.min(1, 1 + Math.log10(rms) / 3);
}

/** A wav file (Blob) of channels (Int16Arrays) of equal length. */
export function wav(channels) {
  const length = channels[0].length;
  const size = length * channels.length * 2;
  const view = new DataView(new ArrayBuffer(44 + size));
  const tag = (at, text) => [...text].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  tag(0, "RIFF");
  view.setUint32(4, 36 + size, true);
  tag(8, "WAVEfmt ");
  view.setUint32(16, 16, true); // bytes of the format chunk
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, channels.length, true);
  view.setUint32(24, RATE, true);
  view.setUint32(28, RATE * channels.length * 2, true);
  view.setUint16(32, channels.length * 2, true);
  view.setUint16(34, 16, true);
  tag(36, "data");
  view.setUint32(40, size, true);
  let at = 44;
  for (let n = 0; n < length; n++) {
    for (const channel of channels) {
      view.setInt16(at, channel[n], true);
      at += 2;
    }
  }
  return new Blob([view.buffer], { type: "audio/wav" });
}

/** Both sides of a conversation as they were played: left the user, right the answers. */
export class Recording {
  #start = performance.now();
  #user = []; // {at: seconds since the start, samples}
  #assistant = [];
  #queueEnd = 0; // seconds since the start at which all queued audio is played

  /** How long it lasts so far. */
  get seconds() {
    return this.#now();
  }

  /** Microphone audio that ends now. */
  addInput(samples) {
    this.#add(this.#user, this.#now() - samples.length / RATE, samples);
  }

  /** Audio of an answer that was played until now. */
  addPlayed(samples) {
    this.#add(this.#assistant, this.#now() - samples.length / RATE, samples);
  }

  /** Audio of an answer that is played after what was queued before. Returns [from, to], seconds. */
  addQueued(samples) {
    const at = Math.max(this.#now(), this.#queueEnd);
    this.#add(this.#assistant, at, samples);
    this.#queueEnd = at + samples.length / RATE;
    return [at, this.#queueEnd];
  }

  /** Drop what is queued and not yet played. */
  cut() {
    const now = this.#now();
    this.#assistant = this.#assistant
      .map(({ at, samples }) => {
        const played = Math.max(0, Math.floor((now - at) * RATE));
        return { at, samples: samples.subarray(0, played) };
      })
      .filter(({ samples }) => samples.length);
    this.#queueEnd = Math.min(this.#queueEnd, now);
  }

  /** The recording so far, as a wav file (Blob). */
  file() {
    const ends = [...this.#user, ...this.#assistant].map(
      ({ at, samples }) => Math.ceil(at * RATE) + samples.length,
    );
    const length = ends.reduce((a, b) => Math.max(a, b), 0);
    return wav([track(this.#user, length), track(this.#assistant, length)]);
  }

  #add(side, at, samples) {
    if (at < MAX_RECORDING_S) side.push({ at, samples });
  }

  #now() {
    return (performance.now() - this.#start) / 1000;
  }
}

/** Pieces laid on one track. Pieces less than 0.1 s apart join, whatever their clocks say. */
function track(pieces, length) {
  const samples = new Int16Array(length);
  let end = 0;
  for (const piece of pieces) {
    const wanted = Math.max(0, Math.round(piece.at * RATE));
    const start = Math.abs(wanted - end) < RATE / 10 ? end : wanted;
    const fitting = piece.samples.subarray(0, Math.max(0, length - start));
    samples.set(fitting, start);
    end = start + fitting.length;
  }
  return samples;
}
