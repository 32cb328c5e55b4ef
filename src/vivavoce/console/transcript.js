/** The transcript of a conversation, built from protocol events and playback positions. */
import { byteLength, RATE } from "./audio.js";
import { Emitter, sentenceOf } from "./state.js";

export const NO_SPEECH = "(no speech recognized)"; // shown; never sent to a server
const END_TOLERANCE_MS = 60; // an answer with less than this left is played
const MS_PER_CHARACTER = 62; // of speech of medium speed, where the length is unknown

/**
 * An entry: {id, role: "user" | "assistant" | "call" | "note", text, state, at, aloud, audioMs,
 * playedMs, heard, name, callId, output, failure, sound}. `state` is "open", "done" or "cut"
 * (interrupted); `at` is the time it began, ISO 8601; `aloud`: it is spoken; `heard`: the part of
 * an interrupted answer that was played; `failure`: a note about a failed answer;
 * `sound`: [from, to] in seconds of the recording.
 * Emits "change" with the entry.
 */
export class Transcript extends Emitter {
  entries = [];
  #retrieved = new Set(); // ids of interrupted items that the server was asked for

  /** Take a server event. Returns an event to send, or null. */
  feed(event) {
    switch (event.type) {
      case "input_audio_buffer.speech_started":
        if (event.item_id) this.#findOrAdd(event.item_id, "user");
        return null;
      case "conversation.item.added":
      case "conversation.item.created":
      case "conversation.item.done":
        this.#takeItem(event.item, event.type.endsWith(".done"));
        return null;
      case "conversation.item.input_audio_transcription.delta":
        return this.#append(event.item_id, "user", event.delta);
      case "conversation.item.input_audio_transcription.completed":
        return this.#complete(event.item_id, "user", event.transcript);
      case "conversation.item.input_audio_transcription.failed":
        return this.#complete(event.item_id, "user", "");
      case "response.output_audio_transcript.delta":
        Object.assign(this.#findOrAdd(event.item_id, "assistant"), {
          aloud: true,
          response: event.response_id,
        });
        return this.#append(event.item_id, "assistant", event.delta);
      case "response.output_text.delta":
        return this.#append(event.item_id, "assistant", event.delta);
      case "response.output_audio_transcript.done":
      case "response.output_text.done":
        this.#findOrAdd(event.item_id, "assistant").text = event.transcript ?? event.text;
        return null;
      case "response.output_audio.delta":
        this.#findOrAdd(event.item_id, "assistant").audioMs +=
          (byteLength(event.delta) / 2 / RATE) * 1000;
        return null;
      case "response.output_item.done":
        this.#takeItem(event.item, true);
        return null;
      case "response.done":
        if (event.response.status === "failed") this.#addFailure(event.response);
        return null;
      case "conversation.item.truncated":
        return this.#truncate(event);
      case "conversation.item.retrieved":
        return this.#correct(event.item);
      default:
        return null;
    }
  }

  /** Set how much of these answers has been played: [[id, ms], ...]. */
  setPlayed(list) {
    for (const [id, ms] of list) {
      const entry = this.entries.findLast((one) => one.id === id);
      if (entry && entry.state !== "cut") this.#setPlayed(entry, ms);
    }
  }

  /**
   * Set how much of a response has been played, whose length is unknown; Infinity is all. at: the
   * position in the recording, seconds.
   */
  setProgress(response, ms, at) {
    const entry = this.entries.findLast((one) => one.response === response);
    if (!entry || entry.state === "cut") return;
    if (ms !== Infinity) this.setSound(entry.id, at - ms / 1000, at);
    const estimate = entry.text.length * MS_PER_CHARACTER;
    entry.audioMs = ms === Infinity ? estimate : Math.max(estimate, ms);
    this.#setPlayed(entry, Math.min(ms, entry.audioMs));
  }

  /** Set from where to where an entry sounds in the recording; null leaves an end as it is. */
  setSound(id, from, to = from) {
    const entry = this.entries.findLast((one) => one.id === id);
    if (!entry) return;
    entry.sound ??= [Math.max(0, from ?? to), to];
    if (from === null || to !== from) entry.sound[1] = to;
  }

  /** Playback was interrupted at that position of the recording. */
  cutSound(at) {
    for (const { sound } of this.entries) if (sound?.[1] > at) sound[1] = Math.max(sound[0], at);
  }

  /** Add a message that the user typed, sent or not. Returns the entry. */
  addTyped(text) {
    const entry = this.#add(newId(), "user");
    Object.assign(entry, { text, state: "done" });
    this.emit("change", entry);
    return entry;
  }

  /** Add a remark of the page, such as that the connection was lost. */
  addNote(text, more = {}) {
    const entry = this.#add(`note_${this.entries.length}`, "note");
    Object.assign(entry, { text, state: "done", ...more });
    this.emit("change", entry);
  }

  /** Set the result of a tool call. */
  setOutput(callId, output) {
    const entry = this.entries.find((one) => one.callId === callId);
    if (!entry) return;
    entry.output = output;
    this.emit("change", entry);
  }

  /** The connection is closed: no more text arrives and nothing more is played. */
  finish() {
    for (const entry of this.entries) {
      const [played, rest] = spokenOf(entry);
      if (entry.aloud && entry.state !== "cut" && rest.trim()) {
        Object.assign(entry, { state: "cut", heard: played.trim() });
      } else if (entry.state === "open") {
        entry.state = "done";
      } else continue;
      this.emit("change", entry);
    }
  }

  /** The entries of user and assistant that have text of which any was heard. */
  get messages() {
    return this.entries.filter((entry) => isMessage(entry) && heardOf(entry));
  }

  /** The entry of the last answer that was spoken and not cut off. */
  get lastHeard() {
    return this.entries.findLast(({ aloud, state }) => aloud && state !== "cut");
  }

  /** The messages that the session of a session.created does not have; null: it has all. */
  missing({ resumed, resume }) {
    if (!resumed) return this.messages;
    const last = resume.last_item_id; // undefined: the session itself goes on
    const at = this.entries.findLastIndex(({ id }) => id === last);
    if (last === undefined || (at < 0 && last !== null)) return null;
    return this.messages.filter((entry) => this.entries.indexOf(entry) > at);
  }

  /** The last message if it is the user's, that is, has no answer; otherwise null. */
  get unanswered() {
    const last = this.messages.at(-1);
    return last?.role === "user" ? last : null;
  }

  #setPlayed(entry, ms) {
    if (entry.playedMs === ms) return;
    const [before] = spokenOf(entry);
    entry.playedMs = ms;
    if (spokenOf(entry)[0] !== before) this.emit("change", entry);
  }

  #add(id, role) {
    const entry = { id, role, text: "", state: "open", audioMs: 0, playedMs: 0, heard: null };
    entry.at = new Date().toISOString();
    this.entries.push(entry);
    return entry;
  }

  #findOrAdd(id, role) {
    return this.entries.findLast((one) => one.id === id) ?? this.#add(id, role);
  }

  #append(id, role, delta) {
    const entry = this.#findOrAdd(id, role);
    if (entry.state === "open") entry.text += delta;
    this.emit("change", entry);
    return null;
  }

  #complete(id, role, text) {
    const entry = this.#findOrAdd(id, role);
    Object.assign(entry, { text, state: "done" });
    this.emit("change", entry);
    return null;
  }

  #addFailure(response) {
    const { message, code } = response.status_details?.error ?? {};
    this.addNote(`The answer failed: ${sentenceOf(message ?? code ?? "unknown error")}`, {
      failure: true,
    });
  }

  #takeItem(item, done) {
    if (item.type === "function_call") {
      const entry = this.#findOrAdd(item.id, "call");
      Object.assign(entry, { name: item.name, callId: item.call_id, text: item.arguments ?? "" });
      if (done) entry.state = "done";
      this.emit("change", entry);
      return;
    }
    if (item.type !== "message" || item.role === "system") return;
    const entry = this.#findOrAdd(item.id, item.role);
    entry.text ||= textOf(item);
    const typed = item.role === "user" && item.content.every((part) => part.type === "input_text");
    if (entry.state === "open" && ((done && item.role === "assistant") || typed)) {
      entry.state = "done";
    }
    this.emit("change", entry);
  }

  #truncate(event) {
    const entry = this.#findOrAdd(event.item_id, "assistant");
    entry.state = "cut";
    entry.playedMs = event.audio_end_ms;
    const share = entry.audioMs ? Math.min(1, event.audio_end_ms / entry.audioMs) : 0;
    entry.heard = wholeWords(entry.text, share);
    this.emit("change", entry);
    if (this.#retrieved.has(entry.id)) return null;
    this.#retrieved.add(entry.id);
    return { type: "conversation.item.retrieve", item_id: entry.id };
  }

  /** Take the words that the server keeps of an interrupted answer, in place of the estimate. */
  #correct(item) {
    const entry = this.entries.find((one) => one.id === item.id);
    const heard = item.type === "message" ? textOf(item).trim() : "";
    if (entry?.state === "cut" && (!heard || entry.text.trim().startsWith(heard))) {
      entry.heard = heard;
      this.emit("change", entry);
    }
    return null;
  }
}

