/** A dialog that shows whether microphone and loudspeaker work, before or in a conversation. */
import { meterLevel, RATE, wav } from "./audio.js";
import { AudioCapture, NoMicrophone, openStream } from "./microphone.js";

const SECONDS = 4;
const SILENT_RMS = 0.003; // quieter than breathing into a microphone

/** parts: elements {dialog, level, record, status}; settings: the SettingsForm. */
export class DeviceCheck {
  #parts;
  #settings;
  #capture = null;
  #pieces = null; // Int16Arrays that are being recorded
  #loudest = 0;
  #playing = null; // Audio

  constructor(parts, settings) {
    this.#parts = parts;
    this.#settings = settings;
    parts.record.addEventListener("click", () => this.#record());
    parts.dialog.addEventListener("close", () => this.#close());
    parts.dialog.addEventListener("input", ({ target }) => {
      if (["device", "echoCancellation"].includes(target.name)) this.#listen();
    });
  }

  async open() {
    this.#parts.dialog.showModal();
    await this.#listen();
    await this.#settings.offerDevices();
  }

  /** Show the level of the microphone that is chosen. */
  async #listen() {
    const { status, record, dialog } = this.#parts;
    this.#release();
    record.disabled = true;
    status.textContent = "Waiting for the microphone …";
    try {
      const stream = await openStream(this.#settings.values);
      const capture = new AudioCapture(stream);
      capture.on("frame", (frame) => this.#onFrame(frame));
      if (!dialog.open) return void capture.close();
      this.#capture = capture;
      await capture.load();
      record.disabled = false;
      status.textContent = "Speak: the bar moves.";
    } catch (error) {
      const known = error instanceof NoMicrophone || error instanceof TypeError;
      if (!known) throw error;
      status.textContent = error instanceof TypeError ? "Can't reach the server." : error.message;
    }
  }

  #onFrame({ samples, rms }) {
    this.#parts.level.value = meterLevel(rms);
    if (!this.#pieces) return;
    this.#pieces.push(samples);
    this.#loudest = Math.max(this.#loudest, rms);
    const length = this.#pieces.reduce((sum, piece) => sum + piece.length, 0);
    if (length >= SECONDS * RATE) this.#playBack();
  }

  #record() {
    this.#playing?.pause();
    this.#pieces = [];
    this.#loudest = 0;
    this.#parts.record.disabled = true;
    this.#parts.status.textContent = `Say something: ${SECONDS} seconds are recorded, here only.`;
  }

  async #playBack() {
    const { record, status } = this.#parts;
    const samples = joined(this.#pieces);
    this.#pieces = null;
    record.disabled = false;
    if (this.#loudest < SILENT_RMS) {
      status.textContent = "We hear nothing. Is it muted in the system? Choose another microphone.";
      return;
    }
    status.textContent = "You hear what was recorded. Nothing? Choose another loudspeaker.";
    const audio = new Audio(URL.createObjectURL(wav([samples])));
    this.#playing = audio;
    audio.addEventListener("ended", () => URL.revokeObjectURL(audio.src));
    await audio.setSinkId?.(this.#settings.values.speaker).catch(() => {});
    await audio.play();
  }

  #release() {
    this.#capture?.close();
    this.#capture = null;
    this.#pieces = null;
    this.#parts.level.value = 0;
  }

  #close() {
    this.#release();
    this.#playing?.pause();
    this.#playing = null;
  }
}

/** One Int16Array of several. */
export function joined(pieces) {
  const whole = new Int16Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}
