/** What both sides say, as they say it. */
import { spokenOf } from "./client.js";
import { make } from "./dom.js";
import { NOTHING } from "./transcript.js";

const NEAR = 80; // pixels from the end that still count as being there

export class Captions {
  #box;
  #welcome;
  #shown = new Map();
  #following = true; // until somebody scrolls back
  #voice;
  #read = new Set(); // entries that were read out

  /** voice: a live region, for those who hear the page. */
  constructor(box, welcome, voice) {
    this.#box = box;
    this.#welcome = welcome;
    this.#voice = voice;
    box.addEventListener("scroll", () => (this.#following = this.#atEnd()));
    new ResizeObserver(() => this.#follow()).observe(box);
  }

  /** Show another conversation. */
  show(entries) {
    this.#shown.clear();
    this.#box.replaceChildren(this.#welcome);
    this.#welcome.hidden = false;
    for (const entry of entries) {
      this.#read.add(entry);
      this.update(entry);
    }
  }

  update(entry) {
    if (!entry.text && entry.role === "assistant") return;
    this.#welcome.hidden = true;
    let line = this.#shown.get(entry.id);
    if (!line) {
      line = make("div", { class: "said", "data-role": entry.role });
      this.#shown.set(entry.id, line);
      this.#box.append(line);
    }
    line.dataset.state = entry.state;
    line.replaceChildren(...content(entry));
    this.#readOut(entry);
    this.#follow();
  }

  /** What nobody says aloud, once it is whole: the words of a transcript change all the time. */
  #readOut(entry) {
    if (entry.state === "open" || entry.role === "user" || entry.aloud) return;
    if (this.#read.has(entry)) return;
    this.#read.add(entry);
    this.#voice.textContent = entry.role === "call" ? `Called ${entry.name}` : entry.text;
  }

  #atEnd() {
    return this.#box.scrollHeight - this.#box.scrollTop - this.#box.clientHeight < NEAR;
  }

  #follow() {
    if (this.#following) this.#box.scrollTop = this.#box.scrollHeight;
  }
}

function content(entry) {
  if (entry.role === "note") return [entry.text];
  if (entry.role === "call") {
    const answer = entry.output === undefined ? "…" : entry.output;
    return [
      make("div", { class: "who" }, `Called ${entry.name}`),
      make("code", {}, `${entry.name}(${entry.text}) → ${answer}`),
    ];
  }
  const who = make("div", { class: "who" }, entry.role === "user" ? "You" : "Answer");
  return [who, ...words(entry)];
}

function words(entry) {
  const [spoken, rest] = spokenOf(entry);
  const none = entry.state === "open" ? "…" : NOTHING;
  const line = make("div", { class: "words", dir: "auto" }, spoken || (rest ? "" : none));
  if (entry.state !== "cut") {
    if (rest) line.append(make("span", { class: "rest" }, rest));
    return [line];
  }
  if (rest.trim()) line.append(spoken ? " " : "", make("s", { class: "rest" }, rest.trim()));
  const why = rest.trim() ? "Cut off: what is struck out was not heard." : "Cut off at its end.";
  return [line, make("div", { class: "why" }, why)];
}
