/**
 * A Realtime server inside a test of a page: a WebSocket class that plays what the test says.
 *
 *   const server = new MockRealtime();
 *   server.install(); // from here on every `new WebSocket()` connects to it
 *   server.answers(call("get_weather", { city: "Rome" }), "In Rome it is sunny.");
 *   await server.userSays("What is the weather in Rome?");
 *
 * The events, their fields and their order are those of the GA Realtime API. It has no dependency,
 * and runs in browsers and in Node 20 and later. See docs/testing.md.
 */

import { DEFAULT_SESSION, MockSocket, OPEN, WORD_AUDIO, WORD_MS, matches, merged } from "./socket.js";

const TIMEOUT_MS = 5000; // for what a test waits for
const MAX_EVENTS = 100_000; // that are kept
const LOST = 1006; // RFC 6455, 7.4.1: a connection that was cut
const EXPIRED = "Your session hit the maximum duration of 60 minutes.";

/** An answer that calls a function. */
export const call = (name, args = {}, callId = "") => ({ call: name, arguments: args, callId });

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** One response that is being given. */
class MockResponse {
  isOver = false;

  constructor(id) {
    this.id = id;
    this.text = "";
    this.output = [];
  }
}

export class MockRealtime {
  /** All events of both sides: { sentBy: "client" | "server", event }. */
  events = [];
  /** Every connection, the newest last. */
  sockets = [];

  #queue = [];
  #waiters = [];
  #response = null;
  #interruption = null;
  #replaced = null;
  #count = 0;
  #session;
  #options;

  /**
   * pace: milliseconds between two words of an answer. session: settings on top of the default
   * ones. timeout: milliseconds for everything that a test waits for.
   */
  constructor({ pace = 0, session = {}, timeout = TIMEOUT_MS } = {}) {
    this.#options = { pace, session, timeout };
    const server = this;
    this.WebSocket = class extends MockSocket {
      constructor(url, protocols) {
        super(server, url, protocols);
      }
    };
  }

  /** Put it in the place of the global WebSocket. */
  install() {
    this.#replaced ??= { WebSocket: globalThis.WebSocket };
    globalThis.WebSocket = this.WebSocket;
  }

  /** Put the former WebSocket back, and cut all connections. */
  restore() {
    if (this.#replaced) globalThis.WebSocket = this.#replaced.WebSocket;
    this.#replaced = null;
    for (const socket of this.sockets) socket.shut(LOST, "", false);
  }

  /** The session object as the client has set it. */
  get session() {
    return this.#session;
  }

  /** What the model answers next: texts, call(…), { fail: message }. */
  answers(...answers) {
    this.#queue.push(...answers);
    this.#wake();
  }

  /** Wait for an event of the client; `fields` have to stand in it. Each is looked at, also old ones. */
  received(type, fields = {}, { after = 0 } = {}) {
    return this.#until(`the client's ${type}`, () =>
      this.events.slice(after).find(({ sentBy, event }) =>
        sentBy === "client" && event.type === type && matches(event, fields))?.event);
  }

