/** The forms for the settings of the next conversation and for the API key. */
import { fetchList } from "./connection.js";
import { DEFAULTS, MIN_IDLE_MS } from "./state.js";
import { $, make, store, stored } from "./ui.js";

const KEY_NAME = "vivavoce.key"; // in sessionStorage
const languages = new Intl.DisplayNames("en", { type: "language", fallback: "none" });

/** The settings, stored in this browser. */
export class SettingsForm {
  #form;
  #error;

  /** error: the element for messages about wrong values. */
  constructor(form, error) {
    this.#form = form;
    this.#error = error;
    const values = { ...DEFAULTS, ...stored("vivavoce.settings", {}) };
    for (const name of Object.keys(DEFAULTS)) {
      const field = form.elements[name];
      if (name === "device" && values.device) {
        field.append(make("option", { value: values.device }, "Previously chosen"));
      }
      field.value = String(values[name]);
    }
    form.addEventListener("input", () => {
      this.#update();
      store("vivavoce.settings", this.values);
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    this.#update();
  }

  /** The settings by the names and types of DEFAULTS. A wrong number is replaced by its default. */
  get values() {
    const pairs = Object.entries(DEFAULTS).map(([name, usual]) => {
      const { value, validity } = this.#form.elements[name];
      if (typeof usual === "boolean") return [name, value === "true"];
      if (typeof usual !== "number") return [name, value.trim()];
      return [name, value !== "" && validity.valid ? Number(value) : usual];
    });
    return Object.fromEntries(pairs);
  }

  /** Offer the server's models and voices. Other names can be typed. Throws KeyNeeded, TypeError. */
  async offerNames(key) {
    for (const [id, path] of [["models", "v1/models"], ["voices", "v1/audio/voices"]]) {
      const names = await fetchList(location.href, path, key);
      $(id).replaceChildren(...names.map((one) => make("option", { value: one.id })));
    }
  }

  /** Offer the microphones. Browsers name them only after the first permission. */
  async offerMicrophones() {
    const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
    const microphones = devices.filter(({ kind, label }) => kind === "audioinput" && label);
    if (!microphones.length) return;
    const options = microphones
      .filter(({ deviceId }) => deviceId !== "default")
      .map(({ deviceId, label }) => make("option", { value: deviceId }, label));
    const field = this.#form.elements.device;
    const chosen = field.value;
    field.replaceChildren(make("option", { value: "" }, "Default"), ...options);
    field.value = chosen;
    if (field.selectedIndex < 0) field.value = "";
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
    this.#error.textContent = sentences.join(" ");
  }
}

function sentenceFor(field) {
  if (field.name === "language") {
    return `Language: “${field.value}” isn't a known code. Use one such as en or pt-BR.`;
  }
  const label = field.labels[0].firstChild.data.trim();
  const range =
    field.name === "idleMs" ? `0, or ${MIN_IDLE_MS} to ${field.max}` : `${field.min} to ${field.max}`;
  return `${label} must be ${range}. Using ${DEFAULTS[field.name]} until you fix it.`;
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
