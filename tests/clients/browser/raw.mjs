// The npm package `ws` on the raw endpoints. Prints what came, as one line of JSON.
import WebSocket from "ws";

const [address, configuration] = process.argv.slice(2);
const socket = new WebSocket(address);
const seen = { kinds: [], text: "", said: "", sound: 0 };

socket.on("open", () => {
  if (configuration) socket.send(configuration);
  const speech = Buffer.alloc(16000); // half a second, loud
  for (let at = 0; at < speech.length; at += 2) speech.writeInt16LE(at % 4 ? 9000 : -9000, at);
  for (const piece of [speech, Buffer.alloc(320000)])
    for (let at = 0; at < piece.length; at += 640) socket.send(piece.subarray(at, at + 640));
});
socket.on("message", (data, isBinary) => {
  if (isBinary) {
    seen.sound += data.length;
    return;
  }
  const frame = JSON.parse(data);
  seen.kinds.push(frame.type);
  if (frame.type === "TextFrame") seen.text += frame.text;
  if (frame.type === "TranscriptionFrame" && frame.final) seen.said = frame.text;
  if (frame.type === "BotStoppedSpeakingFrame") socket.close();
});
socket.on("close", (code) => console.log(JSON.stringify({ ...seen, code })));
