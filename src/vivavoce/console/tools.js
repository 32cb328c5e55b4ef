/** The tools that are declared on the page, and their calls. */
import { lineAndColumn, parsedSchema, parsedTools, sampleOf, SchemaMistake } from "./schema.js";
import { download, make, store, stored } from "./ui.js";

const object = (properties, required = Object.keys(properties)) =>
  ({ type: "object", properties, required });
const text = (description) => ({ type: "string", description });
/** Tools to begin with. */
export const TEMPLATES = {
  "Weather": {
    name: "weather", description: "The present weather in a city.", how: "canned",
    answer: '{"sky": "clear", "celsius": 21}', parameters: object({ city: text("Name of the city") }),
  },
  "Look up an order": {
    name: "look_up_order", description: "The state of an order, by its number.", how: "canned",
    answer: '{"state": "shipped", "arrives": "tomorrow"}',
    parameters: object({ order_number: { ...text("As on the receipt"), pattern: "^[0-9]{4,10}$" } }),
  },
  "End the call": {
    name: "end_call", description: "Call it when the user has said goodbye.", how: "typed",
    answer: "", parameters: object({ reason: { type: "string", enum: ["done", "wrong number"] } }),
  },
};
const EMPTY = { name: "", description: "", how: "canned", answer: "", parameters: object({ city: { type: "string" } }) };

export class ToolPanel {
  #parts;
  #tools = stored("vivavoce.tools", []);
  #edited = null; // the tool that is in the form
  #waiting = new Map(); // element of a call -> {callId, name, abandon}
  #onWaiting;

