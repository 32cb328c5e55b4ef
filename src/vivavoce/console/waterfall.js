/** The turns of a conversation as bars of time: the wait on a scale of its own, then speech. */
import { adviceFor, gradeOf, seconds, segmentsOf, STAGES, waitSummary, waitOf } from "./waits.js";
import { draw, make } from "./ui.js";

const MIN_SCALE_MS = 2000; // of the waits, if no turn waited longer
const LOG_KNEE_MS = 50; // below it the logarithmic scale is nearly linear
const MARKS = [
  ["decision", "turn ended"],
  ["transcript", "transcript"],
  ["token", "first token"],
  ["sound", "first sound"],
  ["done", "all sent"],
  ["silent", "playback ended"],
  ["cut", "interrupted"],
];
const WAITING = new Set([...STAGES.map(([stage]) => stage), "failed"]);
const SPARK = { width: 120, height: 24 };

/** parts: elements {list, empty, summary, spark, log}. onTurn gets (turn, next turn or null). */
export class Waterfall {
  #parts;
  #onTurn;
  #conversation = null;
  #drawn = new Map(); // turn -> {element, key}

  constructor(parts, onTurn) {
    this.#parts = parts;
    this.#onTurn = onTurn;
    parts.log.addEventListener("change", () => this.#conversation && this.show(this.#conversation));
  }

  /** conversation: {turns: {all}, settings}. */
  show(conversation) {
    const { list, empty, log } = this.#parts;
    if (conversation !== this.#conversation) {
      this.#conversation = conversation;
      this.#drawn.clear();
      list.replaceChildren();
    }
    const turns = conversation.turns.all;
    const ended = turns.filter(({ marks }) => marks.end !== undefined);
    empty.hidden = ended.length > 0;
    const scale = {
      log: log.checked,
      wait: ended.reduce((most, turn) => Math.max(most, spanOf(turn, true)), MIN_SCALE_MS),
      speech: ended.reduce((most, turn) => Math.max(most, spanOf(turn, false)), MIN_SCALE_MS),
    };
    for (const turn of ended) this.#draw(turn, scale);
    this.#summarize(waitSummary(turns), conversation.settings);
  }

  #summarize(summary, settings) {
    const { summary: line, spark } = this.#parts;
    line.hidden = !summary;
    if (!summary) return;
    const { count, median, p95, longest, waits } = summary;
    const figures = `Median ${seconds(median)} · p95 ${seconds(p95)} · ${count} ${count === 1 ? "turn" : "turns"}`;
    const reason = `Most of the wait: ${longest.label} (${Math.round(longest.ms)} ms). `
      + adviceFor(longest.stage, settings);
    line.replaceChildren(make("strong", {}, figures), spark, make("span", {}, reason));
    const most = Math.max(...waits);
    const points = waits.slice(-40).map((ms, n, all) => {
      const x = all.length === 1 ? SPARK.width : (n / (all.length - 1)) * SPARK.width;
      return `${x.toFixed(1)},${(SPARK.height - 2 - (ms / most) * (SPARK.height - 4)).toFixed(1)}`;
    });
    spark.setAttribute("viewBox", `0 0 ${SPARK.width} ${SPARK.height}`);
    spark.replaceChildren(draw("polyline", { points: points.join(" ") }));
  }

  /** Draw a turn if it has changed: there may be hundreds. */
  #draw(turn, scale) {
    const { marks, words, problem, status } = turn;
    const playing = isPlaying(turn) && performance.now();
    const key = JSON.stringify([marks, words, problem, status, playing, scale]);
    const before = this.#drawn.get(turn);
    if (before?.key === key) return;
    const element = turnElement(turn, scale, () => {
      const { all } = this.#conversation.turns;
      this.#onTurn(turn, all[all.indexOf(turn) + 1] ?? null);
    });
    this.#drawn.set(turn, { element, key });
    const { list } = this.#parts;
    if (before) before.element.replaceWith(element);
    else {
      const older = [...list.children].find((one) => one.dataset.turn < turn.number);
      list.insertBefore(element, older ?? null);
    }
  }
}

