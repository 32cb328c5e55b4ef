/** The settings of the next conversation: a form that this browser remembers. */
import { listed } from "./access.js";
import { DEFAULTS } from "./client.js";
import { keep, kept, make } from "./dom.js";

const LEAST_IDLE_MS = 5000; // as the protocol has it

export class SettingsForm {
  #form;

  constructor(form) {
    this.#form = form;
    const before = { ...DEFAULTS, ...kept("vivavoce.settings", {}) };
    for (const name of Object.keys(DEFAULTS)) {
      const field = form.elements[name];
      if (name === "device" && before.device) {
        field.append(make("option", { value: before.device }, "The one chosen before"));
      }
      field.value = String(before[name]);
    }
    form.addEventListener("input", () => {
      this.#show();
      keep("vivavoce.settings", this.values);
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    this.#show();
  }

  /** As DEFAULTS has them, each of the kind of its default. */
  get values() {
    const pairs = Object.entries(DEFAULTS).map(([name, usual]) => {
      const { value, validity } = this.#form.elements[name];
      if (typeof usual === "boolean") return [name, value === "true"];
      if (typeof usual !== "number") return [name, value.trim()];
      return [name, value !== "" && validity.valid ? Number(value) : usual];
    });
    return Object.fromEntries(pairs);
  }

  /** Names that the server knows, to choose from. Any other may be typed: it has a default. */
  async offer(key) {
    const models = await listed(location.href, "v1/models", key);
    const voices = await listed(location.href, "v1/audio/voices", key);
    fill("models", models.map(({ id }) => id));
    fill("voices", voices.map(({ id }) => id));
  }

  /** Microphones have names only once one was allowed. */
  async offerMicrophones() {
    const all = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
    const field = this.#form.elements.device;
    const chosen = field.value;
    const found = all.filter(({ kind, label }) => kind === "audioinput" && label);
    if (!found.length) return;
    const options = found
      .filter(({ deviceId }) => deviceId !== "default")
      .map(({ deviceId, label }) => make("option", { value: deviceId }, label));
    field.replaceChildren(make("option", { value: "" }, "Default"), ...options);
    field.value = chosen;
    if (field.selectedIndex < 0) field.value = "";
  }

  #show() {
    const chosen = this.#form.elements.turns.value;
    for (const label of this.#form.querySelectorAll("[data-for]")) {
      label.hidden = !label.dataset.for.split(" ").includes(chosen);
    }
    const { idleMs } = this.#form.elements;
    const between = idleMs.valueAsNumber > 0 && idleMs.valueAsNumber < LEAST_IDLE_MS;
    idleMs.setCustomValidity(between ? "0 for never, or 5000 to 30000." : "");
    const fields = [...this.#form.querySelectorAll("input")];
    const wrong = fields.find((field) => !field.validity.valid);
    document.getElementById("wrong").textContent = wrong
      ? `${wrong.labels[0].firstChild.data.trim()}: ${wrong.validationMessage} Until then the default holds.`
      : "";
  }
}

function fill(id, names) {
  document.getElementById(id).replaceChildren(...names.map((value) => make("option", { value })));
}
