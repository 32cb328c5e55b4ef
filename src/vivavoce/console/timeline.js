/** All protocol events of a conversation: kept, filtered, shown. */
import { byteLength } from "./audio.js";
import { copyText, download, make } from "./ui.js";

const MAX_EVENTS = 20_000;
const MAX_SHOWN = 1_000;
const AUDIO_FIELDS = new Map([
  ["input_audio_buffer.append", "audio"],
  ["response.output_audio.delta", "delta"],
]);

/** The events of one conversation, the newest MAX_EVENTS. Audio is replaced by its length. */
export class EventLog {
  lines;
  dropped = 0;
  start; // ms of the page's clock

  /** lines, start: those of a conversation that was kept. */
  constructor(lines = [], start = performance.now()) {
    this.lines = lines;
    this.start = start;
  }

  /** Returns the line {at: seconds, sent, event}. */
  add({ event, sent, at }) {
    const line = { at: (at - this.start) / 1000, sent, event: withoutAudio(event) };
    this.lines.push(line);
    if (this.lines.length > MAX_EVENTS) {
      this.lines.shift();
      this.dropped++;
    }
    return line;
  }
}

function withoutAudio(event) {
  const field = AUDIO_FIELDS.get(event.type);
  if (!field) return event;
  return { ...event, [field]: `(${byteLength(event[field])} bytes of audio)` };
}

/** An event log: filtered, opened, copied, downloaded; the newest event first. */
export class EventView {
  #parts;
  #log = new EventLog();
  #visible = false;
  #pending = []; // lines that are not drawn yet
  #range = null; // [from, to] in seconds: the events of one turn

