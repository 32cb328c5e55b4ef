/** Named settings, and links that carry settings. */
import { changedSettings, DEFAULTS } from "./state.js";
import { copyText, make, store, stored } from "./ui.js";

const STORED = "vivavoce.presets";
const FRAGMENT = "#s=";
const MAX_TEXT = 8_000; // characters of one setting
const OF_THIS_DEVICE = new Set(["device", "speaker", "answers"]); // never part of a link or preset

/** The presets that everybody has: settings that differ from the defaults. */
export const BUILT_IN = {
  Receptionist: {
    instructions:
      "You are the receptionist of a small dental practice. Find out the caller's name, what the "
      + "matter is, and when they can come. Ask one question at a time. Keep answers short.",
  },
  Tutor: {
    instructions:
      "You are a patient tutor. Ask what the student wants to understand. Explain one step at a "
      + "time, then ask a question that shows whether it was understood. Never give the solution "
      + "before the student has tried.",
    turns: "semantic_vad",
    eagerness: "low",
  },
  "Terse assistant": {
    instructions: "Answer in at most ten words. Say numbers and facts first. No pleasantries.",
  },
  Interviewer: {
    instructions:
      "You interview a candidate for a job as a software developer. Ask about one experience at a "
      + "time, listen to the whole answer, and ask one question that goes deeper before the next "
      + "subject. Do not judge the answers.",
    turns: "semantic_vad",
    eagerness: "low",
    silenceMs: 500,
  },
};

/** The settings that differ from the defaults and may leave this device. */
export function shareable(settings) {
  const names = changedSettings(settings, DEFAULTS).filter((name) => !OF_THIS_DEVICE.has(name));
  return Object.fromEntries(names.map((name) => [name, settings[name]]));
}

/** The fragment of a link with these settings; base64url of JSON in UTF-8. */
export function fragmentOf(settings) {
  const bytes = new TextEncoder().encode(JSON.stringify(shareable(settings)));
  const base64 = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  return FRAGMENT + base64.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/**
 * The settings of a fragment; null if it has none or is damaged. Only names and types of DEFAULTS
 * are taken.
 */
export function settingsOf(fragment) {
  if (!fragment.startsWith(FRAGMENT)) return null;
  try {
    const base64 = fragment.slice(FRAGMENT.length).replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
    return checked(JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)));
  } catch {
    return null;
  }
}

function checked(found) {
  const names = Object.keys(DEFAULTS).filter(
    (name) => Object.hasOwn(found, name) && !OF_THIS_DEVICE.has(name)
      && typeof found[name] === typeof DEFAULTS[name] && String(found[name]).length <= MAX_TEXT,
  );
  return { ...DEFAULTS, ...Object.fromEntries(names.map((name) => [name, found[name]])) };
}

/** Choosing, saving and deleting presets, and copying a link. */
export class PresetPicker {
  #parts;
  #own = stored(STORED, {});

  /**
   * parts: elements {list, save, remove, name, link}. settings: the SettingsForm, which has
   * `values` and set(values).
   */
  constructor(parts, settings) {
    this.#parts = parts;
    const { list, save, remove, link } = parts;
    list.addEventListener("change", () => this.#choose(settings));
    save.addEventListener("click", () => this.#save(settings));
    remove.addEventListener("click", () => this.#remove());
    link.addEventListener("click", () => {
      const url = new URL(location.href);
      url.hash = fragmentOf(settings.values);
      copyText(url.href, link);
    });
    this.#draw("");
  }

  #choose(settings) {
    const { list, remove } = this.#parts;
    const name = list.value;
    const preset = this.#own[name] ?? BUILT_IN[name];
    remove.hidden = !Object.hasOwn(this.#own, name);
    if (!preset) return;
    const { device, speaker } = settings.values;
    settings.set({ ...DEFAULTS, device, speaker, ...preset });
  }

  #save(settings) {
    const { name } = this.#parts;
    const wanted = name.value.trim();
    if (!wanted) return name.focus();
    this.#own = { ...this.#own, [wanted]: shareable(settings.values) };
    store(STORED, this.#own);
    name.value = "";
    this.#draw(wanted);
  }

  #remove() {
    const { [this.#parts.list.value]: _, ...others } = this.#own;
    this.#own = others;
    store(STORED, others);
    this.#draw("");
    this.#parts.list.focus();
  }

  #draw(chosen) {
    const { list, remove } = this.#parts;
    const names = [...new Set([...Object.keys(BUILT_IN), ...Object.keys(this.#own)])];
    list.replaceChildren(
      make("option", { value: "" }, "Choose a preset …"),
      ...names.map((name) => make("option", { value: name }, name)),
    );
    list.value = chosen;
    remove.hidden = !Object.hasOwn(this.#own, chosen);
  }
}
