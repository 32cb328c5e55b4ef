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

  constructor(list, empty) {
    this.#list = list;
    this.#empty = empty;
  }

  show(turns) {
    const begun = turns.filter(({ marks }) => marks.end !== undefined);
    this.#empty.hidden = begun.length > 0;
    const longest = Math.max(LEAST_MS, ...begun.map((turn) => lengthOf(turn)));
    this.#list.replaceChildren(...begun.map((turn) => fall(turn, longest)).reverse());
  }
}

function fall(turn, longest) {
  const { end } = turn.marks;
  const ms = (name) => turn.marks[name] - end;
  const title = make("h3", {}, make("span", {}, String(turn.number)), turn.words || "…");
  if (turn.marks.cut !== undefined) title.append(make("em", {}, "interrupted"));
  else if (turn.problem) title.append(make("em", {}, turn.problem));
  const bar = make("div", { class: "bar", "aria-hidden": "true" });
  for (const [kind, from, to] of stretches(turn)) {
    const piece = make("i", { class: kind });
    piece.style.left = `${((from - end) / longest) * 100}%`;
    if (to !== from) piece.style.width = `${((to - from) / longest) * 100}%`;
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

function lengthOf({ marks }) {
  const times = Object.values(marks).filter((one) => one !== undefined);
  const over = marks.silent ?? marks.cut;
  const speaking = marks.sound !== undefined && over === undefined;
  return Math.max(...times, speaking ? performance.now() : 0) - marks.end;
}
