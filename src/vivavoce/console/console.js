/** The console: what people press, and what they see of a Conversation. */
import { KeyNeeded } from "./access.js";
import { Banner } from "./banner.js";
import { Captions } from "./captions.js";
import { Conversation } from "./client.js";
import { $ } from "./dom.js";
import { SettingsForm } from "./form.js";
import { differences } from "./granted.js";
import { KeyBox } from "./keybox.js";
import { PressButton } from "./press.js";
import { Shelf } from "./shelf.js";
import { level } from "./sound.js";
import { Strip } from "./strip.js";
import { tabs } from "./tabs.js";
import { theme } from "./theme.js";
import { ToolPanel } from "./tools.js";
import { Waterfall } from "./waterfall.js";
import { Log, WireView } from "./wire.js";

const WORDS = {
  idle: "Not connected", connecting: "Connecting …", live: "Connected", ended: "Ended",
};
const KEYED = "keyed" in document.documentElement.dataset; // the server has keys
const NARROW = matchMedia("(max-width: 760px)");

const settings = new SettingsForm($("settings"));
const keys = new KeyBox({
  dialog: $("keybox"), form: $("keyform"), field: $("key"), why: $("keywhy"), no: $("nokey"),
});
const banner = new Banner($("banner"), $("banner-text"), $("banner-count"), $("banner-act"));
const captions = new Captions($("captions"), $("welcome"), $("voice"));
const strip = new Strip($("strip"));
const waterfall = new Waterfall($("falls"), $("no-falls"));
const tools = new ToolPanel({
  form: $("toolform"), list: $("toollist"), error: $("toolerror"), saved: $("toolsaved"),
  calls: $("calls"), empty: $("no-calls"), typed: $("canned"),
}, callsWait);
const wire = new WireView({
  box: $("wire"), count: $("wire-count"), filter: $("filter"), sent: $("show-sent"),
  came: $("show-came"), sound: $("show-sound"), copy: $("copy-events"), save: $("save-events"),
});
const shelf = new Shelf($("shelf"), $("saves").querySelectorAll("button"), display);
const press = new PressButton($("press"), (held) => {
  if (held) live?.conversation.press();
  else live?.conversation.release();
});
let live = null; // the record of the conversation that is going on
let countdown = 0;
let view = "talk";

function display(record) {
  captions.show(record.conversation.transcript.entries);
  waterfall.show(record.conversation.turns.all);
  wire.show(record.log);
}

/** Begin a conversation. With what is typed first, nobody is asked for a microphone. */
async function begin(firstWords = "") {
  if (KEYED && !keys.key) return askKey("Whoever runs it has one for you.", firstWords);
  leave();
  const conversation = new Conversation({
    ...settings.values, url: location.href, key: keys.key, tools: tools.tools,
  });
  const record = { conversation, log: new Log() };
  live = record;
  shelf.add(record);
  const seen = () => shelf.current === record;
  conversation.on("status", (status) => live === record && follow(status, firstWords));
  conversation.on("event", (one) => {
    const line = record.log.add(one);
    if (seen()) wire.added(line);
    if (one.event.type === "session.updated") granted(record, one.event.session);
  });
  conversation.on("transcript", (entry) => {
    if (seen()) captions.update(entry);
    if (entry.role === "user" && entry.state === "done") shelf.draw();
  });
  conversation.on("turn", () => seen() && view === "timeline" && soon(record));
  conversation.on("level", (levels) => live === record && measure(levels));
  conversation.on("problem", (sentence) => live === record && banner.problem(sentence));
  conversation.on("microphone", () => live === record && buttons(conversation));
  banner.clear();
  const started = conversation.start({ speech: !firstWords });
  if (firstWords) conversation.say(firstWords);
  await started;
  settings.offerMicrophones();
}

/** Tell, once, where the server gives something else than was asked for. */
function granted(record, session) {
  if (record.granted) return;
  record.granted = true;
  const { settings: asked, transcript } = record.conversation;
  for (const sentence of differences(asked, session)) transcript.note(sentence);
}

let drawing = 0;

/** Draw the turns, once for all the changes of a moment. */
function soon(record) {
  if (drawing) return;
  drawing = requestAnimationFrame(() => {
    drawing = 0;
    if (shelf.current === record) waterfall.show(record.conversation.turns.all);
  });
}

function leave() {
  live?.conversation.stop();
  live = null;
}

function follow({ state, sentence, seconds, reason }, firstWords) {
  clearInterval(countdown);
  const { conversation } = live;
  $("status").dataset.state = state;
  const waits = state === "connecting" && sentence; // for somebody to allow something
  $("status").textContent = waits || (WORDS[state] ?? "Connection lost");
  buttons(conversation);
  if (state === "live") banner.clear("connection");
  else tools.giveUp();
  if (state === "waiting") wait(sentence, seconds, conversation);
  if (state === "ended") ended(reason, sentence, firstWords);
}

