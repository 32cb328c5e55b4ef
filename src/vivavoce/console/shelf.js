/** The conversations of this page, one after the other, each with what was kept of it. */
import { asText } from "./client.js";
import { make, save } from "./dom.js";

export class Shelf {
  #list;
  #saves;
  #chosen;
  #all = [];

  /** saves: the buttons that save. `chosen` is called with the record that is to be shown. */
  constructor(list, saves, chosen) {
    this.#list = list;
    this.#saves = saves;
    this.#chosen = chosen;
    this.draw();
  }

  get current() {
    return this.#all.find((one) => one.shown) ?? null;
  }

  /** record: {conversation, log}. */
  add(record) {
    record.begun = new Date();
    this.#all = this.#all.filter(({ conversation }) => conversation.session); // others never began
    this.#all.push(record);
    this.show(record);
  }

  show(record) {
    for (const one of this.#all) one.shown = one === record;
    this.#chosen(record);
    this.draw();
  }

  draw() {
    for (const button of this.#saves) button.disabled = !this.current;
    this.#list.replaceChildren(...this.#all.map((record) => this.#line(record)).reverse());
  }

  saveText() {
    save("conversation.txt", asText(this.#entries()));
  }

  saveJson() {
    const { begun, conversation } = this.current;
    const turns = conversation.turns.all.map(({ number, words, status, marks }) => ({
      number,
      words,
      status,
      ms: Object.fromEntries(
        Object.entries(marks).map(([name, at]) => [name, Math.round(at - (marks.end ?? at))]),
      ),
    }));
    const whole = { begun, session: conversation.session, entries: this.#entries(), turns };
    save("conversation.json", JSON.stringify(whole, null, 2), "application/json");
  }

  saveWav() {
    save("conversation.wav", this.current.conversation.tape.file());
  }

  #entries() {
    return this.current.conversation.transcript.entries;
  }

  #line(record) {
    const { entries } = record.conversation.transcript;
    const first = entries.find(({ role, text }) => role === "user" && text);
    const time = record.begun.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    const button = make("button", { type: "button", dir: "auto" }, `${time}  ${first?.text ?? "New"}`);
    if (record.shown) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => this.show(record));
    return make("li", {}, button);
  }
}
