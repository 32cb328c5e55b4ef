/** Samples: PCM16 at 24 kHz mono, as base64 on the wire and as wav in a file. */

export const RATE = 24000;
const SLICE = 0x8000; // arguments that one call takes for certain

/** base64 of little-endian PCM16. */
export function encode(samples) {
  const bytes = new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength);
  let text = "";
  for (let at = 0; at < bytes.length; at += SLICE) {
    text += String.fromCharCode(...bytes.subarray(at, at + SLICE));
  }
  return btoa(text);
}

/** Bytes of base64. */
export function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let n = 0; n < bytes.length; n++) bytes[n] = text.charCodeAt(n);
  return bytes;
}

/** How many bytes that is. */
export function lengthOf(base64) {
  const padding = base64.endsWith("==") ? 2 : Number(base64.endsWith("="));
  return (base64.length * 3) / 4 - padding;
}

/** Joins PCM16 that may be cut at any byte into whole samples. */
export class Joiner {
  #odd = new Uint8Array(0);

  join(bytes) {
    const all = new Uint8Array(this.#odd.length + bytes.length);
    all.set(this.#odd);
    all.set(bytes, this.#odd.length);
    const whole = all.length - (all.length % 2);
    this.#odd = all.slice(whole);
    return new Int16Array(all.buffer, 0, whole / 2).slice();
  }
}

/** The level for the eye of a root mean square: 0 below -60 dB of full scale, 1 at 0 dB. */
export function level(rms) {
  return rms <= 0.001 ? 0 : Math.min(1, 1 + Math.log10(rms) / 3);
}

/** A wav file of equally long channels. */
export function wav(channels) {
  const length = channels[0].length;
  const size = length * channels.length * 2;
  const view = new DataView(new ArrayBuffer(44 + size));
  const word = (at, text) => [...text].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  word(0, "RIFF");
  view.setUint32(4, 36 + size, true);
  word(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, channels.length, true);
  view.setUint32(24, RATE, true);
  view.setUint32(28, RATE * channels.length * 2, true);
  view.setUint16(32, channels.length * 2, true);
  view.setUint16(34, 16, true);
  word(36, "data");
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
