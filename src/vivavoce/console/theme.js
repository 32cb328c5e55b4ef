/** Dark, light, or as the system has it. */
import { keep, kept } from "./dom.js";

const NEXT = { system: "light", light: "dark", dark: "system" };
const SIGN = { system: "◐", light: "○", dark: "●" };
const WORDS = { system: "as the system has them", light: "light", dark: "dark" };

export function theme(button) {
  let chosen = kept("vivavoce.theme", "system");

  function wear() {
    if (chosen === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = chosen;
    button.textContent = SIGN[chosen] ?? SIGN.system;
    button.setAttribute("aria-label", `Colours: ${WORDS[chosen]}`);
    button.title = button.getAttribute("aria-label");
  }

  button.addEventListener("click", () => {
    chosen = NEXT[chosen] ?? "system";
    keep("vivavoce.theme", chosen);
    wear();
  });
  wear();
}
