/** The keys of the whole page. The space bar belongs to PushToTalkButton. */
import { store, stored } from "./ui.js";

const STORED = "vivavoce.shortcuts";
const USES_LETTERS = "input, textarea, select, [contenteditable]";

/**
 * actions: {help, toggle, mute, interrupt, type, tab(number)}; letters: the check box that switches
 * the keys that are single characters on and off (WCAG 2.1.4).
 */
export class Shortcuts {
  #actions;
  #letters;

  constructor(actions, letters) {
    this.#actions = actions;
    this.#letters = letters;
    letters.checked = stored(STORED, true);
    letters.addEventListener("change", () => store(STORED, letters.checked));
    document.addEventListener("keydown", (event) => this.#onKey(event));
  }

  #onKey(event) {
    if (event.altKey || event.metaKey || event.isComposing || event.repeat) return;
    if (document.querySelector("dialog[open]")) return; // its own keys: Escape closes it
    const action = this.#actionOf(event);
    if (!action) return;
    event.preventDefault();
    action();
  }

  #actionOf({ key, ctrlKey, target }) {
    const { toggle, interrupt, help, mute, type, tab } = this.#actions;
    if (ctrlKey) return key === "Enter" ? toggle : null;
    if (key === "Escape") return interrupt;
    if (!this.#letters.checked || target.closest?.(USES_LETTERS)) return null;
    if (/^[1-9]$/.test(key)) return () => tab(Number(key));
    return { "?": help, m: mute, M: mute, "/": type }[key] ?? null;
  }
}
