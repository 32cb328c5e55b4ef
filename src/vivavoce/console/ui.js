/** Parts of the page that know nothing of a conversation. */
import { meterLevel } from "./audio.js";

/** The element with that id. */
export const $ = (id) => document.getElementById(id);

/** A new element: attributes (null and undefined are left out), then child nodes or strings. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

/** A new element of SVG. */
export function draw(name, attributes = {}) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

/** Download `content` (a string or Blob) as a file. */
export function download(name, content, type = "text/plain") {
  const blob = content instanceof Blob ? content : new Blob([content], { type });
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Copy a text, and say on the button for a moment whether it was possible. */
export async function copyText(text, button) {
  button.dataset.label ??= button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed";
  }
  setTimeout(() => (button.textContent = button.dataset.label), 1500);
}

/** The value stored in this browser under that name, or `otherwise`. */
export function stored(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(name)) ?? otherwise;
  } catch {
    return otherwise; // no storage, or no JSON
  }
}

/** Store a value in this browser; without storage it is kept until the page closes. */
export function store(name, value) {
  try {
    localStorage.setItem(name, JSON.stringify(value));
  } catch {
    // storage is disabled or full
  }
}

/** A length of time such as "1 m 52 s". */
export function duration(seconds) {
  const whole = Math.round(seconds);
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} m ${whole % 60} s`;
}

/** A local time such as "5:09 PM". */
export function timeOfDay(date) {
  return date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

/** One sentence about a problem, with one button. */
export class Banner {
  #parts;
  #action = () => {};
  #topic = "";

  /** parts: elements {box, text, countdown, button}. */
  constructor(parts) {
    this.#parts = parts;
    parts.button.addEventListener("click", () => this.#action());
  }

  /** topic: what the sentence is about; `clear` takes it. */
  show(topic, sentence, label, action) {
    const { box, text, countdown, button } = this.#parts;
    this.#topic = topic;
    this.#action = action;
    text.textContent = sentence;
    countdown.textContent = "";
    button.textContent = label;
    box.hidden = false;
  }

  /** A problem that needs no action. */
  showProblem(sentence) {
    this.show("problem", sentence, "Dismiss", () => this.clear());
  }

  /** Text that changes every second; it is hidden from screen readers. */
  setCountdown(text) {
    this.#parts.countdown.textContent = text;
  }

  /** Hide the sentence about that topic; without a topic, any. */
  clear(topic = this.#topic) {
    if (topic === this.#topic) this.#parts.box.hidden = true;
  }
}

/** Tabs by click, arrow keys, Home and End. `onShow` gets the id of the panel that is shown. */
export function setUpTabs(list, onShow) {
  const tabs = [...list.querySelectorAll("[role=tab]")];

  function select(tab) {
    for (const one of tabs) {
      const selected = one === tab;
      one.setAttribute("aria-selected", String(selected));
      one.tabIndex = selected ? 0 : -1;
      $(one.getAttribute("aria-controls")).hidden = !selected;
    }
    onShow(tab.getAttribute("aria-controls"));
  }

  list.addEventListener("click", ({ target }) => {
    const tab = target.closest("[role=tab]");
    if (tab) select(tab);
  });
  list.addEventListener("keydown", (event) => {
    const index = tabs.indexOf(document.activeElement);
    const targets = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: tabs.length - 1 };
    const target = targets[event.key];
    if (target === undefined || index < 0) return;
    event.preventDefault();
    const tab = tabs.at(target % tabs.length);
    tab.focus();
    select(tab);
  });
}

const NEXT_THEME = { system: "light", light: "dark", dark: "system" };
const THEME_SYMBOL = { system: "◐", light: "○", dark: "●" };

/** A button that switches between the system's colours, light and dark. */
export function setUpTheme(button) {
  let theme = stored("vivavoce.theme", "system");
  if (!(theme in NEXT_THEME)) theme = "system";

  function apply() {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = THEME_SYMBOL[theme];
    button.title = `Theme: ${theme}. Switch to ${NEXT_THEME[theme]}`;
    button.setAttribute("aria-label", button.title);
  }

  button.addEventListener("click", () => {
    theme = NEXT_THEME[theme];
    store("vivavoce.theme", theme);
    apply();
  });
  apply();
}

const USES_SPACE = "input, textarea, select, button, summary, [contenteditable]";

/** Push to talk: by mouse, touch, Enter on the button, and the space bar outside of fields. */
export class PushToTalkButton {
  #button;
  #pressed = false;
  #onChange;

  /** `onChange` gets whether the button is pressed. */
  constructor(button, onChange) {
    this.#button = button;
    this.#onChange = onChange;
    button.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      button.setPointerCapture(event.pointerId);
      this.#set(true);
    });
    for (const name of ["pointerup", "pointercancel", "blur"]) {
      button.addEventListener(name, () => this.release());
    }
    button.addEventListener("contextmenu", (event) => event.preventDefault()); // of a long touch
    window.addEventListener("blur", () => this.release());
    document.addEventListener("keydown", (event) => this.#onKey(event, true));
    document.addEventListener("keyup", (event) => this.#onKey(event, false));
  }

  release() {
    this.#set(false);
  }

  #onKey(event, pressed) {
    const onButton = event.target === this.#button && [" ", "Enter"].includes(event.key);
    const onPage = event.key === " " && !event.target.closest?.(USES_SPACE);
    if (!onButton && !onPage) return;
    if (this.#button.disabled || !this.#button.offsetParent) return;
    event.preventDefault();
    if (!event.repeat) this.#set(pressed);
  }

  #set(pressed) {
    if (pressed === this.#pressed) return;
    this.#pressed = pressed;
    this.#button.classList.toggle("pressed", pressed);
    this.#button.textContent = pressed ? "Listening …" : "Hold to talk";
    this.#onChange(pressed);
  }
}

const BAR_WIDTH = 3; // px
const BAR_GAP = 2; // px
const BAR_INTERVAL_MS = 80;

/** A canvas with the levels of the last seconds: the user above the line, the answer below. */
export class LevelChart {
  #canvas;
  #bars = { mine: [], theirs: [] };
  #peak = { mine: 0, theirs: 0 };
  #lastBarAt = 0;

  constructor(canvas) {
    this.#canvas = canvas;
    new ResizeObserver(() => this.#draw()).observe(canvas);
  }

  /** Add root mean squares, at any rate. */
  add(levels) {
    const now = performance.now();
    const due = now - this.#lastBarAt >= BAR_INTERVAL_MS;
    for (const side of ["mine", "theirs"]) {
      this.#peak[side] = Math.max(this.#peak[side], levels[side]);
      if (!due) continue;
      this.#bars[side].push(meterLevel(this.#peak[side]));
      this.#peak[side] = 0;
    }
    if (!due) return;
    this.#lastBarAt = now;
    this.#draw();
  }

  clear() {
    this.#bars = { mine: [], theirs: [] };
    this.#peak = { mine: 0, theirs: 0 };
    this.#draw();
  }

  #draw() {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const scale = window.devicePixelRatio || 1;
    this.#canvas.width = width * scale;
    this.#canvas.height = height * scale;
    const context = this.#canvas.getContext("2d");
    context.scale(scale, scale);
    const count = Math.floor(width / (BAR_WIDTH + BAR_GAP));
    const { color, borderTopColor } = getComputedStyle(this.#canvas);
    this.#drawSide(context, this.#bars.mine, count, color, height / 2, -1);
    this.#drawSide(context, this.#bars.theirs, count, borderTopColor, height / 2, 1);
  }

  #drawSide(context, bars, count, color, middle, direction) {
    bars.splice(0, bars.length - count);
    context.fillStyle = color;
    for (let n = 0; n < count; n++) {
      const value = bars[bars.length - count + n] ?? 0;
      const height = 1 + value * value * (middle - 3);
      const y = direction < 0 ? middle - height - 0.5 : middle + 0.5;
      context.globalAlpha = value ? 1 : 0.3;
      context.fillRect(n * (BAR_WIDTH + BAR_GAP), y, BAR_WIDTH, height);
    }
  }
}
