/** The timeline: turns as bars of time, and all protocol events. */
import { byteLength } from "./audio.js";
import { download, make } from "./ui.js";

const MIN_SCALE_MS = 2000; // the width of the bars, if no turn is longer
const MAX_EVENTS = 20_000;
const MAX_SHOWN = 1_000;
const AUDIO_FIELDS = new Map([
  ["input_audio_buffer.append", "audio"],
  ["response.output_audio.delta", "delta"],
]);
const MARKS = [
  ["decision", "turn ended"],
  ["transcript", "transcript"],
  ["token", "first token"],
  ["sound", "first sound"],
  ["done", "all sent"],
  ["silent", "playback ended"],
  ["cut", "interrupted"],
];

/** The turns of a conversation, each with a bar, newest first. */
export class Waterfall {
  #list;
  #empty;
  #turns = null;
  #drawn = new Map(); // turn -> {element, key}

  /** empty: the element to show without turns. */
  constructor(list, empty) {
    this.#list = list;
    this.#empty = empty;
  }

  show(turns) {
    if (turns !== this.#turns) {
      this.#turns = turns;
      this.#drawn.clear();
      this.#list.replaceChildren();
    }
    const ended = turns.filter(({ marks }) => marks.end !== undefined);
    this.#empty.hidden = ended.length > 0;
    const longest = ended.reduce((most, turn) => Math.max(most, durationOf(turn)), MIN_SCALE_MS);
    this.#list.style.setProperty("--longest", longest);
    for (const turn of ended) this.#draw(turn);
  }

  /** Draw a turn if it has changed: there may be hundreds. */
  #draw(turn) {
    const { marks, words, problem, status } = turn;
    const key = JSON.stringify([marks, words, problem, status, isPlaying(turn) && performance.now()]);
    const before = this.#drawn.get(turn);
    if (before?.key === key) return;
    const element = turnElement(turn);
    this.#drawn.set(turn, { element, key });
    if (before) before.element.replaceWith(element);
    else {
      const older = [...this.#list.children].find((one) => one.dataset.turn < turn.number);
      this.#list.insertBefore(element, older ?? null);
    }
  }
}

function isPlaying({ marks }) {
  return marks.sound !== undefined && (marks.silent ?? marks.cut) === undefined;
}

function durationOf(turn) {
  const times = Object.values(turn.marks).filter((one) => one !== undefined);
  return Math.max(...times, isPlaying(turn) ? performance.now() : 0) - turn.marks.end;
}

function turnElement(turn) {
  const { end } = turn.marks;
  const failed = turn.status === "failed";
  const title = make("h3", {}, make("span", {}, String(turn.number)), turn.words || "…");
  if (turn.marks.cut !== undefined) title.append(make("em", {}, "interrupted"));
  else if (failed) title.append(make("em", {}, turn.problem || "failed"));
  const bar = make("div", { class: "bar", "aria-hidden": "true" });
  for (const [kind, from, to] of segmentsOf(turn)) {
    const segment = make("i", { class: kind });
    segment.style.left = widthOf(from - end);
    if (to !== from) segment.style.width = widthOf(to - from);
    bar.append(segment);
  }
  const marks = make("dl", { class: "marks" });
  for (const [name, label] of MARKS) {
    if (turn.marks[name] === undefined) continue;
    const text = name === "done" && failed ? "failed" : label;
    const time = make("dd", {}, `${Math.round(turn.marks[name] - end)} ms`);
    marks.append(make("div", {}, make("dt", {}, text), time));
  }
  if (turn.decision) {
    marks.append(make("div", {}, make("dt", {}, "why"), make("dd", {}, decisionOf(turn.decision))));
  }
  return make("li", { class: "turn", "data-turn": turn.number }, title, bar, marks);
}

/** Why a turn was ended: "waited 620 ms: sentence incomplete". */
export function decisionOf({ waited_ms, reason, likelihood }) {
  const sure = likelihood === undefined ? "" : ` (${Math.round(likelihood * 100)} %)`;
  return `waited ${waited_ms} ms: ${reason}${sure}`;
}

/** Milliseconds as a share of the width of the list; the longest turn takes all of it. */
function widthOf(ms) {
  return `calc(100% * ${ms} / var(--longest))`;
}

