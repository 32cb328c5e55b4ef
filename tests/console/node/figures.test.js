/** Waits, usage, limits of what is kept, and positions in a recording. */
import assert from "node:assert/strict";
import test from "node:test";
import { bodyOf, conversationOf, overLimits, summaryOf } from "./console/archive.js";
import { entryAt, indexAt, peaksOf, timeAt } from "./console/replay.js";
import { Spending, spendingOf, usageLine } from "./console/spending.js";
import { grouped } from "./console/timeline.js";
import { wordAt } from "./console/transcript_view.js";
import { adviceFor, gradeOf, quantile, segmentsOf, waitOf, waitSummary } from "./console/waits.js";
import { decisionOf, placeOf } from "./console/waterfall.js";

const turn = (marks, status = "completed") => ({ marks, status });
const spoken = (wait, stt = 0) =>
  turn({ end: 0, decision: 500, transcript: 500 + stt, token: 510 + stt, sound: wait, silent: 9000 });

test("wait ends with the first sound", () => {
  assert.equal(waitOf(spoken(607)), 607);
  assert.equal(waitOf(turn({ end: 0, done: 5 })), undefined);
  assert.deepEqual([800, 801, 1500, 1501].map(gradeOf), ["fast", "fair", "fair", "slow"]);
});

test("speech recognition is a segment of its own", () => {
  const kinds = segmentsOf(spoken(3000, 2000), 0).map(([kind, from, to]) => [kind, to - from]);
  assert.deepEqual(kinds.slice(0, 4), [
    ["detection", 500], ["recognition", 2000], ["model", 10], ["voice", 490],
  ]);
});

test("failed answer is marked as failed", () => {
  const [segment] = segmentsOf(turn({ end: 0, done: 24 }, "failed"), 0);
  assert.deepEqual(segment, ["failed", 0, 24]);
});

test("summary has median, 95th percentile and the longest stage", () => {
  assert.equal(waitSummary([turn({ end: 0 })]), null);
  const summary = waitSummary([spoken(610), spoken(630), spoken(3600, 2900)]);
  assert.deepEqual([summary.count, summary.median, summary.p95], [3, 630, 3600]);
  assert.equal(summary.longest.stage, "recognition");
  assert.equal(Math.round(summary.longest.ms), 967);
  assert.equal(quantile([4, 1, 3, 2], 0.5), 2);
});

test("advice names the setting that shortens a stage", () => {
  assert.match(adviceFor("detection", { turns: "server_vad" }), /End of turn after silence/);
  assert.match(adviceFor("detection", { turns: "semantic_vad" }), /Eagerness/);
  assert.match(adviceFor("detection", { turns: "none" }), /button/);
  for (const stage of ["recognition", "model", "voice"]) {
    assert.match(adviceFor(stage, {}), /vivavoce\.toml/);
  }
});

test("scale is linear or logarithmic, and ends at 100 %", () => {
  assert.equal(placeOf(500, 2000, false), 25);
  assert.ok(placeOf(500, 2000, true) > 60);
  assert.deepEqual([placeOf(0, 2000, true), placeOf(9000, 2000, false)], [0, 100]);
});

test("decision says how long was waited, why, and how sure it was", () => {
  assert.equal(decisionOf({ waited_ms: 620, reason: "sentence incomplete" }),
    "waited 620 ms: sentence incomplete");
  assert.equal(decisionOf({ waited_ms: 80, reason: "x", likelihood: 0.914 }), "waited 80 ms: x (91 %)");
});

