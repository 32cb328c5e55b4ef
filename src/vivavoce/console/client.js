/** A spoken conversation with a Realtime server, for any page. docs/client-js.md tells of it. */
import { KeyNeeded, Refused, shortLivedKey } from "./access.js";
import { backoff } from "./backoff.js";
import { Call } from "./call.js";
import { Emitter } from "./emitter.js";
import { endOf, sentenceOf, silenceOf } from "./endings.js";
import { Hearing } from "./hearing.js";
import { NoMicrophone } from "./microphone.js";
import { Remote } from "./remote.js";
import { DEFAULTS, sessionOf } from "./settings.js";
import { Socket } from "./socket.js";
import { bytesOf, encode, Joiner } from "./sound.js";
import { Speaker } from "./speaker.js";
import { Tape } from "./tape.js";
import { Toolbox } from "./toolbox.js";
import { asText, heardOf, itemOf, spokenOf, Transcript } from "./transcript.js";
import { Turns } from "./turns.js";

export { asText, DEFAULTS, heardOf, KeyNeeded, NoMicrophone, Refused, spokenOf };

const OVER = new Set(["session_expired", "session_idle"]); // errors behind which it ends
const PATIENCE_MS = 10_000; // for a greeting: a server that says nothing is as good as none
const SHORTEST_MS = 300; // for which a button is held by somebody who says something

