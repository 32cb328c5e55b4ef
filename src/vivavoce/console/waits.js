/** How long turns waited for their first sound, and which stage took the time. */

/** The stages of a wait, in order: [name, label]. */
export const STAGES = [
  ["detection", "end-of-speech detection"],
  ["recognition", "speech recognition"],
  ["model", "language model"],
  ["voice", "voice"],
];
const FAST_MS = 800;
const FAIR_MS = 1500;

/** [kind, from, to] of the segments of a turn, in ms of the page's clock. */
export function segmentsOf({ marks, status }, now = performance.now()) {
  const { end, decision = end, transcript, token, sound, done, cut } = marks;
  const failed = status === "failed";
  const segments = [];
  if (decision > end) segments.push(["detection", end, decision]);
  const answered = token ?? done;
  let asked = decision;
  if (transcript > decision && transcript <= (answered ?? Infinity)) {
    segments.push(["recognition", decision, transcript]);
    asked = transcript;
  }
  if (answered !== undefined) {
    segments.push([failed && token === undefined ? "failed" : "model", asked, answered]);
  }
  const playedTo = marks.silent ?? cut ?? now;
  if (sound !== undefined) {
    segments.push(["voice", token ?? sound, sound], ["speaking", sound, playedTo]);
  } else if (done > answered) {
    segments.push([failed ? "failed" : "speaking", answered, done]);
  }
  if (cut !== undefined) segments.push(["cut", cut, cut]);
  return segments;
}

/** Milliseconds from the end of speech to the first sound; undefined without any. */
export function waitOf({ marks }) {
  return marks.end === undefined || marks.sound === undefined ? undefined : marks.sound - marks.end;
}

/** In words, how long a wait is: "fast" to 800 ms, "fair" to 1500 ms, else "slow". */
export function gradeOf(ms) {
  if (ms <= FAST_MS) return "fast";
  return ms <= FAIR_MS ? "fair" : "slow";
}

/** The value that `share` (0 to 1) of the values do not exceed (nearest rank). */
export function quantile(values, share) {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
}

/**
 * {count, waits, median, p95, longest: {stage, label, ms}} of turns with sound; null without any.
 * `longest` is the stage with the largest mean.
 */
export function waitSummary(turns) {
  const heard = turns.filter((turn) => waitOf(turn) !== undefined);
  if (!heard.length) return null;
  const waits = heard.map(waitOf);
  const means = STAGES.map(([stage, label]) => {
    const sum = heard.reduce((total, turn) => total + stageMs(turn, stage), 0);
    return { stage, label, ms: sum / heard.length };
  });
  const longest = means.reduce((most, one) => (one.ms > most.ms ? one : most));
  return {
    count: heard.length, waits, median: quantile(waits, 0.5), p95: quantile(waits, 0.95), longest,
  };
}

/** The setting that shortens a stage, as a sentence. settings: those of the conversation. */
export function adviceFor(stage, settings) {
  switch (stage) {
    case "detection":
      if (settings.turns === "semantic_vad") return "Choose a higher Eagerness.";
      if (settings.turns === "none") return "Release the button sooner.";
      return "Shorten “End of turn after silence”, or choose “Automatic: finished sentence”.";
    case "recognition":
      return "Choose a faster recognizer: stt of the model, in vivavoce.toml.";
    case "model":
      return "Choose a faster language model (llm of the model, in vivavoce.toml), or shorten the instructions.";
    default:
      return "Choose a faster voice engine: tts of the model, in vivavoce.toml.";
  }
}

/** Seconds such as "0.61 s". */
export function seconds(ms) {
  return `${(ms / 1000).toFixed(2)} s`;
}

/** Milliseconds that a turn spent in a stage. */
export function stageMs(turn, stage) {
  const found = segmentsOf(turn, 0).find(([kind]) => kind === stage);
  return found ? found[2] - found[1] : 0;
}
