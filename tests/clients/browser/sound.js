// The microphone and the loudspeaker of a page. `speak` starts a hum whenever a test wants it, which
// no recording does: that begins when the page opens the microphone. `heard` is what is played.
export const heard = { loud: 0 };
const LEVEL = 0.02;
const PIECE = 256; // samples

const room = new AudioContext();
const mouth = room.createMediaStreamDestination();
const loudness = room.createGain();
loudness.gain.value = 0;
const hum = room.createOscillator();
hum.frequency.value = 180;
hum.connect(loudness).connect(mouth);
hum.start();
navigator.mediaDevices.getUserMedia = async () => mouth.stream.clone();

window.heard = heard;
/** Hum for so many seconds, and note what had been heard when it began. */
window.speak = (seconds) => {
  heard.before = heard.loud;
  loudness.gain.setValueAtTime(0.5, room.currentTime);
  loudness.gain.setValueAtTime(0, room.currentTime + seconds);
};

/** Count the milliseconds of `node` that are not silent. */
const measure = (node) => {
  const { context } = node;
  const meter = context.createScriptProcessor(PIECE, 1, 1);
  meter.onaudioprocess = ({ inputBuffer }) => {
    const loud = inputBuffer.getChannelData(0).some((sample) => Math.abs(sample) > LEVEL);
    if (loud) heard.loud += (1000 * PIECE) / context.sampleRate;
  };
  connect.call(node, meter);
  connect.call(meter, context.destination); // otherwise it does not run
};

const { connect } = AudioNode.prototype;
AudioNode.prototype.connect = function (target, ...rest) {
  if (target instanceof AudioDestinationNode) measure(this);
  return connect.call(this, target, ...rest);
};

/** Play a track that came over a connection. */
export const play = (track) => {
  const stream = new MediaStream([track]);
  const element = new Audio();
  element.srcObject = stream; // without it Chromium decodes nothing
  element.muted = true;
  element.play();
  measure(room.createMediaStreamSource(stream));
};
