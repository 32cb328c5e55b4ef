/** Conversations kept in this browser (IndexedDB), the newest MAX_KEPT. */
import { RATE } from "./audio.js";

const DATABASE = "vivavoce";
const VERSION = 1;
const MAX_KEPT = 50;
const MAX_EVENTS = 5_000; // of one conversation
const MAX_AUDIO_BYTES = 200 * 1024 * 1024; // of all recordings; the oldest are dropped first
const MAX_WORDS = 4_000; // characters of a summary, for the search

/**
 * A summary: {id, begun: ISO 8601, seconds, title, words, audioBytes}. A body: {id, settings,
 * session, entries, turns, events, start, begun, audio: Blob | null}. Without storage nothing is kept.
 */
export class Archive {
  #opening = null;

  /** The summaries, the oldest first; [] without storage. */
  async summaries() {
    const all = (await this.#run("summaries", "readonly", (store) => store.getAll())) ?? [];
    return all.sort((a, b) => (a.begun < b.begun ? -1 : 1));
  }

  /** The body of a conversation; null where it was deleted. */
  async body(id) {
    return (await this.#run("bodies", "readonly", (store) => store.get(id))) ?? null;
  }

  /** All bodies, the oldest first. */
  async bodies() {
    const all = (await this.#run("bodies", "readonly", (store) => store.getAll())) ?? [];
    return all.sort((a, b) => (a.begun < b.begun ? -1 : 1));
  }

  /** Keep a conversation in place of the one with that id, and drop what is too much. */
  async save(summary, body) {
    const events = body.events.slice(-MAX_EVENTS);
    await this.#run("bodies", "readwrite", (store) => store.put({ ...body, events }));
    await this.#run("summaries", "readwrite", (store) => store.put(summary));
    const { expired, silenced } = overLimits(await this.summaries());
    for (const { id } of expired) await this.remove(id);
    for (const one of silenced) await this.#dropAudio(one);
  }

  async remove(id) {
    await this.#run("bodies", "readwrite", (store) => store.delete(id));
    await this.#run("summaries", "readwrite", (store) => store.delete(id));
  }

  async clear() {
    await this.#run("bodies", "readwrite", (store) => store.clear());
    await this.#run("summaries", "readwrite", (store) => store.clear());
  }

  async #dropAudio(summary) {
    const body = await this.body(summary.id);
    if (!body) return;
    await this.#run("bodies", "readwrite", (store) => store.put({ ...body, audio: null }));
    const without = { ...summary, audioBytes: 0 };
    await this.#run("summaries", "readwrite", (store) => store.put(without));
  }

  /** The result of one request; undefined without storage. */
  async #run(name, mode, request) {
    this.#opening ??= open();
    const database = await this.#opening;
    if (!database) return undefined;
    return result(request(database.transaction(name, mode).objectStore(name)));
  }
}

function open() {
  return new Promise((resolve) => {
    try {
      const opening = indexedDB.open(DATABASE, VERSION);
      opening.onupgradeneeded = () => {
        opening.result.createObjectStore("summaries", { keyPath: "id" });
        opening.result.createObjectStore("bodies", { keyPath: "id" });
      };
      opening.onsuccess = () => resolve(opening.result);
      opening.onerror = () => resolve(null); // private windows have no storage
      opening.onblocked = () => resolve(null);
    } catch {
      resolve(null);
    }
  });
}

function result(request) {
  return new Promise((resolve) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => resolve(undefined); // for example the disk is full
  });
}

/** Of summaries, the oldest first: which to delete, and which lose their recordings. */
export function overLimits(summaries) {
  const expired = summaries.slice(0, Math.max(0, summaries.length - MAX_KEPT));
  const silenced = [];
  let bytes = 0;
  for (const summary of summaries.slice(expired.length).toReversed()) {
    bytes += summary.audioBytes;
    if (bytes > MAX_AUDIO_BYTES && summary.audioBytes) silenced.push(summary);
  }
  return { expired, silenced };
}

/** The summary of a conversation, or null if nothing was said in it. */
export function summaryOf({ id, begun, conversation }, audioBytes) {
  const spoken = conversation.transcript.entries.filter(({ role, text }) => role !== "note" && text);
  if (!spoken.length) return null;
  const last = conversation.transcript.entries.at(-1);
  const title = spoken.find(({ role }) => role === "user")?.text ?? spoken[0].text;
  const recorded = audioBytes / (RATE * 4); // two channels of 16 bits
  const seconds = Math.round(Math.max(recorded, (new Date(last.at) - new Date(begun)) / 1000));
  const words = spoken.map(({ text }) => text).join(" ").slice(0, MAX_WORDS);
  return { id, begun, seconds: Math.max(0, seconds), title: title.slice(0, 200), words, audioBytes };
}

/** What is kept of a conversation; playback that goes on is taken to end with the last mark. */
export function bodyOf({ id, begun, conversation, events }, audio) {
  const turns = conversation.turns.all.map((turn) => {
    const { marks } = turn;
    const open = marks.sound !== undefined && (marks.silent ?? marks.cut) === undefined;
    const silent = open ? Math.max(...Object.values(marks)) : marks.silent;
    return { ...turn, marks: silent === undefined ? { ...marks } : { ...marks, silent } };
  });
  const entries = conversation.transcript.entries.map((entry) => ({ ...entry }));
  return {
    id, begun, settings: { ...conversation.settings }, session: conversation.session, entries, turns,
    events: events.lines.map((line) => ({ ...line })), start: events.start, audio,
  };
}

/** A body in the form of a Conversation that has ended, for the views. */
export function conversationOf({ settings, session, entries, turns, audio }) {
  return {
    state: "ended", settings, session, transcript: { entries }, turns: { all: turns },
    tape: { file: () => audio },
  };
}