/** [kind, from, to] of the segments of a bar, in ms of the page's clock. */
export function segmentsOf({ marks, status }) {
  const { end, decision = end, transcript, token, sound, done, cut } = marks;
  const failed = status === "failed";
  const segments = [];
  if (decision > end) segments.push(["detection", end, decision]);
  const answered = token ?? done;
  let asked = decision;
  if (transcript > decision && transcript <= (answered ?? Infinity)) {
    segments.push(["recognition", decision, transcript]);
    asked = transcript;
  }
  if (answered !== undefined) {
    segments.push([failed && token === undefined ? "failed" : "model", asked, answered]);
  }
  const playedTo = marks.silent ?? cut ?? performance.now();
  if (sound !== undefined) {
    segments.push(["voice", token ?? sound, sound], ["speaking", sound, playedTo]);
  } else if (done > answered) {
    segments.push([failed ? "failed" : "speaking", answered, done]);
  }
  if (cut !== undefined) segments.push(["cut", cut, cut]);
  return segments;
}

/** The events of one conversation, the newest MAX_EVENTS. Audio is replaced by its length. */
export class EventLog {
  lines = [];
  dropped = 0;
  #start = performance.now();

  /** Returns the line {at: seconds, sent, event}. */
  add({ event, sent, at }) {
    const line = { at: (at - this.#start) / 1000, sent, event: withoutAudio(event) };
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

/** An event log: filtered, opened, copied, downloaded. */
export class EventView {
  #parts;
  #log = new EventLog();
  #visible = false;
  #pending = []; // lines that are not drawn yet

  /** parts: elements {box, count, filter, sent, received, audio, copy, download}. */
  constructor(parts) {
    this.#parts = parts;
    for (const field of [parts.filter, parts.sent, parts.received, parts.audio]) {
      field.addEventListener("input", () => this.#draw());
    }
    parts.copy.addEventListener("click", () => this.#copy());
    parts.download.addEventListener("click", () =>
      download("events.jsonl", this.#text(), "application/jsonl"),
    );
  }

  set visible(visible) {
    this.#visible = visible;
    if (visible) this.#draw();
  }

  show(log) {
    this.#log = log;
    if (this.#visible) this.#draw();
  }

  /** A line was added to the log that is shown. */
  add(line) {
    if (!this.#visible || !this.#matches(line)) return;
    this.#pending.push(line);
    if (this.#pending.length === 1) requestAnimationFrame(() => this.#append());
  }

  #append() {
    const { box } = this.#parts;
    const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    box.append(...this.#pending.splice(0).slice(-MAX_SHOWN).map(eventElement));
    while (box.childElementCount > MAX_SHOWN) box.firstElementChild.remove();
    if (atEnd) box.scrollTop = box.scrollHeight;
    this.#showCount();
  }

  #draw() {
    const { box } = this.#parts;
    this.#pending = [];
    box.replaceChildren(...this.#chosen().slice(-MAX_SHOWN).map(eventElement));
    box.scrollTop = box.scrollHeight;
    this.#showCount();
  }

  #chosen() {
    return this.#log.lines.filter((line) => this.#matches(line));
  }

  #matches({ sent, event }) {
    const { filter, sent: showSent, received: showReceived, audio: showAudio } = this.#parts;
    if (!(sent ? showSent : showReceived).checked) return false;
    if (AUDIO_FIELDS.has(event.type) && !showAudio.checked) return false;
    const text = filter.value.trim().toLowerCase();
    return !text || JSON.stringify(event).toLowerCase().includes(text);
  }

  #showCount() {
    const { lines, dropped } = this.#log;
    const shown = this.#parts.box.childElementCount;
    const note = dropped ? `; the ${dropped} oldest were dropped` : "";
    this.#parts.count.textContent = `${shown} of ${lines.length} events shown${note}`;
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

function eventElement({ at, sent, event }) {
  const failed = event.type === "error" || event.response?.status === "failed";
  const direction = sent ? "sent" : "received";
  const arrow = { class: "direction", role: "img", "aria-label": direction };
  const summary = make(
    "summary",
    { class: failed ? `${direction} failed` : direction },
    make("span", { class: "time" }, at.toFixed(3)),
    make("span", arrow, sent ? "↑" : "↓"),
    make("span", { class: "type" }, ...breakable(event.type)),
    make("span", { class: "gist" }, gistOf(event)),
  );
  const details = make("details", {}, summary);
  details.addEventListener("toggle", () => {
    if (!details.open || details.childElementCount > 1) return;
    details.append(make("pre", {}, JSON.stringify(event, null, 2)));
  });
  return details;
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
