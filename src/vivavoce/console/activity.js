/** What a conversation is doing now, derived from its events, its playback and its microphone. */
import { Emitter } from "./state.js";

/** The words that a page shows for each activity. */
export const ACTIVITY_WORDS = {
  off: "Microphone off",
  muted: "Muted",
  ready: "Ready: hold to talk",
  listening: "Listening",
  hearing: "Hearing you",
  thinking: "Thinking",
  tool: "Running a tool",
  speaking: "Speaking",
};

const NO_WORDS = new Set([
  "conversation.item.input_audio_transcription.completed",
  "conversation.item.input_audio_transcription.failed",
]);

/** Emits "change" with the new value, one of the names in ACTIVITY_WORDS. */
export class Activity extends Emitter {
  value = "off";
  answers = true; // false: what is said is transcribed and not answered
  #microphone = "off"; // or "muted", "ready" (push to talk, not pressed), "listening"
  #hearing = false; // the server hears speech, or the button is held
  #waiting = false; // a turn has ended and its answer has not begun
  #playing = false;
  #responses = new Set(); // ids of responses in progress
  #calls = new Set(); // call_ids without a result

  /** Take an event that was sent or received. */
  feed(event, sent) {
    if (sent) this.#onSent(event);
    else this.#onReceived(event);
    this.#update();
  }

  /** Set whether an answer is played. */
  setPlaying(playing) {
    this.#playing = playing;
    this.#update();
  }

  /** microphone: "off", "muted", "ready" or "listening"; held: the push-to-talk button is. */
  setMicrophone(microphone, held = false) {
    this.#microphone = microphone;
    if (held) this.#hearing = true;
    else if (microphone !== "listening") this.#hearing = false;
    this.#update();
  }

  /** The connection is closed: nothing is in progress. */
  reset() {
    this.#hearing = false;
    this.#waiting = false;
    this.#playing = false;
    this.#responses.clear();
    this.#calls.clear();
    this.#update();
  }

  #onSent(event) {
    if (event.type === "input_audio_buffer.commit") this.#hearing = false;
    if (event.type === "response.create") this.#waiting = true;
    if (event.item?.type === "function_call_output") this.#calls.delete(event.item.call_id);
  }

  #onReceived(event) {
    switch (event.type) {
      case "input_audio_buffer.speech_started":
        this.#hearing = true;
        break;
      case "input_audio_buffer.speech_stopped":
        this.#hearing = false;
        this.#waiting = true;
        break;
      case "response.created":
        this.#waiting = false;
        this.#responses.add(event.response.id);
        break;
      case "response.done":
        this.#finish(event.response);
        break;
      case "output_audio_buffer.started":
        this.#playing = true;
        break;
      case "output_audio_buffer.stopped":
      case "output_audio_buffer.cleared":
        this.#playing = false;
        break;
      case "error":
        this.#waiting = false;
        break;
      default:
        // speech without words is not answered
        if (NO_WORDS.has(event.type) && !(event.transcript && this.answers)) this.#waiting = false;
    }
  }

  #finish(response) {
    this.#responses.delete(response.id);
    if (response.status !== "completed") return;
    for (const item of response.output ?? []) {
      if (item.type === "function_call") this.#calls.add(item.call_id);
    }
  }

  #update() {
    const value = this.#current();
    if (value === this.value) return;
    this.value = value;
    this.emit("change", value);
  }

  #current() {
    if (this.#hearing) return "hearing";
    if (this.#playing) return "speaking";
    if (this.#waiting || this.#responses.size) return "thinking";
    if (this.#calls.size) return "tool";
    return this.#microphone;
  }
}
