/** Two settings side by side: the same utterance is sent to both, one after the other. */
import { fromBase64, RATE, SampleJoiner, toBase64, wav } from "./audio.js";
import { shortLivedKey, WebSocketConnection } from "./connection.js";
import { joined } from "./device_check.js";
import { sentenceOf, sessionOf } from "./state.js";
import { Turns } from "./turns.js";
import { make } from "./ui.js";
import { waitOf } from "./waits.js";
import { waitBar } from "./waterfall.js";

const FRAME_MS = 40;
const TIMEOUT_MS = 60_000;

/**
 * One turn on a connection of its own, without playback. Resolves to {text, heard, turn, audio:
 * Int16Array, problem}. utterance: {samples} or {text}.
 */
export async function tryOnce({ base, key, settings }, utterance) {
  const turns = new Turns();
  const result = { text: "", heard: utterance.text ?? "", turn: null, audio: new Int16Array(0), problem: "" };
  const connection = new WebSocketConnection();
  const send = (event) => {
    connection.send(event);
    turns.feed(event, true, performance.now());
  };
  try {
    const secret = await shortLivedKey(base, key);
    await new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error("No answer within a minute.")), TIMEOUT_MS);
      const done = () => {
        clearTimeout(timer);
        resolve();
      };
      const pieces = [];
      const joiner = new SampleJoiner();
      connection.on("close", ({ reason }) => {
        result.problem ||= sentenceOf(reason) || "The connection was closed.";
        done();
      });
      connection.on("event", (event) => {
        const at = performance.now();
        turns.feed(event, false, at);
        switch (event.type) {
          case "session.created":
            return send({ type: "session.update", session: sessionOf({ ...settings, turns: "none" }) });
          case "session.updated":
            return void ask(send, utterance).catch(reject);
          case "conversation.item.input_audio_transcription.completed":
            result.heard = event.transcript;
            return undefined;
          case "response.output_audio.delta":
            turns.setPlaying(event.response_id, at);
            return pieces.push(joiner.join(fromBase64(event.delta)));
          case "response.output_audio_transcript.delta":
          case "response.output_text.delta":
            result.text += event.delta;
            return undefined;
          case "error":
            result.problem = sentenceOf(event.error.message);
            return done();
          case "response.done":
            result.audio = joined(pieces);
            result.problem = sentenceOf(event.response.status_details?.error?.message);
            return done();
        }
        return undefined;
      });
      connection.open({ base, key: secret, model: settings.model }).catch(reject);
    });
  } catch (error) {
    result.problem = error instanceof TypeError ? "Can't reach the server." : error.message;
  }
  connection.close();
  result.turn = turns.all[0] ?? null;
  if (result.turn?.marks.sound !== undefined) result.turn.marks.silent = result.turn.marks.sound;
  return result;
}

/** Send the utterance: speech at the pace at which it was spoken, so that recognition can stream. */
async function ask(send, { samples, text }) {
  if (!samples) {
    const content = [{ type: "input_text", text }];
    send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
    send({ type: "response.create" });
    return;
  }
  const size = (RATE * FRAME_MS) / 1000;
  const start = performance.now();
  for (let at = 0; at < samples.length; at += size) {
    send({ type: "input_audio_buffer.append", audio: toBase64(samples.slice(at, at + size)) });
    const due = start + ((at + size) / RATE) * 1000;
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, due - performance.now())));
  }
  send({ type: "input_audio_buffer.commit" });
  send({ type: "response.create" });
}

/** "A was 210 ms faster to the first sound."; "" unless both made a sound. */
export function verdict(a, b) {
  const [first, second] = [a, b].map(({ turn }) => (turn ? waitOf(turn) : undefined));
  if (first === undefined || second === undefined) return "";
  const difference = Math.round(Math.abs(first - second));
  if (!difference) return "Both were equally fast to the first sound.";
  return `${first < second ? "A" : "B"} was ${difference} ms faster to the first sound.`;
}

