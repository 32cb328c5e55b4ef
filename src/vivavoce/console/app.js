/** The console: connects the page to a Conversation. */
import { AboutPanel } from "./about.js";
import { Archive } from "./archive.js";
import { meterLevel } from "./audio.js";
import { Conversation } from "./client.js";
import { CompareDialog } from "./compare.js";
import { ConversationList } from "./conversations.js";
import { DeviceCheck } from "./device_check.js";
import { PresetPicker, settingsOf, shareable } from "./presets.js";
import { offerRecordings } from "./recording.js";
import { Replay } from "./replay.js";
import { SessionsView } from "./sessions_view.js";
import { KeyDialog, SettingsForm } from "./settings_form.js";
import { Shortcuts } from "./shortcuts.js";
import { CodeDialog } from "./snippets.js";
import { Spending, spendingOf, usageLine } from "./spending.js";
import { KeyNeeded, substitutions } from "./state.js";
import { StatusLine } from "./status_line.js";
import { EventLog, EventView } from "./timeline.js";
import { resultForm, ToolPanel } from "./tools.js";
import { TranscriptView } from "./transcript_view.js";
import { UsageView } from "./usage.js";
import { $, Banner, LevelChart, make, PushToTalkButton, setUpTabs, setUpTheme } from "./ui.js";
import { VoicePicker } from "./voices.js";
import { waitOf } from "./waits.js";
import { Waterfall } from "./waterfall.js";

const NEEDS_KEY = "keyed" in document.documentElement.dataset; // the server has API keys
const NARROW = matchMedia("(max-width: 760px)");

const settings = new SettingsForm($("settings"), {
  error: $("settings-error"), hint: $("settings-hint"), apply: $("apply"),
});
const keys = new KeyDialog({
  dialog: $("key-dialog"), form: $("key-form"), field: $("key"), reason: $("key-reason"),
  cancel: $("key-cancel"),
});
const banner = new Banner({
  box: $("banner"), text: $("banner-text"), countdown: $("banner-countdown"),
  button: $("banner-action"),
});
const statusLine = new StatusLine({
  box: $("status"), text: $("status-text"), announcer: $("state-announcer"),
  serving: $("serving"), announce: $("announce-states"),
});
const about = new AboutPanel({
  box: $("about"), engines: $("engines"), connect: $("connect"), code: $("connect-code"),
  copy: $("connect-copy"), probed: $("connect-probed"),
});
const transcript = new TranscriptView(
  { box: $("captions"), welcome: $("welcome"), announcer: $("announcer") },
  { waitFor, onPlay: (entry, index) => replay.playFrom(entry, index) },
);
const replay = new Replay(
  { box: $("replay"), audio: $("replay-audio"), lanes: $("replay-lanes") }, transcript,
);
const levelChart = new LevelChart($("level-chart"));
const waterfall = new Waterfall(
  { list: $("turn-list"), empty: $("no-turns"), summary: $("waits"), spark: $("spark"), log: $("log-scale") },
  (turn, next) => {
    events.showTurn(turn, next);
    $("events").scrollIntoView({ block: "start" });
    $("event-log").focus({ preventScroll: true });
  },
);
const tools = new ToolPanel({
  form: $("tool-form"), list: $("tool-list"), error: $("tool-error"), saved: $("tool-saved"),
  calls: $("calls"), empty: $("no-calls"), fixedResult: $("fixed-result"),
  nameError: $("tool-name-error"), template: $("tool-template"), trial: $("try-tool"),
  trialArgs: $("trial-args"), trialResult: $("trial-result"), importFile: $("import-file"),
  importButton: $("import-tools"), exportButton: $("export-tools"),
}, showWaitingCalls);
const events = new EventView({
  box: $("event-log"), count: $("event-count"), filter: $("filter"), sent: $("show-sent"),
  received: $("show-received"), audio: $("show-audio"), copy: $("copy-events"),
  download: $("download-events"), range: $("event-range"),
});
const archive = new Archive();
const list = new ConversationList({
  list: $("conversations"), search: $("search"), keep: $("keep"), clear: $("delete-all"),
  downloads: { text: $("download-text"), json: $("download-json"), wav: $("download-wav") },
}, archive, showRecord);
const pushToTalk = new PushToTalkButton($("push-to-talk"), (pressed) => {
  if (pressed) live?.conversation.press();
  else live?.conversation.release();
});
const usage = new UsageView({
  box: $("usage-plots"), days: $("usage-days"), status: $("usage-status"), csv: $("usage-csv"),
  waits: $("usage-waits"), key: () => keys.key, bodies: () => archive.bodies(),
});
const sessions = new SessionsView({
  status: $("sessions-status"), table: $("sessions-table"), rows: $("sessions-rows"),
  key: () => keys.key,
  watch: {
    box: $("watch"), title: $("watch-title"), state: $("watch-state"), speech: $("watch-speech"),
    hint: $("watch-hint"), captions: $("watch-captions"), stop: $("watch-stop"),
  },
});
const deviceCheck = new DeviceCheck({
  dialog: $("check-dialog"), level: $("check-level"), record: $("check-record"),
  status: $("check-status"),
}, settings);
const voices = new VoicePicker({
  dialog: $("voices-dialog"), search: $("voices-search"), list: $("voices-list"),
  status: $("voices-status"),
}, (voice) => settings.set({ ...settings.values, voice }));
const compare = new CompareDialog({
  dialog: $("compare-dialog"), form: $("compare-form"), source: $("compare-source"),
  text: $("compare-text"), run: $("compare-run"), close: $("compare-close"),
  status: $("compare-status"), results: $("compare-results"),
}, { settings: () => settings.values, key: () => keys.key, spoken: lastSpoken });
const code = new CodeDialog({
  dialog: $("code-dialog"), kind: $("code-kind"), code: $("code"), copy: $("code-copy"),
});
new PresetPicker({
  list: $("preset"), save: $("preset-save"), remove: $("preset-remove"), name: $("preset-name"),
  link: $("copy-link"),
}, settings);
offerRecordings(
  { button: $("open-recording"), file: $("recording-file") },
  (record) => list.add(record), (sentence) => banner.showProblem(sentence),
);
let live = null; // the record {conversation, events} of the last conversation that was begun
let countdown = 0;
let tab = "talk";
let drawing = 0; // requested animation frame

