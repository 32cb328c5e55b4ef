/** A conversation as it sounded, for a wav file: left the user, right the answers. */
import { RATE, wav } from "./sound.js";

export const MOST_SECONDS = 1200; // a minute of both sides takes 6 MB

export class Tape {
  #begun = performance.now();
  #sides = { mine: [], theirs: [] };
  #end = 0; // of what is still to be played

  /** Sound of the user that has just ended. */
  heard(samples) {
    this.#keep("mine", this.#now() - samples.length / RATE, samples);
  }

  /** Sound of an answer that has just ended, from a stream that plays it. */
  overheard(samples) {
    this.#keep("theirs", this.#now() - samples.length / RATE, samples);
  }

  /** Sound of an answer that is played as soon as what came before it was. */
  queued(samples) {
    const at = Math.max(this.#now(), this.#end);
    this.#keep("theirs", at, samples);
    this.#end = at + samples.length / RATE;
  }

  /** What is still queued will not be played. */
  cut() {
    const now = this.#now();
    const kept = [];
    for (const { at, samples } of this.#sides.theirs) {
      const left = Math.floor((now - at) * RATE);
      if (left > 0) kept.push({ at, samples: samples.subarray(0, left) });
    }
    this.#sides.theirs = kept;
    this.#end = Math.min(this.#end, now);
  }

  get empty() {
    return !this.#sides.mine.length && !this.#sides.theirs.length;
  }

  /** The wav file so far. */
  file() {
    const all = [...this.#sides.mine, ...this.#sides.theirs];
    const ends = all.map(({ at, samples }) => Math.ceil(at * RATE) + samples.length);
    const length = ends.reduce((a, b) => Math.max(a, b), 0);
    return wav([this.#laid(this.#sides.mine, length), this.#laid(this.#sides.theirs, length)]);
  }

  #laid(pieces, length) {
    const track = new Int16Array(length);
    let free = 0; // pieces of one side follow each other; clocks that disagree make no overlap
    for (const { at, samples } of pieces) {
      const wanted = Math.max(0, Math.round(at * RATE));
      const start = Math.abs(wanted - free) < RATE / 10 ? free : wanted;
      const room = samples.subarray(0, Math.max(0, length - start));
      track.set(room, start);
      free = start + room.length;
    }
    return track;
  }

  #keep(side, at, samples) {
    if (at < MOST_SECONDS) this.#sides[side].push({ at, samples });
  }

  #now() {
    return (performance.now() - this.#begun) / 1000;
  }
}
