/** Types of client.js, which every Vivavoce server serves at /client.js. */

export type State = "idle" | "connecting" | "live" | "waiting" | "ended";
export type Activity =
  | "off" | "muted" | "ready" | "listening" | "hearing" | "thinking" | "tool" | "speaking";

export interface Settings {
  transport: "websocket" | "webrtc";
  model: string;
  voice: string;
  /** A language tag such as "en"; "" is any. */
  language: string;
  instructions: string;
  turns: "server_vad" | "semantic_vad" | "none";
  threshold: number;
  silenceMs: number;
  paddingMs: number;
  eagerness: "auto" | "low" | "medium" | "high";
  /** 0: never; else at least 5000. */
  idleMs: number;
  interruptible: boolean;
  speaks: boolean;
  noise: "" | "near_field" | "far_field";
  /** The id of a microphone, as devices() lists it. */
  device: string;
  /** The id of a loudspeaker, as devices() lists it. */
  speaker: string;
  echoCancellation: boolean;
  /** false: a transcription session. */
  answers: boolean;
}

export interface ToolCall {
  call_id: string;
  name: string;
  arguments: string;
}

export interface Tool {
  name: string;
  description?: string;
  /** A JSON Schema. */
  parameters?: object;
  run(args: any, call: ToolCall): unknown;
}

export interface Options extends Partial<Settings> {
  url?: string | URL;
  key?: string;
  secret?: () => Promise<string>;
  tools?: Tool[];
}

export interface Entry {
  id: string;
  role: "user" | "assistant" | "call" | "note";
  text: string;
  state: "open" | "done" | "cut";
  /** ISO 8601. */
  at: string;
  aloud?: boolean;
  audioMs: number;
  playedMs: number;
  heard: string | null;
  name?: string;
  callId?: string;
  output?: string;
  failure?: boolean;
  /** [from, to], seconds of the recording. */
  sound?: [number, number];
}

export interface Turn {
  number: number;
  words: string;
  status: string;
  problem?: string;
  /** Times of performance.now(). */
  marks: Partial<Record<
    | "end" | "decision" | "transcript" | "asked" | "token" | "audio" | "sound" | "done" | "silent"
    | "cut",
    number
  >>;
  decision?: { waited_ms: number; reason: string; likelihood?: number };
  responses: string[];
}

export interface Status {
  state: State;
  sentence: string;
  /** Until the next attempt. */
  seconds: number;
  reason: "" | "closed" | "expired" | "refused" | "key";
}

export interface Events {
  status: Status;
  activity: Activity;
  transcript: Entry;
  turn: Turn;
  microphone: boolean;
  /** The name of a microphone that gives no sound. */
  silence: string;
  level: { mine: number; theirs: number };
  event: { event: { type: string; [field: string]: any }; sent: boolean; at: number };
  problem: string;
}

export class Conversation {
  constructor(options?: Options);
  readonly settings: Settings;
  readonly state: State;
  readonly activity: Activity;
  readonly session: any;
  readonly transcript: { entries: Entry[] };
  readonly turns: { all: Turn[] };
  readonly tape: { file(): Blob; readonly seconds: number };
  readonly levels: { mine: number; theirs: number };
  readonly handsFree: boolean;
  readonly hears: boolean;
  muted: boolean;
  on<Name extends keyof Events>(name: Name, listener: (detail: Events[Name]) => void): () => void;
  start(options?: { speech?: boolean }): Promise<void>;
  listen(): Promise<void>;
  say(text: string): void;
  press(): void;
  release(): void;
  interrupt(): Promise<void>;
  apply(settings: Partial<Settings>): Promise<void>;
  useMicrophone(device: string): Promise<void>;
  useSpeaker(speaker: string): Promise<void>;
  send(event: { type: string; [field: string]: any }): void;
  retry(): void;
  stop(): void;
}

export const DEFAULTS: Settings;
export const ACTIVITY_WORDS: Record<Activity, string>;
export class KeyNeeded extends Error {}
export class Refused extends Error {}
export class NoMicrophone extends Error {}
export function asText(entries: Entry[]): string;
export function heardOf(entry: Entry): string;
export function spokenOf(entry: Entry): [string, string];
export function devices(): Promise<{
  microphones: { deviceId: string; label: string }[];
  speakers: { deviceId: string; label: string }[];
}>;
