"""The modules that only calculate, each asked in a page: what they say is compared as values."""

import asyncio

import pytest

from tests.console.stage import console, needs_chromium
from tests.server import serving

pytestmark = needs_chromium

CASES = {
    "a resampled tone keeps its height and what is too high to keep is gone": (
        """async () => {
          const { Resampler } = await import("/console/resampler.js");
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
        }""",
        [[True, "1.0"], [True, "1.0"], [True, "1.0"], [True, "0.0"]],
    ),
    "samples cut at any byte are joined, and sound survives base64": (
        """async () => {
          const { bytesOf, encode, Joiner } = await import("/console/sound.js");
          const bytes = bytesOf(encode(Int16Array.from([1, -2, 300, -32768])));
          const joiner = new Joiner();
          return [3, 4, 8].map((to, n) => [...joiner.join(bytes.subarray([0, 3, 4][n], to))]);
        }""",
        [[1], [-2], [300, -32768]],
    ),
    "waits double to thirty seconds, and half of each is chance": (
        """async () => {
          const { backoff } = await import("/console/backoff.js");
          const series = (random) => [0, 1, 2, 5, 50].map((n) => backoff(n, () => random));
          return [series(1), series(0)];
        }""",
        [[1, 2, 4, 30, 30], [0.5, 1, 2, 15, 15]],
    ),
    "a wav file of two sides has its head and both": (
        """async () => {
          const { wav } = await import("/console/sound.js");
          const view = new DataView(
            await wav([Int16Array.of(1, 2), Int16Array.of(3, 4)]).arrayBuffer());
          const words = [22, 44, 46, 48, 50].map((at) => view.getInt16(at, true));
          return [view.byteLength, view.getUint32(24, true), words];
        }""",
        [52, 24000, [2, 1, 3, 2, 4]],
    ),
    "sound is heard when it was played and has crossed the sound card": (
        """async () => {
          const { Ear } = await import("/console/ear.js");
          const ear = new Ear();
          return [[2400, 0], [4800, 40], [4800, 140], [4800, 900], [7200, 940]].map(
            ([samples, now]) => ear.heard("a", samples, 0.2, now));
        }""",
        [0, 0, 100, 200, 100],
    ),
    "what nobody made out is shown, and told to no server": (
        """async () => {
          const { asText, Transcript } = await import("/console/transcript.js");
          const transcript = new Transcript();
          const failed = "conversation.item.input_audio_transcription.failed";
          transcript.feed({ type: "input_audio_buffer.speech_started", item_id: "a" });
          transcript.feed({ type: failed, item_id: "a" });
          return [asText(transcript.entries), transcript.messages, transcript.unanswered];
        }""",
        ["You: (nothing was understood)\n", [], None],
    ),
    "an end is the server's or the network's": (
        """async () => {
          const { endOf, sentenceOf, silenceOf } = await import("/console/endings.js");
          const codes = [1000, 1001, 1006, 1008, 3000, 4000];
          return [codes.map((code) => endOf({ code, reason: "" })?.reason ?? null),
            endOf({ code: 1006 }, "Time is up."), endOf({ code: 1000, reason: "too quiet" }),
            sentenceOf(""), silenceOf("webrtc").includes("WebRTC"), silenceOf("websocket")];
        }""",
        [
            ["closed", None, None, "refused", "key", "refused"],
            {"reason": "expired", "sentence": "Time is up."},
            {"reason": "closed", "sentence": "Too quiet."},
            "",
            True,
            "The server says nothing.",
        ],
    ),
    "what was loud before a button was pressed is not the end of what was said": (
        """async () => {
          const { Turns } = await import("/console/turns.js");
          const turns = new Turns();
          turns.heard(0.5, 1000);
          turns.feed({ type: "input_audio_buffer.clear" }, true, 9000);
          turns.feed({ type: "input_audio_buffer.commit" }, true, 9500);
          return turns.all[0].marks;
        }""",
        {"end": 9500, "decision": 9500},
    ),
    "turns that have not changed are not drawn again, and the newest stands first": (
        """async () => {
          const { Waterfall } = await import("/console/waterfall.js");
          const [list, empty] = [document.createElement("ol"), document.createElement("p")];
          const turn = (number, silent) => ({ number, words: `turn ${number}`,
            marks: { end: 0, decision: 500, token: 600, sound: 700, silent } });
          const turns = [turn(1, 1000)];
          const waterfall = new Waterfall(list, empty);
          waterfall.show(turns);
          const [first] = list.children;
          turns.push(turn(2, 9000));
          waterfall.show(turns);
          const bar = list.children[1].querySelector(".speak").style;
          const kept = list.children[1] === first;
          waterfall.show([turn(1, 1000)]);
          return [kept, bar.width, list.style.getPropertyValue("--longest"), list.children.length];
        }""",
        [True, "calc(100% * 300 / var(--longest))", "2000", 1],
    ),
    "settings left empty are not sent": (
        """async () => {
          const { DEFAULTS, sessionOf } = await import("/console/settings.js");
          const { audio, ...rest } = sessionOf({ ...DEFAULTS, turns: "none", language: "it" });
          return [rest, audio];
        }""",
        [
            {"type": "realtime", "output_modalities": ["audio"]},
            {
                "input": {
                    "transcription": {"model": "default", "language": "it"},
                    "turn_detection": None,
                }
            },
        ],
    ),
}


@pytest.fixture(scope="module")
def answers() -> dict[str, object]:
    async def main() -> dict[str, object]:
        async with serving() as server, console(server.http) as stage:
            return {name: await stage.page.evaluate(code) for name, (code, _) in CASES.items()}

    return asyncio.run(main())


@pytest.mark.parametrize("name", CASES)
def test(name: str, answers: dict[str, object]) -> None:
    assert answers[name] == CASES[name][1]
