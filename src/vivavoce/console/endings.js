/** What the end of a connection means: the server's word, or only the network's. */

/** {reason, sentence} of a session that is over for good; null: come back. */
export function endOf({ code, reason }, expired) {
  if (expired) return { reason: "expired", sentence: expired };
  if (code === 3000) return { reason: "key", sentence: "The server does not know this key." };
  const said = sentenceOf(reason);
  if (code === 1000) {
    return { reason: "closed", sentence: said || "The server ended the conversation." };
  }
  if (code === 1008 || code > 3000) {
    return { reason: "refused", sentence: said || "The server said no." };
  }
  return null;
}

/** Why nothing at all comes over that transport. */
export function silenceOf(transport) {
  if (transport !== "webrtc") return "The server says nothing.";
  return "The call does not get through: networks may block WebRTC, but seldom WebSocket.";
}

/** What a server said, as a sentence for people. */
export function sentenceOf(text) {
  if (!text) return "";
  return text[0].toUpperCase() + text.slice(1) + (/[.!?…]$/.test(text) ? "" : ".");
}
