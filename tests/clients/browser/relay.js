// A page that expects a relay to OpenAI's beta API on its own server. `seen` is what the test reads.
const seen = { events: [], answer: "", sound: 0, said: "", calls: [], tracks: 0 };
window.seen = seen;

const base64 = (samples) => {
  const pcm = Int16Array.from(samples, (s) => Math.max(-1, Math.min(1, s)) * 0x7fff);
  return btoa(String.fromCharCode(...new Uint8Array(pcm.buffer)));
};

/** A spoken conversation over the WebSocket; neither header nor subprotocol names the beta. */
window.speak = async (address) => {
  const microphone = await navigator.mediaDevices.getUserMedia({ audio: true });
  const socket = new WebSocket(address);
  const send = (event) => socket.send(JSON.stringify(event));
  window.socket = socket;
  socket.onopen = () => {
    const tools = [{ type: "function", name: "weather", description: "", parameters: {} }];
    send({
      type: "session.update",
      session: {
        modalities: ["audio", "text"],
        voice: "alloy",
        input_audio_format: "pcm16",
        output_audio_format: "pcm16",
        input_audio_transcription: { model: "whisper-1" },
        turn_detection: { type: "server_vad", threshold: 0.5, silence_duration_ms: 500 },
        tools,
        tool_choice: "auto",
        temperature: 0.8,
        max_response_output_tokens: "inf",
      },
    });
    const audio = new AudioContext({ sampleRate: 24000 });
    const recorder = audio.createScriptProcessor(4096, 1, 1);
    recorder.onaudioprocess = ({ inputBuffer }) => {
      if (socket.readyState !== WebSocket.OPEN) return;
      const piece = base64(inputBuffer.getChannelData(0));
      send({ type: "input_audio_buffer.append", audio: piece });
    };
    audio.createMediaStreamSource(microphone).connect(recorder);
    recorder.connect(audio.destination);
  };
  socket.onmessage = ({ data }) => {
    const event = JSON.parse(data);
    seen.events.push(event.type);
    if (event.type === "response.audio.delta") seen.sound += atob(event.delta).length;
    if (event.type === "response.audio_transcript.done") seen.answer = event.transcript;
    if (event.type === "conversation.item.input_audio_transcription.completed")
      seen.said = event.transcript;
    if (event.type === "response.function_call_arguments.done") {
      seen.calls.push([event.name, JSON.parse(event.arguments)]);
      const item = { type: "function_call_output", call_id: event.call_id, output: "{}" };
      send({ type: "conversation.item.create", item });
      send({ type: "response.create" });
    }
  };
};

/** A call with a key that the page fetches; the answer is its SDP as text. */
window.call = async (server) => {
  const { token, client_secret: secret } = await (await fetch(`${server}/api/realtime/token`)).json();
  if (token !== secret.value) throw new Error("the two keys differ");
  const line = new RTCPeerConnection();
  window.line = line;
  line.ontrack = () => (seen.tracks += 1);
  const microphone = await navigator.mediaDevices.getUserMedia({ audio: true });
  line.addTrack(microphone.getTracks()[0]);
  const channel = line.createDataChannel("oai-events");
  channel.onmessage = ({ data }) => {
    const event = JSON.parse(data);
    seen.events.push(event.type);
    if (event.type === "response.audio_transcript.done") seen.answer = event.transcript;
  };
  await line.setLocalDescription(await line.createOffer());
  const reply = await fetch(`${server}/v1/realtime?model=gpt-4o-realtime-preview`, {
    method: "POST",
    headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/sdp" },
    body: line.localDescription.sdp,
  });
  await line.setRemoteDescription({ type: "answer", sdp: await reply.text() });
};
