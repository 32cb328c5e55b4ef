// OpenAI's npm SDKs on a session that its budget ends. Prints what happened, as one line of JSON.
import OpenAI from "openai";
import { OpenAIRealtimeWS } from "openai/realtime/ws";
import { OpenAIRealtimeWebSocket } from "@openai/agents-realtime";

const [http, sdk] = process.argv.slice(2);
const seen = { code: null, again: 0, errors: [] };

function done() {
  console.log(JSON.stringify(seen));
  process.exit(0);
}

if (sdk === "openai") {
  const client = new OpenAI({ apiKey: "none", baseURL: `${http}/v1` });
  const options = { model: "far", reconnect: true, reconnectInitialDelay: 10 };
  const session = new OpenAIRealtimeWS(options, client);
  session.on("error", (error) => seen.errors.push(error.error?.code ?? null));
  session.on("reconnecting", () => seen.again++);
  session.on("close", (code) => {
    // with `reconnect` this is the last event: a connection that is made again says "reconnecting"
    seen.code = code;
    done();
  });
} else {
  const transport = new OpenAIRealtimeWebSocket();
  const states = [];
  transport.on("error", ({ error }) => seen.errors.push(error?.error?.code ?? error?.code ?? null));
  transport.on("connection_change", (state) => {
    states.push(state);
    seen.again = states.filter((each) => each === "connecting").length - 1;
    if (state === "disconnected") done();
  });
  const url = `${http.replace("http", "ws")}/v1/realtime?model=far`;
  await transport.connect({ apiKey: "none", url, model: "far" });
}
