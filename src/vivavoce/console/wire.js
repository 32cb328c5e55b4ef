/** Every event both ways: kept, filtered, opened, copied, saved. */
import { make, save } from "./dom.js";
import { lengthOf } from "./sound.js";

const MOST_KEPT = 20_000;
const MOST_SHOWN = 1_000;
const SOUND = new Set(["input_audio_buffer.append", "response.output_audio.delta"]);

/** The events of one conversation. Sound is kept as its length: the tape has it. */
export class Log {
  lines = [];
  dropped = 0;
  #begun = performance.now();

  add({ event, sent, at }) {
    const line = { at: (at - this.#begun) / 1000, sent, event: lean(event) };
    this.lines.push(line);
    if (this.lines.length > MOST_KEPT) {
      this.lines.shift();
      this.dropped++;
    }
    return line;
  }
}

function lean(event) {
  if (!SOUND.has(event.type)) return event;
  const field = event.type.endsWith(".append") ? "audio" : "delta";
  return { ...event, [field]: `(${lengthOf(event[field])} bytes of sound)` };
}

export class WireView {
  #parts;
  #log = new Log();
  #visible = false;
  #fresh = []; // lines that came since the last picture

  /** parts: {box, count, filter, sent, came, sound, copy, save}, all of them elements. */
  constructor(parts) {
    this.#parts = parts;
    for (const one of [parts.filter, parts.sent, parts.came, parts.sound]) {
      one.addEventListener("input", () => this.#draw());
    }
    parts.save.addEventListener("click", () =>
      save("events.jsonl", this.#text(), "application/jsonl"),
    );
    parts.copy.addEventListener("click", () => this.#copy());
  }

  set visible(visible) {
    this.#visible = visible;
    if (visible) this.#draw();
  }

  show(log) {
    this.#log = log;
    if (this.#visible) this.#draw();
  }

  /** A line that was just added to the log that is shown. */
  added(line) {
    if (!this.#visible || !this.#wanted(line)) return;
    this.#fresh.push(line);
    if (this.#fresh.length === 1) requestAnimationFrame(() => this.#append());
  }

  #append() {
    const { box } = this.#parts;
    const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    box.append(...this.#fresh.splice(0).slice(-MOST_SHOWN).map(row));
    while (box.childElementCount > MOST_SHOWN) box.firstElementChild.remove();
    if (atEnd) box.scrollTop = box.scrollHeight;
    this.#tell();
  }

  #draw() {
    const { box } = this.#parts;
    this.#fresh = [];
    box.replaceChildren(...this.#chosen().slice(-MOST_SHOWN).map(row));
    box.scrollTop = box.scrollHeight;
    this.#tell();
  }

  #chosen() {
    return this.#log.lines.filter((line) => this.#wanted(line));
  }

  #wanted({ sent, event }) {
    const { filter, sent: ways, came, sound } = this.#parts;
    if (!(sent ? ways : came).checked) return false;
    if (SOUND.has(event.type) && !sound.checked) return false;
    const sought = filter.value.trim().toLowerCase();
    return !sought || JSON.stringify(event).toLowerCase().includes(sought);
  }

  #tell() {
    const shown = this.#parts.box.childElementCount;
    const { lines, dropped } = this.#log;
    const lost = dropped ? `, the ${dropped} oldest are gone` : "";
    this.#parts.count.textContent = `${shown} of ${lines.length} events shown${lost}`;
  }

  #text() {
    return this.#chosen()
      .map(({ at, sent, event }) => JSON.stringify({ at, sent, event }))
      .join("\n");
  }

  async #copy() {
    const { copy } = this.#parts;
    try {
      await navigator.clipboard.writeText(this.#text());
      copy.textContent = "Copied";
    } catch {
      copy.textContent = "Not allowed";
    }
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  }
}

function row({ at, sent, event }) {
  const bad = event.type === "error" || event.response?.status === "failed";
  const way = sent ? "sent" : "received";
  const summary = make(
    "summary",
    { class: `${sent ? "sent" : "came"}${bad ? " bad" : ""}` },
    make("span", { class: "at" }, at.toFixed(3)),
    make("span", { class: "way", role: "img", "aria-label": way }, sent ? "↑" : "↓"),
    make("span", { class: "type" }, event.type),
    make("span", { class: "more" }, gist(event)),
  );
  const line = make("details", {}, summary);
  line.addEventListener("toggle", () => {
    if (line.open && line.childElementCount === 1) line.append(opened(event));
  });
  return line;
}

function opened(event) {
  return make("pre", {}, JSON.stringify(event, null, 2));
}

/** What a reader wants to know of an event, in a few words. */
function gist(event) {
  const { error, transcript, text, delta, item, response } = event;
  if (error) return error.message;
  if (transcript ?? text ?? delta ?? event.audio) return transcript ?? text ?? delta ?? event.audio;
  if (item?.type === "function_call") return `${item.name}(${item.arguments})`;
  if (item?.type === "function_call_output") return item.output;
  if (item) return `${item.role ?? item.type} ${item.id ?? ""}`;
  if (response?.status) return response.status;
  if (event.audio_end_ms !== undefined) return `at ${event.audio_end_ms} ms`;
  if (event.audio_start_ms !== undefined) return `at ${event.audio_start_ms} ms`;
  if (event.session) return event.session.id ?? Object.keys(event.session).join(", ");
  return event.item_id ?? event.response_id ?? "";
}
