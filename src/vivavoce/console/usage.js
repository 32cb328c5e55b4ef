/** The usage page: what was used and what it cost, from GET /v1/usage. */
import { draw, download, make } from "./ui.js";
import { STAGES, stageMs, waitOf } from "./waits.js";

const NANO = 1e9;
const WIDE = 640;
const NARROW = 360; // on a phone: the text in a plot is as large as beside it
const HEIGHT = 120;
const MAX_ROWS = 12;
const LABEL = 64; // the width of a label

const COLOURS = ["fill", "stroke", "font-size", "font-family", "text-anchor"];

/**
 * Plots and tables of usage. `parts`: {box, days, status, csv, waits, key, bodies}; `key` returns the
 * API key, `bodies` resolves to the conversations that were kept, the oldest first.
 */
export class UsageView {
  #parts;
  #shown = 0; // number of the request that was begun last

  constructor(parts) {
    this.#parts = parts;
    parts.days.addEventListener("change", () => this.show());
    parts.csv.addEventListener("click", () => this.#downloadCsv());
  }

  async show() {
    const { box, status, csv } = this.#parts;
    const number = ++this.#shown;
    status.textContent = "Loading …";
    csv.disabled = true;
    this.#showWaits();
    try {
      const queries = ["day", "user", "model,mode"].map((by) => this.#query(by));
      const [byDay, byUser, byModel] = await Promise.all(queries.map((one) => this.#fetch(one)));
      if (number !== this.#shown) return;
      box.replaceChildren(...charts(byDay, byUser, byModel));
      status.textContent = byDay.length ? summary(byDay) : "Nothing was used in this time.";
      csv.disabled = !byDay.length;
    } catch (error) {
      if (number !== this.#shown) return;
      box.replaceChildren();
      status.textContent = error.message;
    }
  }

  #query(by) {
    const since = new Date(Date.now() - this.#parts.days.value * 86_400_000);
    return `by=${by}&since=${since.toISOString().slice(0, 10)}`;
  }

  #request(query) {
    const key = this.#parts.key();
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    return fetch(`/v1/usage?${query}`, { headers });
  }

  /** The waits of this browser's conversations: the server's are in its metrics. */
  async #showWaits() {
    const { waits, bodies } = this.#parts;
    waits.replaceChildren(...waitChart(await bodies()));
  }

  async #downloadCsv() {
    const { status } = this.#parts;
    const response = await this.#request(`${this.#query("day,user,model,mode")}&form=csv`);
    if (response.ok) download("usage.csv", await response.text(), "text/csv");
    else status.textContent = `The server answered with ${response.status}.`;
  }

  async #fetch(query) {
    const response = await this.#request(query);
    if (response.status === 404) throw new Error("This server keeps no record of usage.");
    const body = await response.json();
    if (!response.ok) throw new Error(body.error?.message ?? `HTTP ${response.status}`);
    return body.data;
  }
}

/** All figures of the page, as elements. */
export function charts(byDay, byUser, byModel) {
  const users = byUser.toSorted((a, b) => b.nano_usd - a.nano_usd).slice(0, MAX_ROWS);
  return [
    chart("Cost per day", "USD", byDay, "day", (line) => line.nano_usd / NANO, dollars),
    chart("Cost per user", "USD", users, "user", (line) => line.nano_usd / NANO, dollars),
    chart("Cache hit rate", "of input tokens", byDay, "day", cacheRate, percent),
    chart("Sessions at once, at most", "sessions", byDay, "day", (line) => line.sessions_at_once,
      String),
    comparison(byModel),
  ];
}

/** The share of input tokens that were cached, 0 to 1. */
export function cacheRate(line) {
  return line.input_tokens ? line.cached_tokens / line.input_tokens : 0;
}

/** USD per minute of session; null without any. */
export function perMinute(nano, seconds) {
  return seconds ? nano / NANO / (seconds / 60) : null;
}

const dollars = (value) => `$${value.toFixed(value < 1 ? 4 : 2)}`;
const percent = (value) => `${Math.round(value * 100)} %`;
const minuteCost = (value) => (value === null ? "–" : dollars(value));

function summary(byDay) {
  const sum = (name) => byDay.reduce((total, line) => total + line[name], 0);
  const minutes = Math.round(sum("session_seconds") / 60);
  return `${dollars(sum("nano_usd") / NANO)} for ${sum("sessions")} sessions, ${minutes} minutes, `
    + `${sum("responses")} responses`;
}

/** A bar for each line, and the same figures as a table. */
function chart(title, unit, lines, group, valueOf, show) {
  const rows = lines.map((line) => [line.group[group] || "(none)", valueOf(line)]);
  const most = Math.max(0, ...rows.map(([, value]) => value));
  const figure = make("figure", { class: "plot" }, make("figcaption", {}, `${title} (${unit})`));
  if (!rows.length) return figure;
  const label = `${title}: at most ${show(most)}, in ${rows.length} bars. The table has all figures.`;
  const svg = bars(rows, most, label, show);
  figure.querySelector("figcaption").append(" ", saveButton(title, svg));
  figure.append(svg, table([title, unit], rows.map(
    ([name, value]) => [name, show(value)],
  )));
  return figure;
}

/** Units of a plot in its width. */
const plotWidth = () =>
  globalThis.matchMedia?.("(max-width: 760px)").matches ? NARROW : WIDE;

function bars(rows, most, label, show) {
  const width = plotWidth();
  const svg = draw("svg", {
    viewBox: `0 0 ${width} ${HEIGHT + 18}`, role: "img", "aria-label": label,
  });
  const step = width / rows.length;
  rows.forEach(([name, value], n) => {
    const height = most ? Math.max(value ? 1 : 0, (value / most) * (HEIGHT - 14)) : 0;
    const bar = draw("rect", {
      x: n * step + step * 0.1, y: HEIGHT - height, width: step * 0.8, height,
    });
    const hint = draw("title");
    hint.textContent = `${name}: ${show(value)}`;
    bar.append(hint);
    svg.append(bar);
    if (n % Math.ceil((rows.length * LABEL) / width) === 0) {
      const text = draw("text", { x: n * step + step / 2, y: HEIGHT + 14 });
      text.textContent = name.replace(/^\d{4}-/, "").slice(0, 12); // a day without its year
      svg.append(text);
    }
  });
  const scale = draw("text", { x: 2, y: 10, class: "scale" });
  scale.textContent = show(most);
  svg.append(draw("line", { x1: 0, x2: width, y1: HEIGHT, y2: HEIGHT }), scale);
  return svg;
}

/** Cost per minute of each model; of a relay, beside what a cascade would have cost. */
function comparison(byModel) {
  const lines = byModel.filter((line) => line.session_seconds || line.nano_usd);
  const rows = lines.map((line) => [
    line.group.model || "(none)", line.group.mode, dollars(line.nano_usd / NANO),
    minuteCost(perMinute(line.nano_usd, line.session_seconds)),
    line.group.mode === "relay"
      ? minuteCost(perMinute(line.cascade_nano_usd, line.session_seconds)) : "–",
  ]);
  const heads = ["Model", "Mode", "Cost", "Per minute", "As a cascade, per minute"];
  const note = make("p", { class: "hint" },
    "As a cascade: an estimate for the same calls, from their time, the speech of their answers "
    + "and their text.");
  return make("figure", { class: "plot wide" }, make("figcaption", {}, "Cost per minute"),
    table(heads, rows, true), note);
}

function table(heads, rows, open = false) {
  const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)));
  const body = rows.map((cells) => make("tr", {}, ...cells.map((text) => make("td", {}, text))));
  const whole = make("table", {}, make("thead", {}, head), make("tbody", {}, ...body));
  return open ? whole : make("details", {}, make("summary", {}, "Table"), whole);
}

