/** The sessions tab: what everybody's sessions are doing, for operators. */
import { authorization } from "./connection.js";
import { duration, make } from "./ui.js";

const INTERVAL_MS = 3000;
const MAX_CAPTIONS = 200;
const STATES = { listening: "Listening", hearing: "Hearing speech", thinking: "Thinking", speaking: "Speaking" };

/**
 * parts: elements {status, table, rows, watch: {box, title, state, speech, hint, captions, stop}};
 * key(): the API key.
 */
export class SessionsView {
  #parts;
  #timer = 0;
  #visible = false;
  #watching = null; // {id, abort}

  constructor(parts) {
    this.#parts = parts;
    parts.watch.stop.addEventListener("click", () => this.#stopWatching());
  }

  /** Whether the tab is shown: the list is fetched only then. */
  set visible(visible) {
    this.#visible = visible;
    clearTimeout(this.#timer);
    if (visible) this.#refresh();
    else this.#stopWatching();
  }

  async #refresh() {
    clearTimeout(this.#timer);
    const { status, table } = this.#parts;
    const list = await this.#fetch("/v1/sessions");
    if (!this.#visible) return;
    table.hidden = !list?.data?.length;
    if (list) {
      status.textContent = summaryOf(list);
      this.#draw(list);
    }
    this.#timer = setTimeout(() => this.#refresh(), INTERVAL_MS);
  }

  /** The answer; null after a failure, which is shown. */
  async #fetch(path, options = {}) {
    const { status, key } = this.#parts;
    try {
      const response = await fetch(path, { headers: authorization(key()), ...options });
      if (response.status === 204) return {};
      const body = await response.json();
      if (response.ok) return body;
      status.textContent = body.error?.message ?? `HTTP ${response.status}`;
    } catch {
      status.textContent = "Can't reach the server.";
    }
    return null;
  }

  #draw({ data, watch }) {
    const { rows } = this.#parts;
    const before = new Map([...rows.children].map((row) => [row.dataset.id, row]));
    const shown = data.map((session) => {
      const row = before.get(session.id) ?? this.#row(session, watch);
      cellsOf(session).forEach((text, n) => {
        if (row.cells[n].textContent !== text) row.cells[n].textContent = text;
      });
      return row;
    });
    if (shown.some((row, n) => rows.children[n] !== row) || rows.children.length !== shown.length) {
      rows.replaceChildren(...shown);
    }
  }

  #row(session, watch) {
    const { id } = session;
    const row = make("tr", { "data-id": id }, ...cellsOf(session).map(() => make("td")));
    const watchButton = make("button", { type: "button", class: "link", "aria-label": `Watch ${id}` }, "Watch");
    watchButton.addEventListener("click", () => this.#watch(id, watch));
    const end = make("button", { type: "button", class: "link", "aria-label": `End ${id}` }, "End");
    end.addEventListener("click", async () => {
      if (!confirm("End this session for its user?")) return;
      await this.#fetch(`/v1/sessions/${encodeURIComponent(id)}`, { method: "DELETE", headers: authorization(this.#parts.key()) });
      this.#refresh();
    });
    row.append(make("td", {}, watchButton, " ", end));
    return row;
  }

  async #watch(id, shows) {
    this.#stopWatching();
    const { box, title, hint, captions, stop } = this.#parts.watch;
    const abort = new AbortController();
    this.#watching = { id, abort };
    box.hidden = false;
    title.textContent = `Watching ${id}`;
    captions.replaceChildren();
    captions.hidden = shows !== "captions";
    hint.textContent = shows === "captions"
      ? "Captions are on in the settings of this server ([server] watch). Nothing is recorded."
      : 'What is said is not shown: [server] watch is "state". Nothing is recorded.';
    stop.focus();
    try {
      const headers = authorization(this.#parts.key());
      const path = `/v1/sessions/${encodeURIComponent(id)}/events`;
      const response = await fetch(path, { headers, signal: abort.signal });
      if (response.ok) await eachEvent(response.body, (event) => this.#show(event));
    } catch {
      // the connection was lost, or it is no longer watched
    }
    if (this.#watching?.abort === abort) this.#show({ type: "ended" });
  }

  #show(event) {
    const { state, speech, captions } = this.#parts.watch;
    switch (event.type) {
      case "state":
        state.textContent = STATES[event.state];
        break;
      case "speech":
        speech.value = event.probability;
        break;
      case "ended":
        state.textContent = "Ended";
        speech.value = 0;
        break;
      case "caption":
        addCaption(captions, event);
    }
  }

  #stopWatching() {
    this.#watching?.abort.abort();
    this.#watching = null;
    this.#parts.watch.box.hidden = true;
  }
}

/** "2 of 100 sessions · CPU 40 % of one core · 0 failures in the last hour". */
export function summaryOf({ data, max_sessions: most, cpu, failures }) {
  const failed = `${failures} ${failures === 1 ? "failure" : "failures"} in the last hour`;
  return `${data.length} of ${most} sessions · CPU ${Math.round(cpu * 100)} % of one core · ${failed}`;
}

/** The cells of a row but for its buttons. */
export function cellsOf(session, now = Date.now()) {
  const { opened_at: opened, first_sound_ms: wait, last_error: error } = session;
  return [
    duration(Math.max(0, now / 1000 - opened)), STATES[session.state], session.model,
    session.voice || "–", session.transport, session.client, session.key || "–",
    String(session.turns), wait === null ? "–" : `${wait} ms`, error?.message ?? "–",
  ];
}

function addCaption(box, { role, text }) {
  let line = box.lastElementChild;
  if (line?.dataset.role !== role || role === "user") {
    line = make("p", { "data-role": role, dir: "auto" }, make("b", {}, role === "user" ? "User: " : "Assistant: "));
    box.append(line);
  }
  line.append(text);
  while (box.childElementCount > MAX_CAPTIONS) box.firstElementChild.remove();
  box.scrollTop = box.scrollHeight;
}

/** Call `take` with each JSON object of a stream of server-sent events. */
export async function eachEvent(body, take) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      if (part.startsWith("data: ")) take(JSON.parse(part.slice("data: ".length)));
    }
  }
}
