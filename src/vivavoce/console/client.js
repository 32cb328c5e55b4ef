/** A spoken conversation with a Realtime server, for any page. docs/client-js.md tells of it. */
import { KeyNeeded, Refused, shortLivedKey } from "./access.js";
import { backoff } from "./backoff.js";
import { Call } from "./call.js";
import { Emitter } from "./emitter.js";
import { Capture, NoMicrophone, openMicrophone } from "./microphone.js";
import { DEFAULTS, sessionOf } from "./settings.js";
import { Socket } from "./socket.js";
import { bytesOf, encode, Joiner } from "./sound.js";
import { Speaker } from "./speaker.js";
import { Tape } from "./tape.js";
import { Toolbox } from "./toolbox.js";
import { asText, heardOf, spokenOf, Transcript } from "./transcript.js";
import { Turns } from "./turns.js";

export { asText, DEFAULTS, heardOf, KeyNeeded, NoMicrophone, Refused, spokenOf };

const PATIENCE_MS = 10_000; // for a greeting: a server that says nothing is as good as none

/**
 * Emits "status" {state, reason, seconds}, "event" {event, sent, at}, "transcript" (an entry),
 * "turn" (a turn), "level" {mine, theirs} and "problem" (a sentence).
 *
 * The states: "idle", "connecting", "live", "waiting" (for the next attempt, in `seconds`),
 * "ended" (`reason` is "closed", "expired", "refused" or "key", and `sentence` says more).
 */
export class Conversation extends Emitter {
  settings;
  state = "idle";
  session = null;
  transcript = new Transcript();
  turns = new Turns();
  tape = new Tape();
  levels = { mine: 0, theirs: 0 };
  #base;
  #key;
  #secret;
  #tools;
  #wire = null;
  #microphone = null;
  #stream = null;
  #speaker = null;
  #remote = null;
  #joiner = new Joiner();
  #silenced = new Set(); // responses of which nothing more is played
  #response = null; // the one in progress
  #open = false; // whether the microphone is sent: always when hands free
  #attempt = 0;
  #timer = 0;
  #expired = "";
  #greeted = false;

  /**
   * options: `url` of the server (where this module comes from, if left out); `key`, or `secret`:
   * a function that resolves to a short-lived key; `tools`; and what DEFAULTS names.
   */
  constructor({ url = import.meta.url, key = "", secret = null, tools = [], ...settings } = {}) {
    super();
    this.#base = new URL("/", url);
    this.#key = key;
    this.#secret = secret ?? (() => shortLivedKey(this.#base, this.#key));
    this.#tools = new Toolbox(tools);
    this.settings = { ...DEFAULTS, ...settings };
    this.#open = this.handsFree;
    this.transcript.on("change", (entry) => this.emit("transcript", entry));
    this.turns.on("change", (turn) => this.emit("turn", turn));
  }

  get handsFree() {
    return this.settings.turns !== "none";
  }

  /** Begin. Call it from a click. `speech: false` leaves the microphone alone, for typing only. */
  async start({ speech = true } = {}) {
    if (this.state !== "idle") return;
    this.#become("connecting");
    try {
      this.#speaker = await this.#loudspeaker();
      if (speech) await this.#listen();
    } catch (problem) {
      if (problem instanceof NoMicrophone) this.emit("problem", problem.message);
      else this.#end("refused", `The browser makes no sound: ${problem.message}.`);
    }
    if (this.state === "connecting") await this.#connect();
  }

  /** Say something in writing. */
  say(text) {
    if (this.state !== "live") return;
    this.interrupt();
    const content = [{ type: "input_text", text }];
    const item = { type: "message", role: "user", content };
    this.send({ type: "conversation.item.create", item });
    this.send({ type: "response.create" });
  }

  /** Push to talk: what is said from now on counts. */
  press() {
    if (this.state !== "live" || this.handsFree) return;
    this.interrupt();
    this.send({ type: "input_audio_buffer.clear" });
    this.#gate(true);
  }

