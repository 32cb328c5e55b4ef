/** Functions that a model may call: what they are, and who answers. */

/** tools: [{name, description, parameters, run}]; run(args) returns the answer, or a promise. */
export class Toolbox {
  #tools;
  #ours = new Set();

  constructor(tools = []) {
    this.#tools = tools;
  }

  /** As the session wants them. */
  get declared() {
    return this.#tools.map(({ name, description = "", parameters }) => ({
      type: "function",
      name,
      description,
      parameters: parameters ?? { type: "object", properties: {} },
    }));
  }

  /** Answer the calls of a response that is done. Resolves to events to send, if there are any. */
  async answers(response, told) {
    if (response.status !== "completed") return [];
    const calls = (response.output ?? []).filter((item) => item.type === "function_call");
    const mine = calls.filter((call) => !this.#ours.has(call.call_id));
    if (!mine.length) return [];
    for (const call of mine) this.#ours.add(call.call_id);
    const items = await Promise.all(mine.map((call) => this.#answer(call, told)));
    return [...items, { type: "response.create" }];
  }

  async #answer(call, told) {
    const output = await this.#run(call);
    told(call.call_id, output);
    return {
      type: "conversation.item.create",
      item: { type: "function_call_output", call_id: call.call_id, output },
    };
  }

  async #run(call) {
    const tool = this.#tools.find(({ name }) => name === call.name);
    try {
      if (!tool?.run) throw new Error(`nothing here answers ${call.name}`);
      const answer = await tool.run(JSON.parse(call.arguments || "{}"), call);
      return typeof answer === "string" ? answer : JSON.stringify(answer ?? null);
    } catch (problem) {
      return JSON.stringify({ error: problem.message }); // the model can say so
    }
  }
}
