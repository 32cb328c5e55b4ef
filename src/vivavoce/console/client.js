/** A voice conversation with a Realtime server, for any page. Documented in docs/client-js.md. */
import { Activity, ACTIVITY_WORDS } from "./activity.js";
import { fromBase64, Recording, SampleJoiner, toBase64 } from "./audio.js";
import {
  refusalOf, shortLivedKey, unreachable, WebRtcConnection, WebSocketConnection,
} from "./connection.js";
import { devices, Microphone, NoMicrophone, SilenceWatch } from "./microphone.js";
import { Player, StreamPlayer } from "./playback.js";
import {
  DEFAULTS, Emitter, endOf, KeyNeeded, noReplySentence, Refused, retryDelay, sentenceOf, sessionOf,
  Ticket, ToolCalls, updateOf,
} from "./state.js";
import { asText, heardOf, itemOf, spokenOf, Transcript } from "./transcript.js";
import { Turns } from "./turns.js";

export {
  ACTIVITY_WORDS, asText, DEFAULTS, devices, heardOf, KeyNeeded, NoMicrophone, Refused, spokenOf,
};

const EXPIRY_CODES = new Set(["session_expired", "session_idle"]); // errors that end a session
const CONNECT_TIMEOUT_MS = 10_000; // until session.created
const BEFORE_SPEECH_S = 0.4; // speech is reported so long after it has begun, at most
const MIN_PRESS_MS = 300; // push to talk: shorter presses are not sent

/**
 * Emits what docs/client-js.md lists. States: "idle", "connecting", "live", "waiting" (for the
 * next attempt, in `seconds`), "ended" (`reason` is "closed", "expired", "refused" or "key").
 */
export class Conversation extends Emitter {
  settings;
  state = "idle";
  session = null;
  transcript = new Transcript();
  turns = new Turns();
  tape = new Recording();
  levels = { mine: 0, theirs: 0 };
  #activity = new Activity();
  #silence = new SilenceWatch();
  #base;
  #key;
  #secret;
  #tools;
  #connection = null;
  #microphone = new Microphone();
  #player = new Player();
  #streamPlayer = null;
  #pressedAt = 0;
  #joiner = new SampleJoiner();
  #silenced = new Set(); // ids of responses that are no longer played
  #response = null; // id of the response in progress
  #attempt = 0;
  #timer = 0;
  #expired = ""; // message of the error that ends the session
  #connected = false; // session.created has arrived on this connection
  #resuming = false; // there was a session before
  #ticket = new Ticket();
  #unsent = []; // messages that were typed without a connection

