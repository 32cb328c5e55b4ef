/** Settings: links, presets, code, and the session object of a change. */
import assert from "node:assert/strict";
import test from "node:test";
import { SilenceWatch } from "./console/microphone.js";
import { BUILT_IN, fragmentOf, settingsOf, shareable } from "./console/presets.js";
import { KINDS, python } from "./console/snippets.js";
import { changedSettings, DEFAULTS, sessionOf, updateOf } from "./console/state.js";

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
    assert.doesNotMatch(text, /explain/);
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