/** The text of an entry, of an interrupted answer only what was played. */
export function heardOf(entry) {
  return entry.state === "cut" ? entry.heard : entry.text;
}

/** An entry as a conversation item, for a new session. */
export function itemOf(entry) {
  const type = entry.role === "user" ? "input_text" : "output_text";
  const content = [{ type, text: heardOf(entry) }];
  return { id: entry.id, type: "message", role: entry.role, content };
}

/** The text of an entry in two parts: [played, not played (yet)]. */
export function spokenOf(entry) {
  const { text, aloud, audioMs, playedMs } = entry;
  if (entry.state === "cut") return split(text, entry.heard ?? "");
  if (!aloud) return [text, ""];
  if (!audioMs) return ["", text];
  if (playedMs >= audioMs - END_TOLERANCE_MS && entry.state === "done") return [text, ""];
  return split(text, wholeWords(text, playedMs / audioMs));
}

/** The transcript as text for a file, a line for each entry. */
export function asText(entries) {
  const shown = entries.filter(({ role, text }) => text || role !== "assistant");
  const lines = shown.map((entry) => {
    if (entry.role === "note") return `— ${entry.text}`;
    if (entry.role === "call") return `Tool: ${entry.name}(${entry.text}) = ${entry.output ?? "?"}`;
    const [played, rest] = entry.state === "cut" ? spokenOf(entry) : [entry.text, ""];
    const speaker = entry.role === "user" ? "You:" : "Assistant:";
    const unplayed = rest.trim() ? `[not played: ${rest.trim()}]` : "";
    const text = played.trim() || (unplayed ? "" : NO_SPEECH);
    return [speaker, text, unplayed].filter(Boolean).join(" ");
  });
  return `${lines.join("\n")}\n`;
}

function isMessage({ role }) {
  return role === "user" || role === "assistant";
}

/** A random id; crypto.randomUUID() is for secure contexts only. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(10));
  return `item_${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

function textOf(item) {
  return (item.content ?? []).map((part) => part.transcript ?? part.text ?? "").join("");
}

/** Split `text` after `head`, which it begins with; leading spaces belong to the first part. */
function split(text, head) {
  const start = text.length - text.trimStart().length;
  const at = start + head.trim().length;
  return [text.slice(0, at), text.slice(at)];
}

/** The whole words in the first `share` (0 to 1) of a text. */
function wholeWords(text, share) {
  const at = Math.round(text.length * Math.max(0, Math.min(1, share)));
  if (at >= text.length) return text;
  return text.slice(0, text.lastIndexOf(" ", at) + 1).trimEnd();
}
