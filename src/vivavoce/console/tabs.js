/** The three views: by click, and by arrow keys as people who hear a page are used to. */
export function tabs(list, shown) {
  const all = [...list.querySelectorAll("[role=tab]")];

  function choose(tab) {
    for (const one of all) {
      const chosen = one === tab;
      one.setAttribute("aria-selected", String(chosen));
      one.tabIndex = chosen ? 0 : -1;
      document.getElementById(one.getAttribute("aria-controls")).hidden = !chosen;
    }
    shown(tab.getAttribute("aria-controls"));
  }

  list.addEventListener("click", ({ target }) => {
    const tab = target.closest("[role=tab]");
    if (tab) choose(tab);
  });
  list.addEventListener("keydown", (press) => {
    const here = all.indexOf(document.activeElement);
    const keys = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: all.length - 1 };
    const next = keys[press.key];
    if (next === undefined || here < 0) return;
    press.preventDefault();
    const tab = all.at(next % all.length);
    tab.focus();
    choose(tab);
  });
}