/**
 * Emits what docs/client-js.md lists. The states: "idle", "connecting", "live", "waiting" (for the
 * next attempt, in `seconds`), "ended" (`reason` is "closed", "expired", "refused" or "key").
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
  #hearing = new Hearing();
  #speaker = null;
  #remote = null;
  #pressed = 0;
  #joiner = new Joiner();
  #silenced = new Set(); // responses of which nothing more is played
  #response = null; // the one in progress
  #attempt = 0;
  #timer = 0;
  #expired = "";
  #greeted = false;
  #begun = false; // there was a session before

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
    this.#hearing.open = this.handsFree;
    this.#hearing.on("piece", ({ samples, rms }) => this.#hear(samples, rms));
    this.#hearing.on("gone", () => this.#unplugged());
    this.transcript.on("change", (entry) => this.emit("transcript", entry));
    this.turns.on("change", (turn) => this.emit("turn", turn));
  }

  get handsFree() {
    return this.settings.turns !== "none";
  }

  /** Whether there is a microphone. */
  get hears() {
    return this.#hearing.able;
  }

  /** Begin. Call it from a click. `speech: false` leaves the microphone alone, for typing only. */
  async start({ speech = true } = {}) {
    if (this.state !== "idle") return;
    this.#become("connecting", speech ? "Waiting for the microphone …" : "");
    try {
      this.#speaker = await this.#loudspeaker();
    } catch (problem) {
      this.#end("refused", problem.message);
    }
    if (speech) await this.listen();
    if (this.state === "connecting") await this.#connect();
  }

  /** Use the microphone, where `start` was told not to, or found none. */
  async listen() {
    if (this.state === "ended") return;
    try {
      if (!(await this.#hearing.begin(this.settings.device))) return;
      await this.#wire?.listenTo(this.#hearing.stream);
      this.emit("microphone", true);
    } catch (problem) {
      if (!(problem instanceof NoMicrophone)) throw problem;
      this.emit("problem", problem.message);
    }
  }

  /** Say something in writing. What finds no server is said as soon as there is one. */
  say(text) {
    if (this.state === "ended") return;
    this.interrupt();
    const entry = this.transcript.typed(text);
    if (this.state === "live") this.#ask(entry);
  }

  /** Push to talk: what is said from now on counts. */
  press() {
    if (this.state !== "live" || this.handsFree) return;
    this.interrupt();
    this.send({ type: "input_audio_buffer.clear" });
    this.#pressed = performance.now();
    this.#hearing.open = true;
  }

  /** Push to talk: it was said. */
  release() {
    if (!this.#hearing.open || this.handsFree) return;
    this.#hearing.open = false;
    if (this.state !== "live") return;
    if (performance.now() - this.#pressed < SHORTEST_MS) {
      this.send({ type: "input_audio_buffer.clear" });
      this.emit("problem", "That was too short to be heard: hold the button while you speak.");
      return;
    }
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
    if (this.handsFree) this.#hearing.open = !muted;
  }

  get muted() {
    return this.handsFree && !this.#hearing.open;
  }

  /** Send an event as it is. */
  send(event) {
    if (!this.#wire?.ready) return;
    this.turns.feed(event, true, performance.now());
    this.#pass(event);
  }

  #pass(event) {
    this.#wire.send(event);
    this.emit("event", { event, sent: true, at: performance.now() });
  }

  #ask(entry) {
    this.send({ type: "conversation.item.create", item: itemOf(entry) });
    this.send({ type: "response.create" });
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

  #unplugged() {
    this.#wire?.listenTo(null);
    this.#levels({ mine: 0 });
    this.emit("microphone", false);
    this.emit("problem", "The microphone is gone. Plug it in again, or use another one.");
  }

  async #loudspeaker() {
    const speaker = new Speaker();
    speaker.on("level", (theirs) => this.#remote || this.#levels({ theirs }));
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
    const { model, transport } = this.settings;
    const wire = transport === "webrtc" ? new Call() : new Socket();
    this.#wire = wire;
    wire.on("event", (event) => this.#wire === wire && this.#take(event));
    wire.on("close", (close) => this.#wire === wire && this.#closed(close));
    wire.on("stream", (stream) => this.#overhear(stream));
    this.#timer = setTimeout(() => this.#lost(silenceOf(transport)), PATIENCE_MS);
    try {
      const key = await this.#secret();
      if (this.#wire !== wire) return;
      await wire.open({ base: this.#base, key, model, stream: this.#hearing.stream });
    } catch (problem) {
      if (this.#wire === wire) this.#failed(problem);
    }
  }

  #failed(problem) {
    if (problem instanceof KeyNeeded) this.#end("key", problem.message);
    else if (problem instanceof Refused) this.#end("refused", problem.message);
    else if (problem instanceof TypeError) this.#lost("The server cannot be reached.");
    else this.#lost(problem.message); // it answered, but has no room, for example
  }

  #closed(close) {
    const end = endOf(close, this.#expired);
    if (end) this.#end(end.reason, end.sentence);
    else if (this.#greeted) this.#lost(sentenceOf(close.reason) || "The connection was lost.");
    else this.#lost("The server took no call.");
  }

  /** The network ended it, not the server: come back, later each time. */
  #lost(sentence) {
    clearTimeout(this.#timer);
    const wire = this.#wire;
    this.#wire = null;
    wire?.close();
    this.#silence(false);
    this.#hangUpRemote();
    this.transcript.finish();
    if (!this.handsFree) this.#hearing.open = false;
    const seconds = backoff(this.#attempt++);
    if (this.#greeted) this.transcript.note(`${sentence} What was said is kept.`);
    this.#greeted = false;
    this.#timer = setTimeout(() => this.#connect(), seconds * 1000);
    this.#become("waiting", sentence, seconds);
  }

  #end(reason, sentence) {
    if (this.state === "ended") return;
    clearTimeout(this.#timer);
    const wire = this.#wire;
    this.#wire = null;
    wire?.close();
    if (this.#speaker?.busy || this.#remote?.speaking) this.turns.cut(performance.now());
    this.#hangUpRemote();
    this.tape.cut();
    this.transcript.finish();
    this.#hearing.close();
    this.#speaker?.close();
    this.#levels({ mine: 0, theirs: 0 });
    this.#become("ended", sentence, 0, reason);
  }

  #become(state, sentence = "", seconds = 0, reason = "") {
    this.state = state;
    this.emit("status", { state, sentence, seconds, reason });
  }

  #take(event) {
    const at = performance.now();
    this.turns.feed(event, false, at);
    this.emit("event", { event, sent: false, at });
    this.#remote?.told(event);
    const question = this.transcript.feed(event);
    if (question) this.send(question);
    switch (event.type) {
      case "session.created":
        this.session = event.session;
        return this.#greet();
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
      case "response.done":
        return this.#done(event.response);
      case "error":
        return this.#error(event.error);
    }
    return null;
  }

  #greet() {
    clearTimeout(this.#timer);
    const { messages, unanswered } = this.transcript;
    this.#attempt = 0;
    this.#greeted = true;
    this.send({ type: "session.update", session: sessionOf(this.settings, this.#tools.declared) });
    for (const entry of messages) {
      if (entry === unanswered) continue;
      this.#pass({ type: "conversation.item.create", item: itemOf(entry) }); // its turn is over
    }
    if (this.#begun) this.transcript.note("Connected again.");
    this.#begun = true;
    this.#become("live");
    if (unanswered) this.#ask(unanswered);
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
    const wire = this.#wire;
    if (this.#response === response.id) this.#response = null;
    if (response.status === "failed") {
      this.emit("problem", response.status_details?.error?.message ?? "The answer failed.");
    }
    const answers = await this.#tools.answers(response, (id, output) =>
      this.transcript.answered(id, output),
    );
    if (this.#wire !== wire) return; // the session that asked is no more
    for (const event of answers) this.send(event);
  }

  #error(error) {
    if (OVER.has(error.code)) this.#expired = error.message;
    if (error.code !== "response_cancel_not_active") this.emit("problem", error.message);
  }

  /** Be silent now, and tell the server what was heard. Over WebRTC it knows by itself. */
  async #silence(tell = true) {
    if (this.#response) this.#silenced.add(this.#response);
    if (this.#remote?.speaking && !tell) this.turns.cut(performance.now());
    if (!this.#speaker?.busy) return;
    this.turns.cut(performance.now());
    this.tape.cut();
    for (const [id, ms] of await this.#speaker.stop()) {
      if (!tell) continue;
      const where = { item_id: id, content_index: 0, audio_end_ms: ms };
      this.send({ type: "conversation.item.truncate", ...where });
    }
  }

  #hear(samples, rms) {
    const { open } = this.#hearing;
    this.#levels({ mine: open ? rms : 0 });
    if (!open || this.state !== "live") return;
    this.turns.heard(rms, performance.now());
    this.tape.heard(samples);
    if (this.settings.transport === "webrtc") return;
    this.send({ type: "input_audio_buffer.append", audio: encode(samples) });
  }

  #levels(changed) {
    Object.assign(this.levels, changed);
    this.emit("level", this.levels);
  }

  /** The server's voice on a track. */
  #overhear(stream) {
    this.#hangUpRemote();
    const remote = new Remote(stream);
    this.#remote = remote;
    remote.on("problem", (sentence) => this.emit("problem", sentence));
    remote.on("piece", ({ samples, rms }) => {
      this.#levels({ theirs: rms });
      if (this.state === "live") this.tape.overheard(samples);
    });
    remote.on("paced", ({ response, ms }) => this.transcript.paced(response, ms));
    remote.play();
  }

  #hangUpRemote() {
    this.#remote?.close();
    this.#remote = null;
  }
}