const isRunning = () => Boolean(live) && !["idle", "ended"].includes(live.conversation.state);

function showRecord(record) {
  const { conversation, events: log } = record;
  record.spending ??= spendingOf(log.lines);
  transcript.show(conversation.transcript.entries);
  waterfall.show(conversation);
  events.show(log);
  replay.show(conversation);
  showUsage(record);
}

/** The ms to the first sound of an answer in the conversation that is shown. */
function waitFor({ response }) {
  const turns = list.current?.conversation?.turns.all ?? [];
  const turn = response && turns.find(({ responses }) => responses[0] === response);
  return turn ? waitOf(turn) : undefined;
}

function showUsage({ conversation, spending }) {
  $("usage-line").textContent = usageLine(conversation, spending);
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
  const record = { conversation, events: new EventLog(), spending: new Spending() };
  live = record;
  levelChart.clear();
  list.add(record);
  observe(record, text);
  banner.clear();
  const started = conversation.start({ speech: !text });
  if (text) conversation.say(text);
  await started;
  settings.offerDevices();
}

/** Show what a conversation reports. */
function observe(record, text) {
  const { conversation } = record;
  const isShown = () => list.current === record;
  const isLive = () => live === record;
  conversation.on("status", (status) => {
    if (isLive()) onStatus(status, text);
    if (status.state !== "ended") return;
    list.save(record);
    if (isShown()) replay.show(conversation);
  });
  conversation.on("activity", () => isLive() && updateControls());
  conversation.on("event", (one) => {
    const line = record.events.add(one);
    if (isShown()) events.add(line);
    if (one.event.type === "session.updated") noteSubstitutions(record, one.event.session);
    if (!one.sent && record.spending.feed(one.event) && isShown()) showUsage(record);
  });
  conversation.on("transcript", (entry) => {
    if (isShown()) transcript.update(entry);
    if (entry.role === "user" && entry.state === "done") list.draw();
    if (entry.state !== "open") list.save(record);
  });
  conversation.on("turn", () => {
    if (isLive()) statusLine.show(conversation);
    if (isShown() && tab === "timeline") drawTurns(record);
  });
  conversation.on("level", (levels) => isLive() && showLevels(levels));
  conversation.on("problem", (sentence) => isLive() && banner.showProblem(sentence));
  conversation.on("microphone", () => isLive() && updateControls());
  conversation.on("silence", (label) => isLive() && banner.showProblem(
    `We hear nothing from ${label ? `“${label}”` : "the microphone"}. `
    + "Is it muted in the system? Choose another in the settings.",
  ));
}

