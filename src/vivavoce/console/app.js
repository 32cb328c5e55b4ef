/** The console: connects the page to a Conversation. */
import { Conversation } from "./client.js";
import { ConversationList, TranscriptView } from "./conversations.js";
import { meterLevel } from "./audio.js";
import { KeyDialog, SettingsForm } from "./settings_form.js";
import { KeyNeeded, substitutions } from "./state.js";
import { EventLog, EventView, Waterfall } from "./timeline.js";
import { ToolPanel } from "./tools.js";
import { meterOf, UsageView } from "./usage.js";
import { $, Banner, LevelChart, PushToTalkButton, setUpTabs, setUpTheme } from "./ui.js";

const STATUS = {
  idle: "Not connected", connecting: "Connecting …", live: "Connected", waiting: "Connection lost",
  ended: "Ended",
};
const NEEDS_KEY = "keyed" in document.documentElement.dataset; // the server has API keys
const NARROW = matchMedia("(max-width: 760px)");

const settings = new SettingsForm($("settings"), $("settings-error"));
const keys = new KeyDialog({
  dialog: $("key-dialog"), form: $("key-form"), field: $("key"), reason: $("key-reason"),
  cancel: $("key-cancel"),
});
const banner = new Banner({
  box: $("banner"), text: $("banner-text"), countdown: $("banner-countdown"),
  button: $("banner-action"),
});
const transcript = new TranscriptView($("captions"), $("welcome"), $("announcer"));
const levelChart = new LevelChart($("level-chart"));
const waterfall = new Waterfall($("turn-list"), $("no-turns"));
const tools = new ToolPanel({
  form: $("tool-form"), list: $("tool-list"), error: $("tool-error"), saved: $("tool-saved"),
  calls: $("calls"), empty: $("no-calls"), fixedResult: $("fixed-result"),
}, showWaitingCalls);
const events = new EventView({
  box: $("event-log"), count: $("event-count"), filter: $("filter"), sent: $("show-sent"),
  received: $("show-received"), audio: $("show-audio"), copy: $("copy-events"),
  download: $("download-events"),
});
const list = new ConversationList($("conversations"), {
  text: $("download-text"), json: $("download-json"), wav: $("download-wav"),
}, showRecord);
const pushToTalk = new PushToTalkButton($("push-to-talk"), (pressed) => {
  if (pressed) live?.conversation.press();
  else live?.conversation.release();
});
const usage = new UsageView({
  box: $("usage-plots"), days: $("usage-days"), status: $("usage-status"), key: () => keys.key,
});
let live = null; // the record {conversation, events} of the last conversation that was begun
let countdown = 0;
let tab = "talk";
let drawing = 0; // requested animation frame

const isRunning = () => Boolean(live) && !["idle", "ended"].includes(live.conversation.state);

function showRecord({ conversation, events: log, used = "" }) {
  $("meter").textContent = used;
  transcript.show(conversation.transcript.entries);
  waterfall.show(conversation.turns.all);
  events.show(log);
}

/** Begin a conversation. With a first text message it does not ask for a microphone. */
async function begin(text = "") {
  if (NEEDS_KEY && !keys.key) {
    return askKey(
      "Ask the person who runs this server. Operators: vivavoce keys new NAME.", text,
    );
  }
  live?.conversation.stop();
  live = null;
  const conversation = new Conversation({
    ...settings.values, url: location.href, key: keys.key, tools: tools.tools,
  });
  const record = { conversation, events: new EventLog() };
  live = record;
  levelChart.clear();
  list.add(record);
  observe(record, text);
  banner.clear();
  const started = conversation.start({ speech: !text });
  if (text) conversation.say(text);
  await started;
  settings.offerMicrophones();
}

/** Show what a conversation reports. */
function observe(record, text) {
  const { conversation } = record;
  const isShown = () => list.current === record;
  const isLive = () => live === record;
  conversation.on("status", (status) => isLive() && onStatus(status, text));
  conversation.on("event", (one) => {
    const line = record.events.add(one);
    if (isShown()) events.add(line);
    if (one.event.type === "session.updated") noteSubstitutions(record, one.event.session);
    if (one.event.x_usage) {
      record.used = meterOf(one.event.x_usage);
      if (isShown()) $("meter").textContent = record.used;
    }
  });
  conversation.on("transcript", (entry) => {
    if (isShown()) transcript.update(entry);
    if (entry.role === "user" && entry.state === "done") list.draw();
  });
  conversation.on("turn", () => isShown() && tab === "timeline" && drawTurns(record));
  conversation.on("level", (levels) => isLive() && showLevels(levels));
  conversation.on("problem", (sentence) => isLive() && banner.showProblem(sentence));
  conversation.on("microphone", () => isLive() && updateControls());
}

/** Note once in the transcript which model or voice the server uses in place of another. */
function noteSubstitutions(record, session) {
  if (record.noted) return;
  record.noted = true;
  const { settings: requested, transcript: target } = record.conversation;
  for (const sentence of substitutions(requested, session)) target.addNote(sentence);
}

/** Draw the turns, once for all changes before the next frame. */
function drawTurns(record) {
  drawing ||= requestAnimationFrame(() => {
    drawing = 0;
    if (list.current === record) waterfall.show(record.conversation.turns.all);
  });
}

function onStatus({ state, sentence, seconds, reason }, text) {
  clearInterval(countdown);
  $("status").dataset.state = state;
  updateControls(state === "connecting" ? sentence : "");
  list.draw();
  if (state === "live") banner.clear("connection");
  else tools.abandonCalls();
  if (state === "waiting") showCountdown(sentence, seconds);
  if (state === "ended") onEnd(reason, sentence, text);
}

