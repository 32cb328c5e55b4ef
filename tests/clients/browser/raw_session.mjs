// The npm package `ws` on /ws: a typed turn, a function, speech over an answer, a second connection.
// Prints what came, as one line of JSON.
import WebSocket from "ws";

const address = process.argv[2];
const seen = { turns: [], call: null, heardAfterInterruption: null, sessions: [], errors: [] };

/** A connection whose frames are taken one at a time. */
class Line {
  constructor() {
    this.socket = new WebSocket(address);
    this.frames = [];
    this.sound = 0;
    this.socket.on("message", (data, isBinary) => {
      if (isBinary) this.sound += data.length;
      else this.frames.push(JSON.parse(data));
      this.wake?.();
    });
  }

  send(message) {
    this.socket.send(Buffer.isBuffer(message) ? message : JSON.stringify(message));
  }

  /** Read on to a frame of that type; the text that came before it. */
  async until(type) {
    let text = "";
    for (;;) {
      const frame = this.frames.shift();
      if (!frame) await new Promise((wake) => (this.wake = wake));
      else if (frame.type === "ErrorFrame") seen.errors.push(frame);
      else if (frame.type === "TextFrame") text += frame.text;
      if (frame?.type === type) return { ...frame, before: text.trim() };
    }
  }
}

const speech = Buffer.alloc(16000); // half a second, loud
for (let at = 0; at < speech.length; at += 2) speech.writeInt16LE(at % 4 ? 9000 : -9000, at);

const line = new Line();
seen.sessions.push((await line.until("StartFrame")).session_id);

line.send({ type: "text", text: "Hello" });
seen.turns.push((await line.until("BotStoppedSpeakingFrame")).before);

line.send({ type: "config", tools: [{ name: "weather" }] });
await line.until("ConfigFrame");
line.send({ type: "text", text: "How is it in Rome?" });
const call = await line.until("FunctionCallInProgressFrame");
seen.call = call.arguments;
await line.until("LLMFullResponseEndFrame");
line.send({ type: "FunctionCallResultFrame", tool_call_id: call.tool_call_id, result: { degrees: 22 } });
seen.turns.push((await line.until("BotStoppedSpeakingFrame")).before);

line.send({ type: "text", text: "Talk." });
await line.until("BotStartedSpeakingFrame");
for (let at = 0; at < speech.length; at += 640) line.send(speech.subarray(at, at + 640));
await line.until("InterruptionFrame");
const heard = line.sound;
line.send({ type: "ping" });
await line.until("pong");
seen.heardAfterInterruption = line.sound - heard;
line.socket.close();

const again = new Line();
seen.sessions.push((await again.until("StartFrame")).session_id);
again.send({ type: "text", text: "Hello again" });
seen.turns.push((await again.until("BotStoppedSpeakingFrame")).before);
again.socket.close();
console.log(JSON.stringify(seen));
