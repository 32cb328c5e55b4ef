/** What the server consists of, and how to connect a language model where it has none. */
import { fetchData } from "./connection.js";
import { copyText, make } from "./ui.js";

const VERBS = { stt: "Hears", llm: "Thinks", tts: "Speaks", relay: "Relays to" };
const PLACEHOLDER_NAMES = { builtin: "built-in rules (no model connected)" };
const COMMANDS = `export CHAT_COMPLETION_BASE_URL=http://localhost:11434/v1
export CHAT_COMPLETION_MODEL=llama3.2   # optional: the first of the server otherwise
vivavoce serve`;

/** parts: elements {box, engines, connect, code, copy, probed}. */
export class AboutPanel {
  #parts;

  constructor(parts) {
    this.#parts = parts;
    parts.code.textContent = COMMANDS;
    parts.copy.addEventListener("click", () => copyText(COMMANDS, parts.copy));
  }

  /** Ask the server. Throws KeyNeeded, TypeError. */
  async load(key) {
    const { data, probed } = await fetchData(location.href, "v1/engines", key);
    const model = data?.find((one) => one.default) ?? data?.[0];
    if (!model) return;
    const { box, engines, connect, probed: hint } = this.#parts;
    engines.replaceChildren(...stagesOf(model).flatMap((one, n) => (n ? [" · ", one] : [one])));
    connect.hidden = !model.engines.some(({ stage, placeholder }) => stage === "llm" && placeholder);
    hint.textContent = `At its start the server looks for ${probed.join(", ")}.`;
    box.hidden = false;
  }
}

/** The stages of a model as elements: "Hears: pocketsphinx". */
export function stagesOf({ engines }) {
  return engines.map(({ stage, name, model, placeholder }) => {
    const shown = PLACEHOLDER_NAMES[name] ?? (model ? `${name} (${model})` : name);
    const attributes = { class: placeholder ? "stage placeholder" : "stage" };
    if (placeholder) attributes.title = "A stand-in that needs nothing else. Better engines can be configured.";
    return make("span", attributes, make("b", {}, `${VERBS[stage]}: `), shown);
  });
}
