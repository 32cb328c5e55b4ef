/** The state of the live conversation in words, in every tab and in the title of the page. */
import { ACTIVITY_WORDS } from "./activity.js";
import { make, store, stored } from "./ui.js";
import { seconds, waitOf } from "./waits.js";

const STATES = {
  idle: "Not connected", connecting: "Connecting …", waiting: "Connection lost", ended: "Ended",
};
const ANNOUNCED = new Set(["thinking", "tool"]); // what cannot be heard
const TITLE = "Vivavoce";
const STORED = "vivavoce.announce";

/** The word for a conversation: of its activity while it is live. */
export function stateWord({ state, activity }) {
  return state === "live" ? ACTIVITY_WORDS[activity] : STATES[state];
}

/** "Listening · 0.61 s": the word, and the last time to first sound. */
export function stateText(conversation) {
  const word = stateWord(conversation);
  if (conversation.state !== "live") return word;
  const last = conversation.turns.all.findLast((turn) => waitOf(turn) !== undefined);
  return last ? `${word} · ${seconds(waitOf(last))}` : word;
}

/** parts: elements {box, text, announcer, serving, announce: a check box}. */
export class StatusLine {
  #parts;
  #shown = "";

  constructor(parts) {
    this.#parts = parts;
    parts.announce.checked = stored(STORED, true);
    parts.announce.addEventListener("change", () => store(STORED, parts.announce.checked));
  }

  /** sentence: in place of the word while it is connecting. */
  show(conversation, sentence = "") {
    const { box, text } = this.#parts;
    const { state, activity } = conversation;
    const word = stateWord(conversation);
    box.dataset.state = state === "live" ? activity : state;
    text.textContent = (state === "connecting" && sentence) || stateText(conversation);
    document.title = state === "idle" || state === "ended" ? TITLE : `● ${word}: ${TITLE}`;
    if (word !== this.#shown) this.#announce(word, conversation);
    this.#shown = word;
    this.#showServing(conversation);
  }

  #announce(word, { state, activity }) {
    const { announcer, announce } = this.#parts;
    if (state === "connecting" || state === "waiting") return; // a banner says it
    if (state === "live" && !(announce.checked && ANNOUNCED.has(activity))) {
      if (this.#shown !== STATES.connecting) return;
      word = "Connected";
    }
    announcer.textContent = word;
  }

  #showServing({ session }) {
    const served = session?.served_by;
    const names = [served?.model ?? session?.model, served?.voice].filter(Boolean);
    this.#parts.serving.replaceChildren(...names.map((name) => make("bdi", {}, name)));
  }
}
