/** One sentence about what is wrong, and one thing to do about it. */
export class Banner {
  #box;
  #text;
  #button;
  #act = () => {};

  constructor(box, text, button) {
    this.#box = box;
    this.#text = text;
    this.#button = button;
    button.addEventListener("click", () => this.#act());
  }

  say(sentence, label, act) {
    this.#text.textContent = sentence;
    this.#button.textContent = label;
    this.#act = act;
    this.#box.hidden = false;
  }

  clear() {
    this.#box.hidden = true;
  }
}
