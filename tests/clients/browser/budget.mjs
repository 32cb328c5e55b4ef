// The npm package `openai` on a session that its budget ends, asked to connect again where it may.
// Prints what happened, as one line of JSON.
import net from "node:net";
import OpenAI from "openai";
import { OpenAIRealtimeWS } from "openai/realtime/ws";

const seen = { again: 0, errors: [] };
const client = new OpenAI({ apiKey: "none", baseURL: `${process.argv[2]}/v1` });
// the package takes every address to be wss
const createConnection = ({ host, port }) => net.connect(port, host);
const options = { model: "far", reconnect: true, reconnectInitialDelay: 10 };
const session = new OpenAIRealtimeWS({ ...options, options: { createConnection } }, client);
session.on("error", (error) => seen.errors.push(error.error?.code ?? null));
session.on("reconnecting", () => seen.again++);
// with `reconnect` this is the last event: a connection that is made again says "reconnecting"
session.on("close", (code) => console.log(JSON.stringify({ ...seen, code })));
