/** The key that a server may want: asked for once, kept in this tab. */

const NAME = "vivavoce.key";

export class KeyBox {
  #dialog;
  #why;
  #field;
  #given = null;
  #key = stored();

  /** parts: {dialog, form, field, why, no}, all of them elements. */
  constructor({ dialog, form, field, why, no }) {
    this.#dialog = dialog;
    this.#why = why;
    this.#field = field;
    form.addEventListener("submit", () => this.#finish(field.value.trim()));
    no.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => this.#finish(""));
  }

  get key() {
    return this.#key;
  }

  /** Ask for one. Resolves to whether there is one now. */
  ask(why) {
    this.#store("");
    this.#why.textContent = why;
    this.#field.value = "";
    if (!this.#dialog.open) this.#dialog.showModal();
    this.#field.focus();
    return new Promise((resolve) => (this.#given = resolve));
  }

  #finish(key) {
    if (key) this.#store(key);
    this.#given?.(Boolean(key));
    this.#given = null;
  }

  #store(key) {
    this.#key = key;
    try {
      sessionStorage.setItem(NAME, key);
    } catch {
      // a browser that keeps nothing: it is forgotten with the page
    }
  }
}

function stored() {
  try {
    return sessionStorage.getItem(NAME) ?? "";
  } catch {
    return "";
  }
}
