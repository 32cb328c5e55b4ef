/** Settings: links, presets, code, and the session object of a change. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import test from "node:test";
import * as client from "./console/client.js";
import { verdict } from "./console/compare.js";
import { SilenceWatch } from "./console/microphone.js";
import { BUILT_IN, fragmentOf, settingsOf, shareable } from "./console/presets.js";
import { lineAndColumn, parsedSchema, parsedTools, sampleOf } from "./console/schema.js";
import { cellsOf, summaryOf } from "./console/sessions_view.js";
import { KINDS, python } from "./console/snippets.js";
import { changedSettings, DEFAULTS, sessionOf, updateOf } from "./console/state.js";
import { TEMPLATES } from "./console/tools.js";
import { groupsOf, languageName } from "./console/voices.js";

test("link carries what differs from the defaults, in any script", () => {
  const settings = { ...DEFAULTS, instructions: "Говори коротко 🙂", silenceMs: 300, device: "abc" };
  const fragment = fragmentOf(settings);
  assert.match(fragment, /^#s=[\w-]+$/);
  assert.deepEqual(settingsOf(fragment), { ...settings, device: "" });
});

test("damaged or foreign links are ignored", () => {
  const link = (value) => `#s=${btoa(JSON.stringify(value))}`;
  assert.equal(settingsOf(""), null);
  assert.equal(settingsOf("#s=%%%"), null);
  assert.equal(settingsOf("#s=////"), null);
  assert.equal(settingsOf(link(null)), null);
  const found = settingsOf(link({ silenceMs: "500", key: "vv-x", voice: "marin", model: "x".repeat(9000) }));
  assert.deepEqual(found, { ...DEFAULTS, voice: "marin" });
});

test("presets name only settings that there are, and differ from the defaults", () => {
  for (const preset of Object.values(BUILT_IN)) {
    assert.ok(Object.keys(preset).every((name) => name in DEFAULTS));
    assert.ok(shareable({ ...DEFAULTS, ...preset }).instructions);
  }
});

test("code has the settings and tools, and never a key", () => {
  const tools = [{ type: "function", name: "weather", description: "", parameters: { type: "object" } }];
  const settings = { ...DEFAULTS, voice: "cedar", instructions: "It's \"short\".", turns: "none" };
  const options = { settings, tools, base: "http://localhost:8080/", keyed: true };
  for (const [label, code] of KINDS) {
    const text = code(options);
    assert.ok(text.includes("cedar"), label);
    assert.ok(text.includes("localhost:8080"), label);
    assert.doesNotMatch(text, /vv-/);
    if (label !== "JavaScript (client.js)") assert.ok(text.includes("VIVAVOCE_API_KEY"), label);
    if (label !== "Command line") assert.ok(text.includes("weather"), label);
    assert.doesNotMatch(text, /explain|x_usage/);
  }
  const [, command] = KINDS.at(-1);
  assert.ok(command(options).includes("--instructions 'It'\\''s \"short\".'"));
  assert.ok(command({ ...options, keyed: false }).startsWith("vivavoce talk"));
});

test("values are written as Python literals", () => {
  assert.equal(python({ a: null, b: true, c: [false, 1.5], d: {}, e: [] }),
    '{\n    "a": None,\n    "b": True,\n    "c": [\n        False,\n        1.5,\n    ],\n    "d": {},\n    "e": [],\n}');
});

test("change of the settings empties what was emptied", () => {
  const before = { ...DEFAULTS, instructions: "x", noise: "near_field" };
  const update = updateOf(DEFAULTS, before);
  assert.equal(update.instructions, "");
  assert.equal(update.audio.input.noise_reduction, null);
  assert.equal("instructions" in updateOf(DEFAULTS, DEFAULTS), false);
  assert.deepEqual(changedSettings(before, DEFAULTS), ["instructions", "noise"]);
});

test("session without answers transcribes", () => {
  const session = sessionOf({ ...DEFAULTS, answers: false, language: "en" });
  assert.equal(session.type, "transcription");
  assert.equal(session.audio.input.transcription.language, "en");
  assert.equal("interrupt_response" in session.audio.input.turn_detection, false);
  assert.equal(sessionOf({ ...DEFAULTS, answers: false, turns: "none" }).audio.input.turn_detection, null);
});

test("silence of a microphone is noticed once after five seconds", () => {
  const watch = new SilenceWatch();
  watch.restart();
  assert.deepEqual([0, 4999, 5000, 9999].map((at) => watch.add(0, at)), [false, false, true, false]);
  watch.restart();
  assert.equal(watch.add(0.01, 0), false);
  assert.equal(watch.add(0, 6000), false); // it works: a pause is no fault
});

test("types name every export, setting and activity of the client", async () => {
  const types = await readFile(new URL("./console/client.d.ts", import.meta.url), "utf-8");
  for (const name of Object.keys(client)) assert.match(types, new RegExp(`export (class|const|function) ${name}\\b`));
  for (const name of Object.keys(DEFAULTS)) assert.match(types, new RegExp(`^  ${name}: `, "m"));
  for (const name of Object.keys(client.ACTIVITY_WORDS)) assert.ok(types.includes(`"${name}"`), name);
});

test("mistake in a schema is named with its place", () => {
  const mistake = (text) => {
    try {
      return parsedSchema(text) && null;
    } catch ({ message, at }) {
      return [message, at];
    }
  };
  const [syntax, at] = mistake('{\n  "type": "object",\n  x\n}');
  assert.match(syntax, /aren't valid JSON: .* \(line 3, column 3\)\.$/);
  assert.equal(at, 24);
  const unknown = '{"type": "object", "properties": {"a": {"type": "strnig"}}}';
  assert.deepEqual(mistake(unknown), ['JSON Schema has no type "strnig".', unknown.indexOf('"strnig"')]);
  assert.match(mistake('{"type": "object", "required": "a"}')[0], /"required" must be a list of texts/);
  assert.match(mistake('{"type": "object", "properties": {"a": {"enum": []}}}')[0], /"a": "enum" must be/);
  assert.match(mistake('{"type": "object", "properties": {"a": {"pattern": "("}}}')[0], /regular expression/);
  assert.match(mistake('{"type": "object", "properties": {"a": {"anyOf": [{"type": "x"}]}}}')[0], /no type "x"/);
  assert.equal(mistake('{"type": "object", "additionalProperties": false}'), null);
  assert.deepEqual(lineAndColumn("ab\ncd", 4), [2, 2]);
});

test("made-up arguments fit the schema of every template", () => {
  for (const { parameters } of Object.values(TEMPLATES)) {
    assert.deepEqual(Object.keys(sampleOf(parsedSchema(JSON.stringify(parameters)))), parameters.required);
  }
  const schema = { type: "object", properties: { n: { type: "integer", minimum: 3 }, day: { type: "string", format: "date" },
    list: { type: "array", items: { type: "boolean" } }, either: { anyOf: [{ type: "number" }] }, none: {} } };
  assert.deepEqual(sampleOf(schema), { n: 3, day: "2026-01-31", list: [true], either: 1, none: null });
});

test("tools of Realtime sessions and of chat completions are imported", () => {
  const parameters = { type: "object", properties: {} };
  const realtime = { type: "function", name: "a", description: "x", parameters };
  const chat = { type: "function", function: { name: "b" } };
  const names = (text) => parsedTools(text).map(({ name }) => name);
  assert.deepEqual(names(JSON.stringify([realtime, chat])), ["a", "b"]);
  assert.deepEqual(names(JSON.stringify({ tools: [realtime] })), ["a"]);
  assert.throws(() => parsedTools('[{"name": "no name"}]'), /no valid name/);
  assert.throws(() => parsedTools("{"), /valid JSON/);
});

test("voices are grouped by language, OpenAI's names first, and searched", () => {
  const voice = (id, languages, description = "") => ({ id, languages, description });
  const all = [voice("en-gb", ["en-GB"], "female"), voice("marin", []), voice("x", []), voice("bpy", ["bpy"])];
  const groups = groupsOf(all).map(([name, voices]) => [name, voices.length]);
  assert.deepEqual(groups.slice(0, 2), [["OpenAI's names", 1], ["Any language", 1]]);
  assert.deepEqual(groupsOf(all, "FEMALE").map(([name]) => name), ["English (United Kingdom)"]);
  assert.equal(languageName("not a code"), "not a code");
});

test("comparison says which was faster", () => {
  const sounded = (sound) => ({ turn: { marks: { end: 0, sound } } });
  assert.equal(verdict(sounded(500), sounded(710)), "A was 210 ms faster to the first sound.");
  assert.equal(verdict(sounded(500), sounded(400)), "B was 100 ms faster to the first sound.");
  assert.equal(verdict(sounded(500), sounded(500)), "Both were equally fast to the first sound.");
  assert.equal(verdict(sounded(500), { turn: null }), "");
});

test("session of an operator's list is one row", () => {
  const session = { opened_at: 100, state: "hearing", model: "m", voice: "", transport: "webrtc",
    client: "::1", key: "ada", turns: 2, first_sound_ms: 610, last_error: { message: "no STT" } };
  assert.deepEqual(cellsOf(session, 165_000), ["1 m 5 s", "Hearing speech", "m", "–", "webrtc", "::1",
    "ada", "2", "610 ms", "no STT"]);
  assert.deepEqual(cellsOf({ ...session, first_sound_ms: null, last_error: null }, 0).slice(-2), ["–", "–"]);
  assert.equal(summaryOf({ data: [session], max_sessions: 9, cpu: 0.4, failures: 1 }),
    "1 of 9 sessions · CPU 40 % of one core · 1 failure in the last hour");
});
