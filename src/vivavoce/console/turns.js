/** The times of each turn, in ms of the page's clock (performance.now()). */
import { Emitter } from "./state.js";

const MIN_SPEECH_RMS = 0.005;
const SPEECH_SHARE = 0.1; // of the turn's loudest frame: quieter frames are not speech

/**
 * A turn: {number, words, status, problem, decision, marks, item, begun,
 * responses}. The marks are `end` (of speech, or the
 * sending of typed text), `decision`, `transcript`, `asked`, `token`, `audio`, `sound`, `done`,
 * `silent`, `cut`. Emits "change" with the turn.
 */
export class Turns extends Emitter {
  all = [];
  #byResponse = new Map();
  #loudest = 0;
  #lastSpeech = 0; // time of the last frame that was loud enough for speech

  /** Take the level of a microphone frame. */
  setInputLevel(rms, at) {
    if (rms > this.#loudest) this.#loudest = rms;
    if (rms >= MIN_SPEECH_RMS && rms >= this.#loudest * SPEECH_SHARE) this.#lastSpeech = at;
  }

  /** Take an event that was sent or received at that time. */
  feed(event, sent, at) {
    if (sent) this.#onSent(event, at);
    else this.#onReceived(event, at);
  }

  /** Audio of a response is played. */
  setPlaying(response, at) {
    this.#mark(this.#byResponse.get(response), "sound", at);
  }

  /** The playback queue has run empty. */
  setSilent(at) {
    const turn = this.#lastPlayed();
    if (!turn) return;
    if (turn.marks.cut === undefined) turn.marks.silent = at;
    this.emit("change", turn);
  }

  /** Playback goes on: the queue had run empty in the middle of an answer. */
  setPlayingOn() {
    const turn = this.#lastPlayed();
    if (turn?.marks.silent === undefined) return;
    delete turn.marks.silent;
    this.emit("change", turn);
  }

  /** Playback was interrupted. */
  cut(at) {
    const turn = this.#lastPlayed();
    if (!turn) return;
    delete turn.marks.silent; // the queue had run empty for a moment, and playback went on
    this.#mark(turn, "cut", at);
  }

  #onSent(event, at) {
    if (event.type === "conversation.item.create" && event.item.role === "user") {
      const turn = this.#add(at);
      turn.words = event.item.content[0].text ?? "";
      this.#mark(turn, "end", at);
    } else if (event.type === "input_audio_buffer.clear") {
      this.#loudest = 0; // audio before it belongs to no turn
      this.#lastSpeech = 0;
    } else if (event.type === "input_audio_buffer.commit") {
      this.#decide(this.#add(at), at);
    }
  }

  #onReceived(event, at) {
    const turn = this.#byResponse.get(event.response_id) ?? this.all.at(-1);
    switch (event.type) {
      case "input_audio_buffer.speech_started":
        this.#loudest = 0;
        this.#add(at).item = event.item_id;
        break;
      case "input_audio_buffer.speech_stopped":
        if (turn) turn.decision = event.decision;
        this.#decide(turn, at);
        break;
      case "input_audio_buffer.committed":
        if (turn && !turn.item) turn.item = event.item_id;
        break;
      case "conversation.item.input_audio_transcription.completed":
        this.#setTranscript(event, at);
        break;
      case "response.created":
        this.#begin(event.response, at);
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
        this.setPlaying(event.response_id, at);
        break;
      case "output_audio_buffer.stopped":
        this.setSilent(at);
        break;
      case "output_audio_buffer.cleared":
        this.cut(at);
        break;
      case "response.done":
        this.#finish(event.response, at);
    }
  }

  #add(at) {
    const number = this.all.length + 1;
    const turn = { number, words: "", status: "", marks: {}, item: null };
    Object.assign(turn, { begun: at, responses: [] });
    this.all.push(turn);
    this.emit("change", turn);
    return turn;
  }

  #lastPlayed() {
    return this.all.findLast(({ marks }) => marks.sound !== undefined);
  }

  #decide(turn, at) {
    if (!turn) return;
    turn.marks.end ??= Math.min(this.#lastSpeech || at, at);
    this.#mark(turn, "decision", at);
  }

  #setTranscript(event, at) {
    const turn = this.all.find((one) => one.item === event.item_id);
    if (!turn) return;
    turn.words = event.transcript;
    this.#mark(turn, "transcript", at);
  }

  #begin(response, at) {
    const turn = this.all.at(-1) ?? this.#add(at);
    this.#byResponse.set(response.id, turn);
    turn.responses.push(response.id);
    this.#mark(turn, "end", at);
    this.#mark(turn, "asked", at);
  }

  #finish(response, at) {
    const turn = this.#byResponse.get(response.id);
    if (!turn) return;
    turn.status = response.status;
    turn.problem = response.status_details?.error?.message ?? "";
    turn.marks.done = at;
    this.emit("change", turn);
  }

  /** Set a mark once: a second response in a turn follows a tool call. */
  #mark(turn, name, at) {
    if (!turn || turn.marks[name] !== undefined) return;
    turn.marks[name] = at;
    this.emit("change", turn);
  }
}