  /** Wait for an event of this server, likewise. */
  sent(type, fields = {}, { after = 0 } = {}) {
    return this.#until(`the server's ${type}`, () =>
      this.events.slice(after).find(({ sentBy, event }) =>
        sentBy === "server" && event.type === type && matches(event, fields))?.event);
  }

  /** The user speaks; an answer that is being given ends. Resolves when the answer has begun. */
  async userSays(text) {
    await this.#open();
    const item = this.#id("item");
    const from = this.events.length;
    this.send("input_audio_buffer.speech_started", { audio_start_ms: 0, item_id: item });
    this.#end("cancelled", { type: "cancelled", reason: "turn_detected" });
    const ms = text.split(/\s+/).length * WORD_MS;
    this.send("input_audio_buffer.speech_stopped", { audio_end_ms: ms, item_id: item });
    this.send("input_audio_buffer.committed", { item_id: item, previous_item_id: null });
    const content = [{ type: "input_audio", transcript: null }];
    this.#item({ id: item, type: "message", role: "user", status: "completed", content });
    this.send("conversation.item.input_audio_transcription.completed", {
      item_id: item,
      content_index: 0,
      transcript: text,
      usage: { type: "duration", seconds: ms / 1000 },
    });
    const detection = this.#session.audio.input.turn_detection;
    if (detection && detection.create_response !== false) {
      this.#respond();
      await this.sent("response.created", {}, { after: from });
    }
  }

  /** The user speaks as soon as an answer has said these words. Call it before the answer. */
  interruptsAfter(words, text = "Stop.") {
    return new Promise((resolve, reject) => {
      this.#interruption = { words, begin: () => this.userSays(text).then(resolve, reject) };
    });
  }

  /** Any event of the server. */
  send(type, fields = {}) {
    const event = { event_id: this.#id("event"), type, ...fields };
    this.#keep("server", event);
    this.#newest?.tell("message", { data: JSON.stringify(event) });
    this.#wake();
    return event;
  }

  /** Any text frame; without an argument one that is no JSON. */
  malformed(text = '{"type": "response.created", "respon') {
    this.#newest?.tell("message", { data: text });
  }

  /** An error of the server; the session goes on. */
  error(message, fields = {}) {
    const error = { type: "server_error", code: null, param: null, event_id: null, message };
    this.send("error", { error: { ...error, ...fields } });
  }

  /** The session has lasted for too long. */
  expire() {
    this.error(EXPIRED, { type: "invalid_request_error", code: "session_expired" });
    this.close(1001, EXPIRED);
  }

  close(code = 1011, reason = "") {
    this.#newest?.shut(code, reason, true);
    this.#stop();
  }

  /** Cut the connection without a closing handshake. */
  drop() {
    this.#newest?.shut(LOST, "", false);
    this.#stop();
  }

  /**
   * Play a scenario, an array that may come from a JSON file; see docs/testing.md. Each step has one
   * of: user, answer (with interruptedAfter, by), call (with arguments), fail, expect, send, error,
   * malformed, pause, close, drop, expire.
   */
  async play(steps) {
    let after = this.events.length;
    for (const [place, step] of steps.entries()) {
      const kind = Object.keys(STEPS).find((name) => name in step);
      if (!kind) {
        throw new Error(`step ${place + 1} has none of: ${Object.keys(STEPS).join(", ")}`);
      }
      const begun = this.events.length;
      await STEPS[kind](this, step, after);
      if (kind !== "expect") after = begun;
    }
  }

  /** Give an answer, and wait until its response is over. */
  async answered(answer) {
    const from = this.events.length;
    this.answers(answer);
    return (await this.sent("response.done", {}, { after: from })).response;
  }

  // --- called by MockSocket

  connected(socket) {
    this.sockets.push(socket);
    this.#session = merged(DEFAULT_SESSION, {
      id: this.#id("sess"),
      model: new URL(socket.url).searchParams.get("model") ?? "gpt-realtime",
      ...this.#options.session,
    });
    this.send("session.created", { session: this.#session });
  }

  take(socket, data) {
    let event;
    try {
      event = JSON.parse(data);
    } catch {
      this.error("The frame is not JSON.", { type: "invalid_request_error" });
      return;
    }
    this.#keep("client", event);
    const handle = HANDLERS[event.type];
    if (handle) {
      handle(this, event);
    } else {
      const about = { type: "invalid_request_error", code: "invalid_value", param: "type" };
      this.error(`Unknown event type ${event.type}.`, { ...about, event_id: event.event_id });
    }
    this.#wake();
  }

  update(patch) {
    this.#session = merged(this.#session, patch);
    this.send("session.updated", { session: this.#session });
  }

  create(event) {
    this.#item({ id: this.#id("item"), status: "completed", ...event.item });
  }

  commit() {
    const item = this.#id("item");
    this.send("input_audio_buffer.committed", { item_id: item, previous_item_id: null });
    const content = [{ type: "input_audio", transcript: null }];
    this.#item({ id: item, type: "message", role: "user", status: "completed", content });
  }

  respond() {
    if (this.#response) {
      const about = { type: "invalid_request_error", code: "conversation_already_has_active_response" };
      this.error("Conversation already has an active response.", about);
    } else {
      this.#respond();
    }
  }

  cancel() {
    this.#end("cancelled", { type: "cancelled", reason: "client_cancelled" });
  }

  // --- responses

  async #respond() {
    const response = (this.#response = new MockResponse(this.#id("resp")));
    this.send("response.created", { response: this.#body(response, "in_progress") });
    let answer;
    try {
      await this.#until("an answer: call answers()", () => this.#queue.length || response.isOver);
      if (response.isOver) return;
      answer = this.#queue.shift();
    } catch (problem) {
      answer = { fail: problem.message };
    }
    if (typeof answer === "string") {
      await this.#speak(response, answer);
    } else if (answer.fail) {
      const error = { type: "server_error", code: null, message: answer.fail };
      this.#end("failed", { type: "failed", error });
    } else {
      this.#call(response, answer);
    }
    if (!response.isOver) this.#end("completed", null);
  }

  async #speak(response, text) {
    const spoken = this.#session.output_modalities[0] === "audio";
    const [kind, field] = spoken ? ["output_audio", "transcript"] : ["output_text", "text"];
    const item = { id: this.#id("item"), type: "message", role: "assistant", content: [] };
    const at = { response_id: response.id, item_id: item.id, output_index: 0, content_index: 0 };
    this.#begin(response, item);
    const part = { type: spoken ? "audio" : "text", [field]: "" };
    this.send("response.content_part.added", { ...at, part });
    response.open = { item, at, kind, field };
    for (const word of text.match(/\s*\S+/g) ?? []) {
      const type = spoken ? "output_audio_transcript" : "output_text";
      response.text += word;
      this.send(`response.${type}.delta`, { ...at, delta: word });
      if (spoken) this.send("response.output_audio.delta", { ...at, delta: WORD_AUDIO });
      const interruption = this.#interruption;
      if (interruption && response.text.includes(interruption.words)) {
        this.#interruption = null;
        interruption.begin();
      }
      if (response.isOver) return;
      await pause(this.#options.pace);
      if (response.isOver) return;
    }
  }

  #call(response, { call: name, arguments: args, callId }) {
    const call_id = callId || this.#id("call");
    const item = { id: this.#id("item"), type: "function_call", name, call_id, arguments: "" };
    const whole = typeof args === "string" ? args : JSON.stringify(args ?? {});
    const at = { response_id: response.id, item_id: item.id, output_index: 0, call_id };
    this.#begin(response, item);
    for (let from = 0; from < whole.length; from += 16) {
      const delta = whole.slice(from, from + 16);
      this.send("response.function_call_arguments.delta", { ...at, delta });
    }
    this.send("response.function_call_arguments.done", { ...at, name, arguments: whole });
    this.#finish(response, { ...item, arguments: whole, status: "completed" });
  }

  #begin(response, item) {
    const started = { ...item, object: "realtime.item", status: "in_progress" };
    const about = { response_id: response.id, output_index: 0 };
    this.send("response.output_item.added", { ...about, item: started });
    this.send("conversation.item.added", { previous_item_id: null, item: started });
  }

  #finish(response, item) {
    const whole = { ...item, object: "realtime.item" };
    response.output.push(whole);
    this.send("conversation.item.done", { previous_item_id: null, item: whole });
    this.send("response.output_item.done", { response_id: response.id, output_index: 0, item: whole });
  }

  /** End the response that is being given, if there is one. */
  #end(status, details) {
    const response = this.#response;
    if (!response) return;
    this.#response = null;
    response.isOver = true;
    if (response.open) {
      const { item, at, kind, field } = response.open;
      const text = response.text;
      if (kind === "output_audio") {
        this.send("response.output_audio.done", at);
        this.send("response.output_audio_transcript.done", { ...at, transcript: text });
      } else {
        this.send("response.output_text.done", { ...at, text });
      }
      const type = kind === "output_audio" ? "audio" : "text";
      this.send("response.content_part.done", { ...at, part: { type, [field]: text } });
      const content = [{ type: kind, [field]: text }];
      const state = status === "completed" ? "completed" : "incomplete";
      this.#finish(response, { ...item, status: state, content });
    }
    this.send("response.done", { response: this.#body(response, status, details) });
    this.#wake();
  }

  /** The connection is over: what was under way sends nothing more. */
  #stop() {
    if (this.#response) this.#response.isOver = true;
    this.#response = null;
    this.#wake();
  }

  #body(response, status, details = null) {
    const words = response.text.split(/\s+/).filter(Boolean).length;
    const usage = status === "in_progress" ? null : {
      total_tokens: words,
      input_tokens: 0,
      output_tokens: words,
      input_token_details: { text_tokens: 0, audio_tokens: 0, cached_tokens: 0 },
      output_token_details: { text_tokens: words, audio_tokens: 0 },
    };
    return {
      object: "realtime.response",
      id: response.id,
      status,
      status_details: details,
      output: response.output,
      output_modalities: this.#session.output_modalities,
      conversation_id: "conv_mock",
      usage,
      metadata: null,
    };
  }

  #item(item) {
    const whole = { object: "realtime.item", ...item };
    this.send("conversation.item.added", { previous_item_id: null, item: whole });
    this.send("conversation.item.done", { previous_item_id: null, item: whole });
  }

  // --- waiting

  get #newest() {
    return this.sockets.at(-1);
  }

  #id(kind) {
    this.#count += 1;
    return `${kind}_mock${this.#count}`;
  }

  #keep(sentBy, event) {
    if (this.events.length < MAX_EVENTS) this.events.push({ sentBy, event });
  }

  #open() {
    return this.#until("a connection", () => this.#newest?.readyState === OPEN);
  }

  #wake() {
    for (const look of [...this.#waiters]) look();
  }

  /** The first true value of `find`, which is asked again whenever something happens. */
  #until(what, find) {
    const found = find();
    if (found) return Promise.resolve(found);
    return new Promise((resolve, reject) => {
      const stop = () => {
        clearTimeout(timer);
        this.#waiters = this.#waiters.filter((each) => each !== look);
      };
      const look = () => {
        const value = find();
        if (!value) return;
        stop();
        resolve(value);
      };
      const timer = setTimeout(() => {
        stop();
        const last = this.events.slice(-8).map(({ event }) => event.type).join(", ") || "none";
        reject(new Error(
          `${what} did not come within ${this.#options.timeout} ms; the last events: ${last}`,
        ));
      }, this.#options.timeout);
      this.#waiters.push(look);
    });
  }
}

