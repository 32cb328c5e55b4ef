"""Unit tests of the console's modules: functions in a page without a server connection.

Each case is a JavaScript function and the value that it must return. One page runs them all.
"""

from typing import Final

import pytest

from tests.console.browser import needs_chromium, open_console, run
from tests.server import serving

pytestmark = needs_chromium

# The audio thread's globals, so that worklets.js can be imported in the page.
WORKLET_GLOBALS: Final = """
    globalThis.AudioWorkletProcessor ??= class { port = { postMessage() {} }; };
    globalThis.processors ??= {};
    globalThis.registerProcessor ??= (name, type) => (globalThis.processors[name] = type);
    globalThis.sampleRate ??= 24000;
"""
# Helpers for the cases about transcript.js and turns.js.
EVENTS: Final = """
    const { asText, heardOf, spokenOf, Transcript } = await import("/console/transcript.js");
    const transcript = new Transcript();
    const feed = (type, fields) => transcript.feed({ type, ...fields });
    const say = (id, delta) => feed("response.output_audio_transcript.delta",
      { item_id: id, response_id: "r", delta });
    const audio = (id, ms) => feed("response.output_audio.delta",
      { item_id: id, response_id: "r", delta: btoa("\\0".repeat(ms * 48)) });
    const close = (id) => feed("response.output_item.done",
      { item: { id, type: "message", role: "assistant", content: [] } });
"""
TURNS: Final = """
    const { Turns } = await import("/console/turns.js");
    const turns = new Turns();
    const received = (at, type, fields) => turns.feed({ type, ...fields }, false, at);
    const sent = (at, type, fields) => turns.feed({ type, ...fields }, true, at);
    const speech = () => {
      received(0, "input_audio_buffer.speech_started", { item_id: "u" });
      turns.setInputLevel(0.5, 1000);
      turns.setInputLevel(0.001, 1400);
      received(1500, "input_audio_buffer.speech_stopped", { item_id: "u" });
    };
"""

WATERFALL: Final = """
    const { Waterfall } = await import("/console/waterfall.js");
    const { draw } = await import("/console/ui.js");
    const [list, empty, summary, log] = ["ol", "p", "p", "input"].map((one) =>
      document.createElement(one));
    const parts = { list, empty, summary, log, spark: draw("svg") };
"""

