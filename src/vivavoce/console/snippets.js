/** The present settings as code for other programs. The key itself is in none of it. */
import { DEFAULTS, changedSettings, sessionOf } from "./state.js";
import { copyText, make } from "./ui.js";

const OF_THE_PAGE = new Set(["device", "speaker", "answers"]);

/** The kinds of code: [label, function of {settings, tools, base, keyed}]. */
export const KINDS = [
  ["Python", pythonCode],
  ["JavaScript (client.js)", clientCode],
  ["JavaScript (openai)", openaiCode],
  ["curl", curlCode],
  ["Command line", talkCommand],
];

/** A session object as other clients write it: without what only this page asks for. */
function plainSession(settings, tools) {
  const { include: _, ...session } = sessionOf(settings, tools);
  const detection = session.audio.input.turn_detection;
  if (detection) delete detection.explain;
  return session;
}

function pythonCode({ settings, tools, base, keyed }) {
  const session = python(plainSession(settings, tools), 8);
  const key = keyed ? 'os.environ["VIVAVOCE_API_KEY"]' : '"none"';
  return `import asyncio
import base64
${keyed ? "import os\n" : ""}
from openai import AsyncOpenAI


async def main() -> None:
    client = AsyncOpenAI(base_url="${base}v1", api_key=${key})
    async with client.realtime.connect(model=${JSON.stringify(settings.model || "default")}) as connection:
        await connection.session.update(session=${session})
        await connection.conversation.item.create(
            item={
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "Hello!"}],
            }
        )
        await connection.response.create()
        audio = bytearray()
        async for event in connection:
            if event.type == "response.output_audio.delta":
                audio += base64.b64decode(event.delta)
            elif event.type == "response.output_audio_transcript.delta":
                print(event.delta, end="", flush=True)
            elif event.type == "response.done":
                break
    with open("answer.pcm", "wb") as file:  # 24 kHz, 16 bit, mono
        file.write(audio)


asyncio.run(main())
`;
}

function clientCode({ settings, tools, base, keyed }) {
  const names = changedSettings(settings, DEFAULTS).filter((name) => !OF_THE_PAGE.has(name));
  const lines = names.map((name) => `  ${name}: ${JSON.stringify(settings[name])},`);
  const key = keyed
    ? "  // a short-lived key from your own server, which keeps the API key:\n"
      + '  secret: async () => (await fetch("/my-key")).text(),\n'
    : "";
  const declared = tools.length
    ? `  tools: [\n${tools.map((tool) => `    {\n      name: ${JSON.stringify(tool.name)},\n`
      + `      description: ${JSON.stringify(tool.description)},\n`
      + `      parameters: ${JSON.stringify(tool.parameters)},\n`
      + "      run: async (args) => ({ result: args }),\n    },\n").join("")}  ],\n`
    : "";
  return `import { Conversation } from "${base}client.js";

const conversation = new Conversation({
${lines.length ? `${lines.join("\n")}\n` : ""}${key}${declared}});
conversation.on("transcript", (entry) => console.log(entry.role, entry.text));
conversation.on("activity", (activity) => console.log(activity));
conversation.on("problem", (sentence) => console.error(sentence));
document.querySelector("button").onclick = () => conversation.start();
`;
}

function openaiCode({ settings, tools, base, keyed }) {
  const session = JSON.stringify(plainSession(settings, tools), null, 2).replaceAll("\n", "\n    ");
  const key = keyed ? "process.env.VIVAVOCE_API_KEY" : '"none"';
  return `import OpenAI from "openai";
import { OpenAIRealtimeWS } from "openai/realtime/ws";

const client = new OpenAI({ baseURL: "${base}v1", apiKey: ${key} });
const realtime = new OpenAIRealtimeWS({ model: ${JSON.stringify(settings.model || "default")} }, client);

realtime.socket.on("open", () => {
  realtime.send({
    type: "session.update",
    session: ${session},
  });
  realtime.send({
    type: "conversation.item.create",
    item: { type: "message", role: "user", content: [{ type: "input_text", text: "Hello!" }] },
  });
  realtime.send({ type: "response.create" });
});
realtime.on("response.output_audio_transcript.delta", ({ delta }) => process.stdout.write(delta));
realtime.on("response.done", () => realtime.close());
`;
}

function curlCode({ settings, tools, base, keyed }) {
  const body = { session: plainSession(settings, tools) };
  if (settings.model) body.session.model = settings.model;
  const text = JSON.stringify(body, null, 2).replaceAll("'", "'\\''");
  const header = keyed ? ' \\\n  -H "Authorization: Bearer $VIVAVOCE_API_KEY"' : "";
  return `# A short-lived key that opens sessions with these settings
curl ${base}v1/realtime/client_secrets${header} \\
  -H "Content-Type: application/json" \\
  -d '${text}'
`;
}

function talkCommand({ settings, base, keyed }) {
  const options = [
    ["url", `${base}v1`], ["model", settings.model], ["voice", settings.voice],
    ["instructions", settings.instructions], ["text", "Hello!"],
  ];
  const words = options
    .filter(([, value]) => value)
    .map(([name, value]) => ` \\\n  --${name} ${shellWord(value)}`);
  const key = keyed ? 'OPENAI_API_KEY="$VIVAVOCE_API_KEY" ' : "";
  return `${key}vivavoce talk${words.join("")}\n`;
}

function shellWord(text) {
  return /^[\w.:/-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** A JSON value as a Python literal, indented. */
export function python(value, indent = 0) {
  const inner = " ".repeat(indent + 4);
  const end = `\n${" ".repeat(indent)}`;
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) {
    if (!value.length) return "[]";
    return `[${value.map((one) => `\n${inner}${python(one, indent + 4)},`).join("")}${end}]`;
  }
  if (typeof value !== "object") return JSON.stringify(value);
  const pairs = Object.entries(value);
  if (!pairs.length) return "{}";
  const lines = pairs.map(
    ([key, one]) => `\n${inner}${JSON.stringify(key)}: ${python(one, indent + 4)},`,
  );
  return `{${lines.join("")}${end}}`;
}

/** A dialog that shows the code. parts: elements {dialog, kind, code, copy}. */
export class CodeDialog {
  #parts;
  #options = null;

  constructor(parts) {
    this.#parts = parts;
    const { kind, copy, code } = parts;
    kind.replaceChildren(...KINDS.map(([label], n) => make("option", { value: n }, label)));
    kind.addEventListener("change", () => this.#show());
    copy.addEventListener("click", () => copyText(code.textContent, copy));
  }

  /** options: {settings, tools, base, keyed}. */
  open(options) {
    this.#options = options;
    this.#show();
    this.#parts.dialog.showModal();
  }

  #show() {
    const [, code] = KINDS[this.#parts.kind.value || 0];
    this.#parts.code.textContent = code(this.#options);
  }
}