const HANDLERS = {
  "session.update": (server, { session }) => server.update(session),
  "conversation.item.create": (server, event) => server.create(event),
  "conversation.item.delete": (server, { item_id }) =>
    server.send("conversation.item.deleted", { item_id }),
  "conversation.item.truncate": (server, { item_id, content_index, audio_end_ms }) =>
    server.send("conversation.item.truncated", { item_id, content_index, audio_end_ms }),
  "input_audio_buffer.append": () => {},
  "input_audio_buffer.commit": (server) => server.commit(),
  "input_audio_buffer.clear": (server) => server.send("input_audio_buffer.cleared"),
  "response.create": (server) => server.respond(),
  "response.cancel": (server) => server.cancel(),
};

const STEPS = {
  user: (server, { user }) => server.userSays(user),
  answer: async (server, { answer, interruptedAfter, by }) => {
    const interrupted = interruptedAfter && server.interruptsAfter(interruptedAfter, by);
    await server.answered(answer);
    await interrupted;
  },
  call: (server, step) => server.answered(call(step.call, step.arguments, step.callId)),
  fail: (server, { fail }) => server.answered({ fail }),
  expect: (server, { expect }, after) => {
    const { type, ...fields } = typeof expect === "string" ? { type: expect } : expect;
    return server.received(type, fields, { after });
  },
  send: (server, { send: { type, ...fields } }) => server.send(type, fields),
  error: (server, { error }) => server.error(error),
  malformed: (server, { malformed }) =>
    server.malformed(typeof malformed === "string" ? malformed : undefined),
  pause: (_server, { pause: ms }) => pause(ms),
  close: (server, { close, reason }) => server.close(close, reason),
  drop: (server) => server.drop(),
  expire: (server) => server.expire(),
};