  /** parts: elements {box, count, filter, sent, received, audio, copy, download, range}. */
  constructor(parts) {
    this.#parts = parts;
    for (const field of [parts.filter, parts.sent, parts.received, parts.audio]) {
      field.addEventListener("input", () => this.#draw());
    }
    parts.copy.addEventListener("click", () => this.#copy());
    parts.range.addEventListener("click", () => this.showTurn(null));
    parts.download.addEventListener("click", () =>
      download("events.jsonl", this.#text(), "application/jsonl"),
    );
  }

  set visible(visible) {
    this.#visible = visible;
    if (visible) this.#draw();
  }

  show(log) {
    if (log !== this.#log) this.#setRange(null, "");
    this.#log = log;
    if (this.#visible) this.#draw();
  }

  /** Show the events from the beginning of a turn to that of the next only; null: all events. */
  showTurn(turn, next = null) {
    const from = turn && (turn.begun - this.#log.start) / 1000;
    const to = next ? (next.begun - this.#log.start) / 1000 : Infinity;
    this.#setRange(turn && [from, to], turn ? `Turn ${turn.number} only: show all` : "");
    this.#draw();
  }

  /** A line was added to the log that is shown. */
  add(line) {
    if (!this.#visible || !this.#matches(line)) return;
    this.#pending.push(line);
    if (this.#pending.length === 1) requestAnimationFrame(() => this.#append());
  }

  #setRange(range, label) {
    this.#range = range;
    this.#parts.range.hidden = !range;
    this.#parts.range.textContent = label;
  }

  #append() {
    const { box } = this.#parts;
    const lines = this.#pending.splice(0);
    const newest = box.firstElementChild;
    const before = newest?.lines.length;
    const groups = grouped(lines, newest?.lines);
    const last = newest && groups.shift();
    if (last && last.length > before) newest.replaceWith(eventElement(last, newest.open));
    box.prepend(...groups.slice(-MAX_SHOWN).reverse().map((group) => eventElement(group)));
    while (box.childElementCount > MAX_SHOWN) box.lastElementChild.remove();
    this.#showCount();
  }

  #draw() {
    const { box } = this.#parts;
    this.#pending = [];
    const groups = grouped(this.#chosen()).slice(-MAX_SHOWN).reverse();
    box.replaceChildren(...groups.map((group) => eventElement(group)));
    box.scrollTop = 0;
    this.#showCount();
  }

  #chosen() {
    return this.#log.lines.filter((line) => this.#matches(line));
  }

  #matches({ at, sent, event }) {
    const { filter, sent: showSent, received: showReceived, audio: showAudio } = this.#parts;
    if (this.#range && (at < this.#range[0] || at >= this.#range[1])) return false;
    if (!(sent ? showSent : showReceived).checked) return false;
    if (AUDIO_FIELDS.has(event.type) && !showAudio.checked) return false;
    const text = filter.value.trim().toLowerCase();
    return !text || JSON.stringify(event).toLowerCase().includes(text);
  }

  #showCount() {
    const { lines, dropped } = this.#log;
    let shown = 0;
    for (const one of this.#parts.box.children) shown += one.lines.length;
    const note = dropped ? `; the ${dropped} oldest were dropped` : "";
    this.#parts.count.textContent = `${shown} of ${lines.length} events shown, the newest first${note}`;
  }

  #text() {
    return this.#chosen()
      .map(({ at, sent, event }) => JSON.stringify({ at, sent, event }))
      .join("\n");
  }

  #copy() {
    return copyText(this.#text(), this.#parts.copy);
  }
}

/**
 * Lines in groups: pieces of one text or of audio that follow each other are one group. `last`: a
 * group to go on with; it is the first of the result.
 */
export function grouped(lines, last = null) {
  const groups = last ? [last] : [];
  for (const line of lines) {
    const group = groups.at(-1);
    if (group && isPiece(line) && sameKind(line, group[0])) group.push(line);
    else groups.push([line]);
  }
  return groups;
}

function isPiece({ event: { type } }) {
  return type.endsWith(".delta") || type === "input_audio_buffer.append";
}

function sameKind({ sent, event }, other) {
  const { type, item_id: item } = other.event;
  return sent === other.sent && event.type === type && event.item_id === item;
}

function eventElement(group, open = false) {
  const { at, sent, event } = group[0];
  const failed = event.type === "error" || event.response?.status === "failed";
  const direction = sent ? "sent" : "received";
  const arrow = { class: "direction", role: "img", "aria-label": direction };
  const count = group.length > 1 ? [make("span", { class: "repeats" }, `${group.length} × `)] : [];
  const summary = make(
    "summary",
    { class: failed ? `${direction} failed` : direction },
    make("span", { class: "time" }, at.toFixed(3)),
    make("span", arrow, sent ? "↑" : "↓"),
    make("span", { class: "type" }, ...count, ...breakable(event.type)),
    make("span", { class: "gist" }, gistOfGroup(group)),
  );
  const details = make("details", {}, summary);
  details.lines = group;
  const fill = () => {
    if (!details.open || details.childElementCount > 1) return;
    const events = group.map((line) => line.event);
    details.append(make("pre", {}, JSON.stringify(events.length > 1 ? events : events[0], null, 2)));
  };
  details.addEventListener("toggle", fill);
  details.open = open;
  return details;
}

function gistOfGroup(group) {
  const [{ event }] = group;
  if (group.length === 1 || AUDIO_FIELDS.has(event.type)) return gistOf(event);
  return group.map((line) => line.event.delta ?? "").join("");
}

/** An event type that wraps after a dot or underscore, not within a word. */
function breakable(type) {
  return type.split(/(?<=[._])/).flatMap((part) => [part, make("wbr")]);
}

/** The most useful part of an event, as text. */
function gistOf(event) {
  const { error, transcript, text, delta, audio, item, response } = event;
  if (error) return error.message;
  const content = transcript ?? text ?? delta ?? audio;
  if (content) return content;
  if (item?.type === "function_call") return `${item.name}(${item.arguments})`;
  if (item?.type === "function_call_output") return item.output;
  if (item) return `${item.role ?? item.type} ${item.id ?? ""}`;
  if (response?.status) return response.status;
  if (event.audio_end_ms !== undefined) return `at ${event.audio_end_ms} ms`;
  if (event.audio_start_ms !== undefined) return `at ${event.audio_start_ms} ms`;
  if (event.session) return event.session.id ?? Object.keys(event.session).join(", ");
  return event.item_id ?? event.response_id ?? "";
}
