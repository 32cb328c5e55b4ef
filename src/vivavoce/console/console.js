/** The console: what people press, and what they see of a Conversation. */
import { KeyNeeded } from "./access.js";
import { Banner } from "./banner.js";
import { Captions } from "./captions.js";
import { Conversation } from "./client.js";
import { $ } from "./dom.js";
import { SettingsForm } from "./form.js";
import { KeyBox } from "./keybox.js";
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
const NARROW = matchMedia("(max-width: 760px)");

const settings = new SettingsForm($("settings"));
const keys = new KeyBox({
  dialog: $("keybox"), form: $("keyform"), field: $("key"), why: $("keywhy"), no: $("nokey"),
});
const banner = new Banner($("banner"), $("banner-text"), $("banner-count"), $("banner-act"));
const captions = new Captions($("captions"), $("welcome"));
const strip = new Strip($("strip"));
const waterfall = new Waterfall($("falls"), $("no-falls"));
const tools = new ToolPanel({
  form: $("toolform"), list: $("toollist"), error: $("toolerror"), calls: $("calls"),
  empty: $("no-calls"),
});
const wire = new WireView({
  box: $("wire"), count: $("wire-count"), filter: $("filter"), sent: $("show-sent"),
  came: $("show-came"), sound: $("show-sound"), copy: $("copy-events"), save: $("save-events"),
});
const shelf = new Shelf($("shelf"), display);
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
  });
  conversation.on("transcript", (entry) => {
    if (seen()) captions.update(entry);
    if (entry.role === "user" && entry.state === "done") shelf.draw();
  });
  conversation.on("turn", () => seen() && view === "timeline" && soon(record));
  conversation.on("level", (levels) => live === record && measure(levels));
  conversation.on("problem", (sentence) => banner.say(sentence, "Dismiss", () => banner.clear()));
  banner.clear();
  await conversation.start({ speech: !firstWords });
  settings.offerMicrophones();
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
  $("status").textContent = WORDS[state] ?? "Connection lost";
  buttons(state, conversation.handsFree);
  if (state === "live") {
    banner.clear();
    if (firstWords && !conversation.transcript.entries.length) conversation.say(firstWords);
  }
  if (state === "waiting") wait(sentence, seconds, conversation);
  if (state === "ended") ended(reason, sentence, firstWords);
}

function buttons(state, handsFree) {
  const running = ["connecting", "live", "waiting"].includes(state);
  $("go").textContent = running ? "End" : "Start talking";
  $("go").classList.toggle("ends", running);
  $("press").hidden = !running || handsFree;
  $("mute").hidden = !running || !handsFree;
  $("mute").setAttribute("aria-pressed", "false");
  $("mute").textContent = "Mute";
  $("hush").hidden = !running;
  for (const id of ["press", "mute", "hush"]) $(id).disabled = state !== "live";
}

/** The network is gone: say so, and when the next attempt is. */
function wait(sentence, seconds, conversation) {
  const until = performance.now() + seconds * 1000;
  const tell = () => {
    banner.count(`in ${Math.max(0, Math.ceil((until - performance.now()) / 1000))} s.`);
  };
  banner.say(`${sentence} Trying again`, "Try now", () => conversation.retry());
  tell();
  countdown = setInterval(tell, 1000);
}

/** The conversation is over for good: the server ended it, or somebody here did. */
async function ended(reason, sentence, firstWords) {
  if (reason === "key") {
    if (await keys.ask(sentence)) {
      offer();
      begin(firstWords);
    } else banner.say("Without a key this server does not talk.", "Enter a key", () => begin());
  } else if (reason === "expired") {
    banner.say(`The session has ended: ${sentence}`, "New conversation", () => begin());
  } else if (sentence) {
    banner.say(sentence, "New conversation", () => begin());
  }
}

function measure(levels) {
  strip.add(levels);
  $("mine").value = level(levels.mine);
  $("theirs").value = level(levels.theirs);
}

/** What can be chosen by name; a server that wants a key is asked again when it has one. */
async function offer() {
  try {
    await settings.offer(keys.key);
  } catch (problem) {
    const expected = problem instanceof KeyNeeded || problem instanceof TypeError;
    if (!expected) throw problem; // no key, or no network: names can be typed
  }
}

const busy = () => live && !["idle", "ended"].includes(live.conversation.state);

$("go").addEventListener("click", () => (busy() ? live.conversation.stop() : begin()));
$("fresh").addEventListener("click", () => begin());
$("hush").addEventListener("click", () => live?.conversation.interrupt());
$("mute").addEventListener("click", ({ currentTarget: button }) => {
  const muted = button.getAttribute("aria-pressed") !== "true";
  live.conversation.muted = muted;
  button.setAttribute("aria-pressed", String(muted));
  button.textContent = muted ? "Muted" : "Mute";
});
$("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  $("text").value = "";
  if (busy()) live.conversation.say(text);
  else begin(text);
});

function hold(held) {
  $("press").classList.toggle("held", held);
  $("press").textContent = held ? "Listening …" : "Hold to talk";
  if (held) live?.conversation.press();
  else live?.conversation.release();
}

$("press").addEventListener("pointerdown", (event) => {
  event.currentTarget.setPointerCapture(event.pointerId);
  hold(true);
});
$("press").addEventListener("pointerup", () => hold(false));
$("press").addEventListener("pointercancel", () => hold(false));
for (const [name, held] of [["keydown", true], ["keyup", false]]) {
  $("press").addEventListener(name, (event) => {
    if (![" ", "Enter"].includes(event.key) || event.repeat) return;
    event.preventDefault();
    hold(held);
  });
}
$("save-text").addEventListener("click", () => shelf.saveText());
$("save-json").addEventListener("click", () => shelf.saveJson());
$("save-wav").addEventListener("click", () => shelf.saveWav());

tabs(document.querySelector("[role=tablist]"), (name) => {
  view = name;
  wire.visible = name === "timeline";
  if (shelf.current) waterfall.show(shelf.current.conversation.turns.all);
});
theme($("theme"));
if (NARROW.matches) {
  $("settings-fold").open = false;
  $("shelf-fold").open = false;
}
offer();
