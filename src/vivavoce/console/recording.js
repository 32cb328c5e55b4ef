/** Recordings of the server's flight recorder (docs/recorder.md), as conversations that have ended. */
import { conversationOf } from "./archive.js";
import { byteLength, fromBase64, RATE, wav } from "./audio.js";
import { EventLog } from "./timeline.js";
import { Transcript } from "./transcript.js";
import { Turns } from "./turns.js";

const FORMAT = "vivavoce-recording";
const VERSION = 1;
const MAX_BYTES = 512 * 1024 * 1024; // of a file
const SPEECH = 0.5; // a window with at least that probability is speech
const SPEECH_RMS = 0.1; // stands for the level of such a window
const MAX_JITTER_S = 0.2; // pieces of the microphone that come so early or late join
const AUDIO_SIZE = /^\((\d+) bytes\)$/;

/** Opens recordings that the user picks. parts: {button, file}; onOpen(record), onProblem(sentence). */
export function offerRecordings({ button, file }, onOpen, onProblem) {
  button.addEventListener("click", () => file.click());
  file.addEventListener("change", async () => {
    const [chosen] = file.files;
    file.value = "";
    if (!chosen) return;
    try {
      if (chosen.size > MAX_BYTES) throw new Error("it is larger than 512 MB");
      onOpen(recordOf(await chosen.text()));
    } catch (problem) {
      onProblem(`${chosen.name} can't be opened: ${problem.message}.`);
    }
  });
}

/** The record {conversation, events} of a recording. Throws an Error with a sentence. */
export function recordOf(text) {
  const lines = text.split("\n").filter(Boolean);
  const [header, ...entries] = lines.map(parsed);
  if (header?.format !== FORMAT) throw new Error("it is no recording of a call");
  if (!(header.version <= VERSION)) {
    throw new Error(`version ${header.version} of its format is newer than this console`);
  }
  const call = new RecordedCall(header);
  for (const entry of entries) call.take(entry);
  return call.record();
}

function parsed(line, number) {
  try {
    return JSON.parse(line);
  } catch {
    throw new Error(`line ${number + 1} is not JSON`);
  }
}

class RecordedCall {
  #header;
  #session;
  #transcript = new Transcript();
  #turns = new Turns();
  #log = new EventLog([], 0);
  #input = []; // of the microphone: {at, from: seconds of the call and of its audio, samples}
  #heard = 0; // seconds of its audio
  #output = []; // {at: seconds, item, samples}
  #end = 0; // seconds at which all audio of answers is played
  #sounding = false;
  #item = "";
  #response = "";
  #playing = ""; // the response that is played

  constructor(header) {
    this.#header = header;
    this.#session = header.session;
  }

  take(entry) {
    const at = (entry.at - this.#header.now) * 1000;
    this.#playUntil(at);
    if (entry.fact === "VadScores" && Math.max(...entry.fields.speech) >= SPEECH) {
      this.#turns.setInputLevel(SPEECH_RMS, at);
    }
    if (entry.passed) this.#takeFrame(entry.frame, entry.passed === "input", at);
    if (entry.fact) this.#takeFact(entry, at);
    for (const [name, fields] of entry.effects ?? []) this.#takeEffect(name, fields, at);
    if (entry.fact === "AudioGenerated") this.#queue(entry.fields.audio, at);
    for (const one of entry.faults ?? []) {
      this.#transcript.addNote(`${one.kind}: ${one.detail}`, { failure: true });
    }
    if (entry.raised) this.#transcript.addNote(`The session failed: ${entry.raised}`, { failure: true });
  }

  record() {
    this.#playUntil(Infinity);
    const { entries } = this.#transcript;
    this.#transcript.setPlayed(entries.map(({ id, audioMs }) => [id, audioMs]));
    this.#transcript.finish();
    const body = {
      settings: {}, session: this.#session, entries, turns: this.#turns.all, audio: this.#audio(),
    };
    const conversation = conversationOf(body);
    conversation.tape.seconds = this.#end;
    return { conversation, events: this.#log };
  }

  #takeFact({ fact, fields }, at) {
    if (fact === "Received") {
      this.#feed(fields.event, true, at);
      if (fields.event.type === "input_audio_buffer.append") this.#hear(fields.event.audio, at);
    } else if (fact === "AudioArrived") {
      this.#hear(fields.audio, at);
    } else if (fact === "UpstreamEventReceived") {
      const event = parsedFrame(fields.raw);
      if (event?.type === "response.output_audio.delta") this.#deltaQueued(event, at);
    }
  }

  #takeFrame(frame, sent, at) {
    const event = parsedFrame(frame);
    if (!event) return;
    this.#feed(event, sent, at);
    if (sent) this.#hear(event.audio, at);
    else this.#deltaQueued(event, at);
  }

