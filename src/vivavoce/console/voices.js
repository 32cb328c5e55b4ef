/** A dialog with the voices of the server: by language, each with a sample. */
import { authorization, fetchList } from "./connection.js";
import { make } from "./ui.js";

const OPENAI = [
  "alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage",
  "shimmer", "verse",
];
const OPENAI_GROUP = "OpenAI's names";
const ANY_GROUP = "Any language";
const names = new Intl.DisplayNames("en", { type: "language", fallback: "code" });

/** The name of a language code: "English (United Kingdom)". */
export function languageName(code) {
  try {
    const [, region] = code.split("-");
    if (!region) return names.of(code);
    return new Intl.DisplayNames("en", { type: "language", languageDisplay: "standard" }).of(code);
  } catch {
    return code; // not in the form of a code
  }
}

/** Voices in groups: [[name, voices], ...], OpenAI's names first, then by language. */
export function groupsOf(voices, wanted = "") {
  const text = wanted.trim().toLowerCase();
  const groups = new Map();
  for (const voice of voices) {
    const group = groupOf(voice);
    const shown = `${voice.id} ${group} ${voice.description} ${voice.languages.join(" ")}`;
    if (!shown.toLowerCase().includes(text)) continue;
    if (!groups.has(group)) groups.set(group, []);
    groups.get(group).push(voice);
  }
  const rank = (name) => (name === OPENAI_GROUP ? 0 : name === ANY_GROUP ? 1 : 2);
  return [...groups].sort(([a], [b]) => rank(a) - rank(b) || a.localeCompare(b));
}

function groupOf({ id, languages }) {
  if (OPENAI.includes(id)) return OPENAI_GROUP;
  return languages.length ? languageName(languages[0]) : ANY_GROUP;
}

/** parts: elements {dialog, search, list, status}; onUse gets the id of a voice. */
export class VoicePicker {
  #parts;
  #onUse;
  #key = "";
  #voices = [];
  #audio = new Audio();
  #url = "";

  constructor(parts, onUse) {
    this.#parts = parts;
    this.#onUse = onUse;
    parts.search.addEventListener("input", () => this.#draw());
    parts.dialog.addEventListener("close", () => this.#audio.pause());
  }

  /** Show the voices of a model, "" for the default one. */
  async open(key, model) {
    const { dialog, search, status } = this.#parts;
    this.#key = key;
    search.value = "";
    status.textContent = "Loading …";
    dialog.showModal();
    try {
      const query = model ? `?model=${encodeURIComponent(model)}` : "";
      this.#voices = await fetchList(location.href, `v1/audio/voices${query}`, key);
    } catch (error) {
      this.#voices = [];
      status.textContent = error instanceof TypeError ? "Can't reach the server." : error.message;
      return;
    }
    this.#draw();
  }

  #draw() {
    const { list, search, status } = this.#parts;
    const groups = groupsOf(this.#voices, search.value);
    const count = groups.reduce((sum, [, voices]) => sum + voices.length, 0);
    status.textContent = `${count} ${count === 1 ? "voice" : "voices"}`;
    list.replaceChildren(...groups.map(([name, voices]) =>
      make("section", {}, make("h3", {}, name),
        make("ul", {}, ...voices.map((voice) => this.#line(voice))))));
  }

  #line(voice) {
    const play = make("button", { type: "button", class: "link", "aria-label": `Play a sample of ${voice.id}` }, "▶");
    play.addEventListener("click", () => this.#play(voice));
    const use = make("button", { type: "button", class: "link", "aria-label": `Use ${voice.id}` }, "Use");
    use.addEventListener("click", () => {
      this.#onUse(voice.id);
      this.#parts.dialog.close();
    });
    const more = [voice.description, voice.default ? "default" : ""].filter(Boolean).join(", ");
    return make("li", {}, play, make("bdi", {}, voice.id), make("span", { class: "hint" }, more), use);
  }

  /** The sample is fetched, since an audio element sends no key. */
  async #play({ id, sample }) {
    const { status } = this.#parts;
    this.#audio.pause();
    status.textContent = `Loading the sample of ${id} …`;
    try {
      const response = await fetch(sample, { headers: authorization(this.#key) });
      if (!response.ok) throw new TypeError(`HTTP ${response.status}`);
      if (this.#url) URL.revokeObjectURL(this.#url);
      this.#url = URL.createObjectURL(await response.blob());
      this.#audio.src = this.#url;
      await this.#audio.play();
      status.textContent = `Playing ${id}`;
    } catch (error) {
      if (error.name === "AbortError") return; // another sample was chosen
      status.textContent = `There is no sample of ${id}: ${error.message}.`;
    }
  }
}