/** Note once in the transcript which model or voice the server uses in place of another. */
function noteSubstitutions(record, session) {
  statusLine.show(record.conversation);
  if (record.noted) return;
  record.noted = true;
  const { settings: requested, transcript: target } = record.conversation;
  for (const sentence of substitutions(requested, session)) target.addNote(sentence);
}

/** Draw the turns, once for all changes before the next frame. */
function drawTurns(record) {
  drawing ||= requestAnimationFrame(() => {
    drawing = 0;
    if (list.current === record) waterfall.show(record.conversation);
  });
}

function onStatus({ state, sentence, seconds, reason }, text) {
  clearInterval(countdown);
  updateControls(state === "connecting" ? sentence : "");
  list.draw();
  settings.compareWith(isRunning() ? live.conversation.settings : null);
  if (state === "live") banner.clear("connection");
  else tools.abandonCalls();
  if (state === "waiting") showCountdown(sentence, seconds);
  if (state === "ended") onEnd(reason, sentence, text);
}

/** Show the state of the live conversation in the status line and the buttons. */
function updateControls(sentence = "") {
  const { conversation } = live;
  const { state, handsFree, hears, muted } = conversation;
  const running = isRunning();
  const ready = state === "live";
  if (!ready) pushToTalk.release();
  statusLine.show(conversation, sentence);
  $("start").textContent = running ? "End" : "Start talking";
  $("start").classList.toggle("running", running);
  $("new-conversation").textContent = running ? "End and start new" : "New conversation";
  $("use-microphone").hidden = !ready || hears;
  $("push-to-talk").hidden = !running || handsFree || !hears;
  for (const id of ["mute", "dock-mute"]) {
    $(id).hidden = !running || !handsFree || !hears;
    $(id).setAttribute("aria-pressed", String(muted));
  }
  $("interrupt").hidden = !running;
  for (const id of ["push-to-talk", "mute", "dock-mute", "interrupt", "dock-interrupt"]) {
    $(id).disabled = !ready;
  }
  $("dock").hidden = !running || tab === "talk";
  $("chips").hidden = running;
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
    loadLists();
    begin(text);
    return;
  }
  $("text").value ||= text;
  const again = () => begin(takeText());
  banner.show("connection", "This server needs an API key.", "Enter a key", again);
}

