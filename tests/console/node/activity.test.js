/** The word for what a conversation is doing. */
import assert from "node:assert/strict";
import test from "node:test";
import { Activity, ACTIVITY_WORDS } from "./console/activity.js";
import { stateText, stateWord } from "./console/status_line.js";

/** An activity, and the values that it has had. */
function watched(microphone = "listening") {
  const activity = new Activity();
  const values = [];
  activity.on("change", (value) => values.push(value));
  activity.setMicrophone(microphone);
  return { activity, values, received: (type, fields) => activity.feed({ type, ...fields }, false) };
}

const response = (status, output = []) => ({ response: { id: "r", status, output } });

test("spoken turn passes hearing, thinking and speaking", () => {
  const { activity, values, received } = watched();
  received("input_audio_buffer.speech_started");
  received("input_audio_buffer.speech_stopped");
  received("response.created", response("in_progress"));
  activity.setPlaying(true);
  received("response.done", response("completed"));
  assert.equal(activity.value, "speaking"); // sound that was received is still played
  activity.setPlaying(false);
  assert.deepEqual(values, ["listening", "hearing", "thinking", "speaking", "listening"]);
});

test("speech during an answer is hearing at once", () => {
  const { activity, received } = watched();
  received("response.created", response("in_progress"));
  activity.setPlaying(true);
  received("input_audio_buffer.speech_started");
  assert.equal(activity.value, "hearing");
});

test("speech without words is not thought about", () => {
  for (const type of ["completed", "failed"]) {
    const { activity, received } = watched();
    received("input_audio_buffer.speech_stopped");
    assert.equal(activity.value, "thinking");
    received(`conversation.item.input_audio_transcription.${type}`, { transcript: "" });
    assert.equal(activity.value, "listening");
  }
});

test("words that were recognized leave the wait as it is", () => {
  const { activity, received } = watched();
  received("input_audio_buffer.speech_stopped");
  received("conversation.item.input_audio_transcription.completed", { transcript: "yes" });
  assert.equal(activity.value, "thinking");
});

test("transcription session does not wait for an answer", () => {
  const { activity, received } = watched();
  activity.answers = false;
  received("input_audio_buffer.speech_stopped");
  received("conversation.item.input_audio_transcription.completed", { transcript: "yes" });
  assert.equal(activity.value, "listening");
});

test("tool call without a result is shown, until the result is sent", () => {
  const { activity, received } = watched("off");
  const call = { type: "function_call", call_id: "c" };
  received("response.created", response("in_progress"));
  received("response.done", response("completed", [call]));
  assert.equal(activity.value, "tool");
  activity.feed({ item: { type: "function_call_output", call_id: "c" } }, true);
  assert.equal(activity.value, "off");
  activity.feed({ type: "response.create" }, true);
  assert.equal(activity.value, "thinking");
});

test("answer that was cancelled or failed ends the thinking", () => {
  for (const status of ["cancelled", "failed"]) {
    const { activity, received } = watched("muted");
    received("response.created", response("in_progress"));
    received("response.done", response(status, [{ type: "function_call", call_id: "c" }]));
    assert.equal(activity.value, "muted");
  }
});

test("error ends the wait for an answer", () => {
  const { activity, received } = watched();
  activity.feed({ type: "response.create" }, true);
  received("error", { error: {} });
  assert.equal(activity.value, "listening");
});

test("call plays between started and stopped or cleared", () => {
  for (const end of ["stopped", "cleared"]) {
    const { activity, received } = watched();
    received("output_audio_buffer.started");
    assert.equal(activity.value, "speaking");
    received(`output_audio_buffer.${end}`);
    assert.equal(activity.value, "listening");
  }
});

test("push to talk hears while the button is held", () => {
  const { activity } = watched("ready");
  assert.equal(activity.value, "ready");
  activity.setMicrophone("listening", true);
  assert.equal(activity.value, "hearing");
  activity.setMicrophone("ready");
  assert.equal(activity.value, "ready");
});

test("reset forgets what was in progress", () => {
  const { activity, received } = watched("off");
  received("input_audio_buffer.speech_started");
  received("response.created", response("in_progress"));
  activity.reset();
  assert.equal(activity.value, "off");
});

test("every activity has a word, and the last wait stands beside it", () => {
  for (const activity of Object.keys(ACTIVITY_WORDS)) {
    assert.ok(stateWord({ state: "live", activity }));
  }
  const turns = { all: [{ marks: { end: 0, sound: 612 } }, { marks: { end: 9 } }] };
  assert.equal(stateText({ state: "live", activity: "listening", turns }), "Listening · 0.61 s");
  assert.equal(stateText({ state: "waiting", turns }), "Connection lost");
});