AUDIO: Final[dict[str, tuple[str, object]]] = {
    "resampler_keeps_tone_and_removes_frequencies_above_12_khz": (
        """
          const { Resampler } = await import("/console/worklets.js");
          const peak = (from, hertz) => {
            const resampler = new Resampler(from, 24000);
            const tone = Float32Array.from({ length: from }, (_, n) =>
              Math.sin((2 * Math.PI * hertz * n) / from));
            const out = [];
            for (let at = 0; at < tone.length; at += 128) {
              out.push(...resampler.push(tone.subarray(at, at + 128)));
            }
            const kept = out.slice(1000, -1000);
            return [Math.abs(out.length - 24000) < 40, Math.max(...kept).toFixed(1)];
          };
          return [peak(48000, 1000), peak(44100, 1000), peak(16000, 1000), peak(48000, 15000)];
        """,
        [[True, "1.0"], [True, "1.0"], [True, "1.0"], [True, "0.0"]],
    ),
    "capture_of_two_channels_is_mixed_into_frames_of_40_ms": (
        """
          await import("/console/worklets.js");
          const capture = new processors["vivavoce-capture"]();
          const posted = [];
          capture.port = { postMessage: (message) => posted.push(message) };
          const frame = (value) => new Float32Array(480).fill(value);
          for (const values of [[], [0.5, 1], [0.5, 1], [0.5, 1]]) {
            capture.process([values.map(frame)]);
          }
          return posted.map(({ samples, rms }) => [samples.length, samples[959], rms]);
        """,
        [[960, 24575, 0.75]],
    ),
    "playback_stopped_reports_samples_played_of_each_queued_answer": (
        """
          await import("/console/worklets.js");
          const player = new processors["vivavoce-playback"]();
          const posted = [];
          player.port.postMessage = (message) => posted.push(message);
          const tell = (data) => player.port.onmessage({ data });
          tell({ id: "a", samples: new Int16Array(100).fill(16384) });
          tell({ id: "b", samples: new Int16Array(100) });
          tell({ id: "c", samples: new Int16Array(100) });
          const out = new Float32Array(128);
          player.process([], [[out]]);
          tell({ stop: 7 });
          player.process([], [[out]]);
          const [busy, stopped, idle] = posted;
          return [out[0], busy.busy, busy.played, stopped, idle.busy];
        """,
        [
            0.5,
            True,
            [["a", 100], ["b", 28]],
            {"stopped": 7, "cut": [["b", 28], ["c", 0]]},
            False,
        ],
    ),
    "playback_is_silent_from_the_block_after_a_stop_on": (
        """
          await import("/console/worklets.js");
          const player = new processors["vivavoce-playback"]();
          player.port.postMessage = () => {};
          const block = () => {
            const out = new Float32Array(128); // 5.3 ms, the unit of the audio clock
            player.process([], [[out]]);
            return Math.max(...out.map(Math.abs));
          };
          player.port.onmessage({ data: { id: "a", samples: new Int16Array(24000).fill(9999) } });
          const before = [block(), block()].map((peak) => peak > 0.3);
          player.port.onmessage({ data: { stop: 1 } });
          return [before, block(), block()];
        """,
        [[True, True], 0, 0],
    ),
    "samples_split_at_any_byte_are_joined_after_base64": (
        """
          const { byteLength, fromBase64, SampleJoiner, toBase64 } =
            await import("/console/audio.js");
          const base64 = toBase64(Int16Array.from([1, -2, 300, -32768]));
          const bytes = fromBase64(base64);
          const joiner = new SampleJoiner();
          const pieces = [[0, 3], [3, 4], [4, 8]].map((ends) => [
            ...joiner.join(bytes.subarray(...ends))]);
          return [pieces, byteLength(base64), byteLength("")];
        """,
        [[[1], [-2], [300, -32768]], 8, 0],
    ),
    "wav_of_two_channels_has_header_and_interleaved_samples": (
        """
          const { wav } = await import("/console/audio.js");
          const view = new DataView(
            await wav([Int16Array.of(1, 2), Int16Array.of(3, 4)]).arrayBuffer());
          const words = [22, 44, 46, 48, 50].map((at) => view.getInt16(at, true));
          return [view.byteLength, view.getUint32(24, true), words];
        """,
        [52, 24000, [2, 1, 3, 2, 4]],
    ),
    "meter_level_is_logarithmic_from_minus_60_db": (
        """
          const { meterLevel } = await import("/console/audio.js");
          return [0, 0.001, 0.1, 1, 2].map((rms) => meterLevel(rms).toFixed(3));
        """,
        ["0.000", "0.000", "0.667", "1.000", "1.000"],
    ),
    "recording_cut_drops_queued_audio": (
        """
          const { Recording } = await import("/console/audio.js");
          const recording = new Recording();
          recording.addQueued(new Int16Array(24000 * 60).fill(5));
          recording.addQueued(new Int16Array(24000 * 60).fill(6));
          recording.cut();
          const seconds = (recording.file().size - 44) / 4 / 24000;
          return [seconds < 50, await new Recording().file().size];
        """,
        [True, 44],
    ),
    "audible_ms_excludes_samples_in_the_audio_device": (
        """
          const { PlayedPositions } = await import("/console/playback.js");
          const positions = new PlayedPositions();
          return [[2400, 0], [4800, 40], [4800, 140], [4800, 900], [7200, 940]].map(
            ([samples, now]) => positions.audibleMs("a", samples, 0.2, now));
        """,
        [0, 0, 100, 200, 100],
    ),
}
STATE: Final[dict[str, tuple[str, object]]] = {
    "retry_delay_doubles_to_30_s_and_half_is_random": (
        """
          const { retryDelay } = await import("/console/state.js");
          const series = (random) => [0, 1, 2, 5, 50].map((n) => retryDelay(n, () => random));
          return [series(1), series(0)];
        """,
        [[1, 2, 4, 30, 30], [0.5, 1, 2, 15, 15]],
    ),
    "close_code_ends_the_session_or_means_a_lost_connection": (
        """
          const { endOf, noReplySentence, sentenceOf } = await import("/console/state.js");
          const codes = [1000, 1001, 1006, 1008, 1013, 3000, 4000];
          return [codes.map((code) => endOf({ code, reason: "" })?.reason ?? null),
            endOf({ code: 1006 }, "Time is up."), endOf({ code: 1000, reason: "too quiet" }),
            sentenceOf(""), noReplySentence("webrtc").includes("WebRTC"),
            noReplySentence("websocket")];
        """,
        [
            ["closed", None, None, "refused", None, "key", "refused"],
            {"reason": "expired", "sentence": "Time is up."},
            {"reason": "closed", "sentence": "Too quiet."},
            "",
            True,
            "No reply from the server.",
        ],
    ),
    "session_leaves_out_empty_settings": (
        """
          const { DEFAULTS, sessionOf } = await import("/console/state.js");
          const { audio, ...rest } = sessionOf({ ...DEFAULTS, turns: "none", language: "it" });
          return [rest, audio];
        """,
        [
            {"type": "realtime", "output_modalities": ["audio"], "include": ["x_usage"]},
            {
                "input": {
                    "transcription": {"model": "default", "language": "it"},
                    "turn_detection": None,
                }
            },
        ],
    ),
    "session_has_all_settings_that_are_set": (
        """
          const { DEFAULTS, sessionOf } = await import("/console/state.js");
          const both = ["server_vad", "semantic_vad"].map((turns) => sessionOf({ ...DEFAULTS, turns,
            idleMs: 6000, eagerness: "low", noise: "far_field", voice: "marin", speaks: false,
            instructions: "Be brief." }, [{ name: "f" }]));
          return [both[0], both[1].audio.input.turn_detection];
        """,
        [
            {
                "type": "realtime",
                "output_modalities": ["text"],
                "include": ["x_usage"],
                "instructions": "Be brief.",
                "tools": [{"name": "f"}],
                "audio": {
                    "input": {
                        "transcription": {"model": "default"},
                        "turn_detection": {
                            "type": "server_vad",
                            "interrupt_response": True,
                            "explain": True,
                            "threshold": 0.5,
                            "silence_duration_ms": 500,
                            "prefix_padding_ms": 300,
                            "idle_timeout_ms": 6000,
                        },
                        "noise_reduction": {"type": "far_field"},
                    },
                    "output": {"voice": "marin"},
                },
            },
            {
                "type": "semantic_vad",
                "interrupt_response": True,
                "explain": True,
                "eagerness": "low",
            },
        ],
    ),
    "substitutions_name_only_what_was_requested_and_replaced": (
        """
          const { substitutions } = await import("/console/state.js");
          return [["x", ""], ["", "m"], ["v", "m"]].map(([voice, model]) =>
            substitutions({ voice, model }, { served_by: { voice: "v", model: "m" } }));
        """,
        [["Voice “x” isn't available. Using “v”."], [], []],
    ),
    "tool_calls_run_once_and_errors_become_results": (
        """
          const { ToolCalls } = await import("/console/state.js");
          const calls = new ToolCalls([
            { name: "add", run: ({ a, b }) => a + b },
            { name: "fail", run: async () => { throw new Error("broken"); } }]);
          const call = (id, name, args) =>
            ({ type: "function_call", call_id: id, name, arguments: args });
          const response = { status: "completed", output: [{ type: "message" },
            call("1", "add", '{"a": 1, "b": 2}'), call("2", "fail", ""), call("3", "none", "{}"),
            call("4", "add", "{")] };
          const outputs = [];
          const events = await calls.run(response, (id, output) => outputs.push([id, output]));
          const again = await calls.run(response, () => outputs.push("twice"));
          const cancelled = await calls.run({ ...response, status: "cancelled" });
          return [events.length, events.at(-1), events[0].item, outputs.sort().slice(0, 3),
            outputs.length, again, cancelled, calls.declarations[0]];
        """,
        [
            5,
            {"type": "response.create"},
            {"type": "function_call_output", "call_id": "1", "output": "3"},
            [["1", "3"], ["2", '{"error":"broken"}'], ["3", '{"error":"there is no tool none"}']],
            4,
            [],
            [],
            {
                "type": "function",
                "name": "add",
                "description": "",
                "parameters": {"type": "object", "properties": {}},
            },
        ],
    ),
    "schema_with_unknown_type_or_missing_property_is_refused": (
        """
          const { parsedSchema } = await import("/console/schema.js");
          const check = (schema) => {
            try { return parsedSchema(JSON.stringify(schema)) && "valid"; }
            catch (error) { return error.message; }
          };
          const object = (properties, more) => ({ type: "object", properties, ...more });
          return [check(object({ a: { type: ["string", "null"] } }, { required: ["a"] })),
            check({ type: "array" }), check(object({ a: { type: "strnig" } })),
            check(object({ a: { type: "array", items: { type: "text" } } })),
            check(object({ a: {} }, { required: ["b"] })), parsedSchema("").type];
        """,
        [
            "valid",
            'The parameters aren\'t a JSON Schema of "type": "object".',
            'JSON Schema has no type "strnig".',
            'JSON Schema has no type "text".',
            '"required" names "b", which isn\'t in "properties".',
            "object",
        ],
    ),
}
TRANSCRIPT: Final[dict[str, tuple[str, object]]] = {
    "speech_without_recognized_words_is_shown_and_not_a_message": (
        EVENTS
        + """
          feed("input_audio_buffer.speech_started", { item_id: "a" });
          feed("conversation.item.input_audio_transcription.failed", { item_id: "a" });
          return [asText(transcript.entries), transcript.messages, transcript.unanswered];
        """,
        ["You: (no speech recognized)\n", [], None],
    ),
    "user_transcript_grows_and_is_replaced_by_the_final_one": (
        EVENTS
        + """
          const states = [];
          transcript.on("change", ({ text, state }) => states.push([text, state]));
          feed("input_audio_buffer.speech_started", { item_id: "a" });
          const type = "conversation.item.input_audio_transcription.";
          feed(type + "delta", { item_id: "a", delta: "hello " });
          feed(type + "delta", { item_id: "a", delta: "ther" });
          feed(type + "completed", { item_id: "a", transcript: "Hello there." });
          feed(type + "delta", { item_id: "a", delta: "late" });
          return [states, transcript.unanswered.text];
        """,
        [
            [
                ["hello ", "open"],
                ["hello ther", "open"],
                ["Hello there.", "done"],
                ["Hello there.", "done"],
            ],
            "Hello there.",
        ],
    ),
    "spoken_answer_is_split_by_playback_at_whole_words": (
        EVENTS
        + """
          say("b", "one two three four");
          const parts = [spokenOf(transcript.entries[0])];
          audio("b", 1000);
          for (const ms of [0, 500, 950]) {
            transcript.setPlayed([["b", ms], ["unknown", 1]]);
            parts.push(spokenOf(transcript.entries[0]));
          }
          close("b");
          transcript.setPlayed([["b", 960]]);
          return [...parts, spokenOf(transcript.entries[0])];
        """,
        [
            ["", "one two three four"],
            ["", "one two three four"],
            ["one two", " three four"],
            ["one two three", " four"],
            ["one two three four", ""],
        ],
    ),
    "truncated_answer_is_estimated_then_corrected_by_the_server_once": (
        EVENTS
        + """
          say("b", "one two three four");
          audio("b", 1000);
          const truncated = () => feed("conversation.item.truncated",
            { item_id: "b", audio_end_ms: 500 });
          const replies = [truncated(), truncated()];
          const [entry] = transcript.entries;
          const estimate = heardOf(entry);
          const retrieved = (text) => feed("conversation.item.retrieved", { item:
            { id: "b", type: "message", content: [{ transcript: text }] } });
          retrieved("other words");
          const unrelated = heardOf(entry);
          retrieved("one two three");
          transcript.setPlayed([["b", 1000]]);
          return [replies, estimate, unrelated, heardOf(entry), spokenOf(entry), entry.state,
            asText(transcript.entries)];
        """,
        [
            [{"type": "conversation.item.retrieve", "item_id": "b"}, None],
            "one two",
            "one two",
            "one two three",
            ["one two three", " four"],
            "cut",
            "Assistant: one two three [not played: four]\n",
        ],
    ),
    "answer_of_unknown_length_follows_the_progress_of_its_stream": (
        EVENTS
        + """
          say("b", "one two three four");
          transcript.setProgress("r", 558);
          const half = spokenOf(transcript.entries[0]);
          close("b");
          transcript.setProgress("r", Infinity);
          transcript.setProgress("unknown", 1);
          return [half, spokenOf(transcript.entries[0])];
        """,
        [["one two", " three four"], ["one two three four", ""]],
    ),
    "finish_cuts_spoken_answers_and_closes_open_entries": (
        EVENTS
        + """
          feed("input_audio_buffer.speech_started", { item_id: "a" });
          say("b", "one two three four");
          audio("b", 1000);
          transcript.setPlayed([["b", 500]]);
          feed("response.output_text.delta", { item_id: "c", delta: "written" });
          transcript.finish();
          return transcript.entries.map(({ id, state, heard }) => [id, state, heard]);
        """,
        [["a", "done", None], ["b", "cut", "one two"], ["c", "done", None]],
    ),
    "typed_message_is_unanswered_until_an_answer_is_heard": (
        EVENTS
        + """
          const typed = transcript.addTyped("Hello?");
          const before = transcript.unanswered === typed;
          transcript.addNote("Connection lost.");
          const afterNote = transcript.unanswered === typed;
          feed("conversation.item.added", { item:
            { id: "b", type: "message", role: "assistant", content: [] } });
          const afterEmpty = transcript.unanswered === typed;
          feed("response.output_text.delta", { item_id: "b", delta: "Yes." });
          return [before, afterNote, afterEmpty, transcript.unanswered];
        """,
        [True, True, True, None],
    ),
    "tool_call_and_its_result_are_one_entry": (
        EVENTS
        + """
          const item = { id: "f", type: "function_call", name: "weather", call_id: "1" };
          feed("conversation.item.added", { item });
          feed("response.output_item.done", { item: { ...item, arguments: '{"city":"Rome"}' } });
          const before = asText(transcript.entries);
          transcript.setOutput("1", "clear");
          transcript.setOutput("unknown", "x");
          return [before, asText(transcript.entries), transcript.messages];
        """,
        [
            'Tool: weather({"city":"Rome"}) = ?\n',
            'Tool: weather({"city":"Rome"}) = clear\n',
            [],
        ],
    ),
    "failed_answer_leaves_a_note_in_the_transcript": (
        EVENTS
        + """
          transcript.addTyped("Hello");
          feed("conversation.item.added", { item:
            { id: "b", type: "message", role: "assistant", content: [] } });
          const failed = (error) => feed("response.done",
            { response: { id: "r", status: "failed", status_details: error && { error } } });
          failed({ message: "no LLM answers" });
          failed(null);
          feed("response.done", { response: { id: "s", status: "cancelled" } });
          return [asText(transcript.entries), transcript.entries.at(-1).failure];
        """,
        [
            "You: Hello\n— The answer failed: No LLM answers.\n"
            "— The answer failed: Unknown error.\n",
            True,
        ],
    ),
    "system_message_is_not_shown": (
        EVENTS
        + """
          feed("conversation.item.added", { item:
            { id: "s", type: "message", role: "system", content: [{ text: "Be brief." }] } });
          return [transcript.entries, feed("rate_limits.updated", {})];
        """,
        [[], None],
    ),
}
TIMELINE: Final[dict[str, tuple[str, object]]] = {
    "level_before_push_to_talk_is_not_the_end_of_speech": (
        TURNS
        + """
          turns.setInputLevel(0.5, 1000);
          sent(9000, "input_audio_buffer.clear");
          sent(9500, "input_audio_buffer.commit");
          return turns.all[0].marks;
        """,
        {"end": 9500, "decision": 9500},
    ),
    "spoken_turn_has_all_marks_in_order": (
        TURNS
        + """
          speech();
          received(1700, "conversation.item.input_audio_transcription.completed",
            { item_id: "u", transcript: "hello" });
          received(1800, "response.created", { response: { id: "r" } });
          received(1900, "response.output_audio_transcript.delta", { response_id: "r" });
          received(1950, "response.output_audio_transcript.delta", { response_id: "r" });
          received(2000, "response.output_audio.delta", { response_id: "r" });
          turns.setPlaying("r", 2010);
          received(2500, "response.done", { response: { id: "r", status: "completed" } });
          turns.setSilent(3000);
          const [{ marks, words, status }] = turns.all;
          return [marks, words, status, turns.all.length];
        """,
        [
            {
                "end": 1000,
                "decision": 1500,
                "transcript": 1700,
                "asked": 1800,
                "token": 1900,
                "audio": 2000,
                "sound": 2010,
                "done": 2500,
                "silent": 3000,
            },
            "hello",
            "completed",
            1,
        ],
    ),
    "playback_that_goes_on_after_a_gap_has_not_ended": (
        TURNS
        + """
          turns.setPlayingOn();
          received(20, "response.created", { response: { id: "r" } });
          turns.setPlaying("r", 30);
          turns.setSilent(40);
          turns.setPlayingOn();
          const before = "silent" in turns.all[0].marks;
          turns.setSilent(900);
          return [before, turns.all[0].marks.silent];
        """,
        [False, 900],
    ),
    "interrupted_turn_loses_its_end_of_playback": (
        TURNS
        + """
          turns.cut(1);
          turns.setSilent(2);
          sent(10, "conversation.item.create",
            { item: { role: "user", content: [{ text: "hi" }] } });
          received(20, "response.created", { response: { id: "r" } });
          received(30, "output_audio_buffer.started", { response_id: "r" });
          received(40, "output_audio_buffer.stopped", { response_id: "r" });
          received(50, "output_audio_buffer.cleared", { response_id: "r" });
          received(60, "output_audio_buffer.stopped", { response_id: "r" });
          return [turns.all[0].marks, turns.all[0].words];
        """,
        [{"end": 10, "asked": 20, "sound": 30, "cut": 50}, "hi"],
    ),
    "events_without_a_turn_add_one_or_are_ignored": (
        TURNS
        + """
          received(1, "input_audio_buffer.speech_stopped", {});
          received(2, "response.output_text.delta", { response_id: "x" });
          received(3, "response.done", { response: { id: "x" } });
          const before = turns.all.length;
          received(4, "response.created", { response: { id: "r" } });
          return [before, turns.all[0].marks];
        """,
        [0, {"end": 4, "asked": 4}],
    ),
    "bar_shows_speech_recognition_apart_from_the_language_model": (
        """
          const { segmentsOf } = await import("/console/waits.js");
          const marks = { end: 0, decision: 500, transcript: 2800, token: 2801, sound: 2900,
            done: 3000, silent: 4000 };
          const status = "completed";
          return [segmentsOf({ marks, status }),
            segmentsOf({ marks: { ...marks, transcript: 400, silent: undefined, cut: 3500 },
              status }),
            segmentsOf({ marks: { end: 0, token: 100, done: 300 }, status })];
        """,
        [
            [
                ["detection", 0, 500],
                ["recognition", 500, 2800],
                ["model", 2800, 2801],
                ["voice", 2801, 2900],
                ["speaking", 2900, 4000],
            ],
            [
                ["detection", 0, 500],
                ["model", 500, 2801],
                ["voice", 2801, 2900],
                ["speaking", 2900, 3500],
                ["cut", 3500, 3500],
            ],
            [["model", 0, 100], ["speaking", 100, 300]],
        ],
    ),
    "failed_turn_is_drawn_as_failed": (
        WATERFALL
        + """
          const turn = { number: 1, words: "hi", status: "failed", problem: "no LLM answers",
            marks: { end: 0, done: 24 } };
          new Waterfall(parts, () => {}).show({ turns: { all: [turn] } });
          return [list.querySelector("em").textContent,
            list.querySelector("dl").textContent];
        """,
        ["no LLM answers", "failed24 ms"],
    ),
    "waterfall_redraws_only_changed_turns_newest_first": (
        WATERFALL
        + """
          const turn = (number, silent) => ({ number, words: `turn ${number}`,
            marks: { end: 0, decision: 500, token: 600, sound: 700, silent } });
          const conversation = { turns: { all: [turn(1, 1000)] }, settings: {} };
          const chosen = [];
          const waterfall = new Waterfall(parts, (...both) => chosen.push(both));
          waterfall.show(conversation);
          const [first] = list.children;
          conversation.turns.all.push(turn(2, 1400));
          waterfall.show(conversation);
          const kept = list.children[1] === first;
          const waits = [...first.querySelectorAll(".wait i")].map((one) =>
            [one.className, one.style.width, one.textContent]);
          const { width } = first.querySelector(".speaking").style;
          const headline = first.querySelector(".headline").textContent;
          first.querySelector("button").click();
          const summarized = parts.summary.textContent;
          waterfall.show({ turns: { all: [turn(1, 3700)] }, settings: {} });
          return [kept, waits, width, headline, chosen[0].map(({ number }) => number), summarized,
            list.children.length];
        """,
        [
            True,
            [["detection", "25%", "500"], ["model", "5%", "100"], ["voice", "5%", "100"]],
            "15%",
            "700 ms to first sound, fastEvents",
            [1, 2],
            "Median 0.70 s · p95 0.70 s · 2 turnsMost of the wait: end-of-speech detection "
            "(500 ms). Shorten “End of turn after silence”, or choose “Automatic: finished "
            "sentence”.",
            1,
        ],
    ),
    "event_log_keeps_the_newest_and_replaces_audio_by_its_length": (
        """
          const { EventLog } = await import("/console/timeline.js");
          const log = new EventLog();
          const line = log.add({ event: { type: "input_audio_buffer.append", audio: "AAAA" },
            sent: true, at: performance.now() });
          for (let n = 0; n < 20_001; n++) log.add({ event: { type: "x", n }, sent: false, at: 0 });
          return [line.event.audio, log.lines.length, log.dropped, log.lines[0].event.n];
        """,
        ["(3 bytes of audio)", 20_000, 2, 1],
    ),
}
PAGE: Final[dict[str, tuple[str, object]]] = {
    "usage_rates_of_nothing_are_zero_or_none": (
        """
          const { cacheRate, perMinute } = await import("/console/usage.js");
          return [
            cacheRate({ input_tokens: 0, cached_tokens: 0 }),
            cacheRate({ input_tokens: 8, cached_tokens: 2 }),
            perMinute(5e8, 0),
            perMinute(5e8, 30),
          ];
        """,
        [0, 0.25, None, 1],
    ),
    "entry_is_a_labelled_article_and_unplayed_words_are_announced": (
        """
          const { TranscriptView } = await import("/console/transcript_view.js");
          const [box, welcome, announcer] = ["div", "div", "p"].map((one) =>
            document.createElement(one));
          const view = new TranscriptView({ box, welcome, announcer },
            { waitFor: () => 612, onPlay: () => {} });
          const entry = { id: "b", role: "assistant", text: "one two", state: "open", aloud: true,
            audioMs: 100, playedMs: 50, at: new Date(2026, 0, 2, 15, 4).toISOString() };
          view.update(entry);
          const before = announcer.textContent;
          Object.assign(entry, { state: "cut", heard: "one" });
          view.update(entry);
          const article = box.querySelector("[role=article]");
          return [before, article.querySelector(".wait").textContent, announcer.textContent,
            article.ariaLabel.startsWith("Assistant, "),
            article.querySelector(".text").textContent, article.querySelector("s").textContent];
        """,
        ["", "0.61 s", "Answer interrupted.", True, "one two", "two"],
    ),
    "list_marks_the_live_conversation_and_drops_empty_ones": (
        """
          const { ConversationList } = await import("/console/conversations.js");
          const { Transcript } = await import("/console/transcript.js");
          const list = document.createElement("ul");
          const [text, json, wav] = [1, 2, 3].map(() => document.createElement("button"));
          const shown = [];
          const [search, keep, clear] = ["input", "input", "button"].map((one) =>
            document.createElement(one));
          const conversations = new ConversationList(
            { list, search, keep, clear, downloads: { text, json, wav } }, {},
            (record) => shown.push(record));
          const disabled = wav.disabled;
          const record = (state, words) => {
            const transcript = new Transcript();
            transcript.addNote("Connected again.");
            if (words) transcript.addTyped(words);
            return { conversation: { state, session: {}, transcript } };
          };
          for (const one of [record("ended", "One"), record("ended", ""), record("live", "Two")]) {
            conversations.add(one);
          }
          const lines = [...list.querySelectorAll(".open")].map((button) =>
            [button.lastChild.textContent, Boolean(button.querySelector(".live")),
              button.ariaCurrent]);
          return [disabled, lines, shown.length];
        """,
        [True, [["Two", True, "true"], ["One", False, None]], 3],
    ),
    "every_wrong_setting_is_marked_and_named": (
        """
          const form = document.getElementById("settings");
          const error = document.getElementById("settings-error");
          const set = (name, value) => {
            form.elements[name].value = value;
            form.elements[name].dispatchEvent(new Event("input"));
          };
          set("silenceMs", "70000");
          set("idleMs", "100");
          set("language", "klingon");
          const text = error.textContent;
          const marked = [...form.querySelectorAll("[aria-invalid=true]")].map(({ name }) => name);
          set("silenceMs", "500");
          set("idleMs", "0");
          set("language", "pt-BR");
          return [text, marked, error.textContent,
            form.querySelectorAll("[aria-invalid=true]").length];
        """,
        [
            "Language: “klingon” isn't a known code. Use one such as en or pt-BR. "
            "End of turn after silence (ms) must be 0 to 60000. Using 500 until you fix it. "
            "Prompt again after (ms) must be 0, or 5000 to 30000. Using 0 until you fix it.",
            ["language", "silenceMs", "idleMs"],
            "",
            0,
        ],
    ),
}
CASES: Final = {**AUDIO, **STATE, **TRANSCRIPT, **TIMELINE, **PAGE}


@pytest.fixture(scope="module")
def results() -> dict[str, object]:
    """What each case returned, or its exception as text."""

    async def main() -> dict[str, object]:
        async with serving() as server, open_console(server.http) as console:
            await console.page.evaluate(f"() => {{ {WORKLET_GLOBALS} }}")
            return {
                name: await console.page.evaluate(
                    f"async () => {{ try {{ {code} }} catch (error) {{ return error.stack; }} }}"
                )
                for name, (code, _) in CASES.items()
            }

    return run(main())


@pytest.mark.parametrize("name", CASES)
def test_module(name: str, results: dict[str, object]) -> None:
    assert results[name] == CASES[name][1]
