/** How much of each answer has reached the ear: what was played, less what is still on its way. */
import { RATE } from "./sound.js";

const MOST_KEPT = 8; // answers; the oldest are silent for long

export class Ear {
  #played = new Map(); // id -> {samples, at}: so many, and since when no more

  /** Milliseconds of `id` that were heard at `now`, ms; sound takes `late` seconds to get there. */
  heard(id, samples, late, now) {
    let last = this.#played.get(id);
    if (last?.samples !== samples) {
      last = { samples, at: now };
      this.#played.delete(id);
      this.#played.set(id, last);
      if (this.#played.size > MOST_KEPT) this.#played.delete(this.#played.keys().next().value);
    }
    const underWay = Math.max(0, late * 1000 - (now - last.at));
    return Math.max(0, Math.floor((samples / RATE) * 1000 - underWay));
  }
}
