/** One sentence about what is wrong, and one thing to do about it. */
export class Banner {
  #box;
  #text;
  #count;
  #button;
  #act = () => {};

  constructor(box, text, count, button) {
    this.#box = box;
    this.#text = text;
    this.#count = count;
    this.#button = button;
    button.addEventListener("click", () => this.#act());
  }

  say(sentence, label, act) {
    this.#text.textContent = sentence;
    this.#count.textContent = "";
    this.#button.textContent = label;
    this.#act = act;
    this.#box.hidden = false;
  }

  /** What changes every second: for the eye alone, or it would be read out every second. */
  count(text) {
    this.#count.textContent = text;
  }

  clear() {
    this.#box.hidden = true;
  }
}
