/** Plays the recording of a conversation that has ended, with the words that sound lit. */
import { RATE } from "./audio.js";
import { heardOf } from "./transcript.js";

const HEADER_BYTES = 44;
const LANE_GAP_PX = 2;

export class Replay {
  #parts;
  #view;
  #conversation = null;
  #peaks = null; // [left, right]: one value for each px
  #url = "";

  /** parts: elements {box, audio, lanes}; view: the TranscriptView. */
  constructor(parts, view) {
    this.#parts = parts;
    this.#view = view;
    const { audio, lanes } = parts;
    audio.addEventListener("play", () => this.#follow());
    audio.addEventListener("seeked", () => this.#show());
    lanes.addEventListener("click", ({ offsetX }) => {
      const share = offsetX / lanes.clientWidth;
      if (audio.duration) audio.currentTime = share * audio.duration;
    });
    new ResizeObserver(() => this.#draw()).observe(lanes);
  }

  /** Offer the recording of a conversation, if it has ended and has one. */
  async show(conversation) {
    const { box, audio } = this.#parts;
    this.clear();
    const file = conversation.state === "ended" ? conversation.tape.file() : null;
    if (!file || file.size <= HEADER_BYTES) return;
    this.#conversation = conversation;
    this.#url = URL.createObjectURL(file);
    audio.src = this.#url;
    box.hidden = false;
    this.#view.playable = true;
    const samples = new Int16Array(await file.arrayBuffer(), HEADER_BYTES);
    if (this.#conversation !== conversation) return;
    this.#peaks = samples;
    this.#draw();
  }

  clear() {
    const { box, audio } = this.#parts;
    this.#conversation = null;
    this.#peaks = null;
    box.hidden = true;
    audio.pause();
    audio.removeAttribute("src");
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = "";
    this.#view.playable = false;
    this.#view.light(null);
  }

  /** Play from a character of an entry on. */
  playFrom(entry, index) {
    const { audio } = this.#parts;
    if (!this.#conversation || !entry.sound) return;
    audio.currentTime = timeAt(entry, index);
    audio.play();
  }

  #follow() {
    const { audio } = this.#parts;
    this.#show();
    if (!audio.paused && !audio.ended) requestAnimationFrame(() => this.#follow());
  }

  #show() {
    if (!this.#conversation) return;
    const { currentTime } = this.#parts.audio;
    const entry = entryAt(this.#conversation.transcript.entries, currentTime);
    this.#view.light(entry, entry ? indexAt(entry, currentTime) : 0);
    this.#draw();
  }

  #draw() {
    const { lanes, audio } = this.#parts;
    const { clientWidth: width, clientHeight: height } = lanes;
    if (!this.#peaks || !width) return;
    const scale = window.devicePixelRatio || 1;
    lanes.width = width * scale;
    lanes.height = height * scale;
    const context = lanes.getContext("2d");
    context.scale(scale, scale);
    const { color, borderTopColor, outlineColor } = getComputedStyle(lanes);
    const middle = height / 2;
    for (const [lane, fill] of [[0, color], [1, borderTopColor]]) {
      context.fillStyle = fill;
      const peaks = peaksOf(this.#peaks, lane, Math.floor(width / 2));
      peaks.forEach((peak, n) => {
        const size = Math.max(1, peak * (middle - LANE_GAP_PX));
        context.fillRect(n * 2, lane ? middle + 1 : middle - 1 - size, 1.5, size);
      });
    }
    if (!audio.duration) return;
    context.fillStyle = outlineColor;
    context.fillRect((audio.currentTime / audio.duration) * width, 0, 1.5, height);
  }
}

/** The largest values (0 to 1) of one of two interleaved channels, in `count` equal parts. */
export function peaksOf(samples, channel, count) {
  const frames = samples.length / 2;
  return Array.from({ length: count }, (_, n) => {
    const from = Math.floor((n / count) * frames);
    const to = Math.floor(((n + 1) / count) * frames);
    const step = Math.max(1, Math.floor((to - from) / 64)); // a part of them shows the level
    let most = 0;
    for (let at = from; at < to; at += step) {
      most = Math.max(most, Math.abs(samples[at * 2 + channel]));
    }
    return most / 32768;
  });
}

/** The entry that sounds at a position in the recording (seconds), or null. */
export function entryAt(entries, at) {
  return entries.findLast(({ sound }) => sound && sound[0] <= at && at < sound[1]) ?? null;
}

/** The character of an entry that sounds then, by its share of the time. */
export function indexAt(entry, at) {
  const [from, to] = entry.sound;
  return Math.floor((heardOf(entry).length * (at - from)) / Math.max(1 / RATE, to - from));
}

/** The position in the recording of a character of an entry, seconds. */
export function timeAt(entry, index) {
  const [from, to] = entry.sound;
  return from + ((to - from) * index) / Math.max(1, heardOf(entry).length);
}
