/** The conversations of this page: their list, and the transcript of the one that is shown. */
import { NO_SPEECH, asText, spokenOf } from "./transcript.js";
import { download, make, timeOfDay } from "./ui.js";

const NEAR_END_PX = 80; // scrolled so close to the end, the view follows new text

/** The transcript as it grows. */
export class TranscriptView {
  #box;
  #welcome;
  #announcer;
  #shown = new Map(); // id of an entry -> element
  #following = true;
  #announced = new Set(); // entries

  /** announcer: a live region for what is not spoken; the transcript itself is not live. */
  constructor(box, welcome, announcer) {
    this.#box = box;
    this.#welcome = welcome;
    this.#announcer = announcer;
    box.addEventListener("scroll", () => (this.#following = this.#atEnd()));
    new ResizeObserver(() => this.#follow()).observe(box);
  }

  /** Show the entries of another conversation. */
  show(entries) {
    this.#shown.clear();
    this.#box.replaceChildren(this.#welcome);
    this.#welcome.hidden = false;
    for (const entry of entries) {
      this.#announced.add(entry);
      this.update(entry);
    }
  }

  /** Show an entry that is new or has changed. */
  update(entry) {
    if (!entry.text && entry.role === "assistant") return;
    this.#welcome.hidden = true;
    let element = this.#shown.get(entry.id);
    if (!element) {
      const label = `${speakerOf(entry)}, ${timeOfDay(new Date(entry.at))}`;
      const attributes = { class: "entry", role: "article", "aria-label": label };
      element = make("div", { ...attributes, "data-role": entry.role });
      if (entry.failure) element.classList.add("failed");
      this.#shown.set(entry.id, element);
      this.#box.append(element);
    }
    element.dataset.state = entry.state;
    element.replaceChildren(...content(entry));
    this.#announce(entry);
    this.#follow();
  }

  /** Once an entry is complete: its text if nothing speaks it, or that it was interrupted. */
  #announce(entry) {
    const spoken = entry.role === "user" || (entry.aloud && entry.state !== "cut");
    if (entry.state === "open" || spoken || entry.failure) return; // the banner says a failure
    if (this.#announced.has(entry)) return;
    this.#announced.add(entry);
    if (entry.aloud) this.#announcer.textContent = "Answer interrupted.";
    else if (entry.role === "call") this.#announcer.textContent = `Tool call: ${entry.name}`;
    else this.#announcer.textContent = entry.text;
  }

  #atEnd() {
    return this.#box.scrollHeight - this.#box.scrollTop - this.#box.clientHeight < NEAR_END_PX;
  }

  #follow() {
    if (this.#following) this.#box.scrollTop = this.#box.scrollHeight;
  }
}

function speakerOf({ role, name }) {
  if (role === "call") return `Tool call: ${name}`;
  return { user: "You", assistant: "Assistant", note: "Note" }[role];
}

function content(entry) {
  if (entry.role === "note") return [entry.text];
  const speaker = make("div", { class: "speaker" }, speakerOf(entry));
  if (entry.role !== "call") return [speaker, ...textOf(entry)];
  const call = `${entry.name}(${entry.text}) → ${entry.output ?? "…"}`;
  return [speaker, make("code", {}, call)];
}

function textOf(entry) {
  const [spoken, rest] = spokenOf(entry);
  const placeholder = entry.state === "open" ? "…" : NO_SPEECH;
  const line = make("div", { class: "text", dir: "auto" });
  line.append(make("span", { class: "spoken" }, spoken || (rest ? "" : placeholder)));
  if (entry.state !== "cut") {
    if (rest) line.append(make("span", { class: "unspoken" }, rest));
    return [line];
  }
  if (rest.trim()) line.append(spoken ? " " : "", make("s", { class: "unspoken" }, rest.trim()));
  const explanation = rest.trim()
    ? "Interrupted. The crossed-out words were not played."
    : "Interrupted at the very end.";
  return [line, make("div", { class: "explanation" }, explanation)];
}

/** The list of conversations. A record: {conversation, events, begun, shown}. */
export class ConversationList {
  #list;
  #downloads;
  #onShow;
  #records = [];

  /** downloads: buttons {text, json, wav}. `onShow` gets the record to show. */
  constructor(list, downloads, onShow) {
    this.#list = list;
    this.#downloads = downloads;
    this.#onShow = onShow;
    downloads.text.addEventListener("click", () => this.#downloadText());
    downloads.json.addEventListener("click", () => this.#downloadJson());
    downloads.wav.addEventListener("click", () => this.#downloadWav());
    this.draw();
  }

  /** The record that is shown, or null. */
  get current() {
    return this.#records.find(({ shown }) => shown) ?? null;
  }

  /** Add a record and show it. Conversations in which nothing was said are dropped. */
  add(record) {
    record.begun = new Date();
    this.#records = this.#records.filter(
      ({ conversation: { session, transcript } }) =>
        session && transcript.entries.some(({ role }) => role !== "note"),
    );
    this.#records.push(record);
    this.show(record);
  }

  show(record) {
    for (const one of this.#records) one.shown = one === record;
    this.#onShow(record);
    this.draw();
  }

  draw() {
    for (const button of Object.values(this.#downloads)) button.disabled = !this.current;
    this.#list.replaceChildren(...this.#records.map((record) => this.#line(record)).reverse());
  }

  #downloadText() {
    download("conversation.txt", asText(this.current.conversation.transcript.entries));
  }

  #downloadJson() {
    const { begun, conversation } = this.current;
    const turns = conversation.turns.all.map(({ number, words, status, marks }) => ({
      number,
      words,
      status,
      ms: Object.fromEntries(
        Object.entries(marks).map(([name, at]) => [name, Math.round(at - (marks.end ?? at))]),
      ),
    }));
    const { entries } = conversation.transcript;
    const data = { begun, session: conversation.session, entries, turns };
    download("conversation.json", JSON.stringify(data, null, 2), "application/json");
  }

  #downloadWav() {
    download("conversation.wav", this.current.conversation.tape.file());
  }

  #line(record) {
    const { state, transcript } = record.conversation;
    const first = transcript.entries.find(({ role, text }) => role === "user" && text);
    const button = make("button", { type: "button" }, make("bdi", {}, timeOfDay(record.begun)));
    if (state !== "ended") button.append(" ", make("span", { class: "live" }, "live"));
    button.append(" ", make("bdi", {}, first?.text ?? "New"));
    if (record.shown) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => this.show(record));
    return make("li", {}, button);
  }
}