  /**
   * options: `url` of the server (default: where this module comes from); `key`, or `secret`: a
   * function that resolves to a short-lived key; `tools`; and the settings that DEFAULTS lists.
   */
  constructor({ url = import.meta.url, key = "", secret = null, tools = [], ...settings } = {}) {
    super();
    this.#base = new URL("/", url);
    this.#key = key;
    this.#secret = secret ?? (() => shortLivedKey(this.#base, this.#key));
    this.#tools = new ToolCalls(tools);
    this.settings = { ...DEFAULTS, ...settings };
    this.#microphone.enabled = this.handsFree;
    this.#activity.answers = this.settings.answers;
    this.#activity.on("change", (activity) => this.emit("activity", activity));
    this.#microphone.on("frame", ({ samples, rms }) => this.#onInput(samples, rms));
    this.#microphone.on("lost", () => this.#onMicrophoneLost());
    this.#player.on("level", (theirs) => this.#streamPlayer || this.#setLevels({ theirs }));
    this.#player.on("played", (list) => this.transcript.setPlayed(list));
    this.#player.on("busy", () => {
      this.turns.setPlayingOn();
      this.#activity.setPlaying(true);
    });
    this.#player.on("idle", () => {
      this.turns.setSilent(performance.now());
      this.#activity.setPlaying(false);
    });
    this.transcript.on("change", (entry) => this.emit("transcript", entry));
    this.turns.on("change", (turn) => this.emit("turn", turn));
  }

  get handsFree() {
    return this.settings.turns !== "none";
  }

  /** Whether there is a microphone. */
  get hears() {
    return this.#microphone.available;
  }

  /** One of the names in ACTIVITY_WORDS. */
  get activity() {
    return this.#activity.value;
  }

  /** Begin. Call it from a click. `speech: false` does not ask for a microphone: text only. */
  async start({ speech = true } = {}) {
    if (this.state !== "idle") return;
    this.#setState("connecting", speech ? "Waiting for the microphone …" : "");
    try {
      this.#player.open(this.settings.speaker);
    } catch (error) {
      return this.#end("refused", error.message);
    }
    if (speech) await this.listen();
    if (this.state === "connecting") await this.#connect();
  }

  /** Ask for the microphone, later than `start` or again. */
  async listen() {
    if (this.state === "ended") return;
    try {
      if (!(await this.#microphone.open(this.settings))) return;
      if (this.#connection) await this.#microphone.load(); // else #connect loads it
      await this.#connection?.setMicrophone(this.#microphone.stream);
      this.#silence.restart();
      this.#showMicrophone();
      this.emit("microphone", true);
    } catch (error) {
      const noServer = error instanceof TypeError;
      if (!noServer && !(error instanceof NoMicrophone)) throw error;
      this.emit("problem", noServer ? unreachable(this.#base) : error.message);
    }
  }

  /** Use another microphone from now on, "" for the default one. The conversation goes on. */
  async useMicrophone(device) {
    this.settings.device = device;
    this.#microphone.release();
    await this.listen();
  }

  /** Play answers on that loudspeaker, "" for the default one, where the browser can choose. */
  async useSpeaker(speaker) {
    this.settings.speaker = speaker;
    await this.#player.useSpeaker(speaker);
    await this.#streamPlayer?.useSpeaker(speaker);
  }

  /** Change settings of this conversation. Its `model` and `transport` stay. */
  async apply(settings) {
    const { settings: before, handsFree } = this;
    const { model, transport } = before;
    this.settings = { ...before, ...settings, model, transport };
    if (this.handsFree !== handsFree) this.#microphone.enabled = this.handsFree;
    this.#showMicrophone();
    const session = updateOf(this.settings, before, this.#tools.declarations);
    if (this.state === "live") this.send({ type: "session.update", session });
    const { device, echoCancellation, speaker } = this.settings;
    if (speaker !== before.speaker) await this.useSpeaker(speaker);
    const other = device !== before.device || echoCancellation !== before.echoCancellation;
    if (other && this.hears) await this.useMicrophone(device);
  }

  /** Send a text message, and stop the answer. Without a connection it is sent with the next. */
  say(text) {
    if (this.state === "ended") return;
    this.interrupt();
    const entry = this.transcript.addTyped(text);
    if (this.state === "live") this.#sendMessage(entry);
    else this.#unsent.push(entry);
  }

  /** Push to talk: begin to send. */
  press() {
    if (this.state !== "live" || this.handsFree) return;
    this.interrupt();
    this.send({ type: "input_audio_buffer.clear" });
    this.#pressedAt = performance.now();
    this.#microphone.enabled = true;
    this.#activity.setMicrophone("listening", true);
  }

  /** Push to talk: stop sending, and ask for an answer. */
  release() {
    if (!this.#microphone.enabled || this.handsFree) return;
    this.#microphone.enabled = false;
    this.#showMicrophone();
    if (this.state !== "live") return;
    if (performance.now() - this.#pressedAt < MIN_PRESS_MS) {
      this.send({ type: "input_audio_buffer.clear" });
      this.emit("problem", "Too short: hold the button while you speak.");
      return;
    }
    this.send({ type: "input_audio_buffer.commit" });
    this.send({ type: "response.create" });
  }

  /** Stop the answer. What was not played is removed from the conversation. */
  async interrupt() {
    const response = this.#response;
    if (response) this.send({ type: "response.cancel" });
    if (this.#streamPlayer && (response || this.levels.theirs > 0)) {
      this.send({ type: "output_audio_buffer.clear" });
    }
    await this.#stopPlayback();
  }

  /** Hands free: whether the microphone is muted. */
  set muted(muted) {
    if (this.handsFree) this.#microphone.enabled = !muted;
    this.#showMicrophone();
  }

  get muted() {
    return this.handsFree && !this.#microphone.enabled;
  }

  /** Send a client event. Without a connection it is dropped. */
  send(event) {
    if (!this.#connection?.ready) return;
    this.turns.feed(event, true, performance.now());
    this.#sendUncounted(event);
  }

  /** End the conversation. Transcript, turns and recording stay. */
  stop() {
    this.#end("closed", "");
  }

  /** While waiting: try to connect now. */
  retry() {
    if (this.state !== "waiting") return;
    clearTimeout(this.#timer);
    this.#connect();
  }

  /** Send an event that does not begin a turn. */
  #sendUncounted(event) {
    this.#connection.send(event);
    this.#activity.feed(event, true);
    this.emit("event", { event, sent: true, at: performance.now() });
  }

  #sendMessage(entry) {
    this.send({ type: "conversation.item.create", item: itemOf(entry) });
    this.send({ type: "response.create" });
  }

  async #connect() {
    this.#setState("connecting");
    this.#connected = false;
    this.#expired = "";
    this.#response = null;
    this.#joiner = new SampleJoiner();
    const { model, transport } = this.settings;
    const connection =
      transport === "webrtc" ? new WebRtcConnection() : new WebSocketConnection();
    this.#connection = connection;
    const current = () => this.#connection === connection;
    connection.on("event", (event) => current() && this.#onEvent(event));
    connection.on("close", (close) => current() && this.#onClose(close, current));
    connection.on("stream", (stream) => this.#playStream(stream));
    this.#timer = setTimeout(() => this.#onLost(noReplySentence(transport)), CONNECT_TIMEOUT_MS);
    try {
      await Promise.all([this.#player.load(), this.#microphone.load()]);
      const key = await this.#secret();
      if (!current()) return;
      const { stream } = this.#microphone;
      const { answers } = this.settings;
      const serverCounts = transport === "webrtc"; // what was heard
      const resume = this.#ticket.query(serverCounts ? null : this.transcript.lastHeard);
      await connection.open({ base: this.#base, key, model, stream, answers, resume });
    } catch (error) {
      if (current()) this.#onConnectError(error);
    }
  }

  #onConnectError(error) {
    if (error instanceof KeyNeeded) this.#end("key", error.message);
    else if (error instanceof Refused) this.#end("refused", error.message);
    else if (error instanceof TypeError) this.#onLost(unreachable(this.#base));
    else this.#onLost(error.message); // for example a full server
  }

  async #onClose(close, current) {
    const end = endOf(close, this.#expired);
    if (end) return this.#end(end.reason, end.sentence);
    if (this.#connected) return this.#onLost(sentenceOf(close.reason) || "Connection lost.");
    const sentence = sentenceOf(close.reason) || (await refusalOf(this.#base));
    if (current()) this.#onLost(sentence);
  }

  /** The connection failed, and the session can be resumed: connect again after a delay. */
  #onLost(sentence) {
    clearTimeout(this.#timer);
    this.#dropConnection();
    if (this.#ticket.valid) this.#player.pause(); // until it is known what the server has kept
    else this.#breakOff();
    this.#stopStream();
    if (!this.handsFree) this.#microphone.enabled = false;
    const seconds = retryDelay(this.#attempt++);
    if (this.#connected) this.transcript.addNote(`${sentence} The transcript is kept.`);
    this.#connected = false;
    this.#timer = setTimeout(() => this.#connect(), seconds * 1000);
    this.#setState("waiting", sentence, seconds);
  }

  #end(reason, sentence) {
    if (this.state === "ended") return;
    clearTimeout(this.#timer);
    this.#dropConnection();
    if (this.#player.busy || this.#streamPlayer?.playing) this.turns.cut(performance.now());
    this.#stopStream();
    this.tape.cut();
    this.transcript.finish();
    this.#microphone.close();
    this.#player.close();
    this.#setLevels({ mine: 0, theirs: 0 });
    this.#setState("ended", sentence, 0, reason);
  }

  #dropConnection() {
    const connection = this.#connection;
    this.#activity.reset();
    this.#connection = null; // first: its "close" is then ignored
    connection?.close();
  }

  #setState(state, sentence = "", seconds = 0, reason = "") {
    this.state = state;
    this.emit("status", { state, sentence, seconds, reason });
  }

  #onEvent(event) {
    const at = performance.now();
    this.#ticket.feed(event);
    this.turns.feed(event, false, at);
    this.#activity.feed(event, false);
    this.emit("event", { event, sent: false, at });
    this.#streamPlayer?.feed(event);
    const reply = this.transcript.feed(event);
    if (reply) this.send(reply);
    switch (event.type) {
      case "session.created":
        this.session = event.session;
        return this.#onSession(event);
      case "session.updated":
        this.session = event.session;
        return null;
      case "input_audio_buffer.speech_started":
        this.transcript.setSound(event.item_id, this.tape.seconds - BEFORE_SPEECH_S);
        return this.settings.interruptible ? this.#stopPlayback() : null;
      case "input_audio_buffer.speech_stopped":
        this.transcript.setSound(event.item_id, null, this.tape.seconds);
        return null;
      case "response.created":
        this.#response = event.response.id;
        return null;
      case "response.output_audio.delta":
        return this.#play(event);
      case "response.done":
        return this.#onResponseDone(event.response);
      case "error":
        return this.#onError(event.error);
    }
    return null;
  }

  /** Nothing more comes of what was being said. */
  #breakOff() {
    this.#stopPlayback({ truncate: false });
    this.transcript.finish();
  }

  /** Configure a new session, and give it the messages that it does not have. */
  #onSession(event) {
    clearTimeout(this.#timer);
    const { resumed, resume } = event;
    const goesOn = resumed && resume.last_item_id === undefined;
    if (this.#ticket.valid && !goesOn) this.#breakOff();
    this.#player.continue();
    this.#ticket.renew(event);
    const missing = this.transcript.missing(event) ?? this.#unsent;
    const unanswered = missing.findLast((entry) => entry === this.transcript.unanswered);
    this.#unsent = [];
    this.#attempt = 0;
    this.#connected = true;
    const session = sessionOf(this.settings, this.#tools.declarations);
    if (!resumed) this.send({ type: "session.update", session });
    for (const entry of missing) {
      if (entry === unanswered) continue;
      this.#sendUncounted({ type: "conversation.item.create", item: itemOf(entry) });
    }
    if (this.#resuming) this.transcript.addNote("Connected again.");
    this.#resuming = true;
    this.#setState("live");
    if (unanswered) this.#sendMessage(unanswered);
  }

  #play(event) {
    if (this.#silenced.has(event.response_id)) return;
    const samples = this.#joiner.join(fromBase64(event.delta));
    if (!samples.length) return;
    this.turns.setPlaying(event.response_id, performance.now());
    this.transcript.setSound(event.item_id, ...this.tape.addQueued(samples));
    this.#player.play(event.item_id, samples.slice());
    this.#activity.setPlaying(true);
  }

  async #onResponseDone(response) {
    const connection = this.#connection;
    if (this.#response === response.id) this.#response = null;
    const problem = response.status_details?.error; // of a completed answer: it has no audio
    if (response.status === "failed" || problem) {
      this.emit("problem", sentenceOf(problem?.message) || "The answer failed.");
    }
    const events = await this.#tools.run(response, (id, output) =>
      this.transcript.setOutput(id, output),
    );
    if (this.#connection !== connection) return; // the session that called the tools has ended
    for (const event of events) this.send(event);
  }

  #onError(error) {
    if (EXPIRY_CODES.has(error.code)) this.#expired = error.message;
    if (error.code !== "response_cancel_not_active") {
      this.emit("problem", sentenceOf(error.message));
    }
  }

  /** Stop playback, and tell the server how much was played. Over WebRTC the server knows. */
  async #stopPlayback({ truncate = true } = {}) {
    if (this.#response) this.#silenced.add(this.#response);
    if (this.#streamPlayer?.playing && !truncate) this.turns.cut(performance.now());
    if (!this.#player.busy) return;
    this.turns.cut(performance.now());
    this.tape.cut();
    this.transcript.cutSound(this.tape.seconds);
    this.#activity.setPlaying(false);
    for (const [id, ms] of await this.#player.stop()) {
      if (!truncate) continue;
      const position = { item_id: id, content_index: 0, audio_end_ms: ms };
      this.send({ type: "conversation.item.truncate", ...position });
    }
  }

  /** Play the answers of a WebRTC connection. */
  #playStream(stream) {
    this.#stopStream();
    const player = new StreamPlayer(stream);
    this.#streamPlayer = player;
    player.on("problem", (sentence) => this.emit("problem", sentence));
    player.on("frame", ({ samples, rms }) => {
      this.#setLevels({ theirs: rms });
      if (this.state === "live") this.tape.addPlayed(samples);
    });
    player.on("progress", ({ response, ms }) => {
      this.transcript.setProgress(response, ms, this.tape.seconds);
    });
    player.play(this.settings.speaker);
  }

  #stopStream() {
    this.#streamPlayer?.close();
    this.#streamPlayer = null;
  }

  #onInput(samples, rms) {
    const { enabled } = this.#microphone;
    this.#setLevels({ mine: enabled ? rms : 0 });
    if (!enabled || this.state !== "live") return;
    if (this.#silence.add(rms, performance.now())) this.emit("silence", this.#microphone.label);
    this.turns.setInputLevel(rms, performance.now());
    this.tape.addInput(samples);
    if (this.settings.transport === "webrtc") return;
    this.send({ type: "input_audio_buffer.append", audio: toBase64(samples) });
  }

  #onMicrophoneLost() {
    this.#connection?.setMicrophone(null);
    this.#setLevels({ mine: 0 });
    this.#showMicrophone();
    this.emit("microphone", false);
    this.emit("problem", "The microphone was disconnected. Reconnect it, or use another one.");
  }

  #showMicrophone() {
    let microphone = "off";
    if (this.hears && !this.handsFree) microphone = "ready";
    else if (this.hears) microphone = this.muted ? "muted" : "listening";
    this.#activity.setMicrophone(microphone);
  }

  #setLevels(changed) {
    Object.assign(this.levels, changed);
    this.emit("level", this.levels);
  }
}
