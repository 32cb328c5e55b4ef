/** The list of conversations: those of this page, and those that were kept in this browser. */
import { bodyOf, conversationOf, summaryOf } from "./archive.js";
import { EventLog } from "./timeline.js";
import { asText, newId } from "./transcript.js";
import { download, duration, make, store, stored, timeOfDay } from "./ui.js";

const SAVE_DELAY_MS = 1500;
const DELAY_PER_SECOND_MS = 100; // the longer a conversation, the more there is to write

/**
 * A record: {id, begun: Date, conversation, events, summary, shown}. One that was kept has a
 * summary, and its conversation once it was shown.
 */
export class ConversationList {
  #parts;
  #archive;
  #onShow;
  #records = [];

  /**
   * parts: elements {list, search, keep, clear, downloads: {text, json, wav}}. `onShow` gets the
   * record to show.
   */
  constructor(parts, archive, onShow) {
    this.#parts = parts;
    this.#archive = archive;
    this.#onShow = onShow;
    parts.downloads.text.addEventListener("click", () => this.#downloadText());
    parts.downloads.json.addEventListener("click", () => this.#downloadJson());
    parts.downloads.wav.addEventListener("click", () => this.#downloadWav());
    parts.search.addEventListener("input", () => this.draw());
    parts.keep.checked = stored("vivavoce.keep", true);
    parts.keep.addEventListener("change", () => store("vivavoce.keep", parts.keep.checked));
    parts.clear.addEventListener("click", () => this.#clear());
    this.draw();
  }

  /** Add the conversations that were kept. */
  async load() {
    const known = new Set(this.#records.map(({ id }) => id));
    const kept = (await this.#archive.summaries()).filter(({ id }) => !known.has(id));
    const records = kept.map((summary) => ({
      id: summary.id, begun: new Date(summary.begun), conversation: null, events: null, summary,
    }));
    this.#records = [...records, ...this.#records];
    this.draw();
  }

  /** The record that is shown, or null. */
  get current() {
    return this.#records.find(({ shown }) => shown) ?? null;
  }

  /** Add a record and show it. Conversations in which nothing was said are dropped. */
  add(record) {
    record.id = newId();
    record.begun = new Date();
    this.#records = this.#records.filter((one) => one.summary || hasWords(one.conversation));
    this.#records.push(record);
    this.show(record);
  }

  async show(record) {
    for (const one of this.#records) one.shown = one === record;
    this.draw();
    if (!record.conversation) {
      const body = await this.#archive.body(record.id);
      if (!body) return this.#drop(record);
      record.conversation = conversationOf(body);
      record.events = new EventLog(body.events, body.start);
    }
    if (record.shown) this.#onShow(record);
  }

  /** Keep a conversation soon, if the user wants that. */
  save(record) {
    clearTimeout(record.saving);
    if (!this.#parts.keep.checked) return;
    const { state, tape } = record.conversation;
    const later = SAVE_DELAY_MS + tape.seconds * DELAY_PER_SECOND_MS;
    record.saving = setTimeout(() => this.#save(record), state === "ended" ? 0 : later);
  }

  draw() {
    const { list, search, downloads, clear } = this.#parts;
    for (const button of Object.values(downloads)) button.disabled = !this.current;
    const wanted = search.value.trim().toLowerCase();
    const chosen = this.#records.filter((one) => wordsOf(one).toLowerCase().includes(wanted));
    clear.disabled = !this.#records.some(({ summary }) => summary);
    search.hidden = this.#records.length < 2;
    list.replaceChildren(...chosen.map((record) => this.#line(record)).reverse());
  }

  async #save(record) {
    if (!hasWords(record.conversation)) return;
    const file = record.conversation.tape.file();
    const audio = file.size > 44 ? file : null; // 44: the header of a wav file
    const one = { ...record, begun: record.begun.toISOString() };
    const summary = summaryOf(one, audio?.size ?? 0);
    if (!summary || !this.#records.includes(record)) return;
    await this.#archive.save(summary, bodyOf(one, audio));
    record.summary = summary;
    this.draw();
  }

  #drop(record) {
    clearTimeout(record.saving);
    this.#records = this.#records.filter((one) => one !== record);
    this.draw();
  }

  async #clear() {
    if (!confirm("Delete all conversations that were kept in this browser?")) return;
    await this.#archive.clear();
    for (const record of this.#records) {
      if (record.summary && !record.shown) this.#drop(record);
      else record.summary = null;
    }
    this.draw();
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
    const file = this.current.conversation.tape.file();
    if (file) download("conversation.wav", file);
  }

  #line(record) {
    const running = isRunning(record);
    const time = make("bdi", { class: "time" }, timeOf(record.begun));
    const button = make("button", { type: "button", class: "open" }, time);
    if (running) button.append(" ", make("span", { class: "live" }, "live"));
    button.append(" ", make("bdi", {}, titleOf(record)));
    if (record.shown) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => this.show(record));
    const line = make("li", {}, button);
    if (record.summary) line.append(make("span", { class: "hint" }, duration(record.summary.seconds)));
    if (!running) line.append(this.#deleteButton(record));
    return line;
  }

  #deleteButton(record) {
    const label = `Delete ${titleOf(record)}`;
    const button = make("button", { type: "button", class: "link", "aria-label": label }, "×");
    button.addEventListener("click", async () => {
      await this.#archive.remove(record.id);
      this.#drop(record);
      this.#parts.list.querySelector("button")?.focus();
    });
    return button;
  }
}

function isRunning({ conversation }) {
  return Boolean(conversation) && conversation.state !== "ended";
}

function hasWords({ session, transcript }) {
  return session && transcript.entries.some(({ role }) => role !== "note");
}

function titleOf({ conversation, summary }) {
  const first = conversation?.transcript.entries.find(({ role, text }) => role === "user" && text);
  return first?.text ?? summary?.title ?? "New";
}

function wordsOf({ conversation, summary }) {
  if (!conversation) return summary.words;
  return conversation.transcript.entries.map(({ text }) => text).join(" ");
}

/** The time of today, or the date. */
function timeOf(date) {
  if (date.toDateString() === new Date().toDateString()) return timeOfDay(date);
  return date.toLocaleDateString([], { month: "short", day: "numeric" });
}
