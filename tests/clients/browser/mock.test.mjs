// The mocked server in Node's own test runner, with the package `openai` as published.
import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import OpenAI from "openai";
import { OpenAIRealtimeWebSocket } from "openai/realtime/websocket";

const { MockRealtime, call } = await import(process.env.TESTING_MODULE);

let server, line, closed;

beforeEach(() => {
  server = new MockRealtime({ timeout: 2000 });
  server.install();
  line = new OpenAIRealtimeWebSocket({ model: "gpt-realtime" }, new OpenAI({ apiKey: "none" }));
  line.on("error", () => {}); // each test looks at the record
  closed = new Promise((done) => line.socket.addEventListener("close", done));
});

afterEach(() => server.restore());

const types = () => server.events.filter(({ sentBy }) => sentBy === "server").map(({ event }) => event.type);

test("a tool call goes to the client and its output comes back", async () => {
  line.on("response.function_call_arguments.done", ({ call_id, arguments: text }) => {
    assert.deepEqual(JSON.parse(text), { city: "Rome" });
    const item = { type: "function_call_output", call_id, output: "21" };
    line.send({ type: "conversation.item.create", item });
  });
  line.on("response.done", ({ response }) => {
    if (response.output[0].type === "function_call") line.send({ type: "response.create" });
  });
  server.answers(call("get_weather", { city: "Rome" }), "It is sunny.");
  await server.userSays("What is the weather?");
  const { item } = await server.received("conversation.item.create", { item: { output: "21" } });
  assert.equal(item.type, "function_call_output");
  await server.sent("response.output_audio_transcript.done", { transcript: "It is sunny." });
});

test("the order of a spoken answer is that of the protocol", async () => {
  server.answers("One two.");
  await server.userSays("Hello?");
  await server.sent("response.done", { response: { status: "completed" } });
  assert.deepEqual(types().slice(types().indexOf("response.created")), [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "response.output_audio_transcript.delta",
    "response.output_audio.delta",
    "response.output_audio_transcript.delta",
    "response.output_audio.delta",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
  ]);
});

test("a text session gets text", async () => {
  await server.sent("session.created");
  line.send({ type: "session.update", session: { type: "realtime", output_modalities: ["text"] } });
  await server.sent("session.updated", { session: { output_modalities: ["text"] } });
  server.answers("Written.");
  line.send({ type: "response.create" });
  await server.sent("response.output_text.done", { text: "Written." });
});

test("a scenario plays barge-in, an error, a malformed frame, and the expiry", async () => {
  const malformed = new Promise((done) => line.on("error", ({ message }) => /JSON|parse/i.test(message) && done()));
  await server.play([
    { user: "Tell me a story." },
    { answer: "Once upon a time there was a fox.", interruptedAfter: "a time", by: "Wait!" },
    { answer: "Yes?" },
    { send: { type: "rate_limits.updated", rate_limits: [] } },
    { error: "The model is overloaded." },
    { malformed: true },
    { expire: true },
  ]);
  const [first, second] = server.events
    .filter(({ event }) => event.type === "response.done")
    .map(({ event }) => event.response);
  assert.deepEqual(first.status_details, { type: "cancelled", reason: "turn_detected" });
  assert.equal(first.output[0].content[0].transcript, "Once upon a time");
  assert.equal(second.status, "completed");
  assert.equal((await closed).code, 1001);
  await malformed;
});

test("a dropped connection is closed with 1006, and a new one gets a session", async () => {
  await server.sent("session.created");
  await server.play([{ drop: true }]);
  assert.equal((await closed).code, 1006);
  const again = new OpenAIRealtimeWebSocket({ model: "other" }, new OpenAI({ apiKey: "none" }));
  again.on("error", () => {});
  await server.sent("session.created", { session: { model: "other" } });
});

test("what does not come is an error that names the last events", async () => {
  server = new MockRealtime({ timeout: 1 });
  await assert.rejects(server.received("response.create"), /response\.create did not come within 1 ms/);
  await assert.rejects(server.play([{ says: "Hello" }]), /step 1 has none of: user, answer/);
});

test("an unknown event and a second response are refused", async () => {
  await server.sent("session.created");
  line.send({ type: "response.create" });
  line.send({ type: "response.create" });
  await server.sent("error", { error: { code: "conversation_already_has_active_response" } });
  line.send({ type: "response.cancel" });
  await server.sent("response.done", { response: { status: "cancelled" } });
  line.socket.send(JSON.stringify({ type: "no.such.event" }));
  await server.sent("error", { error: { code: "invalid_value" } });
});
