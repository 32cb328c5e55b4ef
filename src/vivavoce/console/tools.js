/** The tools that are declared on the page, and their calls. */
import { make, store, stored } from "./ui.js";

const SAMPLE = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const TYPES = new Set(["object", "array", "string", "number", "integer", "boolean", "null"]);

export class ToolPanel {
  #parts;
  #tools = stored("vivavoce.tools", []);
  #edited = null; // the tool that is in the form
  #waiting = new Map(); // element of a call -> function that gives it up
  #onWaiting;

  /**
   * parts: elements {form, list, error, saved, calls, empty, fixedResult}. `onWaiting` gets the
   * names of the tools whose calls wait for a typed result.
   */
  constructor(parts, onWaiting) {
    this.#parts = parts;
    this.#onWaiting = onWaiting;
    parts.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#save();
    });
    parts.form.addEventListener("input", () => this.#update());
    this.#clear();
    this.#draw();
  }

  /** The `tools` option of a Conversation. */
  get tools() {
    return this.#tools.map((tool) => ({ ...tool, run: (args) => this.#run(tool, args) }));
  }

  /** Focus the result field of the oldest call. */
  focusCall() {
    [...this.#waiting.keys()][0]?.querySelector("input").focus();
  }

  /** Give up all calls that wait: their session has ended. */
  abandonCalls() {
    for (const abandon of this.#waiting.values()) abandon();
  }

  #save() {
    const { form, error, saved } = this.#parts;
    const tool = Object.fromEntries(new FormData(form));
    const field = form.elements.parameters;
    saved.textContent = "";
    try {
      tool.parameters = parsedSchema(tool.parameters);
    } catch (problem) {
      error.textContent = problem.message;
      error.hidden = false;
      field.setAttribute("aria-invalid", "true");
      field.focus();
      return;
    }
    error.hidden = true;
    field.removeAttribute("aria-invalid");
    const replaced = [tool.name, this.#edited?.name];
    this.#tools = [...this.#tools.filter(({ name }) => !replaced.includes(name)), tool];
    this.#draw();
    this.#clear();
    saved.textContent = `Saved ${tool.name}.`;
  }

  /** Empty the form, for a new tool. */
  #clear() {
    const { form } = this.#parts;
    this.#edited = null;
    form.reset();
    form.elements.parameters.value = JSON.stringify(SAMPLE, null, 2);
    this.#update();
  }

  #update() {
    this.#parts.fixedResult.hidden = this.#parts.form.elements.how.value === "typed";
    this.#parts.saved.textContent = "";
  }

  #draw() {
    store("vivavoce.tools", this.#tools);
    this.#parts.list.replaceChildren(...this.#tools.map((tool) => this.#line(tool)));
  }

  #line(tool) {
    const edit = linkButton("Edit", tool.name);
    const remove = linkButton("Remove", tool.name);
    edit.addEventListener("click", () => {
      const { elements } = this.#parts.form;
      for (const [name, value] of Object.entries(tool)) {
        elements[name].value = name === "parameters" ? JSON.stringify(value, null, 2) : value;
      }
      this.#edited = tool;
      this.#update();
      elements.name.focus();
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
  #run(tool, args) {
    this.#parts.empty.hidden = true;
    const line = make("li", {}, make("code", {}, `${tool.name}(${JSON.stringify(args)})`));
    this.#parts.calls.prepend(line);
    const show = (text) => line.append(make("code", {}, `→ ${text}`));
    if (tool.how !== "typed") {
      show(tool.answer);
      return tool.answer;
    }
    return new Promise((resolve, reject) => {
      const field = make("input", { "aria-label": `Result of ${tool.name}`, required: "" });
      const form = make("form", {}, field, make("button", { class: "secondary" }, "Send result"));
      const close = () => {
        form.remove();
        this.#waiting.delete(line);
        this.#reportWaiting();
      };
      form.addEventListener("submit", (event) => {
        event.preventDefault();
        close();
        show(field.value);
        resolve(field.value);
      });
      this.#waiting.set(line, () => {
        close();
        show("No result: the conversation ended");
        reject(new Error("the conversation ended before there was a result"));
      });
      line.dataset.name = tool.name;
      line.append(form);
      this.#reportWaiting();
    });
  }

  #reportWaiting() {
    this.#onWaiting([...this.#waiting.keys()].map(({ dataset }) => dataset.name));
  }
}

/** Parse the JSON Schema of a tool's parameters. Throws Error with a sentence. */
export function parsedSchema(text) {
  let schema;
  try {
    schema = JSON.parse(text || '{"type": "object", "properties": {}}');
  } catch (error) {
    throw new Error(`The parameters aren't valid JSON: ${error.message}.`);
  }
  if (schema?.type !== "object") {
    throw new Error('The parameters aren\'t a JSON Schema of "type": "object".');
  }
  checkSchema(schema);
  return schema;
}

/** Check `type` and `required`, in nested schemas too. Throws Error with a sentence. */
function checkSchema(schema) {
  if (typeof schema !== "object" || schema === null) return;
  for (const type of [schema.type ?? []].flat()) {
    if (!TYPES.has(type)) throw new Error(`JSON Schema has no type ${JSON.stringify(type)}.`);
  }
  const properties = schema.properties ?? {};
  for (const name of [schema.required ?? []].flat()) {
    if (!Object.hasOwn(properties, name)) {
      throw new Error(`"required" names ${JSON.stringify(name)}, which isn't in "properties".`);
    }
  }
  Object.values(properties).forEach(checkSchema);
  [schema.items ?? []].flat().forEach(checkSchema);
}

function linkButton(verb, name) {
  const attributes = { type: "button", class: "link", "aria-label": `${verb} ${name}` };
  return make("button", attributes, verb);
}