  /** Push to talk: it was said. */
  release() {
    if (!this.#open || this.handsFree) return;
    this.#gate(false);
    if (this.state !== "live") return;
    this.send({ type: "input_audio_buffer.commit" });
    this.send({ type: "response.create" });
  }

  /** Stop the answer: what was not heard is taken out of the conversation. */
  async interrupt() {
    const ongoing = this.#response;
    if (ongoing) this.send({ type: "response.cancel" });
    if (this.#remote && (ongoing || this.levels.theirs > 0)) {
      this.send({ type: "output_audio_buffer.clear" });
    }
    await this.#silence();
  }

  /** Hands free: send nothing of what the microphone hears, or everything again. */
  set muted(muted) {
    if (this.handsFree) this.#gate(!muted);
  }

  /** Send an event as it is. */
  send(event) {
    if (!this.#wire?.ready) return;
    this.#wire.send(event);
    this.#note(event, true);
  }

  /** Leave. The transcript, the turns and the tape stay. */
  stop() {
    this.#end("closed", "");
  }

  /** Do not wait: try to connect now. */
  retry() {
    if (this.state !== "waiting") return;
    clearTimeout(this.#timer);
    this.#connect();
  }

  async #listen() {
    this.#stream = await openMicrophone(this.settings.device);
    if (this.state === "ended") {
      for (const track of this.#stream.getTracks()) track.stop();
      return;
    }
    this.#gate(this.#open);
    this.#microphone = await new Capture(this.#stream).open();
    this.#microphone.on("piece", ({ samples, rms }) => this.#hear(samples, rms));
  }

  async #loudspeaker() {
    const speaker = new Speaker();
    speaker.on("level", (rms) => this.#theirs(rms));
    speaker.on("played", (list) => this.transcript.played(list));
    speaker.on("idle", () => this.turns.silent(performance.now()));
    return speaker.open();
  }

  async #connect() {
    this.#become("connecting");
    this.#greeted = false;
    this.#expired = "";
    this.#response = null;
    this.#joiner = new Joiner();
    const wire = this.settings.transport === "webrtc" ? new Call() : new Socket();
    this.#wire = wire;
    wire.on("event", (event) => this.#wire === wire && this.#take(event));
    wire.on("close", (close) => this.#wire === wire && this.#closed(close));
    wire.on("stream", (stream) => this.#overhear(stream));
    this.#timer = setTimeout(() => this.#lost("The server says nothing."), PATIENCE_MS);
    try {
      const key = await this.#secret();
      if (this.#wire !== wire) return;
      const { model } = this.settings;
      await wire.open({ base: this.#base, key, model, stream: this.#stream });
    } catch (problem) {
      if (this.#wire === wire) this.#failed(problem);
    }
  }

  #failed(problem) {
    if (problem instanceof KeyNeeded) this.#end("key", problem.message);
    else if (problem instanceof Refused) this.#end("refused", problem.message);
    else this.#lost("The server cannot be reached.");
  }

  #closed({ code, reason }) {
    if (this.#expired) return this.#end("expired", this.#expired);
    if (code === 3000) return this.#end("key", "The server does not know this key.");
    if (code === 1000) return this.#end("closed", reason || "The server ended the conversation.");
    if (code === 1008 || code >= 3000) return this.#end("refused", reason || "The server said no.");
    return this.#lost(reason || "The connection was lost.");
  }

  /** The network ended it, not the server: come back, later each time. */
  #lost(sentence) {
    clearTimeout(this.#timer);
    const wire = this.#wire;
    this.#wire = null;
    wire?.close();
    this.#silence(false);
    this.#hangUpRemote();
    const seconds = backoff(this.#attempt++);
    if (this.#greeted) this.transcript.note(`${sentence} What was said is kept.`);
    this.transcript.finish();
    this.#timer = setTimeout(() => this.#connect(), seconds * 1000);
    this.#become("waiting", sentence, seconds);
  }

  #end(reason, sentence) {
    if (this.state === "ended") return;
    clearTimeout(this.#timer);
    const wire = this.#wire;
    this.#wire = null;
    wire?.close();
    this.#hangUpRemote();
    this.tape.cut();
    this.transcript.finish();
    this.#microphone?.close();
    this.#speaker?.close();
    this.levels = { mine: 0, theirs: 0 };
    this.emit("level", this.levels);
    this.#become("ended", sentence, 0, reason);
  }

  #become(state, sentence = "", seconds = 0, reason = "") {
    this.state = state;
    this.emit("status", { state, sentence, seconds, reason });
  }

  #note(event, sent) {
    const at = performance.now();
    this.turns.feed(event, sent, at);
    this.emit("event", { event, sent, at });
  }

  #take(event) {
    this.#note(event, false);
    const question = this.transcript.feed(event);
    if (question) this.send(question);
    switch (event.type) {
      case "session.created":
        return this.#greet(event.session);
      case "session.updated":
        this.session = event.session;
        return null;
      case "input_audio_buffer.speech_started":
        return this.settings.interruptible ? this.#silence() : null;
      case "response.created":
        this.#response = event.response.id;
        return null;
      case "response.output_audio.delta":
        return this.#play(event);
      case "output_audio_buffer.started":
        return this.turns.sounded(event.response_id, performance.now());
      case "output_audio_buffer.stopped":
        return this.turns.silent(performance.now());
      case "output_audio_buffer.cleared":
        return this.turns.cut(performance.now());
      case "response.done":
        return this.#done(event.response);
      case "error":
        return this.#error(event.error);
      default:
        return null;
    }
  }

  #greet(session) {
    clearTimeout(this.#timer);
    this.session = session;
    const returning = this.#attempt > 0 && this.transcript.entries.length > 0;
    this.#attempt = 0;
    this.#greeted = true;
    this.send({ type: "session.update", session: sessionOf(this.settings, this.#tools.declared) });
    if (returning) {
      for (const item of this.transcript.items()) {
        this.send({ type: "conversation.item.create", item });
      }
      this.transcript.note("Connected again.");
    }
    this.#become("live");
  }

  #play(event) {
    if (this.#silenced.has(event.response_id)) return;
    const samples = this.#joiner.join(bytesOf(event.delta));
    if (!samples.length) return;
    this.turns.sounded(event.response_id, performance.now());
    this.tape.queued(samples);
    this.#speaker.play(event.item_id, samples.slice());
  }

  async #done(response) {
    if (this.#response === response.id) this.#response = null;
    if (response.status === "failed") {
      this.emit("problem", response.status_details?.error?.message ?? "The answer failed.");
    }
    const answers = await this.#tools.answers(response, (id, output) =>
      this.transcript.answered(id, output),
    );
    for (const event of answers) this.send(event);
  }

  #error(error) {
    if (error.code === "session_expired") this.#expired = error.message;
    if (error.code !== "response_cancel_not_active") this.emit("problem", error.message);
  }

  /** Be silent now, and tell the server what was heard. Over WebRTC it knows by itself. */
  async #silence(tell = true) {
    if (this.#response) this.#silenced.add(this.#response);
    if (!this.#speaker?.busy) return;
    this.turns.cut(performance.now());
    this.tape.cut();
    for (const [id, ms] of await this.#speaker.stop()) {
      if (!tell) continue;
      const where = { item_id: id, content_index: 0, audio_end_ms: ms };
      this.send({ type: "conversation.item.truncate", ...where });
    }
  }

  #gate(open) {
    this.#open = open;
    for (const track of this.#stream?.getAudioTracks() ?? []) track.enabled = open;
  }

  #hear(samples, rms) {
    this.levels.mine = this.#open ? rms : 0;
    this.emit("level", this.levels);
    if (!this.#open || this.state !== "live") return;
    this.turns.heard(rms, performance.now());
    this.tape.heard(samples);
    if (this.settings.transport === "webrtc") return;
    this.send({ type: "input_audio_buffer.append", audio: encode(samples) });
  }

  #theirs(rms) {
    this.levels.theirs = rms;
    this.emit("level", this.levels);
  }

  /** The server's voice on a track: played by an element, and looked at for level and tape. */
  async #overhear(stream) {
    this.#hangUpRemote();
    const element = new Audio();
    element.srcObject = stream;
    this.#remote = { element, capture: new Capture(stream) };
    this.#remote.capture.on("piece", ({ samples, rms }) => {
      this.#theirs(rms);
      if (this.state === "live") this.tape.overheard(samples);
    });
    await element.play().catch(() => this.emit("problem", "The browser does not play sound yet."));
    await this.#remote?.capture.open();
  }

  #hangUpRemote() {
    if (!this.#remote) return;
    this.#remote.element.srcObject = null;
    this.#remote.capture.close();
    this.#remote = null;
  }
}