/** The samples of one speaker of a recording (a wav file of two channels) from a second to another. */
export async function excerpt(file, channel, [from, to]) {
  const samples = new Int16Array(await file.arrayBuffer(), 44); // 44: the header
  const start = Math.max(0, Math.round(from * RATE));
  const length = Math.max(0, Math.min(samples.length / 2, Math.round(to * RATE)) - start);
  return Int16Array.from({ length }, (_, n) => samples[(start + n) * 2 + channel]);
}

/**
 * parts: elements {dialog, form, source, text, run, close, status, results}. options: settings(), the
 * settings A; key(), the API key; spoken(): the last utterance {entry, file} or null.
 */
export class CompareDialog {
  #parts;
  #options;
  #running = false;

  constructor(parts, options) {
    this.#parts = parts;
    this.#options = options;
    parts.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#run();
    });
    parts.close.addEventListener("click", () => parts.dialog.close());
    parts.dialog.addEventListener("close", () => parts.results.replaceChildren());
    parts.source.addEventListener("change", () => this.#update());
    parts.results.addEventListener("play", ({ target }) => {
      for (const audio of parts.results.querySelectorAll("audio")) {
        if (audio !== target) audio.pause(); // never both aloud
      }
    }, true);
  }

  open() {
    const { dialog, source, results, status } = this.#parts;
    const spoken = this.#options.spoken();
    source.value = spoken ? "speech" : "text";
    source.options[0].disabled = !spoken;
    results.replaceChildren();
    status.textContent = "";
    this.#update();
    dialog.showModal();
  }

  #update() {
    const { source, text } = this.#parts;
    text.closest("label").hidden = source.value !== "text";
  }

  async #run() {
    if (this.#running) return;
    const { form, source, text, status, results, run } = this.#parts;
    const settings = this.#options.settings();
    const { model, voice, instructions } = form.elements;
    const other = {
      ...settings, model: model.value.trim() || settings.model,
      voice: voice.value.trim() || settings.voice,
      instructions: instructions.value.trim() || settings.instructions,
    };
    const utterance = await this.#utterance(source.value, text.value.trim());
    if (!utterance) return text.focus();
    this.#running = run.disabled = true;
    const base = new URL("/", location.href);
    const all = [];
    try {
      for (const [name, one] of [["A", settings], ["B", other]]) {
        status.textContent = `${name} answers …`;
        all.push(await tryOnce({ base, key: this.#options.key(), settings: one }, utterance));
      }
    } finally {
      this.#running = run.disabled = false;
    }
    const most = Math.max(500, ...all.map(({ turn }) => (turn && waitOf(turn)) || 0));
    results.replaceChildren(...all.map((one, n) => column("AB"[n], [settings, other][n], one, most)));
    status.textContent = verdict(...all) || "Only answers with sound can be compared.";
  }

  async #utterance(source, text) {
    const spoken = source === "speech" && this.#options.spoken();
    if (!spoken) return text ? { text } : null;
    return { samples: await excerpt(spoken.file, 0, spoken.entry.sound) };
  }
}

function column(name, { model, voice }, { heard, text, turn, audio, problem }, most) {
  const what = [model || "default model", voice || "default voice"].join(", ");
  const section = make("section", { role: "region", "aria-label": name }, make("h3", {}, `${name}: ${what}`));
  const wait = turn && waitOf(turn);
  if (wait !== undefined && wait !== null) {
    section.append(make("p", {}, make("strong", {}, `${Math.round(wait)} ms`), " to first sound"));
    section.append(waitBar(turn, most));
  }
  section.append(make("p", { class: "hint", dir: "auto" }, heard), make("p", { dir: "auto" }, text));
  if (problem) section.append(make("p", { class: "error" }, problem));
  if (audio.length) {
    const player = make("audio", { controls: "", "aria-label": `Answer of ${name}` });
    player.src = URL.createObjectURL(wav([audio]));
    section.append(player);
  }
  return section;
}