function buttons({ state, handsFree, hears, muted }) {
  const running = busy();
  const ready = state === "live";
  if (!ready) press.release();
  $("go").textContent = running ? "End" : "Start talking";
  $("go").classList.toggle("ends", running);
  $("hear").hidden = !ready || hears;
  $("press").hidden = !running || handsFree || !hears;
  $("mute").hidden = !running || !handsFree || !hears;
  $("mute").setAttribute("aria-pressed", String(muted));
  $("hush").hidden = !running;
  for (const id of ["press", "mute", "hush"]) $(id).disabled = !ready;
  const onGo = document.activeElement === $("go"); // where the space bar would end all
  if (ready && onGo && !$("press").hidden) $("press").focus();
}

/** The network is gone: say so, and when the next attempt is. */
function wait(sentence, seconds, conversation) {
  const until = performance.now() + seconds * 1000;
  const tell = () => {
    banner.count(`in ${Math.max(0, Math.ceil((until - performance.now()) / 1000))} s.`);
  };
  banner.say("connection", `${sentence} Trying again`, "Try now", () => conversation.retry());
  tell();
  countdown = setInterval(tell, 1000);
}

/** The conversation is over for good: the server ended it, or somebody here did. */
function ended(reason, sentence, firstWords) {
  if (!live.conversation.session) $("text").value ||= firstWords; // nobody has heard them
  if (reason === "key") {
    askKey(sentence, takeText());
  } else if (sentence) {
    const whole = reason === "expired" ? `The session has ended: ${sentence}` : sentence;
    banner.say("connection", whole, "New conversation", () => begin());
  } else {
    banner.clear();
  }
}

async function askKey(sentence, firstWords) {
  if (await keys.ask(sentence)) {
    offer();
    begin(firstWords);
    return;
  }
  $("text").value ||= firstWords;
  const again = () => begin(takeText());
  banner.say("connection", "Without a key this server does not talk.", "Enter a key", again);
}

/** Calls of functions wait for somebody to type the answer: say so in every view. */
function callsWait(names) {
  $("tools-waiting").textContent = names.length ? ` (${names.length} waiting)` : "";
  if (!names.length) return banner.clear("call");
  if (view === "tools") return tools.answer();
  banner.say("call", `The answer to ${names.at(-1)} is yours to type.`, "Answer", () => {
    banner.clear("call");
    $("tab-tools").click();
    tools.answer();
  });
}

function measure(levels) {
  strip.add(levels);
  $("mine").value = level(levels.mine);
  $("theirs").value = level(levels.theirs);
}

/** What can be chosen by name; a server that wants a key is asked again when it has one. */
async function offer() {
  if (KEYED && !keys.key) return;
  try {
    await settings.offer(keys.key);
  } catch (problem) {
    const expected = problem instanceof KeyNeeded || problem instanceof TypeError;
    if (!expected) throw problem; // no key, or no network: names can be typed
  }
}

const busy = () => Boolean(live) && !["idle", "ended"].includes(live.conversation.state);

$("go").addEventListener("click", () => (busy() ? live.conversation.stop() : begin()));
$("fresh").addEventListener("click", () => begin());
$("hush").addEventListener("click", () => live?.conversation.interrupt());
document.addEventListener("keydown", ({ key }) => {
  if (key === "Escape" && !$("keybox").open) live?.conversation.interrupt();
});
$("hear").addEventListener("click", async () => {
  banner.clear("problem");
  await live.conversation.listen();
  settings.offerMicrophones();
});
$("mute").addEventListener("click", () => {
  live.conversation.muted = !live.conversation.muted;
  buttons(live.conversation);
});
$("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = takeText();
  if (!text) return;
  if (!busy()) begin(text);
  else {
    if (shelf.current !== live) shelf.show(live);
    live.conversation.say(text);
  }
});

function takeText() {
  const text = $("text").value.trim();
  $("text").value = "";
  return text;
}

window.addEventListener("pagehide", () => live?.conversation.stop()); // the microphone is let go

$("save-text").addEventListener("click", () => shelf.saveText());
$("save-json").addEventListener("click", () => shelf.saveJson());
$("save-wav").addEventListener("click", () => shelf.saveWav());

tabs(document.querySelector("[role=tablist]"), (name) => {
  view = name;
  wire.visible = name === "timeline";
  if (name === "tools") banner.clear("call");
  if (shelf.current) waterfall.show(shelf.current.conversation.turns.all);
});
theme($("theme"));
if (NARROW.matches) {
  $("settings-fold").open = false;
  $("shelf-fold").open = false;
}
offer();
