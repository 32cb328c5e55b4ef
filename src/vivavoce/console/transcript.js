/** What was said, by whom, and how much of it was heard: made from the events alone. */
import { Emitter } from "./emitter.js";
import { lengthOf, RATE } from "./sound.js";

export const NOTHING = "(nothing was understood)"; // for people: no server is told it
const SLACK_MS = 60; // an answer of which no more is missing has been heard
const MS_PER_LETTER = 62; // of speech whose length nobody tells: middling fast

/**
 * An entry: {id, role: "user" | "assistant" | "call" | "note", text, state, aloud, audioMs,
 * playedMs, heard, name, output}. `state` is "open", "done" or "cut"; `aloud`: it is spoken. Of one
 * that was cut off, `heard` is the part that reached the ear, as far as is known. Emits "change"
 * with the entry.
 */
export class Transcript extends Emitter {
  entries = [];
  #asked = new Set(); // cut items of which the server is asked what was heard

  /** An event from the server, or one that was sent to it. Returns an event to ask it, or null. */
  feed(event) {
    switch (event.type) {
      case "input_audio_buffer.speech_started":
        if (event.item_id) this.#entry(event.item_id, "user");
        return null;
      case "conversation.item.added":
      case "conversation.item.created":
      case "conversation.item.done":
        this.#item(event.item, event.type.endsWith(".done"));
        return null;
      case "conversation.item.input_audio_transcription.delta":
        return this.#add(event.item_id, "user", event.delta);
      case "conversation.item.input_audio_transcription.completed":
        return this.#close(event.item_id, "user", event.transcript);
      case "conversation.item.input_audio_transcription.failed":
        return this.#close(event.item_id, "user", "");
      case "response.output_audio_transcript.delta":
        Object.assign(this.#entry(event.item_id, "assistant"), {
          aloud: true,
          response: event.response_id,
        });
        return this.#add(event.item_id, "assistant", event.delta);
      case "response.output_text.delta":
        return this.#add(event.item_id, "assistant", event.delta);
      case "response.output_audio_transcript.done":
      case "response.output_text.done":
        this.#entry(event.item_id, "assistant").text = event.transcript ?? event.text;
        return null;
      case "response.output_audio.delta":
        this.#entry(event.item_id, "assistant").audioMs +=
          (lengthOf(event.delta) / 2 / RATE) * 1000;
        return null;
      case "response.output_item.done":
        this.#item(event.item, true);
        return null;
      case "conversation.item.truncated":
        return this.#truncate(event);
      case "conversation.item.retrieved":
        return this.#correct(event.item);
      default:
        return null;
    }
  }

  /** So much of these answers was played: [[id, ms], ...]. */
  played(list) {
    for (const [id, ms] of list) {
      const entry = this.entries.findLast((one) => one.id === id);
      if (entry && entry.state !== "cut") this.#play(entry, ms);
    }
  }

  /** A response that is heard as a stream is under way for `ms`; Infinity: all of it was heard. */
  paced(response, ms) {
    const entry = this.entries.findLast((one) => one.response === response);
    if (!entry || entry.state === "cut") return;
    const guess = entry.text.length * MS_PER_LETTER;
    entry.audioMs = ms === Infinity ? guess : Math.max(guess, ms);
    this.#play(entry, Math.min(ms, entry.audioMs));
  }

  /** Something said in writing, whether or not anybody hears it yet. Returns the entry. */
  typed(text) {
    const entry = this.#make(newId(), "user");
    entry.text = text;
    entry.state = "done";
    this.emit("change", entry);
    return entry;
  }

  /** What was said last, when nothing came back on it: an entry of the user's, or null. */
  get unanswered() {
    const last = this.entries.findLast((entry) => isMessage(entry) && heardOf(entry));
    return last?.role === "user" ? last : null;
  }

  /** A remark of the page's own, such as that the connection was lost. */
  note(text) {
    const entry = this.#make(`note_${this.entries.length}`, "note");
    entry.text = text;
    entry.state = "done";
    this.emit("change", entry);
  }

  /** What a call was answered. */
  answered(callId, output) {
    const entry = this.entries.find((one) => one.callId === callId);
    if (!entry) return;
    entry.output = output;
    this.emit("change", entry);
  }

  /** Nothing more comes and nothing more is played: what is open stays as it is. */
  finish() {
    for (const entry of this.entries) {
      const [heard, rest] = spokenOf(entry);
      if (entry.aloud && entry.state !== "cut" && rest.trim()) {
        Object.assign(entry, { state: "cut", heard: heard.trim() });
      } else if (entry.state === "open") {
        entry.state = "done";
      } else continue;
      this.emit("change", entry);
    }
  }

  /** The entries with words of either side that were heard. */
  get messages() {
    return this.entries.filter((entry) => isMessage(entry) && heardOf(entry));
  }

  #play(entry, ms) {
    if (entry.playedMs === ms) return;
    const [before] = spokenOf(entry);
    entry.playedMs = ms;
    if (spokenOf(entry)[0] !== before) this.emit("change", entry);
  }

  #make(id, role) {
    const entry = { id, role, text: "", state: "open", audioMs: 0, playedMs: 0, heard: null };
    entry.at = new Date().toISOString();
    this.entries.push(entry);
    return entry;
  }

  #entry(id, role) {
    return this.entries.findLast((one) => one.id === id) ?? this.#make(id, role);
  }

  #add(id, role, delta) {
    const entry = this.#entry(id, role);
    if (entry.state === "open") entry.text += delta;
    this.emit("change", entry);
    return null;
  }

  #close(id, role, text) {
    const entry = this.#entry(id, role);
    entry.text = text;
    entry.state = "done";
    this.emit("change", entry);
    return null;
  }

  #item(item, done) {
    if (item.type === "function_call") {
      const entry = this.#entry(item.id, "call");
      Object.assign(entry, { name: item.name, callId: item.call_id, text: item.arguments ?? "" });
      if (done) entry.state = "done";
      this.emit("change", entry);
      return;
    }
    if (item.type !== "message" || item.role === "system") return;
    const entry = this.#entry(item.id, item.role);
    const said = words(item);
    if (said && !entry.text) entry.text = said;
    const typed = item.role === "user" && item.content.every((part) => part.type === "input_text");
    if (entry.state === "open" && ((done && item.role === "assistant") || typed)) {
      entry.state = "done";
    }
    this.emit("change", entry);
  }

  #truncate(event) {
    const entry = this.#entry(event.item_id, "assistant");
    entry.state = "cut";
    entry.playedMs = event.audio_end_ms;
    const share = entry.audioMs ? Math.min(1, event.audio_end_ms / entry.audioMs) : 0;
    entry.heard = wholeWords(entry.text, share);
    this.emit("change", entry);
    if (this.#asked.has(entry.id)) return null;
    this.#asked.add(entry.id);
    return { type: "conversation.item.retrieve", item_id: entry.id };
  }

  /** The server keeps of a cut answer what was heard, to the word. */
  #correct(item) {
    const entry = this.entries.find((one) => one.id === item.id);
    const heard = item.type === "message" ? words(item).trim() : "";
    if (entry?.state === "cut" && (!heard || entry.text.trim().startsWith(heard))) {
      entry.heard = heard;
      this.emit("change", entry);
    }
    return null;
  }
}

