/** Functions that are declared in the page, and their calls. */
import { keep, kept, make } from "./dom.js";

const SCHEMA = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };

export class ToolPanel {
  #parts;
  #tools = kept("vivavoce.tools", []);
  #edited = null;
  #waiting = new Map(); // element of a call -> how to give it up
  #changed;

  /**
   * parts: {form, list, error, saved, calls, empty, typed}, all of them elements. `changed` is
   * called with the names of the calls that wait for somebody to type the answer.
   */
  constructor(parts, changed) {
    this.#parts = parts;
    this.#changed = changed;
    parts.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#save();
    });
    parts.form.addEventListener("input", () => this.#adapt());
    this.#clear();
    this.#draw();
  }

  /** For a Conversation. */
  get tools() {
    return this.#tools.map((tool) => ({ ...tool, run: (args) => this.#run(tool, args) }));
  }

  /** Put the cursor where the oldest call is answered. */
  answer() {
    [...this.#waiting.keys()][0]?.querySelector("input").focus();
  }

  /** Nobody wants the answers any more. */
  giveUp() {
    for (const refuse of this.#waiting.values()) refuse();
  }

  #save() {
    const { form, error, saved } = this.#parts;
    const fields = Object.fromEntries(new FormData(form));
    error.hidden = true;
    saved.textContent = "";
    try {
      fields.parameters = JSON.parse(fields.parameters || '{"type": "object", "properties": {}}');
      if (fields.parameters?.type !== "object") throw new Error('its "type" has to be "object"');
    } catch (problem) {
      error.textContent = `The parameters are no JSON schema: ${problem.message}.`;
      error.hidden = false;
      return;
    }
    const replaced = [fields.name, this.#edited?.name];
    this.#tools = [...this.#tools.filter(({ name }) => !replaced.includes(name)), fields];
    this.#draw();
    this.#clear();
    saved.textContent = `Saved ${fields.name}.`;
  }

  /** An empty form, for a new function. */
  #clear() {
    const { form } = this.#parts;
    this.#edited = null;
    form.reset();
    form.elements.parameters.value = JSON.stringify(SCHEMA, null, 2);
    this.#adapt();
  }

  #adapt() {
    this.#parts.typed.hidden = this.#parts.form.elements.how.value === "typed";
    this.#parts.saved.textContent = "";
  }

  #draw() {
    keep("vivavoce.tools", this.#tools);
    this.#parts.list.replaceChildren(...this.#tools.map((tool) => this.#line(tool)));
  }

  #line(tool) {
    const edit = link("Edit", tool.name);
    const drop = link("Remove", tool.name);
    edit.addEventListener("click", () => {
      const { elements } = this.#parts.form;
      for (const [name, value] of Object.entries(tool)) {
        elements[name].value = name === "parameters" ? JSON.stringify(value, null, 2) : value;
      }
      this.#edited = tool;
      this.#adapt();
      elements.name.focus();
    });
    drop.addEventListener("click", () => {
      this.#tools = this.#tools.filter((one) => one !== tool);
      if (this.#edited === tool) this.#clear();
      this.#draw();
      this.#parts.form.elements.name.focus();
    });
    const how = tool.how === "typed" ? "answered by you" : "canned answer";
    return make("li", {}, make("strong", {}, tool.name), make("span", {}, how), edit, drop);
  }

  /** A call: shown, and answered with what stands in the form, or by hand. */
  #run(tool, args) {
    this.#parts.empty.hidden = true;
    const line = make("li", {}, make("code", {}, `${tool.name}(${JSON.stringify(args)})`));
    this.#parts.calls.prepend(line);
    if (tool.how !== "typed") return answered(line, tool.answer);
    return new Promise((resolve, reject) => {
      const field = make("input", { "aria-label": `Answer to ${tool.name}`, required: "" });
      const form = make("form", {}, field, make("button", { class: "second" }, "Answer"));
      const close = () => {
        form.remove();
        this.#waiting.delete(line);
        this.#tell();
      };
      form.addEventListener("submit", (event) => {
        event.preventDefault();
        close();
        resolve(answered(line, field.value));
      });
      this.#waiting.set(line, () => {
        close();
        line.append(make("code", {}, "→ not answered: the session is over"));
        reject(new Error("nobody answered before the session was over"));
      });
      line.dataset.name = tool.name;
      line.append(form);
      this.#tell();
    });
  }

  #tell() {
    this.#changed([...this.#waiting.keys()].map((line) => line.dataset.name));
  }
}

function link(verb, name) {
  const named = { type: "button", class: "link", "aria-label": `${verb} ${name}` };
  return make("button", named, verb);
}

function answered(line, answer) {
  line.append(make("code", {}, `→ ${answer}`));
  return answer;
}
