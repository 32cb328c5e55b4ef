/** The forms for the settings of the next conversation and for the API key. */
import { devices } from "./client.js";
import { fetchList } from "./connection.js";
import { changedSettings, DEFAULTS, MIN_IDLE_MS } from "./state.js";
import { $, make, store, stored } from "./ui.js";

const KEY_NAME = "vivavoce.key"; // in sessionStorage
const FIXED = ["transport", "model"]; // cannot change in a conversation
const languages = new Intl.DisplayNames("en", { type: "language", fallback: "none" });

/** The settings, stored in this browser. */
export class SettingsForm {
  #form;
  #parts;
  #names; // of the settings that the page has a field for
  #inForce = null; // the settings of the live conversation

  /**
   * parts: elements {error, hint, apply}: for messages about wrong values, for what has changed
   * since the live conversation began, and the button that applies it.
   */
  constructor(form, parts) {
    this.#form = form;
    this.#parts = parts;
    this.#names = Object.keys(DEFAULTS).filter((name) => form.elements[name]);
    const values = { ...DEFAULTS, ...stored("vivavoce.settings", {}) };
    for (const name of ["device", "speaker"]) {
      if (values[name]) {
        form.elements[name]?.append(make("option", { value: values[name] }, "Previously chosen"));
      }
    }
    for (const field of form.elements) field.addEventListener("input", () => this.#onInput());
    form.addEventListener("submit", (event) => event.preventDefault());
    this.set(values);
  }

  /** Set the fields. */
  set(values) {
    for (const name of this.#names) this.#form.elements[name].value = String(values[name]);
    this.#onInput();
  }

  /** Mark what differs from the settings of the live conversation; null: none is live. */
  compareWith(settings) {
    this.#inForce = settings;
    this.#showChanges();
  }

  /** The settings by the names and types of DEFAULTS. A wrong number is replaced by its default. */
  get values() {
    const pairs = this.#names.map((name) => {
      const usual = DEFAULTS[name];
      const { value, validity } = this.#form.elements[name];
      if (typeof usual === "boolean") return [name, value === "true"];
      if (typeof usual !== "number") return [name, value.trim()];
      return [name, value !== "" && validity.valid ? Number(value) : usual];
    });
    return { ...DEFAULTS, ...Object.fromEntries(pairs) };
  }

  /** Offer the server's models and voices. Other names can be typed. Throws KeyNeeded, TypeError. */
  async offerNames(key) {
    for (const [id, path] of [["models", "v1/models"], ["voices", "v1/audio/voices"]]) {
      const names = await fetchList(location.href, path, key);
      $(id).replaceChildren(...names.map((one) => make("option", { value: one.id })));
    }
  }

  /** Offer the microphones and loudspeakers; browsers name them only after the first permission. */
  async offerDevices() {
    const { microphones, speakers } = await devices();
    for (const [name, found] of [["device", microphones], ["speaker", speakers]]) {
      const field = this.#form.elements[name];
      if (!field || !found.length) continue;
      const options = found.map(({ deviceId, label }) => make("option", { value: deviceId }, label));
      const chosen = field.value;
      field.replaceChildren(make("option", { value: "" }, "Default"), ...options);
      field.value = chosen;
      if (field.selectedIndex < 0) field.value = "";
    }
  }

  #onInput() {
    this.#update();
    store("vivavoce.settings", this.values);
    this.#showChanges();
  }

  #showChanges() {
    const { hint, apply } = this.#parts;
    const changed = this.#inForce ? changedSettings(this.values, this.#inForce) : [];
    for (const name of this.#names) {
      this.#form.elements[name].closest("label")?.classList.toggle("changed", changed.includes(name));
    }
    const now = changed.filter((name) => !FIXED.includes(name));
    const later = changed.filter((name) => FIXED.includes(name));
    apply.hidden = !now.length;
    const sentences = [];
    if (now.length) sentences.push(`Changed: ${this.#labels(now)}.`);
    if (later.length) sentences.push(`From the next conversation on: ${this.#labels(later)}.`);
    const text = sentences.join(" ") || (this.#inForce
      ? "All settings are in force." : "Changes apply to the next conversation.");
    if (hint.textContent !== text) hint.textContent = text;
  }

  #labels(names) {
    return names.map((name) => labelOf(this.#form.elements[name])).join(", ");
  }

  #update() {
    const { turns, idleMs, language } = this.#form.elements;
    for (const label of this.#form.querySelectorAll("[data-for]")) {
      label.hidden = !label.dataset.for.split(" ").includes(turns.value);
    }
    const tooShort = idleMs.valueAsNumber > 0 && idleMs.valueAsNumber < MIN_IDLE_MS;
    idleMs.setCustomValidity(tooShort ? "too short" : "");
    language.setCustomValidity(isLanguage(language.value.trim()) ? "" : "unknown");
    const sentences = [];
    for (const field of this.#form.querySelectorAll("input")) {
      const { valid } = field.validity;
      if (valid) field.removeAttribute("aria-invalid");
      else field.setAttribute("aria-invalid", "true");
      if (!valid) sentences.push(sentenceFor(field));
    }
    this.#parts.error.textContent = sentences.join(" ");
  }
}

function sentenceFor(field) {
  if (field.name === "language") {
    return `Language: “${field.value}” isn't a known code. Use one such as en or pt-BR.`;
  }
  const label = labelOf(field);
  const range =
    field.name === "idleMs" ? `0, or ${MIN_IDLE_MS} to ${field.max}` : `${field.min} to ${field.max}`;
  return `${label} must be ${range}. Using ${DEFAULTS[field.name]} until you fix it.`;
}

function labelOf(field) {
  return field.labels[0].firstChild.data.trim();
}

/** Whether the text is empty or a language code (BCP 47) that the browser knows. */
function isLanguage(code) {
  try {
    return !code || languages.of(code) !== undefined;
  } catch {
    return false; // RangeError: not in the form of a code
  }
}

/** The dialog for the server's API key, which is stored for this tab. */
export class KeyDialog {
  #dialog;
  #reason;
  #field;
  #resolve = null;
  #key = storedKey();

  /** parts: elements {dialog, form, field, reason, cancel}. */
  constructor({ dialog, form, field, reason, cancel }) {
    this.#dialog = dialog;
    this.#reason = reason;
    this.#field = field;
    form.addEventListener("submit", () => this.#finish(field.value.trim()));
    cancel.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => this.#finish(""));
  }

  get key() {
    return this.#key;
  }

  get open() {
    return this.#dialog.open;
  }

  /** Ask for a key. Resolves to whether one was given. */
  ask(reason) {
    this.#store("");
    this.#reason.textContent = reason;
    this.#field.value = "";
    if (!this.#dialog.open) this.#dialog.showModal();
    this.#field.focus();
    return new Promise((resolve) => (this.#resolve = resolve));
  }

  #finish(key) {
    if (key) this.#store(key);
    this.#resolve?.(Boolean(key));
    this.#resolve = null;
  }

  #store(key) {
    this.#key = key;
    try {
      sessionStorage.setItem(KEY_NAME, key);
    } catch {
      // storage is disabled: the key is kept until the page closes
    }
  }
}

function storedKey() {
  try {
    return sessionStorage.getItem(KEY_NAME) ?? "";
  } catch {
    return "";
  }
}