  /**
   * parts: elements {form, list, error, nameError, saved, calls, empty, fixedResult, template, trial, trialArgs,
   * trialResult, importFile, importButton, exportButton}. `onWaiting` gets the calls that wait for
   * a typed result: [{name, callId, answer(text)}].
   */
  constructor(parts, onWaiting) {
    this.#parts = parts;
    this.#onWaiting = onWaiting;
    const { form, template, trial, importButton, importFile, exportButton } = parts;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#save();
    });
    form.addEventListener("input", () => this.#update());
    form.elements.parameters.addEventListener("input", () => this.#checkSchema());
    form.elements.name.addEventListener("input", () => this.#checkName());
    template.append(...Object.keys(TEMPLATES).map((name) => make("option", { value: name }, name)));
    template.addEventListener("change", () => {
      if (TEMPLATES[template.value]) this.#fill(TEMPLATES[template.value]);
      template.value = "";
    });
    trial.addEventListener("click", () => this.#try());
    importButton.addEventListener("click", () => importFile.click());
    importFile.addEventListener("change", () => this.#import());
    exportButton.addEventListener("click", () => this.#export());
    this.#clear();
    this.#draw();
  }

  /** The `tools` option of a Conversation. */
  get tools() {
    return this.#tools.map((tool) => ({ ...tool, run: (args, call) => this.#run(tool, args, call) }));
  }

  /** The calls that wait for a typed result: [{name, callId, answer(text)}]. */
  get waiting() {
    return [...this.#waiting.values()];
  }

  /** Focus the result field of the oldest call. */
  focusCall() {
    [...this.#waiting.keys()][0]?.querySelector("input").focus();
  }

  /** Give up all calls that wait: their session has ended. */
  abandonCalls() {
    for (const { abandon } of this.#waiting.values()) abandon();
  }

  #save() {
    const { form, saved } = this.#parts;
    saved.textContent = "";
    const parameters = this.#checkSchema();
    if (!this.#checkName()) return form.elements.name.focus();
    if (!parameters) return this.#focusMistake();
    const { name, description, how, answer } = Object.fromEntries(new FormData(form));
    const tool = { name, description, how, answer, parameters };
    const replaced = [name, this.#edited?.name];
    this.#tools = [...this.#tools.filter((one) => !replaced.includes(one.name)), tool];
    this.#draw();
    this.#clear();
    saved.textContent = `Saved ${name}.`;
  }

  /** Check the name as it is typed; an empty one is no mistake before it is saved. */
  #checkName() {
    const { name } = this.#parts.form.elements;
    const valid = /^[\w-]{1,64}$/.test(name.value);
    const wrong = name.value && !valid;
    const sentence = "The name may have letters, digits, _ and -, at most 64 characters.";
    this.#mark(name, this.#parts.nameError, wrong ? sentence : "");
    return valid;
  }

  /** Check the parameters as they are typed. Returns the schema, or null. */
  #checkSchema() {
    const { form, error } = this.#parts;
    const field = form.elements.parameters;
    try {
      const schema = parsedSchema(field.value);
      this.#mark(field, error, "");
      return schema;
    } catch (mistake) {
      if (!(mistake instanceof SchemaMistake)) throw mistake;
      const named = mistake.at < 0 || mistake.message.includes("(line");
      const [line, column] = lineAndColumn(field.value, Math.max(0, mistake.at));
      const place = named ? "" : ` (Line ${line}, column ${column}.)`;
      this.#mark(field, error, mistake.message + place);
      field.dataset.mistake = mistake.at;
      return null;
    }
  }

  #mark(field, error, sentence) {
    error.textContent = sentence;
    error.hidden = !sentence;
    if (sentence) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
  }

  /** Put the cursor on the mistake. */
  #focusMistake() {
    const field = this.#parts.form.elements.parameters;
    const at = Number(field.dataset.mistake);
    field.focus();
    if (at >= 0) field.setSelectionRange(at, at);
  }

  /** Empty the form, for a new tool. */
  #clear() {
    this.#fill(EMPTY);
    this.#edited = null;
  }

  #fill(tool) {
    const { elements } = this.#parts.form;
    for (const [name, value] of Object.entries(tool)) {
      elements[name].value = name === "parameters" ? JSON.stringify(value, null, 2) : value;
    }
    this.#update();
    this.#checkName();
    this.#checkSchema();
    this.#parts.trialArgs.value = "";
    this.#parts.trialResult.textContent = "";
  }

  #update() {
    this.#parts.fixedResult.hidden = this.#parts.form.elements.how.value === "typed";
    this.#parts.saved.textContent = "";
  }

  /** Call the tool of the form with made-up arguments, which can be edited. */
  #try() {
    const { form, trialArgs, trialResult } = this.#parts;
    const schema = this.#checkSchema();
    if (!schema) return this.#focusMistake();
    trialArgs.value ||= JSON.stringify(sampleOf(schema));
    try {
      JSON.parse(trialArgs.value);
    } catch (error) {
      trialResult.textContent = `The arguments aren't valid JSON: ${error.message}`;
      return;
    }
    const { how, answer } = form.elements;
    const result = how.value === "typed" ? "what you type during the call" : answer.value || "(empty)";
    trialResult.textContent = `${form.elements.name.value || "tool"}(${trialArgs.value}) → ${result}`;
  }

  async #import() {
    const { importFile, saved, error } = this.#parts;
    const [file] = importFile.files;
    importFile.value = "";
    if (!file) return;
    try {
      const tools = parsedTools(await file.text());
      const names = tools.map(({ name }) => name);
      this.#tools = [...this.#tools.filter(({ name }) => !names.includes(name)), ...tools];
      this.#draw();
      saved.textContent = `Imported ${names.join(", ")}.`;
      error.hidden = true;
    } catch (mistake) {
      if (!(mistake instanceof SchemaMistake)) throw mistake;
      error.textContent = `${file.name}: ${mistake.message}`;
      error.hidden = false;
    }
  }

  #export() {
    const tools = this.#tools.map(({ name, description, parameters }) =>
      ({ type: "function", name, description, parameters }));
    download("tools.json", JSON.stringify(tools, null, 2), "application/json");
  }

  #draw() {
    store("vivavoce.tools", this.#tools);
    const { list, exportButton } = this.#parts;
    exportButton.disabled = !this.#tools.length;
    list.replaceChildren(...this.#tools.map((tool) => this.#line(tool)));
  }

  #line(tool) {
    const edit = linkButton("Edit", tool.name);
    const remove = linkButton("Remove", tool.name);
    edit.addEventListener("click", () => {
      this.#fill(tool);
      this.#edited = tool;
      this.#parts.form.elements.name.focus();
    });
    remove.addEventListener("click", () => {
      this.#tools = this.#tools.filter((one) => one !== tool);
      if (this.#edited === tool) this.#clear();
      this.#draw();
      this.#parts.form.elements.name.focus();
    });
    const how = tool.how === "typed" ? "Typed by you" : "Fixed result";
    return make("li", {}, make("strong", {}, tool.name), make("span", {}, how), edit, remove);
  }

  /** Show a call. Returns its result, or a promise of the result that the user types. */
  #run(tool, args, { call_id: callId }) {
    this.#parts.empty.hidden = true;
    const line = make("li", {}, make("code", {}, `${tool.name}(${JSON.stringify(args)})`));
    this.#parts.calls.prepend(line);
    const show = (result) => line.append(make("code", {}, `→ ${result}`));
    if (tool.how !== "typed") {
      show(tool.answer);
      return tool.answer;
    }
    return new Promise((resolve, reject) => {
      const close = () => {
        this.#waiting.delete(line);
        form.remove();
        this.#reportWaiting();
      };
      const answer = (result) => {
        if (!this.#waiting.has(line)) return;
        close();
        show(result);
        resolve(result);
      };
      const form = resultForm(tool.name, answer);
      const abandon = () => {
        close();
        show("No result: the conversation ended");
        reject(new Error("the conversation ended before there was a result"));
      };
      this.#waiting.set(line, { name: tool.name, callId, answer, abandon });
      line.append(form);
      this.#reportWaiting();
    });
  }

  #reportWaiting() {
    this.#onWaiting(this.waiting);
  }
}

/** A form for the result of a call. */
export function resultForm(name, onAnswer) {
  const field = make("input", { "aria-label": `Result of ${name}`, required: "", autocomplete: "off" });
  const form = make("form", { class: "result-form" }, field,
    make("button", { class: "secondary" }, "Send result"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    onAnswer(field.value);
  });
  return form;
}

function linkButton(verb, name) {
  const attributes = { type: "button", class: "link", "aria-label": `${verb} ${name}` };
  return make("button", attributes, verb);
}