/** The part of an entry that was heard. */
export function heardOf(entry) {
  return entry.state === "cut" ? entry.heard : entry.text;
}

/** An entry as an item, for a server that knows nothing of it. */
export function itemOf(entry) {
  const type = entry.role === "user" ? "input_text" : "output_text";
  const content = [{ type, text: heardOf(entry) }];
  return { id: entry.id, type: "message", role: entry.role, content };
}

/** How much of an answer has been spoken by now: [spoken, still to come]. */
export function spokenOf(entry) {
  const { text, aloud, audioMs, playedMs } = entry;
  if (entry.state === "cut") return split(text, entry.heard ?? "");
  if (!aloud) return [text, ""];
  if (!audioMs) return ["", text];
  if (playedMs >= audioMs - SLACK_MS && entry.state === "done") return [text, ""];
  return split(text, wholeWords(text, playedMs / audioMs));
}

/** A conversation as text for a file. */
export function asText(entries) {
  const lines = entries.map((entry) => {
    if (entry.role === "note") return `— ${entry.text}`;
    if (entry.role === "call") return `Tool: ${entry.name}(${entry.text}) = ${entry.output ?? "?"}`;
    const [spoken, unheard] = entry.state === "cut" ? spokenOf(entry) : [entry.text, ""];
    const who = entry.role === "user" ? "You:" : "Answer:";
    const rest = unheard.trim() ? `[unheard: ${unheard.trim()}]` : "";
    return [who, spoken.trim() || (rest ? "" : NOTHING), rest].filter(Boolean).join(" ");
  });
  return `${lines.join("\n")}\n`;
}

function isMessage({ role }) {
  return role === "user" || role === "assistant";
}

function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(10));
  return `item_${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

function words(item) {
  return (item.content ?? []).map((part) => part.transcript ?? part.text ?? "").join("");
}

function split(text, head) {
  const start = text.length - text.trimStart().length;
  const at = start + head.trim().length;
  return [text.slice(0, at), text.slice(at)];
}

function wholeWords(text, share) {
  const at = Math.round(text.length * Math.max(0, Math.min(1, share)));
  if (at >= text.length) return text;
  return text.slice(0, text.lastIndexOf(" ", at) + 1).trimEnd();
}
