/** One sentence about what is wrong, and one thing to do about it. */
export class Banner {
  #box;
  #text;
  #count;
  #button;
  #act = () => {};
  #kind = "";

  constructor(box, text, count, button) {
    this.#box = box;
    this.#text = text;
    this.#count = count;
    this.#button = button;
    button.addEventListener("click", () => this.#act());
  }

  /** kind: what it is about, so that it can be taken back when that is over. */
  say(kind, sentence, label, act) {
    this.#kind = kind;
    this.#text.textContent = sentence;
    this.#count.textContent = "";
    this.#button.textContent = label;
    this.#act = act;
    this.#box.hidden = false;
  }

  /** Something is wrong that people can only take notice of. */
  problem(sentence) {
    this.say("problem", sentence, "Dismiss", () => this.clear());
  }

  /** What changes every second: for the eye alone, or it would be read out every second. */
  count(text) {
    this.#count.textContent = text;
  }

  /** Take back what is said about that; without a kind, whatever it is about. */
  clear(kind = this.#kind) {
    if (kind === this.#kind) this.#box.hidden = true;
  }
}
