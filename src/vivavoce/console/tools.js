/** Functions that are declared in the page, and their calls. */
import { keep, kept, make } from "./dom.js";

const SCHEMA = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };

export class ToolPanel {
  #parts;
  #tools = kept("vivavoce.tools", []);

  /** parts: {form, list, error, calls, empty}, all of them elements. */
  constructor(parts) {
    this.#parts = parts;
    parts.form.elements.parameters.value = JSON.stringify(SCHEMA, null, 2);
    parts.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#save();
    });
    this.#draw();
  }

  /** For a Conversation. */
  get tools() {
    return this.#tools.map((tool) => ({ ...tool, run: (args) => this.#run(tool, args) }));
  }

  #save() {
    const { form, error } = this.#parts;
    const fields = Object.fromEntries(new FormData(form));
    error.hidden = true;
    try {
      fields.parameters = JSON.parse(fields.parameters || '{"type": "object", "properties": {}}');
      if (fields.parameters?.type !== "object") throw new Error('its "type" has to be "object"');
    } catch (problem) {
      error.textContent = `The parameters are no JSON schema: ${problem.message}.`;
      error.hidden = false;
      return;
    }
    this.#tools = [...this.#tools.filter(({ name }) => name !== fields.name), fields];
    this.#draw();
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
      elements.name.focus();
    });
    drop.addEventListener("click", () => {
      this.#tools = this.#tools.filter((one) => one !== tool);
      this.#draw();
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
    return new Promise((resolve) => {
      const field = make("input", { "aria-label": `Answer to ${tool.name}`, required: "" });
      const form = make("form", {}, field, make("button", { class: "second" }, "Answer"));
      form.addEventListener("submit", (event) => {
        event.preventDefault();
        form.remove();
        resolve(answered(line, field.value));
      });
      line.append(form);
      field.focus();
    });
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
