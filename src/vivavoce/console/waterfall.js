/** The turns as bars of time: where each of them waited, and for what. */
import { make } from "./dom.js";

const LEAST_MS = 2000; // the width of the bars when all turns are shorter
const MARKS = [
  ["decision", "decided"],
  ["transcript", "transcript"],
  ["token", "first token"],
  ["sound", "first sound"],
  ["done", "sent whole"],
  ["silent", "silent"],
  ["cut", "interrupted"],
];

export class Waterfall {
  #list;
  #empty;
  #turns = null;
  #drawn = new Map(); // turn -> {element, look}

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
    const begun = turns.filter(({ marks }) => marks.end !== undefined);
    this.#empty.hidden = begun.length > 0;
    const longest = begun.reduce((most, turn) => Math.max(most, lengthOf(turn)), LEAST_MS);
    this.#list.style.setProperty("--longest", longest);
    for (const turn of begun) this.#draw(turn);
  }

  /** The newest stands first. One that looks as before is left alone: there may be hundreds. */
  #draw(turn) {
    const { marks, words, problem } = turn;
    const look = JSON.stringify([marks, words, problem, speaking(turn) && performance.now()]);
    const before = this.#drawn.get(turn);
    if (before?.look === look) return;
    const element = fall(turn);
    this.#drawn.set(turn, { element, look });
    if (before) before.element.replaceWith(element);
    else {
      const older = [...this.#list.children].find((one) => one.dataset.turn < turn.number);
      this.#list.insertBefore(element, older ?? null);
    }
  }
}

function speaking({ marks }) {
  return marks.sound !== undefined && (marks.silent ?? marks.cut) === undefined;
}

function fall(turn) {
  const { end } = turn.marks;
  const ms = (name) => turn.marks[name] - end;
  const title = make("h3", {}, make("span", {}, String(turn.number)), turn.words || "…");
  if (turn.marks.cut !== undefined) title.append(make("em", {}, "interrupted"));
  else if (turn.problem) title.append(make("em", {}, turn.problem));
  const bar = make("div", { class: "bar", "aria-hidden": "true" });
  for (const [kind, from, to] of stretches(turn)) {
    const piece = make("i", { class: kind });
    piece.style.left = share(from - end);
    if (to !== from) piece.style.width = share(to - from);
    bar.append(piece);
  }
  const marks = make("dl", { class: "marks" });
  for (const [name, label] of MARKS) {
    if (turn.marks[name] === undefined) continue;
    const time = make("dd", {}, `${Math.round(ms(name))} ms`);
    marks.append(make("div", {}, make("dt", {}, label), time));
  }
  return make("li", { class: "fall", "data-turn": turn.number }, title, bar, marks);
}

/** Of the width of the list; the longest turn, which takes all of it, may change. */
function share(ms) {
  return `calc(100% * ${ms} / var(--longest))`;
}

/** [kind, from, to] of the pieces of a bar, in the page's milliseconds. */
function stretches({ marks }) {
  const { end, decision = end, token, sound, cut } = marks;
  const pieces = [];
  if (decision > end) pieces.push(["wait", end, decision]);
  const thought = token ?? marks.done;
  if (thought !== undefined) pieces.push(["think", decision, thought]);
  const over = marks.silent ?? cut ?? (sound === undefined ? undefined : performance.now());
  if (sound !== undefined) {
    pieces.push(["voice", token ?? sound, sound], ["speak", sound, over]);
  } else if (thought !== undefined && marks.done > thought) {
    pieces.push(["speak", thought, marks.done]);
  }
  if (cut !== undefined) pieces.push(["cut", cut, cut]);
  return pieces;
}

function lengthOf(turn) {
  const times = Object.values(turn.marks).filter((one) => one !== undefined);
  return Math.max(...times, speaking(turn) ? performance.now() : 0) - turn.marks.end;
}
