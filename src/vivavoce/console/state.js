/**
 * The state of a conversation without network, audio or page: settings, connection states,
 * tool calls, and the emitter that reports changes.
 *
 * Connection states: "idle" -> "connecting" -> "live" -> "ended"; a lost connection leads from
 * "connecting" or "live" to "waiting", and from there back to "connecting".
 */

/** Base class of everything that emits named events. */
export class Emitter {
  #listeners = new Map();

  /** Call `listener` with the detail of each event `name`. Returns a function that removes it. */
  on(name, listener) {
    if (!this.#listeners.has(name)) this.#listeners.set(name, new Set());
    this.#listeners.get(name).add(listener);
    return () => this.#listeners.get(name).delete(listener);
  }

  emit(name, detail) {
    for (const listener of this.#listeners.get(name) ?? []) listener(detail);
  }
}

/** The server requires an API key, or a different one. */
export class KeyNeeded extends Error {}

/** The server refused the request; repeating it unchanged does not help. */
export class Refused extends Error {}

// Settings

export const DEFAULTS = {
  transport: "websocket",
  model: "",
  voice: "",
  language: "",
  instructions: "",
  turns: "server_vad", // or "semantic_vad", or "none" for push to talk
  threshold: 0.5,
  silenceMs: 500,
  paddingMs: 300,
  eagerness: "auto",
  idleMs: 0,
  interruptible: true,
  speaks: true,
  noise: "",
  device: "", // id of a microphone
  speaker: "", // id of a loudspeaker
  echoCancellation: true,
  answers: true, // false: a transcription session
};
export const MIN_IDLE_MS = 5000; // smallest idle_timeout_ms of the protocol

/** The Realtime session object of these settings. Empty settings are left out: server defaults. */
export function sessionOf(settings, tools = []) {
  const { voice, language, instructions, speaks, noise } = settings;
  const transcription = { model: "default", ...(language && { language }) };
  if (!settings.answers) {
    const { interrupt_response: _, ...detection } = turnDetection(settings) ?? {};
    const turn_detection = settings.turns === "none" ? null : detection;
    return { type: "transcription", audio: { input: { transcription, turn_detection } } };
  }
  return {
    type: "realtime",
    output_modalities: [speaks ? "audio" : "text"],
    include: ["x_usage"], // what the conversation has used, after each answer
    ...(instructions && { instructions }),
    ...(tools.length > 0 && { tools }),
    audio: {
      input: {
        transcription,
        turn_detection: turnDetection(settings),
        ...(noise && { noise_reduction: { type: noise } }),
      },
      ...(voice && { output: { voice } }),
    },
  };
}

/** The session object that changes a session from the settings `before` to `settings`. */
export function updateOf(settings, before, tools = []) {
  const session = sessionOf(settings, tools);
  if (before.instructions && !settings.instructions) session.instructions = "";
  if (before.noise && !settings.noise) session.audio.input.noise_reduction = null;
  return session;
}

/** The names of the settings in which two differ. */
export function changedSettings(one, other) {
  return Object.keys(DEFAULTS).filter((name) => one[name] !== other[name]);
}

function turnDetection(settings) {
  if (settings.turns === "none") return null;
  const common = {
    type: settings.turns,
    interrupt_response: settings.interruptible,
    explain: true, // why a turn was ended, for the timeline
  };
  if (settings.turns === "semantic_vad") return { ...common, eagerness: settings.eagerness };
  return {
    ...common,
    threshold: settings.threshold,
    silence_duration_ms: settings.silenceMs,
    prefix_padding_ms: settings.paddingMs,
    ...(settings.idleMs >= MIN_IDLE_MS && { idle_timeout_ms: settings.idleMs }),
  };
}

/** A sentence for the model and for the voice, where the server replaced the requested one. */
export function substitutions(settings, session) {
  const used = session.served_by ?? {}; // the session object repeats the requested names
  return ["model", "voice"]
    .filter((kind) => settings[kind] && used[kind] && settings[kind] !== used[kind])
    .map((kind) => {
      const label = kind[0].toUpperCase() + kind.slice(1);
      return `${label} “${settings[kind]}” isn't available. Using “${used[kind]}”.`;
    });
}

// Closed connections

/**
 * What a closed WebSocket or call means: {reason, sentence} if the session has ended, null if the
 * connection was lost and can be restored. `expired`: the message of an error that ends a session.
 * 1000 and 1008 are of RFC 6455, 7.4.1; 3000 is OpenAI's close code for a wrong key.
 */
export function endOf({ code, reason }, expired) {
  if (expired) return { reason: "expired", sentence: expired };
  if (code === 3000) return { reason: "key", sentence: "The server did not accept this key." };
  const sentence = sentenceOf(reason);
  if (code === 1000) {
    return { reason: "closed", sentence: sentence || "The server ended the conversation." };
  }
  if (code === 1008 || code > 3000) {
    return { reason: "refused", sentence: sentence || "The server refused the connection." };
  }
  return null;
}

/** The sentence for a connection on which no session.created arrived in time. */
export function noReplySentence(transport) {
  if (transport !== "webrtc") return "No reply from the server.";
  return "No reply from the server over WebRTC. Some networks block WebRTC; try WebSocket.";
}

/** A message with a capital letter and a full stop. */
export function sentenceOf(text) {
  if (!text) return "";
  return text[0].toUpperCase() + text.slice(1) + (/[.!?…]$/.test(text) ? "" : ".");
}

const FIRST_DELAY_S = 1;
const MAX_DELAY_S = 30;

/**
 * Seconds before connection attempt number `attempt` (from 0): 1 doubling to 30, of which the
 * second half is random, so that clients of a restarted server do not return at the same time.
 */
export function retryDelay(attempt, random = Math.random) {
  const delay = Math.min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** attempt);
  return delay * (0.5 + random() / 2);
}

/** What the server needs to continue the session on another connection. */
export class Ticket {
  #token = null; // {session_id, resume_token}
  #lastEvent = ""; // id of the last event of the session

