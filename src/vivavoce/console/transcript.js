/** What was said, by whom, and how much of it was heard: made from the events alone. */
import { Emitter } from "./emitter.js";
import { bytesOf, RATE } from "./sound.js";

/**
 * An entry: {id, role: "user" | "assistant" | "call" | "note", text, state, audioMs, playedMs,
 * heard, name, output}. `state` is "open", "done" or "cut". Of one that was cut off, `heard` is the part
 * that reached the ear, as far as is known. Emits "change" with the entry.
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
        return this.#close(event.item_id, "user", "(could not be made out)");
      case "response.output_audio_transcript.delta":
      case "response.output_text.delta":
        return this.#add(event.item_id, "assistant", event.delta);
      case "response.output_audio_transcript.done":
      case "response.output_text.done":
        this.#entry(event.item_id, "assistant").text = event.transcript ?? event.text;
        return null;
      case "response.output_audio.delta":
        this.#entry(event.item_id, "assistant").audioMs +=
          (bytesOf(event.delta).length / 2 / RATE) * 1000;
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
      const entry = this.entries.find((one) => one.id === id);
      if (!entry || entry.playedMs === ms || entry.state === "cut") continue;
      entry.playedMs = ms;
      this.emit("change", entry);
    }
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

  /** Nothing more comes: what is open stays as it is. */
  finish() {
    for (const entry of this.entries) {
      if (entry.state !== "open") continue;
      entry.state = "done";
      this.emit("change", entry);
    }
  }

  /** The words of both sides as items, for a server that knows nothing of them. */
  items() {
    return this.entries
      .filter((entry) => (entry.role === "user" || entry.role === "assistant") && heardOf(entry))
      .map((entry) => ({
        id: entry.id,
        type: "message",
        role: entry.role,
        content: [
          { type: entry.role === "user" ? "input_text" : "output_text", text: heardOf(entry) },
        ],
      }));
  }

  #make(id, role) {
    const entry = { id, role, text: "", state: "open", audioMs: 0, playedMs: 0, heard: null };
    entry.at = new Date().toISOString();
    this.entries.push(entry);
    return entry;
  }

  #entry(id, role) {
    return this.entries.find((one) => one.id === id) ?? this.#make(id, role);
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

/** How much of an answer has been spoken by now: [spoken, still to come]. */
export function spokenOf(entry) {
  const { text, audioMs, playedMs } = entry;
  if (entry.state === "cut") return split(text, entry.heard ?? "");
  if (!audioMs || entry.role !== "assistant") return [text, ""];
  if (playedMs >= audioMs - 60 && entry.state === "done") return [text, ""];
  return split(text, wholeWords(text, playedMs / audioMs));
}

/** A conversation as text for a file. */
export function asText(entries) {
  const lines = entries.map((entry) => {
    if (entry.role === "note") return `— ${entry.text}`;
    if (entry.role === "call") return `Tool: ${entry.name}(${entry.text}) = ${entry.output ?? "?"}`;
    const [spoken, unheard] = entry.state === "cut" ? spokenOf(entry) : [entry.text, ""];
    const rest = unheard.trim() ? ` [unheard: ${unheard.trim()}]` : "";
    return `${entry.role === "user" ? "You" : "Answer"}: ${spoken.trim()}${rest}`;
  });
  return `${lines.join("\n")}\n`;
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
