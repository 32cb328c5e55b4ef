/** The button of push to talk: by mouse, by finger, by Enter, and by the space bar from anywhere. */
const OWN_KEYS = "input, textarea, select, button, summary, [contenteditable]"; // use space themselves

export class PressButton {
  #button;
  #held = false;
  #changed;

  /** `changed` is called with whether it is held. */
  constructor(button, changed) {
    this.#button = button;
    this.#changed = changed;
    button.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      button.setPointerCapture(event.pointerId);
      this.#hold(true);
    });
    for (const name of ["pointerup", "pointercancel", "blur"]) {
      button.addEventListener(name, () => this.release());
    }
    button.addEventListener("contextmenu", (event) => event.preventDefault()); // of a long touch
    window.addEventListener("blur", () => this.release());
    document.addEventListener("keydown", (event) => this.#key(event, true));
    document.addEventListener("keyup", (event) => this.#key(event, false));
  }

  /** Nobody holds it any more. */
  release() {
    this.#hold(false);
  }

  #key(event, held) {
    const here = event.target === this.#button;
    const elsewhere = event.key === " " && !event.target.closest?.(OWN_KEYS);
    if (!(here ? [" ", "Enter"].includes(event.key) : elsewhere)) return;
    if (this.#button.disabled || !this.#button.offsetParent) return;
    event.preventDefault();
    if (!event.repeat) this.#hold(held);
  }

  #hold(held) {
    if (held === this.#held) return;
    this.#held = held;
    this.#button.classList.toggle("held", held);
    this.#button.textContent = held ? "Listening …" : "Hold to talk";
    this.#changed(held);
  }
}
