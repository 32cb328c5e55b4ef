/** What a page sees of the mocked connection, and the data that the events of the mock hold. */

export const WORD_MS = 240; // of sound for each word
const RATE = 24000;
const HERTZ = 200;
const CONNECTING = 0, CLOSING = 2, CLOSED = 3;
export const OPEN = 1;

/** Holds while `wanted` stands in `found`: all fields of objects, everything else is equal. */
export const matches = (found, wanted) =>
  wanted !== null && typeof wanted === "object"
    ? found !== null && typeof found === "object" &&
      Object.entries(wanted).every(([key, value]) => matches(found[key], value))
    : found === wanted;

/** A hum as 16-bit PCM at 24 kHz, in base64. */
const hum = (ms) => {
  const bytes = [];
  for (let n = 0; n < (RATE * ms) / 1000; n += 1) {
    const sample = Math.round(9000 * Math.sin((2 * Math.PI * HERTZ * n) / RATE)) & 0xffff;
    bytes.push(String.fromCharCode(sample & 0xff, sample >> 8));
  }
  return btoa(bytes.join(""));
};
export const WORD_AUDIO = hum(WORD_MS);

/** Settings with a patch on top; arrays are replaced as a whole. */
export const merged = (settings, patch) => {
  const isTable = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
  const result = { ...settings };
  for (const [key, value] of Object.entries(patch)) {
    result[key] = isTable(value) ? merged(isTable(result[key]) ? result[key] : {}, value) : value;
  }
  return result;
};

/** What stands for the WebSocket of one client. */
export class MockSocket extends EventTarget {
  static CONNECTING = CONNECTING;
  static OPEN = OPEN;
  static CLOSING = CLOSING;
  static CLOSED = CLOSED;
  CONNECTING = CONNECTING;
  OPEN = OPEN;
  CLOSING = CLOSING;
  CLOSED = CLOSED;
  binaryType = "blob";
  bufferedAmount = 0;
  extensions = "";
  onopen = null;
  onmessage = null;
  onerror = null;
  onclose = null;

  constructor(server, url, protocols) {
    super();
    this.url = String(url);
    this.protocol = [protocols ?? []].flat()[0] ?? "";
    this.readyState = CONNECTING;
    this.server = server;
    queueMicrotask(() => {
      if (this.readyState !== CONNECTING) return;
      this.readyState = OPEN;
      this.tell("open");
      server.connected(this);
    });
  }

  send(data) {
    if (this.readyState === CONNECTING) throw new Error("the socket is not open yet");
    if (this.readyState === OPEN) this.server.take(this, data);
  }

  close(code = 1000, reason = "") {
    this.shut(code, reason, true);
  }

  /** The connection is over. */
  shut(code, reason, wasClean) {
    if (this.readyState >= CLOSING) return;
    this.readyState = CLOSING;
    queueMicrotask(() => {
      this.readyState = CLOSED;
      if (!wasClean) this.tell("error");
      this.tell("close", { code, reason, wasClean });
    });
  }

  tell(type, fields = {}) {
    const event = Object.assign(
      type === "message" ? new MessageEvent(type, fields) : new Event(type),
      type === "message" ? {} : fields,
    );
    this[`on${type}`]?.(event);
    this.dispatchEvent(event);
  }
}

/** Of a new session, as OpenAI's server sends them. */
export const DEFAULT_SESSION = {
  type: "realtime",
  object: "realtime.session",
  model: "gpt-realtime",
  output_modalities: ["audio"],
  instructions: "",
  tools: [],
  tool_choice: "auto",
  max_output_tokens: "inf",
  tracing: null,
  audio: {
    input: {
      format: { type: "audio/pcm", rate: RATE },
      transcription: null,
      noise_reduction: null,
      turn_detection: {
        type: "server_vad",
        threshold: 0.5,
        prefix_padding_ms: 300,
        silence_duration_ms: 500,
        create_response: true,
        interrupt_response: true,
      },
    },
    output: { format: { type: "audio/pcm", rate: RATE }, voice: "marin", speed: 1 },
  },
};
