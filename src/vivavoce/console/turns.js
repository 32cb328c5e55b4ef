/** Where the time went: for each turn, when what happened, in milliseconds of the page's clock. */
import { Emitter } from "./emitter.js";

const LOUD = 0.1; // of the turn's loudest piece: what is below it is not speech any more

/**
 * A turn: {number, words, status, marks}. The marks are `end` (of speech, or the sending of what
 * was typed), `decision`, `transcript`, `token`, `sound`, `done`, `silent`, `cut`. Emits "change".
 */
export class Turns extends Emitter {
  all = [];
  #ofResponse = new Map();
  #loudest = 0;
  #lastLoud = 0;

  /** The microphone was so loud at that time. */
  heard(rms, at) {
    if (rms > this.#loudest) this.#loudest = rms;
    if (rms >= 0.005 && rms >= this.#loudest * LOUD) this.#lastLoud = at;
  }

  /** An event of either direction, when it passed. */
  feed(event, sent, at) {
    if (sent) this.#sent(event, at);
    else this.#came(event, at);
  }

  /** Sound of a response is on its way to the ear. */
  sounded(response, at) {
    this.#mark(this.#ofResponse.get(response), "sound", at);
  }

  /** Nothing is played any more. */
  silent(at) {
    const turn = this.all.findLast((one) => one.marks.sound !== undefined);
    if (turn && turn.marks.cut === undefined) turn.marks.silent = at;
    if (turn) this.emit("change", turn);
  }

  /** What was being said was cut off. */
  cut(at) {
    const turn = this.all.findLast((one) => one.marks.sound !== undefined);
    if (!turn) return;
    delete turn.marks.silent; // the player had run dry for a moment, and went on
    this.#mark(turn, "cut", at);
  }

  #sent(event, at) {
    if (event.type === "conversation.item.create" && event.item.role === "user") {
      const turn = this.#open();
      turn.words = event.item.content[0].text ?? "";
      this.#mark(turn, "end", at);
    } else if (event.type === "input_audio_buffer.clear") {
      this.#loudest = 0; // what was loud before it belongs to no turn to come
      this.#lastLoud = 0;
    } else if (event.type === "input_audio_buffer.commit") {
      this.#decided(this.#open(), at);
    }
  }

  #came(event, at) {
    const turn = this.#ofResponse.get(event.response_id) ?? this.#latest();
    switch (event.type) {
      case "input_audio_buffer.speech_started":
        this.#loudest = 0;
        this.#open().item = event.item_id;
        break;
      case "input_audio_buffer.speech_stopped":
        this.#decided(turn, at);
        break;
      case "input_audio_buffer.committed":
        if (turn && !turn.item) turn.item = event.item_id;
        break;
      case "conversation.item.input_audio_transcription.completed":
        this.#transcribed(event, at);
        break;
      case "response.created":
        this.#begun(event.response, at);
        break;
      case "response.output_item.added":
      case "response.output_audio_transcript.delta":
      case "response.output_text.delta":
      case "response.function_call_arguments.delta":
        this.#mark(turn, "token", at);
        break;
      case "response.output_audio.delta":
        this.#mark(turn, "audio", at);
        break;
      case "output_audio_buffer.started":
        this.sounded(event.response_id, at);
        break;
      case "output_audio_buffer.stopped":
        this.silent(at);
        break;
      case "output_audio_buffer.cleared":
        this.cut(at);
        break;
      case "response.done":
        this.#done(event.response, at);
    }
  }

  #open() {
    const turn = { number: this.all.length + 1, words: "", status: "", marks: {}, item: null };
    this.all.push(turn);
    this.emit("change", turn);
    return turn;
  }

  #latest() {
    return this.all.at(-1);
  }

  #decided(turn, at) {
    if (!turn) return;
    if (turn.marks.end === undefined) turn.marks.end = Math.min(this.#lastLoud || at, at);
    this.#mark(turn, "decision", at);
  }

  #transcribed(event, at) {
    const turn = this.all.find((one) => one.item === event.item_id);
    if (!turn) return;
    turn.words = event.transcript;
    this.#mark(turn, "transcript", at);
  }

  #begun(response, at) {
    const turn = this.#latest() ?? this.#open();
    this.#ofResponse.set(response.id, turn);
    if (turn.marks.end === undefined) this.#mark(turn, "end", at);
    this.#mark(turn, "asked", at);
  }

  #done(response, at) {
    const turn = this.#ofResponse.get(response.id);
    if (!turn) return;
    turn.status = response.status;
    turn.problem = response.status_details?.error?.message ?? "";
    turn.marks.done = at;
    this.emit("change", turn);
  }

  /** Only the first of its kind counts: a second response in a turn follows a tool's answer. */
  #mark(turn, name, at) {
    if (!turn || turn.marks[name] !== undefined) return;
    turn.marks[name] = at;
    this.emit("change", turn);
  }
}
