/** The transcript of the conversation that is shown, as it grows. */
import { NO_SPEECH, heardOf, spokenOf } from "./transcript.js";
import { copyText, make, timeOfDay } from "./ui.js";
import { seconds } from "./waits.js";

const NEAR_END_PX = 80; // scrolled so close to the end, the view follows new text
const LIT = "sounding"; // the name of the highlight in styles.css

export class TranscriptView {
  #parts;
  #options;
  #shown = new Map(); // id of an entry -> {element, body, entry}
  #following = true;
  #announced = new Set(); // entries

  /**
   * parts: elements {box, welcome, announcer}; the announcer is a live region for what is not
   * spoken, the transcript itself is not live. options: `waitFor(entry)` returns the ms to the
   * first sound of an answer; `onPlay(entry, index)` plays the recording from a character on.
   */
  constructor(parts, options) {
    this.#parts = parts;
    this.#options = options;
    parts.box.addEventListener("scroll", () => (this.#following = this.#atEnd()));
    parts.box.addEventListener("click", (event) => this.#onClick(event));
    new ResizeObserver(() => this.#follow()).observe(parts.box);
  }

  /** Show the entries of another conversation. */
  show(entries) {
    const { box, welcome } = this.#parts;
    this.#shown.clear();
    box.replaceChildren(welcome);
    welcome.hidden = false;
    for (const entry of entries) {
      this.#announced.add(entry);
      this.update(entry);
    }
  }

  /** Show an entry that is new or has changed. */
  update(entry) {
    if (!entry.text && entry.role === "assistant") return;
    this.#parts.welcome.hidden = true;
    const shown = this.#shown.get(entry.id) ?? this.#add(entry);
    shown.element.dataset.state = entry.state;
    const wait = entry.role === "assistant" ? this.#options.waitFor(entry) : undefined;
    if (shown.wait && wait !== undefined) shown.wait.textContent = seconds(wait);
    shown.body.replaceChildren(...content(entry));
    this.#announce(entry);
    this.#follow();
  }

  /** Show a form in the entry of a tool call, until it has a result. */
  showForm(callId, makeForm) {
    const shown = [...this.#shown.values()].find(({ entry }) => entry.callId === callId);
    if (!shown || shown.body.querySelector("form")) return;
    shown.body.append(makeForm());
    this.#follow();
  }

  /** Whether the recording can be played from an entry: shows its buttons. */
  set playable(playable) {
    this.#parts.box.classList.toggle("playable", playable);
  }

  /** Light the word of an entry at that character; null lights none. */
  light(entry, index = 0) {
    const shown = entry && this.#shown.get(entry.id);
    for (const { element } of this.#shown.values()) {
      element.classList.toggle("sounding", element === shown?.element);
    }
    if (!globalThis.CSS?.highlights) return;
    CSS.highlights.delete(LIT);
    const text = shown?.body.querySelector(".spoken")?.firstChild;
    if (!text) return;
    const [from, to] = wordAt(text.data, index);
    const range = new Range();
    range.setStart(text, from);
    range.setEnd(text, to);
    CSS.highlights.set(LIT, new Highlight(range));
  }

  #add(entry) {
    const time = timeOfDay(new Date(entry.at));
    const label = `${speakerOf(entry)}, ${time}`;
    const element = make("div", {
      class: "entry", role: "article", "aria-label": label, "data-role": entry.role,
    });
    if (entry.failure) element.classList.add("failed");
    const body = make("div", { class: "body" });
    const shown = { element, body, entry, wait: null };
    if (entry.role !== "note") element.append(this.#head(entry, time, shown));
    element.append(body);
    this.#shown.set(entry.id, shown);
    this.#parts.box.append(element);
    return shown;
  }

  #head(entry, time, shown) {
    const copy = make("button", { type: "button", class: "link copy" }, "Copy");
    copy.addEventListener("click", () => copyText(heardOf(entry) || entry.text, copy));
    const play = make("button", { type: "button", class: "link play" }, "▶ Play");
    play.addEventListener("click", () => this.#options.onPlay(entry, 0));
    shown.wait = make("span", { class: "wait", title: "To the first sound" });
    return make("div", { class: "head" },
      make("span", { class: "speaker" }, speakerOf(entry)),
      make("span", { class: "time" }, time), shown.wait,
      make("span", { class: "actions" }, play, copy));
  }

  /** A click on a word plays the recording from there. */
  #onClick({ target, clientX, clientY }) {
    if (!this.#parts.box.classList.contains("playable") || !target.closest(".spoken")) return;
    if (!getSelection().isCollapsed) return; // words are being selected
    const element = target.closest(".entry");
    const shown = [...this.#shown.values()].find((one) => one.element === element);
    const caret = document.caretPositionFromPoint?.(clientX, clientY);
    const range = caret ? null : document.caretRangeFromPoint?.(clientX, clientY);
    this.#options.onPlay(shown.entry, caret?.offset ?? range?.startOffset ?? 0);
  }

  /** Once an entry is complete: its text if nothing speaks it, or that it was interrupted. */
  #announce(entry) {
    const spoken = entry.role === "user" || (entry.aloud && entry.state !== "cut");
    if (entry.state === "open" || spoken || entry.failure) return; // the banner says a failure
    if (this.#announced.has(entry)) return;
    this.#announced.add(entry);
    const { announcer } = this.#parts;
    if (entry.aloud) announcer.textContent = "Answer interrupted.";
    else if (entry.role === "call") announcer.textContent = `Tool call: ${entry.name}`;
    else announcer.textContent = entry.text;
  }

  #atEnd() {
    const { box } = this.#parts;
    return box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_END_PX;
  }

  #follow() {
    const { box } = this.#parts;
    if (this.#following) box.scrollTop = box.scrollHeight;
  }
}

/** [from, to] of the word at a character of a text. */
export function wordAt(text, index) {
  const at = Math.max(0, Math.min(index, text.length - 1));
  const from = text.lastIndexOf(" ", at) + 1;
  const space = text.indexOf(" ", Math.max(at, from));
  return [Math.min(from, text.length), space < 0 ? text.length : space];
}

function speakerOf({ role, name }) {
  if (role === "call") return `Tool call: ${name}`;
  return { user: "You", assistant: "Assistant", note: "Note" }[role];
}

function content(entry) {
  if (entry.role === "note") return [entry.text];
  if (entry.role !== "call") return textOf(entry);
  return [make("code", {}, `${entry.name}(${entry.text}) → ${entry.output ?? "…"}`)];
}

function textOf(entry) {
  const [spoken, rest] = spokenOf(entry);
  const placeholder = entry.state === "open" ? "…" : NO_SPEECH;
  const line = make("div", { class: "text", dir: "auto" });
  line.append(make("span", { class: "spoken" }, spoken || (rest ? "" : placeholder)));
  if (entry.state !== "cut") {
    if (rest) line.append(make("span", { class: "unspoken" }, rest));
    return [line];
  }
  if (rest.trim()) line.append(spoken ? " " : "", make("s", { class: "unspoken" }, rest.trim()));
  const explanation = rest.trim()
    ? "Interrupted. The crossed-out words were not played."
    : "Interrupted at the very end.";
  return [line, make("div", { class: "explanation" }, explanation)];
}
