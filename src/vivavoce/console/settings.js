/** What a conversation may be told, and how the protocol says it. */

export const DEFAULTS = {
  transport: "websocket",
  model: "",
  voice: "",
  language: "",
  instructions: "",
  turns: "server_vad", // or "semantic_vad", or "none": push to talk
  threshold: 0.5,
  silenceMs: 500,
  paddingMs: 300,
  eagerness: "auto",
  idleMs: 0,
  interruptible: true,
  speaks: true,
  noise: "",
  device: "",
};

/** The session object of these settings; what is left empty stays as the server has it. */
export function sessionOf(settings, tools = []) {
  const { voice, language, instructions, speaks, noise } = settings;
  const transcription = { model: "default", ...(language && { language }) };
  return {
    type: "realtime",
    output_modalities: [speaks ? "audio" : "text"],
    ...(instructions && { instructions }),
    ...(tools.length > 0 && { tools }),
    audio: {
      input: {
        transcription,
        turn_detection: detection(settings),
        ...(noise && { noise_reduction: { type: noise } }),
      },
      ...(voice && { output: { voice } }),
    },
  };
}

function detection(settings) {
  if (settings.turns === "none") return null;
  const common = { type: settings.turns, interrupt_response: settings.interruptible };
  if (settings.turns === "semantic_vad") return { ...common, eagerness: settings.eagerness };
  return {
    ...common,
    threshold: settings.threshold,
    silence_duration_ms: settings.silenceMs,
    prefix_padding_ms: settings.paddingMs,
    ...(settings.idleMs >= 5000 && { idle_timeout_ms: settings.idleMs }),
  };
}
