/** The levels of the last seconds: the user above the line, the answer below it. */
import { level } from "./sound.js";

const BAR = 3;
const GAP = 2;
const EVERY_MS = 80;

export class Strip {
  #canvas;
  #mine = [];
  #theirs = [];
  #last = 0;
  #peak = { mine: 0, theirs: 0 };

  constructor(canvas) {
    this.#canvas = canvas;
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  /** Root mean squares, as they come. */
  add({ mine, theirs }) {
    this.#peak.mine = Math.max(this.#peak.mine, mine);
    this.#peak.theirs = Math.max(this.#peak.theirs, theirs);
    const now = performance.now();
    if (now - this.#last < EVERY_MS) return;
    this.#last = now;
    this.#mine.push(level(this.#peak.mine));
    this.#theirs.push(level(this.#peak.theirs));
    this.#peak = { mine: 0, theirs: 0 };
    this.draw();
  }

  draw() {
    const { clientWidth: wide, clientHeight: high } = this.#canvas;
    const scale = window.devicePixelRatio || 1;
    this.#canvas.width = wide * scale;
    this.#canvas.height = high * scale;
    const pen = this.#canvas.getContext("2d");
    pen.scale(scale, scale);
    const count = Math.floor(wide / (BAR + GAP));
    for (const row of [this.#mine, this.#theirs]) row.splice(0, row.length - count);
    const colours = getComputedStyle(this.#canvas);
    this.#row(pen, this.#mine, count, colours.color, high / 2, -1);
    this.#row(pen, this.#theirs, count, colours.borderTopColor, high / 2, 1);
  }

  #row(pen, row, count, colour, middle, direction) {
    pen.fillStyle = colour;
    for (let n = 0; n < count; n++) {
      const value = row[row.length - count + n] ?? 0;
      const tall = 1 + value * value * (middle - 3);
      const x = n * (BAR + GAP);
      pen.globalAlpha = value ? 1 : 0.3;
      pen.fillRect(x, direction < 0 ? middle - tall - 0.5 : middle + 0.5, BAR, tall);
    }
  }
}
