// The page of one rater: it plays the clips of a task, sends the answer, and shows the next task.
const QUESTIONS = {
  clarity: "How clear is the voice? (1 unclear, 5 clear)",
  trust: "Do you trust the voice? (1 not at all, 5 fully)",
  fit: "Does the voice fit the text? (1 not at all, 5 perfectly)",
};
const HEADINGS = { pairs: "Which voice do you like better?", scales: "How is this voice?" };
const find = (id) => document.getElementById(id);
const home = location.pathname.replace(/\/$/, "");

let shown = null;
let unheard = new Set();

const allow = () => {
  for (const button of document.querySelectorAll("form button")) button.disabled = unheard.size > 0;
  find("hint").hidden = unheard.size === 0;
};

const clip = (address, letter) => {
  const row = document.createElement("div");
  row.className = "clip";
  const name = document.createElement("b");
  name.textContent = letter;
  const player = document.createElement("audio");
  player.controls = true;
  player.preload = "auto";
  player.src = address;
  player.setAttribute("aria-label", `Voice ${letter}`);
  player.addEventListener("play", () => {
    for (const other of document.querySelectorAll("audio")) if (other !== player) other.pause();
    unheard.delete(address);
    allow();
  });
  row.append(name, player);
  return row;
};

const question = (scale) => {
  const set = document.createElement("fieldset");
  const legend = document.createElement("legend");
  legend.textContent = QUESTIONS[scale] ?? scale;
  set.append(legend);
  for (let score = 1; score <= 5; score += 1) {
    const label = document.createElement("label");
    const choice = document.createElement("input");
    Object.assign(choice, { type: "radio", name: scale, value: String(score), required: true });
    label.append(choice, ` ${score}`);
    set.append(label);
  }
  return set;
};

const show = (view) => {
  shown = view;
  const over = view.task === null;
  find("progress").max = Math.max(1, view.total);
  find("progress").value = view.done;
  find("count").textContent = `${view.done} of ${view.total}`;
  find("task").hidden = over;
  find("end").hidden = !over;
  document.querySelector("h1").textContent = HEADINGS[view.mode];
  if (over) return;
  find("text").textContent = view.text;
  unheard = new Set(view.clips);
  find("clips").replaceChildren(...view.clips.map((address, n) => clip(address, "AB"[n])));
  find("pair").hidden = view.mode !== "pairs";
  find("scales").hidden = view.mode !== "scales";
  find("questions").replaceChildren(...(view.mode === "scales" ? view.scales.map(question) : []));
  allow();
};

const ask = async (path, options) => {
  find("problem").hidden = true;
  try {
    const reply = await fetch(home + path, options);
    const body = await reply.json();
    if (!reply.ok) throw new Error(body.error);
    show(body);
  } catch (problem) {
    find("problem").textContent = `The answer was not taken: ${problem.message}. Please try again.`;
    find("problem").hidden = false;
    allow();
  }
};

const answer = (fields) => {
  for (const button of document.querySelectorAll("form button")) button.disabled = true;
  ask("/answer", { method: "POST", body: JSON.stringify({ task: shown.task, ...fields }) });
};

for (const button of find("pair").querySelectorAll("button")) {
  button.addEventListener("click", () => answer({ choice: button.value }));
}
find("scales").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = new FormData(find("scales"));
  answer({ scores: Object.fromEntries(shown.scales.map((name) => [name, Number(given.get(name))])) });
});
ask("/next");