  /** Whether the server keeps the session. */
  get valid() {
    return this.#token !== null;
  }

  /** Note an event of the server. */
  feed({ event_id: id }) {
    this.#lastEvent = id ?? this.#lastEvent;
  }

  /** Take what a session.created says. */
  renew({ session, resume }) {
    this.#token = resume ? { session_id: session.id, resume_token: resume.token } : null;
  }

  /**
   * The parameters of a connection, none for a new session. heard: the entry of the transcript that
   * was heard last, where the server does not count what is played.
   */
  query(heard) {
    if (!this.valid) return {};
    return {
      ...this.#token,
      last_event_id: this.#lastEvent,
      ...(heard && { heard_item: heard.id, heard_ms: Math.round(heard.playedMs) }),
    };
  }
}

// Tool calls

/** The tools of a conversation: [{name, description, parameters, run}]; run(args) may be async. */
export class ToolCalls {
  #tools;
  #taken = new Set(); // call_ids that were run

  constructor(tools = []) {
    this.#tools = tools;
  }

  /** The `tools` of the session object. */
  get declarations() {
    return this.#tools.map(({ name, description = "", parameters }) => ({
      type: "function",
      name,
      description,
      parameters: parameters ?? { type: "object", properties: {} },
    }));
  }

  /**
   * Run the function calls of a finished response, each once. Resolves to the events to send, []
   * without calls. `onOutput` is called with (call_id, output) when one has returned.
   */
  async run(response, onOutput) {
    if (response.status !== "completed") return [];
    const calls = (response.output ?? []).filter(
      (item) => item.type === "function_call" && !this.#taken.has(item.call_id),
    );
    if (!calls.length) return [];
    for (const call of calls) this.#taken.add(call.call_id);
    const events = await Promise.all(calls.map((call) => this.#run(call, onOutput)));
    return [...events, { type: "response.create" }];
  }

  async #run(call, onOutput) {
    const output = await this.#output(call);
    onOutput(call.call_id, output);
    return {
      type: "conversation.item.create",
      item: { type: "function_call_output", call_id: call.call_id, output },
    };
  }

  /** The result as text. An exception becomes {"error": message}, for the model to read. */
  async #output(call) {
    const tool = this.#tools.find(({ name }) => name === call.name);
    try {
      if (!tool?.run) throw new Error(`there is no tool ${call.name}`);
      const result = await tool.run(JSON.parse(call.arguments || "{}"), call);
      return typeof result === "string" ? result : JSON.stringify(result ?? null);
    } catch (error) {
      return JSON.stringify({ error: error.message });
    }
  }
}