test("usage line counts turns, seconds, tokens, and money only where all prices are known", () => {
  const done = (id, input, output, more) =>
    ({ type: "response.done", response: { id, usage: { input_tokens: input, output_tokens: output } }, ...more });
  const spending = new Spending();
  assert.equal(spending.feed({ type: "response.created" }), false);
  spending.feed(done("a", 2000, 600, { x_usage: { nano_usd: 9, response_nano_usd: 2_000_000 } }));
  const entries = [
    { role: "user", sound: [0, 250] }, { role: "assistant", sound: [1, 113] }, { role: "note" },
  ];
  const conversation = { turns: { all: [spoken(600)] }, transcript: { entries } };
  assert.equal(usageLine(conversation, spending),
    "1 turn · 4 m 10 s heard · 1 m 52 s spoken · 2,000 in / 600 out tokens · $0.0020");
  spending.feed(done("b", 310, 40, { x_usage: { response_nano_usd: 0 } }));
  assert.equal(spending.sums.nano, null);
  assert.equal(usageLine({ turns: { all: [] }, transcript: { entries } }, spending), "");
  assert.equal(spendingOf([{ sent: false, event: done("a", 1, 2) }]).sums.input, 1);
});

test("archive drops the oldest conversations, and the sound of old ones", () => {
  const many = Array.from({ length: 52 }, (_, id) => ({ id, audioBytes: 0 }));
  assert.deepEqual(overLimits(many).expired.map(({ id }) => id), [0, 1]);
  const heavy = [1, 2, 3].map((id) => ({ id, audioBytes: 90 * 1024 * 1024 }));
  assert.deepEqual(overLimits(heavy).silenced.map(({ id }) => id), [1]);
});

test("body of a conversation is shown like the conversation", () => {
  const entries = [
    { role: "note", text: "x", at: "2026-01-01T00:00:00Z" },
    { role: "user", text: "Hello", at: "2026-01-01T00:01:05Z" },
  ];
  const conversation = {
    settings: { model: "" }, session: null, transcript: { entries },
    turns: { all: [turn({ end: 1, sound: 5, done: 9 })] },
  };
  const events = { lines: [{ at: 1 }], start: 3 };
  const record = { id: "i", begun: "2026-01-01T00:00:00Z", conversation, events };
  const summary = summaryOf(record, 7);
  assert.deepEqual([summary.title, summary.seconds, summary.audioBytes], ["Hello", 65, 7]);
  assert.equal(summaryOf({ ...record, conversation: { ...conversation, transcript: { entries: entries.slice(0, 1) } } }, 0), null);
  const body = bodyOf(record, null);
  assert.equal(body.start, 3);
  const shown = conversationOf(body);
  assert.equal(shown.turns.all[0].marks.silent, 9); // it is not playing any more
  assert.equal(conversation.turns.all[0].marks.silent, undefined);
  assert.deepEqual(shown.transcript.entries, entries);
});

test("position in a recording has an entry and a character, and back", () => {
  const entry = { text: "one two", state: "done", sound: [2, 9] };
  assert.equal(entryAt([entry, { text: "" }], 1), null);
  assert.equal(entryAt([entry], 6), entry);
  assert.equal(indexAt(entry, 6), 4);
  assert.equal(timeAt(entry, 4), 6);
  assert.deepEqual(wordAt(entry.text, 4), [4, 7]);
  assert.deepEqual(wordAt(entry.text, 3), [4, 4 + 3]);
  assert.deepEqual(wordAt("", 3), [0, 0]);
  const cut = { text: "one two three", heard: "one", state: "cut", sound: [0, 3] };
  assert.equal(indexAt(cut, 2), 2);
});

test("peaks are those of one channel", () => {
  const samples = Int16Array.from([0, 100, -16384, 200, 0, 300, 0, 32767]);
  assert.deepEqual(peaksOf(samples, 0, 2), [0.5, 0]);
  assert.ok(peaksOf(samples, 1, 2)[1] > 0.99);
});

test("pieces of one text are one group of events", () => {
  const delta = (item_id, sent = false) => ({ sent, event: { type: "x.delta", item_id, delta: "a" } });
  const other = { sent: false, event: { type: "session.created" } };
  const groups = grouped([delta("1"), delta("1"), delta("2"), other, other, delta("2")]);
  assert.deepEqual(groups.map(({ length }) => length), [2, 1, 1, 1, 1]);
  const last = [delta("1")];
  assert.equal(grouped([delta("1")], last)[0], last);
  assert.equal(last.length, 2);
});