/** Show in every tab that tool calls wait for a typed result, and in the transcript a form. */
function showWaitingCalls(calls) {
  for (const call of calls) {
    transcript.showForm(call.callId, () => resultForm(call.name, call.answer));
  }
  const names = calls.map(({ name }) => name);
  // the number alone keeps the tabs of a phone on one line
  $("tools-waiting").replaceChildren(...(names.length ? [
    make("span", { "aria-hidden": "true" }, ` (${names.length})`),
    make("span", { class: "visually-hidden" }, ` (${names.length} waiting)`),
  ] : []));
  if (!names.length) return banner.clear("call");
  banner.clear("call");
  if (tab === "tools") return tools.focusCall();
  if (tab === "talk") return; // its form is in the transcript
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

/** What the server offers: models, voices, engines; with API keys, once there is a key. */
async function loadLists() {
  if (NEEDS_KEY && !keys.key) return;
  try {
    await Promise.all([settings.offerNames(keys.key), about.load(keys.key)]);
  } catch (error) {
    const expected = error instanceof KeyNeeded || error instanceof TypeError; // or no network
    if (!expected) throw error;
  }
}

async function showVersion() {
  const health = await fetch("/health").then((response) => response.json()).catch(() => null);
  if (health) $("version").textContent = `Vivavoce ${health.version}`;
}

/** Offer the settings of a link. */
function offerLink() {
  const linked = settingsOf(location.hash);
  if (!linked) return;
  const count = Object.keys(shareable(linked)).length;
  $("link-text").textContent = `This link sets ${count} ${count === 1 ? "setting" : "settings"}.`;
  $("link-banner").hidden = false;
  const close = () => {
    $("link-banner").hidden = true;
    history.replaceState(null, "", location.pathname + location.search);
  };
  $("link-use").onclick = () => {
    const { device, speaker } = settings.values;
    settings.set({ ...linked, device, speaker });
    close();
  };
  $("link-ignore").onclick = close;
}

/** What the user said last in the conversation that is shown: {entry, file}, or null. */
function lastSpoken() {
  const conversation = list.current?.conversation;
  const entry = conversation?.transcript.entries.findLast(
    ({ role, text, sound }) => role === "user" && text && sound,
  );
  const file = entry && conversation.tape.file();
  return file ? { entry, file } : null;
}

function takeText() {
  const text = $("text").value.trim();
  $("text").value = "";
  return text;
}

function toggleMute() {
  if (!isRunning() || !live.conversation.hears) return;
  live.conversation.muted = !live.conversation.muted;
  updateControls();
}

const toggle = () => (isRunning() ? live.conversation.stop() : begin());
const interrupt = () => live?.conversation.interrupt();

$("start").addEventListener("click", toggle);
$("dock-end").addEventListener("click", toggle);
$("new-conversation").addEventListener("click", () => begin());
$("interrupt").addEventListener("click", interrupt);
$("dock-interrupt").addEventListener("click", interrupt);
$("mute").addEventListener("click", toggleMute);
$("dock-mute").addEventListener("click", toggleMute);
$("use-microphone").addEventListener("click", async () => {
  banner.clear("problem");
  await live.conversation.listen();
  settings.offerDevices();
});
$("chips").addEventListener("click", ({ target }) => {
  if (target.closest("button")) begin(target.textContent);
});
$("apply").addEventListener("click", async () => {
  const { conversation } = live;
  await conversation.apply(settings.values);
  settings.compareWith(isRunning() ? conversation.settings : null);
  updateControls();
});
$("show-code").addEventListener("click", () => {
  const base = new URL("/", location.href).href;
  code.open({ settings: settings.values, tools: tools.tools, base, keyed: NEEDS_KEY });
});
$("check-microphone").addEventListener("click", () => deviceCheck.open());
$("browse-voices").addEventListener("click", () => voices.open(keys.key, settings.values.model));
$("compare").addEventListener("click", () => compare.open());
$("help").addEventListener("click", () => $("help-dialog").showModal());
$("text-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = takeText();
  if (!text) return;
  if (!isRunning()) return begin(text);
  if (list.current !== live) list.show(live);
  live.conversation.say(text);
});
window.addEventListener("pagehide", () => live?.conversation.stop()); // frees the microphone
window.addEventListener("beforeunload", (event) => {
  if (isRunning()) event.preventDefault(); // the browser asks
});
window.addEventListener("hashchange", offerLink);

setUpTabs(document.querySelector("[role=tablist]"), (name) => {
  tab = name;
  events.visible = name === "timeline";
  $("dock").hidden = !isRunning() || name === "talk";
  showWaitingCalls(tools.waiting);
  if (name === "usage") usage.show();
  sessions.visible = name === "sessions";
  if (list.current?.conversation) waterfall.show(list.current.conversation);
});
setUpTheme($("theme"));
for (const id of ["settings-section", "conversations-section"]) {
  if (NARROW.matches) $(id).open = false;
  $(id).addEventListener("toggle", () => {
    if (NARROW.matches && $(id).open) $(id).scrollIntoView({ block: "start" }); // it is below
  });
}
new Shortcuts({
  toggle, interrupt, mute: toggleMute,
  help: () => $("help-dialog").showModal(),
  type: () => {
    $("tab-talk").click();
    $("text").focus();
  },
  tab: (number) => document.querySelectorAll("[role=tab]")[number - 1]?.click(),
}, $("letter-keys"));
loadLists();
showVersion();
list.load();
offerLink();