/** Stacked bars: the mean wait of each conversation by stage, as elements; [] without any. */
export function waitChart(bodies) {
  const rows = bodies.map(waitsOf).filter(Boolean);
  if (!rows.length) return [];
  const title = "Time to first sound, by stage";
  const most = Math.max(...rows.map(({ total }) => total));
  const label = `${title}: at most ${Math.round(most)} ms, in ${rows.length} conversations.`;
  const width = plotWidth();
  const svg = draw("svg", {
    viewBox: `0 0 ${width} ${HEIGHT + 18}`, role: "img", "aria-label": `${label} The table has all figures.`,
  });
  const step = width / rows.length;
  rows.forEach(({ times }, n) => {
    let top = HEIGHT;
    for (const [stage] of STAGES) {
      const height = (times[stage] / most) * (HEIGHT - 14);
      top -= height;
      svg.append(draw("rect", {
        class: stage, x: n * step + step * 0.1, y: top, width: step * 0.8, height,
      }));
    }
  });
  const scale = draw("text", { x: 2, y: 10, class: "scale" });
  scale.textContent = `${Math.round(most)} ms`;
  svg.append(draw("line", { x1: 0, x2: width, y1: HEIGHT, y2: HEIGHT }), scale);
  const cells = rows.map(({ begun, times, total }) => [
    begun.slice(0, 16).replace("T", " "),
    ...STAGES.map(([stage]) => `${Math.round(times[stage])}`), `${Math.round(total)}`,
  ]);
  const heads = ["Conversation", ...STAGES.map(([, name]) => `${name}, ms`), "all, ms"];
  const caption = make("figcaption", {}, `${title}: conversations of this browser `, saveButton(title, svg));
  return [make("figure", { class: "plot wide" }, caption, svg, table(heads, cells))];
}

/** The mean waits of one conversation by stage; null without any. */
function waitsOf({ begun, turns }) {
  const heard = turns.filter((turn) => waitOf(turn) !== undefined);
  if (!heard.length) return null;
  const mean = (of) => heard.reduce((sum, turn) => sum + of(turn), 0) / heard.length;
  const times = Object.fromEntries(STAGES.map(([stage]) => [stage, mean((turn) => stageMs(turn, stage))]));
  return { begun, times, total: mean(waitOf) };
}

/** A button that saves a plot as a file that looks the same anywhere. */
function saveButton(title, svg) {
  const attributes = { type: "button", class: "link", "aria-label": `Save ${title} as SVG` };
  const button = make("button", attributes, "Save");
  button.addEventListener("click", () => {
    const name = title.toLowerCase().replaceAll(/[^a-z]+/g, "-");
    download(`${name}.svg`, standalone(svg), "image/svg+xml");
  });
  return button;
}

/** The text of a file with an SVG as it is shown now. */
function standalone(svg) {
  const copy = svg.cloneNode(true);
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  const shown = svg.querySelectorAll("*");
  copy.querySelectorAll("*").forEach((one, n) => {
    const style = getComputedStyle(shown[n]);
    for (const name of COLOURS) one.setAttribute(name, style.getPropertyValue(name));
    one.removeAttribute("class");
  });
  return new XMLSerializer().serializeToString(copy);
}