function isPlaying({ marks }) {
  return marks.sound !== undefined && (marks.silent ?? marks.cut) === undefined;
}

/** Milliseconds of the wait of a turn, or of its speech. */
function spanOf(turn, waiting) {
  const parts = segmentsOf(turn).filter(([kind]) => WAITING.has(kind) === waiting);
  return parts.length ? parts.at(-1)[2] - parts[0][1] : 0;
}

function turnElement(turn, scale, onEvents) {
  const { end } = turn.marks;
  const wait = waitOf(turn);
  const title = make("h3", {}, make("span", {}, String(turn.number)), turn.words || "…");
  if (turn.marks.cut !== undefined) title.append(make("em", {}, "interrupted"));
  else if (turn.status === "failed") title.append(make("em", {}, turn.problem || "failed"));
  const line = make("p", { class: "headline" });
  if (wait !== undefined) {
    const grade = gradeOf(wait);
    line.append(make("strong", { class: grade }, `${Math.round(wait)} ms`), ` to first sound, ${grade}`);
  }
  const events = make("button", { type: "button", class: "link", "aria-label": `Events of turn ${turn.number}` }, "Events");
  events.addEventListener("click", onEvents);
  line.append(events);
  const bars = make("div", { class: "bars", "aria-hidden": "true" },
    bar(turn, true, scale), bar(turn, false, scale));
  const marks = make("dl", { class: "marks" });
  for (const [name, label] of MARKS) {
    if (turn.marks[name] === undefined) continue;
    const text = name === "done" && turn.status === "failed" ? "failed" : label;
    const time = make("dd", {}, `${Math.round(turn.marks[name] - end)} ms`);
    marks.append(make("div", {}, make("dt", {}, text), time));
  }
  if (turn.decision) {
    marks.append(make("div", {}, make("dt", {}, "why"), make("dd", {}, decisionOf(turn.decision))));
  }
  return make("li", { class: "turn", "data-turn": turn.number }, title, line, bars, marks);
}

/** The bar of the wait, from the end of speech, or that of the speech, from its first sound. */
function bar(turn, waiting, scale) {
  const parts = segmentsOf(turn).filter(([kind]) => WAITING.has(kind) === waiting);
  const element = make("div", { class: waiting ? "bar wait" : "bar speech" });
  if (!parts.length) return element;
  const start = waiting ? turn.marks.end : parts[0][1];
  const place = (ms) => placeOf(ms, waiting ? scale.wait : scale.speech, waiting && scale.log);
  for (const [kind, from, to] of parts) {
    const segment = make("i", { class: kind });
    segment.style.left = `${place(from - start)}%`;
    if (to !== from) segment.style.width = `${place(to - start) - place(from - start)}%`;
    if (waiting && to > from && kind !== "failed") segment.append(make("span", {}, String(Math.round(to - from))));
    element.append(segment);
  }
  return element;
}

/** The bar of a wait alone, on a scale of `most` ms. */
export function waitBar(turn, most) {
  const scale = { wait: most, speech: most, log: false };
  return make("div", { class: "bars", "aria-hidden": "true" }, bar(turn, true, scale));
}

/** Milliseconds as a percentage of the width of a bar of `most` ms. */
export function placeOf(ms, most, log) {
  const share = log ? Math.log1p(ms / LOG_KNEE_MS) / Math.log1p(most / LOG_KNEE_MS) : ms / most;
  return Math.min(100, share * 100);
}

/** Why a turn was ended: "waited 620 ms: sentence incomplete". */
export function decisionOf({ waited_ms, reason, likelihood }) {
  const sure = likelihood === undefined ? "" : ` (${Math.round(likelihood * 100)} %)`;
  return `waited ${waited_ms} ms: ${reason}${sure}`;
}