/** Show the state of the live conversation in the status line and the buttons. */
function updateControls(status = "") {
  const { state, handsFree, hears, muted } = live.conversation;
  const running = isRunning();
  const ready = state === "live";
  if (!ready) pushToTalk.release();
  $("status").textContent = status || STATUS[state] + (ready && hears && muted ? ", muted" : "");
  $("start").textContent = running ? "End" : "Start talking";
  $("start").classList.toggle("running", running);
  $("new-conversation").textContent = running ? "End and start new" : "New conversation";
  $("use-microphone").hidden = !ready || hears;
  $("push-to-talk").hidden = !running || handsFree || !hears;
  $("mute").hidden = !running || !handsFree || !hears;
  $("mute").setAttribute("aria-pressed", String(muted));
  $("interrupt").hidden = !running;
  for (const id of ["push-to-talk", "mute", "interrupt"]) $(id).disabled = !ready;
  const onStart = document.activeElement === $("start"); // the space bar would press "End"
  if (ready && onStart && !$("push-to-talk").hidden) $("push-to-talk").focus();
  showWelcome(state, hears, handsFree);
}

/** The heading of an empty transcript. */
function showWelcome(state, hears, handsFree) {
  const listening = handsFree ? "Say something." : "Hold the button and speak.";
  const [heading, text] = {
    live: [
      hears ? listening : "Type a message",
      "You can interrupt an answer at any time.",
    ],
    connecting: ["Connecting …", ""],
    waiting: ["No connection", "You can type. The message is sent when the server is back."],
    ended: ["The conversation has ended", "Press Start, or type a message."],
  }[state];
  $("welcome-heading").textContent = heading;
  $("welcome-text").textContent = text;
}

/** Show that the connection is lost, and when the next attempt is. */
function showCountdown(sentence, seconds) {
  const { conversation } = live;
  const until = performance.now() + seconds * 1000;
  const update = () => {
    const left = Math.max(0, Math.ceil((until - performance.now()) / 1000));
    banner.setCountdown(`in ${left} s.`);
  };
  banner.show("connection", `${sentence} Retrying`, "Try now", () => conversation.retry());
  update();
  countdown = setInterval(update, 1000);
}

function onEnd(reason, sentence, text) {
  if (!live.conversation.session) $("text").value ||= text; // it was never sent
  if (reason === "key") {
    askKey(sentence, takeText());
  } else if (sentence) {
    const whole = reason === "expired" ? `The session has ended: ${sentence}` : sentence;
    banner.show("connection", whole, "New conversation", () => begin());
  } else {
    banner.clear();
  }
}

/** Ask for an API key, then begin. */
async function askKey(reason, text) {
  if (await keys.ask(reason)) {
    offerNames();
    begin(text);
    return;
  }
  $("text").value ||= text;
  const again = () => begin(takeText());
  banner.show("connection", "This server needs an API key.", "Enter a key", again);
}

/** Show in every tab that tool calls wait for a typed result. */
function showWaitingCalls(names) {
  $("tools-waiting").textContent = names.length ? ` (${names.length} waiting)` : "";
  if (!names.length) return banner.clear("call");
  if (tab === "tools") return tools.focusCall();
  banner.show("call", `${names.at(-1)} is waiting for your result.`, "Enter result", () => {
    banner.clear("call");
    $("tab-tools").click();
    tools.focusCall();
  });
}

function showLevels(levels) {
  levelChart.add(levels);
  for (const [id, rms] of [["user-level", levels.mine], ["assistant-level", levels.theirs]]) {
    $(id).value = meterLevel(rms);
    $(id).setAttribute("aria-valuetext", `${Math.round(meterLevel(rms) * 100)} %`);
  }
}

/** Offer the server's models and voices; with API keys, once there is a key. */
async function offerNames() {
  if (NEEDS_KEY && !keys.key) return;
  try {
    await settings.offerNames(keys.key);
  } catch (error) {
    const expected = error instanceof KeyNeeded || error instanceof TypeError; // or no network
    if (!expected) throw error;
  }
}

function takeText() {
  const text = $("text").value.trim();
  $("text").value = "";
  return text;
}

$("start").addEventListener("click", () => (isRunning() ? live.conversation.stop() : begin()));
$("new-conversation").addEventListener("click", () => begin());
$("interrupt").addEventListener("click", () => live?.conversation.interrupt());
document.addEventListener("keydown", ({ key }) => {
  if (key === "Escape" && !keys.open) live?.conversation.interrupt();
});
$("use-microphone").addEventListener("click", async () => {
  banner.clear("problem");
  await live.conversation.listen();
  settings.offerMicrophones();
});
$("mute").addEventListener("click", () => {
  live.conversation.muted = !live.conversation.muted;
  updateControls();
});
$("text-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = takeText();
  if (!text) return;
  if (!isRunning()) return begin(text);
  if (list.current !== live) list.show(live);
  live.conversation.say(text);
});
window.addEventListener("pagehide", () => live?.conversation.stop()); // frees the microphone

setUpTabs(document.querySelector("[role=tablist]"), (name) => {
  tab = name;
  events.visible = name === "timeline";
  if (name === "tools") banner.clear("call");
  if (name === "usage") usage.show();
  if (list.current) waterfall.show(list.current.conversation.turns.all);
});
setUpTheme($("theme"));
for (const id of ["settings-section", "conversations-section"]) {
  if (NARROW.matches) $(id).open = false;
  $(id).addEventListener("toggle", () => {
    if (NARROW.matches && $(id).open) $(id).scrollIntoView({ block: "start" }); // it is below
  });
}
offerNames();
