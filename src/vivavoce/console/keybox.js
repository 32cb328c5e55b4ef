/** The key that a server may want: asked for once, kept in this tab. */

const NAME = "vivavoce.key";

export class KeyBox {
  #dialog;
  #why;
  #field;
  #given = null;

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
    return sessionStorage.getItem(NAME) ?? "";
  }

  /** Ask for one. Resolves to whether there is one now. */
  ask(why) {
    sessionStorage.removeItem(NAME);
    this.#why.textContent = why;
    this.#field.value = "";
    if (!this.#dialog.open) this.#dialog.showModal();
    this.#field.focus();
    return new Promise((resolve) => (this.#given = resolve));
  }

  #finish(key) {
    if (key) sessionStorage.setItem(NAME, key);
    this.#given?.(Boolean(key));
    this.#given = null;
  }
}