  #takeEffect(name, fields, at) {
    if (name === "Send") this.#feed(fields.event, false, at);
    else if (name === "SendRaw") this.#feed(parsedFrame(fields.data), false, at);
    else if (name === "PlayAudio") {
      this.#sound(fields.item_id, this.#response, at);
      this.#addLength(fields.item_id, fields.audio);
    }
  }

  #feed(event, sent, at) {
    if (!event?.type) return;
    const whole = withAudio(event);
    this.#log.add({ event: whole, sent, at });
    this.#turns.feed(whole, sent, at);
    if (sent) return;
    this.#transcript.feed(whole);
    const [last] = this.#transcript.entries.slice(-1);
    if (last && last.recordedAt === undefined) {
      last.recordedAt = at;
      last.at = new Date(this.#header.began_at * 1000 + at).toISOString();
    }
    if (whole.type === "session.updated") this.#session = whole.session;
    if (whole.type === "response.created") this.#response = whole.response.id;
    if (whole.type === "response.output_audio.delta") {
      this.#sound(whole.item_id, whole.response_id, at);
    }
    if (whole.type === "input_audio_buffer.speech_started") {
      this.#transcript.setSound(whole.item_id, this.#timeOf(whole.audio_start_ms / 1000));
    } else if (whole.type === "input_audio_buffer.speech_stopped") {
      this.#transcript.setSound(whole.item_id, null, this.#timeOf(whole.audio_end_ms / 1000));
    }
    const interrupts = this.#session.audio.input.turn_detection?.interrupt_response !== false;
    if (whole.type === "input_audio_buffer.speech_started" && interrupts) this.#cut(at);
    if (whole.type === "response.done" && whole.response.status === "cancelled") this.#cut(at);
  }

  /** An answer begins to be played, or goes on. */
  #sound(item, response, at) {
    this.#item = item;
    if (!this.#sounding || this.#playing !== response) {
      this.#turns.setPlaying(response, Math.max(at, this.#end * 1000));
    }
    this.#playing = response;
    this.#sounding = true;
  }

  #addLength(item, audio) {
    const entry = this.#transcript.entries.findLast(({ id }) => id === item);
    if (entry) entry.audioMs += (sizeOf(audio) / 2 / RATE) * 1000;
  }

  /** Microphone audio that ends now. G.711, three samples a byte, is not played. */
  #hear(audio, at) {
    const isPcm = this.#session.audio.input.format.type === "audio/pcm";
    const seconds = (sizeOf(audio) * (isPcm ? 0.5 : 3)) / RATE;
    const last = this.#input.at(-1);
    const ends = last ? last.at + this.#heard - last.from : 0;
    const begins = Math.max(0, at / 1000 - seconds);
    const joined = last && Math.abs(begins - ends) < MAX_JITTER_S ? ends : Math.max(begins, ends);
    const samples = isPcm ? samplesOf(audio) : new Int16Array(0);
    this.#input.push({ at: joined, from: this.#heard, samples });
    this.#heard += seconds;
  }

  /** The seconds of the call at which a position in the microphone's audio came, seconds. */
  #timeOf(position) {
    const piece = this.#input.findLast(({ from }) => from <= position);
    return piece ? piece.at + position - piece.from : position;
  }

  #deltaQueued(event, at) {
    this.#item = event.item_id;
    this.#queue(event.delta, at);
  }

  #queue(audio, at) {
    const from = Math.max(at / 1000, this.#end);
    this.#end = from + sizeOf(audio) / 2 / RATE;
    this.#output.push({ at: from, samples: samplesOf(audio) });
    this.#transcript.setSound(this.#item, from, this.#end);
  }

  #playUntil(at) {
    if (!this.#sounding || this.#end * 1000 > at) return;
    this.#turns.setSilent(this.#end * 1000);
    this.#sounding = false;
  }

  #cut(at) {
    if (!this.#sounding) return;
    this.#sounding = false;
    this.#end = Math.min(this.#end, at / 1000);
    this.#turns.cut(at);
    this.#transcript.cutSound(this.#end);
    const entry = this.#transcript.entries.findLast(({ id }) => id === this.#item);
    const heardMs = entry?.sound ? (this.#end - entry.sound[0]) * 1000 : 0;
    if (entry && entry.state !== "cut" && heardMs < entry.audioMs) {
      const type = "conversation.item.truncated"; // as a client that stops its player asks for
      this.#transcript.feed({ type, item_id: entry.id, audio_end_ms: heardMs });
    }
    this.#output = this.#output
      .map(({ at: from, samples }) => {
        const played = Math.max(0, Math.floor((this.#end - from) * RATE));
        return { at: from, samples: samples.subarray(0, played) };
      })
      .filter(({ samples }) => samples.length);
  }

  /** Both tracks as a wav file, left the user; null where the audio was not kept. */
  #audio() {
    if (!this.#header.audio) return null;
    const pieces = [...this.#input, ...this.#output];
    const ends = pieces.map(({ at, samples }) => Math.floor(at * RATE) + samples.length);
    const length = ends.reduce((most, end) => Math.max(most, end), 0);
    const [left, right] = [new Int16Array(length), new Int16Array(length)];
    for (const { at, samples } of this.#input) left.set(samples, Math.floor(at * RATE));
    for (const { at, samples } of this.#output) right.set(samples, Math.floor(at * RATE));
    return wav([left, right]);
  }
}

function parsedFrame(frame) {
  try {
    return JSON.parse(frame);
  } catch {
    return null;
  }
}

/** The samples of base64; none where the recording has only the number of bytes. */
function samplesOf(audio) {
  if (typeof audio !== "string" || AUDIO_SIZE.test(audio)) return new Int16Array(0);
  const bytes = fromBase64(audio);
  return new Int16Array(bytes.buffer, 0, bytes.length >> 1);
}

/** The bytes of audio, kept or not. */
function sizeOf(audio) {
  if (typeof audio === "number") return audio;
  return Number(AUDIO_SIZE.exec(audio)?.[1] ?? byteLength(audio));
}

/** An event whose audio is base64: as much as there was, where it was not kept. */
function withAudio(event) {
  for (const field of ["audio", "delta"]) {
    const value = event[field];
    if (typeof value === "number" || AUDIO_SIZE.test(value)) {
      return { ...event, [field]: "A".repeat(Math.ceil(sizeOf(value) / 3) * 4) };
    }
  }
  return event;
}
