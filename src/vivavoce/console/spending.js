/** What a conversation has used: turns, seconds, tokens, and money where prices are known. */
import { duration } from "./ui.js";

const NANO = 1e9;

/** The sums over a conversation, from its turns, its entries and its response.done events. */
export class Spending {
  #responses = new Map(); // id -> {input, output, nano: number | null}

  /** Take a server event; response.done matters. Returns whether the sums have changed. */
  feed(event) {
    if (event.type !== "response.done" || !event.response?.usage) return false;
    const { usage, id } = event.response;
    this.#responses.set(id, {
      input: usage.input_tokens ?? 0,
      output: usage.output_tokens ?? 0,
      nano: event.x_usage?.response_nano_usd || null, // 0: no prices are known
    });
    return true;
  }

  /** {input, output, nano}: nano is null where the price of any response is unknown. */
  get sums() {
    const sums = { input: 0, output: 0, nano: this.#responses.size ? 0 : null };
    for (const { input, output, nano } of this.#responses.values()) {
      sums.input += input;
      sums.output += output;
      sums.nano = nano === null || sums.nano === null ? null : sums.nano + nano;
    }
    return sums;
  }
}

/** The sums of the events of a conversation that was kept. */
export function spendingOf(lines) {
  const spending = new Spending();
  for (const { event, sent } of lines) if (!sent) spending.feed(event);
  return spending;
}

/** "12 turns · 4 m 10 s heard · 1 m 52 s spoken · 2,310 in / 640 out tokens · $0.0031"; "" before the first turn. */
export function usageLine({ turns, transcript }, spending) {
  const count = turns.all.filter(({ marks }) => marks.end !== undefined).length;
  if (!count) return "";
  const heard = lengthOf(transcript.entries, "user");
  const spoken = lengthOf(transcript.entries, "assistant");
  const { input, output, nano } = spending.sums;
  const parts = [`${count} ${count === 1 ? "turn" : "turns"}`];
  if (heard) parts.push(`${duration(heard)} heard`);
  if (spoken) parts.push(`${duration(spoken)} spoken`);
  if (input || output) {
    parts.push(`${input.toLocaleString("en")} in / ${output.toLocaleString("en")} out tokens`);
  }
  if (nano !== null) parts.push(`$${(nano / NANO).toFixed(4)}`);
  return parts.join(" · ");
}

function lengthOf(entries, role) {
  return entries
    .filter((entry) => entry.role === role && entry.sound)
    .reduce((sum, { sound: [from, to] }) => sum + to - from, 0);
}
